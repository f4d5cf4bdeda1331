//! OpenAPI documents as protobuf, in the messages of gnostic: the form of v2 that kubectl reads, and that of v3.
//!
//! One table per message: JSON key, field number, and what stands there.

mod v2;
mod v3;

pub use v2::encode as encode_v2;
pub use v3::encode as encode_v3;

use serde_json::Value;

use crate::response::encode::{field, varint};

/// What a JSON value becomes.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    /// A list of texts, or one of them.
    Texts,
    Bool,
    /// Any value, as YAML text.
    Any,
    /// A list of any values.
    Anys,
    Message(&'static Message),
    /// A list of messages, or one of them.
    Messages(&'static Message),
    /// A message that is nothing but `repeated Named… = 1` over this one.
    Named(&'static Message),
    /// `TypeItem`: a message of texts.
    Type,
    /// `ItemsItem`: a message around a schema.
    Items,
    /// Additional properties: a schema or a boolean.
    SchemaOrBool,
    Parameters,
    ParameterDefinitions,
    Responses,
    Paths,
    /// `double`.
    Number,
    /// `int64`.
    Integer,
    /// A oneof of this message (1) and a reference (2).
    OrReference(&'static Message),
    /// A list of those.
    OrReferences(&'static Message),
    /// A message that is nothing but `repeated Named… = 1` over those.
    NamedOrReference(&'static Message),
    /// v3's `ItemsItem`: a message of schemas.
    SchemaItems,
    /// v3's additional properties: a schema, a reference or a boolean.
    AdditionalProperties,
    /// v3's `DefaultType`: a scalar; anything else is written as nothing.
    Default,
    /// v3's `Responses`: one for what is not named, and those by code.
    ResponsesByCode,
    /// v3's `Paths`.
    PathItems,
}

/// A message: its fields, and the number of its extensions (`x-…`), zero for none.
struct Message {
    fields: &'static [(&'static str, u32, Kind)],
    extensions: u32,
}

fn message(kind: &Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(map) = value.as_object() else { return out };
    for (name, number, kind) in kind.fields {
        if let Some(value) = map.get(*name) {
            put(&mut out, *number, *kind, value);
        }
    }
    if kind.extensions != 0 {
        for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
            field(&mut out, kind.extensions, &named(name, &any(value)));
        }
    }
    out
}

fn put(out: &mut Vec<u8>, number: u32, kind: Kind, value: &Value) {
    let one_or_more = std::slice::from_ref(value);
    let list = value.as_array().map_or(one_or_more, Vec::as_slice);
    match kind {
        Kind::Text => {
            if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
                field(out, number, text.as_bytes());
            }
        }
        Kind::Texts => list.iter().filter_map(Value::as_str).for_each(|text| field(out, number, text.as_bytes())),
        Kind::Bool => {
            if value.as_bool() == Some(true) {
                varint(out, u64::from(number) << 3);
                out.push(1);
            }
        }
        Kind::Any => field(out, number, &any(value)),
        Kind::Anys => list.iter().for_each(|value| field(out, number, &any(value))),
        Kind::Message(kind) => field(out, number, &message(kind, value)),
        Kind::Messages(kind) => list.iter().for_each(|value| field(out, number, &message(kind, value))),
        Kind::Named(kind) => field(out, number, &named_map(1, value, |value| message(kind, value))),
        Kind::Type => {
            let mut inner = Vec::new();
            list.iter().filter_map(Value::as_str).for_each(|text| field(&mut inner, 1, text.as_bytes()));
            field(out, number, &inner);
        }
        Kind::Items => {
            let mut inner = Vec::new();
            field(&mut inner, 1, &message(&v2::SCHEMA, value));
            field(out, number, &inner);
        }
        Kind::SchemaOrBool => {
            let mut inner = Vec::new();
            match value.as_bool() {
                // A field of a oneof is written even when false.
                Some(value) => inner.extend_from_slice(&[2 << 3, u8::from(value)]),
                None => field(&mut inner, 1, &message(&v2::SCHEMA, value)),
            }
            field(out, number, &inner);
        }
        Kind::Parameters => list.iter().for_each(|value| {
            let mut item = Vec::new();
            if value.get("$ref").is_some() {
                field(&mut item, 2, &message(&v2::REFERENCE, value));
            } else {
                field(&mut item, 1, &parameter(value));
            }
            field(out, number, &item);
        }),
        Kind::ParameterDefinitions => field(out, number, &named_map(1, value, parameter)),
        Kind::Responses => field(
            out,
            number,
            &named_map(1, value, |value| {
                let mut inner = Vec::new();
                let mut response = message(&v2::RESPONSE, value);
                if let Some(schema) = value.get("schema") {
                    let mut item = Vec::new();
                    field(&mut item, 1, &message(&v2::SCHEMA, schema));
                    field(&mut response, 2, &item);
                }
                field(&mut inner, 1, &response);
                inner
            }),
        ),
        Kind::Paths => field(out, number, &named_map(2, value, |value| message(&v2::PATH_ITEM, value))),
        Kind::Number => {
            if let Some(float) = value.as_f64().filter(|float| *float != 0.0) {
                varint(out, u64::from(number) << 3 | 1);
                out.extend_from_slice(&float.to_le_bytes());
            }
        }
        Kind::Integer => {
            if let Some(integer) = value.as_i64().filter(|integer| *integer != 0) {
                varint(out, u64::from(number) << 3);
                varint(out, integer as u64);
            }
        }
        Kind::OrReference(kind) => field(out, number, &or_reference(kind, value)),
        Kind::OrReferences(kind) => list.iter().for_each(|value| field(out, number, &or_reference(kind, value))),
        Kind::NamedOrReference(kind) => {
            field(out, number, &named_map(1, value, |value| or_reference(kind, value)));
        }
        Kind::SchemaItems => {
            let mut inner = Vec::new();
            field(&mut inner, 1, &or_reference(&v3::SCHEMA, value));
            field(out, number, &inner);
        }
        Kind::AdditionalProperties => {
            let mut inner = Vec::new();
            match value.as_bool() {
                Some(value) => inner.extend_from_slice(&[2 << 3, u8::from(value)]),
                None => field(&mut inner, 1, &or_reference(&v3::SCHEMA, value)),
            }
            field(out, number, &inner);
        }
        Kind::Default => {
            let mut inner = Vec::new();
            match value {
                Value::Number(value) => {
                    varint(&mut inner, 1 << 3 | 1);
                    inner.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
                }
                Value::Bool(value) => inner.extend_from_slice(&[2 << 3, u8::from(*value)]),
                Value::String(value) => field(&mut inner, 3, value.as_bytes()),
                Value::Null | Value::Array(_) | Value::Object(_) => {}
            }
            field(out, number, &inner);
        }
        Kind::ResponsesByCode => {
            let mut inner = Vec::new();
            for (code, value) in value.as_object().into_iter().flatten() {
                let response = or_reference(&v3::RESPONSE, value);
                match code.as_str() {
                    "default" => field(&mut inner, 1, &response),
                    code if code.starts_with("x-") => {}
                    code => field(&mut inner, 2, &named(code, &response)),
                }
            }
            field(out, number, &inner);
        }
        Kind::PathItems => field(out, number, &named_map(1, value, |value| message(&v3::PATH_ITEM, value))),
    }
}

/// A oneof: the message, or a reference to one.
fn or_reference(kind: &Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value.get("$ref") {
        Some(_) => field(&mut out, 2, &message(&v3::REFERENCE, value)),
        None => field(&mut out, 1, &message(kind, value)),
    }
    out
}

/// `Parameter`: of the body, or one of the kinds that are not.
fn parameter(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value.get("in").and_then(Value::as_str) {
        Some("body") => field(&mut out, 1, &message(&v2::BODY_PARAMETER, value)),
        Some("path") => {
            let mut other = Vec::new();
            field(&mut other, 4, &message(&v2::PATH_PARAMETER, value));
            field(&mut out, 2, &other);
        }
        _ => {
            let mut other = Vec::new();
            field(&mut other, 3, &message(&v2::QUERY_PARAMETER, value));
            field(&mut out, 2, &other);
        }
    }
    out
}

fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + value.len() + 12);
    field(&mut out, 1, name.as_bytes());
    field(&mut out, 2, value);
    out
}

fn named_map(number: u32, value: &Value, encode: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        field(&mut out, number, &named(name, &encode(value)));
    }
    out
}

/// `Any` with the value as YAML.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, 2, apimachinery::yaml::emit(value).as_bytes());
    out
}
