//! ObjectMeta, of every kind.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gotext;
use apimachinery::names::{self, Messages};
use serde_json::Value;

use super::checks::{annotations, immutable, labels, messages, name_is_label, non_negative};
use crate::read::Read;

/// Checks a name, or the part of it that `generateName` gives.
pub(super) type NameCheck = fn(&str, bool) -> Messages;

/// `ValidateObjectMeta` of most kinds: finalizers are Kubernetes' own or have a domain.
pub(super) fn create(object: &Value, namespaced: bool, check: NameCheck, errors: &mut ErrorList) {
    generic(object, namespaced, check, errors);
    kube_finalizers(&object["metadata"], errors);
}

/// As [`create`], of kinds whose name counts only once it was generated.
pub(super) fn generated(object: &Value, namespaced: bool, check: NameCheck, errors: &mut ErrorList) {
    let (meta, path) = (&object["metadata"], Path::new("metadata"));
    name(meta, check, &path, errors);
    common(meta, namespaced, &path, errors);
    kube_finalizers(meta, errors);
}

fn kube_finalizers(meta: &Value, errors: &mut ErrorList) {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    for (i, finalizer) in meta.texts("finalizers").enumerate() {
        if !finalizer.contains('/') && !STANDARD.contains(&finalizer) {
            let path = Path::new("metadata").child("finalizers").index(i);
            let message = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(field::invalid(&path, finalizer, message));
        }
    }
}

/// `ValidateObjectMeta` of the kinds that come from elsewhere: admission registration, coordination, nodes'
/// runtime classes, API services and custom resources.
pub(super) fn generic(object: &Value, namespaced: bool, check: NameCheck, errors: &mut ErrorList) {
    generic_at(&object["metadata"], namespaced, check, &Path::new("metadata"), errors);
}

/// As [`generic`], of metadata anywhere.
pub(super) fn generic_at(meta: &Value, namespaced: bool, check: NameCheck, path: &Path, errors: &mut ErrorList) {
    let generate = meta.text("generateName");
    if !generate.is_empty() {
        messages(check(generate, true), generate, &path.child("generateName"), errors);
    }
    name(meta, check, path, errors);
    common(meta, namespaced, path, errors);
}

fn name(meta: &Value, check: NameCheck, path: &Path, errors: &mut ErrorList) {
    let name = meta.text("name");
    if name.is_empty() {
        errors.push(field::required(&path.child("name"), "name or generateName is required"));
    } else {
        messages(check(name, false), name, &path.child("name"), errors);
    }
}

fn common(meta: &Value, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    let namespace = meta.text("namespace");
    if namespaced {
        if namespace.is_empty() {
            errors.push(field::required(&path.child("namespace"), ""));
        } else {
            messages(name_is_label(namespace, false), namespace, &path.child("namespace"), errors);
        }
    } else if !namespace.is_empty() {
        errors.push(field::forbidden(&path.child("namespace"), "not allowed on this type"));
    }
    non_negative(meta.num("generation"), &path.child("generation"), errors);
    labels(&meta["labels"], &path.child("labels"), errors);
    annotations(&meta["annotations"], &path.child("annotations"), errors);
    owner_references(meta, &path.child("ownerReferences"), errors);
    finalizers(meta, &path.child("finalizers"), errors);
    managed_fields(meta, &path.child("managedFields"), errors);
}

/// `ValidateObjectMetaUpdate` of most kinds.
pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    generic_update(new, old, errors);
    kube_finalizers(&new["metadata"], errors);
}

