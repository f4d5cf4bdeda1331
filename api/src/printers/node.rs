//! Nodes and RuntimeClasses.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, flag, list, text};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status").about("The status of the node"),
    Column::string("Roles").about("The roles of the node"),
    AGE,
    Column::string("Version").of("io.k8s.api.core.v1.NodeSystemInfo", "kubeletVersion"),
    Column::string("Internal-IP").of("io.k8s.api.core.v1.NodeStatus", "addresses").wide(),
    Column::string("External-IP").of("io.k8s.api.core.v1.NodeStatus", "addresses").wide(),
    Column::string("OS-Image").of("io.k8s.api.core.v1.NodeSystemInfo", "osImage").wide(),
    Column::string("Kernel-Version").of("io.k8s.api.core.v1.NodeSystemInfo", "kernelVersion").wide(),
    Column::string("Container-Runtime").of("io.k8s.api.core.v1.NodeSystemInfo", "containerRuntimeVersion").wide(),
];
pub(super) const RUNTIME_CLASS_COLUMNS: &[Column] = &[NAME, Column::string("Handler"), AGE];
const ROLE_LABEL_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) fn row(node: &Value, now: Timestamp) -> Vec<Value> {
    // The last condition of a type wins, as in upstream's map.
    let ready = list(node, &["status", "conditions"]).iter().rev().find(|c| text(c, &["type"]) == "Ready");
    let mut status = match ready.map(|condition| text(condition, &["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if flag(node, &["spec", "unschedulable"]) {
        status += ",SchedulingDisabled";
    }
    let roles = roles(node);
    let info = |field| text(node, &["status", "nodeInfo", field]);
    let mut kernel = cells::or(info("kernelVersion"), "<unknown>").to_owned();
    if !info("architecture").is_empty() {
        kernel = format!("{kernel} ({})", info("architecture"));
    }
    vec![
        json!(cells::name(node)),
        json!(status),
        json!(cells::or(&roles, "<none>")),
        cells::age(node, now),
        json!(info("kubeletVersion")),
        json!(address(node, "InternalIP")),
        json!(address(node, "ExternalIP")),
        json!(cells::or(info("osImage"), "<unknown>")),
        json!(kernel),
        json!(cells::or(info("containerRuntimeVersion"), "<unknown>")),
    ]
}

/// Roles from both label conventions, sorted, joined by commas.
pub fn roles(node: &Value) -> String {
    let Some(Value::Object(labels)) = cells::at(node, &["metadata", "labels"]) else {
        return String::new();
    };
    let roles: BTreeSet<&str> = labels
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_LABEL_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address<'a>(node: &'a Value, r#type: &str) -> &'a str {
    list(node, &["status", "addresses"])
        .iter()
        .find(|address| text(address, &["type"]) == r#type)
        .map_or("<none>", |address| text(address, &["address"]))
}

pub(super) fn runtime_class_row(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(cells::name(class)), json!(text(class, &["handler"])), cells::age(class, now)]
}
