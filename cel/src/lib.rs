//! The Common Expression Language as Kubernetes uses it: cel-go's language with Kubernetes' libraries, types and cost
//! limits. It knows no kind and does no I/O.
//!
//! An expression is compiled once in an [`Env`] and evaluated often:
//!
//! ```
//! use std::sync::Arc;
//! use cel::{Activation, DeclType, Env, Value};
//!
//! // What the schema says of `self`. A schema of one's own becomes a declaration by `DeclType::from_schema`.
//! let spec = DeclType::object("selfType", [("replicas", DeclType::int()), ("name", DeclType::string())]);
//! let env = Env::new().declared("self", &spec).declared("oldSelf", &spec).sizes(spec.clone());
//!
//! // Errors print as upstream's do.
//! let issues = env.compile("self.replica > 1").unwrap_err().to_string();
//! assert_eq!(issues, "ERROR: <input>:1:5: undefined field 'replica'\n | self.replica > 1\n | ....^");
//!
//! let program = env.compile("self.replicas > oldSelf.replicas").unwrap();
//! assert_eq!(program.output_type(), &cel::Type::Bool);
//! assert!(program.mentions("oldSelf"));
//! assert_eq!(program.cost().max, 5); // the worst case; compare with the limits
//!
//! let (new, old) = (serde_json::json!({"replicas": 3, "name": "a"}), serde_json::json!({"replicas": 2}));
//! let variables = Activation::new()
//!     .with("self", Value::from_json(&new, Some(&spec)).unwrap())
//!     .with("oldSelf", Value::from_json(&old, Some(&spec)).unwrap());
//! let evaluated = program.eval(&variables, cel::PER_CALL_LIMIT);
//! assert!(matches!(evaluated.value, Ok(Value::Bool(true))));
//! assert_eq!(evaluated.cost, 5); // to be taken from the budget of the request
//! ```
//!
//! The way of an expression: `lexer → parser (macros) → checker → validators → cost → plan → eval`. Text is bounded in
//! length and nesting by the parser, types in size by the checker, evaluation by its cost.

mod ast;
mod checker;
mod cost;
mod decl;
mod env;
mod error;
mod escape;
mod eval;
mod lexer;
pub mod library;
mod parser;
mod source;
mod types;
mod validators;
mod value;

#[cfg(test)]
mod tests;

pub use cost::{PER_CALL_LIMIT, Range};
pub use decl::{DeclKind, DeclType, FieldDecl, ListKind, MAX_REQUEST_BYTES, ObjectDecl, Schema};
pub use env::Env;
pub use error::Error;
pub use escape::{KEYWORDS, escape, unescape};
pub use eval::Activation;
pub use library::authorizer::{
    Authorize, Authorizer, Decision, Request as AuthorizationRequest, ResourceCheck, Subject, authorizer_type,
    resource_check_type,
};
pub use parser::MAX_CODE_POINTS;
pub use source::{Issue, Issues, Location};
pub use types::Type;
pub use value::{Fields, Key, List, Map, MapBuilder, Object, Result, Text, Timestamp, Value};

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    plan: eval::Plan,
    output: Type,
    cost: Range,
    names: Vec<String>,
}

/// What an evaluation came to.
#[derive(Debug)]
pub struct Evaluated<'a> {
    /// The value, or why there is none.
    pub value: Result<'a>,
    /// What it cost.
    pub cost: u64,
}

/// Why an expression is not compiled.
#[derive(Debug)]
pub enum CompileError {
    /// Its syntax or its types are wrong.
    Issues(Issues),
    /// A constant part of it has no value. Upstream's words for that begin with `program instantiation failed: `.
    Program(Error, Type),
}

impl CompileError {
    /// The type of an expression that is well formed, but cannot be planned.
    pub fn output_type(&self) -> Option<&Type> {
        match self {
            CompileError::Issues(_) => None,
            CompileError::Program(_, output) => Some(output),
        }
    }
}

impl std::fmt::Display for CompileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CompileError::Issues(issues) => issues.fmt(f),
            CompileError::Program(error, _) => error.fmt(f),
        }
    }
}

impl std::error::Error for CompileError {}

impl Env {
    /// Compiles an expression.
    ///
    /// # Errors
    /// All that is wrong with it; its `Display` is what upstream puts into a Status.
    pub fn compile(&self, text: &str) -> std::result::Result<Program, CompileError> {
        let mut parsed = parser::parse(text, self.bindings).map_err(CompileError::Issues)?;
        let checked = match checker::check(self, &mut parsed) {
            Ok(checked) => checked,
            Err(issues) => return Err(CompileError::Issues(Issues::new(parsed.source, issues))),
        };
        let issues = validators::validate(&parsed, &checked);
        if !issues.is_empty() {
            return Err(CompileError::Issues(Issues::new(parsed.source, issues)));
        }
        let output = checked.type_of(parsed.expr.id).clone();
        let plan = match eval::plan(self, &parsed.expr, &checked) {
            Ok(plan) => plan,
            Err(error) => return Err(CompileError::Program(error, output)),
        };
        Ok(Program {
            plan,
            output,
            cost: cost::estimate(self, &parsed.expr, &checked),
            names: self.variables_in(&parsed.expr),
        })
    }
}

impl Program {
    /// The type of its value, as far as it is known.
    pub fn output_type(&self) -> &Type {
        &self.output
    }

    /// What it may cost at least and at most, by the declared types.
    pub fn cost(&self) -> Range {
        self.cost
    }

    /// Whether it refers to a variable.
    pub fn mentions(&self, variable: &str) -> bool {
        self.names.iter().any(|name| name == variable)
    }

    /// Evaluates it. When `budget` is used up, the value is [`Error::CostExceeded`].
    pub fn eval<'a>(&self, variables: &Activation<'a>, budget: u64) -> Evaluated<'a> {
        let mut machine = eval::Machine::new(variables, budget);
        let value = machine.eval(&self.plan.root);
        Evaluated { value, cost: machine.cost() }
    }
}
