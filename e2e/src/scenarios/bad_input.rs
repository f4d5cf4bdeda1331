//! What a server is sent by mistake or malice: each gets upstream's code and a Status, and nothing is stored.

use std::time::Duration;

use anyhow::{Context, ensure};
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::cluster::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Longer than any bad request may occupy a server.
const SOON: Duration = Duration::from_secs(10);

/// (what, method, path, content type, body, code, reason)
type Case = (&'static str, &'static str, String, &'static str, Vec<u8>, u16, &'static str);

fn cases() -> Vec<Case> {
    let json = "application/json";
    let post =
        |what, content, body: Vec<u8>, code, reason| (what, "POST", MAPS.to_owned(), content, body, code, reason);
    let get = |what, query: &str, code, reason| (what, "GET", format!("{MAPS}{query}"), json, Vec::new(), code, reason);
    let named = |name: &str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
    vec![
        post("malformed JSON", json, br#"{"apiVersion":"#.to_vec(), 400, "BadRequest"),
        post("malformed YAML", "application/yaml", b"a: [b\nc: }".to_vec(), 400, "BadRequest"),
        post(
            "malformed protobuf",
            "application/vnd.kubernetes.protobuf",
            b"k8s\0\xff\xff\xff".to_vec(),
            400,
            "BadRequest",
        ),
        post("deep nesting", json, [b"[".repeat(200_000), b"]".repeat(200_000)].concat(), 400, "BadRequest"),
        post("another content type", "text/plain", named("e2e-bad").into_bytes(), 415, "UnsupportedMediaType"),
        post("four megabytes", json, vec![b' '; 4 << 20], 413, "RequestEntityTooLarge"),
        post("an oversized name", json, named(&"x".repeat(300)).into_bytes(), 422, "Invalid"),
        post("a name of capitals", json, named("E2E-Bad").into_bytes(), 422, "Invalid"),
        (
            "an unknown field under strict validation",
            "POST",
            format!("{MAPS}?fieldValidation=Strict"),
            json,
            br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"e2e-bad"},"dada":{}}"#.to_vec(),
            400,
            "BadRequest",
        ),
        get("a bad label selector", "?labelSelector=a%20b%20c", 400, "BadRequest"),
        get("a bad field selector", "?fieldSelector=spec.nope%3Dx", 400, "BadRequest"),
        get("a bad revision", "?resourceVersion=abc", 400, "BadRequest"),
        get("a revision of the future", "?resourceVersion=999999999999", 504, "Timeout"),
        get("a bad continue token", "?continue=junk", 400, "BadRequest"),
        ("a verb that is not there", "PUT", MAPS.to_owned(), json, b"{}".to_vec(), 405, "MethodNotAllowed"),
        ("a resource that is not there", "GET", "/api/v1/nopes".to_owned(), json, Vec::new(), 404, "NotFound"),
    ]
}

pub async fn answers(cluster: &Cluster) -> anyhow::Result<()> {
    let before = cluster.get("configmaps").await?;
    for (what, method, path, content, body, code, reason) in cases() {
        let request = Request::builder().method(method).uri(path).header("Content-Type", content).body(body)?;
        let exchange = async {
            let answer = cluster.client.send(request.map(kube::client::Body::from)).await?;
            let status = answer.status().as_u16();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        let (status, body) =
            tokio::time::timeout(SOON, exchange).await.with_context(|| format!("{what}: no answer"))?.context(what)?;
        let body: Value = serde_json::from_slice(&body).with_context(|| format!("{what}: no Status"))?;
        ensure!(
            status == code && body["kind"] == "Status" && body["reason"] == reason && body["code"] == code,
            "{what}: wanted {code} {reason}, got {status} {body}"
        );
        if code == 422 {
            ensure!(body["details"]["causes"][0]["field"] == "metadata.name", "{what}: no field is named: {body}");
        }
    }
    let after = cluster.get("configmaps").await?;
    ensure!(before["items"] == after["items"], "something was stored");
    Ok(())
}
