//! Webhooks that hang, lie, loop or answer nonsense: each becomes upstream's answer, and the server goes on.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::routing::any;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::Fixture;
use super::dynamic_admission::{Hooks, configure, create};

fn review(uid: &Value, more: Value) -> String {
    let mut response = json!({"uid": uid, "allowed": true});
    for (key, value) in more.as_object().unwrap() {
        response[key] = value.clone();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string()
}

fn patch(operations: Value) -> Value {
    json!({"patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

/// Does what its path says.
async fn misbehave(request: Request) -> Response<Body> {
    let path = request.uri().path().trim_start_matches('/').to_string();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let uid = &asked["request"]["uid"];
    let answer = |code: u16, kind: &str, body: String| {
        Response::builder().status(code).header("content-type", kind).body(Body::from(body)).unwrap()
    };
    let to = |code: u16, location: &str| {
        Response::builder().status(code).header("location", location).body(Body::empty()).unwrap()
    };
    let ok = |body: String| answer(200, "application/json", body);
    match path.as_str() {
        "fine" => ok(review(uid, json!({}))),
        "hang" => std::future::pending().await,
        "endless" => {
            // A body that never ends is cut by the bound on time.
            let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 16384])));
            Response::new(Body::from_stream(chunks))
        }
        "giant" => ok("x".repeat(33 << 20)),
        "redirect" => to(302, "/fine"),
        "moved" => to(307, "/fine"),
        "loop" => to(307, "/loop"),
        "missing" => answer(404, "text/plain", "nothing".into()),
        "broken" => answer(500, "text/plain", "boom".into()),
        "status" => answer(500, "application/json", json!({"kind": "Status", "message": "my words"}).to_string()),
        "empty" => ok(String::new()),
        "merge" => {
            let mut more = patch(json!([{"op": "add", "path": "/data/x", "value": "y"}]));
            more["patchType"] = "MergePatch".into();
            ok(review(uid, more))
        }
        "object" => ok(review(uid, patch(json!({"a": 1})))),
        "nothing-there" => ok(review(uid, patch(json!([{"op": "remove", "path": "/data/x"}])))),
        "unknown-operation" => ok(review(uid, patch(json!([{"op": "frob", "path": "/data/x"}])))),
        "other-namespace" => {
            let operation = json!({"op": "add", "path": "/metadata/namespace", "value": "kube-system"});
            ok(review(uid, patch(json!([operation]))))
        }
        _ => answer(400, "text/plain", "what?".into()),
    }
}

