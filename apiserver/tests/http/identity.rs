//! The Lease by which a server is known to others of its cluster.

use component_base::program::hostname;
use serde_json::{Value, json};

use super::Fixture;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const HOOKS: [&str; 2] = [
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
];

/// The only Lease, once it is there.
async fn lease(server: &Fixture) -> Value {
    loop {
        let list = server.get(LEASES).await.body;
        if let Some(lease) = list["items"].as_array().and_then(|items| items.first()) {
            return lease.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_server_has_a_lease_while_it_runs() {
    let server = Fixture::with(|config| config.advertise_address = Some("192.0.2.7".parse().unwrap())).await;
    let found = lease(&server).await;
    let identity = server.handle.server.identity.as_ref().expect("the gate is on");
    assert_eq!(found["metadata"]["name"], identity.id());
    assert_eq!(
        found["metadata"]["labels"],
        json!({"apiserver.kubernetes.io/identity": "kube-apiserver", "kubernetes.io/hostname": hostname().unwrap()})
    );
    assert_eq!(found["metadata"]["annotations"], json!({"kubernetes.io/peer-advertise-address": "192.0.2.7:6443"}));
    assert_eq!(found["metadata"]["managedFields"][0]["manager"], "kube-apiserver");
    let spec = &found["spec"];
    let holder = spec["holderIdentity"].as_str().unwrap();
    let own = holder.strip_prefix(identity.id()).and_then(|rest| rest.strip_prefix('_'));
    assert_eq!(own.map(str::len), Some(36), "{holder}");
    assert_eq!(spec["leaseDurationSeconds"], 3600);
    assert!(spec["renewTime"].is_string() && spec["acquireTime"].is_null(), "{spec}");

    // A new process on the same machine makes a Lease of its own.
    let twin = server.twin(|_| {}).await;
    assert_ne!(lease(&twin).await["metadata"]["uid"], found["metadata"]["uid"]);

    twin.handle.server.lifecycle.initiated.cancel();
    server.handle.server.lifecycle.initiated.cancel();
    server.handle.server.lifecycle.closing.cancelled().await;
    twin.handle.server.lifecycle.closing.cancelled().await;
    assert_eq!(server.get(LEASES).await.body["items"], json!([]), "who ends says so");
}

#[tokio::test]
async fn what_it_starts_is_listed_and_may_be_off() {
    let server = Fixture::new().await;
    let text = server.get("/readyz?verbose").await.text;
    let paths = server.get("/").await.body["paths"].clone();
    for hook in HOOKS {
        assert!(text.contains(&format!("[+]{hook} ok\n")), "{text}");
        assert!(paths.as_array().unwrap().contains(&format!("/livez/{hook}").into()));
    }
    let off = |gate: &str| (gate.to_string(), false);
    let server = Fixture::with(|config| {
        config.feature_gates = vec![off("APIServerIdentity"), off("UnknownVersionInteroperabilityProxy")];
    })
    .await;
    let text = server.get("/readyz?verbose").await.text;
    for hook in HOOKS {
        assert!(!text.contains(hook), "{text}");
    }
    assert!(!text.contains("peer-endpoint-reconciler-controller"), "{text}");
    server.handle.server.lifecycle.initiated.cancel();
    server.handle.server.lifecycle.closing.cancelled().await;
    assert_eq!(server.get(LEASES).await.body["items"], json!([]));
}
