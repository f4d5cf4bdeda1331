//! Addresses and networks that are written in an odd way.

use std::net::IpAddr;

use apimachinery::field::Path;
use apimachinery::gotext::quote;
use ipnet::IpNet;

use crate::validation::sloppy_ip;

/// An address that is not in the form it should be.
pub(super) fn ip(value: &str, path: impl FnOnce() -> Path, out: &mut Vec<String>) {
    // The usual case: what is written is what would be.
    let strict = value.parse::<IpAddr>().ok();
    let Some(loose) = strict.or_else(|| sloppy_ip(value)) else { return };
    let mapped = matches!(strict, Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some());
    if strict.is_none() || mapped {
        let better = quote(&loose.to_canonical().to_string());
        out.push(format!("{}: non-standard IP address {} is invalid: use {better}", path(), quote(value)));
    } else if loose.is_ipv6() && loose.to_string() != value {
        let better = quote(&loose.to_string());
        out.push(format!(
            "{}: IPv6 address {} should be in RFC 5952 canonical format ({better})",
            path(),
            quote(value)
        ));
    }
}

/// A network that is not in the form it should be, or that is an address as well.
pub(super) fn cidr(value: &str, path: impl FnOnce() -> Path, out: &mut Vec<String>) {
    let Some((text, bits)) = value.split_once('/') else { return };
    let (Some(address), Ok(length)) = (sloppy_ip(text), bits.parse::<u8>()) else { return };
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let Ok(net) = IpNet::new(address, length) else { return };
    let strict = text.parse::<IpAddr>().is_ok() && (bits == "0" || !bits.starts_with('0'));
    let shown = net.trunc().to_string();
    let (path, before) = (path(), out.len());
    if net.network() != address {
        let single = format!("{address}/{}", net.max_prefix_len());
        out.push(format!(
            "{path}: CIDR value {} is ambiguous in this context (should be {} or {}?)",
            quote(value),
            quote(&shown),
            quote(&single)
        ));
    }
    if !strict || mapped {
        out.push(format!("{path}: non-standard CIDR value {} is invalid: use {}", quote(value), quote(&shown)));
    }
    if out.len() == before && address.is_ipv6() && net.to_string() != value {
        out.push(format!(
            "{path}: IPv6 CIDR value {} should be in RFC 5952 canonical format ({})",
            quote(value),
            quote(&net.to_string())
        ));
    }
}
