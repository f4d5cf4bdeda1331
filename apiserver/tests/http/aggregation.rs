//! An extension server of this process behind the server: registration, identity, discovery, OpenAPI,
//! streams, and what is answered when it is not there.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apiserver::{Config, UserInfo};
use axum::body::Body;
use axum::extract::{Request as Incoming, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use component_base::pki::{Ca, Profile};
use component_base::serving::{self, Peer};
use component_base::tls::{self, ClientAuth, ClientAuthority, ServingCert};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use super::{Answer, Fixture};

const GROUP: &str = "wardle.example.com";
const NAME: &str = "v1alpha1.wardle.example.com";

struct Wardle {
    port: u16,
    ca: Ca,
    /// Speaks the aggregated form of discovery.
    aggregated: Arc<AtomicBool>,
    _stop: DropGuard,
}

#[derive(Clone)]
struct Shared {
    front: ClientAuthority,
    aggregated: Arc<AtomicBool>,
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/v1alpha1"),
        "resources": [{
            "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
            "verbs": ["get", "list", "watch"],
        }],
    })
}

async fn wardle(State(shared): State<Shared>, request: Incoming) -> Response {
    let json = |value: Value| ([("content-type", "application/json")], value.to_string()).into_response();
    let peer = request.extensions().get::<Peer>().expect("served over a socket");
    let Ok(proxy) = shared.front.verify(peer.certificates()) else {
        return (StatusCode::UNAUTHORIZED, "no front proxy").into_response();
    };
    let text = |name: &str| -> Vec<String> {
        request.headers().get_all(name).iter().filter_map(|v| v.to_str().ok()).map(String::from).collect()
    };
    let path = request.uri().path().to_string();
    match path.as_str() {
        "/apis" if shared.aggregated.load(Ordering::Relaxed) => {
            let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            let document = json!({
                "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
                "items": [{"metadata": {"name": GROUP}, "versions": [{"version": "v1alpha1", "resources": [{
                    "resource": "flunders", "scope": "Namespaced", "singularResource": "flunder", "verbs": ["get"],
                    "responseKind": {"group": GROUP, "version": "v1alpha1", "kind": "Flunder"},
                }]}]}],
            });
            ([("content-type", content_type), ("etag", "\"one\"")], document.to_string()).into_response()
        }
        "/apis/wardle.example.com/v1alpha1" => json(resources()),
        "/openapi/v3" => json(json!({"paths": {"apis/wardle.example.com/v1alpha1": {
            "serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=AB",
        }}})),
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => {
            json(json!({"openapi": "3.0.0", "info": {"title": "wardle"}}))
        }
        "/openapi/v2" => json(json!({
            "swagger": "2.0",
            "paths": {
                "/apis/wardle.example.com/v1alpha1/": {"get": {"schema": {"$ref": "#/definitions/Flunder"}}},
                "/apis/other/v1/": {"get": {}},
            },
            "definitions": {"Flunder": {"type": "object"}, "Unused": {}},
        })),
        "/apis/wardle.example.com/v1alpha1/moved" => {
            (StatusCode::FOUND, [("location", "https://elsewhere/")]).into_response()
        }
        _ if request.uri().query().is_some_and(|query| query.contains("watch=true")) => {
            let events = futures::stream::unfold(0, |count| async move {
                if count == 1 {
                    // The first event must arrive while the stream is open.
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                Some((Ok::<_, std::io::Error>(format!("{{\"type\":\"ADDED\",\"count\":{count}}}\n")), count + 1))
            });
            Response::new(Body::from_stream(events))
        }
        _ => json(json!({
            "kind": "Flunder", "path": path, "query": request.uri().query(), "proxy": proxy.common_name,
            "user": text("x-remote-user"), "uid": text("x-remote-uid"), "groups": text("x-remote-group"),
            "scopes": text("x-remote-extra-scopes"), "authorization": text("authorization"),
            "forwarded": text("x-forwarded-uri"),
        })),
    }
}

impl Wardle {
    async fn start(front: &Ca) -> Self {
        let ca = Ca::new("wardle").unwrap();
        let pair = ca.issue(&Profile::server("api", &["api.wardle.svc"])).unwrap();
        let auth = ClientAuth::Request { hints: Vec::new() };
        let config = tls::server_config(ServingCert::from_pair(&pair).unwrap(), auth).unwrap();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let aggregated = Arc::new(AtomicBool::new(true));
        let front = ClientAuthority::from_pem(front.cert_pem().as_bytes()).unwrap();
        let router = axum::Router::new().fallback(wardle).with_state(Shared { front, aggregated: aggregated.clone() });
        let stop = CancellationToken::new();
        tokio::spawn(serving::serve(listener, Some(config), router, serving::Options::default(), stop.clone()));
        Self { port, ca, aggregated, _stop: stop.drop_guard() }
    }

    fn service(&self) -> Value {
        // No endpoint may be a loopback address, but a name may stand for one.
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "api", "namespace": "wardle"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        })
    }

    fn apiservice(&self) -> Value {
        let bundle = base64::engine::general_purpose::STANDARD.encode(self.ca.cert_pem());
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME},
            "spec": {
                "group": GROUP, "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
                "caBundle": bundle, "service": {"namespace": "wardle", "name": "api", "port": self.port},
            },
        })
    }
}

