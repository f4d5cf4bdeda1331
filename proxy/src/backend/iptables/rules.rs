//! Service ports and endpoints in, the text of `iptables-restore` out. Pure.
//!
//! A packet to a service passes `KUBE-SERVICES` (and `KUBE-NODEPORTS`), then for external
//! addresses `KUBE-FW-*` and `KUBE-EXT-*`, then `KUBE-SVC-*` (policy Cluster) or `KUBE-SVL-*`
//! (policy Local), which pick one `KUBE-SEP-*`, which rewrites the destination. Traffic that must
//! come back through this node is marked on the way and masqueraded in `KUBE-POSTROUTING`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use super::chains::{
    KUBE_EXTERNAL_SERVICES, KUBE_FIREWALL, KUBE_FORWARD, KUBE_MARK_MASQ, KUBE_NODEPORTS, KUBE_POSTROUTING,
    KUBE_PROXY_FIREWALL, KUBE_SERVICES, ServiceChains, endpoint_chain,
};
use crate::backend::{Scope, View};
use crate::local_detector::LocalTrafficDetector;
use crate::node_port_addresses::NodePortAddresses;
use crate::topology::{Categorized, categorize};
use crate::types::{Endpoint, IpFamily, NamespacedName, ServicePort, ServicePortName};

/// Above this many endpoints comments are left out of the busiest chains: they are 40% of the text.
pub const LARGE_CLUSTER_ENDPOINTS_THRESHOLD: usize = 1000;

/// What does not change while the proxy runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The family.
    pub family: IpFamily,
    /// Masquerade everything that goes to a service address.
    pub masquerade_all: bool,
    /// The packet mark meaning "masquerade".
    pub masquerade_mark: u32,
    /// Node ports answer on 127.0.0.1 too.
    pub localhost_node_ports: bool,
    /// Tells pods' traffic from other traffic.
    pub local_detector: LocalTrafficDetector,
    /// Node ports answer on these.
    pub node_port_addresses: NodePortAddresses,
    /// This node's addresses, looked at when `node_port_addresses` names ranges.
    pub node_addresses: Vec<IpAddr>,
    /// This node.
    pub node_name: String,
    /// Its primary address of this family.
    pub node_ip: Option<IpAddr>,
    /// The kernel takes out-of-window packets, so nothing needs to be dropped as invalid.
    pub conntrack_tcp_liberal: bool,
    /// `MASQUERADE --random-fully` exists (iptables 1.6.2).
    pub random_fully: bool,
}

/// One sync's text, by table and part, and what it contains.
#[derive(Debug, Default)]
pub struct Generated {
    /// `:CHAIN - [0:0]` lines.
    pub filter_chains: String,
    /// `-A` lines.
    pub filter_rules: String,
    /// `:CHAIN - [0:0]` lines.
    pub nat_chains: String,
    /// `-A` lines.
    pub nat_rules: String,
    /// nat chains of every service in scope.
    pub chains: BTreeMap<NamespacedName, BTreeSet<String>>,
    /// nat rules in those chains.
    pub rules_per_service: BTreeMap<NamespacedName, usize>,
    /// nat rules in the chains all services share.
    pub shared_nat_rules: usize,
    /// Ports with internalTrafficPolicy Local and no local endpoint.
    pub no_local_endpoints_internal: usize,
    /// Ports with externalTrafficPolicy Local and no local endpoint.
    pub no_local_endpoints_external: usize,
}

/// `writeln!` into a `String` cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

/// The whole text for `view`; under [`Scope::Changed`] only the changed services' own chains are in
/// it, but always the shared ones.
pub fn generate(settings: &Settings, view: View<'_>, scope: Scope<'_>) -> Generated {
    let mut out = Generated::default();
    write_shared_chains(settings, &mut out, matches!(scope, Scope::Full));
    let endpoints_total: usize = view.services.keys().filter_map(|port| view.endpoints.get(port)).map(Vec::len).sum();
    let comments = endpoints_total <= LARGE_CLUSTER_ENDPOINTS_THRESHOLD;
    let mut own = String::new();
    for (name, port) in view.services {
        let endpoints = view.endpoints.get(name).map(Vec::as_slice).unwrap_or_default();
        let selected = categorize(endpoints, port, &settings.node_name, view.zone);
        let text = name.to_string();
        let chains = ServiceChains::new(&text, name.protocol.lower());
        let writer = PortWriter { settings, name, text: &text, port, chains: &chains, selected: &selected, comments };
        writer.dispatch(&mut out);
        let in_scope = match scope {
            Scope::Full => true,
            Scope::Changed(services) => services.contains(&name.service),
        };
        if in_scope {
            let before = own.len();
            writer.own_chains(&mut out, &mut own);
            *out.rules_per_service.entry(name.service.clone()).or_default() += own[before..].lines().count();
        }
    }
    write_node_ports_jump(settings, &mut out);
    write_forward_rules(settings, &mut out);
    out.shared_nat_rules = out.nat_rules.lines().count();
    out.nat_rules.push_str(&own);
    out
}

