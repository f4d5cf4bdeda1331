//! Amounts of resources: of containers, of the pod, and of other kinds that name resources.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::super::checks::{dns1123_label, non_negative_quantity, quantity};
use crate::read::Read;

const STANDARD: &[&str] = &[
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
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
const INTEGER: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

pub(in super::super) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

pub(in super::super) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(in super::super) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

pub(in super::super) fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

pub(in super::super) fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// `validateResourceName`.
pub(in super::super) fn resource_name(name: &str, path: &Path, errors: &mut ErrorList) -> bool {
    let messages = names::qualified_name(name);
    if !messages.is_empty() {
        errors.extend(messages.into_iter().map(|m| field::invalid(path, name, m)));
        return false;
    }
    if !name.contains('/') && !is_standard(name) {
        errors.push(field::invalid(path, name, "must be a standard resource type or fully qualified"));
        return false;
    }
    true
}

pub(in super::super) fn container_resource_name(name: &str, path: &Path, errors: &mut ErrorList) {
    resource_name(name, path, errors);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            errors.push(field::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(field::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

fn pod_resource_name(name: &str, path: &Path, errors: &mut ErrorList) {
    if resource_name(name, path, errors) && !matches!(name, "cpu" | "memory") && !is_huge_page(name) {
        errors.push(field::not_supported(path, name, &["cpu", "memory"]));
    }
}

/// `ValidateResourceQuantityValue`.
pub(in super::super) fn amount(name: &str, value: &Value, path: &Path, errors: &mut ErrorList) {
    non_negative_quantity(value, path, errors);
    if (INTEGER.contains(&name) || is_extended(name)) && quantity(value).milli_value() % 1000 != 0 {
        errors.push(field::invalid(path, quantity(value).to_string(), "must be an integer"));
    }
}

pub(in super::super) fn container_resources(
    resources: &Value,
    claims: &BTreeSet<&str>,
    path: &Path,
    errors: &mut ErrorList,
) {
    requirements(resources, container_resource_name, claims, path, errors);
}

fn requirements(
    resources: &Value,
    check_name: fn(&str, &Path, &mut ErrorList),
    claims: &BTreeSet<&str>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let (mut compute, mut huge) = (false, false);
    let mut huge_page = |name: &str, value: &Value, path: &Path, errors: &mut ErrorList| {
        compute |= matches!(name, "cpu" | "memory");
        if is_huge_page(name) {
            huge = true;
            if !divisible(name, &quantity(value)) {
                let text = quantity(value).to_string();
                let message = format!("{text} is not positive integer multiple of {name}");
                errors.push(field::invalid(path, text, message));
            }
        }
    };
    for (name, value) in resources.entries("limits") {
        let path = limits_path.key(name.clone());
        check_name(name, &path, errors);
        amount(name, value, &path, errors);
        huge_page(name, value, &path, errors);
    }
    for (name, value) in resources.entries("requests") {
        let path = requests_path.key(name.clone());
        check_name(name, &path, errors);
        amount(name, value, &path, errors);
        let asked = quantity(value);
        match resources["limits"].set(name) {
            Some(limit) => {
                let limit = quantity(limit);
                if asked != limit && !overcommit_allowed(name) {
                    let message = format!("must be equal to {name} limit of {limit}");
                    errors.push(field::invalid(&requests_path, asked.to_string(), message));
                } else if asked > limit {
                    let message = format!("must be less than or equal to {name} limit of {limit}");
                    errors.push(field::invalid(&requests_path, asked.to_string(), message));
                }
            }
            None if !overcommit_allowed(name) => {
                errors.push(field::required(&limits_path, "Limit must be set for non overcommitable resources"));
            }
            None => {}
        }
        huge_page(name, value, &path, errors);
    }
    if huge && !compute {
        errors.push(field::forbidden(path, "HugePages require cpu or memory"));
    }
    claim_names(resources, claims, &path.child("claims"), errors);
}

fn divisible(name: &str, amount: &Quantity) -> bool {
    let page = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
    page.is_some_and(|p| p.sign() > 0 && p.milli_value() % 1000 == 0 && amount.value() % p.value() == 0)
}

fn claim_names(resources: &Value, claims: &BTreeSet<&str>, path: &Path, errors: &mut ErrorList) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (i, claim) in resources.list("claims").iter().enumerate() {
        let path = path.index(i);
        let (name, request) = (claim.text("name"), claim.text("request"));
        if name.is_empty() {
            errors.push(field::required(&path, ""));
            continue;
        }
        if seen.contains(name) {
            errors.push(field::duplicate(&path, name));
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                dns1123_label(request, &path.child("request"), errors);
                key = format!("{name}/{request}");
            }
            if seen.contains(&key) {
                errors.push(field::duplicate(&path, key.as_str()));
            } else if request.is_empty() {
                for _ in seen.iter().filter(|k| k.split_once('/').is_some_and(|(n, _)| n == name)) {
                    errors.push(field::duplicate(&path, name));
                }
            }
            seen.insert(key);
        }
        if !claims.contains(name) {
            let mut error = field::not_found(&path, name);
            let known: Vec<&str> = claims.iter().copied().collect();
            error.detail = "must be one of the names in pod.spec.resourceClaims".into();
            error.detail.push_str(&if known.is_empty() {
                " which is empty".into()
            } else {
                format!(": {}", known.join(", "))
            });
            errors.push(error);
        }
    }
}

/// `spec.overhead`.
pub(super) fn overhead(overhead: &Value, path: &Path, errors: &mut ErrorList) {
    let resources = serde_json::json!({ "limits": overhead });
    container_resources(&resources, &BTreeSet::new(), path, errors);
}

type Amounts<'a> = BTreeMap<&'a str, Quantity>;

fn add<'a>(sum: &mut Amounts<'a>, more: &Amounts<'a>) {
    for (name, amount) in more {
        match sum.get_mut(name) {
            Some(sum) => sum.add(amount),
            None => {
                sum.insert(name, amount.clone());
            }
        }
    }
}

fn at_least<'a>(sum: &mut Amounts<'a>, other: &Amounts<'a>) {
    for (name, amount) in other {
        if sum.get(name).is_none_or(|sum| sum < amount) {
            sum.insert(name, amount.clone());
        }
    }
}

