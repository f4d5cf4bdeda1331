//! Namespace: its name as a label, and its phase.

use apimachinery::object::ObjectExt;
use serde_json::Value;

use super::set::{at, if_zero};

pub(super) fn set(namespace: &mut Value) {
    let name = namespace.name().to_owned();
    if !name.is_empty() {
        namespace.set_label("kubernetes.io/metadata.name", &name);
    }
    if let Some(status) = at(namespace, &["status"]) {
        if_zero(status, "phase", "Active");
    }
}
