//! What both endpoint controllers ask of pods and services: who belongs, on which port, and which
//! services a pod event concerns.

use client::ObjectKey;
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use serde_json::Value;

use crate::types::{Pod, Service, ServicePort};

pub const BY_NAMESPACE: &str = "namespace";

/// Adds the indexes both controllers use.
pub fn index(pods: &Informer<Pod>, services: &Informer<Service>) {
    pods.add_index(BY_NAMESPACE, |pod| vec![pod.metadata.namespace.clone()]);
    services.add_index(BY_NAMESPACE, |service| vec![service.metadata.namespace.clone()]);
}

/// Whether a service's selector takes a pod. A service without a selector takes none.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    service
        .spec
        .selector
        .as_ref()
        .is_some_and(|selector| selector.iter().all(|(key, value)| pod.metadata.label(key) == Some(value)))
}

/// The pods a service selects.
pub fn pods_of(pods: &Store<Pod>, service: &Service) -> Vec<std::sync::Arc<Pod>> {
    let mut found = pods.by_index(BY_NAMESPACE, &service.metadata.namespace);
    found.retain(|pod| selects(service, pod));
    found
}

/// Whether a pod has an address and is not over; those being deleted count only where wanted.
pub fn belongs(pod: &Pod, include_terminating: bool) -> bool {
    !pod.is_finished() && !pod.addresses().is_empty() && (include_terminating || !pod.metadata.is_deleting())
}

/// Whether the endpoint is known by its pod's host name, as in `host.subdomain.ns.svc`.
pub fn has_hostname(pod: &Pod, service: &Service) -> bool {
    !pod.spec.hostname.is_empty()
        && pod.spec.subdomain == service.metadata.name
        && pod.metadata.namespace == service.metadata.namespace
}

/// The pod's port that a service port leads to: by number, or by name among the containers and
/// sidecars.
pub fn find_port(pod: &Pod, port: &ServicePort) -> Option<i64> {
    match &port.target_port {
        Value::String(name) => {
            let sidecars = pod
                .spec
                .init_containers
                .iter()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            pod.spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| &container.ports)
                .find(|candidate| candidate.name == *name && candidate.protocol == port.protocol)
                .map(|candidate| candidate.container_port)
        }
        Value::Number(number) => number.as_i64(),
        _ => Some(port.port),
    }
}

/// Whether a pod's change can matter to endpoints.
fn is_relevant(old: &Pod, new: &Pod) -> bool {
    old.metadata.labels != new.metadata.labels
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.uid != new.metadata.uid
        || old.is_ready() != new.is_ready()
        || old.is_finished() != new.is_finished()
        || old.status.pod_ips != new.status.pod_ips
        || old.status.pod_ip != new.status.pod_ip
        || old.spec.node_name != new.spec.node_name
        || (&old.spec.hostname, &old.spec.subdomain) != (&new.spec.hostname, &new.spec.subdomain)
}

/// Queues the services that a pod event concerns.
pub fn watch_pods(
    pods: &Informer<Pod>,
    services: Store<Service>,
    queue: WorkQueue<ObjectKey>,
    batch: std::time::Duration,
) {
    let enqueue = move |pod: &Pod| {
        for service in services.by_index(BY_NAMESPACE, &pod.metadata.namespace) {
            if selects(&service, pod) {
                queue.add_after(service.metadata.key(), batch);
            }
        }
    };
    pods.on_event(move |event| match event {
        Event::Added(pod) | Event::Deleted(pod) => enqueue(pod),
        Event::Modified { old, new } => {
            if is_relevant(old, new) {
                if old.metadata.labels != new.metadata.labels {
                    enqueue(old);
                }
                enqueue(new);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::json;

    #[test]
    fn ports_are_found_by_number_and_name() {
        let pod = pod("a").port("http", 8080).build();
        let port =
            |target: Value| ServicePort { port: 80, protocol: "TCP".into(), target_port: target, ..Default::default() };
        assert_eq!(find_port(&pod, &port(json!(9090))), Some(9090));
        assert_eq!(find_port(&pod, &port(json!("http"))), Some(8080));
        assert_eq!(find_port(&pod, &port(json!("dns"))), None);
        let udp = ServicePort { protocol: "UDP".into(), ..port(json!("http")) };
        assert_eq!(find_port(&pod, &udp), None);
    }

    #[test]
    fn who_belongs() {
        assert!(!belongs(&pod("a").build(), true), "no address");
        assert!(belongs(&pod("a").ip("10.0.0.1").running().build(), false));
        assert!(!belongs(&pod("a").ip("10.0.0.1").phase("Succeeded").build(), true));
        assert!(!belongs(&pod("a").ip("10.0.0.1").deleting().build(), false));
        assert!(belongs(&pod("a").ip("10.0.0.1").deleting().build(), true));
        let mut service = Service::default();
        assert!(!selects(&service, &pod("a").build()), "no selector selects nothing");
        service.spec.selector = Some([("app".to_string(), "x".to_string())].into());
        assert!(selects(&service, &pod("a").label("app", "x").build()));
    }
}
