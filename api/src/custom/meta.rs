//! ObjectMeta of custom objects and of resources embedded in them: read strictly, written
//! canonically, validated.

use apimachinery::field::{self, ErrorList, FieldError, Path};
use apimachinery::gvk::GroupVersion;
use apimachinery::names;
use apimachinery::schema::TypeRef;
use serde_json::{Map, Value};

use super::Node;
use crate::check::check_fields;

/// How metadata is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Malformed fields go instead of failing: for what is stored already.
    pub drop_invalid: bool,
    /// Unknown fields are reported.
    pub report: bool,
}

fn object_meta() -> TypeRef<'static> {
    crate::table().named("meta/v1.ObjectMeta").expect("the table has ObjectMeta")
}

/// Reads `metadata` of an object as Go would into its struct, and writes it back: unknown fields
/// go, and are answered with their paths below `path`. Nothing happens to an object without.
///
/// # Errors
/// Go's text for a field of a wrong type, unless those are dropped.
pub fn settle(object: &mut Map<String, Value>, path: &Path, options: Options) -> Result<Vec<String>, String> {
    let Some(metadata) = object.get_mut("metadata") else { return Ok(Vec::new()) };
    let ty = object_meta();
    let mut findings = check_fields(ty, metadata);
    if let Some(error) = findings.type_error {
        if !options.drop_invalid {
            return Err(error);
        }
        let Some(map) = metadata.as_object_mut() else { return Err(error) };
        map.retain(|name, value| {
            let mut single = Map::new();
            single.insert(name.clone(), value.clone());
            check_fields(ty, &Value::Object(single)).type_error.is_none()
        });
        findings = check_fields(ty, metadata);
    }
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    crate::canonicalize(ty, metadata);
    if !options.report {
        return Ok(Vec::new());
    }
    let prefix = path.child("metadata").to_string();
    Ok(findings.unknown.iter().map(|field| format!("{prefix}.{field}")).collect())
}

/// Brings embedded resources into form: `apiVersion` and `kind` must be strings, `metadata` is
/// settled. Answers the paths of unknown fields, sorted.
///
/// # Errors
/// The first thing that does not fit.
pub fn coerce(value: &mut Value, node: &Node, root: bool, options: Options) -> Result<Vec<String>, FieldError> {
    let mut unknown = Vec::new();
    coerce_at(value, node, root || node.embedded, &Path::nil(), options, &mut unknown)?;
    unknown.sort();
    Ok(unknown)
}

/// As [`coerce`], of a part at a path.
///
/// # Errors
/// As [`coerce`].
pub fn coerce_part(value: &mut Value, node: &Node, path: &Path) -> Result<(), FieldError> {
    coerce_at(value, node, node.embedded, path, Options::default(), &mut Vec::new())
}

fn coerce_at(
    value: &mut Value,
    node: &Node,
    embedded: bool,
    path: &Path,
    options: Options,
    unknown: &mut Vec<String>,
) -> Result<(), FieldError> {
    match value {
        Value::Object(map) => {
            if embedded {
                for name in ["apiVersion", "kind"] {
                    if map.get(name).is_some_and(|value| !value.is_string()) {
                        if !options.drop_invalid {
                            return Err(field::invalid(&path.child(name), &map[name], "must be a string"));
                        }
                        map.remove(name);
                    }
                }
                match settle(map, path, options) {
                    Ok(fields) => unknown.extend(fields),
                    Err(_) if options.drop_invalid => {}
                    Err(error) => return Err(field::invalid(&path.child("metadata"), &map["metadata"], error)),
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(property) = node.property(name) {
                    coerce_at(value, property, property.embedded, &path.child(name.clone()), options, unknown)?;
                } else if let Some(additional) = node.additional() {
                    coerce_at(value, additional, additional.embedded, &path.key(name.clone()), options, unknown)?;
                }
            }
            Ok(())
        }
        Value::Array(items) => {
            let Some(item) = &node.items else { return Ok(()) };
            for (index, value) in items.iter_mut().enumerate() {
                coerce_at(value, item, item.embedded, &path.index(index), options, unknown)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What is wrong with embedded resources.
pub fn validate(path: &Path, value: &Value, node: &Node, root: bool, errors: &mut ErrorList) {
    validate_at(path, value, node, root || node.embedded, errors);
}

fn validate_at(path: &Path, value: &Value, node: &Node, embedded: bool, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            if embedded {
                resource(path, map, errors);
            }
            for (name, value) in map {
                if let Some(property) = node.property(name) {
                    validate_at(&path.child(name.clone()), value, property, property.embedded, errors);
                } else if let Some(additional) = node.additional() {
                    validate_at(&path.key(name.clone()), value, additional, additional.embedded, errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = &node.items else { return };
            for (index, value) in items.iter().enumerate() {
                validate_at(&path.index(index), value, item, item.embedded, errors);
            }
        }
        _ => {}
    }
}

fn resource(path: &Path, map: &Map<String, Value>, errors: &mut ErrorList) {
    for name in ["apiVersion", "kind"] {
        let path = path.child(name);
        match map.get(name) {
            None => errors.push(field::required(&path, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(field::invalid(&path, text, "must not be empty"));
            }
            Some(Value::String(text)) if name == "apiVersion" => {
                if let Err(error) = GroupVersion::parse(text) {
                    errors.push(field::invalid(&path, text, error.to_string()));
                }
            }
            Some(Value::String(text)) => {
                let problems = names::dns1035_label(&text.to_lowercase());
                if !problems.is_empty() {
                    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    errors.push(field::invalid(
                        &path,
                        text,
                        format!("may have mixed case, but should otherwise match: {}", problems.join(",")),
                    ));
                }
            }
            Some(other) => errors.push(field::invalid(&path, other, "must be a string")),
        }
    }
    if let Some(metadata) = map.get("metadata") {
        crate::validation::embedded_metadata(metadata, &path.child("metadata"), errors);
    }
}
