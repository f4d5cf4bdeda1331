//! Objects of custom kinds: every verb, status and scale, tables, selectors, apply.

use serde_json::{Value, json};

use super::{definition, establish, object};
use crate::Fixture;

const FOOS: &str = "/apis/example.com/v1/namespaces/default/foos";

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "color": {"type": "string"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                      "items": {"type": "object", "required": ["port"], "properties": {
                          "port": {"type": "integer"}, "name": {"type": "string"}}}},
        }},
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string"}}},
    }})
}

async fn server() -> Fixture {
    let server = Fixture::new().await;
    let mut crd = definition("foos", "Foo", "Namespaced", schema());
    crd["spec"]["versions"][0]["subresources"] = json!({"status": {}, "scale": {
        "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}});
    crd["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
        {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "priority": 1},
    ]);
    crd["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    establish(&server, &crd).await;
    server
}

async fn patch(server: &Fixture, path: &str, kind: &str, body: Value) -> crate::Answer {
    server.ask("PATCH", path, kind, body.to_string()).await
}

#[tokio::test]
async fn every_verb() {
    let server = server().await;
    let made =
        server.post(FOOS, &object("Foo", "a", json!({"spec": {"color": "red"}, "status": {"phase": "x"}}))).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(made.body["metadata"]["generation"], 1);
    assert_eq!(made.body.get("status"), None, "a create sets no status");
    let path = format!("{FOOS}/a");

    let mut changed = made.body.clone();
    changed["spec"]["color"] = "blue".into();
    let put = server.ask("PUT", &path, "application/json", changed.to_string()).await;
    assert_eq!((put.code, &put.body["metadata"]["generation"]), (200, &json!(2)), "{}", put.text);
    let stale = server.ask("PUT", &path, "application/json", changed.to_string()).await;
    assert_eq!(stale.code, 409, "{}", stale.text);
    changed["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let unconditional = server.ask("PUT", &path, "application/json", changed.to_string()).await;
    assert_eq!(unconditional.code, 422, "{}", unconditional.text);
    assert_eq!(
        unconditional.message(),
        "foos.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    );

    let merged = patch(&server, &path, "application/merge-patch+json", json!({"spec": {"color": "green"}})).await;
    assert_eq!((merged.code, &merged.body["spec"]["color"]), (200, &json!("green")), "{}", merged.text);
    let labelled =
        patch(&server, &path, "application/merge-patch+json", json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled.body["metadata"]["generation"], 3, "labels are no generation");
    let operations = json!([{"op": "replace", "path": "/spec/color", "value": "red"}]);
    assert_eq!(patch(&server, &path, "application/json-patch+json", operations).await.code, 200);
    let strategic = patch(&server, &path, "application/strategic-merge-patch+json", json!({})).await;
    assert_eq!(strategic.code, 415, "{}", strategic.text);
    assert_eq!(
        strategic.message(),
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    );

    let list = server.get(FOOS).await.body;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("FooList"), &json!("example.com/v1")));
    assert_eq!(list["items"][0]["metadata"]["name"], "a");
    assert_eq!(server.get("/apis/example.com/v1/foos").await.body["items"].as_array().unwrap().len(), 1);

    let gone = server.ask("DELETE", &path, "", "").await;
    assert_eq!((gone.code, &gone.body["status"]), (200, &json!("Success")), "{}", gone.text);
    assert_eq!(server.get(&path).await.code, 404);
    assert_eq!(server.get(&path).await.message(), "foos.example.com \"a\" not found");
}

#[tokio::test]
async fn status_and_scale() {
    let server = server().await;
    let made = server.post(FOOS, &object("Foo", "a", json!({"spec": {"replicas": 2}}))).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let path = format!("{FOOS}/a");
    let status = json!({"spec": {"replicas": 9}, "metadata": {"labels": {"x": "y"}}, "status": {"replicas": 1, "selector": "a=b"}});
    let updated = patch(&server, &format!("{path}/status"), "application/merge-patch+json", status).await;
    assert_eq!(updated.code, 200, "{}", updated.text);
    assert_eq!(updated.body["spec"]["replicas"], 2);
    assert_eq!(updated.body["metadata"].get("labels"), None);
    assert_eq!(updated.body["metadata"]["generation"], 1);
    // The main resource leaves the status alone.
    let main = patch(&server, &path, "application/merge-patch+json", json!({"status": {"replicas": 7}})).await;
    assert_eq!(main.body["status"]["replicas"], 1);

    let scale = server.get(&format!("{path}/scale")).await.body;
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["spec"], json!({"replicas": 2}));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    let scaled =
        patch(&server, &format!("{path}/scale"), "application/merge-patch+json", json!({"spec": {"replicas": 5}}))
            .await;
    assert_eq!((scaled.code, &scaled.body["spec"]["replicas"]), (200, &json!(5)), "{}", scaled.text);
    assert_eq!(server.get(&path).await.body["spec"]["replicas"], 5);

    assert_eq!(server.post(FOOS, &object("Foo", "b", json!({}))).await.code, 201);
    let none = server.get(&format!("{FOOS}/b/scale")).await;
    assert_eq!(none.code, 500);
    assert!(none.message().contains("the spec replicas field \".spec.replicas\" does not exist"), "{}", none.text);
    let negative = server.post(FOOS, &object("Foo", "c", json!({"spec": {"replicas": -1}}))).await;
    assert!(
        negative.message().contains(".spec.replicas: Invalid value: -1: should be a non-negative integer"),
        "{}",
        negative.text
    );
}

#[tokio::test]
async fn tables_and_selectors() {
    let server = server().await;
    for (name, color) in [("a", "red"), ("b", "blue")] {
        assert_eq!(server.post(FOOS, &object("Foo", name, json!({"spec": {"color": color}}))).await.code, 201);
    }
    let request = http::Request::get(FOOS)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(axum::body::Body::empty())
        .unwrap();
    let table = server.send(request).await.body;
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Color", "Age"]);
    assert_eq!(table["columnDefinitions"][2]["priority"], 1);
    assert_eq!(table["rows"][1]["cells"][1], "blue");
    let red = server.get(&format!("{FOOS}?fieldSelector=spec.color%3Dred")).await.body;
    assert_eq!(red["items"].as_array().unwrap().len(), 1);
    assert_eq!(red["items"][0]["metadata"]["name"], "a");
    let unknown = server.get(&format!("{FOOS}?fieldSelector=spec.size%3D1")).await;
    assert_eq!((unknown.code, unknown.message()), (400, "field label not supported: spec.size"));
}

#[tokio::test]
async fn apply_merges_by_the_schema() {
    let server = server().await;
    let path = format!("{FOOS}/a?fieldManager=one");
    let config = object("Foo", "a", json!({"spec": {"color": "red", "ports": [{"port": 1, "name": "x"}]}}));
    let applied = patch(&server, &path, "application/apply-patch+yaml", config).await;
    assert_eq!(applied.code, 201, "{}", applied.text);
    let other = object("Foo", "a", json!({"spec": {"ports": [{"port": 2, "name": "y"}]}}));
    let applied = patch(&server, &format!("{FOOS}/a?fieldManager=two"), "application/apply-patch+yaml", other).await;
    assert_eq!(applied.code, 200, "{}", applied.text);
    assert_eq!(applied.body["spec"]["ports"], json!([{"port": 1, "name": "x"}, {"port": 2, "name": "y"}]));
    let fields = &applied.body["metadata"]["managedFields"][1]["fieldsV1"];
    assert!(fields["f:spec"]["f:ports"].get("k:{\"port\":2}").is_some(), "{fields}");
    let conflict = object("Foo", "a", json!({"spec": {"color": "blue"}}));
    let refused = patch(&server, &format!("{FOOS}/a?fieldManager=two"), "application/apply-patch+yaml", conflict).await;
    assert_eq!(refused.code, 409, "{}", refused.text);
    assert_eq!(refused.message(), "Apply failed with 1 conflict: conflict with \"one\": .spec.color");
    // What a manager leaves out is gone.
    let without = object("Foo", "a", json!({"spec": {"ports": [{"port": 1, "name": "x"}]}}));
    let applied = patch(&server, &path, "application/apply-patch+yaml", without).await;
    assert_eq!(applied.body["spec"].get("color"), None, "{}", applied.text);
}
