//! Indented JSON out of encoded JSON, without decoding it: what curl and browsers are answered.
//!
//! The form is that of Go's `MarshalIndent` with two blanks: a member or element a line, a blank after each colon,
//! nothing inside of empty objects and arrays.

/// Appends `json`, which was encoded here and so has no white space, indented, as a value `depth` levels deep.
pub fn append(out: &mut Vec<u8>, json: &[u8], mut depth: usize) {
    let mut at = 0;
    while let Some(byte) = json.get(at).copied() {
        match byte {
            b'"' => {
                let end = string_end(json, at);
                out.extend_from_slice(&json[at..end]);
                at = end;
                continue;
            }
            b'{' | b'[' => {
                out.push(byte);
                if matches!(json.get(at + 1), Some(b'}' | b']')) {
                    out.push(json[at + 1]);
                    at += 2;
                    continue;
                }
                depth += 1;
                line(out, depth);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
        at += 1;
    }
}

/// Begins a line at this depth.
pub fn line(out: &mut Vec<u8>, depth: usize) {
    const BLANKS: &[u8] = b"\n                                                                ";
    match BLANKS.get(..=2 * depth) {
        Some(start) => out.extend_from_slice(start),
        None => {
            out.push(b'\n');
            out.resize(out.len() + 2 * depth, b' ');
        }
    }
}

/// Offset behind the string that starts at `start`.
pub fn string_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < json.len() {
        match memchr::memchr2(b'"', b'\\', &json[at..]) {
            None => return json.len(),
            Some(offset) if json[at + offset] == b'"' => return at + offset + 1,
            Some(offset) => at += offset + 2,
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn indented(value: &Value) -> String {
        let mut out = Vec::new();
        append(&mut out, value.to_string().as_bytes(), 0);
        String::from_utf8(out).expect("what was UTF-8 is UTF-8")
    }

    #[test]
    fn equals_what_the_tree_would_give() {
        for value in [
            json!({}),
            json!([]),
            json!("a \"b\" \\ {[,:]}"),
            json!({"a": {}, "b": [], "c": [1, {"d": null}, [[true]], "x,y:{}"], "é\\\"": "\\"}),
            json!([{"a": "\\\\"}, -1.5e3, ""]),
        ] {
            assert_eq!(indented(&value), serde_json::to_string_pretty(&value).unwrap());
        }
    }

    #[test]
    fn is_as_deep_as_it_is_told() {
        let mut out = Vec::new();
        append(&mut out, br#"{"a":[1]}"#, 2);
        assert_eq!(String::from_utf8(out).unwrap(), "{\n      \"a\": [\n        1\n      ]\n    }");
        let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
        let value: Value = serde_json::from_str(&deep).unwrap();
        assert_eq!(indented(&value), serde_json::to_string_pretty(&value).unwrap());
    }

    proptest! {
        #[test]
        fn survives_anything(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            append(&mut Vec::new(), &bytes, 0);
        }
    }
}
