//! Reading JSON as values, and writing values as JSON.

use apimachinery::go_base64;
use apimachinery::quantity::Quantity;
use base64::Engine as _;
use serde_json::Value as Json;

use super::{List, Map, Result, Value, time};
use crate::decl::{DeclKind, DeclType};
use crate::error::Error;

impl<'a> Value<'a> {
    /// Reads JSON. Without a declaration a number without fraction is an `int`; with one it is what that says.
    ///
    /// # Errors
    /// When the JSON is not what the declaration says.
    pub fn from_json(json: &'a Json, decl: Option<&'a DeclType>) -> Result<'a> {
        let Some(decl) = decl else { return Ok(plain(json)) };
        if json.is_null() {
            return match decl.kind {
                DeclKind::Dyn | DeclKind::Null | DeclKind::Cel(_) => Ok(Value::Null),
                _ if decl.nullable => Ok(Value::Null),
                _ => Err(Error::new("invalid data, got null for schema with nullable=false")),
            };
        }
        let text = || json.as_str().ok_or_else(|| invalid("string", json));
        match &decl.kind {
            DeclKind::Dyn | DeclKind::Null | DeclKind::Cel(_) => Ok(plain(json)),
            DeclKind::IntOrString => match json {
                Json::String(_) => Ok(plain(json)),
                Json::Number(n) if n.is_i64() => Ok(plain(json)),
                _ => Err(Error::new("invalid data, expected XIntOrString value to be either a string or integer")),
            },
            DeclKind::Bool => json.as_bool().map(Value::Bool).ok_or_else(|| invalid("bool", json)),
            DeclKind::Int => integer(json).map(Value::Int).ok_or_else(|| invalid("int", json)),
            DeclKind::Double => json.as_f64().map(Value::Double).ok_or_else(|| invalid("float", json)),
            DeclKind::String => text().map(Value::str),
            DeclKind::Bytes => {
                let text = text()?;
                let bytes = go_base64::decode(text).map_err(|at| {
                    let why = format!("illegal base64 data at input byte {at}");
                    Error::new(format!("Invalid byte formatted string {text}: {why}"))
                })?;
                Ok(Value::Bytes(bytes.into()))
            }
            DeclKind::Date => {
                let text = text()?;
                let time = time::parse_date(text).ok_or_else(|| {
                    Error::new(format!("Invalid date formatted string {text}: parsing time {text:?}"))
                })?;
                Ok(Value::Timestamp(time))
            }
            DeclKind::DateTime => {
                let text = text()?;
                let time = time::parse_date_time(text).ok_or_else(|| {
                    Error::new(format!("Invalid date-time formatted string {text}: parsing time {text:?}"))
                })?;
                Ok(Value::Timestamp(time))
            }
            DeclKind::Duration => {
                let text = text()?;
                let nanos = time::parse_strfmt_duration(text).ok_or_else(|| {
                    Error::new(format!("Invalid duration {text}: unable to parse {text} as duration"))
                })?;
                Ok(Value::Duration(nanos))
            }
            DeclKind::Quantity => match json {
                Json::String(text) => {
                    let quantity = Quantity::parse(text).map_err(|e| Error::new(e.to_string()))?;
                    Ok(Value::Quantity(quantity.into()))
                }
                Json::Number(n) => {
                    let quantity = Quantity::parse(&n.to_string()).map_err(|e| Error::new(e.to_string()))?;
                    Ok(Value::Quantity(quantity.into()))
                }
                _ => Err(invalid("string", json)),
            },
            DeclKind::List(..) => match json {
                Json::Array(items) => Ok(Value::List(List::Json(items, Some(decl)))),
                _ => Err(Error::new("invalid data, expected an array for the provided schema with type=array")),
            },
            DeclKind::Map(_) | DeclKind::Object(_) => match json {
                Json::Object(map) => Ok(Value::Map(Map::Json(map, Some(decl)))),
                _ => Err(Error::new("invalid data, expected a map for the provided schema with type=object")),
            },
        }
    }

    /// The value as JSON. Timestamps, durations, quantities and the like become text; fields of objects that are
    /// absent optionals are left out.
    ///
    /// # Errors
    /// When the value has no form in JSON, such as a type or an authorizer.
    pub fn to_json(&self) -> std::result::Result<Json, Error> {
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => Json::from(*n),
            Value::Uint(n) => Json::from(*n),
            Value::Double(n) => serde_json::Number::from_f64(*n)
                .map(Json::Number)
                .ok_or_else(|| Error::new(format!("unsupported value: {n}")))?,
            Value::String(text) => Json::String(text.to_string()),
            Value::Bytes(bytes) => Json::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Value::Timestamp(time) => Json::String(time.to_string()),
            Value::Duration(nanos) => Json::String(time::seconds(*nanos)),
            Value::List(List::Json(items, _)) => Json::Array(items.to_vec()),
            Value::List(list) => {
                let mut items = Vec::with_capacity(list.len());
                for item in list.iter() {
                    items.push(item?.to_json()?);
                }
                Json::Array(items)
            }
            Value::Map(Map::Json(map, _)) => Json::Object((*map).clone()),
            Value::Map(map) => {
                let mut object = serde_json::Map::new();
                for key in map.keys() {
                    let Some(name) = key.as_str() else {
                        return Err(Error::new(format!("unsupported map key of type {}", key.type_name())));
                    };
                    if let Some(value) = map.get(&key)? {
                        object.insert(name.to_owned(), value.to_json()?);
                    }
                }
                Json::Object(object)
            }
            Value::Object(object) => {
                let mut out = serde_json::Map::new();
                for (name, value) in &object.fields {
                    let name = object.decl.fields.get(name).map_or(name, |field| &field.json_name);
                    out.insert(name.clone(), value.to_json()?);
                }
                Json::Object(out)
            }
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Optional(None) => Json::Null,
            Value::Quantity(quantity) => Json::String(quantity.to_string()),
            Value::Ip(ip) => Json::String(ip.to_string()),
            Value::Cidr(cidr) => Json::String(cidr.to_string()),
            other => return Err(Error::new(format!("type conversion error from '{}' to JSON", other.type_name()))),
        })
    }
}

/// JSON as it stands.
fn plain(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Int(n),
            None => n.as_u64().map_or_else(|| Value::Double(n.as_f64().unwrap_or(f64::NAN)), Value::Uint),
        },
        Json::String(text) => Value::str(text),
        Json::Array(items) => Value::List(List::Json(items, None)),
        Json::Object(map) => Value::Map(Map::Json(map, None)),
    }
}

/// A number without fraction, however it is written.
fn integer(json: &Json) -> Option<i64> {
    json.as_i64()
}

fn invalid(expected: &str, json: &Json) -> Error {
    let got = match json {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(n) if n.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    };
    Error::new(format!("invalid data, expected {expected}, got {got}"))
}
