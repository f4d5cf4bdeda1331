//! Pod: requests from limits, pod-level resources, service links, host ports.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use serde_json::{Map, Value};

use super::pod_spec::{self, requests_from_limits};
use super::set::{Tree, at, child, if_nil, items};

pub(super) fn set(pod: &mut Value) {
    let Some(spec) = at(pod, &["spec"]) else { return };
    for containers in ["containers", "initContainers"] {
        items(spec, containers).for_each(requests_from_limits);
    }
    pod_level_limits(spec);
    pod_level_requests(spec);
    if_nil(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for containers in ["containers", "initContainers"] {
            items(spec, containers).for_each(host_ports);
        }
    }
    pod_spec::set(spec);
    // A negative grace period is the shortest there is; in templates it stays what it was.
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        spec.insert("terminationGracePeriodSeconds".into(), 1.into());
    }
}

/// On the host's network a container's port is the host's port.
fn host_ports(container: &mut Tree) {
    for port in items(container, "ports") {
        if let Some(number) = port.get("containerPort").cloned() {
            super::set::if_zero(port, "hostPort", number);
        }
    }
}

type Amounts = BTreeMap<String, Quantity>;

fn supported(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn amounts(container: &Value, kind: &str) -> Amounts {
    let list = container.get("resources").and_then(|r| r.get(kind)).and_then(Value::as_object);
    list.into_iter()
        .flatten()
        .filter_map(|(name, v)| Some((name.clone(), Quantity::parse(v.as_str()?).ok()?)))
        .collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        total.entry(name.clone()).or_insert_with(|| Quantity::new(0, amount.format())).add(amount);
    }
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let known = total.entry(name.clone()).or_insert_with(|| amount.clone());
        if amount > known {
            *known = amount.clone();
        }
    }
}

/// What the containers need together: the sum of those that run on, or the peak while
/// initializing, whichever is more.
fn aggregate(spec: &Tree, kind: &str) -> Amounts {
    let list = |name: &str| spec.get(name).and_then(Value::as_array).into_iter().flatten();
    let mut running = Amounts::new();
    for container in list("containers") {
        add(&mut running, &amounts(container, kind));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in list("initContainers") {
        let mut now = amounts(container, kind);
        if container.get("restartPolicy").is_some_and(|p| p == "Always") {
            add(&mut running, &now);
            add(&mut sidecars, &now);
            now = sidecars.clone();
        } else {
            add(&mut now, &sidecars);
        }
        raise(&mut peak, &now);
    }
    raise(&mut running, &peak);
    running
}

fn nonempty<'a>(resources: &'a Tree, name: &str) -> Option<&'a Map<String, Value>> {
    resources.get(name).and_then(Value::as_object).filter(|m| !m.is_empty())
}

/// Huge pages that containers limit are limits of the pod, unless it says otherwise.
fn pod_level_limits(spec: &mut Tree) {
    let Some(resources) = spec.get("resources").and_then(Value::as_object) else { return };
    if nonempty(resources, "limits").is_none() && nonempty(resources, "requests").is_none() {
        return;
    }
    let aggregated = aggregate(spec, "limits");
    let Some(resources) = child(spec, "resources") else { return };
    let requests = nonempty(resources, "requests").cloned().unwrap_or_default();
    let mut limits = nonempty(resources, "limits").cloned().unwrap_or_default();
    for (name, amount) in aggregated.iter().filter(|(name, _)| name.starts_with("hugepages-")) {
        if !requests.contains_key(name) {
            limits.entry(name.clone()).or_insert_with(|| amount.to_string().into());
        }
    }
    if !limits.is_empty() {
        resources.insert("limits".into(), Value::Object(limits));
    }
}

/// A pod with limits requests what its containers do, and its limits for the rest.
fn pod_level_requests(spec: &mut Tree) {
    let Some(resources) = spec.get("resources").and_then(Value::as_object) else { return };
    let Some(limits) = nonempty(resources, "limits").cloned() else { return };
    let aggregated = aggregate(spec, "requests");
    let Some(resources) = child(spec, "resources") else { return };
    let mut requests = nonempty(resources, "requests").cloned().unwrap_or_default();
    for (name, amount) in aggregated.iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory")) {
        requests.entry(name.clone()).or_insert_with(|| amount.to_string().into());
    }
    for (name, amount) in limits.iter().filter(|(name, _)| supported(name)) {
        requests.entry(name.clone()).or_insert_with(|| amount.clone());
    }
    if !requests.is_empty() {
        resources.insert("requests".into(), Value::Object(requests));
    }
}
