//! NetworkPolicy.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use ipnet::IpNet;
use serde_json::Value;

use super::checks::{label_selector, legacy_cidr, messages, name_is_subdomain, port_num, sloppy_ip};
use super::object_meta;
use crate::read::Read;

const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

pub(super) fn create(policy: &Value, errors: &mut ErrorList) {
    object_meta::create(policy, true, name_is_subdomain, errors);
    spec(&policy["spec"], &[], errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let mut known = Vec::new();
    for (direction, peers) in DIRECTIONS {
        for block in old["spec"].list(direction).iter().flat_map(|rule| rule.list(peers)).map(|peer| &peer["ipBlock"]) {
            known.push(block.text("cidr"));
            known.extend(block.texts("except"));
        }
    }
    spec(&new["spec"], &known, errors);
}

fn spec(spec: &Value, known: &[&str], errors: &mut ErrorList) {
    let path = Path::new("spec");
    label_selector(&spec["podSelector"], &path.child("podSelector"), errors);
    for (direction, peers) in DIRECTIONS {
        for (i, rule) in spec.list(direction).iter().enumerate() {
            let path = path.child(direction).index(i);
            for (i, port) in rule.list("ports").iter().enumerate() {
                self::port(port, &path.child("ports").index(i), errors);
            }
            for (i, peer) in rule.list(peers).iter().enumerate() {
                self::peer(peer, known, &path.child(peers).index(i), errors);
            }
        }
    }
    let path = path.child("policyTypes");
    if spec.list("policyTypes").len() > 2 {
        errors.push(field::invalid(&path, &spec["policyTypes"], "may not specify more than two policyTypes"));
        return;
    }
    for (i, kind) in spec.texts("policyTypes").enumerate() {
        if !matches!(kind, "Ingress" | "Egress") {
            errors.push(field::not_supported(&path.index(i), kind, &["Ingress", "Egress"]));
        }
    }
}

fn port(port: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(protocol) = port.set("protocol").and_then(Value::as_str)
        && !matches!(protocol, "TCP" | "UDP" | "SCTP")
    {
        errors.push(field::not_supported(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]));
    }
    let end = port.int("endPort");
    match &port["port"] {
        Value::Null => {
            if let Some(end) = end {
                let message = "may not be specified when `port` is not specified";
                errors.push(field::invalid(&path.child("endPort"), end, message));
            }
        }
        Value::String(name) => {
            if let Some(end) = end {
                let message = "may not be specified when `port` is non-numeric";
                errors.push(field::invalid(&path.child("endPort"), end, message));
            }
            messages(names::port_name(name), name, &path.child("port"), errors);
        }
        number => {
            let number = number.as_i64().unwrap_or_default();
            port_num(number, &path.child("port"), errors);
            if let Some(end) = end {
                if end < number {
                    let message = "must be greater than or equal to `port`";
                    errors.push(field::invalid(&path.child("endPort"), number, message));
                }
                port_num(end, &path.child("endPort"), errors);
            }
        }
    }
}

fn peer(peer: &Value, known: &[&str], path: &Path, errors: &mut ErrorList) {
    let mut count = 0;
    for name in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.set(name) {
            count += 1;
            label_selector(selector, &path.child(name), errors);
        }
    }
    if let Some(block) = peer.set("ipBlock") {
        count += 1;
        ip_block(block, known, &path.child("ipBlock"), errors);
        if count > 1 {
            errors.push(field::forbidden(path, "may not specify both ipBlock and another peer"));
        }
    }
    if count == 0 {
        errors.push(field::required(path, "must specify a peer"));
    }
}

fn ip_block(block: &Value, known: &[&str], path: &Path, errors: &mut ErrorList) {
    let cidr = block.text("cidr");
    if cidr.is_empty() {
        errors.push(field::required(&path.child("cidr"), ""));
        return;
    }
    legacy_cidr(cidr, known, &path.child("cidr"), errors);
    let Some(net) = network(cidr) else { return };
    for (i, except) in block.texts("except").enumerate() {
        let path = path.child("except").index(i);
        legacy_cidr(except, known, &path, errors);
        if let Some(inner) = network(except)
            && (!net.contains(&inner.network()) || net.prefix_len() >= inner.prefix_len())
        {
            errors.push(field::invalid(&path, except, "must be a strict subset of `cidr`"));
        }
    }
}

fn network(text: &str) -> Option<IpNet> {
    let (ip, bits) = text.split_once('/')?;
    IpNet::new(sloppy_ip(ip)?, bits.parse().ok()?).ok()
}
