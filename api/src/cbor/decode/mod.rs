//! CBOR to trees, under a type or without one.
//!
//! Upstream's reader goes on after an error and answers the first; so does this one. Depth is bounded by what recursive
//! walks over the tree can bear.

mod typed;

use std::collections::HashSet;

use apimachinery::schema::TypeRef;
use apimachinery::time;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Number, Value};

use super::head::{Major, Reader};
use super::{Error, wellformed};

/// An item read as a tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// The strict error, which is one at most: a name that the type does not know.
    pub unknown: Option<Error>,
}

/// Reads one item. Under a type, what it does not know is left out and reported, and what does not fit it is an error.
///
/// # Errors
/// In upstream's words.
pub fn decode(bytes: &[u8], ty: Option<TypeRef<'_>>) -> Result<Decoded, Error> {
    wellformed::check(bytes)?;
    let root = ty.and_then(TypeRef::object).map(|object| last_segment(&object.name).to_string());
    let mut parser = Parser::new(bytes, root);
    let read = match ty {
        Some(ty) => parser.typed(ty),
        None => Read::from(parser.any()),
    };
    match parser.error {
        Some(error) => Err(error),
        None => Ok(Decoded { value: read.value, unknown: read.unknown.map(Error::Unknown) }),
    }
}

/// What an item says that it is: `apiVersion` and `kind`, empty where it says nothing.
///
/// # Errors
/// When it is no map, these are no strings, or a name that is neither stands twice in it.
pub fn interpret(bytes: &[u8]) -> Result<(String, String), Error> {
    wellformed::check(bytes)?;
    let mut parser = Parser::new(bytes, Some("v1.TypeMeta".to_string()));
    let (mut api_version, mut kind) = (String::new(), String::new());
    parser.strip_tags();
    match parser.reader.next() {
        Major::Map => {
            let mut seen = HashSet::new();
            parser.each(|parser, index| {
                let Some(name) = parser.field_name() else { return };
                if !seen.insert(name.clone()) {
                    parser.error = Some(Error::Duplicate { key: name, index });
                    return parser.skip();
                }
                match name.as_str() {
                    "apiVersion" | "kind" => {
                        parser.field = Some(name.clone());
                        let text = parser.string("string").unwrap_or_default();
                        parser.field = None;
                        *(if name == "kind" { &mut kind } else { &mut api_version }) = text;
                    }
                    _ => parser.skip(),
                }
            });
        }
        Major::Primitive if parser.reader.peek() == Some(NULL) || parser.rejected() => {}
        found => parser.mismatch(found, "v1.TypeMeta", struct_why(found)),
    }
    parser.error.map_or(Ok((api_version, kind)), Err)
}

const NULL: u8 = 0xf6;

/// How deep what is kept may nest: this reader is recursive, and nothing legitimate comes near it.
const KEPT_DEPTH: usize = 500;

/// Tags of what text makes of byte strings: base64 of URLs, base64, hexadecimal.
const LATER: [u64; 3] = [21, 22, 23];

/// A value, and the place in its map of the first name that nobody knows.
struct Read {
    value: Value,
    unknown: Option<usize>,
}

impl From<Value> for Read {
    fn from(value: Value) -> Self {
        Read { value, unknown: None }
    }
}

struct Parser<'a> {
    reader: Reader<'a>,
    /// The tags of [`LATER`] that are open.
    later: Vec<u64>,
    /// The first error.
    error: Option<Error>,
    depth: usize,
    /// Go's name of the outermost struct.
    root: Option<String>,
    /// The field of it that is being read: errors name this one, however deep they are.
    field: Option<String>,
}

impl<'a> Parser<'a> {
    fn new(bytes: &'a [u8], root: Option<String>) -> Self {
        Self { reader: Reader::new(bytes), later: Vec::new(), error: None, depth: 0, root, field: None }
    }

    fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    fn mismatch(&mut self, found: Major, wanted: &str, why: String) {
        let place = match (&self.root, &self.field) {
            (Some(root), Some(field)) => format!("struct field {root}.{field}"),
            _ => "value".to_string(),
        };
        let why = if why.is_empty() { why } else { format!(" ({why})") };
        self.fail(Error::Type { found: found.name(), place, wanted: wanted.to_string(), why });
    }

    /// Reads over an item, which is known to be well-formed.
    fn skip(&mut self) {
        if let Err(error) = wellformed::skip(&mut self.reader) {
            self.fail(error);
        }
    }

    /// The argument of the next head. What was checked has one.
    fn argument(&mut self) -> u64 {
        match self.reader.head() {
            Ok(head) => head.argument,
            Err(error) => {
                self.fail(error);
                0
            }
        }
    }

