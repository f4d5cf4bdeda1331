//! `'%s is %d'.format([a, b])`: the verbs s, d, f, e, b, o, x and X.

use crate::error::Error;
use crate::value::{List, Map, Value};

/// More digits than this after the point are never printed.
const MAX_PRECISION: usize = 1_000;

/// A piece of a format.
enum Piece {
    Text(char),
    Verb(char, Option<usize>),
}

/// Takes a format apart.
fn pieces(format: &str) -> impl Iterator<Item = Result<Piece, String>> + '_ {
    let mut chars = format.chars().peekable();
    std::iter::from_fn(move || {
        let c = chars.next()?;
        if c != '%' {
            return Some(Ok(Piece::Text(c)));
        }
        let Some(mut verb) = chars.next() else { return Some(Err("unexpected end of string".into())) };
        if verb == '%' {
            return Some(Ok(Piece::Text('%')));
        }
        let mut precision = None;
        if verb == '.' {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let Ok(number) = digits.parse::<usize>() else {
                return Some(Err(format!(
                    "could not parse formatting clause: error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing {digits:?}: invalid syntax"
                )));
            };
            precision = Some(number.min(MAX_PRECISION));
            let Some(next) = chars.next() else {
                return Some(Err("could not parse formatting clause: error while parsing precision: could not find end of precision specifier".into()));
            };
            verb = next;
        }
        if !matches!(verb, 's' | 'd' | 'f' | 'e' | 'b' | 'x' | 'X' | 'o') {
            return Some(Err(format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\"")));
        }
        Some(Ok(Piece::Verb(verb, precision)))
    })
}

/// The verbs of a format, in their order.
pub(crate) fn verbs(format: &str) -> impl Iterator<Item = Result<char, String>> + '_ {
    pieces(format).filter_map(|piece| match piece {
        Ok(Piece::Text(_)) => None,
        Ok(Piece::Verb(verb, _)) => Some(Ok(verb)),
        Err(message) => Some(Err(message)),
    })
}

/// What a verb may be used on.
pub(crate) fn rule(verb: char) -> &'static str {
    match verb {
        's' => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
        }
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'o' => "octal clause can only be used on integers",
        _ => "only integers, byte buffers, and strings can be formatted as hex",
    }
}

