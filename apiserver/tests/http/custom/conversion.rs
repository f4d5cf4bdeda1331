//! Several versions of one kind.

use serde_json::{Value, json};

use super::{DEFINITIONS, definition, establish, until};
use crate::Fixture;

fn two_versions() -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut crd = definition("foos", "Foo", "Cluster", any.clone());
    crd["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": any.clone()}},
        {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": any}, "deprecated": true},
    ]);
    crd
}

#[tokio::test]
async fn without_a_webhook_only_the_name_changes() {
    let server = Fixture::new().await;
    establish(&server, &two_versions()).await;
    let foo = json!({"apiVersion": "example.com/v2", "kind": "Foo", "metadata": {"name": "x"}, "spec": {"a": 1}});
    let made = server.post("/apis/example.com/v2/foos", &foo).await;
    assert_eq!((made.code, &made.body["apiVersion"]), (201, &json!("example.com/v2")), "{}", made.text);
    assert_eq!(made.warnings, ["299 - \"example.com/v2 Foo is deprecated\""]);
    for version in ["v1", "v2"] {
        let read = server.get(&format!("/apis/example.com/{version}/foos/x")).await.body;
        assert_eq!(read["apiVersion"], format!("example.com/{version}"));
        assert_eq!(read["spec"], json!({"a": 1}));
        let list = server.get(&format!("/apis/example.com/{version}/foos")).await.body;
        assert_eq!(list["apiVersion"], format!("example.com/{version}"));
    }
    // The other version becomes the stored one; what is there stays readable in both.
    let path = format!("{DEFINITIONS}/foos.example.com");
    let mut crd = server.get(&path).await.body;
    crd["spec"]["versions"][0]["storage"] = false.into();
    crd["spec"]["versions"][1]["storage"] = true.into();
    let put = server.ask("PUT", &path, "application/json", crd.to_string()).await;
    assert_eq!(put.body["status"]["storedVersions"], json!(["v1", "v2"]), "{}", put.text);
    until(&server, "/apis/example.com/v2/foos/x", |answer| answer.body["apiVersion"] == "example.com/v2").await;
    let read = server.get("/apis/example.com/v1/foos/x").await.body;
    assert_eq!(read["apiVersion"], "example.com/v1");
}

/// A webhook on a port of its own: its URL, and its authority as `caBundle`.
async fn webhook(convert: fn(Value) -> Value) -> (String, String) {
    use axum::routing::post;
    use base64::Engine as _;
    let authority = component_base::pki::Ca::new("hooks").unwrap();
    let pair = authority.issue(&component_base::pki::Profile::server("hook", &["127.0.0.1"])).unwrap();
    let serving = component_base::tls::ServingCert::from_pair(&pair).unwrap();
    let tls = component_base::tls::server_config(serving, component_base::tls::ClientAuth::None).unwrap();
    let answer = move |body: String| async move {
        let review: Value = serde_json::from_str(&body).unwrap();
        let wanted = review["request"]["desiredAPIVersion"].clone();
        let objects: Vec<Value> = review["request"]["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|object| {
                let mut object = convert(object.clone());
                object["apiVersion"] = wanted.clone();
                object
            })
            .collect();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": {"uid": review["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": objects},
        })
        .to_string()
    };
    let router = axum::Router::new().route("/convert", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/convert", listener.local_addr().unwrap());
    let options = component_base::serving::Options::default();
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(component_base::serving::serve(listener, Some(tls), router, options, stop));
    let bundle = base64::engine::general_purpose::STANDARD.encode(authority.cert_pem());
    (url, bundle)
}

/// `spec.host` of v1 is `spec.address` of v2.
fn rename_field(mut object: Value) -> Value {
    let spec = object["spec"].as_object_mut().unwrap();
    if let Some(host) = spec.remove("host") {
        spec.insert("address".to_string(), host);
    } else if let Some(address) = spec.remove("address") {
        spec.insert("host".to_string(), address);
    }
    object["metadata"]["labels"] = json!({"converted": "true"});
    object["metadata"]["generation"] = 77.into();
    object
}

