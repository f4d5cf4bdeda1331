//! Endpoints.

use serde_json::Value;

use super::set::items;

pub(super) fn set(endpoints: &mut Value) {
    let Some(endpoints) = endpoints.as_object_mut() else { return };
    for subset in items(endpoints, "subsets") {
        for port in items(subset, "ports") {
            if port.get("protocol").and_then(Value::as_str).unwrap_or_default().is_empty() {
                port.insert("protocol".to_owned(), "TCP".into());
            }
        }
    }
}
