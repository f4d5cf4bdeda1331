//! EndpointSlices in, endpoints by service port out: accumulates changes between two syncs.
//!
//! A service's endpoints are spread over any number of slices, so a change of one slice rebuilds
//! only that service from the slices it has (KEP-752).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::objects::{EndpointSlice, EndpointSpec};
use crate::types::{Endpoint, EndpointsMap, IpFamily, NamespacedName, Protocol, ServicePortName};

/// The label that names a slice's service.
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Changes of endpoints since the last [`EndpointsChangeTracker::apply`].
#[derive(Debug)]
pub struct EndpointsChangeTracker {
    family: IpFamily,
    node_name: String,
    services: HashMap<NamespacedName, SliceTracker>,
}

/// The slices of one service: as they are in the endpoints map, and what has changed since.
#[derive(Debug, Default)]
struct SliceTracker {
    applied: BTreeMap<String, Arc<EndpointSlice>>,
    pending: BTreeMap<String, Option<Arc<EndpointSlice>>>,
}

/// What [`EndpointsChangeTracker::apply`] changed.
#[derive(Debug, Default, PartialEq)]
pub struct EndpointsUpdate {
    /// Services whose endpoints changed.
    pub updated: BTreeSet<NamespacedName>,
    /// Whether any UDP port is among them: only UDP flows outlive their endpoint in conntrack.
    pub conntrack_cleanup_required: bool,
}

impl EndpointsChangeTracker {
    /// A tracker of one family; endpoints on `node_name` are local.
    pub fn new(family: IpFamily, node_name: &str) -> Self {
        Self { family, node_name: node_name.to_owned(), services: HashMap::new() }
    }

    /// Takes a slice in (or out, when `remove`); `true` when this needs a sync.
    pub fn update(&mut self, slice: &Arc<EndpointSlice>, remove: bool) -> bool {
        if slice.address_type != self.family.as_str() {
            return false;
        }
        let Some(service) = slice.metadata.labels.get(LABEL_SERVICE_NAME).filter(|name| !name.is_empty()) else {
            return false;
        };
        let service = NamespacedName { namespace: slice.metadata.namespace.clone(), name: service.clone() };
        let name = slice.metadata.name.clone();
        let wanted = (!remove).then(|| slice.clone());
        let tracker = self.services.entry(service.clone()).or_default();
        let changed = match (tracker.pending.get(&name), tracker.applied.get(&name)) {
            (Some(pending), _) => !same(pending.as_deref(), wanted.as_deref()),
            (None, Some(applied)) => !same(Some(applied), wanted.as_deref()),
            (None, None) => !remove,
        };
        if changed {
            tracker.pending.insert(name, wanted);
        } else if tracker.applied.is_empty() && tracker.pending.is_empty() {
            self.services.remove(&service);
        }
        changed
    }

    /// Slices with changes not applied yet.
    pub fn pending(&self) -> usize {
        self.services.values().map(|s| s.pending.len()).sum()
    }

    /// Moves the changes into `map`.
    pub fn apply(&mut self, map: &mut EndpointsMap) -> EndpointsUpdate {
        let mut update = EndpointsUpdate::default();
        let node_name = &self.node_name;
        self.services.retain(|service, tracker| {
            if tracker.pending.is_empty() {
                return true;
            }
            let previous = endpoints_of(service, tracker.applied.values(), node_name);
            for (name, slice) in std::mem::take(&mut tracker.pending) {
                match slice {
                    Some(slice) => tracker.applied.insert(name, slice),
                    None => tracker.applied.remove(&name),
                };
            }
            let current = endpoints_of(service, tracker.applied.values(), node_name);
            update.conntrack_cleanup_required |=
                previous.keys().chain(current.keys()).any(|port| port.protocol == Protocol::Udp);
            for port in previous.keys() {
                map.remove(port);
            }
            map.extend(current);
            update.updated.insert(service.clone());
            !tracker.applied.is_empty()
        });
        update
    }
}

/// Equal as far as rules are concerned: a slice rewritten with other annotations is not a change.
fn same(a: Option<&EndpointSlice>, b: Option<&EndpointSlice>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.endpoints == b.endpoints && a.ports == b.ports,
        _ => false,
    }
}

fn endpoints_of<'a>(
    service: &NamespacedName,
    slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
    node_name: &str,
) -> EndpointsMap {
    let mut grouped: BTreeMap<ServicePortName, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for slice in slices {
        for port in &slice.ports {
            let (Some(name), Some(number)) = (&port.name, port.port.filter(|p| *p != 0)) else {
                continue;
            };
            let Some(protocol) = Protocol::parse(port.protocol.as_deref().unwrap_or_default()) else {
                continue;
            };
            let endpoints =
                grouped.entry(ServicePortName { service: service.clone(), port: name.clone(), protocol }).or_default();
            for spec in &slice.endpoints {
                let Some(endpoint) = endpoint(spec, number, node_name) else {
                    continue;
                };
                let key = endpoint.to_string();
                // The same address in two slices is either an endpoint on the move or an address
                // given to a new pod while the old one still terminates: prefer the running one.
                if !endpoint.terminating || !endpoints.contains_key(&key) {
                    endpoints.insert(key, endpoint);
                }
            }
        }
    }
    grouped
        .into_iter()
        .filter(|(_, endpoints)| !endpoints.is_empty())
        .map(|(port, endpoints)| (port, endpoints.into_values().collect()))
        .collect()
}

