//! Keeps the Endpoints object of each service with a selector: the older form of endpoint slices.
//!
//! Reads services, pods and endpoints; writes endpoints. Upstream: `pkg/controller/endpoint`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::events::Reference;
use client::informer::{Informer, Store};
use client::resources::{ENDPOINTS, PODS, SERVICES};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, ObjectKey, ObjectMeta};
use futures::future::BoxFuture;
use serde::de::IgnoredAny;

use crate::context::Context;
use crate::pod_endpoints as common;
use crate::types::{EndpointAddress, EndpointSubset, Endpoints, Pod, Service, SubsetPort};
use crate::worker::{self, Requeue};

pub const NAME: &str = "endpoints-controller";

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Leader election of old kept its record in Endpoints that have no service.
const ELECTION_RECORD: &str = "control-plane.alpha.kubernetes.io/leader";
/// More addresses than this make an object nobody can watch.
const MAX_ADDRESSES: usize = 1000;

struct EndpointsController {
    client: Client,
    services: Store<Service>,
    pods: Store<Pod>,
    endpoints: Store<Endpoints>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let services = context.informers.of::<Service>(&SERVICES);
    let pods = context.informers.of::<Pod>(&PODS);
    let endpoints: Arc<Informer<Endpoints>> = context.informers.of(&ENDPOINTS);
    common::index(&pods, &services);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        services.on_event(move |event| queue.add(event.object().metadata.key()));
    }
    {
        // What changes or is left behind by others is put right; our own writes come back as no-ops.
        let queue = queue.clone();
        endpoints.on_event(move |event| {
            if event.object().metadata.annotation(ELECTION_RECORD).is_none() {
                queue.add(event.object().metadata.key());
            }
        });
    }
    common::watch_pods(&pods, services.store(), queue.clone(), context.config.endpoint_updates_batch_period);
    let controller = Arc::new(EndpointsController {
        client: context.client("endpoint-controller"),
        services: services.store(),
        pods: pods.store(),
        endpoints: endpoints.store(),
    });
    let workers = context.config.concurrent_endpoint_syncs;
    let followed = [services.synced(), pods.synced(), endpoints.synced()];
    worker::start(NAME, queue, workers, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

impl EndpointsController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let current = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            // Only what a controller made goes with its service.
            if current.is_some_and(|current| {
                current.metadata.label(MANAGED_BY).is_some() || current.metadata.labels.is_empty()
            }) {
                let result =
                    self.client.delete(&ENDPOINTS, Some(&key.namespace), &key.name, &DeleteOptions::default()).await;
                match result {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
            return Ok(Requeue::Never);
        };
        if service.spec.kind == "ExternalName" || service.spec.selector.is_none() || service.metadata.is_deleting() {
            return Ok(Requeue::Never);
        }
        let mut pods = common::pods_of(&self.pods, &service);
        pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let desired = desired(&service, &pods, current.as_deref());
        let result = match &current {
            Some(current) if is_equal(current, &desired) => return Ok(Requeue::Never),
            Some(_) => self.client.update::<IgnoredAny>(&ENDPOINTS, Some(&key.namespace), &key.name, &desired).await,
            None => self.client.create::<IgnoredAny>(&ENDPOINTS, Some(&key.namespace), &desired).await,
        };
        match result {
            Err(error) if error.is_namespace_terminating() => Ok(Requeue::Never),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Requeue::Never),
        }
    }
}

fn is_equal(current: &Endpoints, desired: &Endpoints) -> bool {
    current.subsets == desired.subsets
        && current.metadata.labels == desired.metadata.labels
        && current.metadata.annotation(OVER_CAPACITY) == desired.metadata.annotation(OVER_CAPACITY)
}

fn is_v6(address: &str) -> bool {
    address.contains(':')
}

/// Pure: the endpoints a service should have.
fn desired(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Endpoints {
    let mut subsets = Vec::new();
    let headless = service.spec.cluster_ip.is_empty() || service.spec.cluster_ip == "None";
    let wants_v6 = match service.spec.ip_families.first() {
        Some(family) => family == "IPv6",
        None => !headless && is_v6(&service.spec.cluster_ip),
    };
    for pod in pods.iter().filter(|pod| common::belongs(pod, service.spec.publish_not_ready_addresses)) {
        let Some(ip) = pod.addresses().into_iter().find(|ip| is_v6(ip) == wants_v6) else { continue };
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: if common::has_hostname(pod, service) { pod.spec.hostname.clone() } else { String::new() },
            node_name: Some(pod.spec.node_name.clone()).filter(|node| !node.is_empty()),
            target_ref: Some(Reference {
                kind: "Pod".into(),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..Reference::default()
            }),
        };
        let ready = service.spec.publish_not_ready_addresses || pod.is_ready();
        let mut add = |ports: Vec<SubsetPort>| {
            let mut subset = EndpointSubset { ports, ..EndpointSubset::default() };
            if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses }.push(address.clone());
            subsets.push(subset);
        };
        if service.spec.ports.is_empty() {
            if service.spec.cluster_ip == "None" {
                add(Vec::new());
            }
            continue;
        }
        for port in &service.spec.ports {
            if let Some(number) = common::find_port(pod, port) {
                add(vec![SubsetPort {
                    name: port.name.clone(),
                    port: number,
                    protocol: port.protocol.clone(),
                    app_protocol: port.app_protocol.clone(),
                }]);
            }
        }
    }
    let mut subsets = repack(subsets);
    let truncated = truncate(&mut subsets);
    let mut metadata = current.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |current| current.metadata.clone(),
    );
    metadata.labels = service.metadata.labels.clone();
    metadata.labels.insert(MANAGED_BY.into(), MANAGER.into());
    if headless {
        metadata.labels.insert(HEADLESS.into(), String::new());
    } else {
        metadata.labels.remove(HEADLESS);
    }
    if truncated {
        metadata.annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        metadata.annotations.remove(OVER_CAPACITY);
    }
    Endpoints { api_version: "v1", kind: "Endpoints", metadata, subsets }
}