/// The paths, and what upstream was seen to answer; `POST` stands for the URL of the call.
const MUTATING: [(&str, u16, &str); 16] = [
    ("fine", 201, ""),
    ("moved", 201, ""),
    ("redirect", 500, "received invalid webhook response: expected response.uid=UID, got \"\""),
    ("loop", 500, "failed to call webhook: Post \"/loop\": stopped after 10 redirects"),
    ("hang", 500, "failed to call webhook: POST: context deadline exceeded"),
    ("endless", 500, "failed to call webhook: POST: "),
    ("giant", 500, "failed to call webhook: POST: "),
    ("missing", 500, "failed to call webhook: the server could not find the requested resource"),
    (
        "broken",
        500,
        "failed to call webhook: an error on the server (\"boom\") has prevented the request from succeeding",
    ),
    ("status", 500, "failed to call webhook: my words"),
    (
        "empty",
        500,
        "failed to call webhook: 0-length response with status code: 200 and content type: application/json",
    ),
    ("merge", 500, "unsupported patch type \"MergePatch\""),
    (
        "object",
        500,
        "received undecodable patch in webhook response: json: cannot unmarshal object into Go value of type jsonpatch.Patch",
    ),
    (
        "nothing-there",
        500,
        "Internal error occurred: error in remove for path: '/data/x': Unable to remove nonexistent key: x: missing value",
    ),
    ("unknown-operation", 500, "Internal error occurred: Unexpected kind: frob"),
    ("other-namespace", 400, "the namespace of the provided object does not match the namespace sent on the request"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_misdeed_has_its_words() {
    let server = Fixture::new().await;
    let hooks = Hooks::of(Router::new().fallback(any(misbehave)), Arc::new(AtomicUsize::new(0))).await;
    for (path, code, words) in MUTATING {
        let mut hook = hooks.hook("bad.webhook.test", &format!("/{path}"));
        hook["timeoutSeconds"] = 1.into();
        configure(&server, "MutatingWebhookConfiguration", vec![hook]).await;
        let answer = create(&server, path, json!({"a": "b"})).await;
        let url = format!("Post \"https://localhost:{}/{path}?timeout=1s\"", hooks.port());
        let mut words = words.replace("POST", &url);
        let found = answer.message().to_string();
        if let Some(at) = words.find("UID") {
            let uid = &found[found.find("uid=").unwrap() + 4..][..38];
            words.replace_range(at..at + 3, uid);
        }
        assert_eq!(answer.code, code, "{path}: {}", answer.text);
        if code == 201 {
            assert_eq!(answer.body["data"], json!({"a": "b"}), "{path}");
        } else if code == 400 || words.starts_with("Internal") {
            assert_eq!(found, words, "{path}");
        } else {
            let want = format!("Internal error occurred: failed calling webhook \"bad.webhook.test\": {words}");
            assert!(found.starts_with(&want), "{path}: {found}");
        }
        let gone = server
            .ask("DELETE", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/test", "", "")
            .await;
        assert_eq!(gone.code, 200);
    }
    assert_eq!(StatusCode::OK.as_u16(), server.get("/readyz").await.code, "the server goes on");
    let text = server.get("/metrics").await.text;
    for series in [
        "apiserver_admission_webhook_rejection_count{error_type=\"calling_webhook_error\",name=\"bad.webhook.test\",operation=\"CREATE\",rejection_code=\"404\",type=\"admit\"} 1",
        "apiserver_admission_webhook_rejection_count{error_type=\"apiserver_internal_error\",name=\"bad.webhook.test\",operation=\"CREATE\",rejection_code=\"0\",type=\"admit\"} 2",
        "apiserver_admission_webhook_request_total{code=\"200\",name=\"bad.webhook.test\",operation=\"CREATE\",rejected=\"false\",type=\"admit\"} 3",
    ] {
        assert!(
            text.contains(series),
            "{series}\n{}",
            text.lines().filter(|l| l.contains("webhook_re")).collect::<Vec<_>>().join("\n")
        );
    }
    assert!(text.contains("apiserver_admission_controller_admission_duration_seconds_count{name=\"NamespaceLifecycle\",operation=\"CREATE\",rejected=\"false\",type=\"admit\"}"));
    assert!(text.contains("apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"true\",type=\"admit\"}"));
}

/// Connections are seen with their options, scales as scales, bindings as bindings.
#[tokio::test(flavor = "multi_thread")]
async fn subresources_are_seen_as_what_they_are() {
    let server = Fixture::new().await;
    let seen: Arc<std::sync::Mutex<Vec<Value>>> = Arc::default();
    let record = seen.clone();
    let handler = move |body: Bytes| {
        let record = record.clone();
        async move {
            let asked: Value = serde_json::from_slice(&body).unwrap();
            let request = &asked["request"];
            let connects = request["operation"] == "CONNECT";
            record.lock().unwrap().push(request.clone());
            review(&request["uid"], json!({"allowed": !connects, "status": {"message": "no way in"}}))
        }
    };
    let hooks = Hooks::of(Router::new().fallback(any(handler)), Arc::default()).await;
    let mut hook = hooks.hook("see.webhook.test", "/");
    hook["rules"] = json!([
        {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/*"], "operations": ["*"]},
        {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"], "operations": ["*"]},
    ]);
    configure(&server, "ValidatingWebhookConfiguration", vec![hook]).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    server.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let made = server.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let exec = "/api/v1/namespaces/default/pods/p/exec?command=sh&command=-c&stdin=true&container=c";
    let answer = server.ask("POST", exec, "", Body::empty()).await;
    assert_eq!(
        (answer.code, answer.message()),
        (400, "admission webhook \"see.webhook.test\" denied the request: no way in")
    );
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(server.post("/api/v1/namespaces/default/pods/p/binding", &binding).await.code, 201);
    let labels = json!({"app": "d"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod["spec"]},
    }});
    assert_eq!(server.post("/apis/apps/v1/namespaces/default/deployments", &deployment).await.code, 201);
    let patch = json!({"spec": {"replicas": 3}}).to_string();
    let scale = "/apis/apps/v1/namespaces/default/deployments/d/scale";
    assert_eq!(server.ask("PATCH", scale, "application/merge-patch+json", patch).await.code, 200);
    let seen = seen.lock().unwrap();
    let short: Vec<Value> = seen
        .iter()
        .map(|request| {
            json!([
                request["operation"],
                request["kind"]["kind"],
                request["resource"]["resource"],
                request["subResource"]
            ])
        })
        .collect();
    assert_eq!(
        json!(short),
        json!([
            ["CREATE", "Pod", "pods", null],
            ["CONNECT", "PodExecOptions", "pods", "exec"],
            ["CREATE", "Binding", "pods", "binding"],
            ["UPDATE", "Scale", "deployments", "scale"],
        ])
    );
    assert_eq!(
        seen[1]["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["sh", "-c"], "stdin": true, "container": "c"})
    );
    assert_eq!(seen[2]["object"]["target"]["name"], "n");
    assert_eq!(
        (&seen[3]["object"]["spec"], &seen[3]["oldObject"]["spec"]),
        (&json!({"replicas": 3}), &json!({"replicas": 1}))
    );
    assert_eq!(seen[3]["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
}

/// What webhooks did, and what they have to say, is in the audit log; patches only where bodies are.
#[tokio::test(flavor = "multi_thread")]
async fn webhooks_leave_their_mark_in_the_audit_log() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, log) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    let rule = |level: &str, namespace: &str| {
        format!(
            "- {{level: {level}, verbs: [create], namespaces: [{namespace}], resources: [{{group: \"\", resources: [configmaps]}}]}}\n"
        )
    };
    let rules = rule("Request", "default") + &rule("Metadata", "kube-public");
    std::fs::write(
        &policy,
        format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n{rules}"),
    )
    .unwrap();
    let (path, file) = (policy.clone(), log.clone());
    let server = Fixture::with(|config| {
        config.audit_policy_file = Some(path);
        config.audit_log = Some(apiserver::audit::LogOptions::new(file));
    })
    .await;
    let handler = |body: Bytes| async move {
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let mut more = patch(json!([{"op": "add", "path": "/data/x", "value": "y"}]));
        more["auditAnnotations"] = json!({"why": "because"});
        review(&asked["request"]["uid"], more)
    };
    let hooks = Hooks::of(Router::new().fallback(any(handler)), Arc::default()).await;
    let mut gone = hooks.hook("gone.webhook.test", "/");
    gone["clientConfig"]["url"] = "https://127.0.0.1:1/".into();
    gone["failurePolicy"] = "Ignore".into();
    configure(&server, "MutatingWebhookConfiguration", vec![hooks.hook("marks.webhook.test", "/"), gone]).await;
    for namespace in ["default", "kube-public"] {
        let map = super::dynamic_admission::config_map("m", json!({"a": "b"}));
        let made = server.post(&format!("/api/v1/namespaces/{namespace}/configmaps"), &map).await;
        assert_eq!(made.code, 201, "{}", made.text);
    }
    let mut events: Vec<Value> = Vec::new();
    for _ in 0..500 {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        events = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        events.retain(|event| event["objectRef"]["name"] == "m");
        if events.len() >= 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let annotation = |event: &Value, key: &str| event["annotations"][key].as_str().map(str::to_string);
    let text = |text: &str| Some(text.to_string());
    for (event, patched) in [
        (
            &events[0],
            text(
                r#"{"configuration":"test","webhook":"marks.webhook.test","patch":[{"op":"add","path":"/data/x","value":"y"}],"patchType":"JSONPatch"}"#,
            ),
        ),
        (&events[1], None),
    ] {
        assert_eq!(annotation(event, "patch.webhook.admission.k8s.io/round_0_index_0"), patched);
        assert_eq!(
            annotation(event, "mutation.webhook.admission.k8s.io/round_0_index_0"),
            text(r#"{"configuration":"test","webhook":"marks.webhook.test","mutated":true}"#)
        );
        assert_eq!(annotation(event, "marks.webhook.test/why"), text("because"));
        assert_eq!(
            annotation(event, "failed-open.mutation.webhook.admission.k8s.io/round_0_index_1"),
            text("gone.webhook.test")
        );
    }
}
