//! Services in, service ports out: accumulates changes between two syncs.
//!
//! Reads Service objects; keeps, per changed service, the ports before the first and after the last
//! change, so that a service that flapped back needs no sync at all.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::objects::Service;
use crate::types::{IpFamily, NamespacedName, Protocol, ServicePort, ServicePortMap, ServicePortName};

/// The default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const DEFAULT_CLIENT_IP_SERVICE_AFFINITY_SECONDS: u32 = 10_800;

/// Changes of services since the last [`ServiceChangeTracker::apply`].
#[derive(Debug)]
pub struct ServiceChangeTracker {
    family: IpFamily,
    items: HashMap<NamespacedName, ServiceChange>,
}

#[derive(Debug, Default)]
struct ServiceChange {
    previous: ServicePortMap,
    current: ServicePortMap,
}

impl ServiceChangeTracker {
    /// A tracker of one family.
    pub fn new(family: IpFamily) -> Self {
        Self { family, items: HashMap::new() }
    }

    /// Takes a change in; `true` when there is anything to sync afterwards.
    pub fn update(&mut self, previous: Option<&Service>, current: Option<&Service>) -> bool {
        let Some(service) = current.or(previous) else {
            return false;
        };
        let name = namespaced_name(service);
        let after = current.map(|s| service_ports(s, self.family)).unwrap_or_default();
        let change = self.items.entry(name.clone()).or_insert_with(|| ServiceChange {
            previous: previous.map(|s| service_ports(s, self.family)).unwrap_or_default(),
            current: ServicePortMap::new(),
        });
        change.current = after;
        if change.previous == change.current {
            self.items.remove(&name);
        }
        !self.items.is_empty()
    }

    /// Services with changes not applied yet.
    pub fn pending(&self) -> usize {
        self.items.len()
    }

    /// Moves the changes into `map` and returns the names of the services they touched.
    pub fn apply(&mut self, map: &mut ServicePortMap) -> BTreeSet<NamespacedName> {
        let mut updated = BTreeSet::new();
        for (name, change) in self.items.drain() {
            for port in change.previous.keys() {
                if !change.current.contains_key(port) {
                    map.remove(port);
                }
            }
            map.extend(change.current);
            updated.insert(name);
        }
        updated
    }
}

/// The name of a service.
pub fn namespaced_name(service: &Service) -> NamespacedName {
    NamespacedName { namespace: service.metadata.namespace.clone(), name: service.metadata.name.clone() }
}

/// Whether kube-proxy has nothing to do with this service: headless, or only a DNS alias.
fn should_skip(service: &Service) -> bool {
    let ip = service.spec.cluster_ip.as_str();
    ip.is_empty() || ip == "None" || service.spec.type_ == "ExternalName"
}

/// The service's ports as one family sees them; empty when the service has no address of it.
pub fn service_ports(service: &Service, family: IpFamily) -> ServicePortMap {
    let mut ports = ServicePortMap::new();
    if should_skip(service) {
        return ports;
    }
    let Some(cluster_ip) = cluster_ip_of_family(service, family) else {
        return ports;
    };
    let spec = &service.spec;
    let externally_accessible = matches!(spec.type_.as_str(), "LoadBalancer" | "NodePort")
        || (spec.type_ == "ClusterIP" && !spec.external_ips.is_empty());
    let external_policy_local = externally_accessible && spec.external_traffic_policy == "Local";
    let sticky_seconds = (spec.session_affinity == "ClientIP").then(|| {
        spec.session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .unwrap_or(DEFAULT_CLIENT_IP_SERVICE_AFFINITY_SECONDS)
    });
    let mut load_balancer_source_ranges: Vec<IpNet> = spec
        .load_balancer_source_ranges
        .iter()
        // Validation lets blanks around a range pass.
        .filter_map(|range| range.trim().parse::<IpNet>().ok())
        .filter(|range| IpFamily::of_net(range) == family)
        .map(|range| range.trunc())
        .collect();
    // A zero-length range allows everybody: the same as none.
    if load_balancer_source_ranges.iter().any(|range| range.prefix_len() == 0) {
        load_balancer_source_ranges.clear();
    }
    let load_balancer_vips: Vec<IpAddr> = service
        .status
        .load_balancer
        .ingress
        .iter()
        .filter(|ingress| ingress.ip_mode.as_deref().unwrap_or("VIP") == "VIP")
        .filter_map(|ingress| ingress.ip.parse().ok())
        .filter(|ip| IpFamily::of(ip) == family)
        .collect();
    let external_ips: Vec<IpAddr> = spec
        .external_ips
        .iter()
        .filter_map(|ip| ip.trim().parse().ok())
        .filter(|ip| IpFamily::of(ip) == family)
        .collect();
    let health_check_node_port =
        if spec.type_ == "LoadBalancer" && external_policy_local { spec.health_check_node_port } else { 0 };
    for port in &spec.ports {
        let Some(protocol) = Protocol::parse(&port.protocol) else {
            continue;
        };
        ports.insert(
            ServicePortName { service: namespaced_name(service), port: port.name.clone(), protocol },
            ServicePort {
                cluster_ip,
                port: port.port,
                protocol,
                node_port: port.node_port,
                external_ips: external_ips.clone(),
                load_balancer_vips: load_balancer_vips.clone(),
                load_balancer_source_ranges: load_balancer_source_ranges.clone(),
                sticky_seconds,
                external_policy_local,
                internal_policy_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
                health_check_node_port,
            },
        );
    }
    ports
}

