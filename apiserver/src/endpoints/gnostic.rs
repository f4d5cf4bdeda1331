//! The Swagger document as protobuf (`openapi.v2.Document` of gnostic), the only form in which
//! kubectl reads it.
//!
//! One table per message: JSON key, field number, and what stands there. What the tables leave out
//! (licence, security, examples) no client of Kubernetes reads.

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
}

/// A message: its fields, and the number of its extensions (`x-…`), zero for none.
struct Message {
    fields: &'static [(&'static str, u32, Kind)],
    extensions: u32,
}

use Kind::{Any, Anys, Bool, Messages, Named, Text, Texts};

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Text),
        ("info", 2, Kind::Message(&INFO)),
        ("paths", 8, Kind::Paths),
        ("definitions", 9, Named(&SCHEMA)),
        ("parameters", 10, Kind::ParameterDefinitions),
    ],
    extensions: 16,
};

static INFO: Message = Message { fields: &[("title", 1, Text), ("version", 2, Text)], extensions: 0 };

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("uniqueItems", 16, Bool),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, Kind::SchemaOrBool),
        ("type", 22, Kind::Type),
        ("items", 23, Kind::Items),
        ("allOf", 24, Messages(&SCHEMA)),
        ("properties", 25, Named(&SCHEMA)),
    ],
    extensions: 31,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, Kind::Message(&OPERATION)),
        ("put", 3, Kind::Message(&OPERATION)),
        ("post", 4, Kind::Message(&OPERATION)),
        ("delete", 5, Kind::Message(&OPERATION)),
        ("options", 6, Kind::Message(&OPERATION)),
        ("head", 7, Kind::Message(&OPERATION)),
        ("patch", 8, Kind::Message(&OPERATION)),
        ("parameters", 9, Kind::Parameters),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Texts),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Kind::Parameters),
        ("responses", 9, Kind::Responses),
        ("schemes", 10, Texts),
    ],
    extensions: 13,
};

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Bool),
        ("schema", 5, Kind::Message(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("uniqueItems", 20, Bool),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("uniqueItems", 19, Bool),
    ],
    extensions: 22,
};

static REFERENCE: Message = Message { fields: &[("$ref", 1, Text), ("description", 2, Text)], extensions: 0 };

static RESPONSE: Message = Message { fields: &[("description", 1, Text)], extensions: 5 };

/// The document as protobuf.
pub fn encode(document: &Value) -> Vec<u8> {
    message(&DOCUMENT, document)
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
        Text => {
            if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
                field(out, number, text.as_bytes());
            }
        }
        Texts => list.iter().filter_map(Value::as_str).for_each(|text| field(out, number, text.as_bytes())),
        Bool => {
            if value.as_bool() == Some(true) {
                varint(out, u64::from(number) << 3);
                out.push(1);
            }
        }
        Any => field(out, number, &any(value)),
        Anys => list.iter().for_each(|value| field(out, number, &any(value))),
        Kind::Message(kind) => field(out, number, &message(kind, value)),
        Messages(kind) => list.iter().for_each(|value| field(out, number, &message(kind, value))),
        Named(kind) => field(out, number, &named_map(1, value, |value| message(kind, value))),
        Kind::Type => {
            let mut inner = Vec::new();
            list.iter().filter_map(Value::as_str).for_each(|text| field(&mut inner, 1, text.as_bytes()));
            field(out, number, &inner);
        }
        Kind::Items => {
            let mut inner = Vec::new();
            field(&mut inner, 1, &message(&SCHEMA, value));
            field(out, number, &inner);
        }
        Kind::SchemaOrBool => {
            let mut inner = Vec::new();
            match value.as_bool() {
                // A field of a oneof is written even when false.
                Some(value) => inner.extend_from_slice(&[2 << 3, u8::from(value)]),
                None => field(&mut inner, 1, &message(&SCHEMA, value)),
            }
            field(out, number, &inner);
        }
        Kind::Parameters => list.iter().for_each(|value| {
            let mut item = Vec::new();
            if value.get("$ref").is_some() {
                field(&mut item, 2, &message(&REFERENCE, value));
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
                let mut response = message(&RESPONSE, value);
                if let Some(schema) = value.get("schema") {
                    let mut item = Vec::new();
                    field(&mut item, 1, &message(&SCHEMA, schema));
                    field(&mut response, 2, &item);
                }
                field(&mut inner, 1, &response);
                inner
            }),
        ),
        Kind::Paths => field(out, number, &named_map(2, value, |value| message(&PATH_ITEM, value))),
    }
}

/// `Parameter`: of the body, or one of the kinds that are not.
fn parameter(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value.get("in").and_then(Value::as_str) {
        Some("body") => field(&mut out, 1, &message(&BODY_PARAMETER, value)),
        Some("path") => {
            let mut other = Vec::new();
            field(&mut other, 4, &message(&PATH_PARAMETER, value));
            field(&mut out, 2, &other);
        }
        _ => {
            let mut other = Vec::new();
            field(&mut other, 3, &message(&QUERY_PARAMETER, value));
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn encodes_a_definition() {
        let document = json!({
            "swagger": "2.0",
            "definitions": {"a": {"type": "object", "additionalProperties": {"type": "string"}, "x-k": 1}},
        });
        let got = encode(&document);
        assert!(got.starts_with(b"\x0a\x032.0\x4a"), "swagger, then definitions");
        let find = |needle: &[u8]| got.windows(needle.len()).any(|window| window == needle);
        assert!(find(b"\xaa\x01\x0d\x0a\x0b\xb2\x01\x08\x0a\x06string"));
        assert!(find(b"\xb2\x01\x08\x0a\x06object"));
        assert!(find(b"\x0a\x03x-k\x12\x04\x12\x021\n"));
    }
}
