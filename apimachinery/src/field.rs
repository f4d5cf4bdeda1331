//! Field paths and field errors: the currency of validation.
//!
//! Everything here prints exactly as upstream's `util/validation/field`, since clients show and
//! parse these texts. A path is a cheap linked list; its text is made only when an error is.

use crate::gotext;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A path from the root of an object to one field, such as `spec.containers[0].name`.
#[derive(Clone, Debug)]
pub struct Path(Arc<Node>);

#[derive(Debug)]
struct Node {
    parent: Option<Path>,
    segment: Segment,
}

#[derive(Debug)]
enum Segment {
    Name(Cow<'static, str>),
    Index(usize),
    Key(String),
}

impl Path {
    /// A root path.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Node { parent: None, segment: Segment::Name(name.into()) }))
    }

    /// The path of nothing, which Go prints as `<nil>`; its children start afresh.
    pub fn nil() -> Self {
        Self::new("<nil>")
    }

    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.extend(Segment::Name(name.into()))
    }

    /// Several names at once: `path.children(&["spec", "template"])`.
    pub fn children(&self, names: &[&'static str]) -> Self {
        names.iter().fold(self.clone(), |path, name| path.child(*name))
    }

    pub fn index(&self, index: usize) -> Self {
        self.extend(Segment::Index(index))
    }

    pub fn key(&self, key: impl Into<String>) -> Self {
        self.extend(Segment::Key(key.into()))
    }

    fn extend(&self, segment: Segment) -> Self {
        let nil = self.0.parent.is_none() && matches!(&self.0.segment, Segment::Name(n) if n == "<nil>");
        Self(Arc::new(Node { parent: (!nil).then(|| self.clone()), segment }))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.0.parent {
            parent.fmt(f)?;
        }
        match &self.0.segment {
            Segment::Name(name) => {
                if self.0.parent.is_some() && !name.is_empty() {
                    f.write_str(".")?;
                }
                if name.is_empty() { f.write_str("[]") } else { f.write_str(name) }
            }
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// Why a field is wrong. `as_str` is the machine name in Status causes, `Display` the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooShort,
    TooMany,
    TooFew,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The cause type: `FieldValueInvalid` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooShort => "FieldValueTooShort",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooShort => "Too short",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::Internal => "Internal error",
        })
    }
}

/// The offending value as it appears in a message.
#[derive(Clone, Debug, PartialEq)]
pub enum BadValue {
    /// Not shown.
    Omitted,
    /// A tree: strings are quoted, numbers and booleans printed, the rest as JSON.
    Value(Value),
    /// Shown as it is; for values whose Go form is not their JSON form.
    Raw(String),
}

impl From<&Value> for BadValue {
    fn from(value: &Value) -> Self {
        Self::Value(value.clone())
    }
}
impl From<Value> for BadValue {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}
impl From<&str> for BadValue {
    fn from(value: &str) -> Self {
        Self::Value(Value::String(value.to_owned()))
    }
}
impl From<String> for BadValue {
    fn from(value: String) -> Self {
        Self::Value(Value::String(value))
    }
}
impl From<&String> for BadValue {
    fn from(value: &String) -> Self {
        Self::Value(Value::String(value.clone()))
    }
}
impl From<i64> for BadValue {
    fn from(value: i64) -> Self {
        Self::Value(Value::from(value))
    }
}
impl From<i32> for BadValue {
    fn from(value: i32) -> Self {
        Self::Value(Value::from(value))
    }
}
impl From<usize> for BadValue {
    fn from(value: usize) -> Self {
        Self::Value(Value::from(value))
    }
}
impl From<bool> for BadValue {
    fn from(value: bool) -> Self {
        Self::Value(Value::from(value))
    }
}
impl From<Option<&Value>> for BadValue {
    fn from(value: Option<&Value>) -> Self {
        Self::Value(value.cloned().unwrap_or(Value::Null))
    }
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: ErrorType,
    pub field: String,
    pub bad_value: BadValue,
    pub detail: String,
}

impl FieldError {
    fn new(kind: ErrorType, path: &Path, bad_value: BadValue, detail: impl Into<String>) -> Self {
        Self { kind, field: path.to_string(), bad_value, detail: detail.into() }
    }

