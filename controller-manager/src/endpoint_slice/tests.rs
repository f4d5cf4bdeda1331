//! Tables over the plan, and the tracker.

use std::sync::Arc;

use client::ObjectKey;
use component_base::clock::FakeClock;
use serde_json::json;

use super::plan::{Plan, plan};
use super::tracker::Tracker;
use super::{HEADLESS, service_of};
use crate::testing::pod;
use crate::types::{EndpointSlice, Pod, Service, ServicePort};

fn service() -> Service {
    let mut service = Service::default();
    service.metadata.name = "web".into();
    service.metadata.namespace = "ns".into();
    service.metadata.uid = "svc".into();
    service.spec.cluster_ip = "10.96.0.1".into();
    service.spec.ip_families = vec!["IPv4".into()];
    service.spec.selector = Some([("app".to_string(), "web".to_string())].into());
    service.spec.ports = vec![ServicePort {
        name: "http".into(),
        protocol: "TCP".into(),
        port: 80,
        target_port: json!(8080),
        app_protocol: None,
    }];
    service
}

fn pods(count: usize) -> Vec<Arc<Pod>> {
    (0..count)
        .map(|n| {
            let name = format!("p{n:03}");
            Arc::new(pod(&name).node("n1").ip(&format!("10.0.{}.{}", n / 250, n % 250 + 1)).running().ready(1).build())
        })
        .collect()
}

fn zone(node: &str) -> Option<Option<String>> {
    (node == "n1").then(|| Some("z1".to_string()))
}

fn run(service: &Service, pods: &[Arc<Pod>], existing: Vec<EndpointSlice>, max: usize) -> Plan {
    plan(service, pods, existing, &zone, max)
}

/// What the server would hold after a plan.
fn stored(plan: &Plan) -> Vec<EndpointSlice> {
    plan.create
        .iter()
        .chain(&plan.update)
        .enumerate()
        .map(|(number, slice)| {
            let mut slice = slice.clone();
            if slice.metadata.name.is_empty() {
                slice.metadata.name = format!("web-{number}");
                slice.metadata.uid = format!("u{number}");
            }
            slice
        })
        .collect()
}

fn counts(plan: &Plan) -> (usize, usize, usize) {
    (plan.create.len(), plan.update.len(), plan.delete.len())
}

#[test]
fn slices_are_filled_and_settle() {
    let service = service();
    let first = run(&service, &pods(5), Vec::new(), 2);
    assert_eq!(counts(&first), (3, 0, 0));
    let slice = &first.create[0];
    assert_eq!(slice.endpoints[0].zone.as_deref(), Some("z1"));
    assert_eq!(slice.endpoints[0].conditions.ready, Some(true));
    assert_eq!(slice.ports[0].port, Some(8080));
    assert_eq!(slice.metadata.generate_name, "web-");
    assert_eq!(service_of(slice), Some(ObjectKey::new("ns", "web")));
    let slices = stored(&first);
    assert_eq!(counts(&run(&service, &pods(5), slices.clone(), 2)), (0, 0, 0), "nothing to do twice");
    let grown = run(&service, &pods(6), slices.clone(), 2);
    assert_eq!(counts(&grown), (0, 1, 0), "the slice with room takes it");
    let shrunk = run(&service, &pods(4), slices, 2);
    assert_eq!(counts(&shrunk), (0, 0, 1));
}

#[test]
fn an_empty_service_keeps_a_placeholder() {
    let service = service();
    let empty = run(&service, &[], Vec::new(), 100);
    assert_eq!(counts(&empty), (1, 0, 0));
    assert!(empty.create[0].endpoints.is_empty() && empty.create[0].ports.is_empty());
    let slices = stored(&empty);
    assert_eq!(counts(&run(&service, &[], slices.clone(), 100)), (0, 0, 0));
    let filled = run(&service, &pods(1), slices, 100);
    assert_eq!(counts(&filled), (0, 1, 0), "the placeholder becomes the slice");
    assert_eq!(filled.update[0].metadata.name, "web-0");
    let emptied = run(&service, &[], stored(&filled), 100);
    assert_eq!(counts(&emptied), (0, 1, 0));
}

