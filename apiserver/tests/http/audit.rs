//! What is recorded of requests: stages, bodies in any encoding, credentials that are no good, and what a backend
//! that cannot write does to them.

use std::path::{Path, PathBuf};

use apiserver::audit::LogOptions;
use apiserver::audit::options::Mode;
use apiserver::server::in_process;
use axum::body::Body;
use component_base::serving::Peer;
use http::Request;
use serde_json::{Value, json};

use crate::{Fixture, UserInfo};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Audited {
    server: Fixture,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

async fn audited(rules: &str, change: impl FnOnce(&mut LogOptions)) -> Audited {
    let dir = tempfile::tempdir().unwrap();
    let (policy, log, tokens) =
        (dir.path().join("policy.yaml"), dir.path().join("audit.log"), dir.path().join("tokens"));
    std::fs::write(&policy, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}")).unwrap();
    std::fs::write(&tokens, "plain,joe,2,dev\n").unwrap();
    let key = dir.path().join("sa.key");
    std::fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let mut options = LogOptions::new(log.clone());
    change(&mut options);
    let server = Fixture::with(|config| {
        config.audit_policy_file = Some(policy);
        config.audit_log = Some(options);
        config.token_auth_file = Some(tokens);
        config.service_account_issuers = vec!["https://issuer.test".to_string()];
        config.service_account_signing_key_file = Some(key);
    })
    .await;
    Audited { server, log, _dir: dir }
}

fn events(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn stages(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["stage"].as_str().unwrap()).collect()
}

const CONFIG_MAPS: &str =
    "- {level: RequestResponse, resources: [{group: \"\", resources: [configmaps]}], namespaces: [default]}\n";

#[tokio::test]
async fn every_stage_and_every_body_is_there_when_the_answer_is() {
    let audited = audited(CONFIG_MAPS, |_| {}).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
    assert_eq!(audited.server.post(MAPS, &map).await.code, 201);
    let found = events(&audited.log);
    assert_eq!(stages(&found), ["RequestReceived", "ResponseComplete"]);
    assert_eq!(found[0]["stageTimestamp"], found[0]["requestReceivedTimestamp"]);
    assert_eq!(found[0].get("requestObject"), None, "it was not read yet");
    assert_eq!(found[1]["auditID"], found[0]["auditID"]);
    assert_eq!(found[1]["requestObject"]["data"], json!({"a": "b"}));
    assert_eq!(found[1]["responseObject"]["metadata"]["name"], "m");
    let patch = r#"{"data": {"c": "d"}}"#;
    let path = format!("{MAPS}/m");
    audited.server.ask("PATCH", &path, "application/merge-patch+json", patch).await;
    let found = events(&audited.log);
    assert_eq!(found[3]["requestObject"], json!({"data": {"c": "d"}}));
    audited
        .server
        .ask(
            "DELETE",
            &path,
            "application/json",
            r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}"#,
        )
        .await;
    let found = events(&audited.log);
    assert_eq!(
        found[5]["requestObject"],
        json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/__internal", "gracePeriodSeconds": 0})
    );
    assert_eq!(found[5]["responseStatus"]["status"], "Success");
    assert_eq!(found[5]["responseStatus"]["code"], 200, "the answer's, which its Status does not tell");
    assert_eq!(found[5]["responseObject"].get("code"), None);
    audited.server.get(&path).await;
    let found = events(&audited.log);
    assert_eq!(
        (&found[7]["responseStatus"]["code"], &found[7]["responseStatus"]["reason"]),
        (&404.into(), &"NotFound".into())
    );
    assert_eq!(found[7]["responseObject"]["kind"], "Status");
}

/// What is posted to subresources is recorded with defaults, as all that is posted.
#[tokio::test]
async fn bodies_of_subresources_are_recorded() {
    let audited = audited("- {level: Request, resources: [{group: \"\", resources: [\"serviceaccounts/token\", \"pods/binding\", \"pods/eviction\"]}]}\n", |_| {}).await;
    let server = &audited.server;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}});
    server.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["x"]}});
    server.post("/api/v1/namespaces/default/serviceaccounts/a/token", &request).await;
    let event = events(&audited.log).pop().unwrap();
    assert_eq!(
        event["requestObject"],
        json!({
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {},
            "spec": {"audiences": ["x"], "expirationSeconds": 3600, "boundObjectRef": null},
            "status": {"token": "", "expirationTimestamp": null},
        })
    );
    assert_eq!(event["objectRef"]["subresource"], "token");
    let credential = event["annotations"]["authentication.kubernetes.io/issued-credential-id"].as_str().unwrap();
    assert!(credential.starts_with("JTI="), "{credential}");
    let binding =
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "uid": "u"}, "target": {"name": "n"}});
    server.post("/api/v1/namespaces/default/pods/p/binding", &binding).await;
    let event = events(&audited.log).pop().unwrap();
    assert_eq!(event["requestObject"]["target"]["name"], "n");
    assert_eq!(event["objectRef"]["uid"], "u");
    let eviction = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}});
    server.post("/api/v1/namespaces/default/pods/p/eviction", &eviction).await;
    assert_eq!(events(&audited.log).pop().unwrap()["requestObject"]["apiVersion"], "policy/v1beta1");
}

