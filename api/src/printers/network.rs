//! networking.k8s.io: Ingress, IngressClass, NetworkPolicy, IPAddress, ServiceCIDR.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, list, opt_text, text};
use super::{AGE, Column, NAME, service};

pub(super) const INGRESS_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Class")
        .about("The name of the IngressClass resource that should be used for additional configuration"),
    Column::string("Hosts").about("Hosts that incoming requests are matched against before the ingress rule"),
    Column::string("Address").about("Address is a list containing ingress points for the load-balancer"),
    Column::string("Ports").about("Ports of TLS configurations that open"),
    AGE,
];
pub(super) const INGRESS_CLASS_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Controller").about("Controller that is responsible for handling this class"),
    Column::string("Parameters").about("A reference to a resource with additional parameters"),
    AGE,
];
pub(super) const POLICY_COLUMNS: &[Column] =
    &[NAME, Column::string("Pod-Selector").of("io.k8s.api.networking.v1.NetworkPolicySpec", "podSelector"), AGE];
pub(super) const IP_ADDRESS_COLUMNS: &[Column] =
    &[NAME, Column::string("ParentRef").of("io.k8s.api.networking.v1.IPAddressSpec", "parentRef")];
pub(super) const SERVICE_CIDR_COLUMNS: &[Column] =
    &[NAME, Column::string("CIDRs").of("io.k8s.api.networking.v1.ServiceCIDRSpec", "cidrs"), AGE];
pub(super) fn ingress_row(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let ports = if list(ingress, &["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        json!(cells::name(ingress)),
        json!(opt_text(ingress, &["spec", "ingressClassName"]).unwrap_or("<none>")),
        json!(hosts(list(ingress, &["spec", "rules"]))),
        json!(service::load_balancer(list(ingress, &["status", "loadBalancer", "ingress"]))),
        json!(ports),
        cells::age(ingress, now),
    ]
}

/// The first three hosts; what is left out is counted over all rules, hostless ones too.
fn hosts(rules: &[Value]) -> String {
    const MAX: usize = 3;
    let mut hosts: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == MAX;
        let host = text(rule, &["host"]);
        if !more && !host.is_empty() {
            hosts.push(host);
        }
    }
    if hosts.is_empty() {
        return "*".into();
    }
    let joined = hosts.join(",");
    if more { format!("{joined} + {} more...", rules.len() - MAX) } else { joined }
}

pub(super) fn ingress_class_row(class: &Value, now: Timestamp) -> Vec<Value> {
    let mut name = cells::name(class).to_owned();
    if text(class, &["metadata", "annotations", "ingressclass.kubernetes.io/is-default-class"]) == "true" {
        name += " (default)";
    }
    let parameters = at(class, &["spec", "parameters"]).map_or_else(
        || "<none>".to_owned(),
        |parameters| {
            let (kind, name) = (text(parameters, &["kind"]), text(parameters, &["name"]));
            match opt_text(parameters, &["apiGroup"]) {
                Some(group) => format!("{kind}.{group}/{name}"),
                None => format!("{kind}/{name}"),
            }
        },
    );
    vec![json!(name), json!(text(class, &["spec", "controller"])), json!(parameters), cells::age(class, now)]
}

pub(super) fn policy_row(policy: &Value, now: Timestamp) -> Vec<Value> {
    let selector = cells::selector_cell(at(policy, &["spec", "podSelector"]));
    vec![json!(cells::name(policy)), json!(selector), cells::age(policy, now)]
}

/// Upstream sends three cells for two columns; clients ignore the third.
pub(super) fn ip_address_row(address: &Value, now: Timestamp) -> Vec<Value> {
    let parent = at(address, &["spec", "parentRef"]).map_or_else(
        || "<none>".to_owned(),
        |parent| {
            let (group, resource) = (text(parent, &["group"]), text(parent, &["resource"]));
            let mut reference = resource.to_lowercase();
            if !group.is_empty() {
                reference = format!("{reference}.{}", group.to_lowercase());
            }
            if let Some(namespace) = opt_text(parent, &["namespace"]).filter(|namespace| !namespace.is_empty()) {
                reference = format!("{reference}/{namespace}");
            }
            format!("{reference}/{}", text(parent, &["name"]))
        },
    );
    vec![json!(cells::name(address)), json!(parent), cells::age(address, now)]
}

pub(super) fn service_cidr_row(cidr: &Value, now: Timestamp) -> Vec<Value> {
    let cidrs: Vec<&str> = list(cidr, &["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
    vec![json!(cells::name(cidr)), json!(cidrs.join(",")), cells::age(cidr, now)]
}
