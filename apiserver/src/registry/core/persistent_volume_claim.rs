//! PersistentVolumeClaims: `dataSource` and `dataSourceRef` mirror each other, and claims begin
//! Pending.

use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use crate::registry::hooks::{HookContext, Hooks};

pub struct PersistentVolumeClaim;

impl Hooks for PersistentVolumeClaim {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        // The phase is defaulted when a claim is read, so upstream's create shows it too.
        object.set_at(&["status"], json!({"phase": "Pending"}));
        drop(object, None);
        normalize(object);
    }

    fn prepare_update(&self, _: &HookContext<'_>, new: &mut Value, old: &Value) {
        drop(new, Some(old));
        normalize(new);
    }
}

/// Sources of other namespaces (CrossNamespaceVolumeDataSource is off), and any that is neither a claim nor a
/// snapshot, which `dataSource` has always passed over in silence (KEP-1495).
fn drop(new: &mut Value, old: Option<&Value>) {
    const SOURCE: [&str; 2] = ["spec", "dataSource"];
    const REFERENCE: [&str; 2] = ["spec", "dataSourceRef"];
    let is = |object: &Value, path: &[&str]| object.at(path).is_some_and(|value| !value.is_null());
    let text = |object: &Value, name: &str| {
        object.at(&REFERENCE).and_then(|reference| reference.str_at(&[name])).unwrap_or_default().is_empty()
    };
    if !text(new, "namespace") && !old.is_some_and(|old| is(old, &REFERENCE)) {
        new.remove_at(&REFERENCE);
    }
    if old.is_some_and(|old| is(old, &SOURCE) || is(old, &REFERENCE)) || is(new, &REFERENCE) {
        return;
    }
    let part = |name: &str| new.at(&SOURCE).and_then(|source| source.str_at(&[name])).unwrap_or_default();
    let known = matches!(
        (part("apiGroup"), part("kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    );
    if !known {
        new.remove_at(&SOURCE);
    }
}

/// Fills the one of the two from the other, where no other namespace is involved.
fn normalize(object: &mut Value) {
    let source = object.at(&["spec", "dataSource"]).cloned();
    let reference = object.at(&["spec", "dataSourceRef"]).cloned();
    match (source, reference) {
        (Some(source), None) => object.set_at(&["spec", "dataSourceRef"], source),
        (None, Some(reference)) if reference.str_at(&["namespace"]).unwrap_or_default().is_empty() => {
            object.set_at(&["spec", "dataSource"], reference);
        }
        _ => {}
    }
}
