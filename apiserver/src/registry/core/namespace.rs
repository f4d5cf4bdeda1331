//! Namespaces: the `kubernetes` finalizer in their spec keeps them until they are empty.

use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use crate::registry::hooks::{HookContext, Hooks};

/// The finalizer that the namespace controller removes.
const FINALIZER: &str = "kubernetes";

/// Every namespace carries its name as a label, for selectors.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub struct Namespace;

impl Hooks for Namespace {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        object.set_at(&["status"], json!({"phase": "Active"}));
        let finalizers = object.at_mut_or_create(&["spec", "finalizers"]);
        match finalizers {
            Value::Array(list) if list.iter().any(|have| have == FINALIZER) => {}
            Value::Array(list) => list.push(FINALIZER.into()),
            other => *other = json!([FINALIZER]),
        }
        label(object);
    }

    fn prepare_update(&self, cx: &HookContext<'_>, new: &mut Value, old: &Value) {
        match cx.subresource {
            "" => {
                let spec = old.get("spec").cloned().unwrap_or_else(|| json!({}));
                new.set_at(&["spec"], spec);
            }
            "finalize" => {
                let status = old.get("status").cloned().unwrap_or_else(|| json!({}));
                new.set_at(&["status"], status);
            }
            _ => {}
        }
        label(new);
    }

    fn has_other_finalizers(&self, object: &Value) -> bool {
        !object.list_at(&["spec", "finalizers"]).is_empty()
    }

    fn prepare_delete(&self, object: &mut Value) {
        object.set_at(&["status", "phase"], "Terminating".into());
    }
}

fn label(object: &mut Value) {
    let name = object.name().to_string();
    if !name.is_empty() && object.label(NAME_LABEL) != Some(name.as_str()) {
        object.set_label(NAME_LABEL, &name);
    }
}
