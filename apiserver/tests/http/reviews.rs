//! What webhooks are shown of a request, and what becomes of their answers.

use serde_json::{Value, json};

use super::custom::{definition, establish};
use super::dynamic_admission::{Hooks, Reply, config_map, configure, patch};
use super::{Answer, Fixture};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FOOS: &str = "/apis/example.com/v1/foos";
const APPLY: &str = "application/apply-patch+yaml";

/// A server with `foos` in the versions v1, which is stored, and v2, and one webhook of a kind.
async fn server(kind: &str, rules: Value, reply: Reply) -> (Fixture, Hooks) {
    let server = Fixture::new().await;
    let lax = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut crd = definition("foos", "Foo", "Cluster", lax.clone());
    let v2 = json!({"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": lax}});
    crd["spec"]["versions"].as_array_mut().expect("a list").push(v2);
    establish(&server, &crd).await;
    let hooks = Hooks::serve(&[("/", reply)]).await;
    let mut hook = hooks.hook("one.webhook.test", "/");
    hook["rules"] = json!([rules]);
    configure(&server, kind, vec![hook]).await;
    (server, hooks)
}

fn on(group: &str, version: &str, resource: &str, operation: &str) -> Value {
    json!({"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": [operation]})
}

/// Refuses with what it is shown of a request.
fn shown(what: &Value) -> Value {
    json!({"allowed": false, "status": {"message": what.to_string()}})
}

/// What a webhook that refuses was shown.
fn seen(answer: &Answer) -> Value {
    let told = answer.message().strip_prefix("admission webhook \"one.webhook.test\" denied the request: ");
    serde_json::from_str(told.unwrap_or_else(|| panic!("{}", answer.text))).expect("JSON")
}

/// Patches as an annotation of the object says.
fn as_told(request: &Value) -> Value {
    let told = request["object"]["metadata"]["annotations"]["told"].as_str().unwrap_or("[]");
    patch(serde_json::from_str(told).expect("a patch"))
}

fn telling(mut object: Value, operations: Value) -> Value {
    object["metadata"]["annotations"] = json!({"told": operations.to_string()});
    object
}

#[tokio::test]
async fn a_patch_makes_no_other_kind_of_a_built_in_object() {
    let (server, _hooks) = server("MutatingWebhookConfiguration", on("", "v1", "configmaps", "CREATE"), as_told).await;
    let kind = json!({"op": "replace", "path": "/kind", "value": "Secret"});
    let scheme = "in scheme \"pkg/api/legacyscheme/scheme.go:30\"";
    for (operations, code, why) in [
        // It is read as what it says it is.
        (json!([kind]), 500, "Internal error occurred: illegal base64 data at input byte 0".to_string()),
        (
            json!([{"op": "remove", "path": "/data"}, kind]),
            500,
            "converting (v1.Secret) to (core.ConfigMap): unknown conversion".to_string(),
        ),
        (
            json!([{"op": "replace", "path": "/apiVersion", "value": "v9"}]),
            500,
            format!("Internal error occurred: no kind \"ConfigMap\" is registered for version \"v9\" {scheme}"),
        ),
        (json!([{"op": "remove", "path": "/kind"}]), 201, String::new()),
    ] {
        let map = telling(config_map("m", json!({"a": "b"})), operations.clone());
        let answer = server.post(CONFIG_MAPS, &map).await;
        assert_eq!(answer.code, code, "{operations}: {}", answer.text);
        if code != 201 {
            assert_eq!(answer.message(), why, "{operations}");
        }
    }
}

#[tokio::test]
async fn a_patch_makes_no_other_kind_of_a_custom_object() {
    let (server, _hooks) =
        server("MutatingWebhookConfiguration", on("example.com", "v1", "foos", "CREATE"), as_told).await;
    let version = |version: &str| json!([{"op": "replace", "path": "/apiVersion", "value": version}]);
    for (operations, code, why) in [
        (version("example.com/v9"), 500, "request to convert CR from an invalid group/version: example.com/v9"),
        (
            version("other.io/v1"),
            500,
            "other.io/v1, Kind=Foo is unstructured and is not suitable for converting to \"example.com/v1\"",
        ),
        (
            json!([{"op": "remove", "path": "/kind"}]),
            500,
            "Internal error occurred: Object 'Kind' is missing in '{\"apiVersion\":\"example.com/v1\",\"metadata\":",
        ),
        (json!([{"op": "replace", "path": "/kind", "value": "Bar"}]), 422, "kind: Invalid value: \"Bar\": must be Foo"),
        (version("example.com/v2"), 201, ""),
    ] {
        let foo = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "x"}});
        let answer = server.post(FOOS, &telling(foo, operations.clone())).await;
        assert_eq!(answer.code, code, "{operations}: {}", answer.text);
        match code {
            201 => assert_eq!(answer.body["apiVersion"], "example.com/v1"),
            _ => assert!(answer.message().contains(why), "{operations}: {}", answer.text),
        }
    }
}

