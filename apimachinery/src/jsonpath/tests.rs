//! Templates against what upstream's kubectl prints for the same object.

use serde_json::{Value, json};

use super::{JsonPath, relaxed};

fn data() -> Value {
    json!({
        "kind": "List",
        "items": [
            {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "a.b"}}, "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}, "n": 1},
            {"kind": "None", "metadata": {"name": "127.0.0.2"}, "status": {"capacity": {"cpu": "8"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}, "n": 2},
        ],
        "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"username": "admin", "password": "secret"}}],
        "empty": [],
    })
}

fn check(template: &str, expected: Result<&str, &str>) {
    let got =
        JsonPath::parse(template).map(|path| path.allow_missing_keys(true)).and_then(|path| path.execute(&data()));
    assert_eq!(got.as_deref().map_err(ToString::to_string), expected.map_err(str::to_owned), "{template}");
}

#[test]
fn templates() {
    for (template, expected) in [
        ("plain", Ok("plain")),
        ("kind is {.kind}", Ok("kind is List")),
        ("{.items[*].metadata.name}", Ok("127.0.0.1 127.0.0.2")),
        ("{.items[*]['metadata.name','status.capacity']}", Ok(r#"127.0.0.1 127.0.0.2 {"cpu":"4"} {"cpu":"8"}"#)),
        ("{..metadata.name}", Ok("127.0.0.1 127.0.0.2")),
        (r#"{.users[?(@.name=="e2e")].user.password}"#, Ok("secret")),
        ("{.users[?(@.name=='e2e')].user.password}", Ok("secret")),
        (
            r#"{range .items[*]}[{.metadata.name}, {.status.capacity}] {end}"#,
            Ok(r#"[127.0.0.1, {"cpu":"4"}] [127.0.0.2, {"cpu":"8"}] "#),
        ),
        (r#"{range .items[*]}{.metadata.name}{"\t"}{end}done"#, Ok("127.0.0.1\t127.0.0.2\tdone")),
        ("{range .empty[*]}{.x.y}{end}after", Ok("after")),
        ("{range .items[*]}{range .status.addresses[*]}{.address}|{end};{end}", Ok("127.0.0.1|;127.0.0.2|127.0.0.3|;")),
        ("{.items[0].metadata.labels.kubernetes\\.io/hostname}", Ok("a.b")),
        ("{.items[-1:].n}", Ok("2")),
        ("{.items[-1].n}", Ok("2")),
        ("{.items[0:2].n}", Ok("1 2")),
        ("{.items[?(@.n>1)].metadata.name}", Ok("127.0.0.2")),
        ("{.items[?(@.metadata.labels)].n}", Ok("1")),
        ("{.items[0,1].n}", Ok("1 2")),
        ("{.missing}", Ok("")),
        ("{.kind.*}", Ok("76 105 115 116")),
        ("{.items[5]}", Err("array index out of bounds: index 5, length 2")),
        ("{.items[::0].n}", Err("step must be > 0")),
        ("{.kind[0]}", Err("string is not array or slice")),
        ("{.items[?(@.n=='1')]}", Err("incompatible types for comparison")),
        ("{.items[?(@.n=1)]}", Err("unrecognized filter operator =")),
        ("{.kind", Err("unclosed action")),
        ("{.items[0", Err("unterminated array")),
        ("{.items[a]}", Err("invalid array index a")),
        ("{end}", Err("not in range, nothing to end")),
        ("{foo}", Err("unrecognized identifier foo")),
        ("{....kind}", Err("invalid multiple recursive descent")),
        ("{*}", Err("unrecognized character in action: U+002A '*'")),
        (r#"{"x}"#, Err("unterminated quoted string")),
        ("{true} {1} {-2.5}", Ok("true 1 -2.5")),
    ] {
        check(template, expected);
    }
}

#[test]
fn missing_keys_are_errors_unless_allowed() {
    let path = JsonPath::parse("{.missing}").expect("well formed");
    assert_eq!(path.execute(&data()).expect_err("nothing there").to_string(), "missing is not found");
}

#[test]
fn relaxed_expressions() {
    for given in ["metadata.name", ".metadata.name", "{metadata.name}", "{.metadata.name}"] {
        assert_eq!(relaxed(given).as_deref(), Ok("{.metadata.name}"));
    }
    assert!(relaxed("{{.x}}").is_err());
    assert!(relaxed("{.x").is_err());
}
