//! Namespace.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::checks::{name_is_label, qualified_name};
use super::object_meta;
use crate::read::Read;

pub(super) fn create(namespace: &Value, errors: &mut ErrorList) {
    object_meta::create(namespace, false, name_is_label, errors);
    let path = Path::new("spec").child("finalizers");
    for name in namespace["spec"].texts("finalizers") {
        finalizer(name, &path, errors);
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    create(new, errors);
    object_meta::update(new, old, errors);
}

fn finalizer(name: &str, path: &Path, errors: &mut ErrorList) {
    qualified_name(name, path, errors);
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        let message = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(field::invalid(path, name, message));
    }
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let (path, phase) = (Path::new("status").child("Phase"), new["status"].text("phase"));
    if new["metadata"].set("deletionTimestamp").is_none() {
        if phase != "Active" {
            errors.push(field::invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty"));
        }
    } else if phase != "Terminating" {
        errors.push(field::invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"));
    }
}

pub(super) fn finalize(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let path = Path::new("spec").child("finalizers");
    for (i, name) in new["spec"].texts("finalizers").enumerate() {
        finalizer(name, &path.index(i), errors);
    }
}
