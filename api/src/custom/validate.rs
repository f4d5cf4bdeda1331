//! Values against their schema, with the errors of go-openapi as apiextensions turns them into
//! field errors.
//!
//! One recursive walk in the order of kube-openapi's validators: type, the combinations (`anyOf`,
//! `oneOf`, `allOf`, `not`), string, format, number, list, enum, object. Each counts how much of a
//! schema fitted, which picks the branch of a failed `anyOf` whose errors are shown.

use std::fmt::Write as _;

use apimachinery::field::{self, BadValue, ErrorList, FieldError, Path};
use apimachinery::gotext::{self, quote};
use apimachinery::jsonpath::go_float;
use serde_json::{Map, Value};

use super::{Additional, Correlated, Kind, Node, Values, formats};

/// What is wrong with a value, as field errors below `path`.
pub fn value(path: &Path, value: &Value, node: &Node) -> ErrorList {
    let outcome = schema(node, value, "", None);
    outcome.errors.into_iter().map(|error| error.into_field(path)).collect()
}

/// As [`value`], of a value that replaces another: what did not change is not held against it.
pub fn update(path: &Path, correlated: Correlated<'_>) -> ErrorList {
    let outcome = ratcheted(correlated.node, correlated, "");
    outcome.errors.into_iter().map(|error| error.into_field(path)).collect()
}

/// What becomes of an error on its way to a field error.
#[derive(Clone, Debug)]
enum Code {
    Required,
    Enum(Vec<String>),
    TooLong(i64),
    TooMany {
        actual: i64,
        max: i64,
    },
    Type,
    Other,
    /// Of no field: `anyOf` and its likes, and numbers out of range.
    Whole,
}

#[derive(Clone, Debug)]
struct Error {
    code: Code,
    /// The path in go-openapi's form; `.name` at the root.
    name: String,
    value: Option<Value>,
    message: String,
}

impl Error {
    fn new(code: Code, name: &str, value: Option<Value>, message: String) -> Error {
        Error { code, name: name.to_owned(), value, message }
    }

    fn into_field(self, path: &Path) -> FieldError {
        let at = match self.name.as_str() {
            "" | "." => path.clone(),
            name => path.child(name.strip_prefix('.').unwrap_or(name).to_owned()),
        };
        let size = |number: i64| usize::try_from(number).unwrap_or_default();
        let value = || BadValue::Value(self.value.clone().unwrap_or_else(|| Value::String(String::new())));
        match &self.code {
            Code::Required => field::required(&at, ""),
            Code::Enum(values) => field::not_supported(&at, BadValue::Value(self.value.unwrap_or_default()), values),
            Code::TooLong(max) => field::too_long(&at, size(*max)),
            Code::TooMany { actual, max } => field::too_many(&at, size(*actual), size(*max)),
            Code::Type => field::type_invalid(&at, value(), self.message.clone()),
            Code::Other => field::invalid(&at, value(), self.message.clone()),
            Code::Whole => field::invalid(path, "", self.message),
        }
    }
}

/// Errors, each text once, and how much fitted.
#[derive(Clone, Debug, Default)]
struct Outcome {
    errors: Vec<Error>,
    fitted: usize,
}

impl Outcome {
    fn push(&mut self, error: Error) {
        if self.errors.iter().all(|known| known.message != error.message) {
            self.errors.push(error);
        }
    }

    fn merge(&mut self, other: Outcome) {
        for error in other.errors {
            self.push(error);
        }
        self.fitted += other.fitted;
    }

    fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }
}

fn one(error: Error) -> Outcome {
    Outcome { errors: vec![error], fitted: 0 }
}

/// Upstream's ratcheting validator: errors of what did not change are dropped, level by level.
fn ratcheted(node: &Node, correlated: Correlated<'_>, path: &str) -> Outcome {
    let outcome = schema(node, correlated.new, path, Some(correlated));
    if outcome.is_valid() || !correlated.is_unchanged() {
        return outcome;
    }
    Outcome::default()
}

