//! CustomResourceDefinitions and what is served from them.

mod conversion;
mod definitions;
mod objects;
mod schemas;
mod versions;

use std::time::Duration;

use serde_json::{Value, json};

use crate::{Answer, Fixture};

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition of one served and stored version, `v1`.
pub fn definition(plural: &str, kind: &str, scope: &str, schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com",
            "scope": scope,
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// Creates a definition and waits until it is served.
pub async fn establish(server: &Fixture, definition: &Value) {
    let made = server.post(DEFINITIONS, definition).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let name = definition["metadata"]["name"].as_str().unwrap();
    until(server, &format!("{DEFINITIONS}/{name}"), |answer| is_true(&answer.body, "Established")).await;
    let group = definition["spec"]["group"].as_str().unwrap();
    for version in definition["spec"]["versions"].as_array().unwrap() {
        if version["served"] == true {
            let path = format!("/apis/{group}/{}", version["name"].as_str().unwrap());
            let plural = definition["spec"]["names"]["plural"].clone();
            until(server, &path, |answer| {
                answer.body["resources"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == plural))
            })
            .await;
        }
    }
}

/// Whether a condition of a definition is True.
pub fn is_true(definition: &Value, kind: &str) -> bool {
    condition(definition, kind)["status"] == "True"
}

pub fn condition<'a>(definition: &'a Value, kind: &str) -> &'a Value {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|one| one["type"] == kind)).unwrap_or(&Value::Null)
}

/// Reads until the answer is as wanted.
pub async fn until(server: &Fixture, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let mut last = None;
    for _ in 0..500 {
        let answer = server.get(path).await;
        if wanted(&answer) {
            return answer;
        }
        last = Some(answer);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} never became as wanted: {last:?}");
}

/// An object of `example.com/v1`.
pub fn object(kind: &str, name: &str, more: Value) -> Value {
    let mut object = json!({"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": name}});
    for (key, value) in more.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}
