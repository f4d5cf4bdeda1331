//! Puts a resource version into encoded JSON without decoding it.
//!
//! Objects are stored without `metadata.resourceVersion`, because the revision is only known once
//! the write has happened. Readers want it in place. So the place is found once, by scanning over
//! the encoded object, and the digits are spliced in after the commit.

use bytes::Bytes;

/// Where, in an encoded object, the resource version goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Bytes before this offset are kept.
    start: usize,
    /// Bytes from this offset on are kept.
    end: usize,
    shape: Shape,
}

/// What has to be written around the digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Replaces an existing value.
    Value,
    /// A new member before another.
    Before,
    /// A new member after others, at the end of the metadata.
    After,
    /// The only member of the metadata.
    Only,
}

impl Slot {
    /// Finds the slot in `json`, an object with a `metadata` object at its top level.
    ///
    /// Answers `None` if there is no such member or the bytes are not JSON.
    pub fn find(json: &[u8]) -> Option<Slot> {
        let mut scan = Scan { bytes: json, at: 0 };
        scan.expect(b'{')?;
        if scan.peek()? == b'}' {
            return None;
        }
        loop {
            let (_, key) = scan.key()?;
            if key == b"metadata" {
                return scan.metadata();
            }
            scan.skip_value()?;
            if !scan.more()? {
                return None;
            }
        }
    }

    /// `json` with `revision` written into this slot.
    pub fn fill(&self, json: &[u8], revision: u64) -> Bytes {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(revision);
        let mut out = Vec::with_capacity(self.start + digits.len() + 24 + json.len() - self.end);
        out.extend_from_slice(&json[..self.start]);
        let (before, after): (&[u8], &[u8]) = match self.shape {
            Shape::Value => (b"\"", b"\""),
            Shape::Before => (b"\"resourceVersion\":\"", b"\","),
            Shape::After => (b",\"resourceVersion\":\"", b"\""),
            Shape::Only => (b"\"resourceVersion\":\"", b"\""),
        };
        out.extend_from_slice(before);
        out.extend_from_slice(digits.as_bytes());
        out.extend_from_slice(after);
        out.extend_from_slice(&json[self.end..]);
        // An exact allocation: thousands of these stay in memory.
        Bytes::from(out.into_boxed_slice())
    }
}

