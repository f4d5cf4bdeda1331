//! What a plain scalar means: the YAML 1.1 resolution of `go.yaml.in/yaml/v2`.

use serde_json::Value;

/// A scalar's meaning.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Resolved {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Looks like a date: a string, but quoted on the way out.
    Timestamp,
    Merge,
    Str,
}

pub(super) fn resolve(text: &str) -> Resolved {
    let Some(first) = text.bytes().next() else {
        return Resolved::Null;
    };
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Resolved::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Resolved::Bool(false);
        }
        "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        ".nan" | ".NaN" | ".NAN" => return Resolved::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Resolved::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Resolved::Float(f64::NEG_INFINITY),
        "<<" => return Resolved::Merge,
        _ => {}
    }
    match first {
        b'.' => go_float(text).map_or(Resolved::Str, Resolved::Float),
        b'+' | b'-' | b'0'..=b'9' => number(text),
        _ => Resolved::Str,
    }
}

/// As [`resolve`], by yaml/v3: only `true` and `false` are booleans.
pub(super) fn resolve_core(text: &str) -> Resolved {
    match resolve(text) {
        Resolved::Bool(_) if !matches!(text.to_ascii_lowercase().as_str(), "true" | "false") => Resolved::Str,
        other => other,
    }
}

/// A date or time as Go writes the moment in JSON.
pub(super) fn timestamp_text(text: &str) -> String {
    let two = |part: &str| format!("{part:0>2}");
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    };
    let date: Vec<String> = date.split('-').map(two).collect();
    if time.is_empty() {
        return format!("{}T00:00:00Z", date.join("-"));
    }
    let zone_at = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let zone = if zone.is_empty() || matches!(zone, "+00:00" | "-00:00") { "Z" } else { zone };
    let (clock, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, ""));
    let clock: Vec<String> = clock.split(':').map(two).collect();
    let fraction = match fraction.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    format!("{}T{}{fraction}{zone}", date.join("-"), clock.join(":"))
}

fn number(text: &str) -> Resolved {
    if is_timestamp(text) {
        return Resolved::Timestamp;
    }
    let plain = text.replace('_', "");
    if let Some(resolved) = integer(&plain) {
        return resolved;
    }
    if is_float(&plain)
        && let Some(float) = go_float(&plain)
    {
        return Resolved::Float(float);
    }
    Resolved::Str
}

