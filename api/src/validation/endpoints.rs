//! Endpoints and EndpointSlice.

use std::collections::BTreeSet;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::checks::{
    dns1123_label, immutable, labels, legacy_ip, messages, name_is_subdomain, port_num, qualified_name,
    semantically_equal, sloppy_ip, strict_ip,
};
use super::object_meta;
use super::service::endpoint_ip;
use crate::read::Read;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

pub(super) fn create(endpoints: &Value, errors: &mut ErrorList) {
    object_meta::create(endpoints, true, name_is_subdomain, errors);
    subsets(endpoints, errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    object_meta::create(new, true, name_is_subdomain, errors);
    if !semantically_equal(&new["subsets"], &old["subsets"]) {
        subsets(new, errors);
    }
}

fn subsets(endpoints: &Value, errors: &mut ErrorList) {
    for (i, subset) in endpoints.list("subsets").iter().enumerate() {
        let path = Path::new("subsets").index(i);
        if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
            errors.push(field::required(&path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for name in ["addresses", "notReadyAddresses"] {
            for (i, address) in subset.list(name).iter().enumerate() {
                self::address(address, &path.child(name).index(i), errors);
            }
        }
        let ports = subset.list("ports");
        for (i, port) in ports.iter().enumerate() {
            self::port(port, ports.len() > 1, &path.child("ports").index(i), errors);
        }
    }
}

fn address(address: &Value, path: &Path, errors: &mut ErrorList) {
    let (ip, at) = (address.text("ip"), path.child("ip"));
    legacy_ip(ip, &[], &at, errors);
    let host = address.text("hostname");
    if !host.is_empty() {
        dns1123_label(host, &path.child("hostname"), errors);
    }
    node_name(address, path, errors);
    if sloppy_ip(ip).is_none() {
        errors.push(field::invalid(&at, ip, "must be a valid IP address"));
    }
    endpoint_ip(ip, &at, errors);
}

fn node_name(object: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(node) = object.set("nodeName").and_then(Value::as_str) {
        messages(names::dns1123_subdomain(node), node, &path.child("nodeName"), errors);
    }
}

fn port(port: &Value, named: bool, path: &Path, errors: &mut ErrorList) {
    let name = port.text("name");
    if named && name.is_empty() {
        errors.push(field::required(&path.child("name"), ""));
    } else if !name.is_empty() {
        dns1123_label(name, &path.child("name"), errors);
    }
    port_num(port.num("port"), &path.child("port"), errors);
    protocol(port, false, path, errors);
}

fn protocol(port: &Value, is_slice: bool, path: &Path, errors: &mut ErrorList) {
    // Slices tell an empty protocol from none; elsewhere there is no difference.
    match port.set("protocol").and_then(Value::as_str) {
        Some("") if is_slice => errors.push(field::not_supported(&path.child("protocol"), "", &PROTOCOLS)),
        given => super::checks::one_of(given.unwrap_or_default(), &PROTOCOLS, &path.child("protocol"), errors),
    }
    if let Some(protocol) = port.set("appProtocol").and_then(Value::as_str) {
        qualified_name(protocol, &path.child("appProtocol"), errors);
    }
}

pub(super) fn slice(slice: &Value, errors: &mut ErrorList) {
    slice_without_endpoints(slice, errors);
    endpoints(slice, errors);
}

fn slice_without_endpoints(slice: &Value, errors: &mut ErrorList) {
    const MOST_PORTS: usize = 20_000;
    object_meta::create(slice, true, name_is_subdomain, errors);
    super::checks::one_of(slice.text("addressType"), &ADDRESS_TYPES, &Path::new("addressType"), errors);
    let (ports, path) = (slice.list("ports"), Path::new("ports"));
    if ports.len() > MOST_PORTS {
        errors.push(field::too_many(&path, ports.len(), MOST_PORTS));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (path, name) = (path.index(i), port.text("name"));
        if !name.is_empty() {
            dns1123_label(name, &path.child("name"), errors);
        }
        if !seen.insert(name) {
            errors.push(field::duplicate(&path.child("name"), name));
        }
        protocol(port, true, &path, errors);
    }
}

pub(super) fn slice_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    slice_without_endpoints(new, errors);
    if !semantically_equal(&new["endpoints"], &old["endpoints"]) {
        endpoints(new, errors);
    }
    immutable(&new["addressType"], &old["addressType"], &Path::new("addressType"), errors);
}

fn endpoints(slice: &Value, errors: &mut ErrorList) {
    const MOST_ENDPOINTS: usize = 1000;
    const MOST_ADDRESSES: usize = 100;
    const MOST_LABELS: usize = 16;
    let (list, path) = (slice.list("endpoints"), Path::new("endpoints"));
    if list.len() > MOST_ENDPOINTS {
        errors.push(field::too_many(&path, list.len(), MOST_ENDPOINTS));
        return;
    }
    for (i, endpoint) in list.iter().enumerate() {
        let path = path.index(i);
        let (addresses, at) = (endpoint.list("addresses"), path.child("addresses"));
        if addresses.is_empty() {
            errors.push(field::required(&at, "must contain at least 1 address"));
        } else if addresses.len() > MOST_ADDRESSES {
            errors.push(field::too_many(&at, addresses.len(), MOST_ADDRESSES));
        }
        for (i, address) in endpoint.texts("addresses").enumerate() {
            slice_address(address, slice.text("addressType"), &at, i, errors);
        }
        node_name(endpoint, &path, errors);
        let at = path.child("deprecatedTopology");
        let topology = &endpoint["deprecatedTopology"];
        let count = topology.as_object().map_or(0, serde_json::Map::len);
        if count > MOST_LABELS {
            errors.push(field::too_many(&at, count, MOST_LABELS));
        }
        labels(topology, &at, errors);
        if let Some(host) = endpoint.set("hostname").and_then(Value::as_str) {
            dns1123_label(host, &path.child("hostname"), errors);
        }
        if let Some(hints) = endpoint.set("hints") {
            self::hints(hints, &path.child("hints"), errors);
        }
    }
}

fn slice_address(address: &str, kind: &str, list: &Path, i: usize, errors: &mut ErrorList) {
    let (path, before) = (list.index(i), errors.len());
    match kind {
        "IPv4" => legacy_ip(address, &[], &path, errors),
        "IPv6" => strict_ip(address, &path, errors),
        "FQDN" => {
            fully_qualified_domain_name(address, &path, errors);
            return;
        }
        _ => return,
    }
    if errors.len() > before {
        return;
    }
    if sloppy_ip(address).is_some_and(|ip| ip.is_ipv4() != (kind == "IPv4")) {
        errors.push(field::invalid(list, address, format!("must be an {kind} address")));
    }
    endpoint_ip(address, &path, errors);
}

fn fully_qualified_domain_name(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let wrong = names::dns1123_subdomain(name);
    if !wrong.is_empty() {
        errors.push(field::invalid(path, name, wrong.join(",")));
        return;
    }
    if !name.contains('.') {
        let message = "should be a domain with at least two segments separated by dots";
        errors.push(field::invalid(path, name, message));
        return;
    }
    for label in name.split('.') {
        let wrong = names::dns1123_label(label);
        if !wrong.is_empty() {
            errors.push(field::invalid(path, label, wrong.join(",")));
            return;
        }
    }
}

fn hints(hints: &Value, path: &Path, errors: &mut ErrorList) {
    const MOST: usize = 8;
    for name in ["forZones", "forNodes"] {
        let (list, path) = (hints.list(name), path.child(name));
        if list.len() > MOST {
            errors.push(field::too_many(&path, list.len(), MOST));
            return;
        }
        let mut seen = BTreeSet::new();
        for (i, hint) in list.iter().enumerate() {
            let (path, of) = (path.index(i).child("name"), hint.text("name"));
            if !seen.insert(of) {
                errors.push(field::duplicate(&path, of));
            }
            let wrong = if name == "forZones" { names::label_value(of) } else { names::dns1123_subdomain(of) };
            messages(wrong, of, &path, errors);
        }
    }
}
