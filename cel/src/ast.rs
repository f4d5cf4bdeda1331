//! The tree of an expression, after macros are expanded.

use std::sync::Arc;

/// The number of a node. Places, types and resolved overloads are kept by it.
pub type Id = u32;

/// A node.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Its number, unique in the tree but for the copies that macros make.
    pub id: Id,
    /// What it is.
    pub kind: ExprKind,
}

/// The kinds of nodes.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// A node that could not be parsed; an issue has been recorded.
    Unspecified,
    /// A constant.
    Literal(Literal),
    /// A name. A leading dot (root scope) is part of it.
    Ident(String),
    /// `operand.field`, or `has(operand.field)` when `test` is set.
    Select {
        /// What is selected from.
        operand: Box<Expr>,
        /// The field.
        field: String,
        /// Whether only presence is asked for.
        test: bool,
    },
    /// A call of a function or an operator.
    Call(Call),
    /// `[a, ?b]`.
    List {
        /// The elements.
        elements: Vec<Expr>,
        /// Which of them are optional (`?e`).
        optional: Vec<usize>,
    },
    /// `{k: v, ?k: v}`.
    Map(Vec<Entry>),
    /// `Type{field: value}`.
    Struct {
        /// The name as written.
        type_name: String,
        /// The fields.
        fields: Vec<Field>,
    },
    /// What a macro such as `all` becomes.
    Comprehension(Box<Comprehension>),
}

/// A call. Operators have names such as `_+_`.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function.
    pub function: String,
    /// The receiver, for `target.function(args)`.
    pub target: Option<Box<Expr>>,
    /// The arguments.
    pub args: Vec<Expr>,
}

/// An entry of a map literal.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The number of the entry (its colon).
    pub id: Id,
    /// The key.
    pub key: Expr,
    /// The value.
    pub value: Expr,
    /// Whether it is written `?key: value`.
    pub optional: bool,
}

/// A field of an object literal.
#[derive(Clone, Debug)]
pub struct Field {
    /// The number of the field (its colon).
    pub id: Id,
    /// The name.
    pub name: String,
    /// The value.
    pub value: Expr,
    /// Whether it is written `?name: value`.
    pub optional: bool,
}

/// A loop over a list or a map with an accumulator.
#[derive(Clone, Debug)]
pub struct Comprehension {
    /// What is looped over.
    pub range: Expr,
    /// The variable of the element (list), the key (map), or the index when there is a second.
    pub var: String,
    /// The variable of the value, in a comprehension of two variables.
    pub var2: Option<String>,
    /// The accumulator's name.
    pub accu: String,
    /// Its first value.
    pub init: Expr,
    /// The loop goes on while this holds.
    pub condition: Expr,
    /// The accumulator's next value.
    pub step: Expr,
    /// The value of the whole.
    pub result: Expr,
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `1u`
    Uint(u64),
    /// `1.0`
    Double(f64),
    /// `'text'`
    String(Arc<str>),
    /// `b'bytes'`
    Bytes(Arc<[u8]>),
}

impl Expr {
    /// The dotted name that this node spells (`a.b.c`), if it does.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            ExprKind::Ident(name) => Some(name.clone()),
            ExprKind::Select { operand, field, test: false } => {
                let mut name = operand.qualified_name()?;
                name.push('.');
                name.push_str(field);
                Some(name)
            }
            _ => None,
        }
    }

    /// The name, if this is nothing but a name.
    pub fn as_ident(&self) -> Option<&str> {
        match &self.kind {
            ExprKind::Ident(name) => Some(name),
            _ => None,
        }
    }
}

/// The accumulator of the macros; no expression can spell it.
pub const ACCUMULATOR: &str = "@result";
/// The iteration variable of a binding, which is never read.
pub const UNUSED: &str = "#unused";

/// The names of the operators, as cel-go and its messages spell them.
pub mod operator {
    #![allow(missing_docs)]
    pub const CONDITIONAL: &str = "_?_:_";
    pub const AND: &str = "_&&_";
    pub const OR: &str = "_||_";
    pub const NOT: &str = "!_";
    pub const EQUALS: &str = "_==_";
    pub const NOT_EQUALS: &str = "_!=_";
    pub const LESS: &str = "_<_";
    pub const LESS_EQUALS: &str = "_<=_";
    pub const GREATER: &str = "_>_";
    pub const GREATER_EQUALS: &str = "_>=_";
    pub const ADD: &str = "_+_";
    pub const SUBTRACT: &str = "_-_";
    pub const MULTIPLY: &str = "_*_";
    pub const DIVIDE: &str = "_/_";
    pub const MODULO: &str = "_%_";
    pub const NEGATE: &str = "-_";
    pub const INDEX: &str = "_[_]";
    pub const OPT_INDEX: &str = "_[?_]";
    pub const OPT_SELECT: &str = "_?._";
    pub const IN: &str = "@in";
    pub const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
}
