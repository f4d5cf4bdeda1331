//! A small API service in this process: what a command line talks to in golden tests.
//!
//! It keeps objects by path, serves discovery out of the resource table and tables out of the
//! printers, and applies patches, so that a case shows what a user would see of a real server.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use api::printers;
use apimachinery::patch;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

/// Every object was made this long before the tests' fixed ages.
const CREATED: &str = "2020-01-01T00:00:00Z";

/// The objects, by path.
#[derive(Clone, Default)]
pub struct Fake {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Fake {
    /// A client of this service.
    pub fn client(&self) -> kube::Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Stores an object as a manifest describes it.
    pub fn put(&self, mut object: Value) {
        let resource = resource_of(&object);
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
        if resource.namespaced {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let path =
            format!("{}/{}", collection(resource, &namespace), object["metadata"]["name"].as_str().expect("a name"));
        object["metadata"]["creationTimestamp"] = json!(CREATED);
        object["metadata"]["uid"] = json!(format!("uid-of-{}", object["metadata"]["name"].as_str().expect("a name")));
        self.objects.lock().expect("not poisoned").insert(path, object);
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("a body in memory").to_bytes();
        let path = parts.uri.path().to_owned();
        let accept = parts.headers.get("accept").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let (code, value) = match path.as_str() {
            "/api" => (200, aggregated(true)),
            "/apis" => (200, aggregated(false)),
            _ => self.object(&parts.method, &path, parts.uri.query().unwrap_or(""), &accept, &parts.headers, &body),
        };
        Response::builder()
            .status(StatusCode::from_u16(code).expect("a code"))
            .header("content-type", "application/json")
            .body(Body::from(value.to_string().into_bytes()))
            .expect("a response")
    }

    fn object(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        accept: &str,
        headers: &http::HeaderMap,
        body: &[u8],
    ) -> (u16, Value) {
        let mut objects = self.objects.lock().expect("not poisoned");
        let dry_run = query.contains("dryRun=All");
        let (parent, name) = path.rsplit_once('/').expect("an absolute path");
        let scale = name == "scale";
        let key = if scale { parent.to_owned() } else { path.to_owned() };
        match *method {
            Method::GET => match objects.get(&key) {
                Some(object) if accept.contains("as=Table") => (200, table(std::slice::from_ref(object))),
                Some(object) => (200, object.clone()),
                None => match list(&objects, path, query) {
                    Some(items) if accept.contains("as=Table") => (200, table(&items)),
                    Some(items) => {
                        let kind = items.first().map_or("", |item| item["kind"].as_str().unwrap_or(""));
                        let api_version = items.first().map_or(json!("v1"), |item| item["apiVersion"].clone());
                        (
                            200,
                            json!({"kind": format!("{kind}List"), "apiVersion": api_version, "metadata": {"resourceVersion": "1"}, "items": items}),
                        )
                    }
                    None => not_found(path),
                },
            },
            Method::POST => {
                let mut object: Value = serde_json::from_slice(body).expect("JSON");
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap_or(""));
                if objects.contains_key(&path) {
                    let (resource, name) = described(&path);
                    return (409, status(409, "AlreadyExists", &format!("{resource} \"{name}\" already exists")));
                }
                object["metadata"]["creationTimestamp"] = json!(CREATED);
                object["metadata"]["uid"] = json!("new");
                if !dry_run {
                    objects.insert(path, object.clone());
                }
                (201, object)
            }
            Method::PATCH => {
                let Some(object) = objects.get(&key).cloned() else { return not_found(&key) };
                let change: Value = serde_json::from_slice(body).expect("JSON");
                let kind = headers["content-type"].to_str().expect("text");
                let mut changed = object;
                match kind {
                    "application/json-patch+json" => patch::json::apply(&mut changed, &change).expect("fits"),
                    "application/strategic-merge-patch+json" => {
                        let resource = resource_of(&changed);
                        let ty = resource.type_ref().expect("a built-in type");
                        patch::strategic::apply(&mut changed, change, ty).expect("fits");
                    }
                    _ => patch::merge::apply(&mut changed, change),
                }
                if !dry_run {
                    objects.insert(key, changed.clone());
                }
                (200, changed)
            }
            Method::DELETE => match if dry_run { objects.get(&key).cloned() } else { objects.remove(&key) } {
                Some(object) => (
                    200,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "details": {"uid": object["metadata"]["uid"]}}),
                ),
                None => not_found(&key),
            },
            _ => (405, status(405, "MethodNotAllowed", "not here")),
        }
    }
}

