//! Deployments: annotations count for the generation, because rollouts read them.

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use crate::registry::hooks::{HookContext, Hooks};

pub struct Deployment;

impl Hooks for Deployment {
    fn prepare_update(&self, cx: &HookContext<'_>, new: &mut Value, old: &Value) {
        if cx.subresource.is_empty() && new.get("spec") == old.get("spec") && new.annotations() != old.annotations() {
            new.set_generation(old.generation() + 1);
        }
    }
}
