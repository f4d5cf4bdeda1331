//! Bad input gets upstream's answer, nothing is stored, nothing panics.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::Fixture;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

#[tokio::test]
async fn bodies() {
    let server = Fixture::new().await;
    let deep = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"deep\"}},\"x\":{}{}}}",
        "[".repeat(20_000),
        "]".repeat(20_000)
    );
    let big = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x".repeat(3_200_000)}});
    let large = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"a": "x".repeat(1_100_000)}});
    let json_type = "application/json";
    let protobuf = "application/vnd.kubernetes.protobuf";
    // query, content type, body, code, part of the message
    let cases: Vec<(&str, &str, Vec<u8>, u16, &str)> = vec![
        ("", json_type, b"{".to_vec(), 400, "couldn't get version/kind; json parse error"),
        ("", json_type, b"".to_vec(), 400, "couldn't get version/kind; json parse error"),
        ("", json_type, b"[]".to_vec(), 400, "json: cannot unmarshal array"),
        ("", json_type, b"\xff\xfe".to_vec(), 400, "json parse error"),
        ("", json_type, b"null".to_vec(), 422, "name or generateName is required"),
        ("", json_type, map("x").to_string().into_bytes().repeat(2), 400, "json parse error"),
        ("", "application/yaml", b"a:\n\tb: c".to_vec(), 400, "yaml: line 2"),
        (
            "",
            "application/xml",
            b"<a/>".to_vec(),
            415,
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        ("", protobuf, b"k8s garbage".to_vec(), 400, "provided data does not appear to be a protobuf message"),
        ("", protobuf, b"k8s\0\xff\xff\xff\xff".to_vec(), 400, "unrecognized"),
        ("", protobuf, b"k8s\0".to_vec(), 400, "empty body (6b387300)"),
        ("", json_type, deep.into_bytes(), 400, "exceeded max depth"),
        ("", json_type, big.to_string().into_bytes(), 413, "limit is 3145728"),
        ("", json_type, large.to_string().into_bytes(), 422, "Too long: may not be more than 1048576 bytes"),
        (
            "?fieldValidation=Strict",
            json_type,
            json!({"metadata": {"name": "x"}, "bogus": 1}).to_string().into_bytes(),
            400,
            "strict decoding error: unknown field \"bogus\"",
        ),
        ("?fieldValidation=Nope", json_type, map("x").to_string().into_bytes(), 422, "fieldValidation"),
        ("?dryRun=Some", json_type, map("x").to_string().into_bytes(), 422, "dryRun"),
        ("", json_type, map(&"x".repeat(300)).to_string().into_bytes(), 422, "metadata.name: Invalid value"),
        (
            "",
            json_type,
            json!({"metadata": {"name": "x"}, "data": {"a": 1}}).to_string().into_bytes(),
            400,
            "cannot unmarshal number",
        ),
        (
            "",
            json_type,
            br#"{"metadata": {"name": "x", "generation": 1.0}}"#.to_vec(),
            400,
            "cannot unmarshal number 1.0 into Go struct field ObjectMeta.metadata.generation of type int64",
        ),
        (
            "",
            json_type,
            json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}}).to_string().into_bytes(),
            400,
            "cannot be handled as a ConfigMap",
        ),
        (
            "",
            json_type,
            json!({"kind": "Nope", "apiVersion": "v7", "metadata": {"name": "x"}}).to_string().into_bytes(),
            400,
            "no kind \"Nope\" is registered",
        ),
    ];
    for (query, content_type, body, code, message) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = server.ask("POST", &format!("{MAPS}{query}"), content_type, body).await;
        assert_eq!(answer.code, code, "{query} {content_type} {shown}: {}", answer.message());
        assert!(answer.message().contains(message), "{shown}: {}", answer.message());
    }
    let list = server.get(MAPS).await;
    assert_eq!(list.body["items"], json!([]), "nothing is stored");
}

