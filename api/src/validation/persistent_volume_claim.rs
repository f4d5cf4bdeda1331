//! PersistentVolumeClaim, also as a template in pods and StatefulSets.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use serde_json::Value;

use super::checks::{
    annotations, dns1123_subdomain, label_selector, labels, messages, name_is_label, name_is_subdomain,
    non_negative_quantity, quantity, semantically_equal,
};
use super::object_meta;
use super::read::Read;

pub(super) const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(super) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

pub(super) fn create(claim: &Value, errors: &mut ErrorList) {
    object_meta::create(claim, true, name_is_subdomain, errors);
    spec(&claim["spec"], &Path::new("spec"), errors);
}

/// A template within a pod's volume.
pub(super) fn template(template: &Value, path: &Path, errors: &mut ErrorList) {
    let (meta, at) = (&template["metadata"], path.child("metadata"));
    annotations(&meta["annotations"], &at.child("annotations"), errors);
    labels(&meta["labels"], &at.child("labels"), errors);
    for (name, _) in template.entries("metadata").filter(|(n, v)| {
        !matches!(n.as_str(), "labels" | "annotations" | "creationTimestamp") && **v != Value::from("")
    }) {
        errors.push(field::forbidden(&at.child(name.clone()), "cannot be set"));
    }
    spec(&template["spec"], &path.child("spec"), errors);
}

/// Modes of access: known ones, and the exclusive one alone.
pub(super) fn access_modes(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("accessModes");
    for mode in spec.texts("accessModes").filter(|m| !ACCESS_MODES.contains(m)) {
        errors.push(field::not_supported(&path, mode, ACCESS_MODES));
    }
    let exclusive = spec.texts("accessModes").any(|m| m == "ReadWriteOncePod");
    let shared = spec.texts("accessModes").any(|m| m != "ReadWriteOncePod" && ACCESS_MODES.contains(&m));
    if exclusive && shared {
        errors.push(field::forbidden(&path, "may not use ReadWriteOncePod with other access modes"));
    }
}

pub(super) fn spec(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if spec.list("accessModes").is_empty() {
        errors.push(field::required(&path.child("accessModes"), "at least 1 access mode is required"));
    }
    label_selector(&spec["selector"], &path.child("selector"), errors);
    access_modes(spec, path, errors);
    let at = path.child("resources").key("storage");
    match spec["resources"]["requests"].set("storage") {
        None => errors.push(field::required(&at, "")),
        Some(size) if quantity(size).sign() <= 0 => {
            errors.push(field::invalid(&at, quantity(size).to_string(), "must be greater than zero"));
        }
        Some(size) => non_negative_quantity(size, &at, errors),
    }
    for name in ["storageClassName", "volumeAttributesClassName"] {
        if name == "volumeAttributesClassName" {
            modes_and_sources(spec, path, errors);
        }
        let class = spec.text(name);
        if !class.is_empty() {
            messages(name_is_subdomain(class, false), class, &path.child(name), errors);
        }
    }
}

fn modes_and_sources(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(mode) = spec.set("volumeMode").and_then(Value::as_str).filter(|m| !VOLUME_MODES.contains(m)) {
        errors.push(field::not_supported(&path.child("volumeMode"), mode, VOLUME_MODES));
    }
    for name in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.set(name) {
            data_source(source, &path.child(name), errors);
        }
    }
    let (Some(source), Some(reference)) = (spec.set("dataSource"), spec.set("dataSourceRef")) else { return };
    // Upstream shows the path itself as the value, which Go writes as an empty object.
    let shown = || BadValue::Raw("{}".into());
    if !reference.text("namespace").is_empty() {
        errors.push(field::invalid(path, shown(), "may not be specified when dataSourceRef.namespace is specified"));
    } else if ["apiGroup", "kind", "name"].iter().any(|f| source.set(f) != reference.set(f)) {
        errors.push(field::invalid(path, shown(), "must match dataSourceRef"));
    }
}

fn data_source(source: &Value, path: &Path, errors: &mut ErrorList) {
    for name in ["name", "kind"] {
        if source.text(name).is_empty() {
            errors.push(field::required(&path.child(name), ""));
        }
    }
    let (group, kind) = (source.text("apiGroup"), source.text("kind"));
    if group.is_empty() {
        if kind != "PersistentVolumeClaim" {
            let message = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(field::invalid(path, kind, message));
        }
    } else {
        dns1123_subdomain(group, &path.child("apiGroup"), errors);
    }
    let namespace = source.text("namespace");
    if !namespace.is_empty() {
        messages(name_is_label(namespace, false), namespace, &path.child("namespace"), errors);
    }
}

/// What may change: the requested size of bound claims, and what binding itself sets.
pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    create(new, errors);
    let path = Path::new("spec");
    let mut munged = new["spec"].clone();
    let mut before = old["spec"].clone();
    if before.text("volumeName").is_empty() {
        before["volumeName"] = munged["volumeName"].clone();
    }
    // A class may be filled in by the controller where there was none.
    if before.set("storageClassName").is_none() && munged.set("storageClassName").is_some() {
        before["storageClassName"] = munged["storageClassName"].clone();
    }
    if new["status"].text("phase") == "Bound" {
        munged["resources"]["requests"]["storage"] = before["resources"]["requests"]["storage"].clone();
        munged["volumeAttributesClassName"] = before["volumeAttributesClassName"].clone();
    }
    if !semantically_equal(&munged, &before) {
        let message = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n";
        errors.push(field::forbidden(&path, message));
    }
    let size = |claim: &Value| quantity(&claim["spec"]["resources"]["requests"]["storage"]);
    if size(new) < size(old) && size(new) <= quantity(&old["status"]["capacity"]["storage"]) {
        let path = path.children(&["resources", "requests", "storage"]);
        errors.push(field::forbidden(&path, "field can not be less than status.capacity"));
    }
    super::checks::immutable(&new["spec"]["volumeMode"], &old["spec"]["volumeMode"], &Path::new("volumeMode"), errors);
}