#[tokio::test]
async fn a_denial_keeps_what_the_webhook_says_of_it() {
    let (server, _hooks) = server("ValidatingWebhookConfiguration", on("", "v1", "configmaps", "*"), |_| {
        json!({"allowed": false, "status": {"status": "Odd", "reason": "Slow", "code": 429, "message": null,
            "details": {"name": "n", "causes": null, "retryAfterSeconds": 3}}})
    })
    .await;
    let answer = server.post(CONFIG_MAPS, &config_map("m", json!({}))).await;
    let want = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Odd", "reason": "Slow", "code": 429,
        "message": "admission webhook \"one.webhook.test\" denied the request: Slow",
        "details": {"name": "n", "retryAfterSeconds": 3},
    });
    assert_eq!((answer.code, answer.body), (429, want));
}

#[tokio::test]
async fn scales_show_their_owners_to_who_may_change_them() {
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
    let rule = on("apps", "v1", "deployments/scale", "*");
    let (server, _hooks) = server("MutatingWebhookConfiguration", rule, |request| {
        let owners = |object: &Value| -> Vec<Value> {
            let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
            entries.iter().map(|entry| json!([entry["manager"], entry["apiVersion"], entry["fieldsV1"]])).collect()
        };
        shown(&json!([owners(&request["oldObject"]), owners(&request["object"])]))
    })
    .await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    assert_eq!(server.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), &deployment).await.code, 201);
    let scale = json!({"spec": {"replicas": 3}}).to_string();
    let path = format!("{DEPLOYMENTS}/d/scale?fieldManager=scaler");
    let answer = server.ask("PATCH", &path, "application/merge-patch+json", scale).await;
    let entry = |manager: &str| json!([manager, "autoscaling/v1", {"f:spec": {"f:replicas": {}}}]);
    assert_eq!(seen(&answer), json!([[entry("maker")], [entry("scaler")]]));
}

#[tokio::test]
async fn options_are_those_of_what_is_done() {
    let (server, _hooks) = server("ValidatingWebhookConfiguration", on("", "v1", "configmaps", "*"), |request| {
        match request["oldObject"].is_null() && request["object"]["data"]["go"] == "on" {
            true => json!({"allowed": true}),
            false => shown(&request["options"]),
        }
    })
    .await;
    let apply = |name: &str, data: Value| {
        (format!("{CONFIG_MAPS}/{name}?fieldManager=x&force=true"), config_map(name, data).to_string())
    };
    let (path, body) = apply("m", json!({}));
    let options = |kind: &str| json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "fieldManager": "x"});
    assert_eq!(seen(&server.ask("PATCH", &path, APPLY, body).await), options("CreateOptions"));
    let (path, body) = apply("m", json!({"go": "on"}));
    assert_eq!(server.ask("PATCH", &path, APPLY, body).await.code, 201);
    let (path, body) = apply("m", json!({"go": "off"}));
    assert_eq!(seen(&server.ask("PATCH", &path, APPLY, body).await), options("UpdateOptions"));
}

#[tokio::test]
async fn deletions_show_the_version_and_the_name_that_were_asked_for() {
    let (server, _hooks) =
        server("ValidatingWebhookConfiguration", on("example.com", "*", "foos", "DELETE"), |request| {
            shown(&json!([
                request["name"],
                request["oldObject"]["metadata"]["name"],
                request["oldObject"]["apiVersion"]
            ]))
        })
        .await;
    let foo = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "x"}});
    assert_eq!(server.post(FOOS, &foo).await.code, 201);
    for version in ["v1", "v2"] {
        let path = format!("/apis/example.com/{version}/foos");
        let api_version = format!("example.com/{version}");
        let one = server.ask("DELETE", &format!("{path}/x"), "", "").await;
        assert_eq!(seen(&one), json!(["x", "x", api_version]));
        let all = server.ask("DELETE", &path, "", "").await;
        assert_eq!(seen(&all), json!([null, "x", api_version]));
    }
}