/// How Pod Security judged is in the log of whoever may look there.
#[tokio::test]
async fn pod_security_tells_how_it_judged() {
    let audited = audited("- {level: Metadata, users: [\"system:admin\"], resources: [{group: \"\", resources: [pods]}, {group: apps}]}\n", |_| {}).await;
    let server = &audited.server;
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}});
    server.post("/api/v1/namespaces", &namespace).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let spec = |host: bool| json!({"hostNetwork": host, "containers": [{"name": "c", "image": "i"}]});
    let pod = |host: bool| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec(host)});
    for namespace in ["default", "strict"] {
        server.post(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), &account).await;
    }
    let told = async |path: &str, object: &Value| {
        let answer = server.post(path, object).await;
        let event = events(&audited.log).pop().unwrap();
        let told = |name: &str| event["annotations"].get(format!("pod-security.kubernetes.io/{name}")).cloned();
        (answer.code, told("enforce-policy"), told("audit-violations").is_some())
    };
    let default = told("/api/v1/namespaces/default/pods", &pod(true)).await;
    assert_eq!(default, (201, Some("privileged:latest".into()), false));
    let strict = "/api/v1/namespaces/strict/pods";
    assert_eq!(told(strict, &pod(true)).await, (403, Some("baseline:latest".into()), true));
    assert_eq!(told(strict, &pod(false)).await, (201, Some("baseline:latest".into()), true));
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": spec(true)});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    });
    let sets = "/apis/apps/v1/namespaces/strict/replicasets";
    assert_eq!(told(sets, &set).await, (201, None, true), "a template is not enforced upon");
}

/// An applied configuration in YAML is recorded as what it says.
#[tokio::test]
async fn applied_yaml_is_recorded_as_json() {
    let audited = audited(CONFIG_MAPS, |_| {}).await;
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: b}\n";
    let path = format!("{MAPS}/m?fieldManager=me");
    let answer = audited.server.ask("PATCH", &path, "application/apply-patch+yaml", text).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    let wanted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
    assert_eq!(events(&audited.log)[1]["requestObject"], wanted);
}

/// Upstream records objects where it writes what was negotiated, and its version and the like are no such thing.
#[tokio::test]
async fn only_negotiated_answers_are_recorded() {
    let audited = audited("- {level: RequestResponse, users: [\"system:admin\"]}\n", |_| {}).await;
    let shown = async |path: &str| {
        audited.server.get(path).await;
        let found = events(&audited.log);
        let event = found.iter().rfind(|event| event["requestURI"] == path).cloned().unwrap();
        (event["responseStatus"].clone(), event["responseObject"]["kind"].clone())
    };
    for path in ["/version", "/", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/healthz"] {
        assert_eq!(shown(path).await, (json!({"metadata": {}, "code": 200}), Value::Null), "{path}");
    }
    for (path, kind) in [("/api", "APIVersions"), ("/apis/apps", "APIGroup"), ("/api/v1", "APIResourceList")] {
        assert_eq!(shown(path).await, (json!({"metadata": {}, "code": 200}), kind.into()), "{path}");
    }
    // An error that no form was found for.
    let request = Request::get(format!("{MAPS}/none")).header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(audited.server.send(request.body(Body::empty()).unwrap()).await.code, 404);
    let event = events(&audited.log).pop().unwrap();
    assert_eq!((&event["responseStatus"], event.get("responseObject")), (&json!({"metadata": {}, "code": 404}), None));
}

