//! Secrets keep their type when an update leaves it out.

use serde_json::Value;

use crate::registry::hooks::{HookContext, Hooks};

pub struct Secret;

impl Hooks for Secret {
    fn prepare_update(&self, _: &HookContext<'_>, new: &mut Value, old: &Value) {
        let empty = new.get("type").and_then(Value::as_str).unwrap_or_default().is_empty();
        if let (true, Some(kind)) = (empty, old.get("type")) {
            new["type"] = kind.clone();
        }
    }
}
