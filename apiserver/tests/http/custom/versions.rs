//! Versions whose schemas differ: what a field that only one of them has comes to.

use serde_json::{Value, json};

use super::{definition, establish};
use crate::{Answer, Fixture};

const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// `spec.old` is known to `v1alpha1` only, with a default; `v2` keeps everything.
async fn server(storage: &str) -> Fixture {
    let spec =
        |fields: Value| json!({"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}});
    let a = json!({"type": "string"});
    let rule = json!([{"rule": "self.size() < 3", "message": "short"}]);
    let mut crd = definition(
        "foos",
        "Foo",
        "Cluster",
        spec(json!({
            "a": a,
            "long": {"type": "string", "x-kubernetes-validations": rule},
            "time": {"type": "string", "format": "byte", "x-kubernetes-validations": [{"rule": "self.size() < 3"}]},
            "n": {"type": "integer", "maximum": 3},
        })),
    );
    let alpha = spec(json!({"a": a, "old": {"type": "string", "default": "older"}}));
    let lax = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    for (name, schema) in [("v1alpha1", alpha), ("v2", lax)] {
        let version = json!({"name": name, "served": true, "storage": false, "schema": {"openAPIV3Schema": schema}});
        crd["spec"]["versions"].as_array_mut().expect("a list").push(version);
    }
    for version in crd["spec"]["versions"].as_array_mut().expect("a list") {
        version["storage"] = (version["name"] == storage).into();
    }
    let server = Fixture::new().await;
    establish(&server, &crd).await;
    server
}

fn foo(version: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Foo", "metadata": {"name": "x"}, "spec": spec})
}

fn path(version: &str) -> String {
    format!("/apis/example.com/{version}/foos")
}

async fn patch(server: &Fixture, version: &str, kind: &str, body: &Value) -> Answer {
    let query = if kind == APPLY { "?fieldManager=applier" } else { "" };
    server.ask("PATCH", &format!("{}/x{query}", path(version)), kind, body.to_string()).await
}

#[tokio::test]
async fn fields_are_owned_as_long_as_every_version_that_owns_some_can_say_them() {
    let server = server("v1alpha1").await;
    assert_eq!(server.post(&path("v1"), &foo("v1", json!({"a": "b"}))).await.code, 201);
    // Under v1alpha1 there is `old`, of which v1, whose manager wrote, knows nothing.
    let refused = patch(&server, "v1alpha1", APPLY, &foo("v1alpha1", json!({"a": "b"}))).await;
    assert_eq!((refused.code, refused.message()), (500, ".spec.old: field not declared in schema"));
    let merged = patch(&server, "v1alpha1", MERGE, &json!({"spec": {"a": "c"}})).await;
    assert_eq!((merged.code, &merged.body["metadata"]["managedFields"]), (200, &Value::Null), "{}", merged.text);
    let applied = patch(&server, "v1", APPLY, &foo("v1", json!({"a": "c"}))).await;
    let owners: Vec<_> = applied.body["metadata"]["managedFields"].as_array().expect("owners").iter().collect();
    assert_eq!(owners[0]["manager"], "applier", "{}", applied.text);
}

#[tokio::test]
async fn a_dry_run_answers_what_would_be_read_back() {
    let server = server("v1").await;
    let alpha = foo("v1alpha1", json!({"old": "x"}));
    let dry = server.post(&format!("{}?dryRun=All", path("v1alpha1")), &alpha).await;
    let made = server.post(&path("v1alpha1"), &alpha).await;
    assert_eq!((dry.code, made.code), (201, 201));
    assert_eq!(dry.body["spec"], made.body["spec"], "v1 has no place for it");
    let change = json!({"spec": {"old": "y", "a": "b"}}).to_string();
    let there = format!("{}/x?dryRun=All", path("v1alpha1"));
    let dry = server.ask("PATCH", &there, MERGE, change).await;
    assert_eq!(dry.body["spec"], json!({"a": "b"}), "{}", dry.text);
}

#[tokio::test]
async fn of_a_version_that_does_not_exist_every_field_is_unknown() {
    let server = server("v1").await;
    let answer = server.post(&path("v1"), &foo("v9", json!({"a": "b"}))).await;
    assert_eq!(answer.code, 400);
    assert!(answer.message().contains("does not match the expected API version"), "{}", answer.text);
    assert_eq!(answer.warnings, ["299 - \"unknown field \\\"spec\\\"\""]);
    assert_eq!(server.post(&path("v1"), &foo("v1", json!({"a": "b"}))).await.code, 201);
    let change = json!([{"op": "replace", "path": "/apiVersion", "value": "example.com/v9"}]);
    let answer = patch(&server, "v1", "application/json-patch+json", &change).await;
    assert_eq!((answer.code, answer.warnings.len()), (422, 1), "{}", answer.text);
}

#[tokio::test]
async fn what_was_wrong_before_is_told_beside_what_is_wrong_now() {
    let server = server("v1").await;
    // v2 lets everything pass.
    assert_eq!(server.post(&path("v2"), &foo("v2", json!({"long": "long", "n": 1}))).await.code, 201);
    let answer = patch(&server, "v1", MERGE, &json!({"spec": {"n": 5}})).await;
    assert_eq!(answer.code, 422, "{}", answer.text);
    assert_eq!(answer.warnings, ["299 - \"spec.long: Invalid value: \\\"long\\\": short\""]);
}

#[tokio::test]
async fn rules_about_what_cannot_be_read_fail() {
    let server = server("v1").await;
    assert_eq!(server.post(&path("v2"), &foo("v2", json!({"time": "*"}))).await.code, 201);
    let answer = patch(&server, "v1", MERGE, &json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(answer.code, 422, "{}", answer.text);
    let why = "Invalid byte formatted string *: illegal base64 data at input byte 0 evaluating rule: self.size() < 3";
    assert!(answer.message().contains(why), "{}", answer.text);
    let answer = patch(&server, "v1", MERGE, &json!({"spec": {"time": "YWFhYQ=="}})).await;
    assert_eq!(answer.code, 422, "the new value is judged, whatever the old one was: {}", answer.text);
}

#[tokio::test]
async fn an_apply_that_changes_nothing_sets_no_default() {
    let server = server("v1").await;
    assert_eq!(server.post(&path("v1"), &foo("v1", json!({"a": "b"}))).await.code, 201);
    let applied = patch(&server, "v1alpha1", APPLY, &foo("v1alpha1", json!({}))).await;
    assert_eq!(applied.code, 200, "{}", applied.text);
    assert_eq!(applied.body["metadata"]["generation"], 1, "{}", applied.text);
}

#[tokio::test]
async fn a_webhook_that_knows_another_version_loses_nothing() {
    use crate::dynamic_admission::{Hooks, configure};
    let server = server("v1").await;
    let hooks = Hooks::serve(&[("/label", |request| {
        let operations = match request["object"]["spec"]["n"] == 1 && request["kind"]["version"] == "v1alpha1" {
            true => json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "alpha"}}]),
            false => json!([]),
        };
        crate::dynamic_admission::patch(operations)
    })])
    .await;
    let mut hook = hooks.hook("label.webhook.test", "/label");
    hook["rules"] = json!([{"apiGroups": ["example.com"], "apiVersions": ["v1alpha1"], "resources": ["foos"],
        "operations": ["CREATE"]}]);
    configure(&server, "MutatingWebhookConfiguration", vec![hook]).await;
    let made = server.post(&path("v1"), &foo("v1", json!({"a": "b", "n": 1}))).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert_eq!(made.body["metadata"]["labels"], json!({"seen": "alpha"}));
    assert_eq!(made.body["spec"], json!({"a": "b", "n": 1}), "v1alpha1 has no n, and old is not of v1");
}

#[tokio::test]
async fn a_first_apply_that_changes_nothing_sets_no_default() {
    let server = server("v1").await;
    assert_eq!(server.post(&path("v1"), &foo("v1", json!({"a": "b"}))).await.code, 201);
    let disowned = patch(&server, "v1", MERGE, &json!({"metadata": {"managedFields": [{}]}})).await;
    assert_eq!((disowned.code, &disowned.body["metadata"]["managedFields"]), (200, &Value::Null), "{}", disowned.text);
    let applied = patch(&server, "v1alpha1", APPLY, &foo("v1alpha1", json!({}))).await;
    assert_eq!((applied.code, &applied.body["metadata"]["generation"]), (200, &json!(1)), "{}", applied.text);
    assert_eq!(applied.body["metadata"]["managedFields"].as_array().map(Vec::len), Some(2), "{}", applied.text);
}
