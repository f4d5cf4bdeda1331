//! kubectl's dialect of JSONPath: `{.items[?(@.kind=="Pod")].metadata.name}{"\n"}`.
//!
//! Text outside braces is copied; an action inside braces walks from the root (or from the current
//! element of the enclosing `{range}`). Used by `-o jsonpath`, custom columns, `--sort-by`, `wait`
//! and the printer columns of CustomResourceDefinitions.
//!
//! It is not RFC 9535: there are ranges, literals print themselves, several results are joined by
//! spaces, and error texts are read by users. Where Go iterates a map in random order we iterate in
//! key order.

mod eval;
mod parse;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde_json::Value;

/// What went wrong, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Error(text.into())
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    /// `{…}`: steps applied one after the other.
    List(Vec<Node>),
    Field(String),
    Identifier(String),
    Array(Slice),
    Filter {
        left: Vec<Node>,
        right: Vec<Node>,
        operator: String,
    },
    Int(i64),
    Float(f64),
    Bool(bool),
    Wildcard,
    Recursive,
    Union(Vec<Vec<Node>>),
}

/// `[start:end:step]`. `[i]` is stored as `i:i+1` with `end` derived.
#[derive(Debug, Clone, PartialEq)]
struct Slice {
    start: Option<i64>,
    end: Option<i64>,
    end_derived: bool,
    step: Option<i64>,
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    nodes: Vec<Node>,
    allow_missing_keys: bool,
}

impl JsonPath {
    /// Parses a template.
    ///
    /// # Errors
    /// When the template is malformed.
    pub fn parse(template: &str) -> Result<Self, Error> {
        Ok(JsonPath { nodes: parse::parse(template)?, allow_missing_keys: false })
    }

    /// Whether a field that no input has yields nothing instead of an error.
    #[must_use]
    pub fn allow_missing_keys(mut self, allow: bool) -> Self {
        self.allow_missing_keys = allow;
        self
    }

    /// The values found, grouped by the piece of the template that found them.
    ///
    /// # Errors
    /// When a field is missing (unless allowed), an index is out of bounds or a filter compares
    /// what cannot be compared.
    pub fn find<'a>(&self, data: &'a Value) -> Result<Vec<Vec<Cow<'a, Value>>>, Error> {
        eval::find(self, data)
    }

    /// The rendered template.
    ///
    /// # Errors
    /// As [`JsonPath::find`].
    pub fn execute(&self, data: &Value) -> Result<String, Error> {
        let mut out = String::new();
        for group in self.find(data)? {
            let texts: Vec<String> = group.iter().map(|value| to_text(value)).collect();
            out.push_str(&texts.join(" "));
        }
        Ok(out)
    }
}

/// Normalizes what users write for a single expression: `x`, `.x`, `{x}` and `{.x}` all mean `{.x}`.
///
/// # Errors
/// When braces are nested or unbalanced.
pub fn relaxed(expression: &str) -> Result<String, Error> {
    if expression.is_empty() {
        return Ok(String::new());
    }
    let inner = expression.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(expression);
    let field = inner.strip_prefix('.').unwrap_or(inner);
    if field.is_empty() || field.contains(['{', '}']) {
        return Err(Error::new(
            "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{name1.name2}' or '{.name1.name2}'",
        ));
    }
    Ok(format!("{{.{field}}}"))
}

/// One result as it is printed: strings bare, numbers as Go prints them, the rest as compact JSON.
pub fn to_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => go_float(float),
            _ => number.to_string(),
        },
        Value::Array(_) | Value::Object(_) => compact_json(value),
    }
}

/// A float as Go's `%v` prints it: the shortest digits, an exponent below 1e-4 and from 1e6 on.
pub fn go_float(float: f64) -> String {
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{float:e}");
        let Some((mantissa, exponent)) = text.split_once('e') else { return text };
        let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |digits| ("-", digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    float.to_string()
}

/// JSON without spaces, with the characters escaped that Go escapes for HTML's sake.
pub fn compact_json(value: &Value) -> String {
    let text = serde_json::to_string(value).expect("a tree always encodes");
    // These characters occur only inside strings, where the escapes mean the same.
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
