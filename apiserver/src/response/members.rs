//! The top-level members of encoded objects, found without decoding them.

use super::indent::string_end;

/// The top-level members of an object that was encoded here, so without white space: name, and
/// name with value.
#[derive(Debug)]
pub struct Members<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Members<'a> {
    /// The members of `json`, an object.
    pub fn of(json: &'a [u8]) -> Self {
        Self { json, at: 1 }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        if self.json.get(start) != Some(&b'"') {
            return None;
        }
        let name_end = string_end(self.json, start);
        let end = value_end(self.json, name_end + 1);
        self.at = end + 1;
        Some((self.json.get(start + 1..name_end - 1)?, self.json.get(start..end)?))
    }
}

fn value_end(json: &[u8], start: usize) -> usize {
    match json.get(start) {
        Some(b'"') => string_end(json, start),
        Some(b'{' | b'[') => {
            let mut depth = 0usize;
            let mut at = start;
            while at < json.len() {
                match json[at] {
                    b'"' => {
                        at = string_end(json, at);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return at + 1;
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
            json.len()
        }
        _ => json[start..]
            .iter()
            .position(|byte| matches!(byte, b',' | b'}'))
            .map_or(json.len(), |offset| start + offset),
    }
}

/// The value of a top-level member.
pub fn value<'a>(json: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (_, member) = Members::of(json).find(|(have, _)| *have == name.as_bytes())?;
    // Quotes around the name, and a colon.
    member.get(name.len() + 3..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_member_of_the_top_level() {
        let json = br#"{"data":{"metadata":"{\"metadata\":1}"},"kind":"x\"}","metadata":{"name":"a","labels":{"b":"]"}},"n":1}"#;
        for (name, want) in [
            ("metadata", Some(r#"{"name":"a","labels":{"b":"]"}}"#)),
            ("kind", Some(r#""x\"}""#)),
            ("n", Some("1")),
            ("name", None),
        ] {
            let found = value(json, name).map(|bytes| std::str::from_utf8(bytes).expect("text"));
            assert_eq!(found, want, "{name}");
        }
        assert_eq!(value(b"{}", "metadata"), None);
    }
}