/// `json` with its `metadata.resourceVersion` set to `revision`.
///
/// Answers `None` if `json` is not an object with metadata.
pub fn set_resource_version(json: &[u8], revision: u64) -> Option<Bytes> {
    Some(Slot::find(json)?.fill(json, revision))
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.bytes.get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// After a member: whether another follows.
    fn more(&mut self) -> Option<bool> {
        match self.peek()? {
            b',' => {
                self.at += 1;
                Some(true)
            }
            b'}' | b']' => Some(false),
            _ => None,
        }
    }

    /// A member's name (escapes left as they are), its offset, and the colon after it.
    fn key(&mut self) -> Option<(usize, &'a [u8])> {
        self.peek()?;
        let start = self.at;
        self.skip_string()?;
        let key = &self.bytes[start + 1..self.at - 1];
        self.expect(b':')?;
        Some((start, key))
    }

    fn skip_string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.bytes.get(self.at..)?)?;
            if self.bytes[self.at] == b'"' {
                self.at += 1;
                return Some(());
            }
            self.at += 2;
        }
    }

    fn skip_value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_string(),
            b'{' | b'[' => {
                let mut depth = 0usize;
                loop {
                    match *self.bytes.get(self.at)? {
                        b'"' => {
                            self.skip_string()?;
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    self.at += 1;
                    if depth == 0 {
                        return Some(());
                    }
                }
            }
            _ => {
                while !matches!(*self.bytes.get(self.at)?, b',' | b'}' | b']') {
                    self.at += 1;
                }
                Some(())
            }
        }
    }

    fn metadata(&mut self) -> Option<Slot> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            return Some(Slot { start: self.at, end: self.at, shape: Shape::Only });
        }
        // Members are sorted in what we write, and the slot keeps that order; in what others wrote
        // any place will do.
        let mut before = None;
        loop {
            let (start, key) = self.key()?;
            if key == b"resourceVersion" {
                self.peek()?;
                let start = self.at;
                self.skip_value()?;
                return Some(Slot { start, end: self.at, shape: Shape::Value });
            }
            if before.is_none() && key > b"resourceVersion".as_slice() {
                before = Some(start);
            }
            self.skip_value()?;
            if !self.more()? {
                break;
            }
        }
        Some(match before {
            Some(start) => Slot { start, end: start, shape: Shape::Before },
            None => Slot { start: self.at, end: self.at, shape: Shape::After },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let out = set_resource_version(input.as_bytes(), 42).expect("has metadata");
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
        // What was spliced once can be spliced again.
        let again = set_resource_version(&out, 42).expect("has metadata");
        assert_eq!(again, out);
    }

    #[test]
    fn splices_in_sorted_place() {
        check(r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"42"}}"#);
        check(
            r#"{"kind":"Pod","metadata":{"name":"a","uid":"u"},"spec":{}}"#,
            r#"{"kind":"Pod","metadata":{"name":"a","resourceVersion":"42","uid":"u"},"spec":{}}"#,
        );
        check(
            r#"{"metadata":{"labels":{"zz":"}\"{"},"name":"a"}}"#,
            r#"{"metadata":{"labels":{"zz":"}\"{"},"name":"a","resourceVersion":"42"}}"#,
        );
        check(
            r#"{"metadata":{"name":"a","resourceVersion":"7","uid":"u"}}"#,
            r#"{"metadata":{"name":"a","resourceVersion":"42","uid":"u"}}"#,
        );
        check(
            r#"{"data":{"metadata":"{\"resourceVersion\":1}","x":[1,{"a":null}]}, "metadata" : {"name":"é\\"}}"#,
            r#"{"data":{"metadata":"{\"resourceVersion\":1}","x":[1,{"a":null}]}, "metadata" : {"name":"é\\","resourceVersion":"42"}}"#,
        );
    }

    #[test]
    fn refuses_what_has_no_metadata() {
        for input in ["", "{", "{}", "[]", "null", r#"{"spec":{}}"#, r#"{"metadata":null}"#, r#"{"metadata":{"a"#] {
            assert_eq!(set_resource_version(input.as_bytes(), 1), None, "{input}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let text = r#"[a-z\\"{}\[\]:,é\n]{0,6}|metadata|resourceVersion"#;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                btree_map(text, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn equals_setting_it_in_the_tree(
            mut object in btree_map("[a-z]{1,8}|metadata", json(), 0..5),
            metadata in btree_map("[a-z]{1,8}|resourceVersion|uid", json(), 0..5),
        ) {
            let metadata = Value::Object(metadata.into_iter().collect());
            object.insert("metadata".to_owned(), metadata);
            let mut tree = Value::Object(object.into_iter().collect());
            for encoded in [tree.to_string(), format!("{tree:#}")] {
                let spliced = set_resource_version(encoded.as_bytes(), 42).expect("has metadata");
                let spliced: Value = serde_json::from_slice(&spliced).expect("is still JSON");
                tree["metadata"]["resourceVersion"] = "42".into();
                prop_assert_eq!(&spliced, &tree);
            }
        }

        #[test]
        fn survives_anything(bytes in vec(any::<u8>(), 0..64), cut in 0usize..200) {
            let _ = set_resource_version(&bytes, 1);
            let json = br#"{"kind":"\\\"","metadata":{"labels":{"a":"b"},"resourceVersion":"1"},"spec":[{}]}"#;
            let _ = set_resource_version(&json[..cut.min(json.len())], 1);
        }
    }
}