fn schema(node: &Node, value: &Value, path: &str, correlated: Option<Correlated<'_>>) -> Outcome {
    let mut out = Outcome::default();
    let values = node.values.as_deref();
    if value.is_null() {
        out.merge(check_type(node, value, path));
        if let Some(outcome) = values.and_then(|values| choices(values, value, path)) {
            out.merge(outcome);
        }
        return out;
    }
    if node.kind != Kind::Any || node.int_or_string || values.is_some_and(|values| !values.format.is_empty()) {
        out.merge(check_type(node, value, path));
        out.fitted += 1;
    }
    out.merge(combinations(values, value, path));
    out.fitted += 1;
    match value {
        Value::String(text) => {
            if let Some(values) = values {
                if let Some(error) = string(values, text, path) {
                    out.push(error);
                }
                out.fitted += 1;
                if !values.format.is_empty() && formats::is_of_strings(&values.format) {
                    if !formats::is_valid(&values.format, text) {
                        out.push(wrong_type(path, &values.format, text));
                    }
                    out.fitted += 1;
                }
            } else {
                out.fitted += 1;
            }
        }
        Value::Number(number) => {
            out.merge(numbers(node, number, path));
            out.fitted += 1;
        }
        Value::Array(items) => {
            out.merge(list(node, items, path, correlated));
            out.fitted += 1;
        }
        _ => {}
    }
    if let Some(outcome) = values.and_then(|values| choices(values, value, path)) {
        out.merge(outcome);
    }
    out.fitted += 1;
    if let Value::Object(map) = value {
        out.merge(object(node, map, path, correlated));
        out.fitted += 1;
    }
    out.fitted += 1;
    out
}

fn wrong_type(path: &str, wanted: &str, have: &str) -> Error {
    let message = format!("{path} in body must be of type {wanted}: {}", quote(have));
    Error::new(Code::Type, path, Some(have.into()), message)
}

/// Whether a double is an integer to go-openapi: beyond a bound it no longer tells one from the next.
fn is_whole(float: f64) -> bool {
    const MOST_EXACT: f64 = 9_007_199_254_740_991.0;
    float.abs() <= MOST_EXACT && (float == float.trunc() || (float - float.round()).abs() < 1e-9)
}

fn check_type(node: &Node, value: &Value, path: &str) -> Outcome {
    let wanted: &[&str] = match (node.int_or_string, node.kind) {
        (true, _) => &["integer", "string"],
        (_, Kind::Any) => &[],
        (_, kind) => &[kind.as_str()],
    };
    let format = node.values.as_deref().map_or("", |values| &*values.format);
    let fine = Outcome { errors: Vec::new(), fitted: 1 };
    if value.is_null() {
        if !wanted.is_empty() && !node.nullable {
            return one(wrong_type(path, &wanted.join(","), "null"));
        }
        return fine;
    }
    let (kind, own_format) = match value {
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::Null => ("null", ""),
    };
    let wants = |name: &str| wanted.contains(&name);
    let float_as_integer = kind == "number" && value.as_f64().is_some_and(is_whole) && wants("integer");
    let integer_as_float = kind == "integer" && wants("number");
    let textual = matches!(kind, "string" | "array");
    let acceptable = wants(kind) || own_format == format || float_as_integer || integer_as_float;
    if !textual && !format.is_empty() && !acceptable {
        return one(wrong_type(path, format, own_format));
    }
    let numeric = wants("number") || wants("integer");
    if textual && !format.is_empty() && !numeric {
        return fine;
    }
    if !(wants(kind) || float_as_integer || integer_as_float) {
        return one(wrong_type(path, &wanted.join(","), kind));
    }
    fine
}

