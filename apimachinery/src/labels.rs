//! Label selectors: the text form of queries and the object form of specs.
//!
//! Parsing follows upstream's lexer and parser step by step, because clients see its errors.

use crate::field::{self, ErrorList, Path};
use crate::gotext::quote;
use crate::names;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// Anything labels can be looked up in.
pub trait Labels {
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}
impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}
impl<S: std::hash::BuildHasher> Labels for HashMap<String, String, S> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}
impl Labels for [(String, String)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}
impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}
impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref()?.label(key)
    }
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

impl Requirement {
    /// Checks key, operator and values as `labels.NewRequirement` does.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, ParseError> {
        let nil = Path::nil();
        let mut errors = ErrorList::new();
        errors.extend(label_key_error(key, &nil.child("key")));
        let path = nil.child("values");
        let shown = || Value::from(values.clone());
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                errors.push(field::invalid(&path, shown(), "for 'in', 'notin' operators, values set can't be empty"))
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                errors.push(field::invalid(&path, shown(), "exact-match compatibility requires one single value"))
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                errors.push(field::invalid(&path, shown(), "values set must be empty for exists and does not exist"));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    let detail = "for 'Gt', 'Lt' operators, exactly one value is required";
                    errors.push(field::invalid(&path, shown(), detail));
                }
                for (i, value) in values.iter().enumerate().filter(|(_, v)| parse_int(v).is_none()) {
                    let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                    errors.push(field::invalid(&path.index(i), value, detail));
                }
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                errors.push(field::invalid(&path.index(i).key(key), value, messages.join("; ")));
            }
        }
        if errors.is_empty() {
            Ok(Self { key: key.to_owned(), operator, values })
        } else {
            Err(ParseError(errors.to_aggregate()))
        }
    }

    pub fn matches(&self, labels: &impl Labels) -> bool {
        let value = labels.label(&self.key);
        let has = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(has),
            Operator::NotIn | Operator::NotEquals => value.is_none_or(|v| !has(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let (Some(left), [right]) = (value.and_then(parse_int), self.values.as_slice()) else {
                    return false;
                };
                let Some(right) = parse_int(right) else {
                    return false;
                };
                if self.operator == Operator::GreaterThan { left > right } else { left < right }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.operator == Operator::DoesNotExist {
            f.write_str("!")?;
        }
        f.write_str(&self.key)?;
        let values = || {
            let mut sorted: Vec<&str> = self.values.iter().map(String::as_str).collect();
            sorted.sort_unstable();
            sorted.join(",")
        };
        match self.operator {
            Operator::Equals => write!(f, "={}", values()),
            Operator::DoubleEquals => write!(f, "=={}", values()),
            Operator::NotEquals => write!(f, "!={}", values()),
            Operator::In => write!(f, " in ({})", values()),
            Operator::NotIn => write!(f, " notin ({})", values()),
            Operator::GreaterThan => write!(f, ">{}", values()),
            Operator::LessThan => write!(f, "<{}", values()),
            Operator::Exists | Operator::DoesNotExist => Ok(()),
        }
    }
}

/// Text or an object that is not a selector; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

/// The conjunction of its requirements, or nothing at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object: what an absent `LabelSelector` means.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Every pair must be present; the values are not checked.
    pub fn from_map(labels: &Map<String, Value>) -> Self {
        let requirement = |(k, v): (&String, &Value)| Requirement {
            key: k.clone(),
            operator: Operator::Equals,
            values: vec![v.as_str().unwrap_or_default().to_owned()],
        };
        Self::new(labels.iter().map(requirement).collect())
    }

    /// Reads the text form used in queries.
    pub fn parse(selector: &str) -> Result<Self, ParseError> {
        Ok(Self::new(Parser::new(selector).parse()?))
    }

    /// Reads a `meta/v1` LabelSelector object: absent selects nothing, empty everything.
    pub fn from_label_selector(selector: Option<&Value>) -> Result<Self, ParseError> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else {
            return Ok(Self::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(ParseError(format!("{} is not a valid label selector operator", quote(other))));
                }
            };
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement::new(text("key"), operator, values)?);
        }
        Ok(Self::new(requirements))
    }

    pub fn matches(&self, labels: &impl Labels) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The value this label must have, if the selector fixes one.
    pub fn requires_exact_match(&self, key: &str) -> Option<&str> {
        let requirement = self.requirements.iter().find(|r| r.key == key)?;
        match (requirement.operator, requirement.values.as_slice()) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

/// The text of a LabelSelector object, as `kubectl describe` and the scale subresource show it.
pub fn format_label_selector(selector: Option<&Value>) -> String {
    match Selector::from_label_selector(selector) {
        Ok(selector) if selector.is_nothing() || selector.is_empty() => "<none>".to_owned(),
        Ok(selector) => selector.to_string(),
        Err(_) => "<error>".to_owned(),
    }
}

fn parse_int(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn label_key_error(key: &str, path: &Path) -> Option<field::FieldError> {
    let messages = names::qualified_name(key);
    (!messages.is_empty()).then(|| field::invalid(path, key, messages.join("; ")))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Error,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

fn token(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "in" => Token::In,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "notin" => Token::NotIn,
        "(" => Token::Open,
        _ => return None,
    })
}

fn special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn lex(text: &str) -> Vec<(Token, String)> {
    let mut items = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(blank);
        // A NUL ends the input, as it does for upstream's byte reader.
        let Some(first) = rest.chars().next().filter(|c| *c != '\0') else {
            items.push((Token::End, String::new()));
            return items;
        };
        if special(first) {
            let run = rest.find(|c| !special(c)).unwrap_or(rest.len());
            let mut taken = 0;
            let mut found = None;
            for end in 1..=run {
                match token(&rest[..end]) {
                    Some(t) => (found, taken) = (Some(t), end),
                    None if found.is_some() => break,
                    None => taken = end,
                }
            }
            let literal = rest[..taken].to_owned();
            items.push(match found {
                Some(t) => (t, literal),
                None => (Token::Error, format!("error expected: keyword found '{literal}'")),
            });
            rest = &rest[taken..];
        } else {
            let end = rest.find(|c| special(c) || blank(c) || c == '\0').unwrap_or(rest.len());
            let word = &rest[..end];
            items.push((token(word).unwrap_or(Token::Identifier), word.to_owned()));
            rest = &rest[end..];
        }
    }
}