#[tokio::test]
async fn queries() {
    let server = Fixture::new().await;
    for (path, code, message) in [
        ("?labelSelector=a%20b%20c", 400, "unable to parse requirement"),
        ("?fieldSelector=spec.nonsense%3D1", 400, "is not a known field selector"),
        ("?fieldSelector=a", 400, "invalid selector"),
        ("?limit=x", 400, "strconv.ParseInt"),
        ("?limit=1&continue=abc", 400, "invalid continue token"),
        ("?resourceVersion=abc", 400, "resourceVersion"),
        ("?resourceVersionMatch=Exact", 422, "forbidden unless resourceVersion is provided"),
        ("?resourceVersion=999999999&resourceVersionMatch=Exact", 504, "Too large resource version"),
        ("?watch=1&sendInitialEvents=true", 422, "sendInitialEvents requires setting resourceVersionMatch"),
        ("/none", 404, "configmaps \"none\" not found"),
        ("/a/b/c", 404, "could not find the requested resource"),
    ] {
        let answer = server.get(&format!("{MAPS}{path}")).await;
        assert_eq!(answer.code, code, "{path}: {}", answer.message());
        assert!(answer.message().contains(message), "{path}: {}", answer.message());
    }
    for (method, path, code) in [
        ("PUT", MAPS, 405),
        ("PATCH", MAPS, 405),
        ("POST", "/api/v1/configmaps", 405),
        ("OPTIONS", MAPS, 405),
        ("GET", "/api/v1/nope", 404),
        ("GET", "/apis/none.example.com/v1/things", 404),
        ("GET", "/nope", 404),
    ] {
        let answer = server.ask(method, path, "application/json", Body::empty()).await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.message());
    }
    let refused = Request::get(MAPS).header("accept", "application/xml").body(Body::empty()).unwrap();
    assert_eq!(server.send(refused).await.code, 406);
}

#[tokio::test]
async fn patches() {
    let server = Fixture::new().await;
    assert_eq!(server.post(MAPS, &map("p")).await.code, 201);
    let path = format!("{MAPS}/p");
    for (content_type, body, code, message) in [
        ("application/json", "{}", 415, "415: Unsupported Media Type"),
        ("application/merge-patch+json", "[]", 400, "cannot unmarshal array"),
        ("application/merge-patch+json", "{", 400, "error decoding patch"),
        ("application/json-patch+json", "[{\"op\":\"remove\",\"path\":\"/metadata/nothing/here\"}]", 422, ""),
        ("application/json-patch+json", "{}", 400, "cannot unmarshal object"),
        (
            "application/merge-patch+json",
            "{\"metadata\":{\"name\":\"other\"}}",
            400,
            "does not match the name on the URL",
        ),
        ("application/merge-patch+json", "{\"data\":{\"a\":{}}}", 422, "patch"),
        (
            "application/merge-patch+json",
            "{\"metadata\":{\"resourceVersion\":\"1\"}}",
            409,
            "the object has been modified",
        ),
        ("application/merge-patch+json", "{\"metadata\":{\"uid\":\"x\"}}", 422, "field is immutable"),
        ("application/apply-patch+yaml", "apiVersion: v1\nkind: ConfigMap\n", 422, "is required for apply patch"),
    ] {
        let answer = server.ask("PATCH", &path, content_type, body).await;
        assert_eq!(answer.code, code, "{content_type} {body}: {}", answer.message());
        assert!(answer.message().contains(message), "{content_type} {body}: {}", answer.message());
    }
}

/// A review has no columns; who insists on a Table gets none.
#[tokio::test]
async fn reviews_have_no_tables() {
    let server = Fixture::new().await;
    let review = serde_json::json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}).to_string();
    for (accept, code) in [
        ("application/json;as=Table;v=v1;g=meta.k8s.io", 406),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", 201),
    ] {
        let request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header("accept", accept)
            .header("content-type", "application/json")
            .body(axum::body::Body::from(review.clone()))
            .unwrap();
        assert_eq!(server.send(request).await.code, code, "{accept}");
    }
}

/// What is said of protobuf that cannot be read, and in which order it is found out.
#[tokio::test]
async fn protobuf_bodies() {
    use apiserver::response::encode::envelope;
    let server = Fixture::new().await;
    let unrecognized = "the object provided is unrecognized (must be of type ConfigMap): ";
    let cannot = |kind: &str| format!("{kind} in version \"v1\" cannot be handled as a ConfigMap: ");
    let number = [1 << 3, 5];
    for (body, text) in [
        (Vec::new(), format!("{unrecognized}empty data (<empty>)")),
        (b"k8s\0".to_vec(), format!("{unrecognized}empty body (6b387300)")),
        (
            envelope("v1", "ConfigMap", &number).to_vec(),
            cannot("ConfigMap") + "proto: wrong wireType = 0 for field ObjectMeta",
        ),
        // A Secret that is none: that is found out before it is no ConfigMap.
        (
            envelope("v1", "Secret", &[4 << 3, 1]).to_vec(),
            cannot("Secret") + "proto: wrong wireType = 0 for field StringData",
        ),
        (
            envelope("v1", "Secret", b"").to_vec(),
            cannot("Secret") + "converting (v1.Secret) to (core.ConfigMap): unknown conversion",
        ),
    ] {
        let path = "/api/v1/namespaces/default/configmaps";
        let answer = server.ask("POST", path, "application/vnd.kubernetes.protobuf", body).await;
        assert_eq!((answer.code, answer.message()), (400, text.as_str()));
    }
}
