//! Which of a service port's endpoints this node may use, under traffic policies, topology hints
//! and termination (KEP-2086, KEP-2433, KEP-3015, KEP-1669).

use crate::types::{Endpoint, ServicePort};

/// The node label naming its zone.
pub const LABEL_TOPOLOGY_ZONE: &str = "topology.kubernetes.io/zone";

/// The endpoints of a service port, sorted out for one node.
#[derive(Debug, Default, PartialEq)]
pub struct Categorized<'a> {
    /// For traffic policy Cluster; empty when the port never uses it.
    pub cluster: Vec<&'a Endpoint>,
    /// For traffic policy Local; empty when the port never uses it.
    pub local: Vec<&'a Endpoint>,
    /// The union of both.
    pub reachable: Vec<&'a Endpoint>,
    /// Whether the port has usable endpoints anywhere in the cluster.
    pub has_any: bool,
}

/// Sorts `endpoints` out. "Usable" means ready; when none is ready, serving but terminating ones
/// stand in, independently for Cluster and Local.
pub fn categorize<'a>(endpoints: &'a [Endpoint], port: &ServicePort, node_name: &str, zone: &str) -> Categorized<'a> {
    let mut out = Categorized::default();
    if endpoints.is_empty() {
        return out;
    }
    let draining = |e: &&Endpoint| e.serving && e.terminating;
    if port.uses_cluster_endpoints() {
        let mode = topology_mode(endpoints, node_name, zone);
        out.cluster = endpoints.iter().filter(|e| e.ready && mode.allows(e, node_name, zone)).collect();
        if out.cluster.is_empty() {
            out.cluster = endpoints.iter().filter(draining).collect();
        }
        out.has_any = !out.cluster.is_empty();
    }
    if !port.uses_local_endpoints() {
        out.reachable = out.cluster.clone();
        return out;
    }
    out.has_any |= endpoints.iter().any(|e| e.ready || draining(&e));
    out.local = endpoints.iter().filter(|e| e.is_local && e.ready).collect();
    if out.local.is_empty() {
        out.local = endpoints.iter().filter(|e| e.is_local && draining(e)).collect();
    }
    // Both lists keep the order of `endpoints`, and so does their union.
    out.reachable =
        endpoints.iter().filter(|e| out.cluster.iter().chain(&out.local).any(|c| std::ptr::eq(*c, *e))).collect();
    out
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Everywhere,
    SameNode,
    SameZone,
}

impl Mode {
    fn allows(self, endpoint: &Endpoint, node_name: &str, zone: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::SameNode => endpoint.node_hints.contains(node_name),
            Self::SameZone => endpoint.zone_hints.contains(zone),
        }
    }
}

