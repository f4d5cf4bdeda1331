//! What custom resources do differently from built-in ones: upstream's
//! `pkg/registry/customresource`.

use api::custom::{Correlated, list_type, meta, validate};
use apimachinery::field::{self, ErrorList, ErrorType, FieldError, Path};
use apimachinery::gotext::{self, quote};
use apimachinery::names;
use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use super::{Custom, Scale};
use crate::registry::hooks::{HookContext, Hooks};

/// The hooks of every custom resource.
pub struct CustomResource;

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

impl Hooks for CustomResource {
    fn prepare_update(&self, cx: &HookContext<'_>, new: &mut Value, old: &Value) {
        if cx.subresource != "status" {
            return;
        }
        // Only the status may change; who manages what was worked out already.
        let status = new.get_mut("status").map(Value::take);
        let managed = new.at(&["metadata", "managedFields"]).cloned();
        *new = old.clone();
        match managed {
            Some(managed) => new.set_at(&["metadata", "managedFields"], managed),
            None => {
                new.remove_at(&["metadata", "managedFields"]);
            }
        }
        match status {
            Some(status) => new.set_at(&["status"], status),
            None => {
                new.remove_at(&["status"]);
            }
        }
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut added: Vec<&str> =
            new.finalizers().filter(|name| old.is_none_or(|old| old.finalizers().all(|had| had != *name))).collect();
        added.sort_unstable();
        added.dedup();
        added.into_iter().flat_map(finalizer_warnings).collect()
    }
}

fn finalizer_warnings(name: &str) -> Vec<String> {
    const PATH: &str = "metadata.finalizers";
    let mut warnings: Vec<String> =
        names::qualified_name(name).iter().map(|why| format!("{PATH}: {}: {why}", quote(name))).collect();
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        warnings.push(format!(
            "{PATH}: {}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers",
            quote(name)
        ));
    }
    warnings
}

impl Custom {
    /// What is wrong with a new object.
    pub fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = self.type_meta(object);
        if !errors.is_empty() {
            return errors;
        }
        api::validation::custom_metadata(object, self.definition.namespaced, &mut errors);
        if let Some(node) = self.node() {
            errors.extend(validate::value(&Path::nil(), object, node));
        }
        self.scale_spec(object, &mut errors);
        self.scale_status(object, &mut errors);
        if let Some(node) = self.node() {
            meta::validate(&Path::nil(), object, node, false, &mut errors);
            list_type::validate(&Path::nil(), object, node, &mut errors);
        }
        self.rules(object, None, &mut errors);
        errors
    }

    /// What is wrong with an object that replaces another. What rules have against parts that did
    /// not change is forgiven, and told.
    pub fn validate_update(
        &self,
        subresource: &str,
        new: &Value,
        old: &Value,
        forgiven: &mut Vec<String>,
    ) -> ErrorList {
        let mut errors = self.type_meta(new);
        if !errors.is_empty() {
            return errors;
        }
        // Upstream looks at the metadata before the kind's own rules, which look again.
        api::validation::custom_metadata_any_update(new, old, self.definition.namespaced, &mut errors);
        api::validation::custom_metadata_update(new, old, &mut errors);
        let node = self.node();
        if subresource == "status" {
            if let (Some(status), Some(node)) = (new.get("status"), node)
                && let Some(status_node) = node.property("status")
            {
                let path = Path::new("status");
                let whole = Correlated { old, new, node };
                errors.extend(match whole.key("status") {
                    Some(correlated) => validate::update(&path, correlated),
                    None => validate::value(&path, status, status_node),
                });
            }
        } else {
            if let Some(node) = node {
                errors.extend(validate::update(&Path::nil(), Correlated { old, new, node }));
            }
            self.scale_spec(new, &mut errors);
        }
        self.scale_status(new, &mut errors);
        if let Some(node) = node {
            if subresource != "status" {
                meta::validate(&Path::nil(), new, node, false, &mut errors);
            }
            let mut before = ErrorList::new();
            list_type::validate(&Path::nil(), old, node, &mut before);
            if before.is_empty() {
                list_type::validate(&Path::nil(), new, node, &mut errors);
            }
        }
        forgiven.extend(self.rules(new, Some(old), &mut errors));
        errors
    }

    fn type_meta(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let kind = &self.definition.kind;
        if object.kind() != kind {
            errors.push(field::invalid(&Path::new("kind"), object.kind(), format!("must be {kind}")));
        }
        let api_version = self.definition.api_version(self.at);
        if object.api_version() != api_version {
            errors.push(field::invalid(
                &Path::new("apiVersion"),
                object.api_version(),
                format!("must be {api_version}"),
            ));
        }
        errors
    }

    fn scale_spec(&self, object: &Value, errors: &mut ErrorList) {
        if let Some(scale) = &self.version().scale {
            replicas(&scale.spec_replicas_path, object, errors);
        }
    }

    fn scale_status(&self, object: &Value, errors: &mut ErrorList) {
        let Some(scale) = &self.version().scale else { return };
        replicas(&scale.status_replicas_path, object, errors);
        if let Some(path) = &scale.label_selector_path
            && let Err(error) = nested(object, path, "string", |value| value.as_str().map(str::to_owned))
        {
            errors.push(field::invalid(&Path::new(path.clone()), "", error));
        }
    }

    /// Whatever `x-kubernetes-validations` has against the object.
    fn rules(&self, new: &Value, old: Option<&Value>, errors: &mut ErrorList) -> Vec<String> {
        let Some(node) = self.node().filter(|node| node.has_rules) else { return Vec::new() };
        let Some(programs) = self.definition.programs(self.at) else { return Vec::new() };
        if errors.iter().any(blocks) {
            errors.push(unchecked());
            return Vec::new();
        }
        let findings = programs.validate(&Path::nil(), new, old, node);
        errors.extend(findings.errors);
        findings.warnings
    }
}

