//! Objects that cannot be read any more go behind their gate, and only by whoever may.

use apiserver::UserInfo;
use apiserver::storage::{Storage as _, WriteOptions};
use bytes::Bytes;
use serde_json::json;

use super::Fixture;

const GATE: &str = "AllowUnsafeMalformedObjectDeletion";
const OPTION: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";
const PATH: &str = "/api/v1/namespaces/default/configmaps/broken";
const KEY: &str = "/registry/configmaps/default/broken";

async fn world(gate: bool) -> Fixture {
    let server = Fixture::with(|config| config.feature_gates = vec![(GATE.to_string(), gate)]).await;
    server.storage.create(KEY, Bytes::from_static(b"{\"kind\":"), WriteOptions::default()).await.unwrap();
    server
}

#[tokio::test]
async fn what_cannot_be_read_can_be_deleted() {
    let server = world(true).await;
    let read = server.get(PATH).await;
    assert_eq!(read.code, 500);
    let text = format!(
        "Internal error occurred: StorageError: corrupt object, Code: 7, Key: {KEY}, ResourceVersion: 0, AdditionalErrorMsg: object not decodable revision="
    );
    assert!(read.message().starts_with(&text), "{}", read.message());

    let unsafely = json!({OPTION: true});
    let with = |name: &str, value: serde_json::Value| json!({OPTION: true, name: value}).to_string();
    for (body, name) in [
        (with("dryRun", json!(["All"])), "dryRun"),
        (with("propagationPolicy", json!("Orphan")), "propagationPolicy"),
        (with("gracePeriodSeconds", json!(0)), "gracePeriodSeconds"),
        (with("preconditions", json!({"uid": "a"})), "preconditions"),
    ] {
        let refused = server.ask("DELETE", PATH, "application/json", body).await;
        let want = format!(
            "DeleteOptions.meta.k8s.io \"\" is invalid: {OPTION}: Invalid value: true: cannot be set together with .{name}"
        );
        assert_eq!((refused.code, refused.message()), (422, want.as_str()));
    }
    let many =
        server.ask("DELETE", "/api/v1/namespaces/default/configmaps", "application/json", unsafely.to_string()).await;
    assert!(many.message().contains("is not allowed with DELETECOLLECTION"), "{}", many.message());

    // Somebody who may delete, and no more.
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["delete"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "deleter"}, "rules": rules});
    assert_eq!(server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.code, 201);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "deleter"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "deleter"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "joe"}],
    });
    assert_eq!(server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.code, 201);
    let mut refused = server.ask_as(UserInfo::new("joe", &[]), "DELETE", PATH, &unsafely).await;
    for _ in 0..400 {
        // Bindings are followed, not waited for.
        if !refused.message().contains("cannot delete resource") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        refused = server.ask_as(UserInfo::new("joe", &[]), "DELETE", PATH, &unsafely).await;
    }
    assert_eq!(refused.code, 403);
    assert!(
        refused.message().contains("not permitted to do \"unsafe-delete-ignore-read-errors\""),
        "{}",
        refused.message()
    );

    let deleted = server.ask("DELETE", PATH, "application/json", unsafely.to_string()).await;
    assert_eq!((deleted.code, &deleted.body["status"]), (200, &json!("Success")), "{}", deleted.text);
    assert_eq!(deleted.body["details"], json!({"name": "broken", "kind": "ConfigMap"}));
    assert_eq!(server.storage.get(KEY, None).await.unwrap(), None);
    assert_eq!(server.get(PATH).await.code, 404);

    // The rest is deleted as ever.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "broken"}});
    assert_eq!(server.post("/api/v1/namespaces/default/configmaps", &map).await.code, 201);
    let refused = server.ask("DELETE", PATH, "application/json", unsafely.to_string()).await;
    let want = format!(
        "configmaps \"broken\" is invalid: {OPTION}: Invalid value: true: is exclusively used to delete corrupt object(s), try again by removing this option"
    );
    assert_eq!((refused.code, refused.message()), (422, want.as_str()));
    assert_eq!(server.ask("DELETE", PATH, "application/json", "{}").await.code, 200);
}

#[tokio::test]
async fn without_the_gate_there_is_no_such_option() {
    let server = world(false).await;
    let body = json!({OPTION: true, "dryRun": ["All"]}).to_string();
    assert_eq!(server.ask("DELETE", PATH, "application/json", body).await.code, 404);
    assert!(server.storage.get(KEY, None).await.unwrap().is_some(), "it stays");
}
