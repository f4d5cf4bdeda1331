//! Defaults of a schema must be what the schema itself would let pass.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use serde_json::Value;

use super::members;
use crate::custom::default::{Step, surround};
use crate::custom::{Node, default, meta, prune, validate as values};
use crate::read::Read;

const TYPES: [&str; 7] = ["", "array", "boolean", "integer", "number", "object", "string"];

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether an old schema has defaults with unknown fields.
pub(super) fn are_unpruned(schema: &Value) -> bool {
    let node = Node::compile(schema);
    let mut pruned = node.clone();
    default::prune_defaults(&mut pruned);
    node.has_defaults && defaults_of(&node) != defaults_of(&pruned)
}

fn defaults_of(node: &Node) -> Vec<Option<Value>> {
    let mut all = vec![node.default.as_deref().cloned()];
    all.extend(node.children().flat_map(defaults_of));
    all
}

/// What is wrong with the defaults of a schema.
pub(super) fn validate(path: &Path, schema: &Value, pruned: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    if super::schema::any(schema, &|schema| schema.set("default").is_some()) {
        let place = Place { root: schema, steps: Vec::new(), inside_meta: false, is_root: true };
        below(path, schema, &place, pruned, &mut errors);
    }
    errors
}

/// Where a schema stands in the resource around it.
#[derive(Clone)]
struct Place<'a> {
    /// The schema of the innermost resource.
    root: &'a Value,
    steps: Vec<Step>,
    inside_meta: bool,
    is_root: bool,
}

fn below<'a>(path: &Path, schema: &'a Value, place: &Place<'a>, pruned: bool, errors: &mut ErrorList) {
    let mut place = place.clone();
    let embedded = place.is_root || schema.flag("x-kubernetes-embedded-resource");
    if embedded {
        place.inside_meta = false;
        place.steps.clear();
        place.root = schema;
    }
    if let Some(default) = schema.set("default") {
        one(&path.child("default"), default, schema, embedded, &place, pruned, errors);
    }
    place.is_root = false;
    if let Some(items) = schema.set("items").filter(|items| items.is_object()) {
        let mut place = place.clone();
        place.steps.push(Step::Index);
        below(&path.child("items"), items, &place, pruned, errors);
    }
    for (name, property) in members(schema, "properties") {
        let mut place = place.clone();
        place.steps.push(Step::Child(name.as_str().into()));
        place.inside_meta |= embedded && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
        below(&path.child("properties").key(name.clone()), property, &place, pruned, errors);
    }
}

fn one(
    path: &Path,
    value: &Value,
    schema: &Value,
    embedded: bool,
    place: &Place<'_>,
    pruned: bool,
    errors: &mut ErrorList,
) {
    let node = Node::compile(schema);
    if place.inside_meta {
        let root = Node::compile(place.root);
        let Some(mut whole) = surround(&place.steps, value.clone()) else { return };
        for (name, text) in [("apiVersion", "validation/v1"), ("kind", "Validation")] {
            if let Some(map) = whole.as_object_mut() {
                map.entry(name).or_insert_with(|| text.into());
            }
        }
        let wrong = |why: String| field::invalid(path, value, format!("must result in valid metadata: {why}"));
        if let Err(error) = meta::coerce(&mut whole, &root, true, meta::Options::default()) {
            errors.push(wrong(error.to_string()));
            return;
        }
        let mut found = ErrorList::new();
        meta::validate(&Path::nil(), &whole, &root, true, &mut found);
        if !found.is_empty() {
            errors.push(wrong(found.to_aggregate()));
            return;
        }
    } else {
        if pruned {
            let mut copy = value.clone();
            prune::prune(&mut copy, &node, embedded, false);
            if copy != *value {
                let shown = BadValue::Value(value.clone());
                errors.push(field::invalid(path, shown, "must not have unknown fields"));
            }
        }
        let mut copy = value.clone();
        if let Err(error) = meta::coerce_part(&mut copy, &node, path) {
            errors.push(error);
            return;
        }
        let mut found = ErrorList::new();
        meta::validate(path, &copy, &node, embedded, &mut found);
        if !found.is_empty() {
            errors.extend(found);
            return;
        }
    }
    if let Some(kind) = schema.set("type").and_then(Value::as_str).filter(|kind| !TYPES.contains(kind)) {
        // Nothing is of a type that is none.
        let have = type_name(value);
        let message = format!(" in body must be of type {kind}: {have:?}");
        errors.push(field::type_invalid(path, have, message));
        return;
    }
    let found = values::value(path, value, &node);
    let is_valid = found.is_empty();
    errors.extend(found);
    if is_valid && node.has_rules {
        errors.extend(crate::custom::rules::of_default(path, value, &node));
    }
}
