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

/// `json.Marshal` of a tree: compact, keys sorted, HTML characters escaped.
pub fn json(value: &Value) -> String {
    let text = value.to_string();
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
    fn json_escapes_html() {
        assert_eq!(json(&serde_json::json!({"a": "<b>&"})), "{\"a\":\"\\u003cb\\u003e\\u0026\"}");
    }
}
