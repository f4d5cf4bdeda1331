//! Structural schemas (KEP-1022): types everywhere, and values validated without types.

use apimachinery::field::{self, ErrorList, FieldError, Path};
use serde_json::{Value, json};

use super::members;
use crate::custom::pattern;
use crate::read::Read;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Why a schema cannot be structural at all.
pub(super) fn unsupported(schema: &Value) -> Option<String> {
    let here = |schema: &Value| -> Option<String> {
        let name = if !schema.text("id").is_empty() {
            "id"
        } else if !schema.text("$schema").is_empty() {
            "schema"
        } else if !schema.text("$ref").is_empty() {
            "$ref"
        } else if members(schema, "patternProperties").next().is_some() {
            "patternProperties"
        } else if members(schema, "dependencies").next().is_some() {
            "dependencies"
        } else if schema.set("additionalItems").is_some() {
            "additionalItems"
        } else if members(schema, "definitions").next().is_some() {
            "definitions"
        } else {
            if !schema.list("items").is_empty() {
                return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
            }
            if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(false)) {
                return Some(
                    "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".to_owned(),
                );
            }
            return None;
        };
        Some(format!("OpenAPIV3Schema '{name}' is not supported"))
    };
    if let Some(why) = here(schema) {
        return Some(why);
    }
    let mut below: Vec<&Value> = members(schema, "properties").map(|(_, below)| below).collect();
    for name in ["items", "not", "additionalProperties"] {
        below.extend(schema.get(name).filter(|below| below.is_object()));
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        below.extend(schema.list(name));
    }
    below.into_iter().find_map(unsupported)
}

/// Whether an old schema is not structural.
pub(super) fn is_violated(schema: &Value) -> bool {
    unsupported(schema).is_some() || !validate(&Path::new(""), schema).is_empty()
}

/// All that is not structural, sorted by text as upstream does.
pub(super) fn validate(path: &Path, schema: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    invariants(schema, Level::Root, path, &mut errors);
    completeness(schema, Some(schema), path, path, &mut errors);
    let mut list: Vec<FieldError> = errors.into_iter().collect();
    list.sort_by_cached_key(ToString::to_string);
    list.into_iter().collect()
}

fn has_type(schema: &Value) -> bool {
    !schema.text("type").is_empty()
}

