//! Strategic merge patch: merge patch that knows which lists are maps.
//!
//! Follows upstream's `util/strategicpatch` step by step, its directives (`$patch`, `$retainKeys`,
//! `$setElementOrder/…`, `$deleteFromPrimitiveList/…`) and its errors. Where Go iterates maps in
//! random order this iterates sorted, so which of several errors is reported is at least stable.

mod apply;
mod diff;
mod order;

pub use apply::{apply, without_nulls};
pub use diff::{three_way, two_way};

use crate::gotext::{self, quote};
use crate::schema::{Type, TypeRef};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

type Tree = Map<String, Value>;

/// A patch that cannot be applied or made; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Invalid(String),
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,

    #[error("lists of lists are not supported")]
    ListOfLists,
    /// Someone else changed what the patch would change, and overwriting was not asked for.
    #[error("patch:\n{patch}\nconflicts with changes made from original to current:\n{changed}\n")]
    Conflict { patch: String, changed: String },
}

type Result<T> = std::result::Result<T, Error>;

fn invalid<T>(message: String) -> Result<T> {
    Err(Error::Invalid(message))
}

/// How one field merges, and the type behind it (the item's type for lists).
#[derive(Clone, Copy)]
struct Meta<'a> {
    ty: TypeRef<'a>,
    merge: bool,
    replace: bool,
    retain_keys: bool,
    merge_key: &'a str,
}

fn lookup<'a>(ty: TypeRef<'a>, key: &str) -> Result<Meta<'a>> {
    let name = match ty.ty() {
        Type::Object(object) => match ty.field(key) {
            Some(found) => {
                let field = found.field;
                return Ok(Meta {
                    ty: found.ty,
                    merge: field.patch_merge,
                    replace: field.patch_replace,
                    retain_keys: field.patch_retain_keys,
                    merge_key: field.patch_merge_key().unwrap_or_default(),
                });
            }
            None => object.name.rsplit('.').next().unwrap_or_default(),
        },
        Type::RawExtension => "RawExtension",
        Type::Json => "JSON",
        Type::FieldsV1 => "FieldsV1",
        Type::Unknown => "Unknown",
        Type::Quantity => "Quantity",
        Type::IntOrString => "IntOrString",
        Type::Time => "Time",
        Type::MicroTime => "MicroTime",
        Type::Duration => "Duration",
        Type::SchemaOrBool(_) => "JSONSchemaPropsOrBool",
        Type::SchemaOrArray(_) => "JSONSchemaPropsOrArray",
        Type::SchemaOrStringArray(_) => "JSONSchemaPropsOrStringArray",
        other => {
            return invalid(format!(
                "merging an object in json but data type is not struct, instead is: {}",
                kind_name(other)
            ));
        }
    };
    invalid(format!("unable to find api field in struct {name} for the json field {}", quote(key)))
}

fn lookup_slice<'a>(ty: TypeRef<'a>, key: &str) -> Result<Meta<'a>> {
    let meta = lookup(ty, key)?;
    match meta.ty.item() {
        Some(item) if item.item().is_some() => invalid("unexpected slice of slice".into()),
        Some(item) => Ok(Meta { ty: item, ..meta }),
        None => invalid(format!("expected slice or array type, but got: {}", kind_name(ty.ty()))),
    }
}

/// Go's `reflect.Kind` of a type.
fn kind_name(ty: &Type) -> &'static str {
    match ty {
        Type::Map(_) => "map",
        Type::List(_) | Type::Bytes => "slice",
        Type::String(_) => "string",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Double => "float64",
        Type::Bool => "bool",
        _ => "struct",
    }
}

fn same_type(a: &Value, b: &Value) -> bool {
    gotext::type_of(a, "%!s(<nil>)") == gotext::type_of(b, "%!s(<nil>)")
}

fn bad_type<T>(expected: &str, actual: &Value) -> Result<T> {
    invalid(format!("expected a {expected}, but received a {}", gotext::type_of(actual, "%!s(<nil>)")))
}

fn as_tree(value: &Value) -> Result<&Tree> {
    match value {
        Value::Object(map) => Ok(map),
        other => bad_type("map[string]interface {}", other),
    }
}

fn as_list(value: &Value) -> Result<&Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => bad_type("[]interface {}", other),
    }
}

fn no_merge_key<T>(map: &Tree, key: &str) -> Result<T> {
    invalid(format!("map: {} does not contain declared merge key: {key}", go_map(map)))
}

/// Go's `%v` of a decoded value.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => go_map(map),
        Value::Number(number) if number.is_f64() => gotext::float_value(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

fn go_map(map: &Tree) -> String {
    let fields: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_value(v))).collect();
    format!("map[{}]", fields.join(" "))
}

/// Cuts the directive's prefix off a key such as `$setElementOrder/containers`.
fn strip_directive<'k>(key: &'k str, directive: &str) -> Option<&'k str> {
    key.strip_prefix(directive)?.strip_prefix('/')
}

/// The kind of a list's elements: all alike, and no lists.
#[derive(Clone, Copy, PartialEq)]
enum Elements {
    Maps,
    Scalars,
}

fn element_kind(lists: &[&[Value]]) -> Result<Elements> {
    let mut items = lists.iter().flat_map(|l| l.iter());
    let Some(first) = items.next() else {
        return invalid("no elements in any of the given slices".into());
    };
    if first.is_array() {
        return Err(Error::ListOfLists);
    }
    if first.is_null() || !items.all(|item| same_type(first, item)) {
        let shown: Vec<String> =
            lists.iter().map(|l| format!("[{}]", l.iter().map(go_value).collect::<Vec<_>>().join(" "))).collect();
        return invalid(format!("list element types are not identical: [{}]", shown.join(" ")));
    }
    Ok(if first.is_object() { Elements::Maps } else { Elements::Scalars })
}

#[cfg(test)]
mod tests;
