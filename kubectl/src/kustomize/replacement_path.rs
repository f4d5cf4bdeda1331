//! Paths of replacements: names between dots, `[field=value]` for items of a list, numbers and `*`.

use regex::Regex;
use serde_json::{Map, Value, json};

use super::fieldspec::{kind, scalar_text, split};
use super::{Error, Result};

/// The parts of a path; brackets keep dots together, and stay where they select items.
pub fn parse(path: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut parts = split(path, '.').into_iter();
    while let Some(part) = parts.next() {
        if !part.starts_with('[') || part.ends_with(']') {
            out.push(part);
            continue;
        }
        let mut whole = part;
        for next in parts.by_ref() {
            whole.push('.');
            whole.push_str(&next);
            if next.ends_with(']') {
                break;
            }
        }
        out.push(if whole.contains('=') { whole } else { whole.trim_matches(['[', ']']).to_owned() });
    }
    out
}

/// What `[a=b]` asks for: field and value.
fn condition(part: &str) -> Option<(&str, &str)> {
    part.strip_prefix('[')?.strip_suffix(']')?.split_once('=')
}

/// The value at a path, lists by number, `-` or condition.
pub fn get<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, part| match value {
        Value::Array(items) => match (condition(part), part.parse::<usize>()) {
            (Some(("", wanted)), _) => items.iter().find(|item| scalar_text(item) == wanted),
            (Some((field, wanted)), _) => {
                items.iter().find(|item| item.get(field).is_some_and(|found| scalar_text(found) == wanted))
            }
            (None, Ok(at)) => items.get(at),
            (None, Err(_)) if part == "-" => items.last(),
            (None, Err(_)) => None,
        },
        Value::Object(map) => map.get(part),
        _ => None,
    })
}

/// What a step creates when it is absent: a list where the next step goes into one, else a map.
fn made(rest: &[String], leaf: &Value) -> Value {
    match rest.first() {
        None => match leaf {
            Value::Object(_) => json!({}),
            Value::Array(_) => json!([]),
            _ => Value::String(String::new()),
        },
        Some(next) if condition(next).is_some() || next.parse::<usize>().is_ok() || next == "-" => json!([]),
        Some(_) => Value::Object(Map::new()),
    }
}

/// Calls `set` on every value at a path and gives their number. With `create`, what is absent is made,
/// of the kind that `create` is.
///
/// # Errors
/// When a step does not fit, or `set` refuses.
pub fn visit(
    value: &mut Value,
    path: &[String],
    create: Option<&Value>,
    set: &mut dyn FnMut(&mut Value) -> Result<()>,
) -> Result<usize> {
    let Some((part, rest)) = path.split_first() else {
        set(value)?;
        return Ok(1);
    };
    if let Value::String(text) = value {
        return inside(text, path, set).map(|(count, text)| {
            *value = Value::String(text);
            count
        });
    }
    if let Ok(at) = part.parse::<usize>()
        && let Value::Array(items) = value
    {
        if let Some(leaf) = create
            && items.len() == at
        {
            items.push(made(rest, leaf));
        }
        let found = items.len();
        let item = items
            .get_mut(at)
            .ok_or_else(|| Error::new(format!("index {at} specified but only {found} elements found")))?;
        return visit(item, rest, create, set);
    }
    if let Some((field, wanted)) = condition(part) {
        return items(value, (field, wanted), rest, create, set);
    }
    if part == "*" {
        let Value::Array(items) = value else { return Err(not_a_list(value)) };
        let mut count = 0;
        for item in items {
            count += visit(item, rest, create, set)?;
        }
        return Ok(count);
    }
    let Value::Object(map) = value else {
        return super::fieldspec::require(value, "MappingNode").map(|()| 0);
    };
    if let Some(leaf) = create
        && !map.contains_key(part)
    {
        map.insert(part.clone(), made(rest, leaf));
    }
    match map.get_mut(part) {
        Some(field) => visit(field, rest, create, set),
        None => Ok(0),
    }
}

