//! What a schema does to objects: pruning, defaults, validation.

use serde_json::{Value, json};

use super::{DEFINITIONS, definition, establish, object, until};
use crate::Fixture;

const FOOS: &str = "/apis/example.com/v1/foos";

async fn server(schema: Value) -> Fixture {
    let server = Fixture::new().await;
    establish(&server, &definition("foos", "Foo", "Cluster", schema)).await;
    server
}

fn spec(properties: Value) -> Value {
    json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}})
}

#[tokio::test]
async fn unknown_fields_go_and_are_told() {
    let server = server(spec(json!({"a": {"type": "string"}}))).await;
    let foo = object("Foo", "x", json!({"spec": {"a": "1", "b": "2"}, "c": 3}));
    let made = server.post(&format!("{FOOS}?fieldValidation=Strict"), &foo).await;
    assert_eq!(made.code, 400);
    assert_eq!(
        made.message(),
        "Foo in version \"v1\" cannot be handled as a Foo: strict decoding error: unknown field \"c\", unknown field \"spec.b\""
    );
    let made = server.post(&format!("{FOOS}?fieldValidation=Warn"), &foo).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(made.body["spec"], json!({"a": "1"}));
    assert_eq!(made.body.get("c"), None);
    assert_eq!(made.warnings, ["299 - \"unknown field \\\"c\\\"\"", "299 - \"unknown field \\\"spec.b\\\"\""]);
    let bad = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "y", "labels": {"a": 1}}});
    let made = server.post(FOOS, &bad).await;
    assert_eq!(made.code, 400);
    assert!(
        made.message().contains("json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string"),
        "{}",
        made.text
    );
}

#[tokio::test]
async fn defaults_on_write_and_on_read() {
    let server = server(spec(json!({"a": {"type": "string", "default": "A"}}))).await;
    let made = server.post(FOOS, &object("Foo", "x", json!({"spec": {}}))).await;
    assert_eq!(made.body["spec"], json!({"a": "A"}), "{}", made.text);
    // A default that comes later shows in what was stored before.
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut crd = server.get(&path).await.body;
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
        spec(json!({"a": {"type": "string", "default": "A"}, "b": {"type": "integer", "default": 1}}));
    let put = server.ask("PUT", &path, "application/json", crd.to_string()).await;
    assert_eq!(put.code, 200, "{}", put.text);
    let read = until(&server, &format!("{FOOS}/x"), |answer| answer.body["spec"]["b"] == 1).await;
    assert_eq!(read.body["spec"], json!({"a": "A", "b": 1}));
    assert_eq!(server.get(FOOS).await.body["items"][0]["spec"]["b"], 1);
}

#[tokio::test]
async fn values_are_validated_and_ratcheted() {
    let server = server(spec(json!({
        "a": {"type": "string", "maxLength": 3},
        "n": {"type": "integer", "minimum": 1},
    })))
    .await;
    let made = server.post(FOOS, &object("Foo", "x", json!({"spec": {"a": "long", "n": 0}}))).await;
    assert_eq!(made.code, 422);
    assert_eq!(
        made.message(),
        "Foo.example.com \"x\" is invalid: [spec.a: Too long: may not be more than 3 bytes, spec.n: Invalid value: 0: spec.n in body should be greater than or equal to 1]"
    );
    assert_eq!(made.body["details"]["causes"][0]["field"], "spec.a");
    assert_eq!(server.post(FOOS, &object("Foo", "x", json!({"spec": {"a": "abc", "n": 1}}))).await.code, 201);
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut crd = server.get(&path).await.body;
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["a"]["maxLength"] =
        2.into();
    assert_eq!(server.ask("PUT", &path, "application/json", crd.to_string()).await.code, 200);
    // What was fine once may stay, but not change to something else that is wrong. Another value each time: one
    // that stands already would stay allowed.
    let mut last = None;
    for i in 100..900 {
        let wrong = json!({"spec": {"a": i.to_string()}}).to_string();
        let answer = server.ask("PATCH", &format!("{FOOS}/x"), "application/merge-patch+json", wrong).await;
        last = Some(answer.code);
        if answer.code == 422 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(last, Some(422));
    let kept = json!({"spec": {"n": 5}}).to_string();
    let kept = server.ask("PATCH", &format!("{FOOS}/x"), "application/merge-patch+json", kept).await;
    assert_eq!(kept.code, 200, "{}", kept.text);
}
