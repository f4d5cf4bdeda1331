//! Webhooks and policies: some names are for those that come from files.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use super::hooks::{HookContext, Hooks};
use crate::admission::manifests::SUFFIX;
use crate::config::features;

pub struct Configuration;

fn reserved() -> String {
    format!(
        "names ending with {SUFFIX:?} are reserved for static manifest-based configurations and cannot be managed via the API"
    )
}

impl Hooks for Configuration {
    fn prepare_create(&self, cx: &HookContext<'_>, object: &mut Value) {
        let gate = features::MANIFEST_BASED_ADMISSION_CONTROL_CONFIG;
        if object.name().ends_with(SUFFIX) && !cx.server.features.enabled(gate) {
            cx.warnings.lock().push(format!("metadata.name: {}", reserved()));
        }
    }

    fn refuse(&self, cx: &HookContext<'_>, new: &Value, old: Option<&Value>) -> ErrorList {
        let mut errors = ErrorList::new();
        let gate = features::MANIFEST_BASED_ADMISSION_CONTROL_CONFIG;
        if old.is_none() && new.name().ends_with(SUFFIX) && cx.server.features.enabled(gate) {
            errors.push(field::invalid(&Path::new("metadata").child("name"), new.name(), reserved()));
        }
        errors
    }
}
