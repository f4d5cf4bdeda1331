//! The smallest strategic merge patch from one status to another.
//!
//! Lists with merge keys (`conditions`, `podIPs`, `hostIPs`) carry only the entries that changed and name
//! those that went; everything else is replaced whole or left out.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::KUBELET_CONDITIONS;

const MERGED: &[(&str, &str)] = &[("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];
/// Written by others: never touched.
const FOREIGN: &[&str] = &["resourceClaimStatuses", "extendedResourceClaimStatus", "nominatedNodeName", "resize"];

/// The patch body, or `None` when there is nothing to say. `uid` keeps it from reaching a namesake.
pub fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (to_value(old), to_value(new)) else { return None };
    let mut status = Map::new();
    for (field, value) in &new {
        if old.get(field) == Some(value) || FOREIGN.contains(&field.as_str()) {
            continue;
        }
        match MERGED.iter().find(|(name, _)| name == field) {
            Some((_, key)) => merge_list(field, key, old.get(field), value, &mut status),
            None => {
                status.insert(field.clone(), value.clone());
            }
        }
    }
    for (field, value) in &old {
        if new.contains_key(field) || FOREIGN.contains(&field.as_str()) {
            continue;
        }
        match MERGED.iter().find(|(name, _)| name == field) {
            Some((_, key)) => merge_list(field, key, Some(value), &json!([]), &mut status),
            None => {
                status.insert(field.clone(), Value::Null);
            }
        }
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

fn to_value(status: &PodStatus) -> Value {
    serde_json::to_value(status).expect("an API type serializes")
}

fn merge_list(field: &str, key: &str, old: Option<&Value>, new: &Value, out: &mut Map<String, Value>) {
    let empty = Vec::new();
    let old = old.and_then(Value::as_array).unwrap_or(&empty);
    let new = new.as_array().unwrap_or(&empty);
    // Conditions of others are only shown: what is known of them may be older than what the API has.
    let owned = |item: &Value| {
        let kind = item.get("type").and_then(Value::as_str).unwrap_or_default();
        field != "conditions" || KUBELET_CONDITIONS.contains(&kind) || kind == "DisruptionTarget"
    };
    let mut changes: Vec<Value> = new.iter().filter(|item| !old.contains(item) && owned(item)).cloned().collect();
    for item in old.iter().filter(|item| owned(item)) {
        if !new.iter().any(|other| other.get(key) == item.get(key)) {
            changes.push(json!({"$patch": "delete", key: item.get(key)}));
        }
    }
    // Fields that an entry lost have to be named: a merge would keep them.
    for change in &mut changes {
        let before = old.iter().find(|item| item.get(key) == change.get(key));
        if let (Some(Value::Object(before)), Value::Object(change)) = (before, change)
            && !change.contains_key("$patch")
        {
            for name in before.keys() {
                change.entry(name.clone()).or_insert(Value::Null);
            }
        }
    }
    if !changes.is_empty() {
        let order: Vec<Value> = new.iter().map(|item| json!({key: item.get(key)})).collect();
        out.insert(format!("$setElementOrder/{field}"), Value::Array(order));
        out.insert(field.to_owned(), Value::Array(changes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn conditions_of_others_are_left_alone() {
        let old =
            status(json!({"conditions": [{"type": "gate", "status": "True"}, {"type": "Ready", "status": "False"}]}));
        let new = status(json!({"conditions": [{"type": "Ready", "status": "False"}]}));
        assert_eq!(patch("u", &old, &new), None);
        let new =
            status(json!({"conditions": [{"type": "gate", "status": "False"}, {"type": "Ready", "status": "True"}]}));
        let changed = patch("u", &old, &new).unwrap();
        assert_eq!(changed["status"]["conditions"], json!([{"type": "Ready", "status": "True"}]));
    }

    #[test]
    fn patches_say_only_what_changed() {
        let old = status(json!({"phase": "Pending", "reason": "x", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "False", "reason": "r"}, {"type": "PodScheduled", "status": "True"}]}));
        assert_eq!(patch("u", &old, &old), None);
        let new = status(json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}));
        assert_eq!(
            patch("u", &old, &new).unwrap(),
            json!({"metadata": {"uid": "u"}, "status": {
                "phase": "Running",
                "reason": null,
                "$setElementOrder/podIPs": [{"ip": "10.0.0.2"}],
                "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}],
                "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "PodScheduled"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}]
            }})
        );
    }
}