#[test]
fn conditions_follow_the_pod() {
    let mut service = service();
    let terminating = vec![Arc::new(pod("a").node("n1").ip("10.0.0.1").running().ready(1).deleting().build())];
    let conditions = |service: &Service| {
        let conditions = run(service, &terminating, Vec::new(), 100).create[0].endpoints[0].conditions.clone();
        (conditions.ready, conditions.serving, conditions.terminating)
    };
    assert_eq!(conditions(&service), (Some(false), Some(true), Some(true)));
    service.spec.publish_not_ready_addresses = true;
    assert_eq!(conditions(&service), (Some(true), Some(true), Some(true)));
}

#[test]
fn pods_of_unknown_nodes_wait() {
    let lost = vec![Arc::new(pod("a").node("gone").ip("10.0.0.1").running().ready(1).build())];
    let plan = run(&service(), &lost, Vec::new(), 100);
    assert_eq!(plan.skipped, ["a"]);
    assert!(plan.create[0].endpoints.is_empty());
}

#[test]
fn families_and_ports_make_their_own_slices() {
    let mut service = service();
    service.spec.ip_families = vec!["IPv4".into(), "IPv6".into()];
    let both = vec![Arc::new(pod("a").node("n1").ip("10.0.0.1").ip("fd00::1").running().ready(1).build())];
    let plan = run(&service, &both, Vec::new(), 100);
    let mut families: Vec<&str> = plan.create.iter().map(|slice| slice.address_type.as_str()).collect();
    families.sort();
    assert_eq!(families, ["IPv4", "IPv6"]);

    service.spec.ip_families = vec!["IPv4".into()];
    service.spec.ports[0].target_port = json!("http");
    let mixed = vec![
        Arc::new(pod("a").node("n1").ip("10.0.0.1").port("http", 80).running().ready(1).build()),
        Arc::new(pod("b").node("n1").ip("10.0.0.2").port("http", 81).running().ready(1).build()),
    ];
    assert_eq!(counts(&run(&service, &mixed, Vec::new(), 100)), (2, 0, 0));

    service.spec.cluster_ip = "None".into();
    service.spec.traffic_distribution = Some("PreferSameZone".into());
    let headless = run(&service, &mixed, Vec::new(), 100);
    assert_eq!(headless.create[0].metadata.label(HEADLESS), Some(""));
    assert_eq!(headless.create[0].endpoints[0].hints, json!({ "forZones": [{ "name": "z1" }] }));
}

#[test]
fn the_tracker_knows_when_the_cache_lags() {
    let clock = FakeClock::new(client::Timestamp::UNIX_EPOCH);
    let tracker = Tracker::new(Arc::new(clock.clone()));
    let key = ObjectKey::new("ns", "web");
    let slice = |generation: i64| {
        let mut slice = EndpointSlice::default();
        slice.metadata.uid = "u".into();
        slice.metadata.generation = generation;
        slice
    };
    tracker.update(&key, &slice(2));
    assert!(tracker.is_stale(&key, &[]));
    assert!(tracker.is_stale(&key, &[Arc::new(slice(1))]));
    assert!(!tracker.is_stale(&key, &[Arc::new(slice(2))]));
    assert!(tracker.is_expected(&key, &slice(2)));
    assert!(!tracker.is_expected(&key, &slice(3)), "somebody else changed it");
    tracker.expect_deletion(&key, &slice(2));
    assert!(tracker.is_stale(&key, &[Arc::new(slice(2))]));
    assert!(tracker.observe_deletion(&key, &slice(2)));
    assert!(!tracker.is_stale(&key, &[]));
    tracker.update(&key, &slice(1));
    clock.step(std::time::Duration::from_secs(61));
    assert!(!tracker.is_stale(&key, &[]), "an event that never comes is not awaited for ever");
}
