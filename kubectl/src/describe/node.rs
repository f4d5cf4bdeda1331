//! Nodes: their state, and what the pods on them ask for.

use std::collections::BTreeMap;

use apimachinery::quantity::{Format, Quantity};
use serde_json::Value;

use super::Related;
use super::writer::{Writer, int_or_string, joined, or, rfc1123};
use crate::codec::{at, list, text};

pub fn describe(w: &mut Writer, node: &Value, related: &Related) {
    w.field("Name", text(node, &["metadata", "name"]));
    w.field("Roles", or(&api::printers::node_roles(node), "<none>"));
    w.metadata(node);
    w.field("CreationTimestamp", rfc1123(node, &["metadata", "creationTimestamp"]));
    taints(w, list(node, &["spec", "taints"]));
    w.field("Unschedulable", node["spec"]["unschedulable"] == true);
    match &related.lease {
        Some(Ok(lease)) => {
            w.line(0, "Lease:");
            w.line(
                1,
                &format!(
                    "HolderIdentity:\t{}",
                    at(lease, &["spec", "holderIdentity"]).and_then(Value::as_str).unwrap_or("<unset>")
                ),
            );
            for (title, field) in [("AcquireTime", "acquireTime"), ("RenewTime", "renewTime")] {
                let shown = match at(lease, &["spec", field]) {
                    Some(_) => rfc1123(lease, &["spec", field]),
                    None => "<unset>".into(),
                };
                w.line(1, &format!("{title}:\t{shown}"));
            }
        }
        Some(Err(why)) => w.field("Lease", format!("Failed to get lease: {why}")),
        None => {}
    }
    let conditions = list(node, &["status", "conditions"]);
    if !conditions.is_empty() {
        w.line(0, "Conditions:\n  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
        w.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
        for c in conditions {
            w.line(
                1,
                &format!(
                    "{} \t{} \t{} \t{} \t{} \t{}",
                    text(c, &["type"]),
                    text(c, &["status"]),
                    rfc1123(c, &["lastHeartbeatTime"]),
                    rfc1123(c, &["lastTransitionTime"]),
                    text(c, &["reason"]),
                    text(c, &["message"])
                ),
            );
        }
    }
    w.line(0, "Addresses:");
    for address in list(node, &["status", "addresses"]) {
        w.line(1, &format!("{}:\t{}", text(address, &["type"]), text(address, &["address"])));
    }
    for (title, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        if let Some(Value::Object(map)) = at(node, &["status", field]) {
            w.line(0, &format!("{title}:"));
            for (name, value) in map {
                w.line(1, &format!("{name}:\t{}", int_or_string(Some(value))));
            }
        }
    }
    w.line(0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        w.line(1, &format!("{title}:\t{}", text(node, &["status", "nodeInfo", field])));
    }
    for (title, value) in [
        ("PodCIDR", text(node, &["spec", "podCIDR"]).to_owned()),
        ("PodCIDRs", joined(node, &["spec", "podCIDRs"], ",")),
        ("ProviderID", text(node, &["spec", "providerID"]).to_owned()),
    ] {
        if !value.is_empty() {
            w.field(title, value);
        }
    }
    match &related.pods {
        Some(pods) => usage(w, node, pods),
        None => w.field("Pods", "not authorized"),
    }
}

fn taints(w: &mut Writer, taints: &[Value]) {
    w.text("Taints:\t");
    if taints.is_empty() {
        w.text("<none>\n");
    }
    let mut sorted: Vec<&Value> = taints.iter().collect();
    sorted.sort_by_key(|taint| format!("{},{}", text(taint, &["effect"]), text(taint, &["key"])));
    for (index, taint) in sorted.into_iter().enumerate() {
        if index > 0 {
            w.text("\t");
        }
        w.text(&format!("{}\n", taint_text(taint)));
    }
}

/// `key=value:effect`.
fn taint_text(taint: &Value) -> String {
    let (key, value, effect) = (text(taint, &["key"]), text(taint, &["value"]), text(taint, &["effect"]));
    match (value, effect) {
        ("", "") => key.to_owned(),
        ("", effect) => format!("{key}:{effect}"),
        (value, "") => format!("{key}={value}:"),
        (value, effect) => format!("{key}={value}:{effect}"),
    }
}

type Amounts = BTreeMap<String, Quantity>;

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        match total.get_mut(name) {
            Some(sum) => sum.add(quantity),
            None => {
                total.insert(name.clone(), quantity.clone());
            }
        }
    }
}

