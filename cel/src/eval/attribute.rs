//! Names and the fields, keys and indexes selected from them.

use super::Machine;
use super::plan::{Attribute, Base, Qualifier, Step};
use crate::error::Error;
use crate::value::{Result, Value};

impl<'a> Machine<'_, 'a> {
    /// The value of an attribute.
    pub(super) fn resolve(&mut self, attribute: &Attribute) -> Result<'a> {
        let base = self.base(&attribute.base)?;
        self.walk(base, &attribute.steps).map(|found| match found {
            Found::Value(value) => value,
            Found::Optional(value) => Value::Optional(value.map(Into::into)),
        })
    }

    /// Whether the last step of an attribute leads to something.
    pub(super) fn test(&mut self, attribute: &Attribute) -> std::result::Result<bool, Error> {
        let Some((last, steps)) = attribute.steps.split_last() else { return Ok(true) };
        let base = self.base(&attribute.base)?;
        let target = match self.walk(base, steps)? {
            Found::Value(value) | Found::Optional(Some(value)) => value,
            Found::Optional(None) => return Ok(false),
        };
        let found = self.step_if_present(&target, last)?.is_some();
        self.spend(1)?;
        Ok(found)
    }

    fn base(&mut self, base: &Base) -> Result<'a> {
        match base {
            Base::Global(name) => match self.activation.get(name) {
                Some(value) => Ok(value.clone()),
                None => Err(Error::new(format!("no such attribute(s): {name}"))),
            },
            Base::Local(slot) => self.locals[*slot].clone(),
            Base::Take(slot) => std::mem::replace(&mut self.locals[*slot], Ok(Value::Null)),
            Base::Node(node) => self.eval(node),
            Base::Conditional(condition, yes, no) => match self.eval(condition)? {
                Value::Bool(true) => self.resolve(yes),
                Value::Bool(false) => self.resolve(no),
                _ => Err(Error::no_such_overload()),
            },
        }
    }

    fn walk(&mut self, base: Value<'a>, steps: &[Step]) -> std::result::Result<Found<'a>, Error> {
        if steps.is_empty() {
            return Ok(Found::Value(base));
        }
        let (mut value, mut optional) = match base {
            Value::Optional(None) => return Ok(Found::Value(Value::none())),
            Value::Optional(Some(value)) => (Value::clone(&value), true),
            value => (value, false),
        };
        for step in steps {
            optional |= step.optional;
            if optional {
                let Some(next) = self.step_if_present(&value, step)? else { return Ok(Found::Optional(None)) };
                value = next;
            } else {
                value = match &step.qualifier {
                    Qualifier::Field(name) => select(&value, name)?,
                    Qualifier::Key(key) => index(&value, key)?,
                    Qualifier::Attribute(attribute) => {
                        let key = self.resolve(attribute)?;
                        index(&value, &key)?
                    }
                };
            }
            self.spend(1)?;
        }
        Ok(if optional { Found::Optional(Some(value)) } else { Found::Value(value) })
    }

    fn step_if_present(&mut self, value: &Value<'a>, step: &Step) -> std::result::Result<Option<Value<'a>>, Error> {
        match &step.qualifier {
            Qualifier::Field(name) => value.get(name),
            Qualifier::Key(key) => index_if_present(value, key),
            Qualifier::Attribute(attribute) => {
                let key = self.resolve(attribute)?;
                index_if_present(value, &key)
            }
        }
    }
}

/// What a walk came to.
enum Found<'a> {
    Value(Value<'a>),
    Optional(Option<Value<'a>>),
}

fn select<'a>(value: &Value<'a>, name: &str) -> Result<'a> {
    match value.get(name)? {
        Some(found) => Ok(found),
        None => Err(Error::no_such_key(name)),
    }
}

fn index_if_present<'a>(value: &Value<'a>, key: &Value<'a>) -> std::result::Result<Option<Value<'a>>, Error> {
    match value {
        Value::List(list) => match place(key) {
            Some(at) if at < list.len() => list.get(at).map(Some),
            _ => Ok(None),
        },
        Value::Map(map) => map.get(key),
        Value::Object(object) => Ok(key.as_str().and_then(|name| object.fields.get(name)).cloned()),
        _ => Ok(None),
    }
}

/// The item at an index, or the value of a key.
pub(crate) fn index<'a>(value: &Value<'a>, key: &Value<'a>) -> Result<'a> {
    match value {
        Value::List(list) => match place(key) {
            Some(at) if at < list.len() => list.get(at),
            _ if matches!(key, Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
                Err(Error::new(format!("index out of bounds: {key}")))
            }
            _ => Err(Error::new(format!("unsupported index type '{}' in list", key.type_name()))),
        },
        Value::Map(map) => map.get(key)?.ok_or_else(|| Error::no_such_key(key)),
        Value::Object(object) => {
            key.as_str().and_then(|name| object.fields.get(name)).cloned().ok_or_else(|| Error::no_such_key(key))
        }
        _ => Err(Error::no_such_overload()),
    }
}

/// The place in a list that a number means.
fn place(key: &Value<'_>) -> Option<usize> {
    match key {
        Value::Int(n) => usize::try_from(*n).ok(),
        Value::Uint(n) => usize::try_from(*n).ok(),
        Value::Double(n) if n.fract() == 0.0 && (0.0..9e15).contains(n) => Some(*n as usize),
        _ => None,
    }
}
