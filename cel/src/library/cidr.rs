//! Kubernetes' networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Functions, ip, text};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::Value;

/// An address with the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address, not masked.
    pub addr: IpAddr,
    /// The length of the prefix in bits.
    pub bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.bits)
    }
}

impl Cidr {
    fn masked(&self) -> Cidr {
        let addr = match self.addr {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        Cidr { addr, ..*self }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.addr.is_ipv4() == ip.is_ipv4() && self.masked() == Cidr { addr: ip, ..*self }.masked()
    }
}

/// Declares them.
pub fn declare(f: &mut Functions) {
    let cidr = Type::Opaque("net.CIDR", Arc::from([]));
    let one = std::slice::from_ref(&cidr);
    f.global("cidr", "string_to_cidr", &[Type::String], cidr.clone(), Cost::Parse, |args| {
        from_text(text(&args[0])?).map(Value::Cidr)
    });
    f.member(
        "containsIP",
        "cidr_contains_ip_string",
        &[cidr.clone(), Type::String],
        Type::Bool,
        Cost::ContainsIp { text: true },
        |args| {
            let ip = ip::parse(text(&args[1])?).map_err(|_| Error::no_such_overload())?;
            Ok(Value::Bool(of(&args[0])?.contains(ip)))
        },
    );
    f.member(
        "containsIP",
        "cidr_contains_ip_ip",
        &[cidr.clone(), ip::ip_type()],
        Type::Bool,
        Cost::ContainsIp { text: false },
        |args| match &args[1] {
            Value::Ip(ip) => Ok(Value::Bool(of(&args[0])?.contains(*ip))),
            _ => Err(Error::no_such_overload()),
        },
    );
    f.member(
        "containsCIDR",
        "cidr_contains_cidr_string",
        &[cidr.clone(), Type::String],
        Type::Bool,
        Cost::ContainsCidr { text: true },
        |args| {
            let inner = from_text(text(&args[1])?)?;
            Ok(Value::Bool(covers(&of(&args[0])?, &inner)))
        },
    );
    f.member(
        "containsCIDR",
        "cidr_contains_cidr",
        &[cidr.clone(), cidr.clone()],
        Type::Bool,
        Cost::ContainsCidr { text: false },
        |args| Ok(Value::Bool(covers(&of(&args[0])?, &of(&args[1])?))),
    );
    f.member("ip", "cidr_ip", one, ip::ip_type(), Cost::Nominal, |args| Ok(Value::Ip(of(&args[0])?.addr)));
    f.member("prefixLength", "cidr_prefix_length", one, Type::Int, Cost::Nominal, |args| {
        Ok(Value::Int(i64::from(of(&args[0])?.bits)))
    });
    f.member("masked", "cidr_masked", one, cidr.clone(), Cost::Nominal, |args| Ok(Value::Cidr(of(&args[0])?.masked())));
    f.global("isCIDR", "is_cidr", &[Type::String], Type::Bool, Cost::Parse, |args| {
        Ok(Value::Bool(parse(text(&args[0])?).is_ok()))
    });
    f.global("string", "cidr_to_string", one, Type::String, Cost::Default, super::standard::to_text);
}

fn of(value: &Value<'_>) -> Result<Cidr, Error> {
    match value {
        Value::Cidr(cidr) => Ok(*cidr),
        _ => Err(Error::no_such_overload()),
    }
}

fn covers(outer: &Cidr, inner: &Cidr) -> bool {
    outer.bits <= inner.bits && outer.contains(inner.addr)
}

fn from_text(raw: &str) -> Result<Cidr, Error> {
    parse(raw).map_err(|e| Error::new(format!("network address parse error during conversion from string: {e}")))
}

fn parse(raw: &str) -> Result<Cidr, String> {
    let quoted = apimachinery::gotext::quote(raw);
    let wrong = |what: String| {
        format!("network address parse error during conversion from string: netip.ParsePrefix({quoted}): {what}")
    };
    let Some((address, length)) = raw.rsplit_once('/') else { return Err(wrong("no '/'".into())) };
    if let Some((address, zone)) = address.split_once('%')
        && !zone.is_empty()
        && address.parse::<std::net::Ipv6Addr>().is_ok()
    {
        return Err(wrong("IPv6 zones cannot be present in a prefix".into()));
    }
    let addr: IpAddr = address.parse().map_err(|_| wrong(ip::go_parse_error(address)))?;
    let number = length.bytes().all(|b| b.is_ascii_digit()) && !length.is_empty();
    if !number || (length.len() > 1 && length.starts_with('0')) {
        return Err(wrong(format!("bad bits after slash: {}", apimachinery::gotext::quote(length))));
    }
    let most = if addr.is_ipv4() { 32 } else { 128 };
    let bits = length.parse::<u8>().ok().filter(|bits| *bits <= most);
    let Some(bits) = bits else { return Err(wrong("prefix length out of range".into())) };
    if let IpAddr::V6(v6) = addr
        && v6.to_ipv4_mapped().is_some()
    {
        return Err(format!("IPv4-mapped IPv6 address {quoted} is not allowed"));
    }
    Ok(Cidr { addr, bits })
}
