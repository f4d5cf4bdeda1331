//! Members whose text is kept as it came: `data` of a ControllerRevision.
//!
//! Upstream has such a member as bytes, stores them as they are, and holds the member immutable byte by byte: a patch,
//! which writes it without white space, changes what came with some. So the stored object has the member's own text,
//! and a write that does not change its meaning keeps that text.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;
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
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
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
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            ' ' | '\t' | '\r' | '\n' if !quoted => continue,
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_says_the_same_is_kept() {
        let json = br#"{"apiVersion":"apps/v1","data":{"a":1,"b":2},"metadata":{}}"#.to_vec();
        let kept = keep(json.clone(), "data", r#"{"b": 2, "a": 1}"#);
        assert_eq!(text(&kept, "data"), Some(r#"{"b": 2, "a": 1}"#));
        assert_eq!(serde_json::from_slice::<Value>(&kept).ok(), serde_json::from_slice(&json).ok());
        assert_eq!(keep(json.clone(), "data", r#"{"b": 3}"#), json, "another meaning");
        assert_eq!(keep(json.clone(), "none", "{}"), json, "no such member");
    }

    #[test]
    fn compact_as_go() {
        for (given, written) in [
            (r#"{"a": [1, 2]}"#, r#"{"a":[1,2]}"#),
            (r#"{"b":" x \" y ","a":1}"#, r#"{"b":" x \" y ","a":1}"#),
            (r#"{"a":"<b>&"}"#, r#"{"a":"\u003cb\u003e\u0026"}"#),
        ] {
            assert_eq!(compact(given), written);
        }
    }
}
