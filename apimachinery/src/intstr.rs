//! `IntOrString`: ports and percentages that may be a number or a text.

use serde_json::Value;

/// A number, or a text such as `http` or `25%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

/// A value that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid value for IntOrString: {0}")]
    NotPercent(String),
    #[error("invalid type: neither int nor percentage")]
    Neither,
}

impl IntOrString {
    /// `None` if the tree is neither a 32-bit number nor a string.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(s) => Some(Self::String(s.clone())),
            Value::Number(n) => i32::try_from(n.as_i64()?).ok().map(Self::Int),
            _ => None,
        }
    }

    pub fn to_value(&self) -> Value {
        match self {
            Self::Int(n) => Value::from(*n),
            Self::String(s) => Value::from(s.as_str()),
        }
    }

    /// The number itself, or the given share of `total`, rounded as asked:
    /// `GetScaledValueFromIntOrPercent`.
    pub fn scaled(&self, total: i64, round_up: bool) -> Result<i64, Error> {
        match self {
            Self::Int(n) => Ok(i64::from(*n)),
            Self::String(s) => {
                let digits = s.strip_suffix('%').ok_or(Error::Neither)?;
                let percent: i64 =
                    digits.parse().map_err(|_| Error::NotPercent(format!("\"{s}\" is not a valid percentage")))?;
                let product = percent.saturating_mul(total);
                Ok(if round_up {
                    product.div_euclid(100) + i64::from(product.rem_euclid(100) != 0)
                } else {
                    product.div_euclid(100)
                })
            }
        }
    }
}

impl std::fmt::Display for IntOrString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(n) => write!(f, "{n}"),
            Self::String(s) => f.write_str(s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales() {
        let percent = |s: &str| IntOrString::String(s.into());
        assert_eq!(percent("25%").scaled(10, true), Ok(3));
        assert_eq!(percent("25%").scaled(10, false), Ok(2));
        assert_eq!(IntOrString::Int(4).scaled(10, true), Ok(4));
        assert_eq!(percent("http").scaled(10, true), Err(Error::Neither));
        assert!(percent("x%").scaled(10, true).is_err());
    }
}
