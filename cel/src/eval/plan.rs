//! From the checked tree to one that is evaluated: names have their places, constants are worked out, regular
//! expressions compiled.

use std::sync::Arc;

use ahash::AHashSet;
use regex::Regex;

use super::{Activation, Machine};
use crate::ast::{ACCUMULATOR, Call, Comprehension, Expr, ExprKind, Literal, operator};
use crate::checker::Checked;
use crate::cost::Cost;
use crate::decl::ObjectDecl;
use crate::env::{Env, Identifier};
use crate::error::Error;
use crate::library::{Action, Overload};
use crate::value::{Key, Value};

/// A planned expression.
#[derive(Debug)]
pub(crate) struct Plan {
    pub root: Node,
}

#[derive(Debug)]
pub(crate) enum Node {
    Const(Value<'static>),
    Attribute(Box<Attribute>),
    /// `has(…)`
    Test(Box<Attribute>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    NotStrictlyFalse(Box<Node>),
    /// `in` a list of constants.
    In(Box<Node>, Box<ConstSet>),
    OptionalOr {
        first: Box<Node>,
        second: Box<Node>,
        unwrap: bool,
    },
    Call(Box<CallNode>),
    List {
        elements: Vec<Node>,
        optional: Vec<usize>,
    },
    Map(Vec<(Node, Node, bool)>),
    Object {
        decl: Arc<ObjectDecl>,
        fields: Vec<(String, Node, bool)>,
    },
    Fold(Box<Fold>),
    /// A value with a name: the local after those that are there.
    Bind {
        value: Box<Node>,
        result: Box<Node>,
    },
}

/// Something with a path to it.
#[derive(Debug)]
pub(crate) struct Attribute {
    pub base: Base,
    pub steps: Vec<Step>,
}

impl Attribute {
    /// A choice costs nothing of its own.
    pub fn is_conditional(&self) -> bool {
        matches!(self.base, Base::Conditional(..))
    }
}

#[derive(Debug)]
pub(crate) enum Base {
    Global(String),
    Local(usize),
    /// An accumulator whose next value is about to be made of this one.
    Take(usize),
    Node(Node),
    Conditional(Node, Box<Attribute>, Box<Attribute>),
}

#[derive(Debug)]
pub(crate) struct Step {
    pub qualifier: Qualifier,
    pub optional: bool,
}

#[derive(Debug)]
pub(crate) enum Qualifier {
    Field(String),
    Key(Value<'static>),
    Attribute(Attribute),
}

#[derive(Debug)]
pub(crate) struct CallNode {
    pub function: String,
    pub args: Vec<Node>,
    pub overloads: Vec<&'static Overload>,
    pub cost: Cost,
    pub regex: Option<Regex>,
}

impl CallNode {
    pub fn no_such_overload(&self, args: &[Value<'_>]) -> Error {
        if self.overloads.iter().any(|overload| overload.member) || args.len() != 1 {
            return Error::no_such_overload();
        }
        Error::new(format!("no such overload: {}", self.function))
    }
}

#[derive(Debug)]
pub(crate) struct Fold {
    pub range: Node,
    pub init: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
    /// Whether there are two variables.
    pub two: bool,
}

/// Constants to be found at once.
#[derive(Debug)]
pub(crate) struct ConstSet {
    keys: AHashSet<Key>,
    others: Vec<Value<'static>>,
}

impl ConstSet {
    pub fn contains<'a>(&self, value: &Value<'a>) -> bool {
        match Key::of(value) {
            Some(key) => self.keys.contains(&key),
            None => self.others.iter().any(|other| value.equals(other)),
        }
    }
}

/// Plans an expression.
///
/// # Errors
/// When a constant part of it has no value, such as `int('x')`.
pub(crate) fn plan(env: &Env, expr: &Expr, checked: &Checked) -> Result<Plan, Error> {
    let mut planner = Planner { env, checked, locals: Vec::new(), taking: None };
    Ok(Plan { root: planner.node(expr)? })
}

struct Planner<'e> {
    env: &'e Env,
    checked: &'e Checked,
    locals: Vec<String>,
    /// The slot of the accumulator while the step is planned that makes its next value.
    taking: Option<usize>,
}

impl Planner<'_> {
    fn node(&mut self, expr: &Expr) -> Result<Node, Error> {
        Ok(match &expr.kind {
            ExprKind::Unspecified => return Err(Error::new("unsupported expr")),
            ExprKind::Literal(literal) => Node::Const(Value::literal(literal)),
            ExprKind::Ident(name) => match self.ident(name) {
                Ok(base) => Node::Attribute(Box::new(Attribute { base, steps: Vec::new() })),
                Err(constant) => Node::Const(constant),
            },
            ExprKind::Select { operand, field, test } => {
                let mut attribute = self.attribute(operand)?;
                attribute.steps.push(Step { qualifier: Qualifier::Field(field.clone()), optional: false });
                if *test { Node::Test(Box::new(attribute)) } else { Node::Attribute(Box::new(attribute)) }
            }
            ExprKind::Call(call) => self.call(expr, call)?,
            ExprKind::List { elements, optional } => {
                let elements = elements.iter().map(|e| self.node(e)).collect::<Result<Vec<_>, _>>()?;
                let list = Node::List { elements, optional: optional.clone() };
                let constant = matches!(&list, Node::List { elements, .. } if elements.iter().all(is_const));
                if constant { fold(&list)? } else { list }
            }
            ExprKind::Map(entries) => {
                let mut nodes = Vec::with_capacity(entries.len());
                for entry in entries {
                    nodes.push((self.node(&entry.key)?, self.node(&entry.value)?, entry.optional));
                }
                let constant = nodes.iter().all(|(key, value, _)| is_const(key) && is_const(value));
                let map = Node::Map(nodes);
                if constant { fold(&map)? } else { map }
            }
            ExprKind::Struct { type_name, fields } => {
                let decl = match self.env.identifier(type_name) {
                    Some(Identifier::Type(crate::types::Type::Object(decl))) => decl,
                    _ => return Err(Error::new(format!("unknown type: {type_name}"))),
                };
                let mut nodes = Vec::with_capacity(fields.len());
                for field in fields {
                    nodes.push((field.name.clone(), self.node(&field.value)?, field.optional));
                }
                Node::Object { decl, fields: nodes }
            }
            ExprKind::Comprehension(c) => self.comprehension(c)?,
        })
    }

    /// Where a name's value is, or the constant that it means.
    fn ident(&mut self, name: &str) -> Result<Base, Value<'static>> {
        if let Some(slot) = self.locals.iter().rposition(|local| local == name) {
            return Ok(if self.taking == Some(slot) { Base::Take(slot) } else { Base::Local(slot) });
        }
        match self.env.identifier(name) {
            Some(Identifier::Type(of)) => Err(Value::Type(of)),
            _ => Ok(Base::Global(name.to_owned())),
        }
    }

