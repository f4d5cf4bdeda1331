//! CertificateSigningRequests: the requester is written by the server, conditions of approval only
//! by the approval subresource. PodCertificateRequests: who ends them must have the right to sign.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gvk::GroupKind;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use jiff::Timestamp;
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

/// How far a certificate's beginning may be from now, in seconds.
const NOW: i64 = 300;

pub struct PodCertificateRequest;

#[async_trait]
impl Hooks for PodCertificateRequest {
    async fn permit(&self, cx: &HookContext<'_>, new: &Value, old: Option<&Value>) -> Result<(), Status> {
        let Some(old) = old.filter(|_| cx.subresource == "status") else { return Ok(()) };
        let given = |object: &Value| object.get("status").filter(|status| !status.is_null()).cloned();
        let signer = old.str_at(&["spec", "signerName"]).unwrap_or_default();
        let is_same = given(new).unwrap_or_else(|| json!({})) == given(old).unwrap_or_else(|| json!({}));
        if is_same || crate::admission::certificates::may(cx.server, cx.user, "sign", signer).await {
            return Ok(());
        }
        let mut errors = ErrorList::new();
        let message = format!("User {:?} is not permitted to \"sign\" for signer {signer:?}", cx.user.name);
        errors.push(field::forbidden(&Path::new("spec").child("signerName"), message));
        Err(Status::invalid(&GroupKind::new("certificates.k8s.io", "PodCertificateRequest"), old.name(), &errors))
    }

    /// A certificate that is issued begins now.
    fn refuse(&self, cx: &HookContext<'_>, new: &Value, old: Option<&Value>) -> ErrorList {
        let mut errors = ErrorList::new();
        let start = |object: &Value| object.str_at(&["status", "notBefore"]).map(str::to_owned);
        let started = start(new).filter(|_| cx.subresource == "status" && old.and_then(start).is_none());
        let Some(time) = started.and_then(|text| text.parse::<Timestamp>().ok()) else { return errors };
        if (time.as_second() - cx.server.clock.now().as_second()).abs() >= NOW {
            let shown = apimachinery::time::format(time);
            let message = "must be set to within 5 minutes of kube-apiserver's current time";
            errors.push(field::invalid(&Path::new("status").child("notBefore"), shown, message));
        }
        errors
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
