//! Values as text, the way cel-go prints them in errors (`%v`).

use std::fmt;

use super::{List, Map, Value, time};

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(b) => b.fmt(f),
            Value::Int(n) => n.fmt(f),
            Value::Uint(n) => n.fmt(f),
            Value::Double(n) => f.write_str(&double(*n)),
            Value::String(text) => f.write_str(text),
            Value::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Value::Timestamp(time) => time.fmt(f),
            Value::Duration(nanos) => f.write_str(&time::seconds(*nanos)),
            Value::List(list) => show_list(list, f),
            Value::Map(map) => show_map(map, f),
            Value::Object(object) => write!(f, "{}{{}}", object.decl.name),
            Value::Type(of) => f.write_str(of.runtime_name()),
            Value::Optional(Some(value)) => write!(f, "optional({value})"),
            Value::Optional(None) => f.write_str("optional.none()"),
            Value::Quantity(quantity) => quantity.fmt(f),
            Value::Url(url) => url.fmt(f),
            Value::Ip(ip) => ip.fmt(f),
            Value::Cidr(cidr) => cidr.fmt(f),
            Value::Format(format) => f.write_str(format.name),
            Value::Semver(version) => version.fmt(f),
            other => f.write_str(other.type_name()),
        }
    }
}

/// A number as Go's `%v` and `strconv.FormatFloat(n, 'g', -1, 64)` print it: `1e+06` has an exponent, `100000` none.
pub(crate) fn double(n: f64) -> String {
    if n.is_nan() {
        return "NaN".into();
    }
    if n.is_infinite() {
        return if n > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let magnitude = n.abs();
    if n != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let text = format!("{n:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{n}")
}

fn show_list(list: &List<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("[")?;
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        if let Ok(item) = item {
            write!(f, "{item}")?;
        }
    }
    f.write_str("]")
}

fn show_map(map: &Map<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("{")?;
    for (at, key) in map.keys().iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{key}: ")?;
        if let Ok(Some(value)) = map.get(key) {
            write!(f, "{value}")?;
        }
    }
    f.write_str("}")
}
