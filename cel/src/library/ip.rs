//! Kubernetes' IP addresses.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::{Functions, text};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::Value;

/// The type of addresses.
pub(super) fn ip_type() -> Type {
    Type::Opaque("net.IP", Arc::from([]))
}

/// Declares them.
pub fn declare(f: &mut Functions) {
    let ip = ip_type();
    let one = std::slice::from_ref(&ip);
    f.global("ip", "string_to_ip", &[Type::String], ip.clone(), Cost::Parse, |args| {
        parse(text(&args[0])?).map(Value::Ip)
    });
    f.member("family", "ip_family", one, Type::Int, Cost::Nominal, |args| {
        Ok(Value::Int(if of(&args[0])?.is_ipv4() { 4 } else { 6 }))
    });
    f.global("ip.isCanonical", "ip_is_canonical", &[Type::String], Type::Bool, Cost::Canonical, |args| {
        let text = text(&args[0])?;
        Ok(Value::Bool(parse(text)?.to_string() == text))
    });
    f.member("isUnspecified", "ip_is_unspecified", one, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(of(&args[0])?.is_unspecified()))
    });
    f.member("isLoopback", "ip_is_loopback", one, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(of(&args[0])?.is_loopback()))
    });
    f.member("isLinkLocalMulticast", "ip_is_link_local_multicast", one, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(link_local_multicast(of(&args[0])?)))
    });
    f.member("isLinkLocalUnicast", "ip_is_link_local_unicast", one, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(link_local_unicast(of(&args[0])?)))
    });
    f.member("isGlobalUnicast", "ip_is_global_unicast", one, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(global_unicast(of(&args[0])?)))
    });
    f.global("isIP", "is_ip", &[Type::String], Type::Bool, Cost::Parse, |args| {
        Ok(Value::Bool(parse(text(&args[0])?).is_ok()))
    });
    f.global("string", "ip_to_string", one, Type::String, Cost::Default, super::standard::to_text);
}

fn of(value: &Value<'_>) -> Result<IpAddr, Error> {
    match value {
        Value::Ip(ip) => Ok(*ip),
        _ => Err(Error::no_such_overload()),
    }
}

/// Reads an address.
///
/// # Errors
/// When it is none, has a zone, or is an IPv4 address written as IPv6.
pub fn parse(raw: &str) -> Result<IpAddr, Error> {
    if let Some((address, zone)) = raw.split_once('%')
        && !zone.is_empty()
        && address.parse::<Ipv6Addr>().is_ok()
    {
        return Err(Error::new(format!("IP address {raw:?} with zone value is not allowed")));
    }
    match raw.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            Err(Error::new(format!("IPv4-mapped IPv6 address {raw:?} is not allowed")))
        }
        Ok(ip) => Ok(ip),
        Err(_) => Err(Error::new(format!(
            "IP Address {raw:?} parse error during conversion from string: {}",
            go_parse_error(raw)
        ))),
    }
}

/// What Go's `netip.ParseAddr` says of text that is no address.
pub(super) fn go_parse_error(raw: &str) -> String {
    let quoted = apimachinery::gotext::quote(raw);
    let at = |rest: &str, what: &str| format!("ParseAddr({quoted}): {what} (at {})", apimachinery::gotext::quote(rest));
    let plain = |what: &str| format!("ParseAddr({quoted}): {what}");
    for c in raw.chars() {
        match c {
            '.' => {
                let mut fields = 0;
                for field in raw.split('.') {
                    fields += 1;
                    if field.is_empty() {
                        return plain("IPv4 field must have at least one digit");
                    }
                    if let Some(bad) = field.find(|c: char| !c.is_ascii_digit()) {
                        let start = raw.len() - raw.rsplit(field).next().map_or(0, str::len) - field.len();
                        return at(&raw[start + bad..], "unexpected character");
                    }
                    if field.len() > 1 && field.starts_with('0') {
                        return plain("IPv4 field has octet with leading zero");
                    }
                    if field.parse::<u16>().is_ok_and(|n| n > 255) || field.len() > 3 {
                        return plain("IPv4 field has value >255");
                    }
                }
                return plain(if fields < 4 { "IPv4 address too short" } else { "IPv4 address too long" });
            }
            ':' => return go_ipv6_error(raw, &quoted),
            '%' => return plain("missing IPv6 address"),
            _ => {}
        }
    }
    plain("unable to parse IP")
}

fn go_ipv6_error(raw: &str, quoted: &str) -> String {
    let plain = |what: &str| format!("ParseAddr({quoted}): {what}");
    let at = |rest: &str, what: &str| format!("ParseAddr({quoted}): {what} (at {})", apimachinery::gotext::quote(rest));
    let mut rest = raw;
    let mut groups = 0;
    let mut ellipsis = false;
    if let Some(after) = rest.strip_prefix("::") {
        ellipsis = true;
        rest = after;
    }
    while groups < 8 {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits > 4 {
            return at(rest, "each group must have 4 or less digits");
        }
        if digits == 0 {
            return at(rest, "each colon-separated field must have at least one digit");
        }
        groups += 1;
        rest = &rest[digits..];
        if rest.is_empty() {
            break;
        }
        let Some(after) = rest.strip_prefix(':') else { return at(rest, "unexpected character, want colon") };
        if after.is_empty() {
            return at(rest, "colon must be followed by more characters");
        }
        rest = after;
        if let Some(after) = rest.strip_prefix(':') {
            if ellipsis {
                return at(rest, "multiple :: in address");
            }
            ellipsis = true;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
    if !rest.is_empty() {
        return at(rest, "trailing garbage after address");
    }
    plain(if groups < 8 { "address string too short" } else { "the :: must expand to at least one field of zeros" })
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// Go's meaning: private addresses are global unicast too.
fn global_unicast(ip: IpAddr) -> bool {
    if let IpAddr::V4(v4) = ip
        && (v4.is_unspecified() || v4.is_broadcast())
    {
        return false;
    }
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local_unicast(ip)
}
