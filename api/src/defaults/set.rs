//! The few gestures all defaults are made of: fill a field that is not set, look below one that is.

use serde_json::{Map, Value};

pub(super) type Tree = Map<String, Value>;

/// The object at a path, if there is one.
pub(super) fn at<'a>(value: &'a mut Value, path: &[&str]) -> Option<&'a mut Tree> {
    path.iter().try_fold(value, |value, name| value.as_object_mut()?.get_mut(*name))?.as_object_mut()
}

/// The object in a field, if there is one.
pub(super) fn child<'a>(map: &'a mut Tree, name: &str) -> Option<&'a mut Tree> {
    map.get_mut(name)?.as_object_mut()
}

/// The object in a field; made if it is not set. `None` if something else is there.
pub(super) fn child_or_new<'a>(map: &'a mut Tree, name: &str) -> Option<&'a mut Tree> {
    if map.get(name).is_none_or(Value::is_null) {
        map.insert(name.to_owned(), Value::Object(Map::new()));
    }
    child(map, name)
}

/// The objects of a list; none if it is not set.
pub(super) fn items<'a>(map: &'a mut Tree, name: &str) -> impl Iterator<Item = &'a mut Tree> {
    map.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// For fields that are pointers in Go: only absence counts.
pub(super) fn if_nil(map: &mut Tree, name: &str, value: impl Into<Value>) {
    if map.get(name).is_none_or(Value::is_null) {
        map.insert(name.to_owned(), value.into());
    }
}

/// For strings, numbers, lists and maps that are not pointers: the zero value counts as absent.
pub(super) fn if_zero(map: &mut Tree, name: &str, value: impl Into<Value>) {
    if is_zero(map.get(name)) {
        map.insert(name.to_owned(), value.into());
    }
}

pub(super) fn is_zero(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(Value::Number(n)) => n.as_i64() == Some(0),
        Some(Value::Bool(b)) => !b,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
    }
}

/// The text of a field, empty if it is not set.
pub(super) fn text<'a>(map: &'a Tree, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}