/// Errors after which rules are not worth checking: their objects are not what they expect.
fn blocks(error: &FieldError) -> bool {
    matches!(
        error.kind,
        ErrorType::NotSupported
            | ErrorType::Required
            | ErrorType::TooLong
            | ErrorType::TooMany
            | ErrorType::TypeInvalid
    )
}

fn unchecked() -> FieldError {
    field::invalid(
        &Path::nil(),
        Value::Null,
        "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
    )
}

fn replicas(path: &str, object: &Value, errors: &mut ErrorList) {
    let at = Path::new(path.to_owned());
    match nested(object, path, "int64", Value::as_i64) {
        Err(error) => errors.push(field::invalid(&at, 0i64, error)),
        Ok(Some(count)) if count < 0 => errors.push(field::invalid(&at, count, "should be a non-negative integer")),
        Ok(Some(count)) if count > i64::from(i32::MAX) => {
            errors.push(field::invalid(&at, count, format!("should be less than or equal to {}", i32::MAX)));
        }
        Ok(_) => {}
    }
}

/// A value at a path of keys, in upstream's words when it is of another type.
///
/// # Errors
/// When the value, or something on the way to it, is of another type.
pub fn nested<T>(
    object: &Value,
    path: &str,
    wanted: &str,
    take: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, String> {
    let keys = Scale::keys(path);
    let mut at = object;
    for key in &keys {
        let Some(map) = at.as_object() else {
            // A null on the way is nothing at all.
            if at.is_null() {
                return Ok(None);
            }
            return Err(format!(
                ".{} accessor error: {} is of the type {}, expected map[string]interface{{}}",
                keys.join("."),
                go_value(at),
                gotext::type_of(at, "<nil>")
            ));
        };
        match map.get(*key) {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    match take(at) {
        Some(value) => Ok(Some(value)),
        None => Err(format!(
            ".{} accessor error: {} is of the type {}, expected {wanted}",
            keys.join("."),
            go_value(at),
            gotext::type_of(at, "<nil>")
        )),
    }
}

fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Object(map) => {
            let members: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        other => apimachinery::jsonpath::to_text(other),
    }
}