/// `strconv.ParseInt(text, 0, 64)`, then `ParseUint`.
fn integer(text: &str) -> Option<Resolved> {
    let (negative, signed, digits) = match text.as_bytes().first()? {
        b'-' => (true, true, &text[1..]),
        b'+' => (false, true, &text[1..]),
        _ => (false, false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = if let Some(hex) = lower.strip_prefix("0x") {
        (16, hex)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        (8, octal)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        (2, binary)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if body.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = u64::from_str_radix(body, radix).ok()?;
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    match i64::try_from(value) {
        Ok(int) => Some(Resolved::Int(int)),
        // An unsigned 64-bit number becomes a float once it has passed through JSON.
        Err(_) if !signed => Some(Resolved::Float(magnitude as f64)),
        Err(_) => None,
    }
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
fn is_float(text: &str) -> bool {
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(rest);
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let n = digits(fraction);
        if whole == 0 && n == 0 {
            return false;
        }
        rest = &fraction[n..];
    } else if whole == 0 {
        return false;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

fn go_float(text: &str) -> Option<f64> {
    if !text.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)) {
        return None;
    }
    // Out of range is an error to Go, and infinity to Rust.
    text.parse::<f64>().ok().filter(|f| f.is_finite())
}

/// The formats in which yaml.v2 sees a date.
fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return false;
    }
    let Some((month, rest)) = small_number(&text[5..]) else {
        return false;
    };
    let Some((day, rest)) = rest.strip_prefix('-').and_then(small_number) else {
        return false;
    };
    let year: i16 = text[..4].parse().unwrap_or(0);
    let (Ok(month), Ok(day)) = (i8::try_from(month), i8::try_from(day)) else {
        return false;
    };
    if jiff::civil::Date::new(year, month, day).is_err() {
        return false;
    }
    if rest.is_empty() {
        return true;
    }
    let zoned = rest.starts_with(['T', 't']);
    if !zoned && !rest.starts_with(' ') {
        return false;
    }
    let Some((hour, rest)) = small_number(&rest[1..]) else {
        return false;
    };
    let Some((minute, rest)) = rest.strip_prefix(':').and_then(small_number) else {
        return false;
    };
    let Some((second, rest)) = rest.strip_prefix(':').and_then(small_number) else {
        return false;
    };
    if hour > 23 || minute > 59 || second > 59 {
        return false;
    }
    let rest = match rest.strip_prefix(['.', ',']) {
        Some(fraction) => {
            let n = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if n == 0 {
                return false;
            }
            &fraction[n..]
        }
        None => rest,
    };
    if !zoned {
        return rest.is_empty();
    }
    rest == "Z"
        || (rest.len() == 6
            && rest.starts_with(['+', '-'])
            && rest.as_bytes()[3] == b':'
            && rest.bytes().enumerate().all(|(i, b)| matches!(i, 0 | 3) || b.is_ascii_digit()))
}

fn small_number(text: &str) -> Option<(u8, &str)> {
    let n = text.bytes().take(2).take_while(u8::is_ascii_digit).count();
    let value = text[..n].parse().ok()?;
    Some((value, &text[n..]))
}

/// Base 60 numbers are strings here, but quoted for the sake of other YAML 1.1 readers:
/// `^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$`.
pub(super) fn is_base60(text: &str) -> bool {
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut groups = rest.split(':');
    let head = groups.next().unwrap_or_default();
    if !head.starts_with(|c: char| c.is_ascii_digit()) || !head.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
        return false;
    }
    let groups: Vec<&str> = groups.collect();
    let Some((last, inner)) = groups.split_last() else {
        return false;
    };
    let sexagesimal = |g: &str| match g.as_bytes() {
        [d] => d.is_ascii_digit(),
        [t, d] => (b'0'..=b'5').contains(t) && d.is_ascii_digit(),
        _ => false,
    };
    let (last, fraction) = last.split_once('.').unwrap_or((last, ""));
    inner.iter().all(|g| sexagesimal(g))
        && sexagesimal(last)
        && fraction.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

/// `strconv.FormatFloat(f, 'g', -1, bits)`; `digits` is Rust's shortest exponent form of the float.
fn format_g(shortest: &str) -> String {
    let (negative, shortest) = match shortest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, shortest),
    };
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let exponent: i32 = exponent.parse().expect("Rust prints a decimal exponent");
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let mut out = String::from(if negative { "-" } else { "" });
    // Go's shortest form turns to exponents at 10^21.
    if !(-4..21).contains(&exponent) {
        out.push_str(&digits[..1]);
        if digits.len() > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        out.push_str(&format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()));
    } else if exponent < 0 {
        out.push_str("0.");
        out.push_str(&"0".repeat((-exponent - 1) as usize));
        out.push_str(&digits);
    } else {
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            out.push_str(&digits);
            out.push_str(&"0".repeat(whole - digits.len()));
        } else {
            out.push_str(&digits[..whole]);
            out.push('.');
            out.push_str(&digits[whole..]);
        }
    }
    out
}

/// A float as yaml.v2 writes it.
pub(super) fn float_text(float: f64) -> String {
    format_g(&format!("{float:e}"))
}

/// A float used as a key: upstream formats those with 32 bits.
pub(super) fn float_key(float: f64) -> String {
    if float.is_nan() {
        ".nan".into()
    } else if float.is_infinite() {
        if float > 0.0 { ".inf".into() } else { "-.inf".into() }
    } else {
        format_g(&format!("{:e}", float as f32))
    }
}

/// The tree of a float as it is once it has passed through JSON; `None` for what JSON cannot hold.
pub(super) fn float_value(float: f64) -> Option<Value> {
    float.is_finite().then(|| crate::json::number(&crate::gotext::float(float))).flatten()
}