fn combinations(values: Option<&Values>, value: &Value, path: &str) -> Outcome {
    let mut out = Outcome { errors: Vec::new(), fitted: 1 };
    let Some(values) = values else { return out };
    let whole = |message: String| Error::new(Code::Whole, path, None, message);
    if !values.any_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut success = None;
        for branch in &values.any_of {
            let outcome = schema(branch, value, path, None);
            if outcome.is_valid() {
                success = Some(outcome);
                break;
            }
            if best.as_ref().is_none_or(|best| outcome.fitted > best.fitted) {
                best = Some(outcome);
            }
        }
        match (success, best) {
            (Some(success), _) => out.merge(success),
            (None, best) => {
                out.push(whole(format!("{} must validate at least one schema (anyOf)", quote(path))));
                out.merge(best.unwrap_or_default());
            }
        }
    }
    if !values.one_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut first: Option<Outcome> = None;
        let mut valid = 0;
        for branch in &values.one_of {
            let outcome = schema(branch, value, path, None);
            if outcome.is_valid() {
                valid += 1;
                best = None;
                first.get_or_insert(outcome);
            } else if valid == 0 && best.as_ref().is_none_or(|best| outcome.fitted > best.fitted) {
                best = Some(outcome);
            }
        }
        if valid == 1 {
            out.merge(first.unwrap_or_default());
        } else {
            let found =
                if valid == 0 { "Found none valid".to_owned() } else { format!("Found {valid} valid alternatives") };
            out.push(whole(format!("{} must validate one and only one schema (oneOf). {found}", quote(path))));
            out.merge(best.unwrap_or_default());
        }
    }
    if !values.all_of.is_empty() {
        let mut valid = 0;
        for branch in &values.all_of {
            let outcome = schema(branch, value, path, None);
            valid += usize::from(outcome.is_valid());
            out.merge(outcome);
        }
        if valid != values.all_of.len() {
            let more = if valid == 0 { ". None validated" } else { "" };
            out.push(whole(format!("{} must validate all the schemas (allOf){more}", quote(path))));
        }
    }
    if let Some(not) = &values.not
        && schema(not, value, path, None).is_valid()
    {
        out.push(whole(format!("{} must not validate the schema (not)", quote(path))));
    }
    out
}

fn string(values: &Values, text: &str, path: &str) -> Option<Error> {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let bad = || Some(Value::from(text));
    if let Some(max) = values.max_length.filter(|max| length > *max) {
        let message = format!("{path} in body should be at most {max} chars long");
        return Some(Error::new(Code::TooLong(max), path, bad(), message));
    }
    if let Some(min) = values.min_length.filter(|min| length < *min) {
        let message = format!("{path} in body should be at least {min} chars long");
        return Some(Error::new(Code::Other, path, bad(), message));
    }
    let pattern = values.pattern.as_ref()?;
    let shown = match pattern.is_match(text) {
        Ok(true) => return None,
        Ok(false) => pattern.text().to_owned(),
        Err(error) => format!("{}, but pattern is invalid: {error}", pattern.text()),
    };
    Some(Error::new(Code::Other, path, bad(), format!("{path} in body should match '{shown}'")))
}

/// A bound as Go prints it: of integers as an integer.
fn shown(bound: f64, integer: bool) -> String {
    if integer { (bound as i64).to_string() } else { go_float(bound) }
}

/// Whether a number can be one of the type and format; go-openapi goes by its text.
fn in_range(node: &Node, number: f64, integer: Option<i64>) -> bool {
    let format = node.values.as_deref().map_or("", |values| &*values.format);
    match node.kind {
        _ if node.int_or_string => true,
        Kind::Integer => {
            let text = integer.map_or_else(|| number.to_string(), |integer| integer.to_string());
            if format == "int32" { text.parse::<i32>().is_ok() } else { text.parse::<i64>().is_ok() }
        }
        Kind::Number => format != "float" || number.abs() <= f64::from(f32::MAX),
        _ => true,
    }
}