/// Fills a format.
///
/// # Errors
/// When a verb does not exist, does not suit its argument, or has none.
pub fn format(format: &str, args: &[Value<'_>]) -> Result<String, Error> {
    let mut out = String::new();
    let mut next = 0;
    for piece in pieces(format) {
        match piece.map_err(Error::new)? {
            Piece::Text(c) => out.push(c),
            Piece::Verb(verb, precision) => {
                let Some(arg) = args.get(next) else { return Err(Error::new(format!("index {next} out of range"))) };
                next += 1;
                out.push_str(&one(verb, precision, arg)?);
            }
        }
    }
    Ok(out)
}

fn one(verb: char, precision: Option<usize>, arg: &Value<'_>) -> Result<String, Error> {
    match verb {
        's' => shown(arg),
        'd' => decimal(arg),
        'f' => real(arg, verb).map(|n| fixed(n, precision.unwrap_or(6))),
        'e' => real(arg, verb).map(|n| scientific(n, precision.is_some())),
        'b' => match arg {
            Value::Int(n) if *n < 0 => Ok(format!("-{:b}", n.unsigned_abs())),
            Value::Int(n) => Ok(format!("{n:b}")),
            Value::Uint(n) => Ok(format!("{n:b}")),
            Value::Bool(b) => Ok(if *b { "1".into() } else { "0".into() }),
            _ => Err(wrong(verb, arg)),
        },
        'o' => match arg {
            Value::Int(n) if *n < 0 => Ok(format!("-{:o}", n.unsigned_abs())),
            Value::Int(n) => Ok(format!("{n:o}")),
            Value::Uint(n) => Ok(format!("{n:o}")),
            _ => Err(wrong(verb, arg)),
        },
        'X' => hex(arg).map(|text| text.to_ascii_uppercase()),
        _ => hex(arg),
    }
}

fn wrong(verb: char, arg: &Value<'_>) -> Error {
    Error::new(format!("error during formatting: {}, was given {}", rule(verb), arg.type_name()))
}

fn special(n: f64) -> Option<&'static str> {
    match n {
        n if n.is_nan() => Some("NaN"),
        n if n == f64::INFINITY => Some("Infinity"),
        n if n == f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

fn real(arg: &Value<'_>, verb: char) -> Result<f64, Error> {
    Ok(match arg {
        Value::Double(n) => *n,
        Value::Int(n) => *n as f64,
        Value::Uint(n) => *n as f64,
        Value::String(text) => match &**text {
            "NaN" => f64::NAN,
            "Infinity" => f64::INFINITY,
            "-Infinity" => f64::NEG_INFINITY,
            _ => return Err(wrong(verb, arg)),
        },
        _ => return Err(wrong(verb, arg)),
    })
}

/// What is no number, as upstream's printer for people who read English shows it.
fn symbol(n: f64) -> Option<&'static str> {
    match n {
        n if n.is_nan() => Some("NaN"),
        n if n == f64::INFINITY => Some("∞"),
        n if n == f64::NEG_INFINITY => Some("-∞"),
        _ => None,
    }
}

/// `1,234.500000`: the digits before the point in groups of three.
fn fixed(n: f64, precision: usize) -> String {
    if let Some(symbol) = symbol(n) {
        return symbol.to_owned();
    }
    let text = format!("{n:.precision$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), String::new()), |(w, r)| (w, format!(".{r}")));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::with_capacity(text.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

/// `1.234500×10⁰³`. Upstream has six digits whatever the precision, and takes that for a width where there is no number.
fn scientific(n: f64, precise: bool) -> String {
    if let Some(symbol) = symbol(n) {
        return if precise { symbol.to_owned() } else { format!("{symbol:>6}") };
    }
    let text = format!("{n:.6e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("⁻", digits));
    let raised = |c: char| c.to_digit(10).and_then(|at| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(at as usize)).unwrap_or(c);
    let digits: String = format!("{digits:0>2}").chars().map(raised).collect();
    format!("{mantissa}×10{sign}{digits}")
}

fn decimal(arg: &Value<'_>) -> Result<String, Error> {
    match arg {
        Value::Int(n) => Ok(n.to_string()),
        Value::Uint(n) => Ok(n.to_string()),
        Value::Double(n) if n.is_nan() || n.is_infinite() => Ok(special(*n).unwrap_or_default().to_owned()),
        Value::String(text) if matches!(&**text, "NaN" | "Infinity" | "-Infinity") => Ok(text.to_string()),
        _ => Err(wrong('d', arg)),
    }
}

fn hex(arg: &Value<'_>) -> Result<String, Error> {
    let bytes = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match arg {
        Value::Int(n) if *n < 0 => Ok(format!("-{:x}", n.unsigned_abs())),
        Value::Int(n) => Ok(format!("{n:x}")),
        Value::Uint(n) => Ok(format!("{n:x}")),
        Value::String(text) => Ok(bytes(text.as_bytes())),
        Value::Bytes(b) => Ok(bytes(b)),
        _ => Err(wrong('x', arg)),
    }
}

/// `%s`: any value of CEL's own types.
fn shown(arg: &Value<'_>) -> Result<String, Error> {
    Ok(match arg {
        Value::String(_)
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Timestamp(_)
        | Value::Duration(_)
        | Value::Null
        | Value::Type(_)
        | Value::Bytes(_) => arg.to_string(),
        Value::Double(_) => arg.to_string(),
        Value::List(list) => shown_list(list)?,
        Value::Map(map) => shown_map(map)?,
        _ => return Err(wrong('s', arg)),
    })
}

/// Within lists and maps, texts are quoted and times spelled as they would be in an expression.
fn nested(arg: &Value<'_>) -> Result<String, Error> {
    Ok(match arg {
        Value::String(text) => format!("\"{}\"", &**text),
        Value::Timestamp(_) => format!("timestamp(\"{arg}\")"),
        Value::Duration(_) => format!("duration(\"{arg}\")"),
        Value::Double(n) if special(*n).is_none() => format!("{n:.6}"),
        Value::Double(n) => format!("\"{}\"", special(*n).unwrap_or_default()),
        _ => shown(arg)?,
    })
}

fn shown_list(list: &List<'_>) -> Result<String, Error> {
    let items = list.iter().map(|item| nested(&item?)).collect::<Result<Vec<_>, _>>()?;
    Ok(format!("[{}]", items.join(", ")))
}

fn shown_map(map: &Map<'_>) -> Result<String, Error> {
    let mut entries = Vec::with_capacity(map.len());
    for key in map.keys() {
        if let Some(value) = map.get(&key)? {
            entries.push(format!("{}:{}", nested(&key)?, nested(&value)?));
        }
    }
    entries.sort();
    Ok(format!("{{{}}}", entries.join(", ")))
}