fn resource_of(object: &Value) -> &'static api::Resource {
    let api_version = object["apiVersion"].as_str().expect("an apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    api::table()
        .find_resource_by_kind(group, version, object["kind"].as_str().expect("a kind"))
        .expect("a built-in kind")
}

fn collection(resource: &api::Resource, namespace: &str) -> String {
    let root = if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let scope = if resource.namespaced { format!("/namespaces/{namespace}") } else { String::new() };
    format!("{root}/{}{scope}/{}", resource.version, resource.plural)
}

/// The objects of a collection, of one namespace or of all; None when the path is no collection.
fn list(objects: &BTreeMap<String, Value>, path: &str, query: &str) -> Option<Vec<Value>> {
    let last = path.rsplit('/').next()?;
    if !api::table().resources().iter().any(|resource| resource.plural == last) {
        return None;
    }
    let parameters: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let selector =
        apimachinery::labels::Selector::parse(parameters.get("labelSelector").map_or("", String::as_str)).ok()?;
    let name = parameters.get("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name="));
    let everywhere = !path.contains("/namespaces/");
    let found = objects.iter().filter(|(key, object)| {
        let (parent, _) = key.rsplit_once('/').expect("a path");
        let here = if everywhere {
            let (root, _) = path.rsplit_once('/').expect("a path");
            key.starts_with(&format!("{root}/")) && parent.ends_with(&format!("/{last}"))
        } else {
            parent == path
        };
        let none = serde_json::Map::new();
        let labels = object["metadata"]["labels"].as_object().unwrap_or(&none);
        here && selector.matches(labels) && name.is_none_or(|name| object["metadata"]["name"] == name)
    });
    Some(found.map(|(_, object)| object.clone()).collect())
}

/// Ages are measured to a fixed day after everything was made.
fn table(items: &[Value]) -> Value {
    let now = "2020-01-04T04:00:00Z".parse().expect("a time");
    let printer = items.first().map_or(&printers::DEFAULT, |item| {
        let resource = resource_of(item);
        printers::find(&resource.group, &resource.plural)
    });
    let columns: Vec<Value> = printer.columns.iter().map(|column| column.to_value(|_, _| None)).collect();
    let rows: Vec<Value> = items
        .iter()
        .map(|item| json!({"cells": (printer.row)(item, now), "object": {"kind": "PartialObjectMetadata", "metadata": item["metadata"]}}))
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows})
}

fn described(path: &str) -> (String, &str) {
    let parts: Vec<&str> = path.split('/').collect();
    let resource = parts[parts.len() - 2];
    let group = if parts[1] == "apis" { format!(".{}", parts[2]) } else { String::new() };
    (format!("{resource}{group}"), parts[parts.len() - 1])
}

fn not_found(path: &str) -> (u16, Value) {
    let (resource, name) = described(path);
    (404, status(404, "NotFound", &format!("{resource} \"{name}\" not found")))
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

/// Aggregated discovery of the resources that are on by default.
fn aggregated(core: bool) -> Value {
    type Versions = Vec<(String, Vec<Value>)>;
    let mut groups: Vec<(String, Versions)> = Vec::new();
    for resource in api::table().resources().iter().filter(|r| r.enabled_by_default && r.group.is_empty() == core) {
        let entry = json!({
            "resource": resource.plural, "singularResource": resource.singular, "verbs": resource.verbs,
            "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
            "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
            "shortNames": resource.short_names, "categories": resource.categories,
        });
        let group = match groups.iter_mut().position(|(name, _)| *name == resource.group) {
            Some(at) => &mut groups[at],
            None => {
                groups.push((resource.group.to_string(), Vec::new()));
                groups.last_mut().expect("just pushed")
            }
        };
        match group.1.iter_mut().find(|(version, _)| *version == resource.version) {
            Some((_, entries)) => entries.push(entry),
            None => group.1.push((resource.version.to_string(), vec![entry])),
        }
    }
    let items: Vec<Value> = groups
        .into_iter()
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|(version, resources)| json!({"version": version, "resources": resources, "freshness": "Current"}))
                .collect();
            json!({"metadata": {"name": name}, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

/// A sink that can be read back.
#[derive(Clone, Default)]
pub struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    /// What was written.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
