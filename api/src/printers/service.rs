//! Services.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, int, list, text};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Type").of("io.k8s.api.core.v1.ServiceSpec", "type"),
    Column::string("Cluster-IP").of("io.k8s.api.core.v1.ServiceSpec", "clusterIP"),
    Column::string("External-IP").of("io.k8s.api.core.v1.ServiceSpec", "externalIPs"),
    Column::string("Port(s)").of("io.k8s.api.core.v1.ServiceSpec", "ports"),
    AGE,
    Column::string("Selector").of("io.k8s.api.core.v1.ServiceSpec", "selector").wide(),
];
pub(super) fn row(service: &Value, now: Timestamp) -> Vec<Value> {
    let ports = ports(list(service, &["spec", "ports"]));
    // clusterIPs is what upstream prints; clusterIP stands in for objects stored before it existed.
    let ip = match list(service, &["spec", "clusterIPs"]).first() {
        Some(first) => first.as_str().unwrap_or(""),
        None => cells::or(text(service, &["spec", "clusterIP"]), "<none>"),
    };
    vec![
        json!(cells::name(service)),
        json!(text(service, &["spec", "type"])),
        json!(ip),
        json!(external_ip(service)),
        json!(cells::or(&ports, "<none>")),
        cells::age(service, now),
        json!(cells::labels(service, &["spec", "selector"])),
    ]
}

/// `port[:nodePort]/protocol`, joined by commas.
pub fn ports(ports: &[Value]) -> String {
    let pieces: Vec<String> = ports
        .iter()
        .map(|port| {
            let (number, protocol) = (int(port, &["port"]), text(port, &["protocol"]));
            match int(port, &["nodePort"]) {
                node_port if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    pieces.join(",")
}

fn external_ip(service: &Value) -> String {
    let external: Vec<&str> = list(service, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    match text(service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".into(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let balancer = load_balancer(list(service, &["status", "loadBalancer", "ingress"]));
            let mut all: Vec<&str> = balancer.split(',').filter(|ip| !ip.is_empty()).collect();
            all.extend(external);
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ExternalName" => text(service, &["spec", "externalName"]).into(),
        _ => "<unknown>".into(),
    }
}

/// Addresses of a load balancer's ingress points, sorted, each once.
pub(super) fn load_balancer(ingress: &[Value]) -> String {
    let addresses: BTreeSet<&str> = ingress
        .iter()
        .map(|point| cells::or(text(point, &["ip"]), text(point, &["hostname"])))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}
