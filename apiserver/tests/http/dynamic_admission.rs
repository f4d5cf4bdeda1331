//! Webhooks over real TLS, and policies, against a whole server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use component_base::pki::{Ca, Profile};
use component_base::tls::{self, ClientAuth, ServingCert};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Answer, Fixture};

/// A webhook server of the test's own.
pub(super) struct Hooks {
    port: u16,
    ca: String,
    calls: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) type Reply = fn(&Value) -> Value;

impl Hooks {
    /// Serves paths, each with what it makes of the request.
    pub(super) async fn serve(paths: &[(&'static str, Reply)]) -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let mut router = Router::new();
        for (path, reply) in paths {
            let reply = *reply;
            let handler = move |State(calls): State<Arc<AtomicUsize>>, Json(review): Json<Value>| async move {
                calls.fetch_add(1, Ordering::SeqCst);
                if review["request"]["name"] == "hang" {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                let mut response = reply(&review["request"]);
                if response.get("uid").is_none() {
                    response["uid"] = review["request"]["uid"].clone();
                }
                Json(json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}))
            };
            router = router.route(path, post(handler));
        }
        Self::of(router.with_state(calls.clone()), calls).await
    }

    /// Serves anything.
    pub(super) async fn of(router: Router, calls: Arc<AtomicUsize>) -> Self {
        let authority = Ca::new("webhooks").unwrap();
        let pair = authority.issue(&Profile::server("localhost", &["localhost", "127.0.0.1"])).unwrap();
        let acceptor =
            TlsAcceptor::from(tls::server_config(ServingCert::from_pair(&pair).unwrap(), ClientAuth::None).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = TowerToHyperService::new(router);
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Hooks { port, ca: STANDARD.encode(authority.cert_pem()), calls, task }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(super) fn hook(&self, name: &str, path: &str) -> Value {
        json!({
            "name": name,
            "clientConfig": {"url": format!("https://localhost:{}{path}", self.port), "caBundle": self.ca},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]}],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 5,
        })
    }
}

pub(super) async fn configure(server: &Fixture, kind: &str, hooks: Vec<Value>) {
    let plural = format!("{}s", kind.to_lowercase());
    let answer = server
        .post(
            &format!("/apis/admissionregistration.k8s.io/v1/{plural}"),
            &json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": kind,
                "metadata": {"name": "test"},
                "webhooks": hooks,
            }),
        )
        .await;
    assert_eq!(answer.code, 201, "{}", answer.text);
}

pub(super) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

pub(super) async fn create(server: &Fixture, name: &str, data: Value) -> Answer {
    server.post("/api/v1/namespaces/default/configmaps", &config_map(name, data)).await
}

