//! What Go would write: the tree after decoding it into a Go struct and encoding it again.
//!
//! Stored and returned objects must look as upstream's do, and upstream's look as Go's `encoding/json`
//! makes them: unknown fields gone, `null`s gone, empty values left out where the field says
//! `omitempty`, zero values written where it does not, quantities and times in canonical form.
//!
//! [`canonicalize`] changes the tree in place. It takes a tree whose types are right
//! ([`crate::check::check_fields`]); what is not right it leaves as it is.

use apimachinery::quantity::Quantity;
use apimachinery::schema::{Field, Type, TypeRef};
use apimachinery::time;
use apimachinery::{duration, go_base64, gotext};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Brings `value` into the form Go would give it.
pub fn canonicalize(ty: TypeRef<'_>, value: &mut Value) {
    form(ty, value, false);
}

/// As [`canonicalize`], but lists and maps that were given and are empty stay: Go tells them from absent ones
/// as long as the object is not written, which defaults and the texts of errors show.
pub fn canonicalize_decoded(ty: TypeRef<'_>, value: &mut Value) {
    form(ty, value, true);
}

/// An empty list or map that is not written, and where it was.
#[derive(Clone, Debug)]
pub struct Empty {
    pointer: String,
    value: Value,
}

/// Takes out of a tree of [`canonicalize_decoded`] what [`canonicalize`] would not have left in it.
pub fn take_empty(ty: TypeRef<'_>, value: &mut Value) -> Vec<Empty> {
    let mut taken = Vec::new();
    if any_empty(value) {
        take(ty, value, &mut String::new(), &mut taken);
    }
    taken
}

/// Puts back what [`take_empty`] took, where nothing has taken its place since.
pub fn put_empty(value: &mut Value, taken: &[Empty]) {
    for empty in taken {
        if let Some((parent, name)) = empty.pointer.rsplit_once('/')
            && let Some(Value::Object(parent)) = value.pointer_mut(parent)
        {
            let name = name.replace("~1", "/").replace("~0", "~");
            parent.entry(name).or_insert_with(|| empty.value.clone());
        }
    }
}

fn any_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty() || items.iter().any(any_empty),
        Value::Object(map) => map.is_empty() || map.values().any(any_empty),
        _ => false,
    }
}

fn take(ty: TypeRef<'_>, value: &mut Value, pointer: &mut String, taken: &mut Vec<Empty>) {
    let length = pointer.len();
    let enter = |pointer: &mut String, step: &str| {
        pointer.truncate(length);
        pointer.push('/');
        match step.contains(['~', '/']) {
            true => pointer.push_str(&step.replace('~', "~0").replace('/', "~1")),
            false => pointer.push_str(step),
        }
    };
    match (ty.ty(), value) {
        (Type::Object(_), Value::Object(map)) => map.retain(|name, value| {
            let Some(field) = ty.field(name) else { return true };
            enter(pointer, name);
            // An empty list of managed fields is a wish of its own: to start over.
            let kept = !(matches!(value, Value::Array(_) | Value::Object(_))
                && is_omitted(field.ty, field.field, value))
                || pointer == "/metadata/managedFields";
            if kept {
                take(field.ty, value, pointer, taken);
            } else {
                taken.push(Empty { pointer: pointer.clone(), value: value.take() });
            }
            kept
        }),
        (Type::List(list), Value::Array(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                enter(pointer, &index.to_string());
                take(ty.at(list.item), item, pointer, taken);
            }
        }
        (Type::Map(inner), Value::Object(entries)) => {
            for (name, value) in entries {
                enter(pointer, name);
                take(ty.at(inner.value), value, pointer, taken);
            }
        }
        _ => {}
    }
    pointer.truncate(length);
}

