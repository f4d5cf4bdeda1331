//! Equality and order.

use std::cmp::Ordering;

use serde_json::Value as Json;

use super::Value;
use crate::error::Error;

impl<'a> Value<'a> {
    /// CEL's `==`: numbers of all types compare as numbers, other values of different types differ.
    pub fn equals(&self, other: &Value<'a>) -> bool {
        if let Some(order) = numbers(self, other) {
            return order == Some(Ordering::Equal);
        }
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => **a == **b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::List(a), Value::List(b)) => a.equals(b),
            (Value::Map(a), Value::Map(b)) => a.equals(b),
            (Value::Object(a), Value::Object(b)) => {
                a.decl.name == b.decl.name
                    && a.fields.len() == b.fields.len()
                    && a.fields.iter().zip(&b.fields).all(|(a, b)| a.0 == b.0 && a.1.equals(b.1))
            }
            (Value::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (None, None) => true,
                _ => false,
            },
            (Value::Quantity(a), Value::Quantity(b)) => a.cmp(b) == Ordering::Equal,
            (Value::Url(a), Value::Url(b)) => a.to_string() == b.to_string(),
            (Value::Ip(a), Value::Ip(b)) => a == b,
            (Value::Cidr(a), Value::Cidr(b)) => a == b,
            (Value::Format(a), Value::Format(b)) => a.name == b.name,
            (Value::Semver(a), Value::Semver(b)) => a.compare(b) == Ordering::Equal,
            _ => false,
        }
    }

    /// The order of two values of one kind.
    ///
    /// # Errors
    /// When they have none.
    pub fn compare(&self, other: &Value<'a>) -> Result<Ordering, Error> {
        if let Some(order) = numbers(self, other) {
            return order.ok_or_else(|| Error::new("NaN values cannot be ordered"));
        }
        Ok(match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
            (Value::Quantity(a), Value::Quantity(b)) => a.cmp(b),
            (Value::Semver(a), Value::Semver(b)) => a.compare(b),
            _ => return Err(Error::no_such_overload()),
        })
    }
}

/// The order of two numbers: `None` if one of the values is no number, `Some(None)` if one is NaN.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Option<Ordering>> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    };
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => Some(a.partial_cmp(b)),
        (Value::Double(a), b) => whole(b).map(|b| double_with_whole(*a, b)),
        (a, Value::Double(b)) => whole(a).map(|a| double_with_whole(*b, a).map(Ordering::reverse)),
        (a, b) => Some(Some(whole(a)?.cmp(&whole(b)?))),
    }
}

/// Exact: no whole number of 64 bits is rounded on the way.
fn double_with_whole(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    if a >= 2f64.powi(65) {
        return Some(Ordering::Greater);
    }
    if a <= -(2f64.powi(65)) {
        return Some(Ordering::Less);
    }
    let floor = a.floor();
    Some((floor as i128).cmp(&b).then(if a > floor { Ordering::Greater } else { Ordering::Equal }))
}

/// Equality of JSON where numbers compare as numbers.
pub(super) fn json_equals(a: &serde_json::Map<String, Json>, b: &serde_json::Map<String, Json>) -> bool {
    fn same(a: &Json, b: &Json) -> bool {
        match (a, b) {
            (Json::Number(_), Json::Number(_)) => match (Value::from_json(a, None), Value::from_json(b, None)) {
                (Ok(a), Ok(b)) => a.equals(&b),
                _ => false,
            },
            (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Json::Object(a), Json::Object(b)) => json_equals(a, b),
            (a, b) => a == b,
        }
    }
    a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
}
