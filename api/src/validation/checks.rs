//! Checks that many kinds share: numbers, names, labels, selectors, ports, addresses, amounts.

use std::net::IpAddr;

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::{json as go_json, quote};
use apimachinery::labels::Selector;
use apimachinery::names::{self, Messages};
use apimachinery::quantity::Quantity;
use serde_json::{Map, Value};

use super::diff;
use crate::read::Read;

pub(super) const IMMUTABLE: &str = "field is immutable";
pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";

/// Every message as an invalid value.
pub(super) fn messages(messages: Messages, value: &str, path: &Path, errors: &mut ErrorList) {
    errors.extend(messages.into_iter().map(|m| field::invalid(path, value, m)));
}

pub(super) fn non_negative(value: i64, path: &Path, errors: &mut ErrorList) {
    if value < 0 {
        errors.push(field::invalid(path, value, NEGATIVE));
    }
}

/// The numbers of several fields at once.
pub(super) fn non_negatives(object: &Value, names: &[&'static str], path: &Path, errors: &mut ErrorList) {
    for name in names {
        if object.num(name) < 0 {
            non_negative(object.num(name), &path.child(*name), errors);
        }
    }
}

pub(super) fn positive(value: i64, path: &Path, errors: &mut ErrorList) {
    if value <= 0 {
        errors.push(field::invalid(path, value, "must be greater than zero"));
    }
}

/// Equal, where absent, null and the zero value of a list or map are the same.
pub(super) fn semantically_equal(a: &Value, b: &Value) -> bool {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match (a, b) {
        _ if a == b => true,
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| semantically_equal(v, y.get(k).unwrap_or(&Value::Null)))
                && y.iter().all(|(k, v)| x.contains_key(k) || semantically_equal(v, &Value::Null))
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(a, b)| semantically_equal(a, b))
        }
        _ => empty(a) && empty(b),
    }
}

pub(super) fn immutable(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    if !semantically_equal(new, old) {
        errors.push(field::invalid(path, new, IMMUTABLE));
    }
}

/// As [`immutable`] of a struct of which upstream shows its internal form ([`diff::shown`]).
pub(super) fn immutable_struct(kind: &str, new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    if !semantically_equal(new, old) {
        errors.push(field::invalid(path, diff::shown(kind, new), IMMUTABLE));
    }
}

/// As [`immutable`] of a field that Go has as a string: what is absent is empty.
pub(super) fn immutable_text(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let (new, old) = (new.as_str().unwrap_or_default(), old.as_str().unwrap_or_default());
    if new != old {
        errors.push(field::invalid(path, new, IMMUTABLE));
    }
}

pub(super) fn dns1123_label(value: &str, path: &Path, errors: &mut ErrorList) {
    messages(names::dns1123_label(value), value, path, errors);
}

pub(super) fn dns1123_subdomain(value: &str, path: &Path, errors: &mut ErrorList) {
    messages(names::dns1123_subdomain(value), value, path, errors);
}

pub(super) fn qualified_name(value: &str, path: &Path, errors: &mut ErrorList) {
    messages(names::qualified_name(value), value, path, errors);
}

pub(super) fn labels(labels: &Value, path: &Path, errors: &mut ErrorList) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        qualified_name(key, path, errors);
        let value = value.as_str().unwrap_or_default();
        messages(names::label_value(value), value, path, errors);
    }
}

const ANNOTATIONS_MAX: usize = 256 * 1024;

pub(super) fn annotations(annotations: &Value, path: &Path, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        for message in names::qualified_name(&key.to_lowercase()) {
            errors.push(field::invalid(path, key, message));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(field::too_long(path, ANNOTATIONS_MAX));
    }
}

/// A LabelSelector as Go writes it: labels before expressions.
pub(super) fn selector_text(selector: &Value) -> BadValue {
    if selector.is_object() { diff::shown("LabelSelector", selector) } else { BadValue::Value(selector.clone()) }
}

/// An object's JSON with its fields in the given order; fields not named are left out.
pub(super) fn ordered(object: &Value, fields: &[&str]) -> String {
    let Value::Object(map) = object else { return go_json(object) };
    let fields: Vec<String> =
        fields.iter().filter_map(|f| Some(format!("{}:{}", quote(f), go_json(map.get(*f)?)))).collect();
    format!("{{{}}}", fields.join(","))
}

