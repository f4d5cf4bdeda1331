//! CBOR behind its gate: every verb in it, and what is answered without it. The answers to bad input are upstream's.

use api::cbor;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::Fixture;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const CBOR: &str = "application/cbor";

async fn gated() -> Fixture {
    Fixture::with(|config| config.feature_gates = vec![("CBORServingAndStorage".to_string(), true)]).await
}

/// Code, content type and body of an answer.
async fn send(server: &Fixture, method: &str, path: &str, content_type: &str, body: Vec<u8>) -> (u16, String, Vec<u8>) {
    let request = Request::builder().method(method).uri(path).header("accept", CBOR);
    let request = request.header("content-type", content_type).body(Body::from(body)).unwrap();
    let answer = server.handle.admin_router().oneshot(request).await.unwrap();
    let code = answer.status().as_u16();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_string();
    (code, kind, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
}

fn tree(body: &[u8]) -> Value {
    assert!(body.starts_with(&cbor::SELF_DESCRIBED), "{:?}", String::from_utf8_lossy(body));
    cbor::decode(body, None).unwrap().value
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"a": "AQI="}})
}

#[tokio::test]
async fn every_verb() {
    let server = gated().await;
    let ty = api::table().find_kind("", "v1", "Secret");
    let (code, kind, body) = send(&server, "POST", SECRETS, CBOR, cbor::encode(&secret("a"), ty)).await;
    assert_eq!((code, kind.as_str()), (201, CBOR));
    assert_eq!(tree(&body)["data"]["a"], "AQI=");
    // Bytes are bytes, tagged to become base64 in text.
    assert!(body.windows(4).any(|window| window == [0xd6, 0x42, 1, 2]));
    assert_eq!(server.get(&format!("{SECRETS}/a")).await.body["data"]["a"], "AQI=");

    let (_, _, body) = send(&server, "GET", SECRETS, CBOR, Vec::new()).await;
    let list = tree(&body);
    assert_eq!((&list["kind"], &list["items"][0]["metadata"]["name"]), (&json!("SecretList"), &json!("a")));
    assert_eq!(list["items"][0].get("kind"), None);

    let apply = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "labels": {"x": "y"}}});
    let path = format!("{SECRETS}/a?fieldManager=m");
    let (code, _, body) =
        send(&server, "PATCH", &path, "application/apply-patch+cbor", cbor::encode(&apply, None)).await;
    assert_eq!((code, &tree(&body)["metadata"]["labels"]["x"]), (200, &json!("y")));

    let watch = format!("{SECRETS}?watch=1&timeoutSeconds=1");
    let (code, kind, body) = send(&server, "GET", &watch, CBOR, Vec::new()).await;
    assert_eq!((code, kind.as_str()), (200, "application/cbor-seq"));
    let first = &body[..cbor::item_length(&body).unwrap()];
    let event = tree(first);
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));

    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "other"}});
    let (code, _, body) = send(&server, "DELETE", &format!("{SECRETS}/a"), CBOR, cbor::encode(&options, None)).await;
    assert_eq!((code, &tree(&body)["reason"]), (409, &json!("Conflict")));
    let (code, _, _) = send(&server, "DELETE", &format!("{SECRETS}/a"), CBOR, Vec::new()).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn bad_input() {
    let server = gated().await;
    let strict = format!("{SECRETS}?fieldValidation=Strict");
    let mut unknown = secret("b");
    unknown["zzzzzzzzzzzz"] = json!(1);
    let mut other = secret("b");
    other["kind"] = json!("Pod");
    for (path, body, want) in [
        (
            SECRETS,
            vec![],
            "the object provided is unrecognized (must be of type Secret): unable to determine group/version/kind: EOF (<empty>)",
        ),
        (
            SECRETS,
            vec![0xa1],
            "the object provided is unrecognized (must be of type Secret): unable to determine group/version/kind: unexpected EOF (a1)",
        ),
        (
            SECRETS,
            cbor::encode(&json!({"data": {"a": "!"}}), None),
            "Secret in version \"v1\" cannot be handled as a Secret: cbor: failed to decode base64 from byte string: illegal base64 data at input byte 0",
        ),
        (
            SECRETS,
            cbor::encode(&json!({"kind": "Secret", "apiVersion": "v1", "type": 1}), None),
            "Secret in version \"v1\" cannot be handled as a Secret: cbor: cannot unmarshal positive integer into Go struct field v1.Secret.type of type v1.SecretType",
        ),
        (
            &strict,
            cbor::encode(&unknown, None),
            "Secret in version \"v1\" cannot be handled as a Secret: strict decoding error: cbor: found unknown field at map element index 4",
        ),
        (
            SECRETS,
            cbor::encode(&other, None),
            "Pod in version \"v1\" cannot be handled as a Secret: converting (v1.Pod) to (core.Secret): unknown conversion",
        ),
    ] {
        let (code, _, answer) = send(&server, "POST", path, CBOR, body).await;
        assert_eq!((code, tree(&answer)["message"].as_str()), (400, Some(want)));
    }
    // Without being asked to be strict, the server says it and goes on.
    let (code, _, _) = send(&server, "POST", SECRETS, CBOR, cbor::encode(&unknown, None)).await;
    assert_eq!(code, 201);
}

#[tokio::test]
async fn without_the_gate() {
    let server = Fixture::new().await;
    let accepted = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let body = cbor::encode(&secret("a"), None);
    let posted = server.ask("POST", SECRETS, CBOR, body.clone()).await;
    let text = "the body of the request was in an unknown format - accepted media types include: ";
    assert_eq!((posted.code, posted.message()), (415, format!("{text}{accepted}").as_str()));
    let path = format!("{SECRETS}/a?fieldManager=m");
    assert_eq!(server.ask("PATCH", &path, "application/apply-patch+cbor", body).await.code, 415);
    let got = server.send(Request::get(SECRETS).header("accept", CBOR).body(Body::empty()).unwrap()).await;
    assert_eq!(got.code, 406);
}
