//! Go's text templates over trees: `{{range .items}}{{.metadata.name}}{{"\n"}}{{end}}`.
//!
//! The language as upstream's `-o go-template` offers it: fields, variables, pipelines, if, range,
//! with, define, template, block, comparison and printing functions, and kubectl's `exists`,
//! `base64decode` and `parseInt`. Error texts follow Go's where users see them.

mod exec;
mod functions;
mod lex;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

/// What is wrong with a template, or went wrong on an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Error(text.into())
    }
}

/// One piece of a template.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Action(Pipeline),
    If(Branch),
    Range(Branch),
    With(Branch),
    Template { name: String, argument: Option<Pipeline> },
    Break,
    Continue,
}

/// A condition with its two bodies.
#[derive(Debug, Clone, PartialEq)]
struct Branch {
    pipeline: Pipeline,
    then: Vec<Node>,
    otherwise: Vec<Node>,
}

/// `$x := a | b c`.
#[derive(Debug, Clone, PartialEq)]
struct Pipeline {
    /// Variables that take the result; in a range, index and element.
    variables: Vec<String>,
    /// `:=` makes new variables, `=` sets old ones.
    declares: bool,
    commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    /// `.a.b`; empty for the dot itself.
    Field(Vec<String>),
    /// `$x.a`; the name without the dollar sign.
    Variable(String, Vec<String>),
    Function(String),
    Literal(Value),
    Nil,
    /// `(pipeline).a`.
    Group(Box<Pipeline>, Vec<String>),
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    main: Vec<Node>,
    defined: BTreeMap<String, Vec<Node>>,
    missing_key_is_error: bool,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (main, defined) = parse::parse(text)?;
        Ok(Template { main, defined, missing_key_is_error: false })
    }

    /// Whether a key that a map lacks is an error rather than `<no value>`.
    #[must_use]
    pub fn missing_key_is_error(mut self, error: bool) -> Self {
        self.missing_key_is_error = error;
        self
    }

    /// The template's text for an object.
    ///
    /// # Errors
    /// When a field is asked of something that has none, or a function gets what it cannot take.
    pub fn execute(&self, data: &Value) -> Result<String, Error> {
        exec::execute(self, data)
    }
}
