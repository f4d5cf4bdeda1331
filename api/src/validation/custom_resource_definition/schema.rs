//! The schema itself: what OpenAPI fields may be used, list and map types, rules.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use serde_json::{Value, json};

use super::{Options, defaults, members, paths, rules, shown, structural};
use crate::read::Read;

/// Names of fields as Go's struct has them, in its order, which a message shows.
const AT_ROOT: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Whether a schema, or one anywhere below it, is as asked.
pub fn any(schema: &Value, wanted: &dyn Fn(&Value) -> bool) -> bool {
    if !schema.is_object() {
        return false;
    }
    let one = |name: &str| schema.get(name).is_some_and(|below| any(below, wanted));
    let many = |name: &str| schema.list(name).iter().any(|below| any(below, wanted));
    let named = |name: &str| members(schema, name).any(|(_, below)| any(below, wanted));
    wanted(schema)
        || one("items")
        || many("items")
        || ["allOf", "anyOf", "oneOf"].iter().any(|name| many(name))
        || ["not", "additionalProperties", "additionalItems"].iter().any(|name| one(name))
        || ["properties", "patternProperties", "definitions", "dependencies"].iter().any(|name| named(name))
}

pub(super) fn has_invalid_type(schema: &Value) -> bool {
    let kind = schema.text("type");
    !kind.is_empty() && !TYPES.contains(&kind)
}

pub(super) fn has_extensions(schema: &Value) -> bool {
    schema.flag("x-kubernetes-embedded-resource")
        || schema.set("x-kubernetes-preserve-unknown-fields").is_some()
        || schema.flag("x-kubernetes-int-or-string")
        || !schema.list("x-kubernetes-list-map-keys").is_empty()
        || schema.set("x-kubernetes-list-type").is_some()
        || !schema.list("x-kubernetes-validations").is_empty()
}

pub(super) fn has_granular_set(schema: &Value) -> bool {
    let mut errors = ErrorList::new();
    atomic_items(schema, &Path::new(""), &mut errors);
    !errors.is_empty()
}

/// What is wrong with the schema of a version (`validation` is the object around it).
pub(super) fn validate(
    validation: &Value,
    status: bool,
    options: &Options,
    unchanged: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let Some(schema) = validation.set("openAPIV3Schema") else { return };
    let before = errors.len();
    if status {
        root_of_status(schema, path, errors);
    }
    let schema_path = path.child("openAPIV3Schema");
    if schema.flag("nullable") {
        errors.push(field::forbidden(&path.child("openAPIV3Schema.nullable"), "nullable cannot be true at the root"));
    }
    let mut unsupported = None;
    let mut rules = None;
    if options.structural_schema {
        if let Some(why) = structural::unsupported(schema) {
            unsupported = Some(why);
        } else {
            let mut found = structural::validate(&schema_path, schema);
            if found.is_empty() {
                found = defaults::validate(&schema_path, schema, options.pruned_defaults);
            }
            if found.is_empty() {
                rules = Some(rules::Checker::new(schema, unchanged, options.old_rules));
            }
            errors.extend(found);
        }
    }
    let mut walk = Walk { options, schema_errors: ErrorList::new(), rule_errors: ErrorList::new(), rules };
    let state = State { defaults: Ok(()), inside_meta: false, uncorrelatable: None };
    let at = walk.rules.as_ref().map(rules::Checker::root);
    walk.schema(schema, &schema_path, &state, true, at);
    let Walk { schema_errors, rule_errors, rules, .. } = walk;
    errors.extend(schema_errors);
    errors.extend(rule_errors);
    if let Some(why) = unsupported.filter(|_| errors.len() == before) {
        errors.push(field::invalid(&schema_path, "", why));
    }
    if let Some(rules) = rules {
        rules.total(&schema_path, errors);
    }
}

fn root_of_status(schema: &Value, path: &Path, errors: &mut ErrorList) {
    for (name, value) in schema.as_object().into_iter().flatten() {
        if value.is_null() || *value == json!("") || *value == json!(false) || *value == json!([]) {
            continue;
        }
        if name == "type" {
            if schema.text("type") != "object" {
                errors.push(field::invalid(
                    &path.child("openAPIV3Schema.type"),
                    schema.text("type"),
                    "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
                ));
                return;
            }
            continue;
        }
        let go = match name.as_str() {
            "x-kubernetes-preserve-unknown-fields" => "XPreserveUnknownFields".to_owned(),
            "x-kubernetes-validations" => "XValidations".to_owned(),
            name => {
                let mut chars = name.chars();
                chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
            }
        };
        if !AT_ROOT.contains(&go.as_str()) {
            errors.push(field::invalid(
                &path.child("openAPIV3Schema"),
                shown::schema(schema),
                format!(
                    "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                    AT_ROOT.join(" ")
                ),
            ));
            return;
        }
    }
}

