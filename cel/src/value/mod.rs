//! Values. Those that come from JSON are borrowed and read as they are looked at.

mod compare;
mod convert;
mod json;
mod list;
mod map;
mod show;
mod time;

use std::ops::Deref;
use std::sync::Arc;

pub use list::List;
pub use map::{Fields, Key, Map, MapBuilder, Object};
pub use time::Timestamp;
pub(crate) use time::{is_date, is_date_time, parse as parse_timestamp};

use crate::ast::Literal;
use crate::error::Error;
use crate::library::authorizer::{Authorizer, Decision, GroupCheck, PathCheck, ResourceCheck};
use crate::library::cidr::Cidr;
use crate::library::format::Format;
use crate::library::semver::Semver;
use crate::library::urls::Url;
use crate::types::Type;

/// A value, or why there is none.
pub type Result<'a> = std::result::Result<Value<'a>, Error>;

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `uint`
    Uint(u64),
    /// `double`
    Double(f64),
    /// `string`
    String(Text<'a>),
    /// `bytes`
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A length of time, in nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map, or an object read from JSON.
    Map(Map<'a>),
    /// An object made by the expression.
    Object(Arc<Object<'a>>),
    /// A type.
    Type(Type),
    /// A value that may be absent.
    Optional(Option<Arc<Value<'a>>>),
    /// `kubernetes.Quantity`
    Quantity(Arc<apimachinery::quantity::Quantity>),
    /// `kubernetes.URL`
    Url(Arc<Url>),
    /// `net.IP`
    Ip(std::net::IpAddr),
    /// `net.CIDR`
    Cidr(Cidr),
    /// `kubernetes.NamedFormat`
    Format(&'static Format),
    /// `kubernetes.Semver`
    Semver(Arc<Semver>),
    /// `kubernetes.authorization.Authorizer`
    Authorizer(Authorizer<'a>),
    /// `kubernetes.authorization.PathCheck`
    PathCheck(Arc<PathCheck<'a>>),
    /// `kubernetes.authorization.GroupCheck`
    GroupCheck(Arc<GroupCheck<'a>>),
    /// `kubernetes.authorization.ResourceCheck`
    ResourceCheck(Arc<ResourceCheck<'a>>),
    /// `kubernetes.authorization.Decision`
    Decision(Arc<Decision>),
}

/// Text, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// From the input.
    Borrowed(&'a str),
    /// From the expression, or made by it.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl<'a> Value<'a> {
    /// Text made by the caller.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Value::String(Text::Shared(text.into()))
    }

    /// Borrowed text.
    pub fn str(text: &'a str) -> Self {
        Value::String(Text::Borrowed(text))
    }

    /// A list of values.
    pub fn list(values: Vec<Value<'a>>) -> Self {
        Value::List(List::Values(Arc::new(values)))
    }

    /// A list of texts.
    pub fn texts<T: Into<Arc<str>>>(texts: impl IntoIterator<Item = T>) -> Self {
        Value::list(texts.into_iter().map(Value::text).collect())
    }

    /// An optional value.
    pub fn some(value: Value<'a>) -> Self {
        Value::Optional(Some(Arc::new(value)))
    }

    /// No value.
    pub fn none() -> Self {
        Value::Optional(None)
    }

    pub(crate) fn literal(literal: &Literal) -> Self {
        match literal {
            Literal::Null => Value::Null,
            Literal::Bool(b) => Value::Bool(*b),
            Literal::Int(n) => Value::Int(*n),
            Literal::Uint(n) => Value::Uint(*n),
            Literal::Double(n) => Value::Double(*n),
            Literal::String(text) => Value::String(Text::Shared(text.clone())),
            Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
        }
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The truth, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The type at run time. Parameters of lists and maps are not known.
    pub fn type_of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Timestamp(_) => Type::Timestamp,
            Value::Duration(_) => Type::Duration,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Object(object) => Type::Object(object.decl.clone()),
            Value::Type(_) => Type::Type(None),
            Value::Optional(_) => Type::optional(Type::Dyn),
            other => Type::named(other.type_name()),
        }
    }

    /// The name of the type at run time.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Object(_) => "object",
            Value::Type(_) => "type",
            Value::Optional(_) => crate::types::OPTIONAL,
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Url(_) => "kubernetes.URL",
            Value::Ip(_) => "net.IP",
            Value::Cidr(_) => "net.CIDR",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Value::PathCheck(_) => "kubernetes.authorization.PathCheck",
            Value::GroupCheck(_) => "kubernetes.authorization.GroupCheck",
            Value::ResourceCheck(_) => "kubernetes.authorization.ResourceCheck",
            Value::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// Whether a value of this kind fits a parameter of a function, as far as its kind tells.
    pub(crate) fn fits(&self, parameter: &Type) -> bool {
        match (parameter, self) {
            (Type::Dyn | Type::Any | Type::Param(_) | Type::Var(_) | Type::Error, _) => true,
            (Type::Null, Value::Null)
            | (Type::Bool, Value::Bool(_))
            | (Type::Int, Value::Int(_))
            | (Type::Uint, Value::Uint(_))
            | (Type::Double, Value::Double(_))
            | (Type::String, Value::String(_))
            | (Type::Bytes, Value::Bytes(_))
            | (Type::Timestamp, Value::Timestamp(_))
            | (Type::Duration, Value::Duration(_))
            | (Type::List(_), Value::List(_))
            | (Type::Map(_), Value::Map(_))
            | (Type::Type(_), Value::Type(_)) => true,
            (Type::Opaque(name, _), value) => *name == value.type_name(),
            (Type::Object(decl), Value::Object(object)) => decl.name == object.decl.name,
            (Type::Object(decl), value) => decl.name == value.type_name(),
            _ => false,
        }
    }

    /// The number that cost is reckoned with: characters, bytes, items or entries; 1 for what has no size.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Value::String(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Optional(Some(value)) => value.size(),
            Value::Ip(ip) => {
                if ip.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            Value::Cidr(cidr) => u64::from(cidr.bits.div_ceil(8)),
            _ => 1,
        }
    }

    /// Whether it is what its type is without content: 0, '', [], null.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Int(n) => *n == 0,
            Value::Uint(n) => *n == 0,
            Value::Double(n) => *n == 0.0,
            Value::String(text) => text.is_empty(),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::Timestamp(time) => time.is_zero(),
            Value::Duration(n) => *n == 0,
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Object(object) => object.fields.is_empty(),
            Value::Optional(value) => value.as_ref().is_none_or(|value| value.is_zero()),
            Value::Ip(ip) => ip.is_unspecified(),
            _ => false,
        }
    }

    /// The field or entry of a text key: `None` when there is none.
    ///
    /// # Errors
    /// When the value is there but cannot be read as its schema says.
    pub fn get(&self, name: &str) -> std::result::Result<Option<Value<'a>>, Error> {
        match self {
            Value::Map(map) => map.get_str(name),
            Value::Object(object) => Ok(object.fields.get(name).cloned()),
            _ => Ok(None),
        }
    }
}

impl From<bool> for Value<'_> {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}

impl From<i64> for Value<'_> {
    fn from(n: i64) -> Self {
        Value::Int(n)
    }
}
