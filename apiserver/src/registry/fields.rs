//! Selectable fields: how the value of each label that field selectors may name is taken from an
//! object, as upstream's `ToSelectableFields` of each kind does.

use std::sync::Arc;

use api::Resource;
use serde_json::Value;

use crate::cache::SelectableField;

/// The fields of a stored resource, besides name and namespace.
pub fn selectable(resource: &Resource) -> Vec<SelectableField> {
    resource.selectable_fields.iter().map(|label| field(&resource.plural, label)).collect()
}

fn field(plural: &str, label: &str) -> SelectableField {
    match (plural, label) {
        ("pods", "spec.nodeName") => SelectableField::at_path(label).indexed(),
        ("pods", "spec.hostNetwork") => with_default(label, "false"),
        ("pods", "status.podIP") => SelectableField::at_path(label),
        ("pods", "status.podIPs") => custom(label, |object| {
            let ips = object.pointer("/status/podIPs").and_then(Value::as_array);
            ips.into_iter().flatten().filter_map(|ip| ip.get("ip")?.as_str()).collect::<Vec<_>>().join(",")
        }),
        ("nodes", "spec.unschedulable") => with_default(label, "false"),
        ("jobs", "status.successful") => custom(label, |object| number(object, "/status/succeeded")),
        ("replicationcontrollers", "status.replicas") => custom(label, |object| number(object, "/status/replicas")),
        ("events", "source") => custom(label, |object| {
            let source = object.pointer("/source/component").and_then(Value::as_str).unwrap_or_default();
            let reporting = object.pointer("/reportingComponent").and_then(Value::as_str);
            if source.is_empty() { reporting.unwrap_or_default() } else { source }.to_string()
        }),
        _ => SelectableField::at_path(label),
    }
}

fn number(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default().to_string()
}

fn with_default(label: &str, default: &'static str) -> SelectableField {
    let inner = SelectableField::at_path(label);
    let extract = inner.extract.clone();
    SelectableField {
        extract: Arc::new(move |object| {
            let value = extract(object);
            if value.is_empty() { default.to_string() } else { value }
        }),
        ..inner
    }
}

fn custom(label: &str, extract: impl Fn(&Value) -> String + Send + Sync + 'static) -> SelectableField {
    SelectableField { label: label.to_string(), extract: Arc::new(extract), indexed: false }
}

/// What a label of one version's selectors is called in the storage version.
pub fn storage_label<'a>(group: &str, plural: &str, label: &'a str) -> &'a str {
    if group != "events.k8s.io" || plural != "events" {
        return label;
    }
    match label {
        "regarding.kind" => "involvedObject.kind",
        "regarding.namespace" => "involvedObject.namespace",
        "regarding.name" => "involvedObject.name",
        "regarding.uid" => "involvedObject.uid",
        "regarding.apiVersion" => "involvedObject.apiVersion",
        "regarding.resourceVersion" => "involvedObject.resourceVersion",
        "regarding.fieldPath" => "involvedObject.fieldPath",
        "reportingController" => "reportingComponent",
        other => other,
    }
}
