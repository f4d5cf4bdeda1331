//! Environment of a container, and references to fields and resources.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::super::checks::{dns1123_label, messages, name_is_subdomain, qualified_name, quantity};
use super::volumes::no_backsteps;
use crate::read::Read;

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SIZES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn env(variables: &[Value], path: &Path, errors: &mut ErrorList) {
    for (i, variable) in variables.iter().enumerate() {
        let path = path.index(i);
        let name = variable.text("name");
        if name.is_empty() {
            errors.push(field::required(&path.child("name"), ""));
        } else {
            messages(names::relaxed_env_var_name(name), name, &path.child("name"), errors);
        }
        if let Some(from) = variable.set("valueFrom") {
            value_from(from, !variable.text("value").is_empty(), &path.child("valueFrom"), errors);
        }
    }
}

fn value_from(from: &Value, has_value: bool, path: &Path, errors: &mut ErrorList) {
    let mut sources = 0;
    if let Some(reference) = from.set("fieldRef") {
        sources += 1;
        field_ref(reference, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(reference) = from.set("resourceFieldRef") {
        sources += 1;
        resource_field_ref(reference, false, &path.child("resourceFieldRef"), errors);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(reference) = from.set(name) {
            sources += 1;
            key_ref(reference, &path.child(name), errors);
        }
    }
    if let Some(reference) = from.set("fileKeyRef") {
        sources += 1;
        file_key_ref(reference, &path.child("fileKeyRef"), errors);
    }
    if sources == 0 {
        errors.push(field::invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ));
    } else if has_value {
        errors.push(field::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errors.push(field::invalid(path, "", "may not have more than one field specified at a time"));
    }
}

fn key_ref(reference: &Value, path: &Path, errors: &mut ErrorList) {
    let (name, key) = (reference.text("name"), reference.text("key"));
    messages(name_is_subdomain(name, false), name, &path.child("name"), errors);
    if key.is_empty() {
        errors.push(field::required(&path.child("key"), ""));
    } else {
        messages(names::config_map_key(key), key, &path.child("key"), errors);
    }
}

fn file_key_ref(reference: &Value, path: &Path, errors: &mut ErrorList) {
    let (key, volume, file) = (reference.text("key"), reference.text("volumeName"), reference.text("path"));
    if key.is_empty() {
        errors.push(field::required(&path.child("key"), ""));
    } else {
        messages(names::relaxed_env_var_name(key), key, &path.child("key"), errors);
    }
    if volume.is_empty() {
        errors.push(field::required(&path.child("volumeName"), ""));
    } else {
        dns1123_label(volume, &path.child("volumeName"), errors);
    }
    if file.is_empty() {
        errors.push(field::required(&path.child("path"), ""));
    } else {
        no_backsteps(file, &path.child("path"), errors);
    }
}

/// Fields that `v1` field selectors of the downward API know.
fn known_field(field: &str) -> bool {
    matches!(
        field,
        "metadata.annotations"
            | "metadata.labels"
            | "metadata.name"
            | "metadata.namespace"
            | "metadata.uid"
            | "spec.nodeName"
            | "spec.restartPolicy"
            | "spec.serviceAccountName"
            | "spec.schedulerName"
            | "status.phase"
            | "status.hostIP"
            | "status.hostIPs"
            | "status.podIP"
            | "status.podIPs"
            // This is for backward compatibility with old v1 clients.
            | "spec.host"
    )
}

pub(super) fn field_ref(reference: &Value, supported: &[&str], path: &Path, errors: &mut ErrorList) {
    let (version, field_path) = (reference.text("apiVersion"), reference.text("fieldPath"));
    if version.is_empty() {
        errors.push(field::required(&path.child("apiVersion"), ""));
        return;
    }
    if field_path.is_empty() {
        errors.push(field::required(&path.child("fieldPath"), ""));
        return;
    }
    let conversion_error = |text: String| {
        field::invalid(&path.child("fieldPath"), field_path, format!("error converting fieldPath: {text}"))
    };
    if version != "v1" {
        errors.push(conversion_error(format!("unsupported pod version: {version}")));
        return;
    }
    let subscripted = field_path.strip_suffix("']").and_then(|f| f.split_once("['")).filter(|(f, _)| !f.is_empty());
    if let Some((base, subscript)) = subscripted {
        match base {
            "metadata.annotations" => qualified_name(&subscript.to_lowercase(), path, errors),
            "metadata.labels" => qualified_name(subscript, path, errors),
            _ => errors.push(conversion_error(format!("field label does not support subscript: {field_path}"))),
        }
        return;
    }
    if !known_field(field_path) {
        errors.push(conversion_error(format!("field label not supported: {field_path}")));
        return;
    }
    let converted = if field_path == "spec.host" { "spec.nodeName" } else { field_path };
    if !supported.contains(&converted) {
        errors.push(field::not_supported(&path.child("fieldPath"), converted, supported));
    }
}

pub(super) fn resource_field_ref(reference: &Value, volume: bool, path: &Path, errors: &mut ErrorList) {
    let resource = reference.text("resource");
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if volume && reference.text("containerName").is_empty() {
        errors.push(field::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(field::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.push(field::not_supported(&path.child("resource"), resource, RESOURCES));
    }
    let divisor = quantity(&reference["divisor"]);
    if divisor.is_zero() {
        return;
    }
    let text = divisor.to_string();
    let sizes = SIZES.contains(&text.as_str());
    let complaint = match resource {
        "limits.cpu" | "requests.cpu" if !matches!(text.as_str(), "1m" | "1") => {
            "only divisor's values 1m and 1 are supported with the cpu resource"
        }
        "limits.memory" | "requests.memory" if !sizes => {
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource"
        }
        "limits.ephemeral-storage" | "requests.ephemeral-storage" if !sizes => {
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral storage resource"
        }
        _ if huge && !sizes => {
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource"
        }
        _ => return,
    };
    errors.push(field::invalid(&path.child("divisor"), resource, complaint));
}

pub(super) fn env_from(sources: &[Value], path: &Path, errors: &mut ErrorList) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            messages(names::relaxed_env_var_name(prefix), prefix, &at.child("prefix"), errors);
        }
        let mut given = 0;
        for name in ["configMapRef", "secretRef"] {
            let Some(reference) = source.set(name) else { continue };
            given += 1;
            let path = at.child(name).child("name");
            let name = reference.text("name");
            if name.is_empty() {
                errors.push(field::required(&path, ""));
            } else {
                messages(name_is_subdomain(name, true), name, &path, errors);
            }
        }
        if given == 0 {
            errors.push(field::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"));
        } else if given > 1 {
            errors.push(field::invalid(path, "", "may not have more than one field specified at a time"));
        }
    }
}
