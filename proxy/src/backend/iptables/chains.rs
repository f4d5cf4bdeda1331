//! Names of chains, the jumps that hang ours into the built-in ones, and reading `iptables-save`.

use sha2::{Digest, Sha256};

use crate::types::{Endpoint, ServicePortName};

/// Dispatches by service address (nat), rejects those without endpoints (filter).
pub const KUBE_SERVICES: &str = "KUBE-SERVICES";
/// Rejects or drops traffic from outside for services without usable endpoints.
pub const KUBE_EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
/// Dispatches by node port (nat), accepts health check ports (filter).
pub const KUBE_NODEPORTS: &str = "KUBE-NODEPORTS";
/// Masquerades what was marked.
pub const KUBE_POSTROUTING: &str = "KUBE-POSTROUTING";
/// Marks for masquerading.
pub const KUBE_MARK_MASQ: &str = "KUBE-MARK-MASQ";
/// Accepts what was marked, drops what conntrack calls invalid.
pub const KUBE_FORWARD: &str = "KUBE-FORWARD";
/// Drops traffic to load balancer addresses from outside the source ranges.
pub const KUBE_PROXY_FIREWALL: &str = "KUBE-PROXY-FIREWALL";
/// Never used; its absence tells that somebody flushed the table.
pub const KUBE_PROXY_CANARY: &str = "KUBE-PROXY-CANARY";
/// Shared with the kubelet: blocks foreign traffic to 127.0.0.0/8.
pub const KUBE_FIREWALL: &str = "KUBE-FIREWALL";

/// A jump from a built-in chain to one of ours.
#[derive(Debug)]
pub struct Jump {
    /// The table.
    pub table: &'static str,
    /// Our chain.
    pub to: &'static str,
    /// The built-in chain.
    pub from: &'static str,
    comment: &'static str,
    only_new: bool,
}

impl Jump {
    /// The rule after `-A chain`.
    pub fn arguments(&self) -> String {
        let mut arguments = String::new();
        if self.only_new {
            arguments.push_str("-m conntrack --ctstate NEW ");
        }
        if !self.comment.is_empty() {
            arguments.push_str(&format!("-m comment --comment \"{}\" ", self.comment));
        }
        arguments.push_str("-j ");
        arguments.push_str(self.to);
        arguments
    }
}

const fn jump(
    table: &'static str,
    to: &'static str,
    from: &'static str,
    comment: &'static str,
    only_new: bool,
) -> Jump {
    Jump { table, to, from, comment, only_new }
}

/// Each is inserted at the head, so the last of a chain comes first in it.
pub const JUMPS: &[Jump] = &[
    jump("filter", KUBE_EXTERNAL_SERVICES, "INPUT", "kubernetes externally-visible service portals", true),
    jump("filter", KUBE_EXTERNAL_SERVICES, "FORWARD", "kubernetes externally-visible service portals", true),
    jump("filter", KUBE_NODEPORTS, "INPUT", "kubernetes health check service ports", false),
    jump("filter", KUBE_SERVICES, "FORWARD", "kubernetes service portals", true),
    jump("filter", KUBE_SERVICES, "OUTPUT", "kubernetes service portals", true),
    jump("filter", KUBE_FORWARD, "FORWARD", "kubernetes forwarding rules", false),
    jump("filter", KUBE_PROXY_FIREWALL, "INPUT", "kubernetes load balancer firewall", true),
    jump("filter", KUBE_PROXY_FIREWALL, "OUTPUT", "kubernetes load balancer firewall", true),
    jump("filter", KUBE_PROXY_FIREWALL, "FORWARD", "kubernetes load balancer firewall", true),
    jump("nat", KUBE_SERVICES, "OUTPUT", "kubernetes service portals", false),
    jump("nat", KUBE_SERVICES, "PREROUTING", "kubernetes service portals", false),
    jump("nat", KUBE_POSTROUTING, "POSTROUTING", "kubernetes postrouting rules", false),
    jump("filter", KUBE_FIREWALL, "INPUT", "", false),
    jump("filter", KUBE_FIREWALL, "OUTPUT", "", false),
];

const SERVICE_CHAIN_PREFIXES: &[&str] = &["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-"];

/// Whether a chain belongs to one service.
pub fn is_service_chain(chain: &str) -> bool {
    SERVICE_CHAIN_PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
}

