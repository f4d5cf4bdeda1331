//! Helpers shared by the printers: reading fields of a tree and formatting what several kinds show.
//!
//! A missing field reads as Go's zero value, because upstream prints from decoded structs.

use std::collections::BTreeSet;

use apimachinery::names;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration;

/// The value at a path of object keys.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key)).filter(|value| !value.is_null())
}

/// The string at a path, "" when absent.
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    opt_text(object, path).unwrap_or("")
}

/// The string at a path.
pub fn opt_text<'a>(object: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(object, path).and_then(Value::as_str)
}

/// The integer at a path, 0 when absent.
pub fn int(object: &Value, path: &[&str]) -> i64 {
    opt_int(object, path).unwrap_or(0)
}

/// The integer at a path.
pub fn opt_int(object: &Value, path: &[&str]) -> Option<i64> {
    at(object, path).and_then(Value::as_i64)
}

/// The boolean at a path, false when absent.
pub fn flag(object: &Value, path: &[&str]) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The list at a path, empty when absent.
pub fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How many entries the map or list at a path has.
pub fn count(object: &Value, path: &[&str]) -> usize {
    match at(object, path) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    }
}

/// The object's name.
pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// Whether deletion was requested.
pub fn deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some()
}

/// The instant at a path.
pub fn timestamp(object: &Value, path: &[&str]) -> Option<Timestamp> {
    opt_text(object, path).and_then(|text| text.parse().ok())
}

/// Time since the instant at a path, `<unknown>` when it is absent.
pub fn since(object: &Value, path: &[&str], now: Timestamp) -> String {
    timestamp(object, path).map_or_else(|| "<unknown>".to_owned(), |then| duration::human(duration::between(then, now)))
}

/// The `Age` cell.
pub fn age(object: &Value, now: Timestamp) -> Value {
    Value::String(since(object, &["metadata", "creationTimestamp"], now))
}

/// `text`, or `fallback` when it is empty.
pub fn or<'a>(text: &'a str, fallback: &'a str) -> &'a str {
    if text.is_empty() { fallback } else { text }
}

/// The row of kinds that show nothing but their name and age.
pub fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(name(object)), age(object, now)]
}

/// Names and images of a list of containers, each joined by commas.
pub fn containers(containers: &[Value]) -> (String, String) {
    let join = |key| containers.iter().map(|c| text(c, &[key])).collect::<Vec<_>>().join(",");
    (join("name"), join("image"))
}

/// A label map as `a=b,c=d`, `<none>` when empty. Keys come sorted out of the tree.
pub fn labels(object: &Value, path: &[&str]) -> String {
    let joined = set(object, path);
    if joined.is_empty() { "<none>".into() } else { joined }
}

fn set(object: &Value, path: &[&str]) -> String {
    let Some(Value::Object(map)) = at(object, path) else {
        return String::new();
    };
    map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect::<Vec<_>>().join(",")
}

/// A `LabelSelector` in selector syntax; empty for an absent or empty one. `None` when an operator
/// is unknown or does not fit its values, and when keys or values are not valid.
pub fn selector(selector: Option<&Value>) -> Option<String> {
    let Some(selector) = selector else {
        return Some(String::new());
    };
    let mut requirements: Vec<(String, String)> = Vec::new();
    if let Some(Value::Object(map)) = selector.get("matchLabels") {
        for (key, value) in map {
            let value = value.as_str().unwrap_or_default();
            if !names::qualified_name(key).is_empty() || !names::label_value(value).is_empty() {
                return None;
            }
            requirements.push((key.clone(), format!("{key}={value}")));
        }
    }
    for expression in list(selector, &["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let values: BTreeSet<&str> = list(expression, &["values"]).iter().filter_map(Value::as_str).collect();
        let invalid = |value: &&str| !names::label_value(value).is_empty();
        if !names::qualified_name(key).is_empty() || values.iter().any(invalid) {
            return None;
        }
        let joined = values.iter().copied().collect::<Vec<_>>().join(",");
        let requirement = match (text(expression, &["operator"]), values.is_empty()) {
            ("In", false) => format!("{key} in ({joined})"),
            ("NotIn", false) => format!("{key} notin ({joined})"),
            ("Exists", true) => key.to_owned(),
            ("DoesNotExist", true) => format!("!{key}"),
            _ => return None,
        };
        requirements.push((key.to_owned(), requirement));
    }
    requirements.sort_by(|a, b| a.0.cmp(&b.0));
    Some(requirements.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(","))
}

/// [`selector`] for a cell: `<none>` when empty, `<error>` when malformed.
pub fn selector_cell(value: Option<&Value>) -> String {
    match selector(value) {
        None => "<error>".into(),
        Some(text) if text.is_empty() => "<none>".into(),
        Some(text) => text,
    }
}

/// The quantity at a path, "0" when absent. Stored quantities are canonical already.
pub fn quantity(object: &Value, path: &[&str]) -> String {
    match at(object, path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "0".into(),
    }
}

/// Joins a list that was cut at `max` entries out of `count`; `<unset>` when empty.
pub fn with_more(list: &[String], count: usize, max: usize) -> String {
    let joined = list.join(",");
    if count > max {
        return format!("{joined} + {} more...", count - max);
    }
    if joined.is_empty() { "<unset>".into() } else { joined }
}

/// The condition of a type.
pub fn condition<'a>(object: &'a Value, path: &[&str], r#type: &str) -> Option<&'a Value> {
    list(object, path).iter().find(|condition| text(condition, &["type"]) == r#type)
}