/// `ValidateObjectMetaUpdate` of the kinds that come from elsewhere.
pub(super) fn generic_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("metadata");
    let (new, old) = (&new["metadata"], &old["metadata"]);
    if old.set("deletionTimestamp").is_some() {
        let mut extra: Vec<&str> =
            new.texts("finalizers").filter(|f| !old.texts("finalizers").any(|o| o == *f)).collect();
        extra.sort_unstable();
        extra.dedup();
        if !extra.is_empty() {
            let quoted: Vec<String> = extra.iter().map(|f| gotext::quote(f)).collect();
            errors.push(field::forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    quoted.join(", ")
                ),
            ));
        }
    }
    if new.text("resourceVersion").is_empty() {
        errors.push(field::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    if new.num("generation") < old.num("generation") {
        errors.push(field::invalid(&path.child("generation"), new.num("generation"), "must not be decremented"));
    }
    for name in ["name", "namespace", "uid"] {
        if new.text(name) != old.text(name) {
            errors.push(field::invalid(&path.child(name), new.text(name), super::checks::IMMUTABLE));
        }
    }
    for name in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        immutable(&new[name], &old[name], &path.child(name), errors);
    }
    labels(&new["labels"], &path.child("labels"), errors);
    annotations(&new["annotations"], &path.child("annotations"), errors);
    owner_references(new, &path.child("ownerReferences"), errors);
    managed_fields(new, &path.child("managedFields"), errors);
}

fn owner_references(meta: &Value, path: &Path, errors: &mut ErrorList) {
    let references = meta.list("ownerReferences");
    let mut first: Option<String> = None;
    for reference in references {
        let api_version = reference.text("apiVersion");
        let version = api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() || api_version.matches('/').count() > 1 {
            errors.push(field::invalid(&path.child("apiVersion"), api_version, "version must not be empty"));
        }
        for name in ["kind", "name", "uid"] {
            if reference.text(name).is_empty() {
                errors.push(field::invalid(&path.child(name), "", "must not be empty"));
            }
        }
        if api_version == "v1" && reference.text("kind") == "Event" {
            let shown = super::checks::ordered(reference, OWNER_FIELDS);
            errors.push(field::invalid(
                path,
                field::BadValue::Raw(shown),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if reference.flag("controller") {
            let current = format!("{}/{}", reference.text("kind"), reference.text("name"));
            match &first {
                None => first = Some(current),
                Some(first) => {
                    let shown: Vec<String> =
                        references.iter().map(|r| super::checks::ordered(r, OWNER_FIELDS)).collect();
                    errors.push(field::invalid(
                        path,
                        field::BadValue::Raw(format!("[{}]", shown.join(","))),
                        format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {current}"),
                    ));
                }
            }
        }
    }
}

const OWNER_FIELDS: &[&str] = &["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];

fn finalizers(meta: &Value, path: &Path, errors: &mut ErrorList) {
    let (mut orphan, mut dependents) = (false, false);
    for finalizer in meta.texts("finalizers") {
        messages(names::qualified_name(finalizer), finalizer, path, errors);
        orphan |= finalizer == "orphan";
        dependents |= finalizer == "foregroundDeletion";
    }
    if orphan && dependents {
        errors.push(field::invalid(
            path,
            &meta["finalizers"],
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
}

fn managed_fields(meta: &Value, path: &Path, errors: &mut ErrorList) {
    for (i, entry) in meta.list("managedFields").iter().enumerate() {
        let path = path.index(i);
        if !matches!(entry.text("operation"), "Apply" | "Update") {
            errors.push(field::invalid(
                &path.child("operation"),
                entry.text("operation"),
                "must be `Apply` or `Update`",
            ));
        }
        if !matches!(entry.text("fieldsType"), "" | "FieldsV1") {
            errors.push(field::invalid(&path.child("fieldsType"), entry.text("fieldsType"), "must be `FieldsV1`"));
        }
        field_manager(entry.text("manager"), &path.child("manager"), errors);
        if entry.text("subresource").len() > 256 {
            errors.push(field::too_long(&path.child("subresource"), 256));
        }
    }
}

const FIELD_MANAGER_MAX: usize = 128;

/// A `fieldManager`, of an entry or of a request.
pub fn field_manager(manager: &str, path: &Path, errors: &mut ErrorList) {
    if manager.len() > FIELD_MANAGER_MAX {
        errors.push(field::too_long(path, FIELD_MANAGER_MAX));
    }
    for (i, c) in manager.char_indices().filter(|(_, c)| !gotext::is_print(*c)) {
        errors.push(field::invalid(path, manager, format!("invalid character U+{:04X} (at position {i})", c as u32)));
    }
}
