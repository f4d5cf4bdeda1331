//! Credentials, good and hostile, judged by TokenReview; and what audit keeps of requests.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::Fixture;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ISSUER: &str = "https://issuer.test";

struct Keys {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
}

fn keys() -> Keys {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sa.key");
    std::fs::write(&path, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    Keys { _dir: dir, path }
}

async fn issuing(keys: &Keys) -> Fixture {
    let path = keys.path.clone();
    Fixture::with(|config| {
        config.service_account_issuers = vec![ISSUER.into()];
        config.service_account_signing_key_file = Some(path);
        config.bootstrap_token_auth = true;
    })
    .await
}

async fn review(server: &Fixture, token: &str, audiences: &[&str]) -> Value {
    let question = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": audiences},
    });
    let answer = server.post(REVIEWS, &question).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    answer.body["status"].clone()
}

async fn issue(server: &Fixture, spec: Value) -> String {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let answer = server.post("/api/v1/namespaces/default/serviceaccounts/robot/token", &request).await;
    assert_eq!(answer.code, 201, "{}", answer.message());
    answer.body["status"]["token"].as_str().unwrap().to_string()
}

/// A token with another header or other claims and the signature it had, or none.
fn forge(token: &str, change: impl FnOnce(&mut Value, &mut Value), signed: bool) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let read = |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let (mut header, mut claims) = (read(parts[0]), read(parts[1]));
    change(&mut header, &mut claims);
    let write = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", write(&header), write(&claims), if signed { parts[2] } else { "" })
}

#[tokio::test]
async fn tokens_good_and_hostile() {
    let keys = keys();
    let server = issuing(&keys).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(server.post(accounts, &account).await.code, 201);
    let token = issue(&server, json!({})).await;
    let status = review(&server, &token, &[]).await;
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(status["audiences"], json!([ISSUER]));
    let refused = async |token: &str, audiences: &[&str], why: &str| {
        let status = review(&server, token, audiences).await;
        assert_ne!(status["authenticated"], true, "{why}");
        assert_eq!(status["user"], json!({}), "{why}");
    };
    refused(&token, &["somebody-else"], "the audience is another").await;
    let other = issue(&server, json!({"audiences": ["somebody-else"]})).await;
    refused(&other, &[], "it is for somebody else: no confused deputy").await;
    assert_eq!(review(&server, &other, &["somebody-else"]).await["authenticated"], true);
    refused(&forge(&token, |header, _| header["alg"] = "none".into(), false), &[], "alg none").await;
    refused(&forge(&token, |header, _| header["alg"] = "none".into(), true), &[], "alg none, signed").await;
    refused(&forge(&token, |header, _| header["alg"] = "HS256".into(), true), &[], "alg confusion").await;
    refused(
        &forge(&token, |_, claims| claims["sub"] = "system:serviceaccount:kube-system:x".into(), true),
        &[],
        "other claims",
    )
    .await;
    refused(&forge(&token, |_, claims| claims["exp"] = 9_999_999_999_i64.into(), true), &[], "a longer life").await;
}

#[tokio::test]
async fn a_token_dies_with_its_pod_and_its_account() {
    let keys = keys();
    let server = issuing(&keys).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    assert_eq!(server.post(accounts, &account).await.code, 201);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}]},
    });
    let made = server.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(made.code, 201, "{}", made.message());
    let bound = issue(
        &server,
        json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": made.body["metadata"]["uid"]}}),
    )
    .await;
    let free = issue(&server, json!({})).await;
    assert_eq!(review(&server, &bound, &[]).await["authenticated"], true);
    let gone = server.ask("DELETE", "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0", "", "").await;
    assert_eq!(gone.code, 200, "{}", gone.message());
    assert_ne!(review(&server, &bound, &[]).await["authenticated"], true);
    assert_eq!(review(&server, &free, &[]).await["authenticated"], true);
    server.ask("DELETE", &format!("{accounts}/robot"), "", "").await;
    assert_eq!(server.post(accounts, &account).await.code, 201);
    assert_ne!(review(&server, &free, &[]).await["authenticated"], true, "an account of the same name is another");
}

#[tokio::test]
async fn bootstrap_tokens_are_secrets() {
    let keys = keys();
    let server = issuing(&keys).await;
    let data = |fields: &[(&str, &str)]| -> Value {
        fields.iter().map(|(key, value)| ((*key).to_string(), Value::from(STANDARD.encode(value)))).collect()
    };
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef"},
        "data": data(&[
            ("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:nodes"),
        ]),
    });
    assert_eq!(server.post("/api/v1/namespaces/kube-system/secrets", &secret).await.code, 201);
    let status = review(&server, "abcdef.0123456789abcdef", &[]).await;
    assert_eq!(status["user"]["username"], "system:bootstrap:abcdef", "{status}");
    assert_eq!(
        status["user"]["groups"],
        json!(["system:bootstrappers", "system:bootstrappers:nodes", "system:authenticated"])
    );
    assert_ne!(review(&server, "abcdef.0000000000000000", &[]).await["authenticated"], true);
    server.ask("DELETE", "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef", "", "").await;
    assert_ne!(review(&server, "abcdef.0123456789abcdef", &[]).await["authenticated"], true);
}

#[tokio::test]
async fn audit_keeps_what_the_policy_says() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, log) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(
        &policy,
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
         - level: RequestResponse\n  verbs: [create]\n  resources: [{group: \"\", resources: [configmaps]}]\n\
         - level: Metadata\n  resources: [{group: \"\", resources: [secrets]}]\n",
    )
    .unwrap();
    let (path, file) = (policy.clone(), log.clone());
    let server = Fixture::with(|config| {
        config.audit_policy_file = Some(path);
        config.audit_log = Some(apiserver::audit::LogOptions::new(file));
    })
    .await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
    assert_eq!(server.post("/api/v1/namespaces/default/configmaps", &map).await.code, 201);
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "hidden"}});
    assert_eq!(server.post("/api/v1/namespaces/default/secrets", &secret).await.code, 201);
    server.get("/api/v1/namespaces/default/pods").await;
    let mut events: Vec<Value> = Vec::new();
    for _ in 0..200 {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(!text.contains("hidden"), "a secret's content is in the log");
        events = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        events.retain(|event| event["user"]["username"] == "system:admin");
        if events.len() >= 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(events.len(), 2, "{events:?}");
    let event = &events[0];
    assert_eq!(event["stage"], "ResponseComplete");
    assert_eq!(event["verb"], "create");
    assert_eq!(
        event["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "m", "apiVersion": "v1"})
    );
    assert_eq!(event["responseStatus"]["code"], 201);
    assert_eq!(event["requestObject"]["data"], json!({"a": "b"}));
    assert_eq!(event["responseObject"]["metadata"]["name"], "m");
    assert_eq!(event["responseObject"]["metadata"].get("managedFields"), None);
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(events[1]["level"], "Metadata");
    assert_eq!(events[1].get("requestObject"), None);
}
