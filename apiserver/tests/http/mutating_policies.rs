//! What mutating policies may not do, and who is asked again.

use serde_json::{Value, json};

use super::Fixture;
use super::dynamic_admission::{ADMISSION, config_map};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

async fn policy(server: &Fixture, rule: Value, mutation: Value, more: Value) {
    let mut spec = json!({
        "matchConstraints": {"resourceRules": [rule]},
        "reinvocationPolicy": "Never",
        "mutations": [mutation],
    });
    for (key, value) in more.as_object().expect("an object") {
        spec[key] = value.clone();
    }
    for (plural, kind, spec) in [
        ("mutatingadmissionpolicies", "MutatingAdmissionPolicy", spec),
        ("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", json!({"policyName": "p"})),
    ] {
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "p"},
            "spec": spec});
        let answer = server.post(&format!("{ADMISSION}/{plural}"), &object).await;
        assert_eq!(answer.code, 201, "{}", answer.text);
    }
}

fn on(group: &str, resource: &str) -> Value {
    json!({"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource], "operations": ["CREATE", "UPDATE"]})
}

/// What creating a ConfigMap comes to under a mutation.
async fn outcome(mutation: Value, more: Value) -> (u16, String) {
    let server = Fixture::new().await;
    policy(&server, on("", "configmaps"), mutation, more).await;
    let answer = server.post(CONFIG_MAPS, &config_map("x", json!({"a": "b"}))).await;
    let text = if answer.code == 201 { answer.body["metadata"].to_string() } else { answer.message().to_owned() };
    (answer.code, text)
}

#[tokio::test]
async fn configurations_must_fit_their_type() {
    for (expression, why) in [
        ("Object{dato: {'x': 'y'}}", ".dato: field not declared in schema"),
        ("Object{data: 'x'}", ".data: expected map, got &{x}"),
        (
            "Object{metadata: Object.metadata{labels: {'m': 1}}}",
            ".metadata.labels.m: expected string, got &value.valueUnstructured{Value:1}",
        ),
    ] {
        let (code, text) = outcome(apply(expression), json!({})).await;
        assert_eq!(code, 403, "{text}");
        let want =
            format!("denied request: error applying patch: failed to convert patch object to typed object: {why}");
        assert!(text.ends_with(&want), "{text}");
    }
}

#[tokio::test]
async fn patches_are_read_strictly_and_fail_the_request() {
    for (expression, why) in [
        ("[JSONPatch{op: 'add', path: '/zzz', value: 5}]", "strict decoding error: unknown field \"zzz\""),
        ("[JSONPatch{op: 'replace', path: '', value: {'x': 'y'}}]", "strict decoding error: unknown field \"x\""),
        // What is in it is no Secret's.
        ("[JSONPatch{op: 'replace', path: '/kind', value: 'Secret'}]", "illegal base64 data at input byte 0"),
        (
            "[JSONPatch{op: 'remove', path: '/data'}, JSONPatch{op: 'replace', path: '/kind', value: 'Secret'}]",
            "failed to convert object: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
        ),
    ] {
        // Whatever the policy says of failures.
        let (code, text) = outcome(patch(expression), json!({"failurePolicy": "Ignore"})).await;
        assert_eq!((code, text), (500, format!("Internal error occurred: {why}")));
    }
    let (code, text) = outcome(patch("[JSONPatch{path: '/data/x', value: 'y'}]"), json!({})).await;
    assert_eq!(code, 403);
    assert!(text.ends_with("denied request: JSON Patch: Unexpected kind: "), "{text}");
}

#[tokio::test]
async fn the_last_policy_is_asked_again_as_well() {
    let count = "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'n': string(has(object.metadata.annotations) ? object.metadata.annotations.size() : 0)}}]";
    for (reinvocation, seen) in [("IfNeeded", "1"), ("Never", "0")] {
        let (code, text) = outcome(patch(count), json!({"reinvocationPolicy": reinvocation})).await;
        assert_eq!(code, 201, "{text}");
        assert!(text.contains(&format!(r#"{{"n":"{seen}"}}"#)), "{reinvocation}: {text}");
    }
}

#[tokio::test]
async fn scales_have_no_type_and_doubles_may_be_whole() {
    let server = Fixture::new().await;
    let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"],
        "resources": ["deployments", "deployments/scale"]});
    policy(&server, rule, apply("Object{spec: Object.spec{replicas: 2.0}}"), json!({})).await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
    let made = server.post(DEPLOYMENTS, &deployment).await;
    assert_eq!((made.code, &made.body["spec"]["replicas"]), (201, &json!(2)), "{}", made.text);
    let scale = json!({"spec": {"replicas": 3}}).to_string();
    let path = format!("{DEPLOYMENTS}/d/scale");
    let answer = server.ask("PATCH", &path, "application/merge-patch+json", scale).await;
    assert_eq!(answer.code, 403, "{}", answer.text);
    assert!(answer.message().ends_with("no corresponding type for autoscaling/v1, Kind=Scale"), "{}", answer.text);
}