    /// Reads self-describing tags, and checks what the tags after them stand before. Answers whether to go on.
    fn strip_tags(&mut self) -> bool {
        let mut after = self.reader.clone();
        let mut described = true;
        while after.next() == Major::Tag {
            let tag = after.head().map_or(0, |head| head.argument);
            described &= tag == 55799;
            if described {
                self.reader = after.clone();
            }
            let (byte, content) = (after.peek().unwrap_or(NULL), after.next());
            let wanted = match tag {
                0 if content != Major::Text => "text string",
                1 if !matches!(content, Major::Positive | Major::Negative) && !(0xf9..=0xfb).contains(&byte) => {
                    "integer or floating-point number"
                }
                _ => continue,
            };
            self.fail(Error::TagContent { tag, wanted, found: content.name() });
            self.skip();
            return false;
        }
        true
    }

    /// Calls `read` for each element of an array, or for each pair of a map, with its index.
    fn each(&mut self, mut read: impl FnMut(&mut Self, usize)) {
        let Ok(head) = self.reader.head() else { return };
        if self.depth >= KEPT_DEPTH {
            self.fail(Error::Depth);
            // Nothing is kept of a document with an error.
            self.reader.at = self.reader.bytes.len();
            return;
        }
        self.depth += 1;
        let mut index = 0;
        let length = usize::try_from(head.argument).unwrap_or(usize::MAX);
        while self.reader.peek().is_some() {
            let done = if head.is_indefinite() { self.reader.at_break() } else { index >= length };
            if done {
                break;
            }
            read(self, index);
            index += 1;
        }
        self.depth -= 1;
    }

    /// The content of a string in its chunks, or in one.
    fn chunks(&mut self) -> Vec<u8> {
        let text = self.reader.next() == Major::Text;
        let Ok(head) = self.reader.head() else { return Vec::new() };
        let mut out = Vec::new();
        let mut chunk = |parser: &mut Self, length: u64| {
            let bytes = parser.reader.take(length).unwrap_or_default();
            if text && std::str::from_utf8(bytes).is_err() {
                parser.fail(Error::Utf8);
            }
            out.extend_from_slice(bytes);
        };
        if !head.is_indefinite() {
            chunk(self, head.argument);
            return out;
        }
        while !self.reader.at_break() {
            let Ok(head) = self.reader.head() else { break };
            chunk(self, head.argument);
        }
        out
    }

    /// A string of either type where Go has a string: bytes become the text that a tag wants of them.
    fn text(&mut self) -> String {
        let bytes = self.reader.next() == Major::Bytes;
        let content = self.chunks();
        match self.later.last() {
            Some(21) if bytes => URL_SAFE_NO_PAD.encode(&content),
            Some(22) if bytes => STANDARD.encode(&content),
            Some(_) if bytes => content.iter().map(|byte| format!("{byte:02x}")).collect(),
            _ => String::from_utf8_lossy(&content).into_owned(),
        }
    }

    /// A map's key where Go's map has strings as keys.
    fn key(&mut self) -> Option<String> {
        self.string("string")
    }

    /// A name in a map that is read as a struct.
    fn field_name(&mut self) -> Option<String> {
        match self.reader.next() {
            Major::Text | Major::Bytes => {
                let sound = self.error.is_none();
                let text = String::from_utf8_lossy(&self.chunks()).into_owned();
                if sound && self.error == Some(Error::Utf8) {
                    self.skip();
                    return None;
                }
                Some(text)
            }
            Major::Positive => Some(self.argument().to_string()),
            Major::Negative => Some(format!("-{}", u128::from(self.argument()) + 1)),
            found => {
                let why = format!("map key is of type {} and cannot be used to match struct field name", found.name());
                let field = self.field.take();
                self.mismatch(found, "string", why);
                self.field = field;
                self.skip();
                self.skip();
                None
            }
        }
    }

    /// A string, or an error that says `wanted`; null is the empty string.
    fn string(&mut self, wanted: &str) -> Option<String> {
        if !self.strip_tags() {
            return None;
        }
        match self.reader.next() {
            Major::Text | Major::Bytes => Some(self.text()),
            Major::Tag => self.tagged(|parser| parser.string(wanted)),
            _ => {
                self.scalar_mismatch(wanted);
                None
            }
        }
    }

