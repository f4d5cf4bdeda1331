//! Evaluation of a planned expression.

mod attribute;
mod fold;
mod plan;

pub(crate) use attribute::index;
pub(crate) use plan::{Plan, plan};

use smallvec::SmallVec;

use crate::error::Error;
use crate::library::Action;
use crate::value::{Map, MapBuilder, Object, Result, Value};
use plan::{CallNode, Node};

/// The values of variables by their names.
#[derive(Clone, Debug, Default)]
pub struct Activation<'a> {
    // A `Vec`, so that an activation may be used where one of a shorter life is wanted.
    variables: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Activation<'a> {
    /// No variables.
    pub fn new() -> Self {
        Activation::default()
    }

    /// Gives a variable its value.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.set(name, value);
        self
    }

    /// Gives a variable its value.
    pub fn set(&mut self, name: &'a str, value: Value<'a>) {
        match self.variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = value,
            None => self.variables.push((name, value)),
        }
    }

    fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// The state of one evaluation.
pub(crate) struct Machine<'m, 'a> {
    activation: &'m Activation<'a>,
    /// The variables of comprehensions; an accumulator may be an error.
    locals: Vec<Result<'a>>,
    cost: u64,
    limit: u64,
}

impl<'m, 'a> Machine<'m, 'a> {
    pub(crate) fn new(activation: &'m Activation<'a>, limit: u64) -> Self {
        Machine { activation, locals: Vec::new(), cost: 0, limit }
    }

    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    fn spend(&mut self, cost: u64) -> std::result::Result<(), Error> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Error::CostExceeded) } else { Ok(()) }
    }

    pub(crate) fn eval(&mut self, node: &Node) -> Result<'a> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Attribute(attribute) => {
                let value = self.resolve(attribute);
                if !attribute.is_conditional() {
                    // A path that leads nowhere costs twice, as cel-go counts.
                    let times = if value.is_err() && !attribute.steps.is_empty() { 2 } else { 1 };
                    self.spend(times * crate::cost::SELECT)?;
                }
                value
            }
            Node::Test(attribute) => self.test(attribute).map(Value::Bool),
            Node::And(left, right) => self.logic(left, right, false),
            Node::Or(left, right) => self.logic(left, right, true),
            Node::NotStrictlyFalse(inner) => {
                let value = self.eval(inner);
                self.spend(1)?;
                match value {
                    Err(Error::CostExceeded) => Err(Error::CostExceeded),
                    Ok(Value::Bool(b)) => Ok(Value::Bool(b)),
                    _ => Ok(Value::Bool(true)),
                }
            }
            Node::In(value, set) => {
                let value = self.eval(value)?;
                Ok(Value::Bool(set.contains(&value)))
            }
            Node::OptionalOr { first, second, unwrap } => match (self.eval(first)?, unwrap) {
                (Value::Optional(Some(value)), true) => Ok(Value::clone(&value)),
                (present @ Value::Optional(Some(_)), false) => Ok(present),
                (Value::Optional(None), _) => self.eval(second),
                _ => Err(Error::no_such_overload()),
            },
            Node::Call(call) => self.call(call),
            Node::List { elements, optional } => {
                let mut items = Vec::with_capacity(elements.len());
                for (at, element) in elements.iter().enumerate() {
                    match (self.eval(element)?, optional.contains(&at)) {
                        (Value::Optional(Some(value)), true) => items.push(Value::clone(&value)),
                        (Value::Optional(None), true) => {}
                        (value, true) => {
                            let message =
                                format!("cannot initialize optional list element from non-optional value {value}");
                            return Err(Error::new(message));
                        }
                        (value, false) => items.push(value),
                    }
                }
                self.spend(crate::cost::LIST)?;
                Ok(Value::list(items))
            }
            Node::Map(entries) => {
                let mut map = MapBuilder::default();
                for (key, value, optional) in entries {
                    let key = self.eval(key)?;
                    if let Some(value) = self.entry(&key, value, *optional)? {
                        map.set(key, value)?;
                    }
                }
                self.spend(crate::cost::MAP)?;
                Ok(Value::Map(Map::new(map)))
            }
            Node::Object { decl, fields } => {
                let mut object = Object { decl: decl.clone(), fields: std::collections::BTreeMap::new() };
                for (name, value, optional) in fields {
                    if let Some(value) = self.entry(&Value::text(name.as_str()), value, *optional)? {
                        object.fields.insert(name.clone(), value);
                    }
                }
                self.spend(crate::cost::OBJECT)?;
                Ok(Value::Object(object.into()))
            }
            Node::Fold(fold) => self.fold(fold),
            Node::Bind { value, result } => {
                let value = self.eval(value);
                self.locals.push(value);
                let result = self.eval(result);
                self.locals.pop();
                result
            }
        }
    }

    /// The value of an entry or field; `None` if it is optional and absent.
    fn entry(
        &mut self,
        key: &Value<'a>,
        value: &Node,
        optional: bool,
    ) -> std::result::Result<Option<Value<'a>>, Error> {
        match (self.eval(value)?, optional) {
            (Value::Optional(value), true) => Ok(value.map(|value| Value::clone(&value))),
            (value, true) => {
                let message = format!("cannot initialize optional entry '{key}' from non-optional value {value}");
                Err(Error::new(message))
            }
            (value, false) => Ok(Some(value)),
        }
    }

    /// `&&` ends at `false` and `||` at `true`, whatever error the other side has.
    fn logic(&mut self, left: &Node, right: &Node, ends_at: bool) -> Result<'a> {
        let mut wrong: Option<Error> = None;
        for side in [left, right] {
            match self.eval(side) {
                Ok(Value::Bool(b)) if b == ends_at => return Ok(Value::Bool(ends_at)),
                Ok(Value::Bool(_)) => {}
                Err(Error::CostExceeded) => return Err(Error::CostExceeded),
                Ok(_) => wrong = wrong.or(Some(Error::no_such_overload())),
                Err(e) => wrong = wrong.or(Some(e)),
            }
        }
        wrong.map_or(Ok(Value::Bool(!ends_at)), Err)
    }

    fn call(&mut self, call: &CallNode) -> Result<'a> {
        let mut args: SmallVec<[Value<'a>; 3]> = SmallVec::new();
        let mut failed = None;
        for (at, arg) in call.args.iter().enumerate() {
            match self.eval(arg) {
                Ok(value) => args.push(value),
                Err(Error::CostExceeded) => return Err(Error::CostExceeded),
                // As cel-go has it: of two arguments both are looked at, and a call whose arguments were all looked at
                // costs something even if one of them has no value.
                Err(error) if call.args.len() <= 2 || at + 1 == call.args.len() => {
                    failed.get_or_insert(error);
                    args.push(Value::Null);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = failed {
            self.spend(call.cost.actual(&args, None))?;
            return Err(error);
        }
        let overload = match call.overloads.as_slice() {
            [only] if only.args.len() == args.len() && args.iter().zip(&only.args).all(|(arg, of)| arg.fits(of)) => {
                only
            }
            many => {
                let found = many.iter().find(|overload| args.iter().zip(&overload.args).all(|(arg, of)| arg.fits(of)));
                let Some(found) = found else { return Err(call.no_such_overload(&args)) };
                found
            }
        };
        // Reckoned first where the call takes its arguments, afterwards where the result counts.
        let early = if call.cost.needs_result() { None } else { Some(call.cost.actual(&args, None)) };
        if let Some(cost) = early {
            self.spend(cost)?;
        }
        let costly = early.is_none().then(|| args.clone());
        let result = match overload.action {
            Action::Plain(action) => action(&mut args),
            Action::Regex(action) => match &call.regex {
                Some(regex) => action(&mut args, regex),
                None => {
                    let pattern = args.get(1).and_then(Value::as_str).ok_or_else(Error::no_such_overload)?;
                    let regex = crate::library::regex::compile(pattern)?;
                    action(&mut args, &regex)
                }
            },
            Action::Special => Err(Error::no_such_overload()),
        };
        if let Some(args) = costly {
            self.spend(call.cost.actual(&args, result.as_ref().ok()))?;
        }
        result
    }
}
