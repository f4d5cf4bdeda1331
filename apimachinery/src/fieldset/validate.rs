//! Whether an object fits its type, as server-side apply asks of a configuration before anything
//! else: declared fields, scalars of the right kind, list items that can be told apart.

use super::compare::item_element;
use super::{PathElement, is_deduced};
use crate::gotext;
use crate::patch::go_value;
use crate::schema::{ListKind, Type, TypeRef};
use serde_json::Value;

/// Everything that does not fit, as one text in upstream's form; the first undeclared field of a struct
/// ends the look at that struct.
///
/// # Errors
/// The text.
pub fn validate(value: &Value, ty: TypeRef<'_>, duplicates: bool) -> Result<(), String> {
    let mut walk = Walk { path: String::new(), errors: Vec::new(), duplicates };
    walk.node(value, ty);
    match walk.errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

struct Walk {
    path: String,
    errors: Vec<String>,
    duplicates: bool,
}

impl Walk {
    fn error(&mut self, message: &str) {
        let text = if self.path.is_empty() { message.to_owned() } else { format!("{}: {message}", self.path) };
        self.errors.push(text);
    }

    fn below(&mut self, element: &PathElement, value: &Value, ty: TypeRef<'_>) {
        let length = self.path.len();
        self.path.push_str(&element.display());
        self.node(value, ty);
        self.path.truncate(length);
    }

    fn node(&mut self, value: &Value, ty: TypeRef<'_>) {
        if value.is_null() || is_deduced(ty) {
            return;
        }
        match ty.ty() {
            Type::Object(object) => {
                let Value::Object(map) = value else {
                    return self.error(&format!("expected map, got {}", pointer(value)));
                };
                for (key, value) in map {
                    let element = PathElement::field(key);
                    match ty.field(key) {
                        Some(field) => self.below(&element, value, field.ty),
                        None if object.preserve_unknown => {}
                        None => {
                            let length = self.path.len();
                            self.path.push_str(&element.display());
                            self.error("field not declared in schema");
                            self.path.truncate(length);
                            break;
                        }
                    }
                }
            }
            Type::Map(map_type) => {
                let Value::Object(map) = value else {
                    return self.error(&format!("expected map, got {}", pointer(value)));
                };
                for (key, value) in map {
                    self.below(&PathElement::field(key), value, ty.at(map_type.value));
                }
            }
            Type::List(list) => self.list(value, &list.kind, ty.at(list.item)),
            Type::String(_) | Type::Bytes | Type::Duration if !value.is_string() => {
                self.error(&format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)));
            }
            Type::Int32 | Type::Int64 | Type::Double if !value.is_number() => {
                self.error(&format!("expected numeric (int or float), got {}", gotext::type_of(value, "<nil>")));
            }
            Type::Bool if !value.is_boolean() => self.error(&format!("expected boolean, got {}", pointer(value))),
            // What may be a number or a string has no type in the schema, and so is anything.
            Type::Time | Type::MicroTime | Type::Quantity if value.is_object() || value.is_array() => {
                self.error(&format!("expected any scalar, got {}", pointer(value)));
            }
            _ => {}
        }
    }

    fn list(&mut self, value: &Value, kind: &ListKind, ty: TypeRef<'_>) {
        let Value::Array(items) = value else { return self.error(&format!("expected list, got {}", pointer(value))) };
        let mut seen: std::collections::BTreeSet<PathElement> = std::collections::BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let element = match kind {
                ListKind::Atomic => PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX)),
                kind => match item_element(item, kind, ty) {
                    Ok(element) => element,
                    Err(message) => return self.error(&format!("element {index}: {message}")),
                },
            };
            if *kind != ListKind::Atomic && !seen.insert(element.clone()) && !self.duplicates {
                self.error(&format!("duplicate entries for key {}", element.display()));
            }
            self.below(&element, item, ty);
        }
    }
}

/// Go's `%v` of a pointer to the wrapper around a value.
fn pointer(value: &Value) -> String {
    format!("&{{{}}}", go_value(value))
}

/// Go's `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::String(text) => crate::gotext::quote(text),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(k, v)| format!("{}:{}", crate::gotext::quote(k), go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        other => go_value(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fieldset::tests::sample;
    use serde_json::json;

    #[test]
    fn says_what_does_not_fit() {
        let (schema, root) = sample();
        for (object, want) in [
            (json!({"spec": {"replicas": 1, "ports": [{"port": 1}, {"port": 2, "protocol": "TCP"}]}}), ""),
            (json!({"spec": null}), ""),
            (json!({"spec": {"nope": 1}}), ".spec.nope: field not declared in schema"),
            (json!({"spec": {"replicas": "1"}}), ".spec.replicas: expected numeric (int or float), got string"),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
            ),
            (json!({"spec": {"args": {"a": "b"}}}), ".spec.args: expected list, got &{map[a:b]}"),
            (json!({"spec": [1]}), ".spec: expected map, got &{[1]}"),
            (
                json!({"spec": {"ports": [{"port": 1, "protocol": "TCP"}, {"port": 1, "protocol": "TCP"}]}}),
                ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
            ),
            (json!({"spec": {"finalizers": ["a", "a"]}}), ".spec.finalizers: duplicate entries for key [=\"a\"]"),
            (
                json!({"spec": {"ports": [null]}}),
                ".spec.ports: element 0: associative list with keys may not have a null element",
            ),
            // Keys that Go writes although nobody set them.
            (json!({"spec": {"ports": [{}]}}), ""),
            (
                json!({"metadata": {"name": 1}, "spec": {"replicas": true}}),
                "errors:\n  .metadata.name: expected string, got &value.valueUnstructured{Value:1}\n  .spec.replicas: expected numeric (int or float), got bool",
            ),
        ] {
            let got = validate(&object, schema.type_ref(root), false).err().unwrap_or_default();
            assert_eq!(got, want, "{object}");
        }
        let twice = json!({"spec": {"finalizers": ["a", "a"]}});
        assert_eq!(validate(&twice, schema.type_ref(root), true), Ok(()));
    }
}