fn form(ty: TypeRef<'_>, value: &mut Value, keep_empty: bool) {
    match (ty.ty(), value) {
        (Type::Object(_), Value::Object(map)) => canonicalize_object(ty, map, keep_empty),
        (Type::List(list), Value::Array(items)) => {
            let item = ty.at(list.item);
            for value in items {
                element(item, value, keep_empty);
            }
        }
        (Type::Map(inner), Value::Object(entries)) => {
            let inner = ty.at(inner.value);
            for value in entries.values_mut() {
                element(inner, value, keep_empty);
            }
        }
        (Type::Int32 | Type::Int64 | Type::IntOrString, Value::Number(number)) if number.is_f64() => {
            // Whole floats pass where a tree was written and read again on its way.
            if let Some(integer) = number.as_f64().and_then(double).as_ref().and_then(Value::as_i64) {
                *number = integer.into();
            }
        }
        (Type::Double, value) => {
            if let Some(number) = value.as_f64().and_then(double) {
                *value = number;
            }
        }
        (Type::Quantity, value) => canonical_quantity(value),
        (Type::Time, Value::String(text)) => replace(text, time::canonical),
        (Type::MicroTime, Value::String(text)) => replace(text, time::canonical_micro),
        (Type::Duration, Value::String(text)) => {
            if let Ok(nanoseconds) = duration::parse(text) {
                *text = duration::format(nanoseconds);
            }
        }
        (Type::Bytes, Value::String(text)) => {
            // Only texts that Go reads and would not write are touched.
            if let (Err(_), Ok(bytes)) = (STANDARD.decode(&*text), go_base64::decode(text)) {
                *text = STANDARD.encode(bytes);
            }
        }
        (Type::Bytes, value @ Value::Array(_)) => {
            let bytes: Option<Vec<u8>> = value.as_array().into_iter().flatten().map(octet).collect();
            if let Some(bytes) = bytes {
                *value = STANDARD.encode(bytes).into();
            }
        }
        (Type::SchemaOrBool(schema) | Type::SchemaOrArray(schema) | Type::SchemaOrStringArray(schema), value) => {
            match value {
                Value::Object(_) => form(ty.at(*schema), value, keep_empty),
                Value::Array(items) => items.iter_mut().for_each(|item| form(ty.at(*schema), item, keep_empty)),
                Value::Bool(_) if matches!(ty.ty(), Type::SchemaOrBool(_)) => {}
                // Read as nothing, and written so.
                other => *other = Value::Null,
            }
        }
        _ => {}
    }
}

/// Turns empty lists into `null`: upstream stores built-in kinds as protobuf, which knows no empty list, and
/// answers what it stored.
pub fn null_empty_lists(ty: TypeRef<'_>, value: &mut Value) {
    if any_empty_list(value) {
        null_lists(ty, value);
    }
}

fn any_empty_list(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty() || items.iter().any(any_empty_list),
        Value::Object(map) => map.values().any(any_empty_list),
        _ => false,
    }
}

fn null_lists(ty: TypeRef<'_>, value: &mut Value) {
    match (ty.ty(), value) {
        (Type::Object(_), Value::Object(map)) => {
            for field in ty.fields() {
                let Some(value) = map.get_mut(field.name.as_ref()) else { continue };
                let inner = ty.at(field.ty);
                if matches!(inner.ty(), Type::List(_)) && value.as_array().is_some_and(Vec::is_empty) {
                    *value = Value::Null;
                } else {
                    null_lists(inner, value);
                }
            }
        }
        (Type::List(list), Value::Array(items)) => items.iter_mut().for_each(|item| null_lists(ty.at(list.item), item)),
        (Type::Map(inner), Value::Object(map)) => {
            map.values_mut().for_each(|value| null_lists(ty.at(inner.value), value));
        }
        _ => {}
    }
}

/// An item of a list or a value of a map: `null` is the zero value, or stays `null` where Go has a
/// pointer, a slice or a map.
fn element(ty: TypeRef<'_>, value: &mut Value, keep_empty: bool) {
    if value.is_null() {
        if let Some(zero) = zero(ty, &Field::new("", ty.id())) {
            *value = zero;
        }
    } else {
        form(ty, value, keep_empty);
    }
}