/// Hints are followed only when every ready endpoint has one and some endpoint is meant for us;
/// otherwise following them could leave this node, or another, without endpoints.
fn topology_mode(endpoints: &[Endpoint], node_name: &str, zone: &str) -> Mode {
    let ready = || endpoints.iter().filter(|e| e.ready);
    if ready().next().is_none() {
        return Mode::Everywhere;
    }
    if ready().all(|e| !e.node_hints.is_empty()) && ready().any(|e| e.node_hints.contains(node_name)) {
        return Mode::SameNode;
    }
    if ready().all(|e| !e.zone_hints.is_empty()) && ready().any(|e| e.zone_hints.contains(zone)) {
        return Mode::SameZone;
    }
    Mode::Everywhere
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Protocol;

    fn ep(ip: &str, ready: bool, terminating: bool, zones: &[&str], nodes: &[&str], local: bool) -> Endpoint {
        Endpoint {
            ip: ip.parse().unwrap(),
            port: 80,
            is_local: local,
            ready,
            serving: ready || terminating,
            terminating,
            zone_hints: zones.iter().map(ToString::to_string).collect(),
            node_hints: nodes.iter().map(ToString::to_string).collect(),
        }
    }

    fn port(internal_local: bool, external_local: bool, node_port: u16) -> ServicePort {
        ServicePort {
            cluster_ip: "10.0.0.1".parse().unwrap(),
            port: 80,
            protocol: Protocol::Tcp,
            node_port,
            external_ips: vec![],
            load_balancer_vips: vec![],
            load_balancer_source_ranges: vec![],
            sticky_seconds: None,
            external_policy_local: external_local,
            internal_policy_local: internal_local,
            health_check_node_port: 0,
        }
    }

    fn check(
        port: &ServicePort,
        endpoints: &[Endpoint],
        cluster: &[&str],
        local: &[&str],
        reachable: &[&str],
        any: bool,
    ) {
        let got = categorize(endpoints, port, "node", "zone-a");
        let texts = |v: &[&Endpoint]| v.iter().map(|e| e.ip.to_string()).collect::<Vec<_>>();
        assert_eq!(texts(&got.cluster), cluster, "cluster");
        assert_eq!(texts(&got.local), local, "local");
        assert_eq!(texts(&got.reachable), reachable, "reachable");
        assert_eq!(got.has_any, any, "has_any");
    }

    #[test]
    fn zone_hints() {
        let p = port(false, false, 0);
        let a = ep("10.1.2.3", true, false, &["zone-a"], &[], false);
        let b = ep("10.1.2.4", true, false, &["zone-b"], &[], false);
        let none = ep("10.1.2.5", true, false, &[], &[], false);
        check(&p, &[a.clone(), b.clone()], &["10.1.2.3"], &[], &["10.1.2.3"], true);
        // one endpoint without a hint disables hints
        check(
            &p,
            &[a.clone(), b.clone(), none],
            &["10.1.2.3", "10.1.2.4", "10.1.2.5"],
            &[],
            &["10.1.2.3", "10.1.2.4", "10.1.2.5"],
            true,
        );
        // no endpoint for our zone disables hints
        check(&p, std::slice::from_ref(&b), &["10.1.2.4"], &[], &["10.1.2.4"], true);
    }

    #[test]
    fn node_hints_before_zone_hints() {
        let p = port(false, false, 0);
        let a = ep("10.1.2.3", true, false, &["zone-a"], &["node"], false);
        let b = ep("10.1.2.4", true, false, &["zone-a"], &["other"], false);
        check(&p, &[a.clone(), b.clone()], &["10.1.2.3"], &[], &["10.1.2.3"], true);
        // hints for other nodes only: the zone decides
        check(&p, std::slice::from_ref(&b), &["10.1.2.4"], &[], &["10.1.2.4"], true);
    }

    #[test]
    fn internal_policy_local() {
        let p = port(true, false, 0);
        let here = ep("10.0.0.1", true, false, &[], &[], true);
        let there = ep("10.0.0.2", true, false, &[], &[], false);
        check(&p, &[here, there.clone()], &[], &["10.0.0.1"], &["10.0.0.1"], true);
        // endpoints elsewhere count for "has any", but none is reachable
        check(&p, &[there], &[], &[], &[], true);
    }

    #[test]
    fn terminating_stand_in_for_ready() {
        let cluster = port(false, false, 0);
        let draining = ep("10.0.0.1", false, true, &[], &[], false);
        let ready = ep("10.0.0.2", true, false, &[], &[], false);
        check(&cluster, &[draining.clone(), ready], &["10.0.0.2"], &[], &["10.0.0.2"], true);
        check(&cluster, std::slice::from_ref(&draining), &["10.0.0.1"], &[], &["10.0.0.1"], true);
        // Local with only a draining local endpoint, while others are ready elsewhere
        let p = port(false, true, 30000);
        let local = ep("10.0.0.1", false, true, &[], &[], true);
        let remote = ep("10.0.0.2", true, false, &[], &[], false);
        check(&p, &[local, remote], &["10.0.0.2"], &["10.0.0.1"], &["10.0.0.1", "10.0.0.2"], true);
    }

    #[test]
    fn nothing_usable() {
        let p = port(false, true, 30000);
        check(&p, &[ep("10.0.0.1", false, false, &[], &[], true)], &[], &[], &[], false);
        check(&p, &[], &[], &[], &[], false);
    }
}
