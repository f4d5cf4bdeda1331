//! Pure: from a service, its pods and its slices to the slices to create, update and delete.
//!
//! Endpoints of one set of ports share slices. Existing slices are kept as full as they are: what
//! goes is taken out, what comes fills slices that change anyway, then one that has room, then new
//! ones. That keeps the number of writes low, which every node watches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::events::Reference;
use client::resources::SERVICES;
use client::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use super::{HEADLESS, MANAGED_BY, MANAGER, SERVICE_NAME};
use crate::ownership::controller_reference;
use crate::pod_endpoints as common;
use crate::types::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice, Pod, Service};

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<EndpointSlice>,
    /// Pods left out because their node is not known.
    pub skipped: Vec<String>,
}

/// What makes two endpoints the same one.
type EndpointId = (Vec<String>, Option<String>, String);

fn id(endpoint: &Endpoint) -> EndpointId {
    let target =
        endpoint.target_ref.as_ref().map_or(String::new(), |target| format!("{}/{}", target.namespace, target.name));
    let mut addresses = endpoint.addresses.clone();
    addresses.sort();
    (addresses, endpoint.hostname.clone(), target)
}

/// Whether two endpoints of the same id say the same.
fn is_equal(a: &Endpoint, b: &Endpoint) -> bool {
    let target = |endpoint: &Endpoint| {
        endpoint.target_ref.clone().map(|target| Reference { resource_version: String::new(), ..target })
    };
    a.conditions == b.conditions
        && a.node_name == b.node_name
        && a.zone == b.zone
        && target(a) == target(b)
        && a.hints == b.hints
}

/// Knows a node's zone: outer `None` when there is no such node.
pub(super) type ZoneOf<'a> = &'a dyn Fn(&str) -> Option<Option<String>>;

pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: Vec<EndpointSlice>,
    zone: ZoneOf<'_>,
    max: usize,
) -> Plan {
    let mut plan = Plan::default();
    let families = address_types(service);
    let mut by_type: BTreeMap<&str, Vec<EndpointSlice>> = families.iter().map(|family| (*family, Vec::new())).collect();
    for slice in existing {
        match by_type.get_mut(slice.address_type.as_str()) {
            Some(slices) => slices.push(slice),
            None => plan.delete.push(slice),
        }
    }
    for (family, slices) in by_type {
        plan_family(&mut plan, service, pods, slices, family, zone, max);
    }
    plan.skipped.sort();
    plan.skipped.dedup();
    plan
}

fn plan_family(
    plan: &mut Plan,
    service: &Service,
    pods: &[Arc<Pod>],
    existing: Vec<EndpointSlice>,
    family: &str,
    zone: ZoneOf<'_>,
    max: usize,
) {
    let existing_count = existing.len();
    let (mut create, mut update, mut delete) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_ports: HashMap<Vec<EndpointPort>, Vec<EndpointSlice>> = HashMap::new();
    for slice in existing {
        if is_owned(&slice, service) {
            by_ports.entry(port_key(&slice.ports)).or_default().push(slice);
        } else {
            delete.push(slice);
        }
    }
    let mut desired: BTreeMap<Vec<EndpointPort>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| common::belongs(pod, true)) {
        let ports = endpoint_ports(service, pod);
        let group = desired.entry(port_key(&ports)).or_default();
        let node_zone = match zone(&pod.spec.node_name) {
            Some(zone) => zone,
            None if service.spec.publish_not_ready_addresses => None,
            None => {
                plan.skipped.push(pod.metadata.name.clone());
                continue;
            }
        };
        let endpoint = endpoint(service, pod, family, node_zone);
        if !endpoint.addresses.is_empty() {
            group.push(endpoint);
        }
    }
    for (ports, endpoints) in desired {
        let slices = by_ports.remove(&ports).unwrap_or_default();
        let (new, changed, gone) = fill(service, slices, endpoints, &ports, family, max);
        create.extend(new);
        update.extend(changed);
        delete.extend(gone);
    }
    delete.extend(by_ports.into_values().flatten());
    // A service has at least one slice of each family, so that readers can tell "none" from "not
    // yet".
    if existing_count == delete.len() && create.is_empty() {
        let placeholder = new_slice(service, family, Vec::new());
        let kept = delete.len() == 1
            && is_owned(&delete[0], service)
            && delete[0].endpoints.is_empty()
            && delete[0].ports.is_empty()
            && delete[0].metadata.labels == placeholder.metadata.labels;
        if kept {
            delete.clear();
        } else {
            create.push(placeholder);
        }
    }
    // Renaming a slice that would go into one that would come saves a write.
    let mut going = Vec::new();
    for slice in delete {
        if is_owned(&slice, service)
            && let Some(mut reused) = create.pop()
        {
            reused.metadata.name = slice.metadata.name;
            reused.metadata.generate_name = slice.metadata.generate_name;
            reused.metadata.resource_version = slice.metadata.resource_version;
            reused.metadata.uid = slice.metadata.uid;
            update.push(reused);
        } else {
            going.push(slice);
        }
    }
    plan.create.extend(create);
    plan.update.extend(update);
    plan.delete.extend(going);
}

type Changes = (Vec<EndpointSlice>, Vec<EndpointSlice>, Vec<EndpointSlice>);

