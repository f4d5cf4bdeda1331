//! Names of the cluster's zone, taken apart; and addresses as labels.

use std::net::IpAddr;

use hickory_proto::rr::Name;

/// What a name of the zone is about.
#[derive(Debug, PartialEq, Eq)]
pub enum Subject {
    /// The zone itself.
    Apex,
    /// What only has names below it.
    Branch,
    /// `dns-version`
    SchemaVersion,
    /// `ns.dns`
    NameServer,
    /// `NAMESPACE.svc` and `NAMESPACE.pod`
    Namespace(String),
    /// `SERVICE.NAMESPACE.svc`
    Service { namespace: String, service: String },
    /// `HOSTNAME.SERVICE.NAMESPACE.svc`
    Endpoint { namespace: String, service: String, hostname: String },
    /// `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc`
    Port { namespace: String, service: String, port: String, protocol: String },
    /// `1-2-3-4.NAMESPACE.pod`
    Pod { namespace: String, name: String },
    /// Nothing that could exist.
    Unknown,
}

impl Subject {
    /// What `name` is about, which is of `zone`. Names of the API are written in small letters, those of the DNS in any.
    pub fn of(name: &Name, zone: &Name) -> Self {
        let count = name.iter().count() - zone.iter().count().min(name.iter().count());
        let labels: Option<Vec<String>> =
            name.iter().take(count).map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase)).collect();
        let Some(mut labels) = labels else { return Self::Unknown };
        labels.reverse();
        let text = |label: &String| label.clone();
        // Underscores are upstream's to leave out.
        let plain = |label: &str| label.strip_prefix('_').unwrap_or(label).to_owned();
        match labels.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => Self::Apex,
            ["svc" | "pod" | "dns"] => Self::Branch,
            ["dns-version"] => Self::SchemaVersion,
            ["dns", "ns"] => Self::NameServer,
            ["svc" | "pod", _] => Self::Namespace(text(&labels[1])),
            ["pod", _, _] => Self::Pod { namespace: text(&labels[1]), name: text(&labels[2]) },
            ["svc", _, _] => Self::Service { namespace: text(&labels[1]), service: text(&labels[2]) },
            ["svc", _, _, _] => {
                Self::Endpoint { namespace: text(&labels[1]), service: text(&labels[2]), hostname: text(&labels[3]) }
            }
            ["svc", _, _, protocol, port] => Self::Port {
                namespace: text(&labels[1]),
                service: text(&labels[2]),
                port: plain(port),
                protocol: plain(protocol),
            },
            _ => Self::Unknown,
        }
    }
}

/// The label of an endpoint that has no host name.
pub fn label(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string().replace('.', "-"),
        IpAddr::V6(address) => {
            let mut label = address.to_string().replace(':', "-");
            // A label does not end with a dash, nor does it begin with one.
            if label.ends_with('-') {
                label.push('0');
            }
            if label.starts_with('-') {
                label.insert(0, '0');
            }
            label
        }
    }
}

/// The address that a pod's label is written after.
pub fn dashed(label: &str) -> Option<IpAddr> {
    let four = label.matches('-').count() == 3 && !label.contains("--");
    label.replace('-', if four { "." } else { ":" }).parse().ok()
}

/// The address that a name in `in-addr.arpa` or `ip6.arpa` is of, if it is of a single one.
pub fn address(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// The name that an ExternalName Service leads to; `None` for an address, which is not a name.
pub fn external(text: &str) -> Option<Name> {
    if text.is_empty() || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    #[test]
    fn names_are_taken_apart() {
        let of = |text: &str| Subject::of(&name(&format!("{text}cluster.local.")), &name("cluster.local."));
        let s = String::from;
        for (text, want) in [
            ("", Subject::Apex),
            ("svc.", Subject::Branch),
            ("dns-version.", Subject::SchemaVersion),
            ("ns.dns.", Subject::NameServer),
            ("Prod.SVC.", Subject::Namespace(s("prod"))),
            ("Web.Prod.svc.", Subject::Service { namespace: s("prod"), service: s("web") }),
            ("a.web.prod.svc.", Subject::Endpoint { namespace: s("prod"), service: s("web"), hostname: s("a") }),
            (
                "_HTTP._Tcp.web.prod.svc.",
                Subject::Port { namespace: s("prod"), service: s("web"), port: s("http"), protocol: s("tcp") },
            ),
            ("a.b.c.web.prod.svc.", Subject::Unknown),
            ("10-0-0-1.prod.pod.", Subject::Pod { namespace: s("prod"), name: s("10-0-0-1") }),
            ("a.10-0-0-1.prod.pod.", Subject::Unknown),
            ("svc.default.", Subject::Unknown),
        ] {
            assert_eq!(of(text), want, "{text}");
        }
        let labels: [&[u8]; 4] = [b"\xff", b"svc", b"cluster", b"local"];
        let odd = Name::from_labels(labels).expect("a name may hold any bytes");
        assert_eq!(Subject::of(&odd, &name("cluster.local.")), Subject::Unknown);
    }

    #[test]
    fn addresses_are_labels_and_back() {
        for (ip, want) in [
            ("10.0.0.1", "10-0-0-1"),
            ("fd00::1", "fd00--1"),
            ("fd00::", "fd00--0"),
            ("::1", "0--1"),
            ("2001:db8:0:1:2:3:4:5", "2001-db8-0-1-2-3-4-5"),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(label(ip), want);
            assert_eq!(dashed(want), Some(ip), "{want}");
        }
        for text in ["", "web", "10-0-0", "10-0-0-256", "1-2-3-4-5", "---"] {
            assert_eq!(dashed(text), None, "{text}");
        }
    }

    #[test]
    fn reversed_addresses() {
        let of = |text: &str| address(&name(text)).map(|ip| ip.to_string());
        assert_eq!(of("1.0.96.10.IN-ADDR.arpa.").as_deref(), Some("10.96.0.1"));
        assert_eq!(
            of("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.").as_deref(),
            Some("fd00::1")
        );
        for text in ["96.10.in-addr.arpa.", "0.1.0.96.10.in-addr.arpa.", "x.0.96.10.in-addr.arpa.", "ip6.arpa.", "."] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn external_names() {
        assert_eq!(external("Example.com").map(|n| n.to_ascii()).as_deref(), Some("Example.com."));
        for text in ["", "10.0.0.1", "fd00::1", "a..b"] {
            assert_eq!(external(text), None, "{text}");
        }
    }
}