/// What a place in the schema inherits.
#[derive(Clone)]
struct State {
    /// Or why there may be none.
    defaults: Result<(), String>,
    inside_meta: bool,
    /// Above which old values cannot be told.
    uncorrelatable: Option<Path>,
}

struct Walk<'a> {
    options: &'a Options,
    schema_errors: ErrorList,
    rule_errors: ErrorList,
    rules: Option<rules::Checker>,
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Value, path: &Path, state: &State, root: bool, at: Option<rules::Place>) {
        if !schema.is_object() {
            return;
        }
        self.standard(schema, path, state);
        let errors = &mut self.schema_errors;
        if schema.flag("uniqueItems") {
            errors.push(field::forbidden(
                &path.child("uniqueItems"),
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ));
        }
        if let Some(additional) = schema.set("additionalProperties") {
            if members(schema, "properties").next().is_some() && *additional != json!(true) {
                errors.push(field::forbidden(
                    &path.child("additionalProperties"),
                    "additionalProperties and properties are mutual exclusive",
                ));
            }
            let mut state = state.clone();
            if state.inside_meta {
                state.defaults = Err("inside additionalProperties applying to object metadata".to_owned());
            }
            let at = self.rules.as_ref().zip(at.as_ref()).and_then(|(rules, at)| rules.additional(at, schema));
            self.schema(additional, &path.child("additionalProperties"), &state, false, at);
        }
        for (name, property) in members(schema, "properties") {
            let mut state = state.clone();
            if !matches!(schema.text("x-kubernetes-map-type"), "" | "granular") {
                state.uncorrelatable.get_or_insert_with(|| path.clone());
            }
            let is_meta = matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
            if (root || schema.flag("x-kubernetes-embedded-resource")) && is_meta {
                state.inside_meta = true;
                if root {
                    state.defaults = Err(format!("in top-level {name}"));
                }
            }
            let at = self.rules.as_ref().zip(at.as_ref()).and_then(|(rules, at)| rules.property(at, name, property));
            self.schema(property, &path.child("properties").key(name.clone()), &state, false, at);
        }
        self.schema(&schema["not"], &path.child("not"), state, false, None);
        for name in ["allOf", "oneOf", "anyOf"] {
            for (i, branch) in schema.list(name).iter().enumerate() {
                self.schema(branch, &path.child(name).index(i), state, false, None);
            }
        }
        for (name, definition) in members(schema, "definitions") {
            self.schema(definition, &path.child("definitions").key(name.clone()), state, false, None);
        }
        if let Some(items) = schema.set("items") {
            let mut state = state.clone();
            if schema.text("x-kubernetes-list-type") != "map" {
                state.uncorrelatable.get_or_insert_with(|| path.clone());
            }
            let at = self.rules.as_ref().zip(at.as_ref()).and_then(|(rules, at)| rules.items(at, schema));
            self.schema(items, &path.child("items"), &state, false, at);
            for (i, item) in schema.list("items").iter().enumerate() {
                self.schema(item, &path.child("items").index(i), &state, false, None);
            }
        }
        for (name, dependency) in members(schema, "dependencies") {
            self.schema(dependency, &path.child("dependencies").key(name.clone()), state, false, None);
        }
        extensions(schema, path, self.options, &mut self.schema_errors);
        self.validations(schema, path, state, at);
    }

    /// `specStandardValidatorV3`.
    fn standard(&mut self, schema: &Value, path: &Path, state: &State) {
        let errors = &mut self.schema_errors;
        let kind = schema.text("type");
        if self.options.valid_property_type && has_invalid_type(schema) {
            errors.push(field::not_supported(&path.child("type"), kind, &TYPES));
        }
        if schema.set("default").is_some()
            && let Err(reason) = &state.defaults
        {
            errors.push(field::forbidden(&path.child("default"), format!("must not be set {reason}")));
        }
        let mut unsupported = |name: &'static str, is_set: bool| {
            if is_set {
                errors.push(field::forbidden(&path.child(name), format!("{name} is not supported")));
            }
        };
        unsupported("id", !schema.text("id").is_empty());
        unsupported("additionalItems", schema.set("additionalItems").is_some());
        unsupported("patternProperties", members(schema, "patternProperties").next().is_some());
        unsupported("definitions", members(schema, "definitions").next().is_some());
        unsupported("dependencies", schema.set("dependencies").is_some());
        unsupported("$ref", schema.set("$ref").is_some());
        if kind == "null" {
            errors.push(field::forbidden(
                &path.child("type"),
                "type cannot be set to null, use nullable as an alternative",
            ));
        }
        if !schema.list("items").is_empty() {
            errors.push(field::forbidden(&path.child("items"), "items must be a schema object and not an array"));
        }
        if state.inside_meta && schema.flag("x-kubernetes-embedded-resource") {
            errors.push(field::forbidden(
                &path.child("x-kubernetes-embedded-resource"),
                "must not be used inside of resource meta",
            ));
        }
    }

    fn validations(&mut self, schema: &Value, path: &Path, state: &State, at: Option<rules::Place>) {
        const REASONS: [&str; 4] =
            ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        let list = schema.list("x-kubernetes-validations");
        if list.is_empty() {
            return;
        }
        let errors = &mut self.schema_errors;
        let rules_path = path.child("x-kubernetes-validations");
        let has_newlines = |text: &str| text.contains(['\n', '\r']);
        for (i, rule) in list.iter().enumerate() {
            let path = rules_path.index(i);
            let (text, message) = (rule.text("rule").trim(), rule.text("message"));
            if text.is_empty() {
                errors.push(field::required(&path.child("rule"), "rule is not specified"));
            } else if !message.is_empty() && message.trim().is_empty() {
                errors.push(field::invalid(&path.child("message"), message, "must be non-empty if specified"));
            } else if has_newlines(message.trim()) {
                errors.push(field::invalid(&path.child("message"), message, "must not contain line breaks"));
            } else if has_newlines(text) && message.trim().is_empty() {
                errors.push(field::required(
                    &path.child("message"),
                    "message must be specified if rule contains line breaks",
                ));
            }
            let expression = rule.text("messageExpression");
            if !expression.is_empty() && expression.trim().is_empty() {
                errors.push(field::required(
                    &path.child("messageExpression"),
                    "messageExpression must be non-empty if specified",
                ));
            }
            if let Some(reason) = rule.set("reason").and_then(Value::as_str)
                && !REASONS.contains(&reason)
            {
                errors.push(field::not_supported(&path.child("reason"), reason, &REASONS));
            }
            let place = rule.text("fieldPath");
            let place_path = path.child("fieldPath");
            if !place.is_empty() && place.trim().is_empty() {
                errors.push(field::invalid(&place_path, place, "must be non-empty if specified"));
            }
            if has_newlines(place) {
                errors.push(field::invalid(&place_path, place, "must not contain line breaks"));
            }
            if !place.is_empty() && paths::find(place, schema, true).is_err() {
                errors.push(field::invalid(&place_path, place, "must be a valid path"));
            }
        }
        if !self.schema_errors.is_empty() {
            return;
        }
        if let (Some(rules), Some(at)) = (&mut self.rules, at) {
            rules.check(list, &at, &rules_path, state.uncorrelatable.as_ref(), &mut self.rule_errors);
        }
    }
}

