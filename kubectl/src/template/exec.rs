//! Nodes over an object.

use serde_json::Value;

use super::{Branch, Error, Node, Operand, Pipeline, Template, functions};
use crate::printer::go_value;

/// Templates may call themselves; deeper than this they never end.
const MAX_DEPTH: usize = 1000;

/// A value, or Go's absent one.
pub(super) type Data = Option<Value>;

struct State<'t> {
    template: &'t Template,
    out: String,
    variables: Vec<(String, Data)>,
    depth: usize,
}

/// Whether a loop goes on.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

pub(super) fn execute(template: &Template, data: &Value) -> Result<String, Error> {
    let mut state =
        State { template, out: String::new(), variables: vec![(String::new(), Some(data.clone()))], depth: 0 };
    state.list(&template.main, &Some(data.clone()))?;
    Ok(state.out)
}

pub(super) fn truth(data: &Data) -> bool {
    match data {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Number(number)) => number.as_f64() != Some(0.0),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
    }
}

fn shown(data: &Data) -> String {
    match data {
        None | Some(Value::Null) => "<no value>".into(),
        Some(value) => go_value::plain(value),
    }
}

impl State<'_> {
    fn list(&mut self, nodes: &[Node], dot: &Data) -> Result<Flow, Error> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&shown(&value));
                    }
                }
                Node::If(branch) => {
                    let mark = self.variables.len();
                    let value = self.pipeline(&branch.pipeline, dot)?;
                    let body = if truth(&value) { &branch.then } else { &branch.otherwise };
                    let flow = self.list(body, dot)?;
                    self.variables.truncate(mark);
                    if flow != Flow::Next {
                        return Ok(flow);
                    }
                }
                Node::With(branch) => {
                    let mark = self.variables.len();
                    let value = self.pipeline(&branch.pipeline, dot)?;
                    let flow = if truth(&value) {
                        self.list(&branch.then, &value)?
                    } else {
                        self.list(&branch.otherwise, dot)?
                    };
                    self.variables.truncate(mark);
                    if flow != Flow::Next {
                        return Ok(flow);
                    }
                }
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Template { name, argument } => {
                    let body = self
                        .template
                        .defined
                        .get(name)
                        .ok_or_else(|| Error::new(format!("template: output:1: template {name:?} not defined")))?;
                    let data = match argument {
                        Some(pipeline) => self.pipeline(pipeline, dot)?,
                        None => None,
                    };
                    if self.depth >= MAX_DEPTH {
                        return Err(Error::new("template: output: exceeded maximum template depth"));
                    }
                    let outer = std::mem::replace(&mut self.variables, vec![(String::new(), data.clone())]);
                    self.depth += 1;
                    self.list(body, &data)?;
                    self.depth -= 1;
                    self.variables = outer;
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::Next)
    }

    fn range(&mut self, branch: &Branch, dot: &Data) -> Result<(), Error> {
        let mark = self.variables.len();
        let names = branch.pipeline.variables.clone();
        let plain = Pipeline { variables: Vec::new(), ..branch.pipeline.clone() };
        let elements: Vec<(Value, Value)> = match self.pipeline(&plain, dot)? {
            Some(Value::Array(items)) => {
                items.into_iter().enumerate().map(|(i, item)| (Value::from(i), item)).collect()
            }
            Some(Value::Object(map)) => map.into_iter().map(|(key, item)| (Value::String(key), item)).collect(),
            Some(Value::Number(number)) => {
                (0..number.as_i64().unwrap_or(0)).map(|i| (Value::from(i), Value::from(i))).collect()
            }
            None | Some(Value::Null) => Vec::new(),
            Some(other) => {
                return Err(Error::new(format!("range can't iterate over {}", go_value::plain(&other))));
            }
        };
        if elements.is_empty() {
            self.list(&branch.otherwise, dot)?;
        }
        for (key, element) in elements {
            match names.as_slice() {
                [one] => self.variables.push((one.clone(), Some(element.clone()))),
                [index, one] => {
                    self.variables.push((index.clone(), Some(key)));
                    self.variables.push((one.clone(), Some(element.clone())));
                }
                _ => {}
            }
            let flow = self.list(&branch.then, &Some(element))?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Data) -> Result<Data, Error> {
        let mut value: Option<Data> = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        let value = value.flatten();
        for name in &pipeline.variables {
            if pipeline.declares {
                self.variables.push((name.clone(), value.clone()));
            } else if let Some(slot) = self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                slot.1 = value.clone();
            } else {
                return Err(Error::new(format!("template: output:1: undefined variable \"${name}\"")));
            }
        }
        Ok(value)
    }

    fn command(&mut self, command: &[Operand], dot: &Data, piped: Option<Data>) -> Result<Data, Error> {
        let (first, rest) = command.split_first().expect("commands are never empty");
        let Operand::Function(name) = first else {
            if !rest.is_empty() || piped.is_some() {
                return Err(Error::new(format!("can't give argument to non-function {}", describe(first))));
            }
            return self.operand(first, dot);
        };
        // and, or stop at the first argument that decides.
        if name == "and" || name == "or" {
            let mut last = None;
            for operand in rest {
                last = self.operand(operand, dot)?;
                if truth(&last) == (name == "or") {
                    return Ok(last);
                }
            }
            return Ok(piped.unwrap_or(last));
        }
        let mut arguments = Vec::new();
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(piped);
        functions::call(name, arguments)
    }

    fn operand(&mut self, operand: &Operand, dot: &Data) -> Result<Data, Error> {
        match operand {
            Operand::Field(names) => self.fields(dot.clone(), names),
            Operand::Variable(name, names) => {
                let value =
                    self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
                let value =
                    value.ok_or_else(|| Error::new(format!("template: output:1: undefined variable \"${name}\"")))?;
                self.fields(value, names)
            }
            Operand::Literal(value) => Ok(Some(value.clone())),
            Operand::Nil => Ok(None),
            Operand::Function(name) => functions::call(name, Vec::new()),
            Operand::Group(pipeline, names) => {
                let value = self.pipeline(pipeline, dot)?;
                self.fields(value, names)
            }
        }
    }

    fn fields(&self, mut value: Data, names: &[String]) -> Result<Data, Error> {
        for (index, name) in names.iter().enumerate() {
            let path = format!(".{}", names[..=index].join("."));
            let failed =
                |why: String| Error::new(format!("template: output:1: executing \"output\" at <{path}>: {why}"));
            value = match value {
                None | Some(Value::Null) if self.template.missing_key_is_error => {
                    return Err(failed(format!("nil data; no entry for key {name:?}")));
                }
                None | Some(Value::Null) => None,
                Some(Value::Object(mut map)) => match map.remove(name) {
                    None if self.template.missing_key_is_error => {
                        return Err(failed(format!("map has no entry for key {name:?}")));
                    }
                    found => found,
                },
                Some(_) => return Err(failed(format!("can't evaluate field {name} in type interface {{}}"))),
            };
        }
        Ok(value)
    }
}

fn describe(operand: &Operand) -> String {
    match operand {
        Operand::Field(names) => format!(".{}", names.join(".")),
        Operand::Variable(name, _) => format!("${name}"),
        Operand::Literal(value) => go_value::syntax(value),
        Operand::Nil => "nil".into(),
        Operand::Function(name) => name.clone(),
        Operand::Group(..) => "parenthesized pipeline".into(),
    }
}
