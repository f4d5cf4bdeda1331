//! CEL's types.

use std::fmt;
use std::sync::Arc;

use crate::decl::ObjectDecl;

/// A type. Two objects are of one type when they have one name.
#[derive(Clone, Debug)]
pub enum Type {
    /// Known only when evaluated.
    Dyn,
    /// What a faulty expression has; it fits everywhere, so that one fault is reported once.
    Error,
    /// A value of any type.
    Any,
    /// `null_type`
    Null,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `uint`
    Uint,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// `google.protobuf.Duration`
    Duration,
    /// `list(T)`
    List(Arc<Type>),
    /// `map(K, V)`
    Map(Arc<(Type, Type)>),
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// A type known by its name alone, with parameters: `optional_type(T)`, `net.IP`.
    Opaque(&'static str, Arc<[Type]>),
    /// A type with fields. Kubernetes' own (`kubernetes.Quantity`) have none.
    Object(Arc<ObjectDecl>),
    /// A parameter in the signature of a function.
    Param(&'static str),
    /// A parameter within one check.
    Var(u32),
}

/// The name of the type of optional values.
pub const OPTIONAL: &str = "optional_type";

impl Type {
    /// `list(T)`
    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(element))
    }

    /// `map(K, V)`
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    /// `optional_type(T)`
    pub fn optional(of: Type) -> Type {
        Type::Opaque(OPTIONAL, Arc::from([of]))
    }

    /// `type(T)`
    pub fn type_of(of: Type) -> Type {
        Type::Type(Some(Arc::new(of)))
    }

    /// A type without fields or parameters, such as `kubernetes.URL`.
    pub fn named(name: &'static str) -> Type {
        Type::Object(ObjectDecl::without_fields(name))
    }

    /// What an optional type is optional of.
    pub fn unwrap_optional(&self) -> Option<&Type> {
        match self {
            Type::Opaque(OPTIONAL, of) => of.first(),
            _ => None,
        }
    }

    /// Whether nothing is known of it.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Any)
    }

    /// Whether nothing is known of it, or it is faulty.
    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Any | Type::Error)
    }

    /// The name that `type(x)` shows at run time.
    pub fn runtime_name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Error => "error",
            Type::Any => "google.protobuf.Any",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::List(_) => "list",
            Type::Map(_) => "map",
            Type::Type(_) => "type",
            Type::Opaque(name, _) | Type::Param(name) => name,
            Type::Object(object) => &object.name,
            Type::Var(_) => "dyn",
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Type) -> bool {
        use Type::{Any, Bool, Bytes, Double, Duration, Dyn, Error, Int, List, Map, Null, Object, Opaque, Param};
        use Type::{String, Timestamp, Uint, Var};
        match (self, other) {
            (Dyn, Dyn) | (Error, Error) | (Any, Any) | (Null, Null) | (Bool, Bool) | (Int, Int) | (Uint, Uint) => true,
            (Double, Double) | (String, String) | (Bytes, Bytes) => true,
            (Timestamp, Timestamp) | (Duration, Duration) => true,
            (List(a), List(b)) => a == b,
            (Map(a), Map(b)) => a == b,
            (Type::Type(a), Type::Type(b)) => a == b,
            (Opaque(a, of_a), Opaque(b, of_b)) => a == b && of_a == of_b,
            (Object(a), Object(b)) => a.name == b.name,
            (Param(a), Param(b)) => a == b,
            (Var(a), Var(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Error => f.write_str("!error!"),
            Type::Any => f.write_str("any"),
            Type::Null => f.write_str("null"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(element) => write!(f, "list({element})"),
            Type::Map(of) => write!(f, "map({}, {})", of.0, of.1),
            Type::Type(Some(of)) => write!(f, "type({of})"),
            Type::Opaque(name, of) if !of.is_empty() => {
                write!(f, "{name}(")?;
                for (at, of) in of.iter().enumerate() {
                    if at > 0 {
                        f.write_str(", ")?;
                    }
                    of.fmt(f)?;
                }
                f.write_str(")")
            }
            Type::Var(n) => write!(f, "_var{n}"),
            other => f.write_str(other.runtime_name()),
        }
    }
}
