//! LimitRanges without a name get one.

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use crate::registry::hooks::{HookContext, Hooks};

pub struct LimitRange;

impl Hooks for LimitRange {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        if object.name().is_empty() {
            object.set_name(&uuid::Uuid::new_v4().to_string());
        }
    }
}