struct Parser {
    items: Vec<(Token, String)>,
    position: usize,
}

type Parsed<T> = Result<T, ParseError>;

fn fail<T>(text: String) -> Parsed<T> {
    Err(ParseError(text))
}

impl Parser {
    fn new(text: &str) -> Self {
        Self { items: lex(text), position: 0 }
    }

    /// In value context `in` and `notin` are plain words.
    fn peek(&self) -> (Token, &str) {
        let (token, literal) = &self.items[self.position.min(self.items.len() - 1)];
        match token {
            Token::In | Token::NotIn => (Token::Identifier, literal),
            token => (*token, literal),
        }
    }

    fn next(&mut self) -> (Token, String) {
        let (token, literal) = self.peek();
        let item = (token, literal.to_owned());
        self.position += 1;
        item
    }

    fn next_operator(&mut self) -> (Token, String) {
        let item = self.items[self.position.min(self.items.len() - 1)].clone();
        self.position += 1;
        item
    }

    fn parse(mut self) -> Parsed<Vec<Requirement>> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement =
                        self.requirement().map_err(|e| ParseError(format!("unable to parse requirement: {e}")))?;
                    requirements.push(requirement);
                    match self.next() {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => {
                            let (next, literal) = self.peek();
                            if !matches!(next, Token::Identifier | Token::Not) {
                                return fail(format!("found '{literal}', expected: identifier after ','"));
                            }
                        }
                        (_, literal) => {
                            return fail(format!("found '{literal}', expected: ',' or 'end of string'"));
                        }
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, literal) => {
                    return fail(format!("found '{literal}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Parsed<Requirement> {
        let mut operator = None;
        let (mut token, mut key) = self.next();
        if token == Token::Not {
            operator = Some(Operator::DoesNotExist);
            (token, key) = self.next();
        }
        if token != Token::Identifier {
            return fail(format!("found '{key}', expected: identifier"));
        }
        if let Some(error) = label_key_error(&key, &Path::nil()) {
            return fail(error.to_string());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) && operator.is_none() {
            operator = Some(Operator::Exists);
        }
        if let Some(operator) = operator {
            return Requirement::new(&key, operator, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => BTreeSet::from([self.exact_value()?]),
        };
        Requirement::new(&key, operator, values.into_iter().collect())
    }

    fn operator(&mut self) -> Parsed<Operator> {
        Ok(match self.next_operator() {
            (Token::In, _) => Operator::In,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::Greater, _) => Operator::GreaterThan,
            (Token::Less, _) => Operator::LessThan,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::NotEquals, _) => Operator::NotEquals,
            (_, literal) => {
                return fail(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        })
    }

    fn values(&mut self) -> Parsed<BTreeSet<String>> {
        let (token, literal) = self.next();
        if token != Token::Open {
            return fail(format!("found '{literal}' expected: '('"));
        }
        let (token, literal) = self.peek();
        let literal = literal.to_owned();
        match token {
            Token::Identifier | Token::Comma => {
                let values = self.identifiers()?;
                if self.next().0 != Token::Close {
                    return fail(format!("found '{literal}', expected: ')'"));
                }
                Ok(values)
            }
            Token::Close => {
                self.next();
                Ok(BTreeSet::from([String::new()]))
            }
            _ => fail(format!("found '{literal}', expected: ',', ')' or identifier")),
        }
    }

    fn identifiers(&mut self) -> Parsed<BTreeSet<String>> {
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                (Token::Identifier, literal) => {
                    values.insert(literal);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, literal) => {
                            return fail(format!("found '{literal}', expected: ',' or ')'"));
                        }
                    }
                }
                (Token::Comma, _) => {
                    let next = self.peek().0;
                    if values.is_empty() || matches!(next, Token::Close | Token::Comma) {
                        values.insert(String::new());
                    }
                    if next == Token::Close {
                        return Ok(values);
                    }
                }
                (_, literal) => {
                    return fail(format!("found '{literal}', expected: ',', or identifier"));
                }
            }
        }
    }

    fn exact_value(&mut self) -> Parsed<String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Identifier, literal) => Ok(literal),
            (_, literal) => fail(format!("found '{literal}', expected: identifier")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parses_and_prints() {
        for (input, expected) in [
            ("", ""),
            ("b,a=1", "a=1,b"),
            ("!x", "!x"),
            ("x in (b, a)", "x in (a,b)"),
            ("x notin (a,,)", "x notin (,a)"),
            ("x in ()", "x in ()"),
            ("x==", "x=="),
            ("x != y", "x!=y"),
            ("x>1,x<3", "x>1,x<3"),
            ("in in (in)", "in in (in)"),
        ] {
            assert_eq!(Selector::parse(input).unwrap().to_string(), expected, "{input}");
        }
    }

    #[test]
    fn errors() {
        for (input, expected) in [
            ("x=a=b", "found '=', expected: ',' or 'end of string'"),
            ("x,", "found '', expected: identifier after ','"),
            ("x in", "unable to parse requirement: found '' expected: '('"),
            ("x=,,", "found ',', expected: identifier after ','"),
            ("x ! y", "unable to parse requirement: found '!', expected: in, notin, =, ==, !=, gt, lt"),
            (")", "found ')', expected: !, identifier, or 'end of string'"),
            (
                "x>a",
                "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            let got = Selector::parse(input).map(|s| s.to_string());
            assert_eq!(got.unwrap_err().to_string(), expected, "{input}");
        }
        assert!(
            Selector::parse("_x")
                .unwrap_err()
                .0
                .starts_with("unable to parse requirement: <nil>: Invalid value: \"_x\": name part must")
        );
    }

    #[test]
    fn matches() {
        let labels = json!({"a": "1", "b": "x"});
        let labels = labels.as_object().unwrap();
        for (selector, expected) in [
            ("a=1", true),
            ("a!=1", false),
            ("c!=1", true),
            ("a in (1,2),b", true),
            ("c", false),
            ("!c", true),
            ("a>0", true),
            ("b>0", false),
            ("a notin (1)", false),
        ] {
            assert_eq!(Selector::parse(selector).unwrap().matches(labels), expected, "{selector}");
        }
        assert!(!Selector::from_label_selector(None).unwrap().matches(labels));
        assert!(Selector::from_label_selector(Some(&json!({}))).unwrap().matches(labels));
        let object =
            json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "In", "values": ["x"]}]});
        assert!(Selector::from_label_selector(Some(&object)).unwrap().matches(labels));
        assert_eq!(format_label_selector(Some(&object)), "a=1,b in (x)");
    }
}