    /// A node as something that can be selected from.
    fn attribute(&mut self, expr: &Expr) -> Result<Attribute, Error> {
        Ok(match self.node(expr)? {
            Node::Attribute(attribute) => *attribute,
            node => Attribute { base: Base::Node(node), steps: Vec::new() },
        })
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Result<Node, Error> {
        match (call.function.as_str(), call.target.as_deref(), call.args.as_slice()) {
            (operator::AND, None, [left, right]) => {
                return Ok(Node::And(Box::new(self.node(left)?), Box::new(self.node(right)?)));
            }
            (operator::OR, None, [left, right]) => {
                return Ok(Node::Or(Box::new(self.node(left)?), Box::new(self.node(right)?)));
            }
            (operator::NOT_STRICTLY_FALSE, None, [inner]) => {
                return Ok(Node::NotStrictlyFalse(Box::new(self.node(inner)?)));
            }
            (operator::CONDITIONAL, None, [condition, yes, no]) => {
                let condition = self.node(condition)?;
                let base = Base::Conditional(condition, Box::new(self.attribute(yes)?), Box::new(self.attribute(no)?));
                return Ok(Node::Attribute(Box::new(Attribute { base, steps: Vec::new() })));
            }
            (operator::OPT_SELECT, None, [operand, field]) => {
                let ExprKind::Literal(Literal::String(name)) = &field.kind else {
                    return Err(Error::new("unsupported expr"));
                };
                let mut attribute = self.attribute(operand)?;
                let qualifier = Qualifier::Field(name.to_string());
                attribute.steps.push(Step { qualifier, optional: true });
                return Ok(Node::Attribute(Box::new(attribute)));
            }
            (operator::INDEX | operator::OPT_INDEX, None, [operand, index]) => {
                let optional = call.function == operator::OPT_INDEX;
                let mut attribute = self.attribute(operand)?;
                let qualifier = match self.node(index)? {
                    Node::Const(key) => Qualifier::Key(key),
                    Node::Attribute(index) => Qualifier::Attribute(*index),
                    node => Qualifier::Attribute(Attribute { base: Base::Node(node), steps: Vec::new() }),
                };
                attribute.steps.push(Step { qualifier, optional });
                return Ok(Node::Attribute(Box::new(attribute)));
            }
            ("or" | "orValue", Some(target), [second]) => {
                return Ok(Node::OptionalOr {
                    first: Box::new(self.node(target)?),
                    second: Box::new(self.node(second)?),
                    unwrap: call.function == "orValue",
                });
            }
            _ => {}
        }
        self.plain_call(expr, call)
    }

    fn plain_call(&mut self, expr: &Expr, call: &Call) -> Result<Node, Error> {
        let overloads: Vec<&'static Overload> = self.checked.overloads(expr.id).to_vec();
        let mut args = Vec::with_capacity(call.args.len() + 1);
        for arg in call.target.as_deref().into_iter().chain(&call.args) {
            args.push(self.node(arg)?);
        }
        let cost = match overloads.as_slice() {
            [] => return Err(Error::new(format!("no such overload: {}", call.function))),
            [only] => only.cost,
            // Equality is one function for all types; of the others only what the function tells is known.
            [first, ..] if first.cost == Cost::Compare && first.id.ends_with("equals") => Cost::Compare,
            [first, rest @ ..] if first.cost.by_function() && rest.iter().all(|o| o.cost == first.cost) => first.cost,
            _ => Cost::Default,
        };
        if let [only] = overloads.as_slice()
            && only.id == "in_list"
            && let Some(Node::Const(Value::List(list))) = args.get(1)
            && let Some(set) = const_set(list)
        {
            return Ok(match set {
                Some(set) => Node::In(Box::new(args.swap_remove(0)), Box::new(set)),
                None => Node::Const(Value::Bool(false)),
            });
        }
        let regex = match (overloads.first().map(|o| o.action), args.get(1)) {
            (Some(Action::Regex(_)), Some(Node::Const(Value::String(pattern)))) => {
                Some(crate::library::regex::compile(pattern)?)
            }
            _ => None,
        };
        let converts = CONVERSIONS.contains(&call.function.as_str()) && args.len() == 1 && args.iter().all(is_const);
        let node = Node::Call(Box::new(CallNode { function: call.function.clone(), args, overloads, cost, regex }));
        if converts { fold(&node) } else { Ok(node) }
    }

    fn comprehension(&mut self, c: &Comprehension) -> Result<Node, Error> {
        let outer = self.taking.take();
        let never = matches!(c.condition.kind, ExprKind::Literal(Literal::Bool(false)))
            && matches!(&c.range.kind, ExprKind::List { elements, .. } if elements.is_empty());
        if never {
            let value = Box::new(self.node(&c.init)?);
            self.locals.push(c.accu.clone());
            let result = self.node(&c.result);
            self.locals.pop();
            self.taking = outer;
            return Ok(Node::Bind { value, result: Box::new(result?) });
        }
        let range = self.node(&c.range)?;
        let init = self.node(&c.init)?;
        let depth = self.locals.len();
        self.locals.push(c.accu.clone());
        self.locals.push(c.var.clone());
        self.locals.extend(c.var2.clone());
        let condition = self.node(&c.condition)?;
        self.taking = (c.accu == ACCUMULATOR).then_some(depth);
        let step = self.node(&c.step)?;
        self.taking = None;
        // In the result only the accumulator is visible, but the slots are still there.
        let result = {
            let hidden: Vec<String> = self.locals.drain(depth + 1..).collect();
            let result = self.node(&c.result);
            drop(hidden);
            result?
        };
        self.locals.truncate(depth);
        self.taking = outer;
        Ok(Node::Fold(Box::new(Fold { range, init, condition, step, result, two: c.var2.is_some() })))
    }
}

/// Functions of one constant that are worked out beforehand.
const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];

fn is_const(node: &Node) -> bool {
    matches!(node, Node::Const(_))
}

/// Works a constant node out.
fn fold(node: &Node) -> Result<Node, Error> {
    let activation: Activation<'static> = Activation::new();
    Machine::new(&activation, u64::MAX).eval(node).map(Node::Const)
}

/// A set of the constants, `Some(None)` if there are none, `None` if they cannot be a set.
fn const_set(list: &crate::value::List<'static>) -> Option<Option<ConstSet>> {
    if list.is_empty() {
        return Some(None);
    }
    let mut set = ConstSet { keys: AHashSet::new(), others: Vec::new() };
    for item in list.iter() {
        let item = item.ok()?;
        if !matches!(
            item,
            Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::String(_) | Value::Null
        ) {
            return None;
        }
        match Key::of(&item) {
            Some(key) => {
                set.keys.insert(key);
            }
            None => set.others.push(item),
        }
    }
    Some(Some(set))
}