fn canonicalize_object(ty: TypeRef<'_>, map: &mut Map<String, Value>, keep_empty: bool) {
    map.retain(|name, value| match ty.field(name) {
        None => false,
        Some(field) => {
            if value.is_null() {
                return false;
            }
            form(field.ty, value, keep_empty);
            keep_empty && matches!(value, Value::Array(_) | Value::Object(_))
                || !is_omitted(field.ty, field.field, value)
        }
    });
    for field in ty.fields() {
        // Few fields are written when they are not set: they are looked for, the others are not.
        if is_written(ty.at(field.ty), field)
            && !map.contains_key(field.name.as_ref())
            && let Some(value) = zero(ty.at(field.ty), field)
        {
            map.insert(field.name.to_string(), value);
        }
    }
}

/// Whether Go writes a field that was never set: whether [`zero`] has a value for it.
fn is_written(ty: TypeRef<'_>, field: &Field) -> bool {
    if field.pointer {
        return !field.omitempty;
    }
    match ty.ty() {
        Type::String(_) | Type::Int32 | Type::Int64 | Type::Double | Type::Bool => !field.omitempty,
        Type::Bytes | Type::List(_) | Type::Map(_) => !field.omitempty,
        _ => !field.omitzero,
    }
}

/// True when Go leaves out a value that is present.
fn is_omitted(ty: TypeRef<'_>, field: &Field, value: &Value) -> bool {
    if !field.omitempty || field.pointer {
        return false;
    }
    match ty.ty() {
        Type::String(_) | Type::Bytes => value.as_str() == Some(""),
        Type::Int32 | Type::Int64 => value.as_i64() == Some(0),
        Type::Double => value.as_f64() == Some(0.0),
        Type::Bool => value == &Value::Bool(false),
        Type::List(_) => value.as_array().is_some_and(Vec::is_empty),
        Type::Map(_) => value.as_object().is_some_and(Map::is_empty),
        // Structs are never empty to Go.
        _ => false,
    }
}

/// What Go writes for a field that was never set; `None` when it writes nothing.
pub(crate) fn zero(ty: TypeRef<'_>, field: &Field) -> Option<Value> {
    // TypeMeta is the caller's: every object of the pipeline has it, embedded ones often do not.
    if field.pointer {
        return (!field.omitempty).then_some(Value::Null);
    }
    let scalar = |value: Value| (!field.omitempty).then_some(value);
    match ty.ty() {
        Type::String(_) => scalar(Value::String(String::new())),
        Type::Int32 | Type::Int64 => scalar(Value::from(0)),
        Type::Double => scalar(Value::from(0)),
        Type::Bool => scalar(Value::Bool(false)),
        Type::Bytes | Type::List(_) | Type::Map(_) => scalar(Value::Null),
        // Structs from here on: `omitempty` means nothing to them, `omitzero` does.
        _ if field.omitzero => None,
        Type::Object(_) => {
            let mut map = Map::new();
            for inner in ty.fields() {
                if let Some(value) = zero(ty.at(inner.ty), inner) {
                    map.insert(inner.name.to_string(), value);
                }
            }
            Some(Value::Object(map))
        }
        Type::Quantity => Some(Value::String("0".to_owned())),
        Type::IntOrString => Some(Value::from(0)),
        Type::Duration => Some(Value::String("0s".to_owned())),
        Type::SchemaOrBool(_) => Some(Value::Bool(false)),
        // `interface{}` is the one of these that is no struct.
        _ => Some(Value::Null),
    }
}

/// A double as Go writes it: without a fraction where there is none. `None` for what JSON cannot say.
pub(crate) fn double(value: f64) -> Option<Value> {
    let whole = value.fract() == 0.0 && value.abs() < 9e18;
    if whole { Some(Value::from(value as i64)) } else { serde_json::Number::from_f64(value).map(Value::Number) }
}

/// A byte that is given as a number; nothing is zero.
fn octet(value: &Value) -> Option<u8> {
    if value.is_null() { Some(0) } else { u8::try_from(value.as_i64()?).ok() }
}

