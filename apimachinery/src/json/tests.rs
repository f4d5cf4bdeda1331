use super::*;
use crate::schema::{Field, ListKind, ListType, MapType, ObjectType, Schema, StringType};
use serde_json::json;

#[test]
fn values() {
    for (input, expected) in [
        (r#"{"a":[1,-2,{"b":null}],"c":true}"#, json!({"a": [1, -2, {"b": null}], "c": true})),
        (r#" "é\u00e9\ud83d\ude00\ud800x\n" "#, json!("éé😀\u{fffd}x\n")),
        ("[1.0, 1.5, 1e2, -0, 9223372036854775807]", json!([1, 1.5, 100, 0, i64::MAX])),
        ("[]", json!([])),
        ("{}", json!({})),
    ] {
        assert_eq!(parse(input.as_bytes()).unwrap(), expected, "{input}");
    }
    assert_eq!(parse(b"\"\xff\"").unwrap(), json!("\u{fffd}"));
}

#[test]
fn syntax_errors_as_go() {
    for (input, expected) in [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ("x", "invalid character 'x' looking for beginning of value"),
        ("{a", "invalid character 'a' looking for beginning of object key string"),
        (r#"{"a" 1}"#, "invalid character '1' after object key"),
        (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
        ("1 2", "invalid character '2' after top-level value"),
        ("tru1", "invalid character '1' in literal true (expecting 'e')"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
        ("\"\n\"", "invalid character '\\n' in string literal"),
        (r#""\x""#, "invalid character 'x' in string escape code"),
        (r#""\u00g0""#, "invalid character 'g' in \\u hexadecimal character escape"),
        ("'", "invalid character '\\'' looking for beginning of value"),
        ("1e999", "json: cannot unmarshal number 1e999 into Go value of type float64"),
    ] {
        assert_eq!(parse(input.as_bytes()).unwrap_err().message, expected, "{input}");
    }
}

#[test]
fn depth_is_bounded() {
    let deep = "[".repeat(1_000_000);
    assert_eq!(parse(deep.as_bytes()).unwrap_err().message, "invalid character '[' exceeded max depth");
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(nested(MAX_KEPT_DEPTH).as_bytes()).is_ok());
    assert!(parse(nested(MAX_KEPT_DEPTH + 1).as_bytes()).is_err());
    // An unknown field may hold as much as Go reads.
    let mut schema = Schema::new();
    let root = schema.add(Type::Object(ObjectType::new("t.R", Vec::new())));
    let unknown = |depth: usize| format!("{{\"x\":{}}}", nested(depth));
    let decoded = decode(unknown(MAX_DEPTH - 1).as_bytes(), Some(schema.type_ref(root))).unwrap();
    assert_eq!((decoded.value, decoded.strict), (json!({}), vec!["unknown field \"x\"".to_owned()]));
    assert!(decode(unknown(MAX_DEPTH).as_bytes(), Some(schema.type_ref(root))).is_err());
}

#[test]
fn an_integer_is_written_as_one() {
    let mut schema = Schema::new();
    let integer = schema.add(Type::Int32);
    let root = schema.add(Type::Object(ObjectType::new("t.R", vec![Field::new("n", integer)])));
    for (text, typed, free) in
        [("1.0", json!(1.0), json!(1)), ("1e3", json!(1000.0), json!(1000)), ("7", json!(7), json!(7))]
    {
        let text = format!("{{\"n\":{text}}}");
        assert_eq!(decode(text.as_bytes(), Some(schema.type_ref(root))).unwrap().value, json!({"n": typed}));
        assert_eq!(parse(text.as_bytes()).unwrap(), json!({"n": free}));
    }
}

#[test]
fn strict_errors_in_document_order() {
    let mut schema = Schema::new();
    let string = schema.add(Type::String(StringType::default()));
    let raw = schema.add(Type::RawExtension);
    let labels = schema.add(Type::Map(MapType { value: string, atomic: false, marked: false }));
    let item =
        schema.add(Type::Object(ObjectType::new("t.I", vec![Field::new("name", string), Field::new("raw", raw)])));
    let items = schema.add(Type::List(ListType { item, kind: ListKind::Atomic, wrapped: false, marked: false }));
    let root = schema
        .add(Type::Object(ObjectType::new("t.R", vec![Field::new("items", items), Field::new("labels", labels)])));
    let text = r#"{"z":{"deep":[1]},"items":[{"name":"a"},{"x":1,"name":"b","name":"c","raw":{"q":1,"q":2}}],
        "labels":{"k":"1","k":"2"},"items":[]}"#;
    let decoded = decode(text.as_bytes(), Some(schema.type_ref(root))).unwrap();
    assert_eq!(
        decoded.strict,
        [
            r#"unknown field "z""#,
            r#"unknown field "items[1].x""#,
            r#"duplicate field "items[1].name""#,
            r#"duplicate field "labels.k""#,
            r#"duplicate field "items""#,
        ]
    );
    assert_eq!(decoded.value, json!({"items": [], "labels": {"k": "2"}}));
    assert_eq!(decode(text.as_bytes(), None).unwrap().strict.len(), 4);
}
