//! `openapi.v2.Document`: what licences, security and examples say is left out, as no client of Kubernetes reads it.

use serde_json::Value;

use super::Kind::{self, Any, Anys, Bool, Messages, Named, Text, Texts};
use super::{Message, message};

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

pub(super) static SCHEMA: Message = Message {
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

pub(super) static PATH_ITEM: Message = Message {
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

pub(super) static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Bool),
        ("schema", 5, Kind::Message(&SCHEMA)),
    ],
    extensions: 6,
};

pub(super) static QUERY_PARAMETER: Message = Message {
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

pub(super) static PATH_PARAMETER: Message = Message {
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

pub(super) static REFERENCE: Message =
    Message { fields: &[("$ref", 1, Text), ("description", 2, Text)], extensions: 0 };

pub(super) static RESPONSE: Message = Message { fields: &[("description", 1, Text)], extensions: 5 };

/// The document as protobuf.
pub fn encode(document: &Value) -> Vec<u8> {
    message(&DOCUMENT, document)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
