//! The definitions themselves: status, names, discovery, deletion.

use serde_json::json;

use super::{DEFINITIONS, condition, definition, establish, is_true, object, until};
use crate::Fixture;

fn any() -> serde_json::Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[tokio::test]
async fn is_discovered_and_served_at_once() {
    let server = Fixture::new().await;
    let mut crd = definition("foos", "Foo", "Namespaced", any());
    crd["spec"]["names"]["shortNames"] = json!(["fo"]);
    crd["spec"]["names"]["categories"] = json!(["all"]);
    crd["spec"]["versions"][0]["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}});
    establish(&server, &crd).await;

    let stored = server.get(&format!("{DEFINITIONS}/foos.example.com")).await.body;
    assert_eq!(stored["spec"]["names"]["singular"], "foo");
    assert_eq!(stored["status"]["acceptedNames"]["listKind"], "FooList");
    assert_eq!(stored["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(condition(&stored, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(condition(&stored, "Established")["reason"], "InitialNamesAccepted");

    let list = server.get("/apis/example.com/v1").await.body;
    let names: Vec<&str> =
        list["resources"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["foos", "foos/status", "foos/scale"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["fo"]));
    assert_eq!(list["resources"][0]["categories"], json!(["all"]));
    assert_eq!(
        list["resources"][0]["verbs"],
        json!(["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"])
    );
    assert_eq!(server.get("/apis/example.com").await.body["preferredVersion"]["groupVersion"], "example.com/v1");
    let groups = server.get("/apis").await.body;
    assert_eq!(groups["groups"].as_array().unwrap().last().unwrap()["name"], "example.com");

    let request = http::Request::get("/apis")
        .header("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
        .body(axum::body::Body::empty())
        .unwrap();
    let aggregated = server.send(request).await.body;
    let group = aggregated["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(group["metadata"]["name"], "example.com");
    assert_eq!(group["versions"][0]["resources"][0]["responseKind"]["group"], "example.com");

    // Nobody serves other versions, plurals and scopes.
    for path in ["/apis/example.com/v2", "/apis/example.com/v1/bars", "/apis/example.com/v2/foos"] {
        assert_eq!(server.get(path).await.code, 404, "{path}");
    }
    let made = server.post("/apis/example.com/v1/foos", &object("Foo", "x", json!({}))).await;
    assert_eq!(made.code, 404, "{}", made.text);
}

#[tokio::test]
async fn names_are_taken_once() {
    let server = Fixture::new().await;
    establish(&server, &definition("foos", "Foo", "Namespaced", any())).await;
    let made = server.post(DEFINITIONS, &definition("bars", "Foo", "Namespaced", any())).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let path = format!("{DEFINITIONS}/bars.example.com");
    let second = until(&server, &path, |answer| !condition(&answer.body, "NamesAccepted").is_null()).await.body;
    assert_eq!(condition(&second, "NamesAccepted")["message"], "\"FooList\" is already in use");
    assert_eq!(condition(&second, "Established")["reason"], "NotAccepted");
    assert_eq!(server.get("/apis/example.com/v1/bars").await.code, 404);
}

#[tokio::test]
async fn deletion_takes_the_instances_along() {
    let server = Fixture::new().await;
    establish(&server, &definition("foos", "Foo", "Namespaced", any())).await;
    let collection = "/apis/example.com/v1/namespaces/default/foos";
    let mut held = object("Foo", "held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    assert_eq!(server.post(collection, &held).await.code, 201);
    assert_eq!(server.post(collection, &object("Foo", "free", json!({}))).await.code, 201);

    let path = format!("{DEFINITIONS}/foos.example.com");
    let deleted = server.ask("DELETE", &path, "", "").await;
    assert_eq!(deleted.code, 200, "{}", deleted.text);
    assert_eq!(deleted.body["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert!(is_true(&deleted.body, "Terminating"));

    until(&server, &format!("{collection}/free"), |answer| answer.code == 404).await;
    let refused = server.post(collection, &object("Foo", "late", json!({}))).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    assert_eq!(
        refused.message(),
        "foos.example.com \"late\" is forbidden: create not allowed while custom resource definition is terminating"
    );
    let patch = json!({"metadata": {"finalizers": null}});
    let released =
        server.ask("PATCH", &format!("{collection}/held"), "application/merge-patch+json", patch.to_string()).await;
    assert_eq!(released.code, 200, "{}", released.text);
    until(&server, &path, |answer| answer.code == 404).await;
    until(&server, collection, |answer| answer.code == 404).await;

    // The name is free again, and nothing of the old instances is left.
    establish(&server, &definition("foos", "Foo", "Namespaced", any())).await;
    assert_eq!(server.get(collection).await.body["items"], json!([]));
}
