//! APIServices: one that no Service stands behind is available as soon as it is created.

use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use super::hooks::{HookContext, Hooks};

pub struct ApiService;

impl Hooks for ApiService {
    fn prepare_create(&self, cx: &HookContext<'_>, object: &mut Value) {
        if object.at(&["spec", "service"]).is_none_or(Value::is_null) {
            object.set_at(&["status", "conditions"], json!([local_condition(&cx.server.timestamp())]));
        }
    }
}

/// The condition of an APIService that this server answers itself.
pub fn local_condition(now: &str) -> Value {
    json!({
        "type": "Available",
        "status": "True",
        "lastTransitionTime": now,
        "reason": "Local",
        "message": "Local APIServices are always available",
    })
}
