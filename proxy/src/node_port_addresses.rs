//! On which of the node's addresses node ports answer (`--nodeport-addresses`).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::types::IpFamily;

/// The ranges of one family.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePortAddresses {
    ranges: Vec<IpNet>,
}

impl NodePortAddresses {
    /// Keeps the ranges of `family`; without any, all addresses match (even if there are ranges of
    /// the other family).
    pub fn new(family: IpFamily, ranges: &[IpNet]) -> Self {
        let mut ranges: Vec<IpNet> = ranges.iter().filter(|net| IpFamily::of_net(net) == family).copied().collect();
        if ranges.is_empty() || ranges.iter().any(|net| net.prefix_len() == 0) {
            ranges = vec![match family {
                IpFamily::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
                IpFamily::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
            }];
        }
        Self { ranges }
    }

    /// Whether every address of the node matches.
    pub fn match_all(&self) -> bool {
        self.ranges.iter().any(|net| net.prefix_len() == 0)
    }

    /// Whether `127.0.0.0/8` is among them.
    pub fn contains_ipv4_loopback(&self) -> bool {
        let start = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 0));
        self.ranges.iter().any(|net| matches!(net, IpNet::V4(_)) && (net.addr().is_loopback() || net.contains(&start)))
    }

    /// Those of the node's addresses that match, sorted.
    pub fn select(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut selected: Vec<IpAddr> =
            addresses.iter().filter(|ip| self.ranges.iter().any(|net| net.contains(*ip))).copied().collect();
        selected.sort();
        selected.dedup();
        selected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_by_family() {
        let parse = |s: &[&str]| s.iter().map(|s| s.parse().unwrap()).collect::<Vec<IpNet>>();
        let cases: &[(IpFamily, &[&str], bool, bool)] = &[
            (IpFamily::V4, &[], true, true),
            (IpFamily::V6, &[], true, false),
            (IpFamily::V4, &["127.0.0.0/8"], false, true),
            (IpFamily::V4, &["127.0.0.1/32"], false, true),
            (IpFamily::V4, &["10.0.0.0/8"], false, false),
            (IpFamily::V6, &["10.0.0.0/8"], true, false),
            (IpFamily::V4, &["10.0.0.0/8", "0.0.0.0/0"], true, true),
        ];
        for (family, nets, all, loopback) in cases {
            let npa = NodePortAddresses::new(*family, &parse(nets));
            assert_eq!(npa.match_all(), *all, "{nets:?}");
            assert_eq!(npa.contains_ipv4_loopback(), *loopback, "{nets:?}");
        }
        let npa = NodePortAddresses::new(IpFamily::V4, &parse(&["10.0.0.0/8"]));
        let addresses: Vec<IpAddr> =
            ["127.0.0.1", "10.2.0.1", "192.168.0.1", "10.1.0.1", "::1"].iter().map(|s| s.parse().unwrap()).collect();
        assert_eq!(
            npa.select(&addresses).iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.1.0.1", "10.2.0.1"]
        );
    }
}