async fn converting(convert: fn(Value) -> Value) -> Fixture {
    let server = Fixture::new().await;
    let (url, bundle) = webhook(convert).await;
    let mut crd = two_versions();
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "clientConfig": {"url": url, "caBundle": bundle}, "conversionReviewVersions": ["v1"]}});
    establish(&server, &crd).await;
    server
}

#[tokio::test]
async fn a_webhook_converts() {
    let server = converting(rename_field).await;
    let foo =
        json!({"apiVersion": "example.com/v2", "kind": "Foo", "metadata": {"name": "x"}, "spec": {"address": "h"}});
    let made = server.post("/apis/example.com/v2/foos", &foo).await;
    assert_eq!((made.code, &made.body["spec"]), (201, &json!({"address": "h"})), "{}", made.text);
    let stored = server.get("/apis/example.com/v1/foos/x").await.body;
    assert_eq!(stored["spec"], json!({"host": "h"}));
    // Labels are the webhook's to change, the rest of the metadata is not.
    assert_eq!(stored["metadata"]["labels"], json!({"converted": "true"}));
    assert_eq!(stored["metadata"]["generation"], 1);
    assert_eq!(server.get("/apis/example.com/v2/foos").await.body["items"][0]["spec"], json!({"address": "h"}));
    let patch = json!({"spec": {"address": "i"}}).to_string();
    let patched = server.ask("PATCH", "/apis/example.com/v2/foos/x", "application/merge-patch+json", patch).await;
    assert_eq!((patched.code, &patched.body["spec"]), (200, &json!({"address": "i"})), "{}", patched.text);
    assert_eq!(server.get("/apis/example.com/v1/foos/x").await.body["spec"], json!({"host": "i"}));
}

#[tokio::test]
async fn what_a_webhook_may_not_change() {
    let server = converting(|mut object| {
        object["metadata"]["name"] = "other".into();
        object
    })
    .await;
    let foo = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "x"}, "spec": {}});
    assert_eq!(server.post("/apis/example.com/v1/foos", &foo).await.code, 201);
    let read = server.get("/apis/example.com/v2/foos/x").await;
    assert_eq!(
        (read.code, read.message()),
        (
            500,
            "conversion webhook for example.com/v1, Kind=Foo returned invalid object: must have the same name: x != other"
        )
    );
}

/// Each version has selectable fields of its own, whatever objects are stored as.
#[tokio::test]
async fn fields_are_those_of_the_version_asked_for() {
    let server = Fixture::new().await;
    let (url, bundle) = webhook(rename_field).await;
    let mut crd = two_versions();
    for (at, field) in ["host", "address"].into_iter().enumerate() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {field: {"type": "string"}}}}});
        crd["spec"]["versions"][at]["schema"]["openAPIV3Schema"] = schema;
        crd["spec"]["versions"][at]["selectableFields"] = json!([{"jsonPath": format!(".spec.{field}")}]);
    }
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "clientConfig": {"url": url, "caBundle": bundle}, "conversionReviewVersions": ["v1"]}});
    establish(&server, &crd).await;
    for (name, address) in [("x", "one"), ("y", "two")] {
        let foo = json!({
            "apiVersion": "example.com/v2", "kind": "Foo", "metadata": {"name": name}, "spec": {"address": address}});
        assert_eq!(server.post("/apis/example.com/v2/foos", &foo).await.code, 201);
    }
    let list = async |query: &str| -> (Vec<String>, String) {
        let list = server.get(&format!("/apis/example.com/{query}")).await.body;
        let names = list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap());
        (names.map(str::to_string).collect(), list["metadata"]["resourceVersion"].as_str().unwrap().to_string())
    };
    let (names, version) = list("v2/foos?fieldSelector=spec.address%3Done").await;
    assert_eq!(names, ["x"]);
    assert_eq!(list("v1/foos?fieldSelector=spec.host%3Dtwo").await.0, ["y"]);
    assert_eq!(list("v2/foos?fieldSelector=spec.address!%3Done,metadata.name%3Dy").await.0, ["y"]);
    assert_eq!(list("v2/foos?fieldSelector=spec.address%3Done,metadata.name%3Dy").await.0, Vec::<String>::new());
    assert_eq!(server.get("/apis/example.com/v2/foos?fieldSelector=spec.host%3Done").await.code, 400);
    for (name, address) in [("y", "three"), ("y", "one"), ("x", "four")] {
        let patch = json!({"spec": {"address": address}}).to_string();
        let path = format!("/apis/example.com/v2/foos/{name}");
        assert_eq!(server.ask("PATCH", &path, "application/merge-patch+json", patch).await.code, 200);
    }
    let watch =
        format!("v2/foos?watch=true&timeoutSeconds=1&fieldSelector=spec.address%3Done&resourceVersion={version}");
    let events = server.get(&format!("/apis/example.com/{watch}")).await.text;
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<(&str, &str, &str)> = events
        .iter()
        .map(|event| {
            let text = |value: &'static str| event.pointer(value).and_then(Value::as_str).unwrap();
            (text("/type"), text("/object/metadata/name"), text("/object/spec/address"))
        })
        .collect();
    assert_eq!(seen, [("ADDED", "y", "one"), ("DELETED", "x", "one")]);
}

