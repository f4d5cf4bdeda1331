//! JSON merge patch (RFC 7386), with the habit of upstream's library of dropping nulls from
//! whatever the patch newly brings, inside lists too.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::lazy::{self, Document, Node};

/// Applies a patch in place.
pub fn apply(document: &mut Value, patch: Value) {
    match (document, patch) {
        (Value::Object(document), Value::Object(patch)) => merge(document, patch),
        (document, mut patch) => {
            prune(&mut patch);
            *document = patch;
        }
    }
}

/// Applies a patch to an object that is still text, and so keeps the notation of numbers; `None` if either is no
/// object.
pub fn apply_text(document: &str, patch: &str) -> Option<String> {
    let mut merged = lazy::document(Cow::Borrowed(document))?;
    merge_texts(&mut merged, lazy::document(Cow::Borrowed(patch))?);
    let mut out = String::with_capacity(document.len() + patch.len());
    lazy::write(&merged, &mut out);
    Some(out)
}

fn merge_texts<'a>(document: &mut Document<'a>, patch: Document<'a>) {
    for (key, value) in patch {
        let Some(mut value) = value else {
            document.remove(&key);
            continue;
        };
        match document.get_mut(&key) {
            Some(Some(current)) => merge_nodes(current, value),
            _ => {
                value.prune();
                document.insert(key, Some(value));
            }
        }
    }
}

fn merge_nodes<'a>(current: &mut Node<'a>, mut patch: Node<'a>) {
    let Some(document) = current.as_document() else {
        patch.prune();
        *current = patch;
        return;
    };
    patch.open();
    match patch {
        Node::Document(patch) => merge_texts(document, patch),
        // Nulls in it stay.
        other => *current = other,
    }
}

fn merge(document: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        if value.is_null() {
            document.remove(&key);
        } else {
            apply(document.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// The patch that turns `from` into `to`.
pub fn diff(from: &Value, to: &Value) -> Value {
    let (Value::Object(a), Value::Object(b)) = (from, to) else { return to.clone() };
    let mut patch = Map::new();
    for (key, old) in a {
        match b.get(key) {
            None => {
                patch.insert(key.clone(), Value::Null);
            }
            Some(new) if new == old => {}
            Some(new @ Value::Object(_)) if old.is_object() => {
                patch.insert(key.clone(), diff(old, new));
            }
            Some(new) => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    for (key, new) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
        patch.insert(key.clone(), new.clone());
    }
    Value::Object(patch)
}

/// `kubectl apply`'s patch for kinds without a strategic schema: additions and changes from
/// `current` to `modified`, deletions from `original` to `modified`.
pub fn three_way(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = keep(diff(current, modified), false);
    let deletions = keep(diff(original, modified), true);
    overlay(&mut patch, deletions);
    patch
}

/// Only the deletions of a patch, or all but them.
fn keep(patch: Value, deletions: bool) -> Value {
    let Value::Object(map) = patch else { return patch };
    let mut out = Map::new();
    for (key, value) in map {
        match value {
            Value::Null if deletions => {
                out.insert(key, Value::Null);
            }
            Value::Null => {}
            Value::Object(_) => {
                let inner = keep(value, deletions);
                if inner.as_object().is_some_and(|m| !m.is_empty()) {
                    out.insert(key, inner);
                }
            }
            value if !deletions => {
                out.insert(key, value);
            }
            _ => {}
        }
    }
    Value::Object(out)
}

fn overlay(patch: &mut Value, deletions: Value) {
    let (Value::Object(patch), Value::Object(deletions)) = (patch, deletions) else { return };
    for (key, value) in deletions {
        match patch.get_mut(&key) {
            Some(existing @ Value::Object(_)) if value.is_object() => overlay(existing, value),
            Some(_) => {}
            None => {
                patch.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn applies() {
        for (document, patch, expected) in [
            (json!({"a": 1, "b": 2}), json!({"a": null, "c": {"d": null, "e": 1}}), json!({"b": 2, "c": {"e": 1}})),
            (json!({"a": {"b": 1}}), json!({"a": {"c": 2}}), json!({"a": {"b": 1, "c": 2}})),
            (json!({"a": [1]}), json!({"a": [{"x": null}]}), json!({"a": [{}]})),
            (json!({"a": 1}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}})),
        ] {
            let mut got = document;
            apply(&mut got, patch);
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn texts_are_kept() {
        let document = r#"{"a":{"b":1,"c":1e2},"d":[1.0]}"#;
        for (patch, expected) in [
            (r#"{"a": {"b": 1.0}}"#, r#"{"a":{"b":1.0,"c":1e2},"d":[1.0]}"#),
            (r#"{"a": null, "e": {"f": null, "g": [{"h": null}]}}"#, r#"{"d":[1.0],"e":{"g":[{}]}}"#),
            (r#"{"a": [{"h": null}], "d": {"x": null}}"#, r#"{"a":[{"h":null}],"d":{}}"#),
        ] {
            assert_eq!(apply_text(document, patch).as_deref(), Some(expected));
        }
        assert_eq!(apply_text(document, "[]"), None);
    }

    #[test]
    fn three_ways() {
        let original = json!({"a": 1, "b": 2});
        let modified = json!({"a": 3});
        let current = json!({"a": 1, "b": 2, "server": true});
        assert_eq!(three_way(&original, &modified, &current), json!({"a": 3, "b": null}));
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), "[a-c]".prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn diff_leads_there(from in tree(), to in tree()) {
            let mut got = from.clone();
            apply(&mut got, diff(&from, &to));
            prop_assert_eq!(got, to);
        }
    }
}
