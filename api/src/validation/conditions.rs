//! Conditions of the common form (`metav1.Condition`), in the status of newer kinds.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names::regex_error;
use serde_json::Value;

use super::checks::qualified_name;
use crate::read::Read;

const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const LONGEST_REASON: usize = 1024;
const LONGEST_MESSAGE: usize = 32 * 1024;
const REASON: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
const REASON_ERROR: &str = "a condition reason must start with alphabetic character, optionally followed by a string \
                            of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";

/// `ValidateConditions`.
pub(super) fn check(conditions: &[Value], path: &Path, errors: &mut ErrorList) {
    for (i, condition) in conditions.iter().enumerate() {
        let (path, kind) = (path.index(i), condition.text("type"));
        if conditions[..i].iter().any(|other| other.text("type") == kind) {
            errors.push(field::duplicate(&path.child("type"), kind));
        }
        qualified_name(kind, &path.child("type"), errors);
        if !STATUSES.contains(&condition.text("status")) {
            errors.push(field::not_supported(&path.child("status"), condition.text("status"), &STATUSES));
        }
        let generation = condition.num("observedGeneration");
        if generation < 0 {
            let message = "must be greater than or equal to zero";
            errors.push(field::invalid(&path.child("observedGeneration"), generation, message));
        }
        if condition.set("lastTransitionTime").is_none() {
            errors.push(field::required(&path.child("lastTransitionTime"), ""));
        }
        reason(condition.text("reason"), &path.child("reason"), errors);
        if condition.text("message").len() > LONGEST_MESSAGE {
            errors.push(field::too_long(&path.child("message"), LONGEST_MESSAGE));
        }
    }
}

fn reason(reason: &str, path: &Path, errors: &mut ErrorList) {
    if reason.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = reason.as_bytes();
    let fits = bytes[0].is_ascii_alphabetic()
        && bytes.iter().all(|b| word(*b) || matches!(b, b',' | b':'))
        && word(bytes[bytes.len() - 1]);
    if !fits {
        let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
        errors.push(field::invalid(path, reason, regex_error(REASON_ERROR, REASON, &examples)));
    }
    if reason.len() > LONGEST_REASON {
        errors.push(field::too_long(path, LONGEST_REASON));
    }
}

/// Whether a condition of this type is true.
pub(super) fn is_true(conditions: &[Value], kind: &str) -> bool {
    conditions.iter().any(|c| c.text("type") == kind && c.text("status") == "True")
}
