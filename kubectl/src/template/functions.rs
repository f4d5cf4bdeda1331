//! The functions templates may call.

use base64::Engine;
use serde_json::Value;

use super::Error;
use super::exec::{Data, truth};
use crate::printer::go_value;

const NAMES: &[&str] = &[
    "and",
    "base64decode",
    "eq",
    "exists",
    "ge",
    "gt",
    "html",
    "index",
    "js",
    "le",
    "len",
    "lt",
    "ne",
    "not",
    "or",
    "parseInt",
    "print",
    "printf",
    "println",
    "slice",
    "urlquery",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.binary_search(&name).is_ok()
}

pub(super) fn call(name: &str, mut arguments: Vec<Data>) -> Result<Data, Error> {
    let failed = |why: String| {
        Error::new(format!("template: output:1: executing \"output\" at <{name}>: error calling {name}: {why}"))
    };
    let count = arguments.len();
    let wrong_count = |want: &str| {
        Error::new(format!(
            "template: output:1: executing \"output\" at <{name}>: wrong number of args for {name}: want {want} got {count}"
        ))
    };
    let text = |data: &Data| match data {
        None | Some(Value::Null) => "<no value>".to_owned(),
        Some(value) => go_value::plain(value),
    };
    Ok(Some(match name {
        "not" if count == 1 => Value::Bool(!truth(&arguments[0])),
        "not" => return Err(wrong_count("1")),
        "len" if count == 1 => match &arguments[0] {
            Some(Value::String(text)) => Value::from(text.len()),
            Some(Value::Array(items)) => Value::from(items.len()),
            Some(Value::Object(map)) => Value::from(map.len()),
            None | Some(Value::Null) => return Err(failed("len of nil pointer".into())),
            Some(other) => return Err(failed(format!("len of type {}", go_type(other)))),
        },
        "len" => return Err(wrong_count("1")),
        "index" => {
            if count == 0 {
                return Err(wrong_count("at least 1"));
            }
            let mut value = arguments.remove(0);
            for key in arguments {
                value = index(value, &key).map_err(failed)?;
            }
            return Ok(value);
        }
        "slice" => {
            let bound =
                |at: usize| arguments.get(at).and_then(Option::as_ref).and_then(Value::as_u64).map(|n| n as usize);
            let (from, to) = (bound(1).unwrap_or(0), bound(2));
            match &arguments.first() {
                Some(Some(Value::String(text))) => {
                    let to = to.unwrap_or(text.len());
                    let cut = text.get(from..to).ok_or_else(|| failed(format!("index out of range: {to}")))?;
                    Value::String(cut.to_owned())
                }
                Some(Some(Value::Array(items))) => {
                    let to = to.unwrap_or(items.len());
                    let cut = items.get(from..to).ok_or_else(|| failed(format!("index out of range: {to}")))?;
                    Value::Array(cut.to_vec())
                }
                _ => return Err(failed("can't slice item of this type".into())),
            }
        }
        "exists" => {
            let mut value = std::mem::take(&mut arguments).into_iter();
            let mut current = value.next().flatten();
            for key in value {
                current = match (current, key) {
                    (Some(Value::Object(mut map)), Some(Value::String(key))) => map.remove(&key),
                    (Some(Value::Array(items)), Some(Value::Number(at))) => {
                        at.as_u64().and_then(|at| items.get(at as usize).cloned())
                    }
                    _ => None,
                };
                if current.is_none() {
                    return Ok(Some(Value::Bool(false)));
                }
            }
            Value::Bool(current.is_some())
        }
        "eq" => {
            if count < 2 {
                return Err(failed("missing argument for comparison".into()));
            }
            let mut same = false;
            for other in &arguments[1..] {
                same |= equal(&arguments[0], other).map_err(failed)?;
            }
            Value::Bool(same)
        }
        "ne" | "lt" | "le" | "gt" | "ge" if count != 2 => return Err(wrong_count("2")),
        "ne" => Value::Bool(!equal(&arguments[0], &arguments[1]).map_err(failed)?),
        "lt" => Value::Bool(less(&arguments[0], &arguments[1]).map_err(failed)?),
        "ge" => Value::Bool(!less(&arguments[0], &arguments[1]).map_err(failed)?),
        "gt" => Value::Bool(less(&arguments[1], &arguments[0]).map_err(failed)?),
        "le" => Value::Bool(!less(&arguments[1], &arguments[0]).map_err(failed)?),
        "print" | "println" => {
            // Sprint puts a space between operands when neither is a string; Sprintln always.
            let mut out = String::new();
            for (i, argument) in arguments.iter().enumerate() {
                let string = |data: &Data| matches!(data, Some(Value::String(_)));
                if i > 0 && (name == "println" || !(string(argument) || string(&arguments[i - 1]))) {
                    out.push(' ');
                }
                out.push_str(&text(argument));
            }
            if name == "println" {
                out.push('\n');
            }
            Value::String(out)
        }
        "printf" => {
            let format = match arguments.first() {
                Some(Some(Value::String(format))) => format.clone(),
                _ => return Err(failed("format must be a string".into())),
            };
            Value::String(printf(&format, &arguments[1..]))
        }
        "html" => Value::String(
            arguments
                .iter()
                .map(text)
                .collect::<String>()
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&#34;")
                .replace('\'', "&#39;"),
        ),
        "js" => Value::String(
            arguments
                .iter()
                .map(text)
                .collect::<String>()
                .replace('\\', "\\\\")
                .replace('\'', "\\'")
                .replace('"', "\\\"")
                .replace('<', "\\u003C")
                .replace('>', "\\u003E")
                .replace('&', "\\u0026")
                .replace('=', "\\u003D")
                .replace('\n', "\\u000A"),
        ),
        "urlquery" => {
            let joined: String = arguments.iter().map(text).collect();
            Value::String(url::form_urlencoded::byte_serialize(joined.as_bytes()).collect())
        }
        "base64decode" => {
            let encoded = arguments.first().map(text).unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(encoded.as_bytes())
                .map_err(|error| failed(format!("base64 decode failed: {error}")))?;
            Value::String(String::from_utf8_lossy(&bytes).into_owned())
        }
        "parseInt" => {
            let given = arguments.first().map(text).unwrap_or_default();
            let number =
                given.parse::<i64>().map_err(|_| failed(format!("strconv.Atoi: parsing {given:?}: invalid syntax")))?;
            Value::from(number)
        }
        other => return Err(Error::new(format!("function {other:?} not defined"))),
    }))
}

