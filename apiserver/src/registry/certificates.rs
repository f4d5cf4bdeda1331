//! CertificateSigningRequests: the requester is written by the server, conditions of approval only
//! by the approval subresource.

use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use super::hooks::{HookContext, Hooks};

pub struct CertificateSigningRequest;

impl Hooks for CertificateSigningRequest {
    fn prepare_create(&self, cx: &HookContext<'_>, object: &mut Value) {
        let user = cx.user.to_value();
        let spec = object.at_mut_or_create(&["spec"]);
        if let Some(spec) = spec.as_object_mut() {
            for name in ["username", "uid", "groups", "extra"] {
                spec.remove(name);
                if let Some(value) = user.get(name) {
                    spec.insert(name.to_string(), value.clone());
                }
            }
        }
    }

    fn prepare_update(&self, cx: &HookContext<'_>, new: &mut Value, old: &Value) {
        let take = |new: &mut Value, name: &str| {
            new[name] = old.get(name).cloned().unwrap_or_else(|| json!({}));
        };
        take(new, "spec");
        match cx.subresource {
            "approval" => {
                let conditions = new.at(&["status", "conditions"]).cloned();
                take(new, "status");
                if let Some(conditions) = conditions {
                    new.set_at(&["status", "conditions"], conditions);
                } else {
                    new.remove_at(&["status", "conditions"]);
                }
                stamp(cx, new, old);
            }
            "status" => {
                for kind in ["Approved", "Denied"] {
                    preserve(new, old, kind);
                }
                stamp(cx, new, old);
            }
            _ => take(new, "status"),
        }
    }
}

fn of_kind(object: &Value, kind: &str) -> Vec<Value> {
    object
        .list_at(&["status", "conditions"])
        .iter()
        .filter(|condition| condition.str_at(&["type"]) == Some(kind))
        .cloned()
        .collect()
}

/// Puts the old conditions of a type in place of the new ones.
fn preserve(new: &mut Value, old: &Value, kind: &str) {
    let before = of_kind(old, kind);
    if before.is_empty() && of_kind(new, kind).is_empty() {
        return;
    }
    let mut conditions: Vec<Value> = new.list_at(&["status", "conditions"]).to_vec();
    conditions.retain(|condition| condition.str_at(&["type"]) != Some(kind));
    conditions.extend(before);
    new.set_at(&["status", "conditions"], conditions.into());
}

/// Fills in the times of new and changed conditions.
fn stamp(cx: &HookContext<'_>, new: &mut Value, old: &Value) {
    let now = cx.server.timestamp();
    let before = old.list_at(&["status", "conditions"]).to_vec();
    let Some(conditions) = new.at_mut_or_create(&["status"]).get_mut("conditions").and_then(Value::as_array_mut) else {
        return;
    };
    for condition in conditions {
        if condition.get("lastUpdateTime").is_none_or(Value::is_null) {
            condition["lastUpdateTime"] = now.clone().into();
        }
        if condition.get("lastTransitionTime").is_none_or(Value::is_null) {
            let same = before.iter().find(|other| {
                other.get("type") == condition.get("type") && other.get("status") == condition.get("status")
            });
            condition["lastTransitionTime"] =
                same.and_then(|other| other.get("lastTransitionTime").cloned()).unwrap_or_else(|| now.clone().into());
        }
    }
}