fn not_a_list(value: &Value) -> Error {
    Error::new(format!("wrong node kind: expected SequenceNode but got {}", kind(value)))
}

fn items(
    value: &mut Value,
    (field, wanted): (&str, &str),
    rest: &[String],
    create: Option<&Value>,
    set: &mut dyn FnMut(&mut Value) -> Result<()>,
) -> Result<usize> {
    let Value::Array(items) = value else { return Err(not_a_list(value)) };
    let expression = Regex::new(wanted).map_err(|error| Error::new(error.to_string()))?;
    let fits = |item: &Value| match field {
        "" => expression.is_match(&scalar_text(item)),
        field => item.get(field).is_some_and(|found| expression.is_match(&scalar_text(found))),
    };
    if create.is_some() && !items.iter().any(fits) {
        items.push(if field.is_empty() { Value::String(wanted.to_owned()) } else { json!({field: wanted}) });
    }
    let mut count = 0;
    for item in items.iter_mut().filter(|item| fits(item)) {
        if field.is_empty() {
            set(item)?;
            count += 1;
        } else {
            count += visit(item, rest, create, set)?;
        }
    }
    Ok(count)
}

/// A text that holds JSON or YAML is gone into, and written back in its form.
fn inside(text: &str, path: &[String], set: &mut dyn FnMut(&mut Value) -> Result<()>) -> Result<(usize, String)> {
    let mut tree = apimachinery::yaml::parse(text).map_err(|error| Error::new(error.to_string()))?;
    if !(tree.is_object() || tree.is_array()) {
        return Ok((0, text.to_owned()));
    }
    let count = visit(&mut tree, path, None, set)?;
    let written = if !text.trim_start().starts_with(['{', '[']) {
        crate::codec::yaml_text(&tree).trim().to_owned()
    } else if text.contains('\n') && text.contains("  ") {
        serde_json::to_string_pretty(&tree).unwrap_or_default()
    } else {
        crate::codec::compact(&tree)
    };
    Ok((count, written))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{get, parse, visit};

    #[test]
    fn parts() {
        assert_eq!(parse("a.[name=x.y].b"), ["a", "[name=x.y]", "b"]);
        assert_eq!(parse("metadata.annotations.[a.b/c]"), ["metadata", "annotations", "a.b/c"]);
        assert_eq!(parse("a\\.b.0"), ["a.b", "0"]);
    }

    #[test]
    fn values() {
        let tree = json!({"a": [{"name": "x", "v": 1}, {"name": "y", "v": 2}]});
        assert_eq!(get(&tree, &parse("a.[name=y].v")), Some(&json!(2)));
        assert_eq!(get(&tree, &parse("a.0.v")), Some(&json!(1)));
        assert_eq!(get(&tree, &parse("a.[name=z].v")), None);
    }

    #[test]
    fn visits() {
        let set = |path: &str, create: bool, mut tree: Value| {
            let leaf = json!("new");
            let count = visit(&mut tree, &parse(path), create.then_some(&leaf), &mut |field| {
                *field = leaf.clone();
                Ok(())
            });
            count.map(|count| (count, tree))
        };
        assert_eq!(
            set("a.*.v", false, json!({"a": [{"v": 1}, {"v": 2}]})),
            Ok((2, json!({"a": [{"v": "new"}, {"v": "new"}]})))
        );
        assert_eq!(set("a.b", false, json!({})), Ok((0, json!({}))));
        assert_eq!(set("a.b", true, json!({})), Ok((1, json!({"a": {"b": "new"}}))));
        assert_eq!(set("a.[n=x].v", true, json!({"a": []})), Ok((1, json!({"a": [{"n": "x", "v": "new"}]}))));
        assert_eq!(set("a.b", false, json!({"a": "{\"b\":1}"})), Ok((1, json!({"a": "{\"b\":\"new\"}"}))));
        assert!(set("a.3", false, json!({"a": [1]})).is_err());
    }
}
