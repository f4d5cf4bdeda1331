//! PriorityClass.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::checks::{immutable, name_is_subdomain};
use super::object_meta;
use crate::read::Read;

const HIGHEST: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub(super) fn create(class: &Value, errors: &mut ErrorList) {
    object_meta::create(class, false, name_is_subdomain, errors);
    let (name, value) = (class["metadata"].text("name"), class.num("value"));
    if name.starts_with("system-") {
        if let Some(e) = not_system(class, name, value) {
            let message =
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {e}");
            errors.push(field::forbidden(&Path::new("metadata").child("name"), message));
        }
    } else if value > HIGHEST {
        let message = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        errors.push(field::forbidden(&Path::new("value"), message));
    }
    if let Some(policy) = class.set("preemptionPolicy").and_then(Value::as_str) {
        let path = Path::new("preemptionPolicy");
        match policy {
            "" => errors.push(field::required(&path, "")),
            "PreemptLowerPriority" | "Never" => {}
            other => errors.push(field::not_supported(&path, other, &["PreemptLowerPriority", "Never"])),
        }
    }
}

fn not_system(class: &Value, name: &str, value: i64) -> Option<String> {
    match SYSTEM.iter().find(|(known, _)| *known == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
        Some(_) if class.flag("globalDefault") => Some(format!("globalDefault of {name} PriorityClass must be false")),
        Some(_) => None,
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    if new.num("value") != old.num("value") {
        errors.push(field::forbidden(&Path::new("value"), "may not be changed in an update."));
    }
    immutable(&new["preemptionPolicy"], &old["preemptionPolicy"], &Path::new("preemptionPolicy"), errors);
}
