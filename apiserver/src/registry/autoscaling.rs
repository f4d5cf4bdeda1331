//! HorizontalPodAutoscalers: the status that upstream writes for one never looked at.

use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use super::hooks::{HookContext, Hooks};

pub struct HorizontalPodAutoscaler;

impl Hooks for HorizontalPodAutoscaler {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        object.set_at(&["status"], json!({"currentMetrics": null, "desiredReplicas": 0}));
    }
}