/// Puts the desired endpoints of one set of ports into slices.
fn fill(
    service: &Service,
    slices: Vec<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    ports: &[EndpointPort],
    family: &str,
    max: usize,
) -> Changes {
    // Ordered, so that the same input always makes the same slices.
    let mut wanted: BTreeMap<EndpointId, Endpoint> =
        endpoints.into_iter().map(|endpoint| (id(&endpoint), endpoint)).collect();
    let (mut changed, mut unchanged, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for mut slice in slices {
        let mut kept = Vec::new();
        let mut differs = false;
        for endpoint in &slice.endpoints {
            match wanted.remove(&id(endpoint)) {
                Some(new) => {
                    differs |= !is_equal(&new, endpoint);
                    kept.push(new);
                }
                None => differs = true,
            }
        }
        let labels = labels(service);
        if kept.is_empty() && differs {
            gone.push(slice);
        } else if differs || slice.metadata.labels != labels {
            slice.endpoints = kept;
            slice.metadata.labels = labels.into();
            changed.push(typed(slice));
        } else {
            unchanged.push(slice);
        }
    }
    let mut take = |slice: &mut EndpointSlice| {
        while slice.endpoints.len() < max
            && let Some((_, endpoint)) = wanted.pop_first()
        {
            slice.endpoints.push(endpoint);
        }
        wanted.len()
    };
    changed.sort_by_key(|slice| std::cmp::Reverse(slice.endpoints.len()));
    let mut left = usize::MAX;
    for slice in &mut changed {
        left = take(slice);
    }
    if left == usize::MAX {
        left = wanted.len();
    }
    let mut created = Vec::new();
    while left > 0 {
        let room = |slice: &EndpointSlice| max.checked_sub(left + slice.endpoints.len());
        let best = (0..unchanged.len())
            .filter(|place| left < max && room(&unchanged[*place]).is_some())
            .min_by_key(|place| room(&unchanged[*place]));
        let mut slice = match best {
            Some(place) => typed(unchanged.swap_remove(place)),
            None => new_slice(service, family, ports.to_vec()),
        };
        let is_new = slice.metadata.name.is_empty();
        while slice.endpoints.len() < max
            && let Some((_, endpoint)) = wanted.pop_first()
        {
            slice.endpoints.push(endpoint);
        }
        left = wanted.len();
        if is_new { &mut created } else { &mut changed }.push(slice);
    }
    (created, changed, gone)
}

fn typed(mut slice: EndpointSlice) -> EndpointSlice {
    slice.api_version = "discovery.k8s.io/v1";
    slice.kind = "EndpointSlice";
    slice
}

fn is_owned(slice: &EndpointSlice, service: &Service) -> bool {
    slice.metadata.owner_references.iter().any(|owner: &OwnerReference| {
        owner.uid == service.metadata.uid && owner.kind == "Service" && owner.api_version == "v1"
    })
}

fn port_key(ports: &[EndpointPort]) -> Vec<EndpointPort> {
    let mut key = ports.to_vec();
    key.sort();
    key
}

/// The address types of a service, from its families or, on an old server, from its address.
fn address_types(service: &Service) -> Vec<&'static str> {
    let mut types: Vec<&'static str> = service
        .spec
        .ip_families
        .iter()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    if types.is_empty() {
        types = match service.spec.cluster_ip.as_str() {
            "" | "None" => vec!["IPv4", "IPv6"],
            address if address.contains(':') => vec!["IPv6"],
            _ => vec!["IPv4"],
        };
    }
    types
}

fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    service
        .spec
        .ports
        .iter()
        .filter_map(|port| {
            let number = common::find_port(pod, port)?;
            Some(EndpointPort {
                name: Some(port.name.clone()),
                protocol: Some(port.protocol.clone()),
                port: Some(number),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn endpoint(service: &Service, pod: &Pod, family: &str, zone: Option<String>) -> Endpoint {
    let serving = pod.is_ready();
    let terminating = pod.metadata.is_deleting();
    // Ready is never true for a pod that ends, unless the service wants every address.
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    Endpoint {
        addresses: pod
            .addresses()
            .into_iter()
            .filter(|ip| ip.contains(':') == (family == "IPv6"))
            .map(String::from)
            .collect(),
        conditions: EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) },
        hostname: common::has_hostname(pod, service).then(|| pod.spec.hostname.clone()),
        node_name: Some(pod.spec.node_name.clone()).filter(|node| !node.is_empty()),
        hints: hints(service, ready, zone.as_deref(), &pod.spec.node_name),
        zone: zone.filter(|zone| !zone.is_empty()),
        target_ref: Some(Reference {
            kind: "Pod".into(),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Reference::default()
        }),
    }
}

/// Where an endpoint should be preferred, for services with `trafficDistribution`.
fn hints(service: &Service, ready: bool, zone: Option<&str>, node: &str) -> Value {
    let distribution = service.spec.traffic_distribution.as_deref();
    let same_node = distribution == Some("PreferSameNode");
    if !ready || !(same_node || matches!(distribution, Some("PreferClose" | "PreferSameZone"))) {
        return Value::Null;
    }
    let mut hints = serde_json::Map::new();
    if let Some(zone) = zone.filter(|zone| !zone.is_empty()) {
        hints.insert("forZones".into(), json!([{ "name": zone }]));
    }
    if same_node && !node.is_empty() {
        hints.insert("forNodes".into(), json!([{ "name": node }]));
    }
    if hints.is_empty() { Value::Null } else { Value::Object(hints) }
}

/// The service's labels and our own.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::clone(&service.metadata.labels);
    labels.retain(|key, _| ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&key.as_str()));
    if matches!(service.spec.cluster_ip.as_str(), "" | "None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn new_slice(service: &Service, family: &str, ports: Vec<EndpointPort>) -> EndpointSlice {
    typed(EndpointSlice {
        metadata: ObjectMeta {
            generate_name: crate::pod_control::name_prefix(&service.metadata.name),
            namespace: service.metadata.namespace.clone(),
            labels: labels(service).into(),
            owner_references: vec![controller_reference(&SERVICES, &service.metadata)].into(),
            ..ObjectMeta::default()
        },
        address_type: family.to_string(),
        ports,
        ..EndpointSlice::default()
    })
}
