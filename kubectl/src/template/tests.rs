//! Templates against what upstream's kubectl prints for the same object.

use serde_json::json;

use super::Template;

fn check(template: &str, expected: Result<&str, &str>) {
    let data = json!({"kind": "Pod", "n": 3, "list": ["a", "b"], "map": {"k1": "v1", "k2": "v2"}, "secret": "aGVsbG8=", "items": [{"name": "x", "ok": true}, {"name": "y"}]});
    let got = Template::parse(template).and_then(|template| template.execute(&data));
    assert_eq!(got.as_deref().map_err(ToString::to_string), expected.map_err(str::to_owned), "{template}");
}

#[test]
fn templates() {
    for (template, expected) in [
        ("{{.kind}}", Ok("Pod")),
        ("{{.missing.deeper}}", Ok("<no value>")),
        ("{{range .items}}{{.name}}{{\"\\n\"}}{{end}}", Ok("x\ny\n")),
        ("{{range $i, $e := .list}}{{$i}}={{$e}};{{end}}", Ok("0=a;1=b;")),
        ("{{range $k, $v := .map}}{{$k}}:{{$v}} {{end}}", Ok("k1:v1 k2:v2 ")),
        ("{{range .none}}x{{else}}empty{{end}}", Ok("empty")),
        ("{{if eq .kind \"Pod\" \"Node\"}}yes{{else}}no{{end}}", Ok("yes")),
        ("{{if and .n (gt .n 2)}}big{{else if .n}}small{{end}}", Ok("big")),
        ("{{with .map}}{{.k1}}{{end}}", Ok("v1")),
        ("{{index .list 1}} {{index .map \"k2\"}} {{len .list}}", Ok("b v2 2")),
        ("{{.secret | base64decode}}", Ok("hello")),
        ("{{printf \"%-5s|%03d|%q\" .kind .n \"z\"}}", Ok("Pod  |003|\"z\"")),
        ("a {{- 1 -}} b", Ok("a1b")),
        ("{{/* note */}}x", Ok("x")),
        ("{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .kind}}", Ok("<Pod>")),
        ("{{$x := 1}}{{range .list}}{{$x = 2}}{{end}}{{$x}}", Ok("2")),
        ("{{range .list}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", Ok("a")),
        ("{{exists . \"map\" \"k1\"}}{{exists . \"nope\"}}", Ok("truefalse")),
        ("{{(index .items 0).name}}", Ok("x")),
        ("{{.list}} {{.map}}", Ok("[a b] map[k1:v1 k2:v2]")),
        ("{{not .missing}} {{or .missing \"d\"}}", Ok("true d")),
        (
            "{{.kind.x}}",
            Err("template: output:1: executing \"output\" at <.kind.x>: can't evaluate field x in type interface {}"),
        ),
        ("{{foo}}", Err("template: output:1: function \"foo\" not defined")),
        ("{{if .n}}", Err("template: output:1: unexpected EOF")),
        ("{{.n", Err("template: output:1: unclosed action")),
    ] {
        check(template, expected);
    }
}
