//! One step of a path: a field's name, the keys of a list item, a set's value or an index.

use crate::gotext::quote;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::fmt;

/// A step of a path, ordered as upstream orders them.
#[derive(Clone, Debug, PartialEq)]
pub enum PathElement {
    /// A field of a struct or a key of a map: `f:name`.
    Field(Box<str>),
    /// The keys of an item of an associative list, sorted by name: `k:{"name":"x"}`.
    Key(Box<[(String, Value)]>),
    /// An item of a set: `v:"x"`.
    Value(Value),
    /// A position: `i:0`.
    Index(i64),
}

impl PathElement {
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// The key of FieldsV1.
    pub(super) fn key(&self) -> String {
        match self {
            // Nearly all are this.
            Self::Field(name) => ["f:", name].concat(),
            other => other.to_string(),
        }
    }

    /// Reads a key of FieldsV1; `None` for a kind of element that is not known.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let (Some(kind), Some(b':')) = (text.as_bytes().first(), text.as_bytes().get(1)) else {
            return Err(if text.len() < 2 {
                "key must be 2 characters long:".into()
            } else {
                format!("missing colon: {text}")
            });
        };
        let rest = &text[2..];
        Ok(Some(match kind {
            b'f' => Self::field(rest),
            b'v' => Self::Value(serde_json::from_str(rest).map_err(|e| e.to_string())?),
            b'k' => {
                let map: Map<String, Value> = serde_json::from_str(rest).map_err(|e| e.to_string())?;
                Self::Key(map.into_iter().collect())
            }
            b'i' => {
                Self::Index(rest.parse().map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", quote(rest)))?)
            }
            _ => return Ok(None),
        }))
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }

    /// How the element reads in messages: `.name`, `[name="x"]`, `[="x"]`, `[0]`.
    pub fn display(&self) -> String {
        match self {
            Self::Field(name) => format!(".{name}"),
            Self::Key(keys) => {
                let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={}", show(v))).collect();
                format!("[{}]", keys.join(","))
            }
            Self::Value(value) => format!("[={}]", show(value)),
            Self::Index(index) => format!("[{index}]"),
        }
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(s) => quote(s),
        Value::Null => "null".into(),
        other => crate::patch::go_value(other),
    }
}

/// A path as messages show it: `.spec.containers[name="x"].image`.
pub fn path_text(path: &[PathElement]) -> String {
    path.iter().map(PathElement::display).collect()
}

/// The key of FieldsV1.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, "f:{name}"),
            Self::Key(keys) => {
                f.write_str("k:{")?;
                for (i, (name, value)) in keys.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    let value = crate::json::to_text(value);
                    write!(f, "{comma}{}:{value}", Value::from(name.as_str()))?;
                }
                f.write_str("}")
            }
            Self::Value(value) => write!(f, "v:{}", crate::json::to_text(value)),
            Self::Index(index) => write!(f, "i:{index}"),
        }
    }
}

impl Eq for PathElement {}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                for ((ak, av), (bk, bv)) in a.iter().zip(b.iter()) {
                    let order = ak.cmp(bk).then_with(|| compare_values(av, bv));
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                a.len().cmp(&b.len())
            }
            (Self::Value(a), Self::Value(b)) => compare_values(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// Numbers, strings, booleans, lists, maps, null.
fn compare_values(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x.as_f64().unwrap_or(0.0).total_cmp(&y.as_f64().unwrap_or(0.0)),
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => a.to_string().cmp(&b.to_string()),
        _ => rank(a).cmp(&rank(b)),
    }
}
