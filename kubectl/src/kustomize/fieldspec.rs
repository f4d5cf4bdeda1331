//! Field specifications: which fields of which kinds a transformer touches, and the walk to them.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::id::{Gvk, Id};
use super::{Error, Result};

/// A field of some kinds. The path is of names between slashes; lists are gone through silently, and
/// a name that ends in `[]` must be a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FieldSpec {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub path: String,
    /// Whether to make the field where it is absent.
    pub create: bool,
}

/// What a created field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    Map,
    Scalar,
}

/// What is done to a field once it is found.
pub type Set<'a> = &'a mut dyn FnMut(&mut Value) -> Result<()>;

impl FieldSpec {
    /// A field of every kind.
    pub fn anywhere(path: &str, create: bool) -> Self {
        FieldSpec { path: path.to_owned(), create, ..FieldSpec::default() }
    }

    pub fn gvk(&self) -> Gvk {
        Gvk::new(&self.group, &self.version, &self.kind)
    }

    /// Changes the field wherever the object has it. Without a `leaf` nothing is created.
    ///
    /// # Errors
    /// When the path runs into a scalar, or `set` refuses.
    pub fn apply(&self, object: &mut Value, leaf: Option<Leaf>, set: Set<'_>) -> Result<()> {
        if !Gvk::of(object).is_selected(&self.gvk()) {
            return Ok(());
        }
        let path = split(&self.path, '/');
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let id = Id::of(object);
        walk(object, &path, leaf.filter(|_| self.create), set)
            .map_err(|error| error.wrap(format!("considering field '{}' of object {id}", self.path)))
    }
}

/// Adds specifications that are not there yet.
///
/// # Errors
/// When two disagree on whether to create the field.
pub fn merge_all(into: &mut Vec<FieldSpec>, more: &[FieldSpec]) -> Result<()> {
    for spec in more {
        let found = into.iter().find(|known| known.gvk().is_selected(&spec.gvk()) && known.path == spec.path);
        match found {
            Some(known) if known.create != spec.create => return Err(Error::new("conflicting fieldspecs")),
            Some(_) => {}
            None => into.push(spec.clone()),
        }
    }
    Ok(())
}

/// The parts of a path; a backslash keeps the delimiter after it.
pub fn split(path: &str, delimiter: char) -> Vec<String> {
    let path = path.strip_prefix(delimiter).unwrap_or(path);
    let mut parts: Vec<String> = Vec::new();
    for part in path.split(delimiter) {
        match parts.last_mut() {
            Some(last) if last.ends_with('\\') => {
                last.pop();
                last.push(delimiter);
                last.push_str(part);
            }
            _ => parts.push(part.to_owned()),
        }
    }
    parts
}

fn walk(value: &mut Value, path: &[&str], create: Option<Leaf>, set: Set<'_>) -> Result<()> {
    let Some((name, rest)) = path.split_first() else { return set(value) };
    match value {
        Value::Null => Ok(()),
        Value::Array(items) => items.iter_mut().try_for_each(|item| {
            walk(item, path, create, set)
                .map_err(|error| error.wrap(format!("visit traversal on path: [{}]", path.join(" "))))
        }),
        Value::Object(map) => enter(map, name, rest, create, set),
        _ => Err(Error::new("expected sequence or mapping node")),
    }
}

fn enter(map: &mut Map<String, Value>, name: &str, rest: &[&str], create: Option<Leaf>, set: Set<'_>) -> Result<()> {
    let (field, must_be_list) = match name.strip_suffix("[]") {
        Some(field) => (field, true),
        None => (name, false),
    };
    if field.is_empty() {
        return Err(Error::new("cannot set or create an empty field name"));
    }
    let empty = match create {
        Some(_) if must_be_list => None,
        Some(Leaf::Scalar) if rest.is_empty() => Some(Value::String(String::new())),
        Some(_) => Some(Value::Object(Map::new())),
        None => None,
    };
    let found = match (map.contains_key(field), &empty) {
        (true, _) => map.get_mut(field),
        (false, Some(empty)) => Some(map.entry(field.to_owned()).or_insert_with(|| empty.clone())),
        (false, None) => None,
    };
    let Some(found) = found else { return Ok(()) };
    if found.is_null() {
        if must_be_list {
            *found = Value::Array(Vec::new());
        } else if let Some(empty) = empty {
            *found = empty;
        }
    }
    walk(found, rest, create, set)
}

/// Puts a text where a scalar is.
///
/// # Errors
/// When it is a list or an object.
pub fn set_scalar(field: &mut Value, text: &str) -> Result<()> {
    require(field, "ScalarNode")?;
    *field = Value::String(text.to_owned());
    Ok(())
}

/// The text of a scalar as it stands in YAML.
pub fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Refuses another kind of node; null is none.
///
/// # Errors
/// In kyaml's words.
pub fn require(value: &Value, wanted: &str) -> Result<()> {
    let found = kind(value);
    if value.is_null() || found == wanted {
        return Ok(());
    }
    Err(Error::new(format!(
        "wrong node kind: expected {wanted} but got {found}: node contents:\n{}",
        crate::codec::yaml_text(value)
    )))
}

/// What YAML calls a value.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "MappingNode",
        Value::Array(_) => "SequenceNode",
        _ => "ScalarNode",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{FieldSpec, Leaf, split};

    #[test]
    fn paths() {
        assert_eq!(split("a/b[]/c", '/'), ["a", "b[]", "c"]);
        assert_eq!(split("metadata/annotations/x.io\\/y", '/'), ["metadata", "annotations", "x.io/y"]);
        assert_eq!(split("/a", '/'), ["a"]);
    }

    #[test]
    fn creates_only_where_told() {
        let set = |spec: FieldSpec, leaf, object: serde_json::Value| {
            let mut object = object;
            spec.apply(&mut object, leaf, &mut |field| {
                *field = json!("set");
                Ok(())
            })
            .map(|()| object)
        };
        let base = || json!({"kind": "A", "spec": {"list": [{"x": 1}, {}]}});
        let spec = |path: &str, create| FieldSpec::anywhere(path, create);
        assert_eq!(set(spec("spec/y", false), Some(Leaf::Scalar), base()), Ok(base()));
        assert_eq!(
            set(spec("spec/list/x", false), Some(Leaf::Scalar), base()),
            Ok(json!({"kind": "A", "spec": {"list": [{"x": "set"}, {}]}}))
        );
        assert_eq!(
            set(spec("spec/list[]/x", true), Some(Leaf::Scalar), base()),
            Ok(json!({"kind": "A", "spec": {"list": [{"x": "set"}, {"x": "set"}]}}))
        );
        assert_eq!(set(spec("spec/none[]/x", true), Some(Leaf::Scalar), base()), Ok(base()), "a list is never made");
        let other = FieldSpec { kind: "B".into(), ..spec("spec/y", true) };
        assert_eq!(set(other, Some(Leaf::Scalar), base()), Ok(base()));
        let error = set(spec("kind/x", true), Some(Leaf::Scalar), base()).expect_err("a scalar is in the way");
        assert!(error.0.ends_with("expected sequence or mapping node"), "{error}");
    }
}
