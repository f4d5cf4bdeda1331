//! What kube-proxy needs to know of its own node: addresses, pod ranges, zone, and whether it is
//! about to go.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::{Config, DetectLocalMode};
use crate::healthcheck::TO_BE_DELETED_TAINT;
use crate::local_detector::LocalTrafficDetector;
use crate::objects::Node;
use crate::topology::LABEL_TOPOLOGY_ZONE;
use crate::types::IpFamily;

/// The addresses the kubelet reported: internal ones first, then external ones.
pub fn reported_addresses(node: &Node) -> Vec<IpAddr> {
    let of = |wanted: &str| {
        node.status
            .addresses
            .iter()
            .filter(|a| a.type_ == wanted)
            .filter_map(|a| a.address.parse::<IpAddr>().ok())
            .collect::<Vec<_>>()
    };
    let mut addresses = of("InternalIP");
    addresses.extend(of("ExternalIP"));
    addresses
}

/// The pod ranges, parsed.
pub fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    node.spec.pod_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect()
}

/// The node's zone; empty without.
pub fn zone(node: &Node) -> &str {
    node.metadata.labels.get(LABEL_TOPOLOGY_ZONE).map_or("", String::as_str)
}

/// Whether load balancers may send it new traffic.
pub fn eligible(node: &Node) -> bool {
    node.metadata.deletion_timestamp.is_none() && !node.spec.taints.iter().any(|taint| taint.key == TO_BE_DELETED_TAINT)
}

/// The primary family, and the node's primary address of each family: `--bind-address` wins over
/// what the node reports, and loopback stands in where nothing is known.
pub fn primary_addresses(reported: &[IpAddr], bind_address: IpAddr) -> (IpFamily, BTreeMap<IpFamily, IpAddr>) {
    let mut addresses = BTreeMap::from([
        (IpFamily::V4, IpAddr::V4(Ipv4Addr::LOCALHOST)),
        (IpFamily::V6, IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ]);
    let mut primary = reported.first().map_or(IpFamily::V4, IpFamily::of);
    for family in [IpFamily::V4, IpFamily::V6] {
        if let Some(ip) = reported.iter().find(|ip| IpFamily::of(ip) == family) {
            addresses.insert(family, *ip);
        }
    }
    if !bind_address.is_unspecified() {
        primary = IpFamily::of(&bind_address);
        addresses.insert(primary, bind_address);
    }
    (primary, addresses)
}

/// How to tell pods' traffic apart in one family.
pub fn local_detector(config: &Config, node_pod_cidrs: &[IpNet], family: IpFamily) -> LocalTrafficDetector {
    let first = |cidrs: &[IpNet]| {
        cidrs
            .iter()
            .find(|cidr| IpFamily::of_net(cidr) == family)
            .map_or(LocalTrafficDetector::None, |cidr| LocalTrafficDetector::Cidr(*cidr))
    };
    match config.detect_local_mode {
        DetectLocalMode::ClusterCidr => first(&config.cluster_cidrs),
        DetectLocalMode::NodeCidr => first(node_pod_cidrs),
        DetectLocalMode::BridgeInterface => LocalTrafficDetector::BridgeInterface(config.bridge_interface.clone()),
        DetectLocalMode::InterfaceNamePrefix => {
            LocalTrafficDetector::InterfaceNamePrefix(config.interface_name_prefix.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(value: serde_json::Value) -> Node {
        serde_json::from_value(value).expect("a node")
    }

    #[test]
    fn addresses() {
        let n = node(json!({"metadata": {"name": "n"}, "status": {"addresses": [
            {"type": "Hostname", "address": "n"}, {"type": "ExternalIP", "address": "203.0.113.5"},
            {"type": "InternalIP", "address": "10.1.1.1"}, {"type": "InternalIP", "address": "fd00::1"}]}}));
        let reported = reported_addresses(&n);
        let cases = [
            ("0.0.0.0", IpFamily::V4, "10.1.1.1", "fd00::1"),
            ("::", IpFamily::V4, "10.1.1.1", "fd00::1"),
            ("192.168.0.1", IpFamily::V4, "192.168.0.1", "fd00::1"),
            ("fd00::9", IpFamily::V6, "10.1.1.1", "fd00::9"),
        ];
        for (bind, family, v4, v6) in cases {
            let (primary, addresses) = primary_addresses(&reported, bind.parse().unwrap());
            assert_eq!(primary, family, "{bind}");
            assert_eq!(addresses[&IpFamily::V4].to_string(), v4, "{bind}");
            assert_eq!(addresses[&IpFamily::V6].to_string(), v6, "{bind}");
        }
        let (primary, addresses) = primary_addresses(&[], "0.0.0.0".parse().unwrap());
        assert_eq!((primary, addresses[&IpFamily::V4].is_loopback()), (IpFamily::V4, true));
    }

    #[test]
    fn eligibility() {
        assert!(eligible(&node(json!({"metadata": {"name": "n"}}))));
        assert!(!eligible(&node(
            json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": TO_BE_DELETED_TAINT}]}})
        )));
        assert!(!eligible(&node(json!({"metadata": {"name": "n", "deletionTimestamp": "2024-01-01T00:00:00Z"}}))));
    }

    #[test]
    fn detectors() {
        let mut config = Config { cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()], ..Config::default() };
        let node_cidrs = ["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()];
        let text = |config: &Config, family| local_detector(config, &node_cidrs, family).if_local();
        assert_eq!(text(&config, IpFamily::V4).as_deref(), Some("-s 10.244.0.0/16"));
        assert_eq!(text(&config, IpFamily::V6), None);
        config.detect_local_mode = DetectLocalMode::NodeCidr;
        assert_eq!(text(&config, IpFamily::V6).as_deref(), Some("-s fd00:1::/64"));
        config.detect_local_mode = DetectLocalMode::InterfaceNamePrefix;
        config.interface_name_prefix = "veth".into();
        assert_eq!(text(&config, IpFamily::V4).as_deref(), Some("-i veth+"));
    }
}
