//! What changed in something that must not: appended to the message, for people.
//!
//! Upstream compares its internal structs as indented JSON, line by line: names are Go's, in the order of the source,
//! and what is not set is shown, too. The text is that of Python's `difflib`, which Go's library follows.

mod internal;
mod lines;

use apimachinery::field::BadValue;
use apimachinery::gotext;
use serde_json::Value;

/// A struct of `internal.txt` as errors show it: Go writes it on one line.
pub(super) fn shown(kind: &str, value: &Value) -> BadValue {
    let mut text = String::new();
    gotext::compact(&internal::show(kind, value), false, &mut text);
    BadValue::Raw(text)
}

/// The lines of two objects that differ, with three lines around each. `kind` is the type of both: a struct of
/// `internal.txt`, or a list of one.
pub(super) fn of(kind: &str, old: &Value, new: &Value) -> String {
    lines::unified(&internal::show(kind, old), &internal::show(kind, new))
}
