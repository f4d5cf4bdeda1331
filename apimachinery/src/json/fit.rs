//! Whether a JSON value fits the Go type that it is read into, in the words of Go's decoder.

use super::go_type;
use crate::quantity::Quantity;
use crate::schema::{Type, TypeRef};
use crate::{duration, go_base64, time};

const QUANTITY_PATTERN: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// A value as a decoder meets it: a scalar as it is written, or the beginning of a container.
#[derive(Clone, Copy, Debug)]
pub enum Token<'a> {
    Bool,
    Number(&'a str),
    String(&'a str),
    Array,
    Object,
}

impl Token<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// A value that does not fit.
#[derive(Clone, Debug)]
pub struct Misfit {
    pub cause: Cause,
    /// The type reads its value by itself: what it says ends the reading, where others let it go on.
    pub ends: bool,
}

/// What does not fit.
#[derive(Clone, Debug)]
pub enum Cause {
    /// `encoding/json`'s `UnmarshalTypeError`, which tells where it happened.
    Type { found: String, wanted: String },
    /// Any other text.
    Text(String),
}

impl Cause {
    /// The text of the error below the struct and field names of a path.
    pub fn at(&self, owner: &str, path: &str) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Type { found, wanted } if owner.is_empty() && path.is_empty() => {
                format!("json: cannot unmarshal {found} into Go value of type {wanted}")
            }
            Self::Type { found, wanted } => {
                format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}")
            }
        }
    }
}

fn number(text: &str, wanted: &str, ends: bool) -> Option<Misfit> {
    let cause = Cause::Type { found: format!("number {text}"), wanted: wanted.to_owned() };
    Some(Misfit { cause, ends })
}

fn kind(token: Token<'_>, wanted: impl Into<String>, ends: bool) -> Option<Misfit> {
    Some(Misfit { cause: Cause::Type { found: token.name().to_owned(), wanted: wanted.into() }, ends })
}

fn text<T>(read: Result<T, String>, ends: bool) -> Option<Misfit> {
    read.err().map(|error| Misfit { cause: Cause::Text(error), ends })
}

/// What is wrong with a value; what is in a container is another matter.
pub fn misfit(ty: TypeRef<'_>, token: Token<'_>) -> Option<Misfit> {
    let int32 = |digits: &str| digits.parse::<i64>().is_ok_and(|integer| i32::try_from(integer).is_ok());
    match (ty.ty(), token) {
        (Type::Object(_) | Type::Map(_), Token::Object)
        | (Type::List(_), Token::Array)
        | (Type::String(_), Token::String(_))
        | (Type::Bool, Token::Bool)
        | (Type::IntOrString, Token::String(_))
        | (Type::RawExtension | Type::Json | Type::FieldsV1 | Type::Unknown, _)
        | (Type::SchemaOrBool(_), Token::Object | Token::Bool)
        // These take for nothing what they do not know.
        | (Type::SchemaOrArray(_) | Type::SchemaOrStringArray(_), _) => None,
        // What holds anything, under a definition.
        (Type::Object(object), _) if object.preserve_unknown && object.fields.is_empty() => None,
        (Type::SchemaOrBool(_), _) => text::<()>(Err("boolean or JSON schema expected".to_owned()), true),
        (Type::Int32, Token::Number(digits)) if int32(digits) => None,
        (Type::Int32, Token::Number(digits)) => number(digits, "int32", false),
        (Type::Int64, Token::Number(digits)) if digits.parse::<i64>().is_ok() => None,
        (Type::Int64, Token::Number(digits)) => number(digits, "int64", false),
        (Type::Double, Token::Number(digits)) if digits.parse::<f64>().is_ok_and(f64::is_finite) => None,
        (Type::Double, Token::Number(digits)) => number(digits, "float64", false),
        (Type::Bytes, Token::String(given)) => {
            text(go_base64::decode(given).map_err(|at| format!("illegal base64 data at input byte {at}")), false)
        }
        (Type::Time, Token::String(given)) => text(time::canonical(given).map_err(|error| error.to_string()), true),
        (Type::MicroTime, Token::String(given)) => {
            text(time::canonical_micro(given).map_err(|error| error.to_string()), true)
        }
        (Type::Duration, Token::String(given)) => {
            text(duration::parse(given).map_err(|error| error.to_string()), true)
        }
        (Type::Time | Type::MicroTime | Type::Duration, other) => kind(other, "string", true),
        (Type::Quantity, Token::String(given) | Token::Number(given)) => {
            text(Quantity::parse(given.trim()).map_err(|error| error.to_string()), true)
        }
        // The quantity's own parser gets the JSON text and does not like it.
        (Type::Quantity, _) => text::<()>(Err(QUANTITY_PATTERN.to_owned()), true),
        (Type::IntOrString, Token::Number(digits)) if int32(digits) => None,
        (Type::IntOrString, Token::Number(digits)) => number(digits, "int32", true),
        (Type::IntOrString, other) => kind(other, "int32", true),
        (_, other) => kind(other, go_type(ty), false),
    }
}