fn raise(total: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        if total.get(name).is_none_or(|known| known.as_f64() < quantity.as_f64()) {
            total.insert(name.clone(), quantity.clone());
        }
    }
}

fn amounts(object: &Value, path: &[&str]) -> Amounts {
    let Some(Value::Object(map)) = at(object, path) else { return Amounts::new() };
    map.iter()
        .filter_map(|(name, value)| Some((name.clone(), Quantity::parse(&int_or_string(Some(value))).ok()?)))
        .collect()
}

/// What a pod asks for at most at one time: containers and sidecars together, or an init container
/// with the sidecars started before it; then overhead. Pod-level figures replace the sums.
fn pod_total(pod: &Value, field: &str) -> Amounts {
    let mut total = Amounts::new();
    for container in list(pod, &["spec", "containers"]) {
        add(&mut total, &amounts(container, &["resources", field]));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in list(pod, &["spec", "initContainers"]) {
        let own = amounts(container, &["resources", field]);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut together = sidecars.clone();
            add(&mut together, &own);
            raise(&mut peak, &together);
        }
    }
    raise(&mut total, &peak);
    for (name, quantity) in amounts(pod, &["spec", "resources", field]) {
        total.insert(name, quantity);
    }
    if field == "requests" || !total.is_empty() {
        let overhead = amounts(pod, &["spec", "overhead"]);
        for (name, quantity) in &overhead {
            if field == "requests" || total.contains_key(name) {
                add(&mut total, &BTreeMap::from([(name.clone(), quantity.clone())]));
            }
        }
    }
    total
}

/// A quantity and its share of what the node has, cut to a whole percent.
fn share(amount: &Amounts, name: &str, allocatable: &Amounts) -> String {
    let zero = || Quantity::new(0, Format::DecimalSI);
    let part = amount.get(name).cloned().unwrap_or_else(zero);
    let whole = allocatable.get(name).map_or(0.0, Quantity::as_f64);
    #[allow(clippy::cast_possible_truncation)]
    let percent = if whole == 0.0 { 0 } else { (part.as_f64() / whole * 100.0) as i64 };
    format!("{part} ({percent}%)")
}

fn usage(w: &mut Writer, node: &Value, pods: &[Value]) {
    let mut allocatable = amounts(node, &["status", "allocatable"]);
    if allocatable.is_empty() {
        allocatable = amounts(node, &["status", "capacity"]);
    }
    w.field("Non-terminated Pods", format!("({} in total)", pods.len()));
    w.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    w.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let (mut all_requests, mut all_limits) = (Amounts::new(), Amounts::new());
    for pod in pods {
        let (requests, limits) = (pod_total(pod, "requests"), pod_total(pod, "limits"));
        w.line(
            1,
            &format!(
                "{}\t{}\t\t{}\t{}\t{}\t{}\t{}",
                text(pod, &["metadata", "namespace"]),
                text(pod, &["metadata", "name"]),
                share(&requests, "cpu", &allocatable),
                share(&limits, "cpu", &allocatable),
                share(&requests, "memory", &allocatable),
                share(&limits, "memory", &allocatable),
                w.since(pod, &["metadata", "creationTimestamp"])
            ),
        );
        add(&mut all_requests, &requests);
        add(&mut all_limits, &limits);
    }
    w.line(0, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)");
    w.line(1, "Resource\tRequests\tLimits");
    w.line(1, "--------\t--------\t------");
    let huge: Vec<&String> = allocatable.keys().filter(|name| name.starts_with("hugepages-")).collect();
    for name in ["cpu", "memory", "ephemeral-storage"].into_iter().chain(huge.into_iter().map(String::as_str)) {
        w.line(
            1,
            &format!(
                "{name}\t{}\t{}",
                share(&all_requests, name, &allocatable),
                share(&all_limits, name, &allocatable)
            ),
        );
    }
    let plain = |amount: &Amounts, name: &str| amount.get(name).map_or_else(|| "0".to_owned(), ToString::to_string);
    for name in allocatable.keys() {
        if !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pods") && !name.starts_with("hugepages-")
        {
            w.line(1, &format!("{name}\t{}\t{}", plain(&all_requests, name), plain(&all_limits, name)));
        }
    }
}