/// Joins subsets that have the same addresses, so that each set of addresses appears once with all
/// its ports. An address that is not ready on a port is not ready there, whoever says otherwise.
fn repack(subsets: Vec<EndpointSubset>) -> Vec<EndpointSubset> {
    type AddressId = (String, String);
    let mut addresses: HashMap<AddressId, EndpointAddress> = HashMap::new();
    let mut by_port: BTreeMap<Option<SubsetPort>, BTreeMap<AddressId, bool>> = BTreeMap::new();
    for subset in subsets {
        let ports: Vec<Option<SubsetPort>> =
            if subset.ports.is_empty() { vec![None] } else { subset.ports.into_iter().map(Some).collect() };
        let all = subset
            .addresses
            .into_iter()
            .map(|address| (address, true))
            .chain(subset.not_ready_addresses.into_iter().map(|address| (address, false)));
        for (address, ready) in all {
            let uid = address.target_ref.as_ref().map(|target| target.uid.clone()).unwrap_or_default();
            let id = (address.ip.clone(), uid);
            for port in &ports {
                let known = by_port.entry(port.clone()).or_default().entry(id.clone()).or_insert(ready);
                *known = *known && ready;
            }
            addresses.entry(id).or_insert(address);
        }
    }
    let mut by_addresses: BTreeMap<BTreeMap<AddressId, bool>, Vec<SubsetPort>> = BTreeMap::new();
    for (port, members) in by_port {
        by_addresses.entry(members).or_default().extend(port);
    }
    by_addresses
        .into_iter()
        .map(|(members, ports)| {
            let pick = |wanted: bool| {
                members
                    .iter()
                    .filter(|(_, ready)| **ready == wanted)
                    .filter_map(|(id, _)| addresses.get(id).cloned())
                    .collect()
            };
            EndpointSubset { addresses: pick(true), not_ready_addresses: pick(false), ports }
        })
        .collect()
}

/// Cuts to the capacity, ready addresses first, in proportion over the subsets; true when cut.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let ready: usize = subsets.iter().map(|subset| subset.addresses.len()).sum();
    let not_ready: usize = subsets.iter().map(|subset| subset.not_ready_addresses.len()).sum();
    if ready + not_ready <= MAX_ADDRESSES {
        return false;
    }
    let cut_ready = ready > MAX_ADDRESSES;
    let (total, max) = if cut_ready { (ready, MAX_ADDRESSES) } else { (not_ready, MAX_ADDRESSES - ready) };
    let mut room = max;
    for subset in subsets {
        let list = if cut_ready {
            subset.not_ready_addresses.clear();
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        let share = (list.len() * max).div_ceil(total).min(room);
        list.truncate(share);
        room -= list.len();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use crate::types::ServicePort;
    use serde_json::json;

    fn service(ports: &[(&str, i64)]) -> Service {
        let mut service = Service::default();
        service.metadata.name = "web".into();
        service.metadata.namespace = "ns".into();
        service.spec.cluster_ip = "10.96.0.1".into();
        service.spec.selector = Some([("app".to_string(), "web".to_string())].into());
        service.spec.ports = ports
            .iter()
            .map(|(name, port)| ServicePort {
                name: name.to_string(),
                protocol: "TCP".into(),
                port: 80,
                target_port: json!(port),
                app_protocol: None,
            })
            .collect();
        service
    }

    #[test]
    fn ready_and_not_ready_share_a_subset_with_all_ports() {
        let pods = [
            Arc::new(pod("a").ip("10.0.0.1").running().ready(1).build()),
            Arc::new(pod("b").ip("10.0.0.2").running().build()),
            Arc::new(pod("c").ip("10.0.0.3").running().deleting().build()),
            Arc::new(pod("d").running().build()),
        ];
        let made = desired(&service(&[("http", 8080), ("metrics", 9090)]), &pods, None);
        assert_eq!(made.subsets.len(), 1);
        let subset = &made.subsets[0];
        assert_eq!(subset.addresses[0].ip, "10.0.0.1");
        assert_eq!(subset.not_ready_addresses.len(), 1);
        assert_eq!(subset.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [8080, 9090]);
        assert_eq!(made.metadata.label(MANAGED_BY), Some(MANAGER));
        assert_eq!(made.metadata.label(HEADLESS), None);
        assert!(is_equal(&made, &desired(&service(&[("http", 8080), ("metrics", 9090)]), &pods, Some(&made))));
    }

    #[test]
    fn headless_services_need_no_ports() {
        let mut headless = service(&[]);
        let pods = [Arc::new(pod("a").ip("10.0.0.1").running().ready(1).build())];
        assert!(desired(&headless, &pods, None).subsets.is_empty());
        headless.spec.cluster_ip = "None".into();
        let made = desired(&headless, &pods, None);
        assert_eq!(made.subsets[0].addresses.len(), 1);
        assert!(made.subsets[0].ports.is_empty());
        assert_eq!(made.metadata.label(HEADLESS), Some(""));
    }

    #[test]
    fn too_many_are_cut() {
        let pods: Vec<_> = (0..1200)
            .map(|n| {
                Arc::new(pod(&format!("p{n}")).ip(&format!("10.0.{}.{}", n / 250, n % 250)).running().ready(1).build())
            })
            .collect();
        let made = desired(&service(&[("http", 8080)]), &pods, None);
        assert_eq!(made.subsets[0].addresses.len(), 1000);
        assert_eq!(made.metadata.annotation(OVER_CAPACITY), Some("truncated"));
    }
}