pub(super) fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_webhooks_patch_in_turn_and_are_asked_again() {
    let server = Fixture::new().await;
    let hooks = Hooks::serve(&[
        ("/first", |request| {
            let seen = request["object"]["data"]["second"].is_string();
            patch(json!([{"op": "add", "path": "/data/first", "value": if seen { "saw second" } else { "alone" }}]))
        }),
        ("/second", |_| patch(json!([{"op": "add", "path": "/data/second", "value": "yes"}]))),
    ])
    .await;
    let mut first = hooks.hook("a.first.test", "/first");
    first["reinvocationPolicy"] = "IfNeeded".into();
    configure(&server, "MutatingWebhookConfiguration", vec![first, hooks.hook("b.second.test", "/second")]).await;
    let answer = create(&server, "mutated", json!({"x": "y"})).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    assert_eq!(answer.body["data"], json!({"x": "y", "first": "saw second", "second": "yes"}));
    assert_eq!(hooks.calls(), 3, "the first is asked again, the second is not");
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_webhooks_refuse_in_upstreams_words() {
    let server = Fixture::new().await;
    let hooks = Hooks::serve(&[("/judge", |request| {
        let warnings = json!(["be careful"]);
        match request["object"]["data"]["answer"].as_str() {
            Some("no") => {
                json!({"allowed": false, "warnings": warnings, "status": {"message": "not this", "code": 402}})
            }
            Some("lie") => json!({"allowed": true, "uid": "another"}),
            Some("patch") => patch(json!([])),
            _ => json!({"allowed": request["operation"] != "DELETE", "warnings": warnings}),
        }
    })])
    .await;
    let mut hook = hooks.hook("judge.webhook.test", "/judge");
    hook["timeoutSeconds"] = 1.into();
    hook["matchConditions"] =
        json!([{"name": "not-free", "expression": "!has(object.data) || !('free' in object.data)"}]);
    configure(&server, "ValidatingWebhookConfiguration", vec![hook]).await;
    let answer = create(&server, "good", json!({})).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    assert_eq!(answer.warnings, ["299 - \"be careful\""]);
    let answer = create(&server, "bad", json!({"answer": "no"})).await;
    assert_eq!(answer.code, 402);
    assert_eq!(answer.message(), "admission webhook \"judge.webhook.test\" denied the request: not this");
    for (kind, text) in [
        ("lie", "received invalid webhook response: expected response.uid="),
        ("patch", "received invalid webhook response: validating webhook may not return response.patch"),
    ] {
        let answer = create(&server, kind, json!({"answer": kind})).await;
        assert_eq!(answer.code, 500);
        let want = format!("Internal error occurred: failed calling webhook \"judge.webhook.test\": {text}");
        assert!(answer.message().starts_with(&want), "{}", answer.message());
    }
    let answer = create(&server, "hang", json!({})).await;
    assert_eq!(answer.code, 500);
    assert!(answer.message().ends_with("?timeout=1s\": context deadline exceeded"), "{}", answer.message());
    let calls = hooks.calls();
    assert_eq!(create(&server, "free", json!({"free": "", "answer": "no"})).await.code, 201);
    assert_eq!(hooks.calls(), calls, "a condition that does not hold spares the call");
    let answer = server.ask("DELETE", "/api/v1/namespaces/default/configmaps/good", "", "").await;
    assert_eq!(answer.code, 400, "{}", answer.text);
    assert!(answer.message().ends_with("denied the request without explanation"), "{}", answer.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_not_there_fails_open_or_closed() {
    let server = Fixture::new().await;
    let hooks = Hooks::serve(&[]).await;
    let mut open = hooks.hook("open.webhook.test", "/");
    open["clientConfig"]["url"] = "https://127.0.0.1:1/".into();
    open["failurePolicy"] = "Ignore".into();
    open["rules"][0]["resources"] = json!(["configmaps", "secrets"]);
    let mut closed = open.clone();
    closed["name"] = "closed.webhook.test".into();
    closed["failurePolicy"] = "Fail".into();
    closed["rules"][0]["resources"] = json!(["secrets"]);
    configure(&server, "ValidatingWebhookConfiguration", vec![open, closed]).await;
    assert_eq!(create(&server, "open", json!({})).await.code, 201);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "closed"}});
    let answer = server.post("/api/v1/namespaces/default/secrets", &secret).await;
    assert_eq!(answer.code, 500);
    assert_eq!(
        answer.message(),
        "Internal error occurred: failed calling webhook \"closed.webhook.test\": failed to call webhook: Post \"https://127.0.0.1:1/?timeout=5s\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
}

pub(super) const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

async fn add(server: &Fixture, plural: &str, kind: &str, name: &str, spec: Value) -> Answer {
    let object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    server.post(&format!("{ADMISSION}/{plural}"), &object).await
}

fn config_maps() -> Value {
    json!({"resourceRules": [{
        "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"],
    }]})
}

