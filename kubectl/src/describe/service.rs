//! Services.

use serde_json::Value;

use super::writer::{Writer, int_or_string, joined, or};
use crate::codec::{at, int, list, text};

pub fn describe(w: &mut Writer, service: &Value, slices: &[Value]) {
    w.head(service);
    w.field("Selector", api::printers::cells::labels(service, &["spec", "selector"]));
    w.field("Type", text(service, &["spec", "type"]));
    if at(service, &["spec", "ipFamilyPolicy"]).is_some() {
        w.field("IP Family Policy", text(service, &["spec", "ipFamilyPolicy"]));
    }
    w.field("IP Families", or(&joined(service, &["spec", "ipFamilies"], ","), "<none>"));
    w.field("IP", text(service, &["spec", "clusterIP"]));
    w.field("IPs", or(&joined(service, &["spec", "clusterIPs"], ","), "<none>"));
    for (title, value) in [
        ("External IPs", joined(service, &["spec", "externalIPs"], ",")),
        ("Desired LoadBalancer IP", text(service, &["spec", "loadBalancerIP"]).to_owned()),
        ("External Name", text(service, &["spec", "externalName"]).to_owned()),
        ("LoadBalancer Ingress", ingress(list(service, &["status", "loadBalancer", "ingress"]))),
    ] {
        if !value.is_empty() {
            w.field(title, value);
        }
    }
    for port in list(service, &["spec", "ports"]) {
        let given = text(port, &["name"]);
        let (name, protocol) = (or(given, "<unset>"), text(port, &["protocol"]));
        w.field("Port", format!("{name}\t{}/{protocol}", int(port, &["port"]).unwrap_or(0)));
        w.field("TargetPort", format!("{}/{protocol}", int_or_string(at(port, &["targetPort"]))));
        if at(port, &["appProtocol"]).is_some() {
            w.field("AppProtocol", text(port, &["appProtocol"]));
        }
        if let Some(number) = int(port, &["nodePort"]).filter(|number| *number != 0) {
            w.field("NodePort", format!("{name}\t{number}/{protocol}"));
        }
        w.field("Endpoints", endpoints(slices, given));
    }
    w.field("Session Affinity", text(service, &["spec", "sessionAffinity"]));
    for (title, field) in
        [("External Traffic Policy", "externalTrafficPolicy"), ("Internal Traffic Policy", "internalTrafficPolicy")]
    {
        let value = text(service, &["spec", field]);
        if !value.is_empty() {
            w.field(title, value);
        }
    }
    if let Some(port) = int(service, &["spec", "healthCheckNodePort"]).filter(|port| *port != 0) {
        w.field("HealthCheck NodePort", port);
    }
    let ranges = joined(service, &["spec", "loadBalancerSourceRanges"], ",");
    if !ranges.is_empty() {
        w.field("LoadBalancer Source Ranges", ranges);
    }
    if at(service, &["spec", "trafficDistribution"]).is_some() {
        w.field("Traffic Distribution", text(service, &["spec", "trafficDistribution"]));
    }
}

fn ingress(points: &[Value]) -> String {
    let texts: Vec<String> = points
        .iter()
        .map(|point| {
            let ip = text(point, &["ip"]);
            if ip.is_empty() {
                return text(point, &["hostname"]).to_owned();
            }
            match text(point, &["ipMode"]) {
                "" => ip.to_owned(),
                mode => format!("{ip} ({mode})"),
            }
        })
        .collect();
    texts.join(", ")
}

/// The ready addresses behind a port, the first three of them.
fn endpoints(slices: &[Value], port_name: &str) -> String {
    const MAX: usize = 3;
    if slices.is_empty() {
        return "<none>".into();
    }
    let mut found: Vec<String> = Vec::new();
    for slice in slices {
        let ready = list(slice, &["endpoints"]).iter().filter(|endpoint| endpoint["conditions"]["ready"] != false);
        let addresses: Vec<&str> =
            ready.filter_map(|endpoint| list(endpoint, &["addresses"]).first().and_then(Value::as_str)).collect();
        let ports = list(slice, &["ports"]);
        if ports.is_empty() {
            found.extend(addresses.iter().map(|address| (*address).to_owned()));
        }
        for port in ports.iter().filter(|port| text(port, &["name"]) == port_name) {
            let number = int(port, &["port"]).unwrap_or(0);
            found.extend(addresses.iter().map(|address| {
                if address.contains(':') { format!("[{address}]:{number}") } else { format!("{address}:{number}") }
            }));
        }
    }
    let count = found.len();
    found.truncate(MAX);
    let joined = found.join(",");
    if count > MAX { format!("{joined} + {} more...", count - MAX) } else { joined }
}
