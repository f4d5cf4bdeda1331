//! Members whose text is kept as it came: `data` of a ControllerRevision, parameters of device drivers.
//!
//! Upstream has such a member as bytes, stores them as they are, and compares it byte by byte: a patch, which writes it
//! without white space, changes what came with some. So the stored object has the member's own text, and a write that
//! does not change its meaning keeps the text that came with it.

use std::borrow::Cow;
use std::collections::HashMap;

use apimachinery::{gotext, json};
use serde_json::Value;
use serde_json::value::RawValue;

/// A way from an object to a member; `*` is every item of a list.
pub type Place = &'static [&'static str];

/// Where a resource's objects have members whose text is kept.
pub fn places(group: &str, resource: &str) -> &'static [Place] {
    match (group, resource) {
        ("apps", "controllerrevisions") => &[&["data"]],
        ("resource.k8s.io", "deviceclasses") => &[&["spec", "config", "*", "opaque", "parameters"]],
        ("resource.k8s.io", "resourceclaimtemplates") => {
            &[&["spec", "spec", "devices", "config", "*", "opaque", "parameters"]]
        }
        ("resource.k8s.io", "resourceclaims") => &[
            &["spec", "devices", "config", "*", "opaque", "parameters"],
            &["status", "allocation", "devices", "config", "*", "opaque", "parameters"],
            &["status", "devices", "*", "data"],
        ],
        _ => &[],
    }
}

/// The texts of these members of an object.
pub fn texts(json: &[u8], places: &[Place]) -> Vec<String> {
    spans(json, places).into_iter().map(str::to_owned).collect()
}

fn spans<'a>(json: &'a [u8], places: &[Place]) -> Vec<&'a str> {
    let mut found = Vec::new();
    if let Ok(text) = std::str::from_utf8(json) {
        places.iter().for_each(|place| descend(text, place, &mut found));
    }
    found
}

fn descend<'a>(text: &'a str, place: &[&str], found: &mut Vec<&'a str>) {
    match place {
        [] => found.push(text),
        ["*", rest @ ..] => {
            let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
            items.into_iter().for_each(|item| descend(item.get(), rest, found));
        }
        [name, rest @ ..] => {
            let members: HashMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(text).unwrap_or_default();
            if let Some(member) = members.get(*name).filter(|member| member.get() != "null") {
                descend(member.get(), rest, found);
            }
        }
    }
}

/// Puts texts in place of what was written of these members, where one says the same.
pub fn keep(mut json: Vec<u8>, places: &[Place], kept: &[String]) -> Vec<u8> {
    if places.is_empty() || kept.is_empty() {
        return json;
    }
    // As they would be written: 1.0 as 1.
    let meaning = |text: &str| json::parse(text.as_bytes()).ok().map(|value| json::to_vec_stored(&value));
    let known: Vec<(Option<Vec<u8>>, &String)> = kept.iter().map(|text| (meaning(text), text)).collect();
    let start = json.as_ptr() as usize;
    let mut changes: Vec<(usize, usize, &String)> = spans(&json, places)
        .into_iter()
        .filter_map(|written| {
            let written_as = meaning(written);
            let (_, text) = known.iter().find(|(meaning, _)| meaning.is_some() && *meaning == written_as)?;
            let at = written.as_ptr() as usize - start;
            (written != *text).then_some((at, at + written.len(), *text))
        })
        .collect();
    // From the end, so that what is before stays where it is.
    changes.sort_unstable_by_key(|(start, ..)| std::cmp::Reverse(*start));
    for (start, end, text) in changes {
        json.splice(start..end, text.bytes());
    }
    json
}

/// The texts that these members of a tree will have if these are kept.
pub fn chosen(object: &Value, places: &[Place], kept: &[String]) -> Vec<String> {
    texts(&keep(json::to_vec_stored(object), places, kept), places)
}

/// The text as Go writes bytes of JSON: without white space, and with what HTML minds escaped.
pub fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    gotext::compact(text, true, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_that_says_the_same_is_kept() {
        let data = places("apps", "controllerrevisions");
        let kept = |json: &Value, text: &str| {
            let kept = keep(json.to_string().into_bytes(), data, &[text.to_owned()]);
            assert_eq!(serde_json::from_slice::<Value>(&kept).expect("JSON")["kind"], json["kind"]);
            texts(&kept, data)
        };
        let object = json!({"data": {"a": 1, "b": 2}, "kind": "x"});
        assert_eq!(kept(&object, r#"{"b": 2.0, "a": 1}"#), [r#"{"b": 2.0, "a": 1}"#]);
        assert_eq!(kept(&object, r#"{"b": 3}"#), [r#"{"a":1,"b":2}"#], "another meaning");
        assert_eq!(kept(&json!({"kind": "x"}), "{}"), [""; 0], "no such member");
        assert_eq!(chosen(&json!({"data": 1e20}), data, &["1e20".to_owned()]), ["1e20"]);
    }

    #[test]
    fn texts_are_found_in_lists() {
        let places = places("resource.k8s.io", "deviceclasses");
        let object = json!({"spec": {"config": [
            {"opaque": {"parameters": {"x": 1, "f": 1.5}}}, {}, {"opaque": {"parameters": {"y": 2}}}]}});
        let given = [r#"{"y":2.0}"#.to_owned(), r#"{"x":1,"f":1.5}"#.to_owned()];
        assert_eq!(chosen(&object, places, &given), [r#"{"x":1,"f":1.5}"#, r#"{"y":2.0}"#]);
        assert_eq!(chosen(&object, places, &[]), [r#"{"f":1.5,"x":1}"#, r#"{"y":2}"#]);
        assert_eq!(chosen(&json!({"spec": {"config": null}}), places, &given), [""; 0]);
    }
}
