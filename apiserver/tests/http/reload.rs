//! What a running server takes over from its files, and tokens that a webhook knows.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apiserver::authentication::webhook;
use apiserver::authorization::configuration;
use apiserver::server::in_process;
use axum::Json;
use axum::body::Body;
use axum::routing::post;
use component_base::pki::{Ca, Pair, Profile};
use component_base::serving::{self, Peer};
use http::Request;
use serde_json::{Value, json};

use crate::{Answer, Fixture};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

async fn ask(server: &Fixture, path: &str, token: &str, cert: Option<&Pair>) -> Answer {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (method, body) = if path == WHO { ("POST", Body::from(review.to_string())) } else { ("GET", Body::empty()) };
    let mut request = Request::builder().method(method).uri(path).header("host", "x");
    request = request.header("content-type", "application/json");
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut request = request.body(body).unwrap();
    let chain = cert.map(|pair| component_base::tls::certificates(pair.cert_pem.as_bytes()).unwrap());
    request.extensions_mut().insert(Peer::new(SocketAddr::from(([127, 0, 0, 1], 1)), chain.unwrap_or_default()));
    Fixture::send_to(in_process::public(server.handle.server.clone()), request).await
}

async fn who(server: &Fixture, token: &str, cert: Option<&Pair>) -> Value {
    let answer = ask(server, WHO, token, cert).await;
    if answer.code == 201 { answer.body["status"]["userInfo"]["username"].clone() } else { answer.code.into() }
}

async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    for _ in 0..400 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what}");
}

/// As careful writers do it.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

#[tokio::test]
async fn authorities_and_tokens_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, tokens) = (dir.path().join("ca.crt"), dir.path().join("tokens"));
    let (old, new) = (Ca::new("old").unwrap(), Ca::new("new").unwrap());
    std::fs::write(&ca, old.cert_pem()).unwrap();
    std::fs::write(&tokens, "one,ada,1,dev\n").unwrap();
    let (ca_file, token_file) = (ca.clone(), tokens.clone());
    let server = Fixture::with(|config| {
        config.client_ca_file = Some(ca_file);
        config.token_auth_file = Some(token_file);
    })
    .await;
    let (first, second) =
        (old.issue(&Profile::client("first", &[])).unwrap(), new.issue(&Profile::client("second", &[])).unwrap());
    assert_eq!(who(&server, "", Some(&first)).await, "first");
    assert_eq!(who(&server, "", Some(&second)).await, 401);
    assert_eq!(who(&server, "one", None).await, "ada");
    replace(&ca, new.cert_pem());
    eventually("the new authority counts", async || who(&server, "", Some(&second)).await == "second").await;
    assert_eq!(who(&server, "", Some(&first)).await, 401, "the old one does not, whatever was believed before");
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    eventually("others are told", async || {
        server.get(path).await.body["data"]["client-ca-file"].as_str() == Some(new.cert_pem())
    })
    .await;
    replace(&ca, "nonsense");
    replace(&tokens, "two,bob,2,dev\n");
    eventually("the new token counts", async || who(&server, "two", None).await == "bob").await;
    assert_eq!(who(&server, "one", None).await, 401);
    assert_eq!(who(&server, "", Some(&second)).await, "second", "a broken file changes nothing");
}

#[tokio::test]
async fn authorizers_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (file, tokens) = (dir.path().join("authz.yaml"), dir.path().join("tokens"));
    std::fs::write(&tokens, "one,ada,1,dev\n").unwrap();
    let text = |kinds: &[&str]| {
        let list: String =
            kinds.iter().map(|kind| format!("- {{type: {kind}, name: {}}}\n", kind.to_lowercase())).collect();
        format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n{list}")
    };
    std::fs::write(&file, text(&["RBAC"])).unwrap();
    let (path, token_file) = (file.clone(), tokens.clone());
    let server = Fixture::with(|config| {
        config.token_auth_file = Some(token_file);
        config.authorization_modes = configuration::parse(&text(&["RBAC"])).unwrap();
        config.authorization_config_file = Some(path);
    })
    .await;
    let secrets = "/api/v1/secrets";
    assert_eq!(ask(&server, secrets, "one", None).await.code, 403);
    replace(&file, &text(&["RBAC", "AlwaysAllow"]));
    eventually("the second authorizer is asked", async || ask(&server, secrets, "one", None).await.code == 200).await;
    // One that was not there at the start cannot come later.
    replace(&file, &text(&["Node", "RBAC"]));
    let count = async |status: &str| {
        let text = server.get("/metrics").await.text;
        let line = text.lines().find(|line| {
            line.starts_with("apiserver_authorization_config_controller_automatic_reloads_total")
                && line.contains(status)
        });
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    eventually("the failure is counted", async || count("failure").await == 1).await;
    assert_eq!(count("success").await, 1);
    assert_eq!(ask(&server, secrets, "one", None).await.code, 200);
}

#[tokio::test]
async fn a_webhook_knows_tokens() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let review = move |Json(review): Json<Value>| {
        let count = count.clone();
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let good = review["kind"] == "TokenReview" && review["spec"]["token"] == "good";
            let status = if good {
                json!({"authenticated": true, "user": {"username": "remote", "groups": ["far"], "extra": {"a": ["b"]}}})
            } else {
                json!({"authenticated": false})
            };
            Json(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}))
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = tokio_util::sync::CancellationToken::new();
    let router = axum::Router::new().route("/authenticate", post(review));
    tokio::spawn(serving::serve(listener, None, router, serving::Options::default(), stop.clone()));
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("webhook.yaml");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "w",
        "clusters": [{"name": "w", "cluster": {"server": format!("http://127.0.0.1:{port}/authenticate")}}],
        "users": [{"name": "w", "user": {}}],
        "contexts": [{"name": "w", "context": {"cluster": "w", "user": "w"}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let server = Fixture::with(|config| {
        config.token_webhook =
            Some(webhook::Options { kubeconfig, version: "v1".into(), ttl: Duration::from_secs(120) });
        config.api_audiences = vec!["api".into()];
    })
    .await;
    let all = futures::future::join_all((0..10).map(|_| who(&server, "good", None))).await;
    assert!(all.iter().all(|name| name == "remote"), "{all:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "all asked at once, one question was sent");
    assert_eq!(who(&server, "bad", None).await, 401);
    assert_eq!(who(&server, "bad", None).await, 401);
    assert_eq!(asked.load(Ordering::SeqCst), 2, "a refusal is kept, too");
    let question = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "good", "audiences": ["other"]},
    });
    let answer = server.post("/apis/authentication.k8s.io/v1/tokenreviews", &question).await;
    assert_ne!(answer.body["status"]["authenticated"], true, "it is for another audience");
    stop.cancel();
}
