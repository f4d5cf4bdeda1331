//! Comprehensions.

use super::Machine;
use super::plan::{Fold, Node};
use crate::error::Error;
use crate::value::{Result, Value};

impl<'a> Machine<'_, 'a> {
    pub(super) fn fold(&mut self, fold: &Fold) -> Result<'a> {
        let range = self.eval(&fold.range)?;
        let accumulator = self.eval(&fold.init);
        let slot = self.locals.len();
        self.locals.push(accumulator);
        self.locals.push(Ok(Value::Null));
        if fold.two {
            self.locals.push(Ok(Value::Null));
        }
        let looped = self.each(fold, &range, slot);
        let result = looped.and_then(|()| self.eval(&fold.result));
        self.locals.truncate(slot);
        result
    }

    fn each(&mut self, fold: &Fold, range: &Value<'a>, slot: usize) -> std::result::Result<(), Error> {
        match range {
            Value::List(list) => {
                for at in 0..list.len() {
                    let item = list.get(at)?;
                    let more = if fold.two {
                        self.step(fold, slot, Value::Int(i64::try_from(at).unwrap_or(i64::MAX)), Some(item))?
                    } else {
                        self.step(fold, slot, item, None)?
                    };
                    if !more {
                        break;
                    }
                }
                Ok(())
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = if fold.two { map.get(&key)? } else { None };
                    let value = fold.two.then(|| value.unwrap_or(Value::Null));
                    if !self.step(fold, slot, key, value)? {
                        break;
                    }
                }
                Ok(())
            }
            other => Err(Error::new(format!("got '{}', expected iterable type", go_type(other)))),
        }
    }

    /// One round; whether there may be another.
    fn step(
        &mut self,
        fold: &Fold,
        slot: usize,
        first: Value<'a>,
        second: Option<Value<'a>>,
    ) -> std::result::Result<bool, Error> {
        self.locals[slot + 1] = Ok(first);
        if let Some(second) = second {
            self.locals[slot + 2] = Ok(second);
        }
        let always = matches!(fold.condition, Node::Const(Value::Bool(true)));
        if !always && !matches!(self.eval(&fold.condition), Ok(Value::Bool(true))) {
            // An evaluation that is out of budget must not go on.
            return if self.cost > self.limit { Err(Error::CostExceeded) } else { Ok(false) };
        }
        let next = self.eval(&fold.step);
        match next {
            Err(Error::CostExceeded) => return Err(Error::CostExceeded),
            // No later round can take an error away, unless it is a quantifier.
            Err(e) if always => return Err(e),
            next => self.locals[slot] = next,
        }
        Ok(true)
    }
}

/// The name that upstream's evaluator has for a type.
fn go_type(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "types.Null",
        Value::Bool(_) => "types.Bool",
        Value::Int(_) => "types.Int",
        Value::Uint(_) => "types.Uint",
        Value::Double(_) => "types.Double",
        Value::String(_) => "types.String",
        Value::Bytes(_) => "types.Bytes",
        Value::Timestamp(_) => "types.Timestamp",
        Value::Duration(_) => "types.Duration",
        Value::Optional(_) => "*types.Optional",
        other => other.type_name(),
    }
}