fn extensions(schema: &Value, path: &Path, options: &Options, errors: &mut ErrorList) {
    let kind = schema.text("type");
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(false)) {
        let path = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(field::invalid(&path, false, "must be true or undefined"));
    }
    let must_be = |wanted: &str, because: &str, errors: &mut ErrorList| {
        let message = format!("must be {wanted} if {because} is specified");
        errors.push(if kind.is_empty() {
            field::required(&path.child("type"), message)
        } else {
            field::invalid(&path.child("type"), kind, message)
        });
    };
    let map_type = schema.set("x-kubernetes-map-type").and_then(Value::as_str);
    if let Some(map_type) = map_type {
        if kind != "object" {
            must_be("object", "x-kubernetes-map-type", errors);
        }
        if !matches!(map_type, "atomic" | "granular") {
            let path = path.child("x-kubernetes-map-type");
            errors.push(field::not_supported(&path, map_type, &["atomic", "granular"]));
        }
    }
    let list_type = schema.set("x-kubernetes-list-type").and_then(Value::as_str);
    let list_path = path.child("x-kubernetes-list-type");
    if let Some(list_type) = list_type {
        if kind != "array" {
            must_be("array", "x-kubernetes-list-type", errors);
        } else if options.atomic_sets {
            atomic_items(schema, path, errors);
        }
        if !matches!(list_type, "atomic" | "set" | "map") {
            errors.push(field::not_supported(&list_path, list_type, &["atomic", "set", "map"]));
        }
    }
    let keys: Vec<&str> = schema.texts("x-kubernetes-list-map-keys").collect();
    if !keys.is_empty() {
        const MUST: &str = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.push(field::required(&list_path, MUST)),
            Some("map") => {}
            Some(other) => errors.push(field::invalid(&list_path, other, MUST)),
        }
    }
    if list_type == Some("map") {
        map_lists(schema, &keys, path, errors);
    }
    if options.map_list_keys {
        map_list_keys(schema, path, errors);
    }
}

