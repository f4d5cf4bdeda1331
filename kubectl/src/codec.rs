//! Manifests and trees: documents of a stream, lists taken apart, and access by path.

use serde_json::{Map, Value};

/// The documents of a YAML or JSON stream; empty ones are skipped.
///
/// # Errors
/// What is malformed, in upstream's words.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let trimmed = text.trim_start();
    if trimmed.starts_with('{') {
        let found: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter::<Value>().collect();
        // What starts like JSON may still be a YAML flow mapping.
        if let Ok(found) = found {
            return Ok(found);
        }
    }
    let found = apimachinery::yaml::parse_documents(text)
        .map_err(|error| format!("error converting YAML to JSON: {}", yaml_error(&error.to_string())))?;
    Ok(found.into_iter().filter(|document| !document.is_null()).collect())
}

fn yaml_error(text: &str) -> String {
    if text.starts_with("yaml: ") { text.to_owned() } else { format!("yaml: {text}") }
}

/// The members of a list object, each with its apiVersion and kind; any other object itself.
pub fn flatten(mut object: Value) -> Vec<Value> {
    let kind = text(&object, &["kind"]).to_owned();
    let Some(item_kind) = kind.strip_suffix("List") else { return vec![object] };
    let api_version = text(&object, &["apiVersion"]).to_owned();
    let Some(Value::Array(items)) = object.get_mut("items").map(Value::take) else { return vec![object] };
    let mut found = Vec::new();
    for mut item in items {
        if let Some(map) = item.as_object_mut()
            && !map.contains_key("kind")
            && !item_kind.is_empty()
        {
            map.insert("apiVersion".into(), Value::String(api_version.clone()));
            map.insert("kind".into(), Value::String(item_kind.to_owned()));
        }
        found.extend(flatten(item));
    }
    found
}

/// The string at a path, "" when absent.
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or("")
}

/// The value at a path; null counts as absent.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key)).filter(|value| !value.is_null())
}

/// The integer at a path.
pub fn int(object: &Value, path: &[&str]) -> Option<i64> {
    at(object, path).and_then(Value::as_i64)
}

/// The list at a path, empty when absent.
pub fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The map at a path, as sorted pairs of texts.
pub fn pairs<'a>(object: &'a Value, path: &[&str]) -> Vec<(&'a str, &'a str)> {
    match at(object, path) {
        Some(Value::Object(map)) => {
            map.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or(""))).collect()
        }
        _ => Vec::new(),
    }
}

/// Sets a value, making the maps on the way.
pub fn set(object: &mut Value, path: &[&str], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut current = object;
    for key in parents {
        if !current.is_object() {
            *current = Value::Object(Map::new());
        }
        current = current
            .as_object_mut()
            .expect("made above")
            .entry((*key).to_owned())
            .or_insert_with(|| Value::Object(Map::new()));
    }
    if !current.is_object() {
        *current = Value::Object(Map::new());
    }
    current.as_object_mut().expect("made above").insert((*last).to_owned(), value);
}

/// Removes a value; says whether it was there.
pub fn remove(object: &mut Value, path: &[&str]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let mut current = object;
    for key in parents {
        match current.get_mut(*key) {
            Some(next) => current = next,
            None => return false,
        }
    }
    current.as_object_mut().is_some_and(|map| map.remove(*last).is_some())
}

/// JSON as upstream prints it: four spaces, HTML characters escaped, whole floats without a fraction.
pub fn json_text(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(&whole_floats(value.clone()), &mut serializer).expect("a tree always encodes");
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    escape_html(&text) + "\n"
}

/// Compact JSON as Go writes it.
pub fn compact(value: &Value) -> String {
    apimachinery::jsonpath::compact_json(&whole_floats(value.clone()))
}

fn escape_html(text: &str) -> String {
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn whole_floats(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => match number.as_f64() {
            #[allow(clippy::cast_possible_truncation)]
            Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => Value::from(float as i64),
            _ => Value::Number(number),
        },
        Value::Array(items) => Value::Array(items.into_iter().map(whole_floats).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, whole_floats(value))).collect()),
        other => other,
    }
}

/// YAML as upstream prints it.
pub fn yaml_text(value: &Value) -> String {
    apimachinery::yaml::emit(value)
}