struct Cluster {
    fixture: Fixture,
    wardle: Wardle,
    _files: tempfile::TempDir,
}

async fn cluster() -> Cluster {
    let files = tempfile::tempdir().unwrap();
    let front = Ca::new("front").unwrap();
    let pair = front.issue(&Profile::client("front-proxy-client", &[])).unwrap();
    pair.write(files.path(), "front").unwrap();
    let wardle = Wardle::start(&front).await;
    let fixture = Fixture::with(|config: &mut Config| {
        config.front_proxy.client_certificate = Some(files.path().join("front.crt"));
        config.front_proxy.client_key = Some(files.path().join("front.key"));
    })
    .await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "wardle"}});
    assert_eq!(fixture.post("/api/v1/namespaces", &namespace).await.code, 201);
    Cluster { fixture, wardle, _files: files }
}

const APISERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

async fn condition(fixture: &Fixture, wanted: &str) -> Value {
    for _ in 0..200 {
        let answer = fixture.get(&format!("{APISERVICES}/{NAME}")).await;
        let condition = answer.body["status"]["conditions"][0].clone();
        if condition["reason"] == wanted {
            return condition;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never {wanted}: {:?}", fixture.get(&format!("{APISERVICES}/{NAME}")).await.body["status"]);
}

async fn until(fixture: &Fixture, path: &str, accept: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let mut last = None;
    for _ in 0..100 {
        let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
        let answer = fixture.send(request).await;
        if wanted(&answer) {
            return answer;
        }
        last = Some(answer);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path}: {last:?}");
}

#[tokio::test]
async fn own_group_versions_are_registered() {
    let fixture = Fixture::new().await;
    let ready = until(&fixture, "/readyz?verbose", "*/*", |answer| answer.code == 200).await;
    assert!(ready.text.contains("[+]autoregister-completion ok\n"), "{}", ready.text);
    let list = fixture.get(APISERVICES).await.body;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 21);
    let apps = items.iter().find(|item| item["metadata"]["name"] == "v1.apps").unwrap();
    assert_eq!(
        apps["spec"],
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15})
    );
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    assert_eq!(apps["status"]["conditions"][0]["reason"], "Local");
    assert_eq!(apps["metadata"]["managedFields"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn requests_reach_the_extension_server() {
    let cluster = cluster().await;
    let (fixture, wardle) = (&cluster.fixture, &cluster.wardle);
    let created = fixture.post(APISERVICES, &wardle.apiservice()).await;
    assert_eq!(created.code, 201, "{created:?}");
    let missing = condition(fixture, "ServiceNotFound").await;
    assert_eq!(missing["message"], "service/api in \"wardle\" is not present");
    let path = "/apis/wardle.example.com/v1alpha1/namespaces/a/flunders/b?pretty=true";
    let refused = fixture.get(path).await;
    assert_eq!((refused.code, refused.text.as_str()), (503, "service unavailable\n"));

    let service = fixture.post("/api/v1/namespaces/wardle/services", &wardle.service()).await;
    assert_eq!(service.code, 201, "{service:?}");
    let passed = condition(fixture, "Passed").await;
    assert_eq!((&passed["status"], &passed["message"]), (&json!("True"), &json!("all checks passed")));

    let mut user = UserInfo::new("alice", &["dev", apiserver::request::user::MASTERS]);
    user.uid = "42".to_string();
    user.extra.insert("scopes".to_string(), vec!["one".to_string(), "two".to_string()]);
    let request = Request::get(path)
        .header("authorization", "Bearer secret")
        .header("x-remote-user", "root")
        .header("x-remote-extra-scopes", "all")
        .body(Body::empty())
        .unwrap();
    let echo = Fixture::send_to(fixture.handle.router(user), request).await.body;
    assert_eq!(echo["path"], "/apis/wardle.example.com/v1alpha1/namespaces/a/flunders/b");
    assert_eq!(echo["query"], "pretty=true");
    assert_eq!(echo["proxy"], "front-proxy-client");
    assert_eq!(echo["user"], json!(["alice"]));
    assert_eq!(echo["uid"], json!(["42"]));
    assert_eq!(echo["groups"], json!(["dev", "system:masters", "system:authenticated"]));
    assert_eq!(echo["scopes"], json!(["one", "two"]));
    assert_eq!(echo["authorization"], json!([]));

    let moved = fixture.get("/apis/wardle.example.com/v1alpha1/moved").await;
    assert_eq!(moved.code, 502, "{moved:?}");

    let watch = Request::get("/apis/wardle.example.com/v1alpha1/flunders?watch=true").body(Body::empty()).unwrap();
    let answer = fixture.handle.admin_router().oneshot(watch).await.unwrap();
    let mut body = answer.into_body();
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("events are not held back");
    assert!(frame.unwrap().unwrap().into_data().unwrap().starts_with(b"{\"type\":\"ADDED\""));

    let gone = fixture.ask("DELETE", "/api/v1/namespaces/wardle/services/api", "", Body::empty()).await;
    assert_eq!(gone.code, 200);
    condition(fixture, "ServiceNotFound").await;
    let removed = fixture.ask("DELETE", &format!("{APISERVICES}/{NAME}"), "", Body::empty()).await;
    assert_eq!(removed.code, 200);
    until(fixture, path, "*/*", |answer| answer.code == 404).await;
}

#[tokio::test]
async fn documents_are_merged() {
    let cluster = cluster().await;
    let (fixture, wardle) = (&cluster.fixture, &cluster.wardle);
    fixture.post("/api/v1/namespaces/wardle/services", &wardle.service()).await;
    fixture.post(APISERVICES, &wardle.apiservice()).await;
    condition(fixture, "Passed").await;

    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let version = |answer: &Answer| -> Value {
        let groups = answer.body["items"].as_array().cloned().unwrap_or_default();
        let group = groups.into_iter().find(|group| group["metadata"]["name"] == GROUP).unwrap_or_default();
        group["versions"][0].clone()
    };
    let current = |answer: &Answer| version(answer)["freshness"] == "Current";
    let document = until(fixture, "/apis", aggregated, current).await;
    assert_eq!(version(&document)["resources"][0]["verbs"], json!(["get"]));
    let names: Vec<&str> =
        document.body["items"].as_array().unwrap().iter().filter_map(|g| g["metadata"]["name"].as_str()).collect();
    assert_eq!(names.last(), Some(&GROUP), "its priority is the lowest");

    let groups = fixture.get("/apis").await.body;
    assert_eq!(groups["groups"].as_array().unwrap().last().unwrap()["preferredVersion"]["version"], "v1alpha1");
    assert_eq!(fixture.get("/apis/wardle.example.com").await.body["name"], GROUP);
    assert_eq!(fixture.get("/apis/wardle.example.com/v1alpha1").await.body, resources());

    let name = "apis/wardle.example.com/v1alpha1";
    let listed = |answer: &Answer| answer.body["paths"][name].is_object();
    let index = until(fixture, "/openapi/v3", "*/*", listed).await;
    assert!(index.body["paths"]["api/v1"].is_object());
    assert_eq!(fixture.get(&format!("/openapi/v3/{name}")).await.body["info"]["title"], "wardle");

    let path = "/apis/wardle.example.com/v1alpha1/";
    let swagger =
        until(fixture, "/openapi/v2", "application/json", |answer| answer.body["paths"][path].is_object()).await;
    assert!(swagger.body["definitions"]["Flunder"].is_object());
    assert!(swagger.body["definitions"].get("Unused").is_none());
    assert!(swagger.body["paths"].get("/apis/other/v1/").is_none());
    assert!(swagger.body["paths"]["/api/v1/pods"].is_object());

    // A server that only speaks the plain form is asked for that.
    wardle.aggregated.store(false, Ordering::Relaxed);
    let mut changed = fixture.get(&format!("{APISERVICES}/{NAME}")).await.body;
    changed["spec"]["versionPriority"] = json!(100);
    let put = fixture.ask("PUT", &format!("{APISERVICES}/{NAME}"), "application/json", changed.to_string()).await;
    assert_eq!(put.code, 200, "{put:?}");
    until(fixture, "/apis", aggregated, |answer| version(answer)["resources"][0]["verbs"][2] == "watch").await;
}

#[tokio::test]
async fn an_untrusted_server_is_unavailable() {
    let cluster = cluster().await;
    let (fixture, wardle) = (&cluster.fixture, &cluster.wardle);
    fixture.post("/api/v1/namespaces/wardle/services", &wardle.service()).await;
    let mut apiservice = wardle.apiservice();
    let other = Ca::new("other").unwrap();
    apiservice["spec"]["caBundle"] = base64::engine::general_purpose::STANDARD.encode(other.cert_pem()).into();
    assert_eq!(fixture.post(APISERVICES, &apiservice).await.code, 201);
    let failed = condition(fixture, "FailedDiscoveryCheck").await;
    let message = failed["message"].as_str().unwrap();
    assert!(message.contains("x509: certificate signed by unknown authority"), "{message}");
    let mut changed = fixture.get(&format!("{APISERVICES}/{NAME}")).await.body;
    changed["spec"].as_object_mut().unwrap().remove("caBundle");
    changed["spec"]["insecureSkipTLSVerify"] = json!(true);
    let put = fixture.ask("PUT", &format!("{APISERVICES}/{NAME}"), "application/json", changed.to_string()).await;
    assert_eq!(put.code, 200, "{put:?}");
    condition(fixture, "Passed").await;
}

fn definition(versions: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "lamps.light.example.com"},
        "spec": {
            "group": "light.example.com", "scope": "Namespaced", "versions": versions,
            "names": {"plural": "lamps", "singular": "lamp", "kind": "Lamp", "listKind": "LampList"},
        },
    })
}

