//! ServiceAccounts: of references to secrets only the name is kept.

use serde_json::{Value, json};

use crate::registry::hooks::{HookContext, Hooks};

pub struct ServiceAccount;

impl Hooks for ServiceAccount {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        clean(object);
    }

    fn prepare_update(&self, _: &HookContext<'_>, new: &mut Value, _: &Value) {
        clean(new);
    }
}

fn clean(object: &mut Value) {
    if let Some(secrets) = object.get_mut("secrets").and_then(Value::as_array_mut) {
        for secret in secrets {
            *secret = match secret.get("name").and_then(Value::as_str) {
                Some(name) if !name.is_empty() => json!({"name": name}),
                _ => json!({}),
            };
        }
    }
}
