//! Go's text forms of values, because upstream's messages are made of them.
//!
//! `strconv.Quote` (the `%q` verb) and `encoding/json` (which escapes `<`, `>` and `&`).

use serde_json::Value;
use std::fmt::Write;

use crate::schema::{ProtoEntry, TypeRef};

/// `strconv.Quote`.
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if is_print(c) => out.push(c),
            c if (c as u32) < 0x80 => write!(out, "\\x{:02x}", c as u32).expect("writing to a String"),
            c if (c as u32) < 0x10000 => write!(out, "\\u{:04x}", c as u32).expect("writing to a String"),
            c => write!(out, "\\U{:08x}", c as u32).expect("writing to a String"),
        }
    }
    out.push('"');
    out
}

/// `strconv.IsPrint`, near enough: letters, marks, numbers, punctuation, symbols and ASCII space.
pub fn is_print(c: char) -> bool {
    if c == ' ' {
        return true;
    }
    if c.is_control() || c.is_whitespace() {
        return false;
    }
    !matches!(c as u32,
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
        | 0x2060..=0x206f | 0xd800..=0xf8ff | 0xfeff | 0xfff0..=0xfffb | 0xfffe..=0xffff | 0xe0000..=0x10ffff)
}

/// What `encoding/json` calls a value that it cannot decode.
pub fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The Go type that a decoded value has, `%T`; `nil` is how the place prints the lack of one.
pub fn type_of(value: &Value, nil: &'static str) -> &'static str {
    match value {
        Value::Null => nil,
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `json.Marshal` of a tree: compact, keys sorted, HTML characters escaped.
pub fn json(value: &Value) -> String {
    html(crate::json::to_text(value))
}

/// `json.Marshal` of the struct that a tree is of.
pub fn json_of(ty: TypeRef<'_>, value: &Value) -> String {
    let mut out = Vec::new();
    crate::json::append_typed(&mut out, ty, value);
    html(String::from_utf8(out).expect("JSON is text"))
}

fn html(text: String) -> String {
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}', '\u{8}', '\u{c}']) {
        return text;
    }
    // These characters occur only inside strings, so replacing them in the text is safe.
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// `json.Marshal` of a struct: its fields in the order in which Go declares them, which is that of their protobuf
/// numbers; keys of maps, and fields of types without such numbers, sorted.
pub fn struct_json(ty: TypeRef<'_>, value: &Value) -> String {
    let of = |ty: Option<TypeRef<'_>>, value: &Value| ty.map_or_else(|| json(value), |ty| struct_json(ty, value));
    match value {
        Value::Object(map) => {
            let mut members: Vec<(&String, &Value)> = map.iter().collect();
            if let Some(object) = ty.object() {
                let place = |name: &str| {
                    let is = |entry: &ProtoEntry| match entry {
                        ProtoEntry::Field { field, .. } => object.fields[usize::from(*field)].name == name,
                        ProtoEntry::Embed { .. } => false,
                    };
                    object.proto.iter().position(is).unwrap_or(usize::MAX)
                };
                members.sort_by_key(|(name, _)| place(name));
            }
            let write = |(name, value): (&String, &Value)| {
                format!("{}:{}", json(&Value::from(name.as_str())), of(ty.child(name), value))
            };
            format!("{{{}}}", members.into_iter().map(write).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| of(ty.item(), item)).collect();
            format!("[{}]", items.join(","))
        }
        _ => json(value),
    }
}

/// `json.Compact`: appends JSON without its white space, and `escape`d for HTML's sake as Go's encoder does it.
pub fn compact(text: &str, escape: bool, out: &mut String) {
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            ' ' | '\t' | '\r' | '\n' if !quoted => continue,
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if escape => {
                write!(out, "\\u{:04x}", c as u32).expect("writing to a String");
            }
            c => out.push(c),
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
    }
}

/// `json.Marshal` of a float: digits as far as they tell something, an exponent for what is very large or small.
pub fn float(float: f64) -> String {
    if float == 0.0 || (1e-6..1e21).contains(&float.abs()) {
        return float.to_string();
    }
    // Here an exponent has as many digits as it needs when it is negative; large ones have two anyway.
    exponent(float)
}

/// `%v` of a float: an exponent of two digits from the seventh digit on.
pub fn float_value(float: f64) -> String {
    let text = exponent(float);
    let (digits, power) = text.split_once('e').unwrap_or((&text, "+0"));
    match power.parse::<i32>() {
        Ok(power) if !(-4..6).contains(&power) => format!("{digits}e{power:+03}"),
        _ => float.to_string(),
    }
}

fn exponent(float: f64) -> String {
    let text = format!("{float:e}");
    if text.contains("e-") { text } else { text.replace('e', "e+") }
}

/// `%v` of a list of strings: `[a b]`.
pub fn list<S: AsRef<str>>(items: &[S]) -> String {
    let mut out = String::from("[");
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        out.push_str(item.as_ref());
    }
    out.push(']');
    out
}

/// `%q` of a list of strings: `["a" "b"]`.
pub fn quoted_list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    list(&items.map(quote).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go() {
        for (input, expected) in [
            ("abc", "\"abc\""),
            ("a\"b\\", "\"a\\\"b\\\\\""),
            ("\u{1}\n\u{7f}", "\"\\x01\\n\\x7f\""),
            ("é世\u{a0}\u{200b}", "\"é世\\u00a0\\u200b\""),
        ] {
            assert_eq!(quote(input), expected);
        }
    }

    #[test]
    fn compact_as_go() {
        for (given, written) in [
            (r#"{"a": [1, 2]}"#, r#"{"a":[1,2]}"#),
            (r#"{"b":" x \" y ","a":1}"#, r#"{"b":" x \" y ","a":1}"#),
            (r#"{"a":"<b>&"}"#, r#"{"a":"\u003cb\u003e\u0026"}"#),
        ] {
            let mut out = String::new();
            compact(given, true, &mut out);
            assert_eq!(out, written);
        }
    }

    #[test]
    fn floats_as_go() {
        for (given, json, shown) in [
            (0.0, "0", "0"),
            (-0.0, "-0", "-0"),
            (1.0, "1", "1"),
            (-2.5, "-2.5", "-2.5"),
            (999_999.5, "999999.5", "999999.5"),
            (1e6, "1000000", "1e+06"),
            (1e20, "100000000000000000000", "1e+20"),
            (123_456_789_012_345_680_000.0, "123456789012345680000", "1.2345678901234568e+20"),
            (1e21, "1e+21", "1e+21"),
            (1.5e300, "1.5e+300", "1.5e+300"),
            (1e-5, "0.00001", "1e-05"),
            (1e-7, "1e-7", "1e-07"),
            (1.25e-10, "1.25e-10", "1.25e-10"),
            (5e-324, "5e-324", "5e-324"),
        ] {
            assert_eq!((float(given).as_str(), float_value(given).as_str()), (json, shown));
        }
    }

    #[test]
    fn json_escapes_html() {
        assert_eq!(json(&serde_json::json!({"a": "<b>&"})), "{\"a\":\"\\u003cb\\u003e\\u0026\"}");
    }
}
