//! Numbers as they are written, read, compared and kept: every answer here is one that upstream's server gave.

use serde_json::{Value, json};

use super::custom::{definition, establish, object};
use super::{Answer, Fixture};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn deployment(name: &str, replicas: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"{name}"}},"spec":{{"replicas":{replicas},
            "selector":{{"matchLabels":{{"a":"b"}}}},"template":{{"metadata":{{"labels":{{"a":"b"}}}},
            "spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}}}}}"#
    )
}

async fn patch(server: &Fixture, path: &str, kind: &str, body: &str) -> Answer {
    server.ask("PATCH", path, kind, body.to_string()).await
}

#[tokio::test]
async fn integers_are_written_as_integers() {
    let server = Fixture::new().await;
    let json = "application/json";
    for number in ["1.0", "1e3", "1.5", "2147483648", "1e999"] {
        let answer = server.ask("POST", DEPLOYMENTS, json, deployment("a", number)).await;
        let message = format!(
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number {number} into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!((answer.code, answer.message()), (400, message.as_str()));
    }
    assert_eq!(server.ask("POST", DEPLOYMENTS, json, deployment("a", "-0")).await.body["spec"]["replicas"], 0);
    let path = format!("{DEPLOYMENTS}/a");
    // The first that does not fit, in the order of the document.
    let answer = patch(&server, &path, MERGE, r#"{"spec":{"replicas":1.0,"paused":"x"}}"#).await;
    assert_eq!(answer.code, 422);
    assert!(
        answer
            .message()
            .ends_with("json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool")
    );
    // A strategic patch, and an apply, are converted as Go converts: around the end, and back.
    for (kind, number, replicas) in
        [(STRATEGIC, "4294967297", 1), (STRATEGIC, "3.0", 3), (STRATEGIC, "1e20", 0), (APPLY, "4294967299", 3)]
    {
        let body = match kind {
            APPLY => deployment("a", number),
            _ => format!(r#"{{"spec":{{"replicas":{number}}}}}"#),
        };
        let query = if kind == APPLY { "?fieldManager=m&force=true" } else { "" };
        let answer = patch(&server, &format!("{path}{query}"), kind, &body).await;
        assert_eq!(
            (answer.code, &answer.body["spec"]["replicas"]),
            (200, &json!(replicas)),
            "{kind} {number}: {}",
            answer.text
        );
    }
    let answer = patch(&server, &path, STRATEGIC, r#"{"spec":{"replicas":1.5},"kind":"x"}"#).await;
    assert_eq!(
        answer.message(),
        r#" "" is invalid: patch: Invalid value: "map[kind:x spec:map[replicas:1.5]]": cannot convert float64 to int32"#
    );
    let answer = patch(&server, &path, STRATEGIC, r#"{"spec":{"replicas":1e20},"kind":5}"#).await;
    assert!(answer.message().ends_with(r#""map[kind:5 spec:map[replicas:1e+20]]": cannot convert int64 to string"#));
}

#[tokio::test]
async fn patches_are_of_texts() {
    let server = Fixture::new().await;
    let made = server.ask("POST", DEPLOYMENTS, "application/json", deployment("a", "1")).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let path = format!("{DEPLOYMENTS}/a");
    for (operations, code) in [
        (r#"[{"op":"test","path":"/spec/replicas","value":1}]"#, 200),
        (r#"[{"op":"test","path":"/spec/replicas","value":1.0}]"#, 422),
        (r#"[{"op":"replace","path":"/spec/minReadySeconds","value":3}]"#, 200),
        (r#"[{"op":"add","path":"","value":{}}]"#, 422),
    ] {
        assert_eq!(patch(&server, &path, JSON_PATCH, operations).await.code, code, "{operations}");
    }
    let answer = patch(&server, &path, JSON_PATCH, r#"[{"op":5}]"#).await;
    assert_eq!(
        answer.message(),
        "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"
    );
    let answer = patch(&server, &path, JSON_PATCH, r#"{"op":"add"}"#).await;
    assert_eq!(
        answer.message(),
        "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
    );
    // What the patch does not touch is shown as Go writes its structs, what it does as a map.
    let answer = patch(&server, &path, MERGE, r#"{"spec":{"paused":1}}"#).await;
    let shown = answer.message();
    assert!(
        shown.contains(r#"\"kind\":\"Deployment\",\"metadata\":{\"name\":\"a\",\"namespace\":\"default\",\"uid\":"#),
        "{shown}"
    );
    assert!(shown.contains(r#"\"strategy\":{\"type\":\"RollingUpdate\",\"rollingUpdate\":{"#), "{shown}");
}

#[tokio::test]
async fn custom_objects_keep_their_numbers() {
    let server = Fixture::new().await;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    establish(&server, &definition("nums", "Num", "Namespaced", schema)).await;
    let path = "/apis/example.com/v1/namespaces/default/nums";
    let numbers = "[1.0,1e20,1e21,1e-7,-0.0,100000000000000000000,9223372036854775808,1.5e300]";
    let body = object("Num", "a", json!({"n": "NUMBERS"})).to_string().replace("\"NUMBERS\"", numbers);
    let made = server.ask("POST", path, "application/json", body).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let written = r#""n":[1,100000000000000000000,1e+21,1e-7,0,100000000000000000000,9223372036854776000,1.5e+300]"#;
    let one = format!("{path}/a");
    for text in [made.text, server.get(&one).await.text] {
        assert!(text.contains(written), "{text}");
    }
    // What is written alike is another value until then, and a change of the object.
    let same = patch(&server, &one, MERGE, r#"{"n":[1,1e20,1e21,1e-7,0,1e20,9223372036854775808,1.5e300]}"#).await;
    assert_eq!((same.code, &same.body["metadata"]["generation"]), (200, &json!(1)), "{}", same.text);
    let changed = patch(&server, &one, MERGE, r#"{"n":[1.0,1e20,1e21,1e-7,0,1e20,9223372036854775808,1.5e300]}"#).await;
    assert_eq!((changed.code, &changed.body["metadata"]["generation"]), (200, &json!(2)));
}

#[tokio::test]
async fn parameters_keep_their_text() {
    let server = Fixture::new().await;
    let path = "/apis/resource.k8s.io/v1/deviceclasses";
    let body = r#"{"apiVersion":"resource.k8s.io/v1","kind":"DeviceClass","metadata":{"name":"a"},
        "spec":{"config":[{"opaque":{"driver":"a.b","parameters":{"x":1.0,"f":1e2}}}]}}"#;
    let made = server.ask("POST", path, "application/json", body).await;
    assert_eq!(made.code, 201, "{}", made.text);
    assert!(made.text.contains(r#""parameters":{"x":1.0,"f":1e2}"#), "{}", made.text);
    let one = format!("{path}/a");
    let generation = |answer: &Answer| answer.body["metadata"]["generation"].clone();
    // Nothing touched, nothing changed; the same in other words is a change.
    let labelled = patch(&server, &one, MERGE, r#"{"metadata":{"labels":{"a":"b"}}}"#).await;
    assert_eq!((labelled.code, generation(&labelled)), (200, json!(1)), "{}", labelled.text);
    assert!(labelled.text.contains(r#""parameters":{"x":1.0,"f":1e2}"#), "{}", labelled.text);
    let replaced = patch(
        &server,
        &one,
        JSON_PATCH,
        r#"[{"op":"replace","path":"/spec/config/0/opaque/parameters/f","value":100.0}]"#,
    )
    .await;
    assert_eq!((replaced.code, generation(&replaced)), (200, json!(2)), "{}", replaced.text);
    assert!(replaced.text.contains(r#""parameters":{"f":100.0,"x":1.0}"#), "{}", replaced.text);
    let strategic = patch(&server, &one, STRATEGIC, r#"{"metadata":{"labels":{"a":"c"}}}"#).await;
    assert_eq!((strategic.code, generation(&strategic)), (200, json!(3)), "{}", strategic.text);
    assert!(strategic.text.contains(r#""parameters":{"f":100,"x":1}"#), "{}", strategic.text);
    let last: Value = server.get(&one).await.body;
    assert_eq!(last["spec"]["config"][0]["opaque"]["parameters"], json!({"f": 100, "x": 1}));
}
