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
        normalize(object);
    }

    fn prepare_update(&self, _: &HookContext<'_>, new: &mut Value, _: &Value) {
        normalize(new);
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
