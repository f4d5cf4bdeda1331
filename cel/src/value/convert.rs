//! Conversions: `int(x)`, `string(x)` and so on.

use apimachinery::duration;

use super::{Result, Text, Timestamp, Value, show, time};
use crate::error::Error;
use crate::types::Type;

impl<'a> Value<'a> {
    /// The value as one of another type.
    ///
    /// # Errors
    /// When there is no such conversion, or the value does not fit.
    pub(crate) fn convert(&self, to: &Type) -> Result<'a> {
        let failed = || {
            let to = to.runtime_name();
            Error::new(format!("type conversion error from '{}' to '{to}'", self.type_name()))
        };
        let overflow = |what: &'static str| Error::new(what);
        Ok(match (to, self) {
            (Type::Bool, Value::Bool(b)) => Value::Bool(*b),
            (Type::Bool, Value::String(text)) => match &**text {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => Value::Bool(true),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Value::Bool(false),
                _ => return Err(failed()),
            },
            (Type::Int, Value::Int(n)) => Value::Int(*n),
            (Type::Int, Value::Uint(n)) => Value::Int(i64::try_from(*n).map_err(|_| overflow("integer overflow"))?),
            (Type::Int, Value::Double(n)) => {
                // The borders themselves are rounded, and so refused.
                if n.is_nan() || n.is_infinite() || *n <= i64::MIN as f64 || *n >= i64::MAX as f64 {
                    return Err(overflow("integer overflow"));
                }
                Value::Int(*n as i64)
            }
            (Type::Int, Value::String(text)) => Value::Int(go_integer(text).ok_or_else(failed)?),
            (Type::Int, Value::Timestamp(t)) => Value::Int(t.seconds()),
            (Type::Int, Value::Duration(nanos)) => Value::Int(*nanos),
            (Type::Uint, Value::Uint(n)) => Value::Uint(*n),
            (Type::Uint, Value::Int(n)) => {
                Value::Uint(u64::try_from(*n).map_err(|_| overflow("unsigned integer overflow"))?)
            }
            (Type::Uint, Value::Double(n)) => {
                if n.is_nan() || *n < 0.0 || *n >= u64::MAX as f64 {
                    return Err(overflow("unsigned integer overflow"));
                }
                Value::Uint(*n as u64)
            }
            (Type::Uint, Value::String(text)) => {
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                Value::Uint(digits.then(|| text.parse().ok()).flatten().ok_or_else(failed)?)
            }
            (Type::Double, Value::Double(n)) => Value::Double(*n),
            (Type::Double, Value::Int(n)) => Value::Double(*n as f64),
            (Type::Double, Value::Uint(n)) => Value::Double(*n as f64),
            (Type::Double, Value::String(text)) => Value::Double(go_float(text).ok_or_else(failed)?),
            (Type::Bytes, Value::Bytes(bytes)) => Value::Bytes(bytes.clone()),
            (Type::Bytes, Value::String(text)) => Value::Bytes(text.as_bytes().into()),
            (Type::String, Value::String(text)) => Value::String(text.clone()),
            (Type::String, Value::Bool(b)) => Value::str(if *b { "true" } else { "false" }),
            (Type::String, Value::Int(n)) => Value::text(n.to_string()),
            (Type::String, Value::Uint(n)) => Value::text(n.to_string()),
            (Type::String, Value::Double(n)) => Value::text(show::double(*n)),
            (Type::String, Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Value::String(Text::Shared(text.into())),
                Err(_) => return Err(Error::new("invalid UTF-8 in bytes, cannot convert to string")),
            },
            (Type::String, Value::Timestamp(t)) => Value::text(t.to_string()),
            (Type::String, Value::Duration(nanos)) => Value::text(time::seconds(*nanos)),
            (Type::String, Value::Ip(_) | Value::Cidr(_)) => Value::text(self.to_string()),
            (Type::Timestamp, Value::Timestamp(t)) => Value::Timestamp(*t),
            (Type::Timestamp, Value::String(text)) => Value::Timestamp(time::parse(text).ok_or_else(failed)?),
            (Type::Timestamp, Value::Int(n)) => Value::Timestamp(Timestamp::new(*n, 0)?),
            (Type::Duration, Value::Duration(nanos)) => Value::Duration(*nanos),
            (Type::Duration, Value::Int(nanos)) => Value::Duration(*nanos),
            (Type::Duration, Value::String(text)) => Value::Duration(duration::parse(text).map_err(|_| failed())?),
            _ => return Err(failed()),
        })
    }
}

/// `strconv.ParseInt(text, 10, 64)`
fn go_integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// `strconv.ParseFloat(text, 64)`, without hexadecimal and underscores.
fn go_float(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let number: f64 = lower.parse().ok()?;
    // A number out of range is an error, while infinity may be written.
    (number.is_finite() || lower.contains("inf") || lower.contains("nan")).then_some(number)
}