    /// Reads a tag, and what it stands before.
    fn tagged<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let tag = self.argument();
        let later = LATER.contains(&tag);
        if later {
            self.later.push(tag);
        }
        let value = read(self);
        if later {
            self.later.pop();
        }
        value
    }

    /// Reads over an item that does not fit; null fits everything.
    fn scalar_mismatch(&mut self, wanted: &str) {
        let (found, byte) = (self.reader.next(), self.reader.peek());
        if found == Major::Primitive && byte != Some(NULL) && self.rejected() {
            return;
        }
        if byte != Some(NULL) {
            self.mismatch(found, wanted, String::new());
        }
        self.skip();
    }

    /// Whether the next primitive is none that upstream knows; then it is read over.
    fn rejected(&mut self) -> bool {
        let mut ahead = self.reader.clone();
        let Ok(head) = ahead.head() else { return false };
        if head.info > 24 || matches!(head.argument, 20..=22) {
            return false;
        }
        let what = format!("simple value {} is not recognized", head.argument);
        self.fail(Error::Unacceptable { of: Major::Primitive.name(), what });
        self.reader = ahead;
        true
    }

    /// Whatever comes.
    fn any(&mut self) -> Value {
        if !self.strip_tags() {
            return Value::Null;
        }
        match self.reader.next() {
            Major::Positive => {
                let number = self.argument();
                self.integer(Major::Positive, i64::try_from(number).ok(), || number.to_string())
            }
            Major::Negative => {
                let number = self.argument();
                let shown = || format!("-{}", u128::from(number) + 1);
                self.integer(Major::Negative, i64::try_from(number).ok().map(|number| !number), shown)
            }
            Major::Text | Major::Bytes => Value::String(self.text()),
            Major::Primitive => self.primitive(),
            Major::Tag => {
                let mut ahead = self.reader.clone();
                match ahead.head().map(|head| head.argument) {
                    Ok(tag @ (0 | 1)) => {
                        self.reader = ahead;
                        self.time(tag)
                    }
                    _ => self.tagged(Self::any),
                }
            }
            Major::Array => {
                let mut items = Vec::new();
                self.each(|parser, _| items.push(parser.any()));
                Value::Array(items)
            }
            Major::Map => Value::Object(self.entries(|parser| Read::from(parser.any())).0),
        }
    }

    fn integer(&mut self, found: Major, number: Option<i64>, shown: impl Fn() -> String) -> Value {
        if number.is_none() {
            let field = self.field.take();
            self.mismatch(found, "int64", format!("{} overflows Go's int64", shown()));
            self.field = field;
        }
        number.map_or(Value::Null, Value::from)
    }

    fn primitive(&mut self) -> Value {
        if self.rejected() {
            return Value::Null;
        }
        match self.reader.head() {
            Ok(head) => match head.float() {
                Some(float) => Number::from_f64(float).map_or(Value::Null, Value::Number),
                None if head.argument == 22 => Value::Null,
                None => Value::Bool(head.argument == 21),
            },
            Err(error) => {
                self.fail(error);
                Value::Null
            }
        }
    }

    /// What stands behind the tag of a time, as RFC 3339.
    fn time(&mut self, tag: u64) -> Value {
        if tag == 0 {
            let text = String::from_utf8_lossy(&self.chunks()).into_owned();
            return match time::parse(&text) {
                Ok(_) => Value::String(without_trailing_zeros(&text)),
                Err(error) => {
                    self.fail(Error::Time { why: error.to_string(), text });
                    Value::Null
                }
            };
        }
        let seconds = match self.any() {
            Value::Number(number) => number,
            _ => return Value::Null,
        };
        let parsed = match seconds.as_i64() {
            Some(seconds) => time::Timestamp::from_second(seconds),
            None => {
                let float = seconds.as_f64().unwrap_or_default();
                time::Timestamp::new(float.trunc() as i64, (float.fract() * 1e9) as i32)
            }
        };
        match parsed {
            // What Go can write has a year of four digits.
            Ok(time) if (0..=9999).contains(&time.to_zoned(jiff::tz::TimeZone::UTC).year()) => {
                Value::String(time.to_string())
            }
            _ => {
                self.fail(Error::TimeRange);
                Value::Null
            }
        }
    }

    /// The members of a map whose keys are free.
    fn entries(&mut self, mut read: impl FnMut(&mut Self) -> Read) -> (Map<String, Value>, Option<usize>) {
        let (mut map, mut unknown, mut repeated) = (Map::new(), None, false);
        self.each(|parser, index| {
            let Some(key) = parser.key() else { return parser.skip() };
            if repeated || map.contains_key(&key) {
                if !repeated {
                    parser.fail(Error::Duplicate { key, index });
                }
                repeated = true;
                return parser.skip();
            }
            let value = read(parser);
            unknown = unknown.or(value.unknown);
            map.insert(key, value.value);
        });
        (map, unknown)
    }
}

/// What the library calls the item that a value came as. Bytes and text are one here; bytes are what is usual.
pub fn type_name(value: &Value) -> &'static str {
    let major = match value {
        Value::Object(_) => Major::Map,
        Value::Array(_) => Major::Array,
        Value::String(_) => Major::Bytes,
        Value::Number(number) if number.is_u64() => Major::Positive,
        Value::Number(number) if number.is_i64() => Major::Negative,
        Value::Null | Value::Bool(_) | Value::Number(_) => Major::Primitive,
    };
    major.name()
}

/// Why an array is no struct.
fn struct_why(found: Major) -> String {
    match found {
        Major::Array => "cannot decode CBOR array to struct without toarray option".to_string(),
        _ => String::new(),
    }
}

/// `core/v1.Pod` → `v1.Pod`.
fn last_segment(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// RFC 3339 as Go writes it: a fraction ends with a digit that says something.
fn without_trailing_zeros(text: &str) -> String {
    let Some((whole, rest)) = text.split_once('.') else { return text.to_string() };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(digits);
    match fraction.trim_end_matches('0') {
        "" => format!("{whole}{zone}"),
        fraction => format!("{whole}.{fraction}{zone}"),
    }
}
