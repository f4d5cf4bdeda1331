//! Groups that the Kubernetes community keeps to itself need an approval.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gotext::quote;
use serde_json::Value;

use crate::read::Read;

/// The annotation that carries an approval.
pub const ANNOTATION: &str = "api-approved.kubernetes.io";
const POLICY: &str = "https://github.com/kubernetes/enhancements/pull/1111";

/// What an approval annotation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Missing,
    Invalid,
    Bypassed,
    Approved,
}

/// Whether the community reserves the group.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|suffix| group == *suffix || group.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')))
}

/// What the annotation says, and how upstream puts it.
pub fn state(object: &Value) -> (State, String) {
    let annotation = object["metadata"]["annotations"].text(ANNOTATION);
    if annotation.is_empty() {
        let text = format!("protected groups must have approval annotation {ANNOTATION:?}, see {POLICY}");
        return (State::Missing, text);
    }
    if annotation.starts_with("unapproved") {
        return (State::Bypassed, format!("not approved: {}", quote(annotation)));
    }
    let rest = annotation.split_once("://").map(|(scheme, rest)| (scheme, rest.split('/').next().unwrap_or_default()));
    if rest.is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty() && !host.contains(' ')) {
        return (State::Approved, format!("approved in {annotation}"));
    }
    let text = format!(
        "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting with \"unapproved\", see {POLICY}"
    );
    (State::Invalid, text)
}

pub(super) fn validate(new: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    if !is_protected(new["spec"].text("group")) {
        return;
    }
    let (now, reason) = state(new);
    if old.is_some_and(|old| state(old).0 == now) {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(ANNOTATION);
    match now {
        State::Missing => errors.push(field::required(&path, reason)),
        State::Invalid => {
            errors.push(field::invalid(&path, new["metadata"]["annotations"].text(ANNOTATION), reason));
        }
        State::Bypassed | State::Approved => {}
    }
}
