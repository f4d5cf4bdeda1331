//! `openapi.v3.Document`, as far as Kubernetes' documents go, and those converted from v2.

use serde_json::Value;

use super::Kind::{
    self, AdditionalProperties, Any, Anys, Bool, Default, Integer, Named, NamedOrReference, Number, OrReference,
    OrReferences, SchemaItems, Text, Texts,
};
use super::{Message, message};

static DOCUMENT: Message = Message {
    fields: &[
        ("openapi", 1, Text),
        ("info", 2, Kind::Message(&INFO)),
        ("paths", 4, Kind::PathItems),
        ("components", 5, Kind::Message(&COMPONENTS)),
        ("externalDocs", 8, Kind::Message(&EXTERNAL_DOCS)),
    ],
    extensions: 9,
};

static INFO: Message =
    Message { fields: &[("title", 1, Text), ("description", 2, Text), ("version", 6, Text)], extensions: 7 };

static EXTERNAL_DOCS: Message = Message { fields: &[("description", 1, Text), ("url", 2, Text)], extensions: 3 };

static COMPONENTS: Message = Message {
    fields: &[
        ("schemas", 1, NamedOrReference(&SCHEMA)),
        ("responses", 2, NamedOrReference(&RESPONSE)),
        ("securitySchemes", 7, NamedOrReference(&SECURITY_SCHEME)),
    ],
    extensions: 10,
};

static SECURITY_SCHEME: Message = Message {
    fields: &[("type", 1, Text), ("description", 2, Text), ("name", 3, Text), ("in", 4, Text)],
    extensions: 9,
};

pub(super) static SCHEMA: Message = Message {
    fields: &[
        ("nullable", 1, Bool),
        ("externalDocs", 6, Kind::Message(&EXTERNAL_DOCS)),
        ("example", 7, Any),
        ("title", 9, Text),
        ("multipleOf", 10, Number),
        ("maximum", 11, Number),
        ("exclusiveMaximum", 12, Bool),
        ("minimum", 13, Number),
        ("exclusiveMinimum", 14, Bool),
        ("maxLength", 15, Integer),
        ("minLength", 16, Integer),
        ("pattern", 17, Text),
        ("maxItems", 18, Integer),
        ("minItems", 19, Integer),
        ("uniqueItems", 20, Bool),
        ("maxProperties", 21, Integer),
        ("minProperties", 22, Integer),
        ("required", 23, Texts),
        ("enum", 24, Anys),
        ("type", 25, Text),
        ("allOf", 26, OrReferences(&SCHEMA)),
        ("oneOf", 27, OrReferences(&SCHEMA)),
        ("anyOf", 28, OrReferences(&SCHEMA)),
        ("not", 29, Kind::Message(&SCHEMA)),
        ("items", 30, SchemaItems),
        ("properties", 31, NamedOrReference(&SCHEMA)),
        ("additionalProperties", 32, AdditionalProperties),
        ("default", 33, Default),
        ("description", 34, Text),
        ("format", 35, Text),
    ],
    extensions: 36,
};

pub(super) static REFERENCE: Message =
    Message { fields: &[("$ref", 1, Text), ("summary", 2, Text), ("description", 3, Text)], extensions: 0 };

pub(super) static PATH_ITEM: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("get", 4, Kind::Message(&OPERATION)),
        ("put", 5, Kind::Message(&OPERATION)),
        ("post", 6, Kind::Message(&OPERATION)),
        ("delete", 7, Kind::Message(&OPERATION)),
        ("options", 8, Kind::Message(&OPERATION)),
        ("head", 9, Kind::Message(&OPERATION)),
        ("patch", 10, Kind::Message(&OPERATION)),
        ("parameters", 13, OrReferences(&PARAMETER)),
    ],
    extensions: 14,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("externalDocs", 4, Kind::Message(&EXTERNAL_DOCS)),
        ("operationId", 5, Text),
        ("parameters", 6, OrReferences(&PARAMETER)),
        ("requestBody", 7, OrReference(&REQUEST_BODY)),
        ("responses", 8, Kind::ResponsesByCode),
        ("deprecated", 10, Bool),
    ],
    extensions: 13,
};

static PARAMETER: Message = Message {
    fields: &[
        ("name", 1, Text),
        ("in", 2, Text),
        ("description", 3, Text),
        ("required", 4, Bool),
        ("deprecated", 5, Bool),
        ("allowEmptyValue", 6, Bool),
        ("schema", 10, OrReference(&SCHEMA)),
    ],
    extensions: 14,
};

static REQUEST_BODY: Message = Message {
    fields: &[("description", 1, Text), ("content", 2, Named(&MEDIA_TYPE)), ("required", 3, Bool)],
    extensions: 4,
};

pub(super) static RESPONSE: Message =
    Message { fields: &[("description", 1, Text), ("content", 3, Named(&MEDIA_TYPE))], extensions: 5 };

static MEDIA_TYPE: Message = Message { fields: &[("schema", 1, OrReference(&SCHEMA))], extensions: 5 };

/// The document as protobuf.
pub fn encode(document: &Value) -> Vec<u8> {
    message(&DOCUMENT, document)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn encodes_schemas_and_operations() {
        let document = json!({
            "openapi": "3.0.0",
            "paths": {"/a": {"get": {"responses": {"200": {"description": "OK", "content": {"*/*": {"schema": {"$ref": "#/a"}}}}}}}},
            "components": {"schemas": {"a": {
                "type": "object",
                "properties": {"b": {"default": {}, "maximum": 1, "maxLength": 2}},
                "additionalProperties": false,
                "x-k": 1,
            }}},
        });
        let got = encode(&document);
        assert!(got.starts_with(b"\x0a\x053.0.0\x22"), "openapi, then paths");
        let find = |needle: &[u8]| got.windows(needle.len()).any(|window| window == needle);
        // A reference is the second of the oneof.
        assert!(find(b"\x0a\x07\x12\x05\x0a\x03#/a"));
        assert!(find(b"\x0a\x03200"));
        // An object as a default is written as nothing.
        assert!(find(b"\x8a\x02\x00"));
        assert!(find(b"\x59\x00\x00\x00\x00\x00\x00\xf0\x3f\x78\x02"));
        assert!(find(b"\x82\x02\x02\x10\x00"), "no additional properties");
        assert!(find(b"\x0a\x03x-k\x12\x04\x12\x021\n"));
    }
}
