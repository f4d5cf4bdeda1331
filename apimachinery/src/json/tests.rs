use super::*;
use crate::schema::{Field, ListKind, ListType, MapType, ObjectType, Schema, StringType};
use serde_json::json;

#[test]
fn values() {
    for (input, expected) in [
        (r#"{"a":[1,-2,{"b":null}],"c":true}"#, json!({"a": [1, -2, {"b": null}], "c": true})),
        (r#" "é\u00e9\ud83d\ude00\ud800x\n" "#, json!("éé😀\u{fffd}x\n")),
        ("[1.0, 1.5, 1e2, -0, 9223372036854775807]", json!([1.0, 1.5, 100.0, 0, i64::MAX])),
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
    let quantity = schema.add(Type::Quantity);
    let fields = vec![Field::new("n", integer), Field::new("q", quantity)];
    let root = schema.add(Type::Object(ObjectType::new("t.R", fields)));
    let read = |text: &str| decode(text.as_bytes(), Some(schema.type_ref(root))).unwrap();
    for text in ["1.0", "1e3", "2147483648", "1e999"] {
        let error = format!("json: cannot unmarshal number {text} into Go struct field R.n of type int32");
        assert_eq!(read(&format!("{{\"n\":{text}}}")).type_error, Some(error));
    }
    for text in ["7", "-0"] {
        assert_eq!(read(&format!("{{\"n\":{text}}}")).type_error, None);
    }
    // It has a notation of its own.
    assert_eq!(read(r#"{"q":1e3}"#).value, json!({"q": "1e3"}));
}

#[test]
fn the_first_wrong_type_counts() {
    let mut schema = Schema::new();
    let integer = schema.add(Type::Int32);
    let time = schema.add(Type::Time);
    let fields = vec![Field::new("a", integer), Field::new("b", integer), Field::new("t", time)];
    let root = schema.add(Type::Object(ObjectType::new("t.R", fields)));
    let read = |text: &str| decode(text.as_bytes(), Some(schema.type_ref(root))).unwrap().type_error.unwrap();
    // In the order of the document, and although it is replaced later.
    assert!(read(r#"{"b":"x","a":"x","b":1}"#).contains("R.b"));
    // What reads itself ends it all.
    assert!(read(r#"{"b":"x","t":1,"a":true}"#).contains("R.t of type string"));
}

#[test]
fn numbers_are_written_as_go_writes_them() {
    let tree = parse(br#"{"a":[1.0,1e20,1e21,1e-7,-0.0,-0,100000000000000000000,1.5e300,9007199254740993]}"#).unwrap();
    let written = r#"{"a":[1,100000000000000000000,1e+21,1e-7,-0,0,100000000000000000000,1.5e+300,9007199254740993]}"#;
    assert_eq!(to_text(&tree), written);
    assert_eq!(String::from_utf8(to_vec_stored(&tree)).unwrap(), written.replace("-0,", "0,"));
    let pretty = to_vec_pretty(&json!({"a": [1.5, {}], "b": {"c": []}}));
    assert_eq!(pretty, serde_json::to_vec_pretty(&json!({"a": [1.5, {}], "b": {"c": []}})).unwrap());
    assert!(is_equal(&json!([{"a": 1.0}]), &json!([{"a": 1}])));
    assert!(!is_equal(&json!([{"a": 1.5}]), &json!([{"a": 1}])));
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
