//! What loops of the server write after the answer to a request: the comparison of recorded answers leaves these fields
//! open, as they may come before or after the next request.

use serde_json::{Value, json};

use crate::custom::{DEFINITIONS, condition, definition, establish, is_true, until};
use crate::{Answer, Fixture};

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

fn schema(name: &str) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
        "spec": {"priorityLevelConfiguration": {"name": "global-default"}, "matchingPrecedence": 900},
    })
}

fn found(answer: &Answer) -> bool {
    condition(&answer.body, "Dangling")["status"] == "False"
}

/// The fields of the status that a manager owns.
fn owned<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().expect("managed fields");
    let entry = entries.iter().find(|entry| entry["subresource"] == "status").expect("an owner of the status");
    assert_eq!(entry["manager"], manager);
    &entry["fieldsV1"]["f:status"]
}

#[tokio::test]
async fn a_definitions_status_is_the_servers() {
    let server = Fixture::new().await;
    establish(&server, &definition("foos", "Foo", "Namespaced", json!({"type": "object"}))).await;
    let stored = server.get(&format!("{DEFINITIONS}/foos.example.com")).await.body;
    let status = owned(&stored, "kube-apiserver");
    assert!(status["f:acceptedNames"]["f:listKind"].is_object(), "{status}");
    assert!(status["f:conditions"][r#"k:{"type":"Established"}"#].is_object(), "{status}");
}

#[tokio::test]
async fn a_flow_schema_is_told_of_its_level() {
    let server = Fixture::new().await;
    assert_eq!(server.post(SCHEMAS, &schema("mine")).await.code, 201);
    let path = format!("{SCHEMAS}/mine");
    let stored = until(&server, &path, found).await.body;
    let status = owned(&stored, "api-priority-and-fairness-config-consumer-v1");
    assert!(status["f:conditions"][r#"k:{"type":"Dangling"}"#].is_object(), "{status}");
    assert_eq!(condition(&stored, "Dangling")["reason"], "Found");
}

#[tokio::test]
async fn what_a_webhook_kept_from_being_written_is_written_once_it_is_gone() {
    let server = Fixture::new().await;
    let rule = |group: &str, plural: &str| json!({"apiGroups": [group], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": [plural]});
    let closed = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "closed"},
        "webhooks": [{
            "name": "closed.webhook.test", "clientConfig": {"url": "https://127.0.0.1:1/"}, "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "rules": [
                rule("apiextensions.k8s.io", "customresourcedefinitions/status"),
                rule("flowcontrol.apiserver.k8s.io", "flowschemas/status"),
            ],
        }],
    });
    assert_eq!(server.post(WEBHOOKS, &closed).await.code, 201);
    let foos = definition("foos", "Foo", "Namespaced", json!({"type": "object"}));
    assert_eq!(server.post(DEFINITIONS, &foos).await.code, 201);
    assert_eq!(server.post(SCHEMAS, &schema("mine")).await.code, 201);
    // Long enough for the loops to have tried.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let (foos, mine) = (format!("{DEFINITIONS}/foos.example.com"), format!("{SCHEMAS}/mine"));
    assert!(!is_true(&server.get(&foos).await.body, "Established"));
    assert!(!found(&server.get(&mine).await));

    assert_eq!(server.ask("DELETE", &format!("{WEBHOOKS}/closed"), "application/json", "").await.code, 200);
    until(&server, &foos, |answer| is_true(&answer.body, "Established")).await;
    until(&server, &mine, found).await;
}