fn numbers(node: &Node, number: &serde_json::Number, path: &str) -> Outcome {
    let mut out = Outcome { errors: Vec::new(), fitted: 1 };
    let float = number.as_f64().unwrap_or_default();
    let integer = number.as_i64();
    let format = node.values.as_deref().map_or("", |values| &*values.format);
    let range = |what: &str, number: f64, integer: Option<i64>| -> Option<Error> {
        if in_range(node, number, integer) {
            return None;
        }
        let kind = node.kind.as_str();
        let message = if format.is_empty() {
            format!("{what} value must be of type {kind} (default format) in {path}")
        } else {
            format!("{what} value must be of type {kind} with format {format} in {path}")
        };
        Some(Error::new(Code::Whole, path, None, message))
    };
    let bound_integer = |bound: f64| (bound.fract() == 0.0 && bound.abs() < 9e18).then_some(bound as i64);
    let mut checks: Vec<Option<Error>> = vec![range("Checked", float, integer)];
    let value = Some(Value::Number(number.clone()));
    if let Some(values) = node.values.as_deref() {
        if let Some(factor) = values.multiple_of {
            let wrong = range("MultipleOf", factor, bound_integer(factor));
            let as_integer = integer.filter(|_| wrong.is_none());
            checks.push(wrong);
            checks.push(multiple_of(factor, float, as_integer, path, value.clone()));
        }
        // Sorted as upstream merges them: minimum, then maximum.
        let mut bound = |what: &str, bound: Option<f64>, exclusive: bool, below: bool| {
            let Some(bound) = bound else { return };
            let wrong = range(what, bound, bound_integer(bound));
            let as_integer = integer.filter(|_| wrong.is_none());
            checks.push(wrong);
            let broken = match as_integer {
                Some(integer) => {
                    let bound = bound as i64;
                    match (below, exclusive) {
                        (true, false) => integer < bound,
                        (true, true) => integer <= bound,
                        (false, false) => integer > bound,
                        (false, true) => integer >= bound,
                    }
                }
                None => match (below, exclusive) {
                    (true, false) => float < bound,
                    (true, true) => float <= bound,
                    (false, false) => float > bound,
                    (false, true) => float >= bound,
                },
            };
            if broken {
                let relation = match (below, exclusive) {
                    (true, false) => "greater than or equal to",
                    (true, true) => "greater than",
                    (false, false) => "less than or equal to",
                    (false, true) => "less than",
                };
                let message = format!("{path} in body should be {relation} {}", shown(bound, as_integer.is_some()));
                checks.push(Some(Error::new(Code::Other, path, value.clone(), message)));
            }
        };
        bound("Minimum boundary", values.minimum, values.exclusive_minimum, true);
        bound("Maximum boundary", values.maximum, values.exclusive_maximum, false);
    }
    for error in checks.into_iter().flatten() {
        out.push(error);
    }
    out
}

fn multiple_of(factor: f64, float: f64, integer: Option<i64>, path: &str, value: Option<Value>) -> Option<Error> {
    let shown = shown(factor, integer.is_some());
    let positive = match integer {
        Some(_) => factor as i64 > 0,
        None => factor > 0.0,
    };
    if !positive {
        let message = format!("factor MultipleOf declared for {path} must be positive: {shown}");
        let factor = if integer.is_some() { Value::from(factor as i64) } else { Value::from(factor) };
        return Some(Error::new(Code::Other, path, Some(factor), message));
    }
    let fits = match integer {
        Some(integer) => integer % (factor as i64) == 0,
        None => is_whole(if factor < 1.0 { 1.0 / factor * float } else { float / factor }),
    };
    (!fits).then(|| Error::new(Code::Other, path, value, format!("{path} in body should be a multiple of {shown}")))
}

fn list(node: &Node, items: &[Value], path: &str, correlated: Option<Correlated<'_>>) -> Outcome {
    let mut out = Outcome { errors: Vec::new(), fitted: 1 };
    if let Some(item) = &node.items {
        for (index, value) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            out.merge(match correlated.and_then(|correlated| correlated.index(index)) {
                Some(child) => ratcheted(item, child, &path),
                None => schema(item, value, &path, None),
            });
        }
    }
    let Some(values) = node.values.as_deref() else { return out };
    let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(min) = values.min_items.filter(|min| size < *min) {
        let message = format!("{path} in body should have at least {min} items");
        out.push(Error::new(Code::Other, path, Some(size.into()), message));
    }
    if let Some(max) = values.max_items.filter(|max| size > *max) {
        let message = format!("{path} in body should have at most {max} items");
        out.push(Error::new(Code::TooMany { actual: size, max }, path, Some(size.into()), message));
    }
    if values.unique_items && (1..items.len()).any(|at| items[..at].contains(&items[at])) {
        out.push(Error::new(Code::Other, path, None, format!("{path} in body shouldn't contain duplicates")));
    }
    out
}

fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// The `enum` of a schema; `None` when there is none or the value is one of it.
fn choices(values: &Values, value: &Value, path: &str) -> Option<Outcome> {
    if values.choices.is_empty() || (!value.is_null() && values.choices.iter().any(|choice| is_equal(choice, value))) {
        return None;
    }
    let names: Vec<String> = values
        .choices
        .iter()
        .map(|choice| choice.as_str().map_or_else(|| gotext::json(choice), str::to_owned))
        .collect();
    let message = format!("{path} in body should be one of {}", gotext::list(&names));
    Some(one(Error::new(Code::Enum(names), path, Some(value.clone()), message)))
}

fn object(node: &Node, map: &Map<String, Value>, path: &str, correlated: Option<Correlated<'_>>) -> Outcome {
    let mut out = Outcome::default();
    let size = i64::try_from(map.len()).unwrap_or(i64::MAX);
    let values = node.values.as_deref();
    if let Some(min) = values.and_then(|values| values.min_properties).filter(|min| size < *min) {
        let message = format!("{path} in body should have at least {min} properties");
        out.push(Error::new(Code::Other, path, Some(size.into()), message));
    }
    if let Some(max) = values.and_then(|values| values.max_properties).filter(|max| size > *max) {
        let message = format!("{path} in body should have at most {max} properties");
        out.push(Error::new(Code::TooMany { actual: size, max }, path, Some(size.into()), message));
    }
    let member = |node: &Node, name: &str, value: &Value, at: &str| {
        // Kind and version of the root always change together with the object.
        let root_type = path.is_empty() && matches!(name, "kind" | "apiVersion");
        match correlated.filter(|_| !root_type).and_then(|correlated| correlated.key(name)) {
            Some(child) => ratcheted(node, child, at),
            None => schema(node, value, at, None),
        }
    };
    for (name, value) in map.iter().filter(|(name, _)| node.property(name).is_none()) {
        match &node.additional {
            Additional::Allowed(false) => {
                let message = format!("{path}.{name} in body is a forbidden property");
                out.push(Error::new(Code::Other, path, Some(name.as_str().into()), message));
            }
            Additional::Schema(additional) => {
                out.merge(member(additional, name, value, &format!("{path}.{name}")));
            }
            _ => {}
        }
    }
    let mut at = String::with_capacity(path.len() + 24);
    for (name, property) in &node.properties {
        let Some(value) = map.get(&**name) else { continue };
        at.clear();
        at.push_str(path);
        if !path.is_empty() {
            at.push('.');
        }
        write!(at, "{name}").expect("writing to a string does not fail");
        out.merge(member(property, name, value, &at));
    }
    for name in values.into_iter().flat_map(|values| values.required.iter()) {
        if !map.contains_key(&**name) {
            let at = format!("{path}.{name}");
            let message = format!("{at} in body is required");
            out.push(Error::new(Code::Required, &at, None, message));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(schema: Value, object: Value) -> Vec<String> {
        value(&Path::nil(), &object, &Node::compile(&schema)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn errors_in_upstreams_words() {
        let spec = |schema: Value| json!({"type": "object", "properties": {"spec": schema}});
        for (schema, object, expected) in [
            (
                spec(json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}})),
                json!({"spec": {}}),
                vec!["spec.a: Required value"],
            ),
            (json!({"type": "object", "required": ["spec"]}), json!({}), vec!["spec: Required value"]),
            (
                spec(json!({"type": "integer"})),
                json!({"spec": "x"}),
                vec!["spec: Invalid value: \"string\": spec in body must be of type integer: \"string\""],
            ),
            (
                spec(json!({"type": "string"})),
                json!({"spec": null}),
                vec!["spec: Invalid value: \"null\": spec in body must be of type string: \"null\""],
            ),
            (spec(json!({"type": "string", "nullable": true})), json!({"spec": null}), vec![]),
            (spec(json!({"type": "number"})), json!({"spec": 1}), vec![]),
            (spec(json!({"type": "integer"})), json!({"spec": 1.0}), vec![]),
            (
                spec(json!({"x-kubernetes-int-or-string": true})),
                json!({"spec": true}),
                vec!["spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\""],
            ),
            (
                spec(json!({"type": "string", "enum": ["a", "b"]})),
                json!({"spec": "c"}),
                vec!["spec: Unsupported value: \"c\": supported values: \"a\", \"b\""],
            ),
            (
                spec(json!({"type": "string", "pattern": "^a+$"})),
                json!({"spec": "b"}),
                vec!["spec: Invalid value: \"b\": spec in body should match '^a+$'"],
            ),
            (
                spec(json!({"type": "string", "maxLength": 1})),
                json!({"spec": "bcd"}),
                vec!["spec: Too long: may not be more than 1 byte"],
            ),
            (
                spec(json!({"type": "string", "minLength": 4})),
                json!({"spec": "bcd"}),
                vec!["spec: Invalid value: \"bcd\": spec in body should be at least 4 chars long"],
            ),
            (
                spec(json!({"type": "integer", "maximum": 10, "minimum": 5})),
                json!({"spec": 11}),
                vec!["spec: Invalid value: 11: spec in body should be less than or equal to 10"],
            ),
            (
                spec(json!({"type": "integer", "minimum": 5, "exclusiveMinimum": true})),
                json!({"spec": 5}),
                vec!["spec: Invalid value: 5: spec in body should be greater than 5"],
            ),
            (
                spec(json!({"type": "integer", "format": "int32"})),
                json!({"spec": 3_000_000_000_i64}),
                vec!["<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec"],
            ),
            (
                spec(json!({"type": "integer", "multipleOf": 3})),
                json!({"spec": 4}),
                vec!["spec: Invalid value: 4: spec in body should be a multiple of 3"],
            ),
            (
                spec(json!({"type": "array", "maxItems": 1, "items": {"type": "string"}})),
                json!({"spec": ["a", 1]}),
                vec![
                    "spec[1]: Invalid value: \"integer\": spec[1] in body must be of type string: \"integer\"",
                    "spec: Too many: 2: must have at most 1 item",
                ],
            ),
            (
                spec(json!({"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}})),
                json!({"spec": {"a": "x", "b": 1}}),
                vec![
                    "spec: Too many: 2: must have at most 1 item",
                    "spec.b: Invalid value: \"integer\": spec.b in body must be of type string: \"integer\"",
                ],
            ),
            (
                spec(json!({"type": "string", "format": "date-time"})),
                json!({"spec": "x"}),
                vec!["spec: Invalid value: \"x\": spec in body must be of type date-time: \"x\""],
            ),
            (
                spec(json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                    "oneOf": [{"required": ["a"]}, {"required": ["b"]}]})),
                json!({"spec": {"a": 1, "b": 1}}),
                vec![
                    "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
                ],
            ),
            (
                spec(json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                    "anyOf": [{"required": ["a"]}, {"required": ["b"]}]})),
                json!({"spec": {}}),
                vec![
                    "<nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)",
                    "spec.a: Required value",
                ],
            ),
            (
                spec(json!({"type": "object", "not": {"required": ["a"]}, "properties": {"a": {"type": "integer"}}})),
                json!({"spec": {"a": 1}}),
                vec!["<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)"],
            ),
        ] {
            assert_eq!(errors(schema.clone(), object), expected, "{schema}");
        }
    }

    #[test]
    fn what_did_not_change_is_not_held_against_it() {
        let node = Node::compile(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1},
            "b": {"type": "string", "maxLength": 1},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                     "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}},
        }}}}));
        let old = json!({"spec": {"a": "long", "list": [{"k": "x", "v": 5}]}});
        let check = |new: Value, expected: &[&str]| {
            let found = update(&Path::nil(), Correlated { old: &old, new: &new, node: &node });
            let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expected, "{new}");
        };
        check(json!({"spec": {"a": "long", "b": "1", "list": [{"k": "x", "v": 5}]}}), &[]);
        check(json!({"spec": {"a": "long", "list": [{"k": "n", "v": 1}, {"k": "x", "v": 5}]}}), &[]);
        check(json!({"spec": {"a": "longer"}}), &["spec.a: Too long: may not be more than 1 byte"]);
        check(
            json!({"spec": {"a": "long", "list": [{"k": "x", "v": 6}]}}),
            &["spec.list[0].v: Invalid value: 6: spec.list[0].v in body should be less than or equal to 1"],
        );
    }
}