/// What all containers need at a time: those that run together, or an init container with the sidecars before it.
fn aggregate<'a>(spec: &'a Value, what: &str) -> Amounts<'a> {
    let of = |container: &'a Value| -> Amounts<'a> {
        let entries = container["resources"].entries(what);
        entries.map(|(name, value)| (name.as_str(), quantity(value))).collect()
    };
    let (mut sum, mut init, mut sidecars) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in spec.list("containers") {
        add(&mut sum, &of(container));
    }
    for container in spec.list("initContainers") {
        let own = of(container);
        let mut now = sidecars.clone();
        add(&mut now, &own);
        if container.text("restartPolicy") == "Always" {
            add(&mut sum, &own);
            sidecars.clone_from(&now);
        }
        at_least(&mut init, &now);
    }
    at_least(&mut sum, &init);
    sum
}

/// Resources of the pod as a whole.
pub(super) fn pod_resources(spec: &Value, claims: &BTreeSet<&str>, path: &Path, errors: &mut ErrorList) {
    let Some(resources) = spec.set("resources") else { return };
    let path = path.child("resources");
    if spec["os"].text("name") == "windows" {
        errors.push(field::forbidden(&path, "may not be set for a windows pod"));
        return;
    }
    if resources.set("claims").is_some() {
        errors.push(field::forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level"));
    }
    requirements(resources, pod_resource_name, claims, &path, errors);
    for (what, only_huge) in [("requests", false), ("limits", true)] {
        if resources.set(what).is_none() {
            continue;
        }
        for (name, sum) in aggregate(spec, what) {
            let Some(own) = resources[what].set(name).filter(|_| !only_huge || name.starts_with("hugepages-")) else {
                continue;
            };
            if sum > quantity(own) {
                let message = format!("must be greater than or equal to aggregate container {what} of {sum}");
                let path = path.child(what).key(name.to_string());
                errors.push(field::invalid(&path, quantity(own).to_string(), message));
            }
        }
    }
    for (i, container) in spec.list("containers").iter().enumerate() {
        for (name, value) in container["resources"].entries("limits") {
            let Some(limit) = resources["limits"].set(name) else { continue };
            if quantity(value) > quantity(limit) {
                let path = path.child("containers").index(i).key(name.clone()).child("limits");
                let message = format!("must be less than or equal to pod limits of {}", quantity(limit));
                errors.push(field::invalid(&path, quantity(value).to_string(), message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_containers_need_at_a_time() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let check = |init: Value, containers: Value, want: &str| {
            let spec = json!({"initContainers": init, "containers": containers});
            assert_eq!(
                aggregate(&spec, "requests").get("cpu").map(ToString::to_string).as_deref(),
                Some(want),
                "{spec}"
            );
        };
        check(json!([]), json!([container("1"), container("500m")]), "1500m");
        check(json!([container("2")]), json!([container("1")]), "2");
        check(json!([sidecar("1"), container("2")]), json!([container("1")]), "3");
        check(json!([container("2"), sidecar("1")]), json!([container("1")]), "2");
        check(json!([sidecar("1"), sidecar("1")]), json!([container("1")]), "3");
    }
}