/// Items of sets must be atomic.
fn atomic_items(schema: &Value, path: &Path, errors: &mut ErrorList) {
    const MUST: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
    if schema.text("x-kubernetes-list-type") != "set" {
        return;
    }
    let Some(items) = schema.set("items").filter(|items| items.is_object()) else { return };
    let list_type = items.get("x-kubernetes-list-type").cloned();
    let shown = || list_type.clone().map_or(BadValue::Raw("null".into()), BadValue::Value);
    match items.text("type") {
        "array" if !matches!(items.text("x-kubernetes-list-type"), "" | "atomic") => {
            errors.push(field::invalid(&path.child("items").child("x-kubernetes-list-type"), shown(), MUST));
        }
        "object" if items.text("x-kubernetes-map-type") != "atomic" => {
            errors.push(field::invalid(&path.child("items").child("x-kubernetes-map-type"), shown(), MUST));
        }
        _ => {}
    }
}

fn map_lists(schema: &Value, keys: &[&str], path: &Path, errors: &mut ErrorList) {
    let keys_path = path.child("x-kubernetes-list-map-keys");
    let items_path = path.child("items");
    if keys.is_empty() {
        errors.push(field::required(&keys_path, "must not be empty if x-kubernetes-list-type is map"));
    }
    let Some(items) = schema.set("items") else {
        errors.push(field::required(&items_path, "must have a schema if x-kubernetes-list-type is map"));
        return;
    };
    if !items.is_object() {
        let message = "must only have a single schema if x-kubernetes-list-type is map";
        errors.push(field::invalid(&items_path, items, message));
        return;
    }
    if items.text("type") != "object" {
        let message = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(field::invalid(&items_path.child("type"), items.text("type"), message));
        return;
    }
    for (i, key) in keys.iter().enumerate() {
        match items["properties"].set(key) {
            Some(property) => {
                if matches!(property.text("type"), "array" | "object") {
                    let path = items_path.child("properties").key(*key).child("type");
                    let message = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    errors.push(field::invalid(&path, items.text("type"), message));
                }
            }
            None => {
                errors.push(field::invalid(&keys_path, json!(keys), "entries must all be names of item properties"));
            }
        }
        if keys[..i].contains(key) {
            errors.push(field::invalid(&keys_path, json!(keys), "must not contain duplicate entries"));
        }
    }
}

/// Keys of associative lists are there in every item, and are not null.
pub(super) fn map_list_keys(schema: &Value, path: &Path, errors: &mut ErrorList) {
    let list_type = schema.text("x-kubernetes-list-type");
    let Some(items) = schema.set("items").filter(|items| items.is_object()) else { return };
    if !matches!(list_type, "set" | "map") {
        return;
    }
    let items_path = path.child("items");
    if items.flag("nullable") {
        let message = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(field::forbidden(&items_path.child("nullable"), message));
    }
    if list_type != "map" {
        return;
    }
    for key in schema.texts("x-kubernetes-list-map-keys") {
        let Some(property) = items["properties"].set(key) else { continue };
        let path = items_path.child("properties").key(key);
        if !items.texts("required").any(|required| required == key) && property.set("default").is_none() {
            errors.push(field::required(
                &path.child("default"),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ));
        }
        if property.flag("nullable") {
            errors.push(field::forbidden(
                &path.child("nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            ));
        }
    }
}
