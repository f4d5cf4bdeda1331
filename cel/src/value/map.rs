//! Maps and objects.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;
use serde_json::Value as Json;

use super::{Result, Value};
use crate::decl::{DeclKind, DeclType, ObjectDecl};
use crate::error::Error;
use crate::escape::escape;

/// A map.
#[derive(Clone)]
pub enum Map<'a> {
    /// An object of JSON and what its schema says of it.
    Json(&'a serde_json::Map<String, Json>, Option<&'a DeclType>),
    /// Values.
    Values(Arc<MapBuilder<'a>>),
    /// Fields that are worked out when they are asked for.
    Fields(&'a dyn Fields),
}

/// Fields that are worked out when they are asked for, such as the variables of a policy.
pub trait Fields: Sync {
    /// The field's value; `None` when there is no such field.
    fn get(&self, name: &str) -> Option<Result<'_>>;
    /// The names of the fields.
    fn names(&self) -> Vec<String>;
}

/// A key of a map. Numbers that are equal are one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// `bool`
    Bool(bool),
    /// `int` or `uint`
    Number(i128),
    /// `string`
    Text(Arc<str>),
}

impl Key {
    /// The key that a value can be looked up by.
    pub fn of(value: &Value<'_>) -> Option<Key> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(n) => Key::Number(i128::from(*n)),
            Value::Uint(n) => Key::Number(i128::from(*n)),
            Value::Double(n) if n.fract() == 0.0 && n.abs() < 1.9e19 => Key::Number(*n as i128),
            Value::String(text) => Key::Text((**text).into()),
            _ => return None,
        })
    }
}

/// The entries of a map, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct MapBuilder<'a> {
    entries: Vec<(Value<'a>, Value<'a>)>,
    index: AHashMap<Key, usize>,
}

impl<'a> MapBuilder<'a> {
    /// Adds an entry, or replaces the value of an equal key.
    ///
    /// # Errors
    /// When the key is of a type that no map has.
    pub fn set(&mut self, key: Value<'a>, value: Value<'a>) -> std::result::Result<(), Error> {
        let index = Key::of(&key).ok_or_else(|| Error::new(format!("unsupported key type: {}", key.type_name())))?;
        match self.index.get(&index) {
            Some(at) => self.entries[*at].1 = value,
            None => {
                self.index.insert(index, self.entries.len());
                self.entries.push((key, value));
            }
        }
        Ok(())
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When there is one of an equal key.
    pub fn insert(&mut self, key: Value<'a>, value: Value<'a>) -> std::result::Result<(), Error> {
        if Key::of(&key).is_some_and(|index| self.index.contains_key(&index)) {
            return Err(Error::new(format!("insert failed: key {key} already exists")));
        }
        self.set(key, value)
    }
}

/// An object that an expression made.
#[derive(Debug)]
pub struct Object<'a> {
    /// Its type.
    pub decl: Arc<ObjectDecl>,
    /// The fields it was given, by the identifiers that spell them.
    pub fields: BTreeMap<String, Value<'a>>,
}

impl<'a> Map<'a> {
    /// A map of these entries.
    pub fn new(entries: MapBuilder<'a>) -> Self {
        Map::Values(Arc::new(entries))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        match self {
            Map::Json(map, _) => map.len(),
            Map::Values(map) => map.entries.len(),
            Map::Fields(fields) => fields.names().len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a text key.
    ///
    /// # Errors
    /// When the value is not what its schema says.
    pub fn get_str(&self, name: &str) -> std::result::Result<Option<Value<'a>>, Error> {
        match self {
            Map::Json(map, decl) => match decl.map(|decl| &decl.kind) {
                Some(DeclKind::Object(object)) => {
                    let Some(field) = object.field(name) else { return Ok(None) };
                    // A field that is null is a field that is not there.
                    match map.get(&field.json_name) {
                        None | Some(Json::Null) => Ok(None),
                        Some(value) => Value::from_json(value, Some(&field.decl)).map(Some),
                    }
                }
                Some(DeclKind::Map(of)) => map.get(name).map(|value| Value::from_json(value, Some(of))).transpose(),
                _ => map.get(name).map(|value| Value::from_json(value, None)).transpose(),
            },
            Map::Values(map) => Ok(map.index.get(&Key::Text(name.into())).map(|at| map.entries[*at].1.clone())),
            Map::Fields(fields) => fields.get(name).transpose(),
        }
    }

    /// The value of a key of any type.
    ///
    /// # Errors
    /// When no map has keys of this type, or the value is not what its schema says.
    pub fn get(&self, key: &Value<'a>) -> std::result::Result<Option<Value<'a>>, Error> {
        if let Some(name) = key.as_str() {
            return self.get_str(name);
        }
        match self {
            Map::Values(map) => {
                Ok(Key::of(key).and_then(|key| map.index.get(&key)).map(|at| map.entries[*at].1.clone()))
            }
            Map::Json(_, Some(_)) => Err(Error::no_such_overload()),
            _ => Ok(None),
        }
    }

    /// All keys.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Map::Json(map, decl) => match decl.map(|decl| &decl.kind) {
                Some(DeclKind::Object(object)) => map
                    .iter()
                    .filter(|(name, _)| object.by_json_name(name).is_some())
                    .filter_map(|(name, _)| escape(name).map(|name| Value::text(&*name)))
                    .collect(),
                _ => map.keys().map(|name| Value::str(name)).collect(),
            },
            Map::Values(map) => map.entries.iter().map(|(key, _)| key.clone()).collect(),
            Map::Fields(fields) => fields.names().into_iter().map(Value::text).collect(),
        }
    }

    /// The entries, to be changed.
    pub(crate) fn into_builder(self) -> std::result::Result<MapBuilder<'a>, Error> {
        match self {
            Map::Values(map) => Ok(Arc::try_unwrap(map).unwrap_or_else(|shared| (*shared).clone())),
            other => {
                let mut builder = MapBuilder::default();
                for key in other.keys() {
                    if let Some(value) = other.get(&key)? {
                        builder.set(key, value)?;
                    }
                }
                Ok(builder)
            }
        }
    }

    /// Equality: the same keys with equal values.
    pub(crate) fn equals(&self, other: &Map<'a>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        if let (Map::Json(a, decl), Map::Json(b, other_decl)) = (self, other) {
            if decl.is_none() && other_decl.is_none() {
                return super::compare::json_equals(a, b);
            }
            // What the schema does not tell is compared as it stands.
            if let Some(DeclKind::Object(object)) = decl.map(|decl| &decl.kind) {
                let told = |name: &str| object.by_json_name(name).is_some();
                let rest_differs = a
                    .iter()
                    .filter(|(name, _)| !told(name))
                    .any(|(name, value)| b.get(name).is_some_and(|other| other != value));
                if rest_differs {
                    return false;
                }
            }
        }
        self.keys().iter().all(|key| match (self.get(key), other.get(key)) {
            (Ok(Some(a)), Ok(Some(b))) => a.equals(&b),
            (Ok(None), Ok(None)) => true,
            _ => false,
        })
    }
}

impl fmt::Debug for Map<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Map::Json(map, _) => map.fmt(f),
            Map::Values(map) => map.entries.fmt(f),
            Map::Fields(fields) => fields.names().fmt(f),
        }
    }
}