fn canonical_quantity(value: &mut Value) {
    let canonical = match &*value {
        // Go's reader passes over blanks around it.
        Value::String(text) => Quantity::canonical(text.trim()),
        Value::Number(_) => Quantity::canonical(&gotext::json(value)),
        _ => return,
    };
    if let Ok(text) = canonical {
        *value = Value::String(text);
    }
}

fn replace<E>(text: &mut String, canonical: impl Fn(&str) -> Result<String, E>) {
    if let Ok(new) = canonical(text) {
        *text = new;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table;

    #[test]
    fn empty_lists_are_not_stored() {
        let ty = table().find_kind("rbac.authorization.k8s.io", "v1", "Role").expect("built in");
        let mut role = json!({"metadata": {}, "rules": []});
        null_empty_lists(ty, &mut role);
        assert_eq!(role, json!({"metadata": {}, "rules": null}));
    }

    #[test]
    fn what_is_written_has_a_zero() {
        for (name, ty) in table().types() {
            for field in ty.fields() {
                let inner = ty.at(field.ty);
                assert_eq!(is_written(inner, field), zero(inner, field).is_some(), "{name}.{}", field.name);
            }
        }
    }

    #[test]
    fn empty_lists_and_maps_are_seen_before_they_are_left_out() {
        let ty = table().find_kind("", "v1", "ConfigMap").expect("built in");
        let given = json!({"metadata": {"name": "a", "labels": {}, "finalizers": [], "managedFields": []}, "data": {}, "immutable": false});
        let mut decoded = given.clone();
        canonicalize_decoded(ty, &mut decoded);
        assert_eq!(decoded, given);
        let taken = take_empty(ty, &mut decoded);
        assert_eq!(decoded, json!({"metadata": {"name": "a", "managedFields": []}, "immutable": false}));
        decoded["data"] = json!({"a": "b"});
        put_empty(&mut decoded, &taken);
        assert_eq!(decoded["metadata"], given["metadata"]);
        assert_eq!(decoded["data"], json!({"a": "b"}));
    }

    #[test]
    fn doubles_without_a_fraction_are_integers() {
        for (given, written) in [(0.0, "0"), (1.0, "1"), (-3.0, "-3"), (1.5, "1.5"), (1e300, "1e+300")] {
            assert_eq!(double(given).as_ref().map(gotext::json).as_deref(), Some(written));
        }
        assert_eq!(double(f64::NAN), None);
    }

    #[test]
    fn as_go_writes_it() {
        for (kind, given, expected) in [
            // Zero structs appear, nulls and empty omitempty values go, unknown fields go.
            (
                "ConfigMap",
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {}, "x": 1}, "data": null}),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}),
            ),
            (
                "Secret",
                json!({"data": {"a": [1, null, 255], "b": []}}),
                json!({"metadata": {}, "data": {"a": "AQD/", "b": ""}}),
            ),
            (
                "Namespace",
                json!({"metadata": {"creationTimestamp": null}, "spec": null}),
                json!({"metadata": {}, "spec": {}, "status": {}}),
            ),
            (
                "Service",
                json!({"spec": {"ports": [{"port": 80, "targetPort": null}], "clusterIP": ""}}),
                json!({"metadata": {}, "spec": {"ports": [{"port": 80, "targetPort": 0}]}, "status": {"loadBalancer": {}}}),
            ),
            // A pointer to an empty struct is a choice, a null condition time is upstream's.
            (
                "Pod",
                json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1024Ki"}}}], "securityContext": {}},
                       "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
                json!({"metadata": {}, "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1Mi"}}}], "securityContext": {}},
                       "status": {"conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null}]}}),
            ),
        ] {
            let ty = table().find_kind("", "v1", kind).expect("built in");
            let mut value = given;
            canonicalize(ty, &mut value);
            assert_eq!(value, expected, "{kind}");
            let again = value.clone();
            canonicalize(ty, &mut value);
            assert_eq!(value, again, "{kind} a second time");
        }
    }
}
