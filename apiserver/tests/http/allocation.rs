//! Cluster IPs and node ports of Services: nothing is given twice, and what a crash leaves is mended.

use std::collections::HashSet;

use apiserver::Config;
use apiserver::cache::CreateOptions;
use apiserver::config::StorageBackend;
use apiserver::services::repair::Repair;
use axum::body::Body;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{Answer, Fixture};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

async fn create(server: &Fixture, name: &str, spec: Value) -> Answer {
    server.post(SERVICES, &json!({"metadata": {"name": name}, "spec": spec})).await
}

fn small(config: &mut Config) {
    config.service_cluster_ip_ranges = vec!["10.96.0.0/29".parse().unwrap()];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_give_nothing_twice() {
    let configure = |config: &mut Config| {
        config.service_cluster_ip_ranges = vec!["10.96.0.0/26".parse().unwrap()];
        config.service_node_port_range = (30000, 30019);
        // Others may be on the store.
        config.storage = StorageBackend::Etcd { servers: Vec::new(), ca_file: None, cert_file: None, key_file: None };
    };
    let one = Fixture::with(configure).await;
    let two = one.twin(configure).await;
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let writes = (0..32).map(|at| {
        let (server, spec) = (if at % 2 == 0 { &one } else { &two }, spec.clone());
        async move { create(server, &format!("s{at}"), spec).await }
    });
    let answers = join_all(writes).await;
    let (given, refused): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|answer| answer.code == 201);
    // One address is that of the service `kubernetes`, but ports are fewer than addresses.
    assert_eq!(given.len(), 20, "{:?}", refused.first());
    let distinct = |pointer: &str| -> HashSet<String> {
        given.iter().map(|answer| answer.body.pointer(pointer).unwrap().to_string()).collect()
    };
    assert_eq!(distinct("/spec/clusterIP").len(), 20);
    assert_eq!(distinct("/spec/ports/0/nodePort").len(), 20);
    for answer in refused {
        assert_eq!(answer.code, 500, "{}", answer.text);
        assert!(answer.message().ends_with("failed to allocate a nodePort: range is full"), "{}", answer.message());
    }
}

#[tokio::test]
async fn ranges_come_and_go() {
    let server = Fixture::with(small).await;
    let spec = json!({"ports": [{"port": 80}]});
    for at in 0..5 {
        let answer = create(&server, &format!("s{at}"), spec.clone()).await;
        assert_eq!(answer.code, 201, "{}", answer.text);
    }
    let full = create(&server, "full", spec.clone()).await;
    let want = "Internal error occurred: failed to allocate a serviceIP for Service \"full\": range is full";
    assert_eq!((full.code, full.message()), (500, want));
    let more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/29"]}});
    assert_eq!(server.post(RANGES, &more).await.code, 201);
    let answer = create(&server, "more", spec.clone()).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    assert!(answer.body["spec"]["clusterIP"].as_str().unwrap().starts_with("10.97.0."));
    let condition = json!({"type": "Ready", "status": "False", "reason": "Terminating", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {"conditions": [condition]}}).to_string();
    let path = format!("{RANGES}/more/status");
    assert_eq!(server.ask("PATCH", &path, "application/merge-patch+json", status).await.code, 200);
    let refused = create(&server, "not-ready", json!({"clusterIP": "10.97.0.6", "ports": [{"port": 80}]})).await;
    assert!(
        refused.message().ends_with("the provided network does not match the current range"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn failed_writes_give_back() {
    let server = Fixture::with(small).await;
    for _ in 0..8 {
        // An address is taken before the port turns out to be wrong.
        let refused = create(&server, "bad", json!({"ports": [{"port": 0}]})).await;
        assert_eq!(refused.code, 422, "{}", refused.text);
    }
    let left = server.get(ADDRESSES).await.body["items"].as_array().unwrap().len();
    assert_eq!(left, 1, "that of the service `kubernetes`");
}

#[tokio::test]
async fn repair() {
    let server = Fixture::with(small).await;
    let answer = create(&server, "a", json!({"ports": [{"port": 80}]})).await;
    let ip = answer.body["spec"]["clusterIP"].as_str().unwrap().to_string();
    assert_eq!(server.ask("DELETE", &format!("{ADDRESSES}/{ip}"), "", Body::empty()).await.code, 200);
    let inner = &server.handle.server;
    let served = inner.registry.any_version("networking.k8s.io", "ipaddresses").unwrap();
    let leaked = ["10.96.0.6", "10.96.0.5"].into_iter().find(|free| *free != ip).unwrap();
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": leaked, "uid": "u", "creationTimestamp": "2020-01-01T00:00:00Z",
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "gone"}},
    });
    let key = served.key("", leaked);
    served.cache.as_ref().unwrap().create(&key, object, CreateOptions::default()).await.unwrap();
    Repair::default().pass(inner).await.unwrap();
    let made = server.get(&format!("{ADDRESSES}/{ip}")).await;
    assert_eq!(made.body["spec"]["parentRef"]["name"], "a", "{}", made.text);
    assert_eq!(server.get(&format!("{ADDRESSES}/{leaked}")).await.code, 404);
}
