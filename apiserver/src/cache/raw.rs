//! Members whose text is kept as it came: `data` of a ControllerRevision.
//!
//! Upstream has such a member as bytes, stores them as they are, and holds the member immutable byte by byte: a patch,
//! which writes it without white space, changes what came with some. So the stored object has the member's own text,
//! and a write that does not change its meaning keeps that text.

use std::borrow::Cow;
use std::collections::HashMap;

use apimachinery::json;
use serde_json::value::RawValue;

/// The member of a resource's objects whose text is kept.
pub fn member(group: &str, resource: &str) -> Option<&'static str> {
    (group == "apps" && resource == "controllerrevisions").then_some("data")
}

/// The text of a member of an object.
pub fn text<'a>(json: &'a [u8], member: &str) -> Option<&'a str> {
    let members: HashMap<Cow<'a, str>, &'a RawValue> = serde_json::from_slice(json).ok()?;
    members.get(member).map(|raw| raw.get())
}

/// Puts the text of a member in place of what was written, if it says the same.
pub(super) fn keep(mut json: Vec<u8>, member: &str, kept: &str) -> Vec<u8> {
    let Some(written) = text(&json, member) else { return json };
    // 1.0 was written 1.
    let value = |text: &str| json::parse(text.as_bytes()).ok().map(|value| json::to_vec_stored(&value));
    if written == kept || value(written) != value(kept) {
        return json;
    }
    let start = written.as_ptr() as usize - json.as_ptr() as usize;
    let end = start + written.len();
    json.splice(start..end, kept.bytes());
    json
}

/// The text as Go writes bytes of JSON: without white space, and with what HTML minds escaped.
pub fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    apimachinery::gotext::compact(text, true, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_text_that_says_the_same_is_kept() {
        let written = br#"{"data":{"a":1,"b":100000000000000000000}}"#.to_vec();
        let kept = keep(written, "data", r#"{"b": 1e20, "a": 1.0}"#);
        assert_eq!(text(&kept, "data"), Some(r#"{"b": 1e20, "a": 1.0}"#));
        let json = br#"{"apiVersion":"apps/v1","data":{"a":1,"b":2},"metadata":{}}"#.to_vec();
        let kept = keep(json.clone(), "data", r#"{"b": 2, "a": 1}"#);
        assert_eq!(text(&kept, "data"), Some(r#"{"b": 2, "a": 1}"#));
        assert_eq!(serde_json::from_slice::<Value>(&kept).ok(), serde_json::from_slice(&json).ok());
        assert_eq!(keep(json.clone(), "data", r#"{"b": 3}"#), json, "another meaning");
        assert_eq!(keep(json.clone(), "none", "{}"), json, "no such member");
    }
}