fn index(value: Data, key: &Data) -> Result<Data, String> {
    match (value, key) {
        (None | Some(Value::Null), _) => Err("index of untyped nil".into()),
        (Some(Value::Object(mut map)), Some(Value::String(key))) => Ok(map.remove(key)),
        (Some(Value::Object(_)), Some(other)) => Err(format!("value has type {}; should be string", go_type(other))),
        (Some(Value::Array(items)), Some(Value::Number(at))) => match at.as_u64().and_then(|at| items.get(at as usize))
        {
            Some(item) => Ok(Some(item.clone())),
            None => Err(format!("reflect: slice index out of range: {at}")),
        },
        (Some(Value::String(text)), Some(Value::Number(at))) => {
            match at.as_u64().and_then(|at| text.as_bytes().get(at as usize)) {
                Some(byte) => Ok(Some(Value::from(*byte))),
                None => Err(format!("index out of range: {at}")),
            }
        }
        (Some(_), None) => Err("cannot index slice/array with nil".into()),
        (Some(Value::Array(_)), Some(other)) => Err(format!("cannot index slice/array with type {}", go_type(other))),
        (Some(other), _) => Err(format!("can't index item of type {}", go_type(&other))),
    }
}

fn kind(data: &Data) -> Result<u8, String> {
    match data {
        Some(Value::Bool(_)) => Ok(0),
        Some(Value::Number(number)) => Ok(if number.is_f64() { 1 } else { 2 }),
        Some(Value::String(_)) => Ok(3),
        None | Some(Value::Null) => Ok(4),
        _ => Err("non-comparable type".into()),
    }
}

fn equal(a: &Data, b: &Data) -> Result<bool, String> {
    let (left, right) = (kind(a)?, kind(b)?);
    if left == 4 || right == 4 {
        return Ok(left == right);
    }
    if left != right {
        return Err("incompatible types for comparison".into());
    }
    Ok(a == b)
}

fn less(a: &Data, b: &Data) -> Result<bool, String> {
    match (a, b) {
        (Some(Value::String(a)), Some(Value::String(b))) => Ok(a < b),
        (Some(Value::Number(a)), Some(Value::Number(b))) if a.is_f64() == b.is_f64() => Ok(a.as_f64() < b.as_f64()),
        (Some(Value::Number(_) | Value::String(_)), Some(Value::Number(_) | Value::String(_))) => {
            Err("incompatible types for comparison".into())
        }
        _ => Err("invalid type for comparison".into()),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// The verbs of Go's fmt that make sense for trees: `%v %s %d %q %t %f %x %%`, with width and flags.
fn printf(format: &str, arguments: &[Data]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = String::new();
        while let Some(c) = chars.next_if(|c| matches!(c, '-' | '+' | '0'..='9' | '.' | '#' | ' ')) {
            spec.push(c);
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(argument) = arguments.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let value = argument.clone().unwrap_or(Value::Null);
        let precision: Option<usize> = spec.split_once('.').and_then(|(_, digits)| digits.parse().ok());
        let text = match (verb, &value) {
            ('q', Value::String(text)) => format!("{text:?}"),
            ('s' | 'v' | 't', _) => go_value::plain(&value),
            ('d', Value::Number(number)) if !number.is_f64() => number.to_string(),
            ('x', Value::Number(number)) => format!("{:x}", number.as_i64().unwrap_or(0)),
            ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ('f' | 'g', Value::Number(number)) => {
                let float = number.as_f64().unwrap_or(0.0);
                format!("{float:.*}", precision.unwrap_or(6))
            }
            (verb, value) => format!("%!{verb}({}={})", go_type(value), go_value::plain(value)),
        };
        let left = spec.contains('-');
        let zero = spec.trim_start_matches(['-', '+', '#', ' ']).starts_with('0') && !left;
        let width: usize = spec
            .trim_start_matches(['-', '+', '#', ' '])
            .split('.')
            .next()
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0);
        let padding = width.saturating_sub(text.chars().count());
        let fill = if zero { "0" } else { " " }.repeat(padding);
        if left {
            out.push_str(&text);
            out.push_str(&fill);
        } else {
            out.push_str(&fill);
            out.push_str(&text);
        }
    }
    out
}
