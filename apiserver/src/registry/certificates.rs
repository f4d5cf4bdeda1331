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

/// Puts the old conditions of a type where the new ones are. Where there are more or fewer of them, validation has
/// the word.
fn preserve(new: &mut Value, old: &Value, kind: &str) {
    let is_of_kind = |condition: &&Value| condition.str_at(&["type"]) == Some(kind);
    let before: Vec<Value> = old.list_at(&["status", "conditions"]).iter().filter(is_of_kind).cloned().collect();
    let conditions = new.at_mut_or_create(&["status"]).get_mut("conditions").and_then(Value::as_array_mut);
    let Some(conditions) = conditions else { return };
    let after = conditions.iter().filter(is_of_kind).count();
    if after != before.len() {
        return;
    }
    let places = conditions.iter_mut().filter(|condition| condition.str_at(&["type"]) == Some(kind));
    for (place, condition) in places.zip(before) {
        *place = condition;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approval_is_not_the_statuss_to_change() {
        let csr = |conditions: &[(&str, &str)]| {
            let conditions: Vec<Value> =
                conditions.iter().map(|(kind, reason)| json!({"type": kind, "reason": reason})).collect();
            json!({"status": {"conditions": conditions}})
        };
        let old = csr(&[("Approved", "old"), ("Other", "old")]);
        for (new, expected) in [
            // Conditions stay where they are, and those that are new come after them.
            (
                csr(&[("Approved", "new"), ("Other", "new"), ("Third", "new")]),
                csr(&[("Approved", "old"), ("Other", "new"), ("Third", "new")]),
            ),
            (csr(&[("Other", "new"), ("Approved", "new")]), csr(&[("Other", "new"), ("Approved", "old")])),
            // What is taken away is refused later.
            (csr(&[("Other", "new")]), csr(&[("Other", "new")])),
        ] {
            let mut settled = new.clone();
            preserve(&mut settled, &old, "Approved");
            assert_eq!(settled, expected, "{new}");
        }
    }
}
