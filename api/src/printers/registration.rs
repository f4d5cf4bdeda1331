//! The API machinery's own kinds: APIService, ComponentStatus, StorageVersion and its migration.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, list, opt_text, text, with_more};
use super::{AGE, Column, META, NAME};

pub(super) const API_SERVICE_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Service").about("The reference to the service that hosts this API endpoint."),
    Column::string("Available").about("Whether this service is available."),
    AGE,
];

pub(super) const COMPONENT_STATUS_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status").about("Status of the component conditions"),
    Column::string("Message").about("Message of the component conditions"),
    Column::string("Error").about("Error of the component conditions"),
];
pub(super) const STORAGE_VERSION_COLUMNS: &[Column] = &[
    NAME,
    Column::string("CommonEncodingVersion")
        .of("io.k8s.api.apiserverinternal.v1alpha1.StorageVersionStatus", "commonEncodingVersion"),
    Column::string("StorageVersions")
        .of("io.k8s.api.apiserverinternal.v1alpha1.StorageVersionStatus", "storageVersions"),
    AGE,
];
pub(super) const MIGRATION_COLUMNS: &[Column] = &[
    Column::string("Name").of(META, "name"),
    Column::string("Resource").about("GroupResource to migrate"),
    Column::string("Status").about("Status of the migration"),
];
pub(super) fn api_service_row(service: &Value, now: Timestamp) -> Vec<Value> {
    let backend = at(service, &["spec", "service"]).map_or_else(
        || "Local".to_owned(),
        |backend| format!("{}/{}", text(backend, &["namespace"]), text(backend, &["name"])),
    );
    let available = cells::condition(service, &["status", "conditions"], "Available").map_or_else(
        || "Unknown".to_owned(),
        |condition| match (text(condition, &["status"]), text(condition, &["reason"])) {
            (status @ "True", _) | (status, "") => status.to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        },
    );
    vec![json!(cells::name(service)), json!(backend), json!(available), cells::age(service, now)]
}

pub(super) fn component_status_row(component: &Value, _now: Timestamp) -> Vec<Value> {
    let healthy = cells::condition(component, &["conditions"], "Healthy");
    let status = match healthy.map(|condition| text(condition, &["status"])) {
        Some("True") => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let healthy = healthy.unwrap_or(&Value::Null);
    vec![
        json!(cells::name(component)),
        json!(status),
        json!(text(healthy, &["message"])),
        json!(text(healthy, &["error"])),
    ]
}

pub(super) fn storage_version_row(version: &Value, now: Timestamp) -> Vec<Value> {
    const MAX: usize = 3;
    let servers = list(version, &["status", "storageVersions"]);
    let shown: Vec<String> = servers
        .iter()
        .take(MAX)
        .map(|server| format!("{}={}", text(server, &["apiServerID"]), text(server, &["encodingVersion"])))
        .collect();
    vec![
        json!(cells::name(version)),
        json!(opt_text(version, &["status", "commonEncodingVersion"]).unwrap_or("<unset>")),
        json!(with_more(&shown, servers.len(), MAX)),
        cells::age(version, now),
    ]
}

pub(super) fn migration_row(migration: &Value, _now: Timestamp) -> Vec<Value> {
    let (group, resource) =
        (text(migration, &["spec", "resource", "group"]), text(migration, &["spec", "resource", "resource"]));
    let target = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let status = list(migration, &["status", "conditions"])
        .iter()
        .rev()
        .filter(|condition| text(condition, &["status"]) == "True")
        .map(|condition| text(condition, &["type"]))
        .find(|state| matches!(*state, "Running" | "Failed" | "Succeeded"))
        .unwrap_or("Unknown");
    vec![json!(cells::name(migration)), json!(target), json!(status)]
}
