//! From an Endpoints object and the slices that mirror it to the slices to create, update and delete. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use client::ObjectMeta;
use client::resources::ENDPOINTS;

use super::{LAST_APPLIED, MANAGED_BY, MANAGER, SERVICE_NAME, TRIGGER_TIME};
use crate::ownership::controller_reference;
use crate::pod_control;
use crate::types::{
    Endpoint, EndpointAddress, EndpointConditions, EndpointPort, EndpointSlice, EndpointSubset, Endpoints, SubsetPort,
};

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<EndpointSlice>,
    /// Addresses that are none.
    pub invalid: usize,
    /// Addresses left out, those included.
    pub skipped: usize,
}

/// What slices are told apart by: family and ports.
type Key = (&'static str, Vec<EndpointPort>);

fn key(family: &'static str, ports: &[EndpointPort]) -> Key {
    let mut ports = ports.to_vec();
    ports.sort();
    (family, ports)
}

fn slice_ports(ports: &[SubsetPort]) -> Vec<EndpointPort> {
    ports
        .iter()
        .map(|port| EndpointPort {
            name: Some(port.name.clone()),
            protocol: Some(port.protocol.clone()),
            port: Some(port.port),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Option<(&'static str, Endpoint)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    // An IPv4 address may be written as one of IPv6.
    let ip = ip.to_canonical();
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: EndpointConditions { ready: Some(ready), ..EndpointConditions::default() },
        hostname: Some(address.hostname.clone()).filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    };
    Some((family, endpoint))
}

/// An address, and whether it is ready.
type Readiness = (EndpointAddress, bool);

/// Subsets with the same ports are one (upstream's `RepackSubsets`); an address that is ready in one of them is ready.
fn repack(subsets: &[EndpointSubset]) -> Vec<(Vec<SubsetPort>, Vec<Readiness>)> {
    // First by address: all ports that it has, with readiness for each.
    let mut by_port: BTreeMap<SubsetPort, BTreeMap<String, Readiness>> = BTreeMap::new();
    let mut portless: BTreeMap<String, Readiness> = BTreeMap::new();
    for subset in subsets {
        let ready = subset.addresses.iter().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().map(|address| (address, false));
        for (address, ready) in ready.chain(unready) {
            let uid = address.target_ref.as_ref().map(|target| target.uid.as_str()).unwrap_or_default();
            let id = format!("{} {uid}", address.ip);
            let note = |all: &mut BTreeMap<String, Readiness>| {
                let entry = all.entry(id.clone()).or_insert_with(|| (address.clone(), ready));
                entry.1 |= ready;
            };
            if subset.ports.is_empty() {
                note(&mut portless);
            }
            for port in &subset.ports {
                note(by_port.entry(port.clone()).or_default());
            }
        }
    }
    let mut groups: Vec<(Vec<SubsetPort>, BTreeMap<String, Readiness>)> = Vec::new();
    for (port, addresses) in by_port {
        match groups.iter_mut().find(|(_, known)| *known == addresses) {
            Some((ports, _)) => ports.push(port),
            None => groups.push((vec![port], addresses)),
        }
    }
    if !portless.is_empty() {
        groups.push((Vec::new(), portless));
    }
    groups.into_iter().map(|(ports, addresses)| (ports, addresses.into_values().collect())).collect()
}

/// Decides what becomes of the slices, of which none holds more than `max` endpoints.
pub fn plan(endpoints: &Endpoints, existing: Vec<EndpointSlice>, max: usize) -> Plan {
    let mut plan = Plan::default();
    let mut desired: BTreeMap<Key, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for (ports, addresses) in repack(&endpoints.subsets) {
        let ports = slice_ports(&ports);
        let total = addresses.len();
        let mut added = 0;
        // Ready ones first, for they are worth more.
        let (ready, unready): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|(_, ready)| *ready);
        for (address, ready) in ready.into_iter().chain(unready) {
            if added >= max {
                break;
            }
            let Some((family, endpoint)) = endpoint(&address, ready) else {
                plan.invalid += 1;
                continue;
            };
            added += 1;
            let group = desired.entry(key(family, &ports)).or_insert_with(|| (ports.clone(), Vec::new()));
            if !group.1.contains(&endpoint) {
                group.1.push(endpoint);
            }
        }
        plan.skipped += total - added;
    }
    let mut by_key: BTreeMap<Key, Vec<EndpointSlice>> = BTreeMap::new();
    for slice in existing {
        let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
        by_key.entry(key(family, &slice.ports)).or_default().push(slice);
    }
    for (key, (ports, wanted)) in desired {
        let mut known = by_key.remove(&key).unwrap_or_default().into_iter();
        let first = known.next();
        plan.delete.extend(known);
        let new = new_slice(endpoints, key.0, ports, wanted);
        match first {
            None => plan.create.push(new),
            Some(old) if is_equal(&old, &new) => {}
            Some(old) => plan.update.push(in_place_of(new, &old)),
        }
    }
    plan.delete.extend(by_key.into_values().flatten());
    recycle(&mut plan);
    plan
}

fn new_slice(endpoints: &Endpoints, family: &str, ports: Vec<EndpointPort>, wanted: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = endpoints.metadata.labels.clone();
    labels.insert(SERVICE_NAME.into(), endpoints.metadata.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut annotations = endpoints.metadata.annotations.clone();
    annotations.retain(|key, _| ![TRIGGER_TIME, LAST_APPLIED].contains(&key.as_str()));
    EndpointSlice {
        api_version: "discovery.k8s.io/v1",
        kind: "EndpointSlice",
        metadata: ObjectMeta {
            generate_name: pod_control::name_prefix(&endpoints.metadata.name),
            namespace: endpoints.metadata.namespace.clone(),
            labels,
            annotations,
            owner_references: vec![controller_reference(&ENDPOINTS, &endpoints.metadata)].into(),
            ..ObjectMeta::default()
        },
        address_type: family.into(),
        endpoints: wanted,
        ports,
    }
}

fn in_place_of(new: EndpointSlice, old: &EndpointSlice) -> EndpointSlice {
    let metadata = ObjectMeta { name: old.metadata.name.clone(), generate_name: String::new(), ..new.metadata };
    EndpointSlice { metadata, ..new }
}

/// Whether a slice says what is wanted already, in whatever order.
fn is_equal(old: &EndpointSlice, new: &EndpointSlice) -> bool {
    let sorted = |slice: &EndpointSlice| {
        let mut endpoints: Vec<String> =
            slice.endpoints.iter().map(|endpoint| serde_json::to_string(endpoint).unwrap_or_default()).collect();
        endpoints.sort();
        endpoints
    };
    let uids = |slice: &EndpointSlice| -> Vec<String> {
        slice.metadata.owner_references.iter().map(|owner| owner.uid.clone()).collect()
    };
    old.metadata.labels == new.metadata.labels
        && old.metadata.annotations == new.metadata.annotations
        && uids(old) == uids(new)
        && sorted(old) == sorted(new)
}

/// A slice that goes and one that comes, of one family, are one that changes.
fn recycle(plan: &mut Plan) {
    for new in std::mem::take(&mut plan.create) {
        match plan.delete.iter().position(|old| old.address_type == new.address_type) {
            Some(at) => {
                let old = plan.delete.remove(at);
                plan.update.push(in_place_of(new, &old));
            }
            None => plan.create.push(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoints(subsets: serde_json::Value) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {
                "name": "db", "namespace": "ns", "uid": "u", "labels": {"a": "b"},
                "annotations": {"c": "d", LAST_APPLIED: "x", TRIGGER_TIME: "y"},
            },
            "subsets": subsets,
        }))
        .unwrap()
    }

    fn addresses(slice: &EndpointSlice) -> Vec<&str> {
        slice.endpoints.iter().map(|endpoint| endpoint.addresses[0].as_str()).collect()
    }

    #[test]
    fn slices_by_family_and_ports() {
        let object = endpoints(json!([
            {
                "addresses": [{"ip": "10.0.0.1", "hostname": "h", "nodeName": "n"}, {"ip": "fd00::1"}, {"ip": "nonsense"}],
                "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"name": "p", "port": 80, "protocol": "TCP"}],
            },
            {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 90, "protocol": "TCP"}]},
        ]));
        let plan = plan(&object, Vec::new(), 1000);
        assert_eq!((plan.invalid, plan.skipped), (1, 1));
        assert_eq!(plan.create.len(), 3);
        let first = plan.create.iter().find(|slice| addresses(slice).contains(&"10.0.0.1")).unwrap();
        assert_eq!(addresses(first), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(first.endpoints[1].conditions.ready, Some(false));
        assert_eq!(first.endpoints[0].hostname.as_deref(), Some("h"));
        assert_eq!((first.address_type.as_str(), first.ports[0].port), ("IPv4", Some(80)));
        assert_eq!(first.metadata.annotations.keys().collect::<Vec<_>>(), ["c"]);
        assert_eq!(first.metadata.labels[MANAGED_BY], MANAGER);
        assert_eq!(first.metadata.labels[SERVICE_NAME], "db");
        assert_eq!(first.metadata.generate_name, "db-");
    }

    #[test]
    fn what_is_there_stays_or_changes() {
        let one = |ip: &str, port: i64| {
            endpoints(json!([{"addresses": [{"ip": ip}], "ports": [{"port": port, "protocol": "TCP"}]}]))
        };
        let named = |mut slices: Vec<EndpointSlice>| {
            slices.iter_mut().for_each(|slice| slice.metadata.name = "db-1".into());
            slices
        };
        let stored = named(plan(&one("10.0.0.1", 80), Vec::new(), 10).create);
        assert_eq!(plan(&one("10.0.0.1", 80), stored.clone(), 10), Plan::default());
        for changed in [one("10.0.0.2", 80), one("10.0.0.1", 81)] {
            let plan = plan(&changed, stored.clone(), 10);
            assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
            assert_eq!(plan.update[0].metadata.name, "db-1");
        }
        let gone = plan(&endpoints(json!([])), stored.clone(), 10);
        assert_eq!((gone.update.len(), gone.delete.len()), (0, 1));
        let mut other = one("10.0.0.1", 80);
        other.metadata.uid = "another".into();
        assert_eq!(plan(&other, stored, 10).update.len(), 1, "the owner is another object of the same name");
    }

    #[test]
    fn no_more_than_there_is_room_for() {
        let many: Vec<_> = (1..=5).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect();
        let object = endpoints(json!([{"addresses": many, "ports": [{"port": 80, "protocol": "TCP"}]}]));
        let plan = plan(&object, Vec::new(), 3);
        assert_eq!((plan.create[0].endpoints.len(), plan.skipped, plan.invalid), (3, 2, 0));
    }
}