/// Who owns a field in one version is asked in the other, in which it has another name.
#[tokio::test]
async fn ownership_goes_through_the_webhook() {
    let server = converting(|mut object| {
        let Some(spec) = object["spec"].as_object_mut() else { return object };
        for (from, to) in [("host", "address"), ("address", "host")] {
            if let Some(value) = spec.remove(from) {
                spec.insert(to.to_string(), value);
                break;
            }
        }
        object
    })
    .await;
    let apply = async |version: &str, spec: Value, query: &str| {
        let api_version = format!("example.com/{version}");
        let config = json!({"apiVersion": api_version, "kind": "Foo", "metadata": {"name": "x"}, "spec": spec});
        let path = format!("/apis/{api_version}/foos/x?fieldManager={query}");
        server.ask("PATCH", &path, "application/apply-patch+yaml", config.to_string()).await
    };
    assert_eq!(apply("v1", json!({"host": "h", "port": 1}), "one").await.code, 201);
    let same = apply("v2", json!({"address": "h"}), "two").await;
    assert_eq!(same.code, 200, "{}", same.text);
    let refused = apply("v2", json!({"address": "i"}), "three").await;
    let causes = &refused.body["details"]["causes"];
    assert_eq!(refused.code, 409, "{}", refused.text);
    assert_eq!((&causes[0]["field"], &causes[1]["field"]), (&json!(".spec.address"), &json!(".spec.host")));
    let forced = apply("v2", json!({"address": "i"}), "three&force=true").await;
    assert_eq!((forced.code, &forced.body["spec"]), (200, &json!({"address": "i", "port": 1})), "{}", forced.text);
    // The entries beside them, of `spec` itself, stay.
    let owners = |body: &Value| -> Vec<String> {
        let mut owners = Vec::new();
        for entry in body["metadata"]["managedFields"].as_array().unwrap() {
            let fields = entry["fieldsV1"]["f:spec"].as_object().unwrap().keys();
            owners.extend(fields.filter(|field| *field != ".").map(|field| format!("{} {field}", entry["manager"])));
        }
        owners.sort();
        owners
    };
    assert_eq!(owners(&forced.body), ["\"one\" f:port", "\"three\" f:address"], "{}", forced.text);
    // What nobody applies any more goes, under whatever name.
    let released = apply("v2", json!({}), "three").await;
    assert_eq!((released.code, &released.body["spec"]), (200, &json!({"port": 1})), "{}", released.text);
    // An update takes what it changes from whoever applied it in the other version.
    let patch = json!({"spec": {"port": 2}}).to_string();
    let patched = server
        .ask("PATCH", "/apis/example.com/v2/foos/x?fieldManager=four", "application/merge-patch+json", patch)
        .await;
    assert_eq!(owners(&patched.body), ["\"four\" f:port"], "{}", patched.text);
}