/// A request that took longer than half a second tells where its time went; a watch does when it ends.
#[tokio::test]
async fn slow_requests_tell_where_their_time_went() {
    let audited = audited(CONFIG_MAPS, |_| {}).await;
    audited.server.get(MAPS).await;
    audited.server.get(&format!("{MAPS}?watch=true&timeoutSeconds=1")).await;
    let mut found = Vec::new();
    for _ in 0..200 {
        found = events(&audited.log);
        if found.len() == 5 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let told = |event: &Value, key: &str| {
        event["annotations"].get(format!("apiserver.latency.k8s.io/{key}")).and_then(Value::as_str).map(str::to_string)
    };
    let (quick, slow) = (&found[1], &found[4]);
    assert_eq!(told(quick, "total"), None, "{quick}");
    assert!(told(slow, "total").is_some_and(|total| total.starts_with("1.")), "{slow}");
    assert!(told(slow, "authorization").is_some_and(|took| took.ends_with("s") && took != "0s"), "{slow}");
    assert_eq!(told(slow, "mutating-webhook"), None);
    assert_eq!(told(&found[3], "total"), None, "it has only begun");
}

/// Clients of the wire format are recorded as all others.
#[tokio::test]
async fn protobuf_is_recorded_as_json() {
    let audited = audited(CONFIG_MAPS, |_| {}).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
    let request = Request::post(MAPS)
        .header("content-type", "application/json")
        .header("accept", "application/vnd.kubernetes.protobuf");
    let answer = audited.server.send(request.body(Body::from(map.to_string())).unwrap()).await;
    assert_eq!(answer.code, 201);
    let found = events(&audited.log);
    assert_eq!(found[1]["responseObject"]["data"], json!({"a": "b"}));
    assert_eq!(found[1]["responseObject"]["kind"], "ConfigMap");
}

#[tokio::test]
async fn a_watch_has_a_beginning_and_an_end() {
    let audited = audited("- {level: Metadata, verbs: [watch], users: [\"system:admin\"]}\n", |_| {}).await;
    let answer = audited.server.get(&format!("{MAPS}?watch=true&timeoutSeconds=1")).await;
    assert_eq!(answer.code, 200);
    for _ in 0..200 {
        if events(&audited.log).len() == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let found = events(&audited.log);
    assert_eq!(stages(&found), ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    assert_eq!(found[1]["responseStatus"]["code"], 200);
}

#[tokio::test]
async fn credentials_that_are_no_good_are_recorded() {
    let audited = audited("- {level: Metadata}\n", |_| {}).await;
    let request = Request::get("/api/v1/pods")
        .header("host", "x")
        .header("authorization", "Bearer wrong")
        .header("x-forwarded-for", "192.0.2.7");
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(Peer::new(([127, 0, 0, 1], 1).into(), Vec::new()));
    let service = in_process::public(audited.server.handle.server.clone());
    assert_eq!(Fixture::send_to(service, request).await.code, 401);
    let found: Vec<Value> =
        events(&audited.log).into_iter().filter(|event| event["responseStatus"]["code"] == 401).collect();
    assert_eq!(stages(&found), ["ResponseStarted"]);
    assert_eq!(found[0]["user"], json!({}));
    assert_eq!(found[0]["sourceIPs"], json!(["192.0.2.7", "127.0.0.1"]));
}

#[tokio::test]
async fn impersonation_tells_the_right_it_used() {
    let audited = audited(CONFIG_MAPS, |_| {}).await;
    let request = Request::get(MAPS).header("impersonate-user", "joe").body(Body::empty()).unwrap();
    audited.server.send(request).await;
    let event = events(&audited.log).pop().unwrap();
    assert_eq!(event["user"]["username"], "system:admin");
    assert_eq!(event["impersonatedUser"], json!({"username": "joe", "groups": ["system:authenticated"]}));
    assert_eq!(event["authenticationMetadata"]["impersonationConstraint"], "impersonate:user-info");
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
}

/// A full disk: only the strictest mode holds requests up.
#[tokio::test]
async fn what_cannot_be_recorded_is_refused_only_when_strict() {
    for (mode, code) in [(Mode::Blocking, 200), (Mode::BlockingStrict, 500)] {
        let audited = audited("- {level: Metadata, users: [joe]}\n", |options| {
            options.path = "/dev/full".into();
            options.delivery.mode = mode;
        })
        .await;
        let server = &audited.server;
        let joe = UserInfo::new("joe", &["system:masters"]);
        let answer = server.get_as(joe, MAPS).await;
        assert_eq!(answer.code, code, "{mode:?} {}", answer.text);
        if mode == Mode::BlockingStrict {
            assert_eq!(answer.text, format!("Internal Server Error: \"{MAPS}\": failed to store audit event\n"));
        }
        let metrics = server.get("/metrics").await.text;
        let count = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.rsplit(' ').next().unwrap_or_default().parse::<u32>().unwrap_or_default()
        };
        assert!(count("apiserver_audit_error_total{plugin=\"log\"}") > 0, "{metrics}");
        assert_eq!(count("apiserver_audit_requests_rejected_total"), u32::from(mode == Mode::BlockingStrict));
        assert_eq!(count("apiserver_audit_level_total{level=\"Metadata\"}"), 1);
    }
}