fn write_shared_chains(settings: &Settings, out: &mut Generated, full: bool) {
    for chain in [KUBE_SERVICES, KUBE_EXTERNAL_SERVICES, KUBE_FORWARD, KUBE_NODEPORTS, KUBE_PROXY_FIREWALL] {
        line!(out.filter_chains, ":{chain} - [0:0]");
    }
    for chain in [KUBE_SERVICES, KUBE_NODEPORTS, KUBE_POSTROUTING, KUBE_MARK_MASQ] {
        line!(out.nat_chains, ":{chain} - [0:0]");
    }
    let mark = format!("{:#08x}", settings.masquerade_mark);
    line!(out.nat_rules, "-A {KUBE_POSTROUTING} -m mark ! --mark {mark}/{mark} -j RETURN");
    // Clear the mark, or a packet that passes again would be masqueraded again.
    line!(out.nat_rules, "-A {KUBE_POSTROUTING} -j MARK --xor-mark {mark}");
    let random_fully = if settings.random_fully { " --random-fully" } else { "" };
    line!(
        out.nat_rules,
        "-A {KUBE_POSTROUTING} -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE{random_fully}"
    );
    line!(out.nat_rules, "-A {KUBE_MARK_MASQ} -j MARK --or-mark {mark}");
    // route_localnet lets neighbours reach services bound to 127.0.0.1; this rule closes that
    // again (CVE-2020-8558). The kubelet writes the same rule, hence both only on a full sync.
    if full && settings.family == IpFamily::V4 && settings.localhost_node_ports {
        line!(out.filter_chains, ":{KUBE_FIREWALL} - [0:0]");
        line!(
            out.filter_rules,
            "-A {KUBE_FIREWALL} -m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
        );
    }
}

fn write_node_ports_jump(settings: &Settings, out: &mut Generated) {
    const COMMENT: &str =
        "-m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\"";
    if settings.node_port_addresses.match_all() {
        let not_loopback = match settings.family {
            IpFamily::V6 => " ! -d ::1/128",
            IpFamily::V4 if !settings.localhost_node_ports => " ! -d 127.0.0.0/8",
            IpFamily::V4 => "",
        };
        line!(
            out.nat_rules,
            "-A {KUBE_SERVICES} {COMMENT} -m addrtype --dst-type LOCAL{not_loopback} -j {KUBE_NODEPORTS}"
        );
        return;
    }
    for ip in settings.node_port_addresses.select(&settings.node_addresses) {
        if ip.is_loopback() && !(settings.family == IpFamily::V4 && settings.localhost_node_ports) {
            continue;
        }
        line!(out.nat_rules, "-A {KUBE_SERVICES} {COMMENT} -d {ip} -j {KUBE_NODEPORTS}");
    }
}

fn write_forward_rules(settings: &Settings, out: &mut Generated) {
    let mark = format!("{:#08x}", settings.masquerade_mark);
    // Packets that conntrack calls invalid pass untranslated and would reset connections.
    if !settings.conntrack_tcp_liberal {
        line!(out.filter_rules, "-A {KUBE_FORWARD} -m conntrack --ctstate INVALID -j DROP");
    }
    // Service traffic passes even where the FORWARD policy is DROP.
    line!(
        out.filter_rules,
        "-A {KUBE_FORWARD} -m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark}/{mark} -j ACCEPT"
    );
    line!(
        out.filter_rules,
        "-A {KUBE_FORWARD} -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    );
}

/// Writes the rules of one service port.
struct PortWriter<'a> {
    settings: &'a Settings,
    name: &'a ServicePortName,
    text: &'a str,
    port: &'a ServicePort,
    chains: &'a ServiceChains,
    selected: &'a Categorized<'a>,
    comments: bool,
}

