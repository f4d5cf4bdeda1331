//! PersistentVolumeClaim, also as a template in pods and StatefulSets.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use serde_json::Value;

use super::checks::{
    IMMUTABLE, annotations, dns1123_subdomain, immutable, label_selector, labels, messages, name_is_label,
    name_is_subdomain, non_negative_quantity, positive_quantity, qualified_name, quantity, semantically_equal,
};
use super::persistent_volume::basic_resource;
use super::pod::resources::is_native;
use super::{diff, object_meta};
use crate::read::Read;

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
    only_labels_and_annotations(meta, &at, errors);
    spec(&template["spec"], &path.child("spec"), errors);
}

/// `ValidateTemplateObjectMeta`, beyond the labels and annotations themselves.
pub(super) fn only_labels_and_annotations(meta: &Value, path: &Path, errors: &mut ErrorList) {
    let others = meta.as_object().into_iter().flatten().filter(|(name, value)| {
        !matches!(name.as_str(), "labels" | "annotations" | "creationTimestamp") && value.as_str() != Some("")
    });
    for (name, _) in others {
        errors.push(field::forbidden(&path.child(name.clone()), "cannot be set"));
    }
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
        Some(size) => positive_quantity(size, &at, errors),
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
    create_as_update(new, old, errors);
    let path = Path::new("spec");
    let (mut munged, mut before) = (new["spec"].clone(), old["spec"].clone());
    if before.text("volumeName").is_empty() {
        take(&mut before, &munged, "volumeName");
    }
    class(&mut munged, &mut before, new, old, errors);
    if new["status"].text("phase") == "Bound" {
        let size = before["resources"]["requests"]["storage"].clone();
        if let Some(requests) = munged.pointer_mut("/resources/requests").and_then(Value::as_object_mut) {
            requests.insert("storage".into(), size);
        }
        take(&mut munged, &before, ATTRIBUTES);
    }
    if !semantically_equal(&munged, &before) {
        let diff = diff::of("PersistentVolumeClaimSpec", &before, &munged);
        let message =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(field::forbidden(&path, format!("{message}\n{diff}")));
    }
    let size = |claim: &Value| quantity(&claim["spec"]["resources"]["requests"]["storage"]);
    if size(new) < size(old) && size(new) <= quantity(&old["status"]["capacity"]["storage"]) {
        let path = path.children(&["resources", "requests", "storage"]);
        errors.push(field::forbidden(&path, "field can not be less than status.capacity"));
    }
    immutable(&new["spec"]["volumeMode"], &old["spec"]["volumeMode"], &Path::new("volumeMode"), errors);
    // A class of attributes that was applied once may change, not go.
    if new["spec"][ATTRIBUTES] != old["spec"][ATTRIBUTES]
        && old["status"].set("currentVolumeAttributesClassName").is_some()
    {
        let to = match new["spec"].set(ATTRIBUTES).and_then(Value::as_str) {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return,
        };
        let message = format!("update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.push(field::forbidden(&path.child(ATTRIBUTES), message));
    }
}

const ATTRIBUTES: &str = "volumeAttributesClassName";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn take(to: &mut Value, from: &Value, name: &str) {
    to[name] = from[name].clone();
}

/// Rules that an update need not follow if what was there did not.
fn create_as_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let start = errors.len();
    create(new, errors);
    if errors.len() == start {
        return;
    }
    let mut before = ErrorList::new();
    label_selector(&old["spec"]["selector"], &Path::new("spec").child("selector"), &mut before);
    let selector = !before.is_empty();
    let sources = ["dataSource", "dataSourceRef"].iter().any(|s| old["spec"][*s].set("apiGroup").is_some());
    let tolerated = |error: &field::FieldError| {
        sources && error.field.ends_with(".apiGroup")
            || selector && error.field.contains(".selector.match") && error.field.contains(".values")
    };
    let checked = errors.0.split_off(start);
    errors.extend(checked.into_iter().filter(|error| !tolerated(error)));
}

/// A class may be filled in where there was none, or move from the annotation to the field.
fn class(munged: &mut Value, before: &mut Value, new: &Value, old: &Value, errors: &mut ErrorList) {
    const CLASS: &str = "storageClassName";
    let annotation = |claim: &Value| claim["metadata"]["annotations"].set(BETA_CLASS).cloned();
    let (was, is) = (annotation(old), annotation(new));
    let set = munged.set(CLASS).cloned();
    let unset = before.set(CLASS).is_none();
    if unset && was.is_some() && set == was && (is.is_none() || is == was) {
        munged[CLASS] = Value::Null;
        return;
    }
    if was != is {
        let path = Path::new("metadata").child("annotations").child(BETA_CLASS);
        errors.push(field::invalid(&path, is.unwrap_or_else(|| "".into()), IMMUTABLE));
    }
    if unset && set.is_some() && (was.is_none() || was == set) {
        take(munged, before, CLASS);
    }
}

const RESIZE_STATUSES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    if new["metadata"].text("resourceVersion").is_empty() {
        errors.push(field::required(&Path::new("resourceVersion"), ""));
    }
    if new["spec"].list("accessModes").is_empty() {
        errors.push(field::required(&Path::new("Spec").child("accessModes"), ""));
    }
    let (status, path) = (&new["status"], Path::new("status"));
    for (name, value) in status.entries("capacity") {
        basic_resource(value, &path.child("capacity").key(name.clone()), errors);
    }
    for (name, value) in status.entries("allocatedResourceStatuses") {
        let path = path.child("allocatedResourceStatuses");
        resource_key(name, &path, errors);
        if !value.as_str().is_some_and(|status| RESIZE_STATUSES.contains(&status)) {
            errors.push(field::not_supported(&path, name, RESIZE_STATUSES));
        }
    }
    for (name, value) in status.entries("allocatedResources") {
        let path = path.child("allocatedResources");
        if resource_key(name, &path, errors) {
            let (path, before) = (path.key(name.clone()), errors.len());
            basic_resource(value, &path, errors);
            if errors.len() == before {
                non_negative_quantity(value, &path, errors);
            }
        }
    }
}

/// Storage, or a resource of somebody else's.
fn resource_key(name: &str, path: &Path, errors: &mut ErrorList) -> bool {
    let before = errors.len();
    qualified_name(name, path, errors);
    if errors.len() == before && is_native(name) && name != "storage" {
        errors.push(field::not_supported(path, name, &["storage"]));
    }
    errors.len() == before
}