/// The chains of one service port; hashed because a chain's name is limited to 28 characters.
#[derive(Debug)]
pub struct ServiceChains {
    /// Spreads over cluster endpoints.
    pub cluster: String,
    /// Spreads over local endpoints.
    pub local: String,
    /// Checks load balancer source ranges.
    pub firewall: String,
    /// Takes external traffic.
    pub external: String,
}

impl ServiceChains {
    /// The chains' names.
    pub fn new(name: &str, protocol: &str) -> Self {
        let hash = hash(&[name, protocol]);
        Self {
            cluster: format!("KUBE-SVC-{hash}"),
            local: format!("KUBE-SVL-{hash}"),
            firewall: format!("KUBE-FW-{hash}"),
            external: format!("KUBE-EXT-{hash}"),
        }
    }
}

/// The chain of one endpoint of a service port.
pub fn endpoint_chain(port: &ServicePortName, endpoint: &Endpoint) -> String {
    let hash = hash(&[&port.to_string(), port.protocol.lower(), &endpoint.to_string()]);
    format!("KUBE-SEP-{hash}")
}

/// The first 16 characters of the base32 (RFC 4648) of the sha256.
fn hash(parts: &[&str]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part.as_bytes());
    }
    let digest = sha.finalize();
    // 16 characters of 5 bits are exactly the first 10 bytes.
    let bits = digest[..10].iter().fold(0u128, |bits, byte| (bits << 8) | u128::from(*byte));
    (0..16).rev().map(|i| char::from(ALPHABET[((bits >> (i * 5)) & 31) as usize])).collect()
}

/// The chains declared in the output of `iptables-save`.
pub fn chains_of(saved: &str) -> impl Iterator<Item = &str> {
    saved.lines().filter_map(|line| line.strip_prefix(':')?.split_whitespace().next())
}

/// Whether the output of `iptables-save` holds this jump.
pub fn jump_is_present(saved: &str, jump: &Jump) -> bool {
    let mut wanted = words(&jump.arguments());
    wanted.sort_unstable();
    let head = format!("-A {} ", jump.from);
    saved.lines().filter_map(|line| line.strip_prefix(&head)).any(|rest| {
        // Versions of iptables print the matches in different orders.
        let mut found = words(rest);
        found.sort_unstable();
        found == wanted
    })
}

/// Splits a rule into words; quotes keep blanks together and are dropped.
pub fn words(rule: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in rule.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod chain_tests {
    use super::*;
    use crate::types::{NamespacedName, Protocol};

    /// The names were read from upstream kube-proxy's own test expectations.
    #[test]
    fn names_equal_upstreams() {
        let port = |ns: &str, name: &str, port: &str| ServicePortName {
            service: NamespacedName { namespace: ns.into(), name: name.into() },
            port: port.into(),
            protocol: Protocol::Tcp,
        };
        let endpoint = |ip: &str, port: u16| Endpoint {
            ip: ip.parse().unwrap(),
            port,
            is_local: false,
            ready: true,
            serving: true,
            terminating: false,
            zone_hints: Default::default(),
            node_hints: Default::default(),
        };
        let chains = ServiceChains::new("ns1/svc1:p80", "tcp");
        assert_eq!(chains.cluster, "KUBE-SVC-XPGD46QRK7WJZT7O");
        assert_eq!(chains.external, "KUBE-EXT-XPGD46QRK7WJZT7O");
        assert_eq!(
            endpoint_chain(&port("ns1", "svc1", "p80"), &endpoint("10.180.0.1", 80)),
            "KUBE-SEP-SXIVWICOYRO3J4NJ"
        );
        assert_eq!(ServiceChains::new("ns2/svc2:p80", "tcp").cluster, "KUBE-SVC-GNZBNJ2PO5MGZ6GT");
    }

    #[test]
    fn finds_jumps_in_any_order() {
        let jump = &JUMPS[0];
        for saved in [
            "-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n",
            "-A INPUT -m comment --comment \"kubernetes externally-visible service portals\" -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES\n",
        ] {
            assert!(jump_is_present(saved, jump), "{saved}");
        }
        for saved in [
            "",
            "-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES\n",
            "-A INPUT -j KUBE-EXTERNAL-SERVICES\n",
        ] {
            assert!(!jump_is_present(saved, jump), "{saved}");
        }
    }
}