impl PortWriter<'_> {
    fn has_internal_endpoints(&self) -> bool {
        self.selected.has_any && !(self.port.internal_policy_local && self.selected.local.is_empty())
    }

    fn has_external_endpoints(&self) -> bool {
        self.selected.has_any && !(self.port.external_policy_local && self.selected.local.is_empty())
    }

    fn uses_firewall(&self) -> bool {
        self.selected.has_any
            && !self.port.load_balancer_vips.is_empty()
            && !self.port.load_balancer_source_ranges.is_empty()
    }

    fn internal_chain(&self) -> &str {
        if self.port.internal_policy_local { &self.chains.local } else { &self.chains.cluster }
    }

    fn external_policy_chain(&self) -> &str {
        if self.port.external_policy_local { &self.chains.local } else { &self.chains.cluster }
    }

    /// The rules in the chains all services share.
    fn dispatch(&self, out: &mut Generated) {
        let Self { text, port, .. } = self;
        let protocol = self.name.protocol.lower();
        let has_any = self.selected.has_any;
        let to = |ip: &IpAddr| format!("-m {protocol} -p {protocol} -d {ip} --dport {}", port.port);
        // Without endpoints anywhere the client is told so; with endpoints only elsewhere its
        // packets vanish, so that a load balancer may still send it to another node.
        let (verdict, reason) = if has_any { ("DROP", "local endpoints") } else { ("REJECT", "endpoints") };

        if self.has_internal_endpoints() {
            line!(
                out.nat_rules,
                "-A {KUBE_SERVICES} -m comment --comment \"{text} cluster IP\" {} -j {}",
                to(&port.cluster_ip),
                self.internal_chain()
            );
        } else {
            out.no_local_endpoints_internal += usize::from(has_any);
            line!(
                out.filter_rules,
                "-A {KUBE_SERVICES} -m comment --comment \"{text} has no {reason}\" {} -j {verdict}",
                to(&port.cluster_ip)
            );
        }
        let external = self.has_external_endpoints();
        out.no_local_endpoints_external += usize::from(has_any && !external);
        for ip in &port.external_ips {
            if has_any {
                line!(
                    out.nat_rules,
                    "-A {KUBE_SERVICES} -m comment --comment \"{text} external IP\" {} -j {}",
                    to(ip),
                    self.chains.external
                );
            }
            if !external {
                line!(
                    out.filter_rules,
                    "-A {KUBE_EXTERNAL_SERVICES} -m comment --comment \"{text} has no {reason}\" {} -j {verdict}",
                    to(ip)
                );
            }
        }
        for ip in &port.load_balancer_vips {
            if has_any {
                let chain = if self.uses_firewall() { &self.chains.firewall } else { &self.chains.external };
                line!(
                    out.nat_rules,
                    "-A {KUBE_SERVICES} -m comment --comment \"{text} loadbalancer IP\" {} -j {chain}",
                    to(ip)
                );
            }
            if self.uses_firewall() {
                line!(
                    out.filter_rules,
                    "-A {KUBE_PROXY_FIREWALL} -m comment --comment \"{text} traffic not accepted by {}\" {} -j DROP",
                    self.chains.firewall,
                    to(ip)
                );
            }
            if !external {
                line!(
                    out.filter_rules,
                    "-A {KUBE_EXTERNAL_SERVICES} -m comment --comment \"{text} has no {reason}\" {} -j {verdict}",
                    to(ip)
                );
            }
        }
        if port.node_port != 0 {
            let dport = port.node_port;
            if has_any {
                line!(
                    out.nat_rules,
                    "-A {KUBE_NODEPORTS} -m comment --comment {text} -m {protocol} -p {protocol} --dport {dport} -j {}",
                    self.chains.external
                );
            }
            if !external {
                line!(
                    out.filter_rules,
                    "-A {KUBE_EXTERNAL_SERVICES} -m comment --comment \"{text} has no {reason}\" -m addrtype --dst-type LOCAL -m {protocol} -p {protocol} --dport {dport} -j {verdict}"
                );
            }
        }
        if port.health_check_node_port != 0 {
            line!(
                out.filter_rules,
                "-A {KUBE_NODEPORTS} -m comment --comment \"{text} health check node port\" -m tcp -p tcp --dport {} -j ACCEPT",
                port.health_check_node_port
            );
        }
    }

    /// The chains that belong to this port alone.
    fn own_chains(&self, out: &mut Generated, rules: &mut String) {
        let Self { settings, text, port, chains, selected, .. } = self;
        let mut declared: Vec<&str> = Vec::new();
        let uses_cluster = !selected.cluster.is_empty();
        let uses_local = !selected.local.is_empty();
        if self.has_internal_endpoints() {
            let protocol = self.name.protocol.lower();
            let from = if settings.masquerade_all {
                Some(String::new())
            } else {
                // A client outside the cluster may route the service range to any node: its
                // answers must come back through this one.
                settings.local_detector.if_not_local().map(|m| format!(" {m}"))
            };
            if let Some(from) = from {
                line!(
                    rules,
                    "-A {} -m comment --comment \"{text} cluster IP\" -m {protocol} -p {protocol} -d {} --dport {}{from} -j {KUBE_MARK_MASQ}",
                    self.internal_chain(),
                    port.cluster_ip,
                    port.port
                );
            }
        }
        if selected.has_any && port.externally_accessible() {
            declared.push(&chains.external);
            self.external_chain(rules);
        }
        if self.uses_firewall() {
            declared.push(&chains.firewall);
            self.firewall_chain(rules);
        }
        if uses_cluster {
            declared.push(&chains.cluster);
            self.spread(rules, &chains.cluster, &selected.cluster);
        }
        if uses_local {
            declared.push(&chains.local);
            self.spread(rules, &chains.local, &selected.local);
        }
        let own = out.chains.entry(self.name.service.clone()).or_default();
        for chain in declared {
            line!(out.nat_chains, ":{chain} - [0:0]");
            own.insert(chain.to_owned());
        }
        for endpoint in &selected.reachable {
            let chain = self.endpoint(rules, endpoint);
            line!(out.nat_chains, ":{chain} - [0:0]");
            own.insert(chain);
        }
    }

    fn external_chain(&self, rules: &mut String) {
        let Self { settings, text, port, chains, .. } = self;
        let external = &chains.external;
        if !port.external_policy_local {
            // The endpoint may be on another node, whose answer must come back here.
            line!(
                rules,
                "-A {external} -m comment --comment \"masquerade traffic for {text} external destinations\" -j {KUBE_MARK_MASQ}"
            );
        } else {
            // Pods and the node itself reach all endpoints, as if they went out to a load balancer
            // and came back.
            if let Some(local) = settings.local_detector.if_local() {
                line!(
                    rules,
                    "-A {external} -m comment --comment \"pod traffic for {text} external destinations\" {local} -j {}",
                    chains.cluster
                );
            }
            line!(
                rules,
                "-A {external} -m comment --comment \"masquerade LOCAL traffic for {text} external destinations\" -m addrtype --src-type LOCAL -j {KUBE_MARK_MASQ}"
            );
            line!(
                rules,
                "-A {external} -m comment --comment \"route LOCAL traffic for {text} external destinations\" -m addrtype --src-type LOCAL -j {}",
                chains.cluster
            );
        }
        if self.has_external_endpoints() {
            line!(rules, "-A {external} -j {}", self.external_policy_chain());
        }
    }

    fn firewall_chain(&self, rules: &mut String) {
        let Self { settings, text, port, chains, .. } = self;
        let firewall = &chains.firewall;
        let mut allow_from_node = false;
        for range in &port.load_balancer_source_ranges {
            line!(
                rules,
                "-A {firewall} -m comment --comment \"{text} loadbalancer IP\" -s {range} -j {}",
                chains.external
            );
            allow_from_node |= settings.node_ip.is_some_and(|ip| range.contains(&ip));
        }
        // Where the load balancer's address is also assigned to the node, the node's own requests
        // come back with that address as their source.
        if allow_from_node {
            for ip in &port.load_balancer_vips {
                line!(
                    rules,
                    "-A {firewall} -m comment --comment \"{text} loadbalancer IP\" -s {ip} -j {}",
                    chains.external
                );
            }
        }
        line!(
            rules,
            "-A {firewall} -m comment --comment \"other traffic to {text} will be dropped by KUBE-PROXY-FIREWALL\""
        );
    }

    /// Picks one of the endpoints with equal probability, or the one the client had before.
    fn spread(&self, rules: &mut String, chain: &str, endpoints: &[&Endpoint]) {
        let comment = |endpoint: &Endpoint| {
            if self.comments { format!(" -m comment --comment \"{} -> {endpoint}\"", self.text) } else { String::new() }
        };
        if let Some(seconds) = self.port.sticky_seconds {
            for endpoint in endpoints {
                let target = endpoint_chain(self.name, endpoint);
                line!(
                    rules,
                    "-A {chain}{} -m recent --name {target} --rcheck --seconds {seconds} --reap -j {target}",
                    comment(endpoint)
                );
            }
        }
        for (i, endpoint) in endpoints.iter().enumerate() {
            let target = endpoint_chain(self.name, endpoint);
            let left = endpoints.len() - i;
            if left > 1 {
                #[allow(clippy::cast_precision_loss)] // far below 2^52 endpoints
                let probability = 1.0 / left as f64;
                line!(
                    rules,
                    "-A {chain}{} -m statistic --mode random --probability {probability:.10} -j {target}",
                    comment(endpoint)
                );
            } else {
                line!(rules, "-A {chain}{} -j {target}", comment(endpoint));
            }
        }
    }

    fn endpoint(&self, rules: &mut String, endpoint: &Endpoint) -> String {
        let chain = endpoint_chain(self.name, endpoint);
        let protocol = self.name.protocol.lower();
        let comment = if self.comments { format!(" -m comment --comment {}", self.text) } else { String::new() };
        // An endpoint that talks to itself through the service must not see its own address.
        line!(rules, "-A {chain}{comment} -s {} -j {KUBE_MARK_MASQ}", endpoint.ip);
        let remember =
            if self.port.sticky_seconds.is_some() { format!(" -m recent --name {chain} --set") } else { String::new() };
        line!(rules, "-A {chain}{comment}{remember} -m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}");
        chain
    }
}
