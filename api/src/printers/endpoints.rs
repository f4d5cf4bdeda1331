//! Endpoints and EndpointSlices.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, int, list, opt_int, opt_text, text, with_more};
use super::{AGE, Column, NAME};

pub(super) const ENDPOINTS_COLUMNS: &[Column] =
    &[NAME, Column::string("Endpoints").of("io.k8s.api.core.v1.Endpoints", "subsets"), AGE];
pub(super) const SLICE_COLUMNS: &[Column] = &[
    NAME,
    Column::string("AddressType").of("io.k8s.api.discovery.v1.EndpointSlice", "addressType"),
    Column::string("Ports").of("io.k8s.api.discovery.v1.EndpointSlice", "ports"),
    Column::string("Endpoints").of("io.k8s.api.discovery.v1.EndpointSlice", "endpoints"),
    AGE,
];
/// How many entries a cell lists before it only counts.
const MAX: usize = 3;

pub(super) fn endpoints_row(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(cells::name(endpoints)),
        json!(format_endpoints(list(endpoints, &["subsets"]))),
        cells::age(endpoints, now),
    ]
}

/// `ip:port` of every address and port, or bare addresses where a subset has no ports.
pub fn format_endpoints(subsets: &[Value]) -> String {
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut shown: Vec<String> = Vec::new();
    let mut count = 0;
    for subset in subsets {
        let addresses = list(subset, &["addresses"]);
        let ports = list(subset, &["ports"]);
        if ports.is_empty() {
            count += addresses.len();
            shown.extend(addresses.iter().map(|a| text(a, &["ip"]).to_owned()));
        }
        for port in ports {
            count += addresses.len();
            shown.extend(addresses.iter().map(|a| host_port(text(a, &["ip"]), int(port, &["port"]))));
        }
    }
    shown.truncate(MAX);
    let joined = shown.join(",");
    if count > MAX { format!("{joined} + {} more...", count - MAX) } else { joined }
}

/// An IPv6 address needs brackets before a port.
fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(super) fn slice_row(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports = list(slice, &["ports"]);
    let shown: Vec<String> = ports
        .iter()
        .take(MAX)
        .map(|port| match (opt_int(port, &["port"]), opt_text(port, &["name"])) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".into(),
        })
        .collect();
    let addresses: Vec<&str> = list(slice, &["endpoints"])
        .iter()
        .flat_map(|endpoint| list(endpoint, &["addresses"]))
        .filter_map(Value::as_str)
        .collect();
    let first: Vec<String> = addresses.iter().take(MAX).map(|address| (*address).to_owned()).collect();
    vec![
        json!(cells::name(slice)),
        json!(text(slice, &["addressType"])),
        json!(with_more(&shown, ports.len(), MAX)),
        json!(with_more(&first, addresses.len(), MAX)),
        cells::age(slice, now),
    ]
}
