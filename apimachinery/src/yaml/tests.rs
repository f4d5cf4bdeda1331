use super::*;
use serde_json::json;

#[test]
fn reads_yaml_1_1() {
    for (input, expected) in [
        ("a: yes\nb: off\nc: \"yes\"", json!({"a": true, "b": false, "c": "yes"})),
        ("a: 0644\nb: 0x1F\nc: 1_000\nd: 0b11\ne: 08", json!({"a": 420, "b": 31, "c": 1000, "d": 3, "e": 8})),
        ("a: 1.0\nb: 1.5\nc: 1e3\nd: .5", json!({"a": 1, "b": 1.5, "c": 1000, "d": 0.5})),
        ("a: ~\nb:\nc: null", json!({"a": null, "b": null, "c": null})),
        ("y: 1\non: 2\n3: x\n1.5: z", json!({"true": 2, "3": "x", "1.5": "z"})),
        ("a: 2001-01-01\nb: 12:30:45", json!({"a": "2001-01-01", "b": "12:30:45"})),
        ("a: |\n  x\n  y\nb: >-\n  x\n  y", json!({"a": "x\ny\n", "b": "x y"})),
        ("a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  l: 2", json!({"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "l": 2}})),
        ("a: !!str 1\nb: !!float 1", json!({"a": "1", "b": 1})),
        ("- - 1\n  - 2\n- []", json!([[1, 2], []])),
        ("", json!(null)),
        ("a: 1\n---\nb: 2", json!({"a": 1})),
    ] {
        assert_eq!(parse(input).unwrap(), expected, "{input}");
    }
}

#[test]
fn several_documents() {
    assert_eq!(parse_documents("---\na: 1\n---\n# nothing\n---\nb: 2\n").unwrap(), [json!({"a": 1}), json!({"b": 2})]);
    assert_eq!(parse_documents("{\"a\": 1}\n{\"b\": 2}").unwrap(), [json!({"a": 1}), json!({"b": 2})]);
    assert!(parse_documents("").unwrap().is_empty());
}

#[test]
fn strictness() {
    let parsed = decode("a: 1\nb: 2\na: 3\n").unwrap();
    assert_eq!(parsed.value, json!({"a": 3, "b": 2}));
    assert_eq!(parsed.strict.unwrap(), "yaml: unmarshal errors:\n  line 3: key \"a\" already set in map");
}

#[test]
fn refuses() {
    for (input, expected) in [
        ("a: b: c", "yaml: mapping values are not allowed in this context"),
        ("a: b\nc: d: e", "yaml: line 2: mapping values are not allowed in this context"),
        ("a: {b: c", "yaml: line 1: did not find expected ',' or '}'"),
        ("a: \"b", "yaml: line 2: found unexpected end of stream"),
        ("a: .nan", "yaml: json: unsupported value: NaN"),
        ("a: &x [*x]", "yaml: anchor value contains itself"),
    ] {
        assert_eq!(parse(input).unwrap_err().to_string(), expected, "{input}");
    }
    for input in ["a: [", "a: *b", "{a: 1", "? [a]\n: b", "a: \"x"] {
        assert!(parse(input).is_err(), "{input}");
    }
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..9 {
        let item = format!("*a{}", i - 1);
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", [item.as_str(); 10].join(",")));
    }
    assert_eq!(parse(&bomb).unwrap_err().to_string(), "yaml: document contains excessive aliasing");
    assert!(parse(&"[".repeat(100_000)).is_err());
}

#[test]
fn writes_as_upstream() {
    for (input, expected) in [
        (json!({"b": [1, {"c": "d", "e": []}], "a": {}}), "a: {}\nb:\n- 1\n- c: d\n  e: []\n"),
        (json!([[1, [2]], "x"]), "- - 1\n  - - 2\n- x\n"),
        (json!({"a10": 1, "a2": 2, "B": 3, "_": 4}), "_: 4\nB: 3\na2: 2\na10: 1\n"),
        (
            json!({"a": "yes", "b": "1", "c": "", "d": "null", "e": "1:30"}),
            "a: \"yes\"\nb: \"1\"\nc: \"\"\nd: \"null\"\ne: \"1:30\"\n",
        ),
        (
            json!({"a": " x", "b": "x: y", "c": "# x", "d": "x'", "e": "'x"}),
            "a: ' x'\nb: 'x: y'\nc: '# x'\nd: x'\ne: '''x'\n",
        ),
        (
            json!({"a": "x\ny\n", "b": "x\ny", "c": "x\n\n", "d": "  x\ny"}),
            "a: |\n  x\n  y\nb: |-\n  x\n  y\nc: |+\n  x\n\nd: |2-\n    x\n  y\n",
        ),
        (
            json!({"a": "x \ny", "b": "x\ty", "c": "é", "d": "\u{1F600}"}),
            "a: \"x \\ny\"\nb: \"x\\ty\"\nc: é\nd: \"\\U0001F600\"\n",
        ),
        (
            json!({"a": 1.5, "b": 1e30, "c": true, "d": null, "e": "2001-01-01"}),
            "a: 1.5\nb: 1e+30\nc: true\nd: null\ne: \"2001-01-01\"\n",
        ),
        (json!({}), "{}\n"),
        (json!("x"), "x\n"),
        (json!({"a": {"b": [{"c": ["d"]}]}}), "a:\n  b:\n  - c:\n    - d\n"),
    ] {
        assert_eq!(emit(&input), expected);
    }
}

proptest::proptest! {
    #[test]
    fn any_string_comes_back(text in "[ -~\\n\\t\u{a0}-\u{2ff}:#'\"-]{0,24}") {
        let value = json!({"k": text, "l": [text], "m": {text.clone(): 1}});
        proptest::prop_assert_eq!(parse(&emit(&value)).unwrap(), value);
    }

    #[test]
    fn never_panics(text in "[-a:\\[\\]{}&*!|>'\"%@`#?,<\\n\\t 0-9.]{0,60}") {
        let _ = parse_documents(&text);
    }
}

#[test]
fn core_scalars() {
    let text = "a: yes\nb: on\nc: true\nd: 2001-01-01\ne: 2001-1-2 3:04:05.50\nf: 0o17\ng: ~\n";
    let expected = json!({
        "a": "yes", "b": "on", "c": true, "d": "2001-01-01T00:00:00Z", "e": "2001-01-02T03:04:05.5Z", "f": 15, "g": null
    });
    assert_eq!(super::parse_documents_core(text), Ok(vec![expected]));
}
