//! What flags and the file write alike: each value read, or refused as upstream refuses it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{DetectLocalMode, Error, invalid};

pub fn mode(text: &str) -> Result<(), Error> {
    match text {
        "" | "iptables" => Ok(()),
        other => Err(invalid(
            "mode",
            other,
            "must be iptables or blank (blank means the best-available proxy [currently iptables])",
        )),
    }
}

pub fn detect_local_mode(text: &str) -> Result<DetectLocalMode, Error> {
    Ok(match text {
        "" | "ClusterCIDR" => DetectLocalMode::ClusterCidr,
        "NodeCIDR" => DetectLocalMode::NodeCidr,
        "BridgeInterface" => DetectLocalMode::BridgeInterface,
        "InterfaceNamePrefix" => DetectLocalMode::InterfaceNamePrefix,
        other => {
            return Err(invalid(
                "detectLocalMode",
                other,
                "must be ClusterCIDR,NodeCIDR,BridgeInterface,InterfaceNamePrefix or blank",
            ));
        }
    })
}

pub fn masquerade_bit(bit: i64) -> Result<u8, Error> {
    u8::try_from(bit)
        .ok()
        .filter(|bit| *bit < 32)
        .ok_or_else(|| invalid("iptables.masqueradeBit", bit, "must be within the range [0, 31]"))
}

pub fn oom_score_adj(value: i64) -> Result<i32, Error> {
    i32::try_from(value)
        .ok()
        .filter(|v| (-1000..=1000).contains(v))
        .ok_or_else(|| invalid("oomScoreAdj", value, "must be within the range [-1000, 1000]"))
}

pub fn parse_ip(field: &'static str, text: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| invalid(field, text, "not a valid textual representation of an IP address"))
}

pub fn parse_cidrs(field: &'static str, text: &str) -> Result<Vec<IpNet>, Error> {
    text.split(',')
        .map(str::trim)
        .filter(|cidr| !cidr.is_empty())
        .map(|cidr| {
            cidr.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| {
                invalid(field, cidr, "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)")
            })
        })
        .collect()
}

pub fn node_port_addresses(list: &[String]) -> Result<(Vec<IpNet>, bool), Error> {
    if matches!(list, [only] if only == "primary") {
        return Ok((Vec::new(), true));
    }
    Ok((parse_cidrs("nodePortAddresses", &list.join(","))?, false))
}

/// `IP:port`, or an IP alone with the default port; empty switches the server off.
pub fn socket_address(field: &'static str, text: &str, port: u16) -> Result<Option<SocketAddr>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Some(address));
    }
    match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => Ok(Some(SocketAddr::new(ip, port))),
        Err(_) => Err(invalid(field, text, "must be IP:port")),
    }
}