/// A LabelSelector object; absent is fine.
pub(super) fn label_selector(selector: &Value, path: &Path, errors: &mut ErrorList) {
    if selector.is_null() {
        return;
    }
    labels(&selector["matchLabels"], &path.child("matchLabels"), errors);
    for (i, expression) in selector.list("matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = expression.list("values");
        match expression.text("operator") {
            "In" | "NotIn" => {
                if values.is_empty() {
                    errors.push(field::required(
                        &path.child("values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    ));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    errors.push(field::forbidden(
                        &path.child("values"),
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    ));
                }
            }
            other => errors.push(field::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        qualified_name(expression.text("key"), &path.child("key"), errors);
        for (i, value) in expression.texts("values").enumerate() {
            messages(names::label_value(value), value, &path.child("values").index(i), errors);
        }
    }
}

/// Whether a selector was given and selects something in particular.
pub(super) fn selector_is_empty(selector: &Value) -> bool {
    selector.map("matchLabels").is_none_or(Map::is_empty) && selector.list("matchExpressions").is_empty()
}

/// The selector, if it is one.
pub(super) fn parsed_selector(selector: &Value) -> Option<Selector> {
    Selector::from_label_selector(Some(selector)).ok()
}

/// A port's number or name.
pub(super) fn port_num_or_name(port: &Value, path: &Path, errors: &mut ErrorList) {
    match port {
        Value::String(name) => messages(names::port_name(name), name, path, errors),
        other => port_num(other.as_i64().unwrap_or_default(), path, errors),
    }
}

pub(super) fn port_num(port: i64, path: &Path, errors: &mut ErrorList) {
    errors.extend(names::port_num(port).into_iter().map(|m| field::invalid(path, port, m)));
}

/// Go's lenient reading of an address: leading zeros are fine, and decimal.
pub(crate) fn sloppy_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        // An embedded IPv4 part may have leading zeros too.
        return match text.rsplit_once(':') {
            Some((head, tail)) if tail.contains('.') => format!("{head}:{}", sloppy_v4(tail)?).parse().ok(),
            _ => text.parse().ok(),
        };
    }
    sloppy_v4(text)?.parse().ok()
}

fn sloppy_v4(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('.').collect();
    let plain = |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    (parts.len() == 4 && parts.iter().all(plain)).then(|| {
        let strip = |p: &&str| {
            let digits = p.trim_start_matches('0');
            if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
        };
        parts.iter().map(strip).collect::<Vec<_>>().join(".")
    })
}

/// An address in a field as old as Kubernetes: strict since 1.36, but what was there may stay.
pub(super) fn legacy_ip(value: &str, known: &[&str], path: &Path, errors: &mut ErrorList) {
    if known.contains(&value) {
        return;
    }
    let Some(ip) = sloppy_ip(value) else {
        errors.push(field::invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
        return;
    };
    match value.parse::<IpAddr>() {
        Err(_) => errors.push(field::invalid(path, value, "must not have leading 0s")),
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            errors.push(field::invalid(path, value, "must not be an IPv4-mapped IPv6 address"));
        }
        Ok(_) => {}
    }
    let _ = ip;
}

/// An address in a newer field: also canonical.
pub(super) fn strict_ip(value: &str, path: &Path, errors: &mut ErrorList) {
    let before = errors.len();
    legacy_ip(value, &[], path, errors);
    if let (true, Some(ip)) = (errors.len() == before, sloppy_ip(value)) {
        let canonical = ip.to_string();
        if canonical != value {
            errors.push(field::invalid(path, value, format!("must be in canonical form ({})", quote(&canonical))));
        }
    }
}

/// A range as Go's older parsers read it, with leading zeros.
pub(super) fn sloppy_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let ip = sloppy_ip(ip)?;
    let bits: u8 = bits.parse().ok().filter(|_| bits.bytes().all(|b| b.is_ascii_digit()))?;
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

/// A network in a field as old as Kubernetes.
pub(super) fn legacy_cidr(value: &str, known: &[&str], path: &Path, errors: &mut ErrorList) {
    if known.contains(&value) {
        return;
    }
    let Some((ip, bits)) = sloppy_cidr(value) else {
        errors.push(field::invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"));
        return;
    };
    let strict = value
        .split_once('/')
        .is_some_and(|(ip, prefix)| ip.parse::<IpAddr>().is_ok() && (prefix == "0" || !prefix.starts_with('0')));
    if !strict {
        errors.push(field::invalid(path, value, "must not have leading 0s in IP or prefix length"));
        return;
    }
    if let IpAddr::V6(v6) = ip
        && v6.to_ipv4_mapped().is_some()
    {
        errors.push(field::invalid(path, value, "must not have an IPv4-mapped IPv6 address"));
        return;
    }
    if let Ok(net) = ipnet::IpNet::new(ip, bits)
        && net.network() != ip
    {
        errors.push(field::invalid(path, value, "must not have bits set beyond the prefix length"));
    }
}

/// A network in a newer field: also canonical.
pub(super) fn strict_cidr(value: &str, path: &Path, errors: &mut ErrorList) {
    let before = errors.len();
    legacy_cidr(value, &[], path, errors);
    if errors.len() == before
        && let Ok(net) = value.parse::<ipnet::IpNet>()
        && net.trunc().to_string() != value
    {
        let canonical = quote(&net.trunc().to_string());
        errors.push(field::invalid(path, value, format!("must be in canonical form ({canonical})")));
    }
}

/// An address with the length of its network's prefix.
pub(super) fn interface_address(value: &str, path: &Path, errors: &mut ErrorList) {
    let Some((ip, bits)) = sloppy_cidr(value) else {
        let message = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        errors.push(field::invalid(path, value, message));
        return;
    };
    let (ip, bits) = match ip.to_canonical() {
        IpAddr::V4(v4) if bits > 32 => (IpAddr::V4(v4), bits - 96),
        canonical => (canonical, bits),
    };
    let canonical = format!("{ip}/{bits}");
    if canonical != value {
        errors.push(field::invalid(path, value, format!("must be in canonical form ({})", quote(&canonical))));
    }
}

/// A quantity of a tree that was checked and made canonical before.
pub(super) fn quantity(value: &Value) -> Quantity {
    value.as_str().and_then(|s| Quantity::parse(s).ok()).unwrap_or_default()
}

pub(super) fn non_negative_quantity(value: &Value, path: &Path, errors: &mut ErrorList) {
    if quantity(value).sign() < 0 {
        errors.push(field::invalid(path, quantity(value).to_string(), NEGATIVE));
    }
}

/// `ValidatePositiveQuantityValue`.
pub(super) fn positive_quantity(value: &Value, path: &Path, errors: &mut ErrorList) {
    if quantity(value).sign() <= 0 {
        errors.push(field::invalid(path, quantity(value).to_string(), "must be greater than zero"));
    }
}

/// `must be …` for a field that takes one of a few texts: required if empty.
pub(super) fn one_of(value: &str, supported: &[&str], path: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.push(field::required(path, ""));
    } else if !supported.contains(&value) {
        errors.push(field::not_supported(path, value, supported));
    }
}

pub(super) fn name_is_subdomain(name: &str, prefix: bool) -> Messages {
    if prefix { names::dns1123_subdomain(&names::mask_trailing_dash(name)) } else { names::dns1123_subdomain(name) }
}

/// As [`name_is_subdomain`], in the words of the kinds whose names are checked by declaration.
pub(super) fn name_is_long_name(name: &str, prefix: bool) -> Messages {
    let mut wrong = name_is_subdomain(name, prefix);
    for message in wrong.iter_mut().filter(|message| !prefix && **message == names::max_len_error(253)) {
        *message = names::max_bytes_error(253);
    }
    wrong
}

pub(super) fn name_is_label(name: &str, prefix: bool) -> Messages {
    if prefix { names::dns1123_label(&names::mask_trailing_dash(name)) } else { names::dns1123_label(name) }
}

pub(super) fn name_is_path_segment(name: &str, prefix: bool) -> Messages {
    if prefix { names::path_segment_prefix(name) } else { names::path_segment(name) }
}

/// A name that can be part of a URL's path, required.
pub(super) fn path_segment(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(field::required(path, ""));
    } else {
        messages(names::path_segment(name), name, path, errors);
    }
}

/// `acme.io/foo`, required.
pub fn domain_prefixed_path(text: &str, path: &Path, errors: &mut ErrorList) {
    const PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    if text.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    let Some((host, rest)) = text.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty()) else {
        errors.push(field::invalid(path, text, "must be a domain-prefixed path (such as \"acme.io/foo\")"));
        return;
    };
    dns1123_subdomain(host, path, errors);
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        errors.push(field::invalid(path, rest, names::regex_error("Invalid path", PATH, &[])));
    }
}
