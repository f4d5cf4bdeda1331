//! Pods: their number, and what they request and are limited to.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::object::ObjectExt as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Scope, one};
use crate::amounts::{Half, Options, ResourceList, is_pod_level, list, of_pod};

const COUNTED: [&str; 11] = [
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];

/// What every container has to state when a quota counts it.
const REQUIRED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(super) fn counts(name: &str) -> bool {
    COUNTED.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
        || is_extended(name)
}

/// Whether a quota of this name limits an extended resource.
pub(super) fn is_extended(name: &str) -> bool {
    name.starts_with("requests.")
        && (!is_native(name) || name.starts_with("requests.deviceclass.resource.kubernetes.io/"))
}

pub(super) fn is_terminating(pod: &Value) -> bool {
    pod.i64_at(&["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Value) -> bool {
    let asks = |holder: &Value| {
        ["requests", "limits"].into_iter().any(|half| {
            let amounts = list(holder, &["resources", half]);
            amounts.iter().any(|(name, amount)| matches!(name.as_str(), "cpu" | "memory") && !amount.is_zero())
        })
    };
    let containers = ["containers", "initContainers"].into_iter().flat_map(|field| pod.list_at(&["spec", field]));
    !pod.get("spec").is_some_and(asks) && !containers.into_iter().any(asks)
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| {
        !term.list_at(&["namespaces"]).is_empty()
            || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let terms = |field: &str| pod.list_at(&["spec", "affinity", kind, field]);
        terms("requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || terms("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| weighted.get("podAffinityTerm").is_some_and(crosses))
    })
}

pub(super) fn in_scope(scope: &Scope, pod: &Value) -> bool {
    match scope.name.as_str() {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = pod.str_at(&["spec", "priorityClassName"]).filter(|class| !class.is_empty());
            scope.accepts(&class.into_iter().collect())
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// The names under which requests and limits are counted.
fn named(requests: &ResourceList, limits: &ResourceList) -> ResourceList {
    let mut result = ResourceList::from([("pods".to_string(), one())]);
    for (name, amount) in requests {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if plain {
            result.insert(name.clone(), amount.clone());
        }
        if plain || !is_native(name) || name.starts_with("deviceclass.resource.kubernetes.io/") {
            result.insert(format!("requests.{name}"), amount.clone());
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            result.insert(format!("limits.{name}"), amount.clone());
        }
    }
    result
}

pub(super) fn constraints(counted: &BTreeSet<String>, pod: &Value) -> Result<(), String> {
    let whole = ["requests", "limits"]
        .into_iter()
        .any(|half| list(pod, &["spec", "resources", half]).keys().any(|name| is_pod_level(name)));
    if whole {
        return Ok(());
    }
    let required: Vec<&String> = counted.iter().filter(|name| REQUIRED.contains(&name.as_str())).collect();
    let mut missing: BTreeMap<&String, BTreeSet<&str>> = BTreeMap::new();
    for container in ["containers", "initContainers"].into_iter().flat_map(|field| pod.list_at(&["spec", field])) {
        let stated = named(&list(container, &["resources", "requests"]), &list(container, &["resources", "limits"]));
        for name in required.iter().filter(|name| !stated.contains_key(**name)) {
            missing.entry(name).or_default().insert(container.str_at(&["name"]).unwrap_or_default());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let each = missing
        .into_iter()
        .map(|(name, containers)| format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")));
    Err(format!("must specify {}", each.collect::<Vec<_>>().join("; ")))
}

/// A pod that has ended, or whose time to end is over, holds nothing.
fn holds_resources(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod.str_at(&["status", "phase"]), Some("Failed" | "Succeeded")) {
        return false;
    }
    let deletion = pod.deletion_timestamp().and_then(|time| time.parse::<Timestamp>().ok());
    match (deletion, pod.deletion_grace_period_seconds()) {
        (Some(time), Some(seconds)) => time.checked_add(SignedDuration::from_secs(seconds)).is_ok_and(|end| now <= end),
        _ => true,
    }
}

pub(super) fn usage(pod: &Value, now: Timestamp) -> ResourceList {
    let mut result = ResourceList::from([("count/pods".to_string(), one())]);
    if holds_resources(pod, now) {
        let options = Options { overhead: true, statuses: true };
        result.extend(named(&of_pod(pod, Half::Requests, options), &of_pod(pod, Half::Limits, options)));
    }
    result
}
