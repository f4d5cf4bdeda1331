//! The functions that expressions may call: CEL's own and Kubernetes' libraries, one file each. A file declares its
//! functions: names, signatures, what they cost, what they do.

pub mod authorizer;
pub mod cidr;
pub mod comprehensions;
pub mod format;
pub mod format_string;
pub mod ip;
pub mod jsonpatch;
pub mod lists;
pub mod operators;
pub mod optional;
pub mod quantity;
pub mod regex;
pub mod semver;
pub mod sets;
pub mod standard;
pub mod strings;
pub mod urls;

use std::sync::LazyLock;

use ::regex::Regex;
use ahash::AHashMap;

use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::{Result, Value};

/// What a function does. It may take its arguments out of the slice.
#[derive(Clone, Copy)]
pub enum Action {
    /// Works on values that fit the signature.
    Plain(for<'a> fn(&mut [Value<'a>]) -> Result<'a>),
    /// Works on values, the second of which is a regular expression. A constant one is compiled once.
    Regex(for<'a> fn(&mut [Value<'a>], &Regex) -> Result<'a>),
    /// The evaluator knows it: operators that do not evaluate all of their arguments.
    Special,
}

/// One signature of a function.
pub struct Overload {
    /// Its name among all overloads, as upstream's.
    pub id: &'static str,
    /// The function.
    pub function: &'static str,
    /// Whether it is called on a receiver, which is then the first argument.
    pub member: bool,
    /// The types of the arguments.
    pub args: Vec<Type>,
    /// The type of the result.
    pub result: Type,
    /// What it costs.
    pub cost: Cost,
    /// What it does.
    pub action: Action,
}

impl std::fmt::Debug for Overload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id)
    }
}

/// A set of functions.
#[derive(Debug, Default)]
pub struct Functions {
    by_name: AHashMap<&'static str, Vec<Overload>>,
}

/// What every expression may call.
static BASE: LazyLock<Functions> = LazyLock::new(|| {
    let mut functions = Functions::default();
    operators::declare(&mut functions);
    standard::declare(&mut functions);
    strings::declare(&mut functions);
    lists::declare(&mut functions);
    sets::declare(&mut functions);
    regex::declare(&mut functions);
    urls::declare(&mut functions);
    quantity::declare(&mut functions);
    ip::declare(&mut functions);
    cidr::declare(&mut functions);
    format::declare(&mut functions);
    semver::declare(&mut functions);
    optional::declare(&mut functions);
    comprehensions::declare(&mut functions);
    authorizer::declare(&mut functions);
    functions
});

/// What only mutations may call.
static MUTATION: LazyLock<Functions> = LazyLock::new(|| {
    let mut functions = Functions::default();
    jsonpatch::declare(&mut functions);
    functions
});

impl Functions {
    /// The functions of all expressions.
    pub fn base() -> &'static Functions {
        &BASE
    }

    /// The functions that mutations have beside those.
    pub fn mutation() -> &'static Functions {
        &MUTATION
    }

    /// The overloads of a function, in the order in which they are tried.
    pub fn get(&self, name: &str) -> Option<&[Overload]> {
        self.by_name.get(name).map(Vec::as_slice)
    }

    fn add(&mut self, overload: Overload) {
        self.by_name.entry(overload.function).or_default().push(overload);
    }

    /// Declares `function(args)`.
    pub(crate) fn global(
        &mut self,
        function: &'static str,
        id: &'static str,
        args: &[Type],
        result: Type,
        cost: Cost,
        action: for<'a> fn(&mut [Value<'a>]) -> Result<'a>,
    ) {
        let action = Action::Plain(action);
        self.add(Overload { id, function, member: false, args: args.to_vec(), result, cost, action });
    }

    /// Declares `args[0].function(args[1..])`.
    pub(crate) fn member(
        &mut self,
        function: &'static str,
        id: &'static str,
        args: &[Type],
        result: Type,
        cost: Cost,
        action: for<'a> fn(&mut [Value<'a>]) -> Result<'a>,
    ) {
        let action = Action::Plain(action);
        self.add(Overload { id, function, member: true, args: args.to_vec(), result, cost, action });
    }

    /// Declares what the evaluator treats by itself.
    pub(crate) fn special(
        &mut self,
        function: &'static str,
        id: &'static str,
        args: &[Type],
        result: Type,
        cost: Cost,
    ) {
        let overload =
            Overload { id, function, member: false, args: args.to_vec(), result, cost, action: Action::Special };
        self.add(overload);
    }
}

/// An identifier that names a type.
pub(crate) fn type_by_name(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "string" => Type::String,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "null_type" => Type::Null,
        "type" => Type::Type(None),
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "optional_type" => Type::optional(Type::Dyn),
        "net.IP" => Type::Opaque("net.IP", std::sync::Arc::from([])),
        "net.CIDR" => Type::Opaque("net.CIDR", std::sync::Arc::from([])),
        _ => return None,
    })
}

/// The text of an argument that the signature says is text.
pub(crate) fn text<'v>(value: &'v Value<'_>) -> std::result::Result<&'v str, Error> {
    value.as_str().ok_or_else(Error::no_such_overload)
}

/// The number of an argument that the signature says is a number.
pub(crate) fn int(value: &Value<'_>) -> std::result::Result<i64, Error> {
    match value {
        Value::Int(n) => Ok(*n),
        _ => Err(Error::no_such_overload()),
    }
}

/// Takes an argument out of the slice.
pub(crate) fn take<'a>(value: &mut Value<'a>) -> Value<'a> {
    std::mem::replace(value, Value::Null)
}
