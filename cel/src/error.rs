//! What can go wrong while an expression is evaluated.

use std::borrow::Cow;
use std::fmt;

/// Why an expression has no value. `||` and `&&` may absorb all but [`Error::CostExceeded`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// An error of the expression itself.
    Eval(Cow<'static, str>),
    /// The expression was ended because it costs too much.
    CostExceeded,
}

impl Error {
    /// An error of the expression.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Error::Eval(message.into())
    }

    /// A function was given what it is not made for.
    pub fn no_such_overload() -> Self {
        Error::new("no such overload")
    }

    /// A map without the key.
    pub fn no_such_key(key: impl fmt::Display) -> Self {
        Error::new(format!("no such key: {key}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Eval(message) => f.write_str(message),
            Error::CostExceeded => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

impl std::error::Error for Error {}