fn invariants(schema: &Value, level: Level, path: &Path, errors: &mut ErrorList) {
    if !schema.is_object() {
        return;
    }
    let kind = schema.text("type");
    let items = schema.set("items").filter(|items| items.is_object());
    if kind == "array" && items.is_none() {
        errors.push(field::required(&path.child("items"), "must be specified"));
    }
    if let Some(items) = items {
        invariants(items, Level::Item, &path.child("items"), errors);
    }
    let properties_path = path.child("properties");
    for (name, property) in members(schema, "properties") {
        invariants(property, Level::Field, &properties_path.key(name.clone()), errors);
    }
    let additional = schema.set("additionalProperties");
    if let Some(additional) = additional {
        let path = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(field::forbidden(&path, "must not be used at the root"));
        }
        invariants(additional, Level::Field, &path, errors);
    }
    let int_or_string = schema.flag("x-kubernetes-int-or-string");
    let preserve = schema.flag("x-kubernetes-preserve-unknown-fields");
    let embedded = schema.flag("x-kubernetes-embedded-resource");
    for (name, set) in
        [("x-kubernetes-preserve-unknown-fields", preserve), ("x-kubernetes-embedded-resource", embedded)]
    {
        if int_or_string && set {
            let message = "must be false if x-kubernetes-int-or-string is true";
            errors.push(field::invalid(&path.child(name), true, message));
        }
    }
    let skip_first = schema.list("allOf").first().is_some_and(is_int_or_string_pattern);
    values(schema, is_int_or_string_pattern(schema), skip_first, level, path, errors);
    let type_path = path.child("type");
    if embedded && kind != "object" {
        let message = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() {
            field::required(&type_path, message)
        } else {
            field::invalid(&type_path, kind, message)
        });
    } else if kind.is_empty() && !int_or_string && !preserve {
        let place = match level {
            Level::Root => "at the root",
            Level::Item => "for specified array items",
            Level::Field => "for specified object fields",
        };
        errors.push(field::required(&type_path, format!("must not be empty {place}")));
    }
    if embedded && additional.is_some() {
        let message = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(field::forbidden(&path.child("additionalProperties"), message));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(field::invalid(&type_path, kind, "must be object at the root"));
    }
    let is_resource = level == Level::Root || embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(property) = schema["properties"].set(name).filter(|_| is_resource)
            && property.text("type") != "string"
        {
            let path = properties_path.key(name).child("type");
            errors.push(field::invalid(&path, property.text("type"), "must be string"));
        }
    }
    if let Some(metadata) = schema["properties"].set("metadata") {
        let path = properties_path.key("metadata");
        if is_resource && metadata.text("type") != "object" {
            errors.push(field::invalid(&path.child("type"), metadata.text("type"), "must be object"));
        }
        if level == Level::Root && says_too_much(metadata) {
            errors.push(field::forbidden(
                &path,
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            ));
        }
    }
    if embedded && !preserve && members(schema, "properties").next().is_none() {
        errors.push(field::required(
            &properties_path,
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

/// Metadata is implicit; only its name may be restricted.
fn says_too_much(metadata: &Value) -> bool {
    metadata.as_object().into_iter().flatten().any(|(name, value)| match name.as_str() {
        "type" | "default" => false,
        "properties" => value
            .as_object()
            .is_some_and(|properties| properties.keys().any(|key| !matches!(key.as_str(), "name" | "generateName"))),
        _ => !(value.is_null() || *value == json!(false) || *value == json!("") || *value == json!([])),
    })
}

/// The `anyOf` of an integer and a string, which int-or-string may carry.
fn is_int_or_string_pattern(schema: &Value) -> bool {
    schema.get("anyOf") == Some(&json!([{"type": "integer"}, {"type": "string"}]))
}

fn values(schema: &Value, skip_any: bool, skip_first_all: bool, level: Level, path: &Path, errors: &mut ErrorList) {
    if !skip_any {
        for (i, branch) in schema.list("anyOf").iter().enumerate() {
            nested(branch, false, level, &path.child("anyOf").index(i), errors);
        }
    }
    for (i, branch) in schema.list("allOf").iter().enumerate() {
        nested(branch, skip_first_all && i == 0, level, &path.child("allOf").index(i), errors);
    }
    for (i, branch) in schema.list("oneOf").iter().enumerate() {
        nested(branch, false, level, &path.child("oneOf").index(i), errors);
    }
    nested(&schema["not"], false, level, &path.child("not"), errors);
    let text = schema.text("pattern");
    if !text.is_empty()
        && let Err(error) = pattern::compile(text)
    {
        errors.push(field::invalid(
            &path.child("pattern"),
            text,
            format!("must be a valid regular expression, but isn't: {error}"),
        ));
    }
}

fn nested(schema: &Value, skip_any: bool, level: Level, path: &Path, errors: &mut ErrorList) {
    if !schema.is_object() {
        return;
    }
    values(schema, skip_any, false, level, path, errors);
    nested(&schema["items"], false, level, &path.child("items"), errors);
    for (name, property) in members(schema, "properties") {
        nested(property, false, Level::Field, &path.child("properties").key(name.clone()), errors);
    }
    let mut forbid = |name: &'static str, is_set: bool, must: &str| {
        if is_set {
            errors.push(field::forbidden(&path.child(name), format!("must be {must} to be structural")));
        }
    };
    forbid("type", has_type(schema), "empty");
    forbid(
        "additionalProperties",
        schema.set("additionalProperties").is_some_and(|additional| *additional != json!(false)),
        "undefined",
    );
    forbid("default", schema.set("default").is_some(), "undefined");
    forbid("title", !schema.text("title").is_empty(), "empty");
    forbid("description", !schema.text("description").is_empty(), "empty");
    forbid("nullable", schema.flag("nullable"), "false");
    for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"]
    {
        forbid(name, schema.flag(name), "false");
    }
    forbid("x-kubernetes-list-map-keys", !schema.list("x-kubernetes-list-map-keys").is_empty(), "empty");
    forbid("x-kubernetes-list-type", schema.set("x-kubernetes-list-type").is_some(), "undefined");
    forbid("x-kubernetes-map-type", schema.set("x-kubernetes-map-type").is_some(), "undefined");
    forbid("x-kubernetes-validations", !schema.list("x-kubernetes-validations").is_empty(), "empty");
    if schema["properties"].set("metadata").is_some() {
        let path = path.child("properties").key("metadata");
        errors.push(field::forbidden(&path, "must not be specified in a nested context"));
    }
}

/// Whatever values are validated must be part of the structure: `here` is the structure's schema at
/// `path`, `at` is where the validation stands.
fn completeness(values: &Value, here: Option<&Value>, path: &Path, at: &Path, errors: &mut ErrorList) {
    inside(&values["not"], here, path, &at.child("not"), errors);
    for name in ["allOf", "anyOf", "oneOf"] {
        for (i, branch) in values.list(name).iter().enumerate() {
            inside(branch, here, path, &at.child(name).index(i), errors);
        }
    }
}

fn inside(values: &Value, here: Option<&Value>, path: &Path, at: &Path, errors: &mut ErrorList) {
    if !values.is_object() {
        return;
    }
    let Some(here) = here else {
        errors.push(field::required(path, format!("because it is defined in {at}")));
        return;
    };
    completeness(values, Some(here), path, at, errors);
    let items = here.set("items").filter(|items| items.is_object());
    inside(&values["items"], items, &path.child("items"), &at.child("items"), errors);
    for (name, property) in members(values, "properties") {
        let path = path.child("properties").key(name.clone());
        let at = at.child("properties").key(name.clone());
        match here["properties"].set(name) {
            None => errors.push(field::required(&path, format!("because it is defined in {at}"))),
            some => inside(property, some, &path, &at, errors),
        }
    }
}