fn lamp(name: &str, served: bool, storage: bool, text: &str) -> Value {
    json!({
        "name": name, "served": served, "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "description": text, "properties": {
            "spec": {"type": "object", "properties": {"watts": {"type": "integer", "nullable": true}}},
        }}},
    })
}

#[tokio::test]
async fn custom_group_versions_come_and_go() {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let fixture = Fixture::new().await;
    let crd = definition(&json!([lamp("v1", true, true, "first"), lamp("v1beta1", true, false, "old")]));
    let made = fixture.post(DEFINITIONS, &crd).await;
    assert_eq!(made.code, 201, "{made:?}");
    let own = |version: &str| format!("{APISERVICES}/{version}.light.example.com");
    let service = until(&fixture, &own("v1"), "*/*", |answer| answer.code == 200).await.body;
    assert_eq!(service["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "true");
    assert_eq!(service["spec"]["groupPriorityMinimum"], 1000);
    assert_eq!(service["spec"]["versionPriority"], 100);
    assert_eq!(service["status"]["conditions"][0]["reason"], "Local");

    // Put right when somebody changes it, made again when somebody deletes it.
    let mut changed = service.clone();
    changed["spec"]["versionPriority"] = json!(7);
    fixture.ask("PUT", &own("v1"), "application/json", changed.to_string()).await;
    until(&fixture, &own("v1"), "*/*", |answer| answer.body["spec"]["versionPriority"] == 100).await;
    fixture.ask("DELETE", &own("v1"), "", Body::empty()).await;
    let again = |answer: &Answer| answer.code == 200 && answer.body["metadata"]["uid"] != service["metadata"]["uid"];
    until(&fixture, &own("v1"), "*/*", again).await;

    let name = "com.example.light.v1.Lamp";
    let schema = |answer: &Answer| answer.body["components"]["schemas"][name].clone();
    let path = "/openapi/v3/apis/light.example.com/v1";
    let document = until(&fixture, path, "*/*", |answer| schema(answer)["description"] == "first").await;
    assert_eq!(
        schema(&document)["properties"]["spec"]["properties"]["watts"],
        json!({"type": "integer", "nullable": true})
    );
    assert_eq!(document.body["info"]["title"], "Kubernetes CRD Swagger");
    let swagger =
        until(&fixture, "/openapi/v2", "application/json", |answer| answer.body["definitions"][name].is_object()).await;
    assert_eq!(swagger.body["definitions"][name]["properties"]["spec"]["properties"]["watts"], json!({}));
    let groups = fixture.get("/apis/light.example.com").await.body;
    assert_eq!(groups["preferredVersion"]["version"], "v1");
    assert_eq!(groups["versions"].as_array().unwrap().len(), 2);

    // Another schema, and a version that is served no more.
    let mut changed = fixture.get(&format!("{DEFINITIONS}/lamps.light.example.com")).await.body;
    changed["spec"]["versions"] = json!([lamp("v1", true, true, "second"), lamp("v1beta1", false, false, "old")]);
    let put = fixture
        .ask("PUT", &format!("{DEFINITIONS}/lamps.light.example.com"), "application/json", changed.to_string())
        .await;
    assert_eq!(put.code, 200, "{put:?}");
    until(&fixture, path, "*/*", |answer| schema(answer)["description"] == "second").await;
    until(&fixture, &own("v1beta1"), "*/*", |answer| answer.code == 404).await;
    until(&fixture, "/openapi/v3/apis/light.example.com/v1beta1", "*/*", |answer| answer.code == 404).await;
    let gone = |answer: &Answer| answer.body["definitions"].get("com.example.light.v1beta1.Lamp").is_none();
    let swagger = until(&fixture, "/openapi/v2", "application/json", gone).await;
    assert_eq!(swagger.body["definitions"][name]["description"], "second");

    fixture.ask("DELETE", &format!("{DEFINITIONS}/lamps.light.example.com"), "", Body::empty()).await;
    until(&fixture, &own("v1"), "*/*", |answer| answer.code == 404).await;
    until(&fixture, path, "*/*", |answer| answer.code == 404).await;
    until(&fixture, "/apis/light.example.com", "*/*", |answer| answer.code == 404).await;
}