fn endpoint(spec: &EndpointSpec, port: u16, node_name: &str) -> Option<Endpoint> {
    let ip: IpAddr = spec.addresses.first()?.parse().ok()?;
    let names = |hints: &[crate::objects::NamedHint]| hints.iter().map(|h| h.name.clone()).collect();
    Some(Endpoint {
        ip,
        port,
        is_local: !node_name.is_empty() && spec.node_name.as_deref() == Some(node_name),
        ready: spec.conditions.ready.unwrap_or(true),
        serving: spec.conditions.serving.unwrap_or(true),
        terminating: spec.conditions.terminating.unwrap_or(false),
        zone_hints: spec.hints.as_ref().map(|h| names(&h.for_zones)).unwrap_or_default(),
        node_hints: spec.hints.as_ref().map(|h| names(&h.for_nodes)).unwrap_or_default(),
    })
}

/// Ready endpoints on this node per service, counted by address: what a load balancer's health
/// check is told.
pub fn local_ready_endpoints(map: &EndpointsMap) -> BTreeMap<NamespacedName, usize> {
    let mut addresses: BTreeMap<NamespacedName, BTreeSet<IpAddr>> = BTreeMap::new();
    for (port, endpoints) in map {
        for endpoint in endpoints.iter().filter(|e| e.ready && e.is_local) {
            addresses.entry(port.service.clone()).or_default().insert(endpoint.ip);
        }
    }
    addresses.into_iter().map(|(service, addresses)| (service, addresses.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(name: &str, endpoints: serde_json::Value, protocol: &str) -> Arc<EndpointSlice> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"namespace": "ns", "name": name, "labels": {LABEL_SERVICE_NAME: "svc"}},
                "addressType": "IPv4", "endpoints": endpoints,
                "ports": [{"name": "p", "port": 80, "protocol": protocol}]}))
            .expect("a slice"),
        )
    }

    fn texts(map: &EndpointsMap) -> Vec<String> {
        map.values().flatten().map(ToString::to_string).collect()
    }

    #[test]
    fn merges_slices_and_sorts() {
        let mut tracker = EndpointsChangeTracker::new(IpFamily::V4, "n1");
        let mut map = EndpointsMap::new();
        assert!(tracker.update(&slice("a", json!([{"addresses": ["10.0.0.2"], "nodeName": "n1"}]), "TCP"), false));
        assert!(tracker.update(&slice("b", json!([{"addresses": ["10.0.0.1"]}]), "TCP"), false));
        let update = tracker.apply(&mut map);
        assert_eq!(update.updated.len(), 1);
        assert!(!update.conntrack_cleanup_required);
        assert_eq!(texts(&map), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(local_ready_endpoints(&map).values().sum::<usize>(), 1);
        // the same again is no change
        assert!(!tracker.update(&slice("b", json!([{"addresses": ["10.0.0.1"]}]), "TCP"), false));
        assert!(tracker.update(&slice("b", json!([]), "TCP"), true));
        tracker.apply(&mut map);
        assert_eq!(texts(&map), ["10.0.0.2:80"]);
        assert!(tracker.update(&slice("a", json!([]), "TCP"), true));
        tracker.apply(&mut map);
        assert!(map.is_empty());
        assert!(!tracker.update(&slice("a", json!([]), "TCP"), true));
        assert!(tracker.services.is_empty());
    }

    #[test]
    fn a_running_endpoint_wins_over_a_terminating_one_of_the_same_address() {
        let mut tracker = EndpointsChangeTracker::new(IpFamily::V4, "n1");
        let mut map = EndpointsMap::new();
        let terminating =
            json!([{"addresses": ["10.0.0.1"], "conditions": {"ready": false, "serving": true, "terminating": true}}]);
        let running = json!([{"addresses": ["10.0.0.1"]}]);
        tracker.update(&slice("a", running, "TCP"), false);
        tracker.update(&slice("b", terminating, "TCP"), false);
        tracker.apply(&mut map);
        let all: Vec<_> = map.values().flatten().collect();
        assert_eq!(all.len(), 1);
        assert!(all[0].ready && !all[0].terminating);
    }

    #[test]
    fn udp_asks_for_conntrack_cleanup_and_other_families_are_ignored() {
        let mut tracker = EndpointsChangeTracker::new(IpFamily::V4, "n1");
        let mut map = EndpointsMap::new();
        tracker.update(&slice("a", json!([{"addresses": ["10.0.0.1"]}]), "UDP"), false);
        assert!(tracker.apply(&mut map).conntrack_cleanup_required);
        let mut v6 = EndpointsChangeTracker::new(IpFamily::V6, "n1");
        assert!(!v6.update(&slice("a", json!([{"addresses": ["10.0.0.1"]}]), "UDP"), false));
    }

    #[test]
    fn ports_without_name_or_number_are_ignored() {
        let bad: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": "a", "labels": {LABEL_SERVICE_NAME: "svc"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
            "ports": [{"port": 80}, {"name": "x"}, {"name": "y", "port": 0}, {"name": "", "port": 9}]}))
        .unwrap();
        let mut tracker = EndpointsChangeTracker::new(IpFamily::V4, "n1");
        let mut map = EndpointsMap::new();
        tracker.update(&Arc::new(bad), false);
        tracker.apply(&mut map);
        assert_eq!(texts(&map), ["10.0.0.1:9"]);
    }
}