    /// The message without the field name, as it appears in Status causes.
    pub fn body(&self) -> String {
        let mut text = self.kind.to_string();
        let shows_value = !matches!(
            self.kind,
            ErrorType::Required | ErrorType::Forbidden | ErrorType::TooLong | ErrorType::TooShort | ErrorType::Internal
        );
        if shows_value {
            match &self.bad_value {
                BadValue::Omitted => {}
                BadValue::Raw(raw) => {
                    text.push_str(": ");
                    text.push_str(raw);
                }
                BadValue::Value(Value::String(s)) => {
                    text.push_str(": ");
                    text.push_str(&gotext::quote(s));
                }
                BadValue::Value(Value::Number(number)) if number.is_f64() => {
                    text.push_str(": ");
                    text.push_str(&gotext::float_value(number.as_f64().unwrap_or_default()));
                }
                BadValue::Value(value) => {
                    text.push_str(": ");
                    text.push_str(&gotext::json(value));
                }
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// The same error with `prefix` before its detail.
    pub fn prefix_detail(mut self, prefix: &str) -> Self {
        self.detail.insert_str(0, prefix);
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for FieldError {}

pub fn required(path: &Path, detail: impl Into<String>) -> FieldError {
    FieldError::new(ErrorType::Required, path, "".into(), detail)
}

pub fn invalid(path: &Path, value: impl Into<BadValue>, detail: impl Into<String>) -> FieldError {
    FieldError::new(ErrorType::Invalid, path, value.into(), detail)
}

pub fn type_invalid(path: &Path, value: impl Into<BadValue>, detail: impl Into<String>) -> FieldError {
    FieldError::new(ErrorType::TypeInvalid, path, value.into(), detail)
}

/// `supported` is printed in the order given; sort it where upstream does.
pub fn not_supported<S: AsRef<str>>(path: &Path, value: impl Into<BadValue>, supported: &[S]) -> FieldError {
    let mut detail = String::new();
    for (i, value) in supported.iter().enumerate() {
        detail.push_str(if i == 0 { "supported values: " } else { ", " });
        detail.push_str(&gotext::quote(value.as_ref()));
    }
    FieldError::new(ErrorType::NotSupported, path, value.into(), detail)
}

pub fn duplicate(path: &Path, value: impl Into<BadValue>) -> FieldError {
    FieldError::new(ErrorType::Duplicate, path, value.into(), "")
}

pub fn forbidden(path: &Path, detail: impl Into<String>) -> FieldError {
    FieldError::new(ErrorType::Forbidden, path, "".into(), detail)
}

pub fn not_found(path: &Path, value: impl Into<BadValue>) -> FieldError {
    FieldError::new(ErrorType::NotFound, path, value.into(), "")
}

/// More than `max` bytes.
pub fn too_long(path: &Path, max: usize) -> FieldError {
    let unit = if max == 1 { "byte" } else { "bytes" };
    FieldError::new(ErrorType::TooLong, path, BadValue::Omitted, format!("may not be more than {max} {unit}"))
}

/// More than `max` characters.
pub fn too_long_characters(path: &Path, max: usize) -> FieldError {
    let unit = if max == 1 { "character" } else { "characters" };
    FieldError::new(ErrorType::TooLong, path, BadValue::Omitted, format!("may not be more than {max} {unit}"))
}

pub fn too_short(path: &Path, min: usize) -> FieldError {
    let unit = if min == 1 { "character" } else { "characters" };
    FieldError::new(ErrorType::TooShort, path, BadValue::Omitted, format!("must be at least {min} {unit}"))
}

pub fn too_many(path: &Path, actual: usize, max: usize) -> FieldError {
    let unit = if max == 1 { "item" } else { "items" };
    FieldError::new(ErrorType::TooMany, path, actual.into(), format!("must have at most {max} {unit}"))
}

/// Too many, without saying how many there are.
pub fn too_many_omitted(path: &Path, max: usize) -> FieldError {
    FieldError { bad_value: BadValue::Omitted, ..too_many(path, 0, max) }
}

pub fn too_few(path: &Path, actual: usize, min: usize) -> FieldError {
    let unit = if min == 1 { "item" } else { "items" };
    FieldError::new(ErrorType::TooFew, path, actual.into(), format!("must have at least {min} {unit}"))
}

pub fn internal(path: &Path, error: impl fmt::Display) -> FieldError {
    FieldError::new(ErrorType::Internal, path, BadValue::Omitted, error.to_string())
}

/// All that is wrong with an object, in upstream's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorList(pub Vec<FieldError>);

impl ErrorList {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    /// The aggregate's text: one message alone, several in brackets, repeated ones once.
    pub fn to_aggregate(&self) -> String {
        let mut seen: Vec<String> = Vec::with_capacity(self.0.len());
        for error in &self.0 {
            let text = error.to_string();
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        match seen.len() {
            1 => seen.remove(0),
            _ => format!("[{}]", seen.join(", ")),
        }
    }
}

impl Extend<FieldError> for ErrorList {
    fn extend<T: IntoIterator<Item = FieldError>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}

impl FromIterator<FieldError> for ErrorList {
    fn from_iter<T: IntoIterator<Item = FieldError>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl IntoIterator for ErrorList {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<FieldError> for ErrorList {
    fn from(error: FieldError) -> Self {
        Self(vec![error])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_messages() {
        let containers = Path::new("spec").child("containers");
        let cases = [
            (
                invalid(&containers.index(0).child("name"), "A", "bad"),
                "spec.containers[0].name: Invalid value: \"A\": bad",
            ),
            (required(&containers, ""), "spec.containers: Required value"),
            (
                not_supported(&Path::new("type"), "x", &["a", "b"]),
                "type: Unsupported value: \"x\": supported values: \"a\", \"b\"",
            ),
            (too_long(&Path::new("m").key("k"), 63), "m[k]: Too long: may not be more than 63 bytes"),
            (too_many(&Path::new("l"), 3, 1), "l: Too many: 3: must have at most 1 item"),
            (invalid(&Path::new("n"), 3i64, ""), "n: Invalid value: 3"),
            (duplicate(&Path::new("d"), "x"), "d: Duplicate value: \"x\""),
            (invalid(&Path::nil(), "x", "y"), "<nil>: Invalid value: \"x\": y"),
            (invalid(&Path::nil().child("key"), "x", "y"), "key: Invalid value: \"x\": y"),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn aggregates_once() {
        let error = required(&Path::new("a"), "");
        let mut list = ErrorList::from(error.clone());
        assert_eq!(list.to_aggregate(), "a: Required value");
        list.push(error);
        assert_eq!(list.to_aggregate(), "a: Required value");
        list.push(forbidden(&Path::new("b"), "no"));
        assert_eq!(list.to_aggregate(), "[a: Required value, b: Forbidden: no]");
    }
}
