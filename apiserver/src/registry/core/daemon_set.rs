//! DaemonSets count the generations of their template in an annotation, as they did in a field of
//! old API versions.

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use crate::registry::hooks::{HookContext, Hooks};
use api::conversion::TEMPLATE_GENERATION;

pub struct DaemonSet;

fn number(object: &Value) -> i64 {
    object.annotation(TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Hooks for DaemonSet {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        let number = number(object).max(1);
        object.set_annotation(TEMPLATE_GENERATION, &number.to_string());
    }

    fn prepare_update(&self, cx: &HookContext<'_>, new: &mut Value, old: &Value) {
        let changed = cx.subresource.is_empty() && new.at(&["spec", "template"]) != old.at(&["spec", "template"]);
        let number = number(old) + i64::from(changed);
        new.set_annotation(TEMPLATE_GENERATION, &number.to_string());
    }
}