fn cluster_ip_of_family(service: &Service, family: IpFamily) -> Option<IpAddr> {
    let spec = &service.spec;
    let from_list =
        spec.cluster_ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).find(|ip| IpFamily::of(ip) == family);
    // Objects written before dual stack carry only the single field.
    from_list.or_else(|| {
        let ip: IpAddr = spec.cluster_ip.parse().ok()?;
        (spec.cluster_ips.is_empty() && IpFamily::of(&ip) == family).then_some(ip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(value: serde_json::Value) -> Service {
        serde_json::from_value(value).expect("a service")
    }

    fn plain(name: &str, ip: &str, port: u16) -> Service {
        service(json!({"metadata": {"namespace": "ns", "name": name},
            "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                     "ports": [{"name": "p", "port": port, "protocol": "TCP"}]}}))
    }

    #[test]
    fn skips_what_has_no_cluster_address() {
        for spec in [
            json!({"type": "ClusterIP", "clusterIP": "None", "ports": [{"port": 1}]}),
            json!({"type": "ClusterIP", "clusterIP": "", "ports": [{"port": 1}]}),
            json!({"type": "ExternalName", "clusterIP": "10.0.0.1", "externalName": "a.b", "ports": [{"port": 1}]}),
        ] {
            let svc = service(json!({"metadata": {"namespace": "ns", "name": "a"}, "spec": spec}));
            assert!(service_ports(&svc, IpFamily::V4).is_empty(), "{spec}");
        }
    }

    #[test]
    fn families_are_kept_apart() {
        let svc = service(json!({"metadata": {"namespace": "ns", "name": "a"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
                "externalIPs": ["1.2.3.4", "2001:db8::4", ""],
                "loadBalancerSourceRanges": [" 10.1.2.3/8 ", "2001:db8::/32"],
                "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
                "sessionAffinity": "ClientIP",
                "ports": [{"name": "p", "port": 80, "nodePort": 30080}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}, {"ip": "2001:db8::8"},
                {"ip": "5.6.7.9", "ipMode": "Proxy"}, {"hostname": "x"}]}}}));
        let v4 = service_ports(&svc, IpFamily::V4);
        let v4 = v4.values().next().expect("one port");
        assert_eq!(v4.cluster_ip.to_string(), "10.0.0.1");
        assert_eq!(v4.external_ips.len(), 1);
        assert_eq!(v4.load_balancer_vips, ["5.6.7.8".parse::<IpAddr>().unwrap()]);
        assert_eq!(v4.load_balancer_source_ranges[0].to_string(), "10.0.0.0/8");
        assert_eq!(v4.sticky_seconds, Some(10_800));
        assert_eq!(v4.health_check_node_port, 31000);
        assert!(v4.external_policy_local);
        let v6 = service_ports(&svc, IpFamily::V6);
        let v6 = v6.values().next().expect("one port");
        assert_eq!(v6.cluster_ip.to_string(), "fd00::1");
        assert_eq!(v6.load_balancer_vips.len(), 1);
    }

    #[test]
    fn a_zero_range_means_no_firewall() {
        let mut svc = plain("a", "10.0.0.1", 80);
        svc.spec.load_balancer_source_ranges = vec!["10.0.0.0/8".into(), "0.0.0.0/0".into()];
        let ports = service_ports(&svc, IpFamily::V4);
        assert!(ports.values().next().unwrap().load_balancer_source_ranges.is_empty());
    }

    #[test]
    fn a_change_undone_before_the_sync_is_no_change() {
        let mut tracker = ServiceChangeTracker::new(IpFamily::V4);
        let mut map = ServicePortMap::new();
        let a = plain("a", "10.0.0.1", 80);
        let b = plain("a", "10.0.0.1", 81);
        assert!(tracker.update(None, Some(&a)));
        assert_eq!(tracker.apply(&mut map).len(), 1);
        assert!(tracker.update(Some(&a), Some(&b)));
        assert!(!tracker.update(Some(&b), Some(&a)));
        assert!(tracker.apply(&mut map).is_empty());
        assert_eq!(map.len(), 1);
        assert!(tracker.update(Some(&a), None));
        tracker.apply(&mut map);
        assert!(map.is_empty());
    }

    #[test]
    fn a_renamed_port_replaces_the_old_one() {
        let mut tracker = ServiceChangeTracker::new(IpFamily::V4);
        let mut map = ServicePortMap::new();
        let a = plain("a", "10.0.0.1", 80);
        let mut b = a.clone();
        b.spec.ports[0].name = "q".into();
        tracker.update(None, Some(&a));
        tracker.apply(&mut map);
        tracker.update(Some(&a), Some(&b));
        tracker.apply(&mut map);
        assert_eq!(map.keys().map(|k| k.port.as_str()).collect::<Vec<_>>(), ["q"]);
    }
}
