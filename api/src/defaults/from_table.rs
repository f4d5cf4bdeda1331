//! Defaults that the schema itself carries: `+default` markers, and `default` of CustomResourceDefinitions.
//!
//! A default is set where the field is absent, or `null` and not nullable. Structs that are absent stay
//! absent; canonical trees have all that are no pointers.

use apimachinery::schema::{Field, Type, TypeRef};
use serde_json::Value;

/// Sets the defaults of the schema at every level of `value`.
pub fn table_defaults(ty: TypeRef<'_>, value: &mut Value) {
    let builtin = std::ptr::eq(ty.schema(), crate::table().schema());
    if builtin && !crate::table().has_defaults(ty.id()) {
        return;
    }
    match (ty.ty(), value) {
        (Type::Object(object), Value::Object(map)) => {
            for field in &object.fields {
                let present = map.get(field.name.as_ref()).is_some_and(|value| !unset(value, field));
                if !present && let Some(default) = field.default().filter(|default| !go_omits(default, field)) {
                    map.insert(field.name.to_string(), default.clone());
                }
                // Defaults below a default apply too, as in a CRD's schema.
                if let Some(value) = map.get_mut(field.name.as_ref()) {
                    table_defaults(ty.at(field.ty), value);
                }
            }
        }
        (Type::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|item| table_defaults(ty.at(list.item), item));
        }
        (Type::Map(inner), Value::Object(entries)) => {
            entries.values_mut().for_each(|value| table_defaults(ty.at(inner.value), value));
        }
        _ => {}
    }
}

/// Go defaults what it takes for not set: nil, and the empty string where there is no pointer.
fn unset(value: &Value, field: &Field) -> bool {
    match value {
        Value::Null => !field.nullable,
        Value::String(text) => text.is_empty() && !field.pointer && field.omitempty,
        _ => false,
    }
}

/// A zero that Go leaves out again when it writes the object.
fn go_omits(default: &Value, field: &Field) -> bool {
    let zero = match default {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    zero && field.omitempty && !field.pointer
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table;

    #[test]
    fn protocols_and_empty_strings() {
        let service = table().find_resource("", "v1", "services").expect("built in");
        let mut object =
            json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 1, "protocol": ""}]}});
        crate::defaults::apply(service, &mut object);
        let protocols: Vec<&Value> =
            object["spec"]["ports"].as_array().expect("a list").iter().map(|p| &p["protocol"]).collect();
        assert_eq!(protocols, [&json!("TCP"), &json!("UDP"), &json!("TCP")]);
    }

    #[test]
    fn types_without_defaults_are_passed_over() {
        let id = |name: &str| table().named(name).expect("built in").id();
        for (name, has) in [("core/v1.Pod", true), ("core/v1.ContainerPort", true), ("core/v1.Secret", false)] {
            assert_eq!(table().has_defaults(id(name)), has, "{name}");
        }
    }
}