#[tokio::test(flavor = "multi_thread")]
async fn validating_policies_with_parameters_and_variables() {
    let server = Fixture::new().await;
    let params = config_map("limits", json!({"most": "2"}));
    assert_eq!(server.post("/api/v1/namespaces/default/configmaps", &params).await.code, 201);
    let answer = add(&server, "validatingadmissionpolicies", "ValidatingAdmissionPolicy", "few", json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": config_maps(),
        "variables": [
            {"name": "count", "expression": "size(object.data)"},
            {"name": "most", "expression": "int(params.data.most)"},
        ],
        "validations": [
            {"expression": "variables.count <= variables.most", "messageExpression": "'at most ' + string(variables.most)"},
            {"expression": "!('secret' in object.data)", "message": "keep secrets", "reason": "Forbidden"},
            {"expression": "authorizer.group('').resource('configmaps').check('create').allowed()"},
        ],
    }))
    .await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    assert_eq!(create(&server, "before", json!({"a": "", "b": "", "c": ""})).await.code, 201, "it is not bound yet");
    let answer = add(
        &server,
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        "bound",
        json!({
            "policyName": "few",
            "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"},
            "validationActions": ["Deny"],
        }),
    )
    .await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    assert_eq!(create(&server, "good", json!({"a": ""})).await.code, 201);
    let answer = create(&server, "many", json!({"a": "", "b": "", "c": ""})).await;
    assert_eq!(answer.code, 422);
    let text = "ValidatingAdmissionPolicy 'few' with binding 'bound' denied request: at most 2";
    assert_eq!(answer.message(), format!("configmaps \"many\" is forbidden: {text}"));
    assert_eq!(answer.body["details"]["causes"][0]["message"], text);
    let answer = create(&server, "secret", json!({"secret": ""})).await;
    assert_eq!((answer.code, answer.body["reason"].as_str()), (403, Some("Forbidden")));
    assert!(answer.message().ends_with("denied request: keep secrets"), "{}", answer.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_do_not_compile_are_refused() {
    let server = Fixture::new().await;
    let answer = add(
        &server,
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        "broken",
        json!({
            "matchConstraints": config_maps(),
            "validations": [{"expression": "object.data.size("}, {"expression": "1"}],
        }),
    )
    .await;
    assert_eq!(answer.code, 422);
    let message = answer.message();
    assert!(message.contains("spec.validations[0].expression: Invalid value"), "{message}");
    assert!(message.contains("Syntax error: mismatched input '<EOF>'"), "{message}");
    assert!(message.contains("must evaluate to bool but got int"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mutating_policies_apply_and_patch() {
    let server = Fixture::new().await;
    let answer = add(
        &server,
        "mutatingadmissionpolicies",
        "MutatingAdmissionPolicy",
        "mark",
        json!({
            "matchConstraints": config_maps(),
            "reinvocationPolicy": "Never",
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {
                    "expression": "Object{metadata: Object.metadata{labels: {'marked': object.metadata.name}}}",
                }},
                {"patchType": "JSONPatch", "jsonPatch": {
                    "expression": "'bad' in object.data ? [JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a/b'), value: 'c'}] : []",
                }},
                {"patchType": "JSONPatch", "jsonPatch": {
                    "expression": "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]",
                }},
            ],
        }),
    )
    .await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    let answer = add(
        &server,
        "mutatingadmissionpolicybindings",
        "MutatingAdmissionPolicyBinding",
        "bound",
        json!({
            "policyName": "mark",
        }),
    )
    .await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    let answer = create(&server, "good", json!({"x": "y"})).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    assert_eq!(answer.body["metadata"]["labels"], json!({"marked": "good", "a/b": "c"}));
    assert_eq!(answer.body["data"], json!({"x": "y"}));
    let answer = create(&server, "plain", json!({"bad": "y"})).await;
    assert_eq!(answer.code, 422, "a key with a slash is no key: {}", answer.text);
    assert!(answer.message().contains("data[a/b]"), "{}", answer.message());
    let answer = server.ask("DELETE", &format!("{ADMISSION}/mutatingadmissionpolicybindings/bound"), "", "").await;
    assert_eq!(answer.code, 200);
    assert_eq!(create(&server, "plain", json!({"x": "y"})).await.body["metadata"]["labels"], Value::Null);
}

/// The example of what a PodPreset once did.
#[tokio::test]
async fn pods_get_what_a_preset_would_give_them() {
    let server = Fixture::new().await;
    let account = json!({"metadata": {"name": "default"}});
    assert_eq!(server.post("/api/v1/namespaces/default/serviceaccounts", &account).await.code, 201);
    let text = std::fs::read_to_string("../deploy/examples/pod-preset.yaml").unwrap();
    for object in apimachinery::yaml::parse_documents(&text).unwrap() {
        let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase().replace("policy", "policie"));
        let plural = plural.replace("policiebindings", "policybindings");
        let answer = server.post(&format!("{ADMISSION}/{plural}"), &object).await;
        assert_eq!(answer.code, 201, "{}", answer.text);
    }
    let pod = |name: &str, role: &str| {
        json!({"metadata": {"name": name, "labels": {"role": role}}, "spec": {"containers": [
            {"name": "a", "image": "x"},
            {"name": "b", "image": "x", "env": [{"name": "DB_PORT", "value": "1"}],
                "volumeMounts": [{"name": "own", "mountPath": "/cache"}]},
        ], "volumes": [{"name": "own", "emptyDir": {}}]}})
    };
    const PODS: &str = "/api/v1/namespaces/default/pods";
    // A policy applies once its binding was seen.
    let mut made = Value::Null;
    for at in 0..200 {
        let answer = server.post(PODS, &pod(&format!("front-{at}"), "frontend")).await;
        assert_eq!(answer.code, 201, "{}", answer.text);
        made = answer.body;
        if made["spec"]["volumes"].as_array().is_some_and(|volumes| volumes.len() > 1) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    let container = |at: usize| &made["spec"]["containers"][at];
    let both = json!([{"name": "DB_PORT", "value": "6379"}, {"name": "DB_HOST", "value": "redis"}]);
    assert_eq!(container(0)["env"], both);
    assert!(
        container(0)["volumeMounts"].to_string().contains(r#""mountPath":"/cache","name":"cache-volume""#),
        "{made}"
    );
    let own = json!([{"name": "DB_PORT", "value": "1"}, {"name": "DB_HOST", "value": "redis"}]);
    assert_eq!(container(1)["env"], own, "what a container says itself is kept");
    assert!(!container(1)["volumeMounts"].to_string().contains("cache-volume"), "{made}");
    let names: Vec<_> = made["spec"]["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
    assert!(names.contains(&&json!("cache-volume")) && names.contains(&&json!("own")), "{names:?}");
    let other = server.post(PODS, &pod("back", "backend")).await;
    assert_eq!(other.body["spec"]["containers"][0]["env"], Value::Null);
}
