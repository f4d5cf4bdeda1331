//! LimitRanger: fills in the namespace's default requests and limits, then refuses pods and claims
//! that are outside of its bounds.

use api::amounts::{Half, Options, ResourceList, list, of_pod};
use apimachinery::object::ObjectExt as _;
use apimachinery::quantity::Quantity;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{Attributes, Name, Operation, Plugin, lookup};
use crate::server::Server;

pub const NAME: &str = "LimitRanger";

/// Tells users what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Above this, amounts are compared in whole units.
const MAX_MILLI_VALUE: i64 = i64::MAX / 1000;

pub struct LimitRanger;

fn concerns(attributes: &Attributes<'_>, old: Option<&Value>) -> bool {
    let resource = &attributes.served.resource;
    let pods = resource.group.is_empty() && resource.plural == "pods";
    let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
    let wanted = match attributes.subresource {
        "resize" => pods && attributes.operation == Operation::Update,
        "" if pods => attributes.operation == Operation::Create,
        "" => resource.group.is_empty() && resource.plural == "persistentvolumeclaims",
        _ => false,
    };
    writes && wanted && old.is_none_or(|old| old.deletion_timestamp().is_none())
}

#[async_trait]
impl Plugin for LimitRanger {
    fn resources(&self) -> &'static [Name] {
        &[("", "pods"), ("", "persistentvolumeclaims")]
    }

    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !concerns(attributes, old) || attributes.served.resource.plural != "pods" {
            return Ok(());
        }
        let ranges = lookup::list(server, "", "limitranges", Some(&attributes.namespace)).await?;
        for range in &ranges {
            let (mut requests, mut limits) = (ResourceList::new(), ResourceList::new());
            for limit in range.list_at(&["spec", "limits"]) {
                if limit.str_at(&["type"]) == Some("Container") {
                    requests.extend(list(limit, &["defaultRequest"]));
                    limits.extend(list(limit, &["default"]));
                }
            }
            fill(object, &requests, &limits);
        }
        Ok(())
    }

    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !concerns(attributes, old) {
            return Ok(());
        }
        let ranges = lookup::list(server, "", "limitranges", Some(&attributes.namespace)).await?;
        for range in &ranges {
            let mut errors = Vec::new();
            for limit in range.list_at(&["spec", "limits"]) {
                judge(limit, attributes.served.resource.plural == "pods", object, &mut errors);
            }
            if !errors.is_empty() {
                return Err(attributes.forbidden(super::aggregate(errors)));
            }
        }
        Ok(())
    }
}

/// Gives every container what it says nothing about.
fn fill(pod: &mut Value, requests: &ResourceList, limits: &ResourceList) {
    let mut notes = Vec::new();
    for (field, kind) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod["spec"][field].as_array_mut() else { continue };
        for container in containers {
            let name = container.str_at(&["name"]).unwrap_or_default().to_string();
            for (half, defaults, word) in [("requests", requests, "request"), ("limits", limits, "limit")] {
                let have = list(container, &["resources", half]);
                let missing: Vec<&String> = defaults.keys().filter(|name| !have.contains_key(*name)).collect();
                if missing.is_empty() {
                    continue;
                }
                for resource in &missing {
                    container.set_at(&["resources", half, resource.as_str()], json!(defaults[*resource].to_string()));
                }
                let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
                notes.push(format!("{} {word} for {kind} {name}", names.join(", ")));
            }
        }
    }
    if !notes.is_empty() {
        pod.set_annotation(ANNOTATION, &format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

fn judge(limit: &Value, is_pod: bool, object: &Value, errors: &mut Vec<String>) {
    let kind = limit.str_at(&["type"]).unwrap_or_default();
    let mut check = |requests: &ResourceList, limits: &ResourceList| {
        for (name, bound) in list(limit, &["min"]) {
            errors.extend(too_small(kind, &name, &bound, requests, limits));
        }
        for (name, bound) in list(limit, &["max"]) {
            errors.extend(if kind == "PersistentVolumeClaim" {
                request_too_large(kind, &name, &bound, requests)
            } else {
                too_large(kind, &name, &bound, requests, limits)
            });
        }
        for (name, bound) in list(limit, &["maxLimitRequestRatio"]) {
            if kind != "PersistentVolumeClaim" {
                errors.extend(ratio(kind, &name, &bound, requests, limits));
            }
        }
    };
    match kind {
        "Container" if is_pod => {
            for field in ["containers", "initContainers"] {
                for container in object.list_at(&["spec", field]) {
                    check(&list(container, &["resources", "requests"]), &list(container, &["resources", "limits"]));
                }
            }
        }
        "Pod" if is_pod => {
            let of = |half| of_pod(object, half, Options::default());
            check(&of(Half::Requests), &of(Half::Limits));
        }
        "PersistentVolumeClaim" if !is_pod => {
            check(&list(object, &["spec", "resources", "requests"]), &ResourceList::new());
        }
        _ => {}
    }
}

/// Three amounts in the unit in which all can be compared; what is absent is zero.
fn comparable(amounts: [Option<&Quantity>; 3]) -> [i64; 3] {
    let whole = amounts.map(|amount| amount.map_or(0, Quantity::value));
    if whole.iter().all(|value| *value <= MAX_MILLI_VALUE) {
        amounts.map(|amount| amount.map_or(0, Quantity::milli_value))
    } else {
        whole
    }
}

fn too_small(
    kind: &str,
    name: &str,
    bound: &Quantity,
    requests: &ResourceList,
    limits: &ResourceList,
) -> Option<String> {
    let (request, limit) = (requests.get(name), limits.get(name));
    let [asked, limited, least] = comparable([request, limit, Some(bound)]);
    let start = format!("minimum {name} usage per {kind} is {bound}");
    match (request, limit) {
        (None, _) => Some(format!("{start}.  No request is specified")),
        (Some(request), _) if asked < least => Some(format!("{start}, but request is {request}")),
        (_, Some(limit)) if limited < least => Some(format!("{start}, but limit is {limit}")),
        _ => None,
    }
}

fn request_too_large(kind: &str, name: &str, bound: &Quantity, requests: &ResourceList) -> Option<String> {
    let request = requests.get(name);
    let [asked, _, most] = comparable([request, None, Some(bound)]);
    let start = format!("maximum {name} usage per {kind} is {bound}");
    match request {
        None => Some(format!("{start}.  No request is specified")),
        Some(request) if asked > most => Some(format!("{start}, but request is {request}")),
        _ => None,
    }
}

fn too_large(
    kind: &str,
    name: &str,
    bound: &Quantity,
    requests: &ResourceList,
    limits: &ResourceList,
) -> Option<String> {
    let (request, limit) = (requests.get(name), limits.get(name));
    let [asked, limited, most] = comparable([request, limit, Some(bound)]);
    let start = format!("maximum {name} usage per {kind} is {bound}");
    match (request, limit) {
        (_, None) => Some(format!("{start}.  No limit is specified")),
        (_, Some(limit)) if limited > most => Some(format!("{start}, but limit is {limit}")),
        (Some(request), _) if asked > most => Some(format!("{start}, but request is {request}")),
        _ => None,
    }
}

fn ratio(kind: &str, name: &str, bound: &Quantity, requests: &ResourceList, limits: &ResourceList) -> Option<String> {
    let [asked, limited, _] = comparable([requests.get(name), limits.get(name), Some(bound)]);
    let start = format!("{name} max limit to request ratio per {kind} is {bound}");
    if asked == 0 {
        return Some(format!("{start}, but no request is specified or request is 0"));
    }
    if limited == 0 {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    }
    let ratio = limited as f64 / asked as f64;
    (ratio > bound.as_f64()).then(|| format!("{start}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_filled_in_and_told() {
        let mut pod = json!({"spec": {
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "2"}}}, {"name": "b"}],
            "initContainers": [{"name": "i"}],
        }});
        let requests = list(&json!({"cpu": "100m", "memory": "1Mi"}), &[]);
        let limits = list(&json!({"cpu": "1"}), &[]);
        fill(&mut pod, &requests, &limits);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
        assert_eq!(pod["spec"]["containers"][1]["resources"]["limits"]["cpu"], "1");
        assert_eq!(
            pod.annotation(ANNOTATION),
            Some(
                "LimitRanger plugin set: cpu, memory request for container a; cpu, memory request for container b; \
                 cpu limit for container b; cpu, memory request for init container i; cpu limit for init container i"
            )
        );
    }

    #[test]
    fn bounds_are_kept() {
        let check = |limit: Value, requests: Value, limits: Value| {
            let pod = json!({"spec": {"containers": [{"resources": {"requests": requests, "limits": limits}}]}});
            let mut errors = Vec::new();
            judge(&limit, true, &pod, &mut errors);
            errors.join(";")
        };
        let container = |field: &str, bound: &str| json!({"type": "Container", field: {"cpu": bound}});
        for (limit, requests, limits, want) in [
            (container("min", "1"), json!({"cpu": "1"}), json!({}), ""),
            (
                container("min", "1"),
                json!({}),
                json!({}),
                "minimum cpu usage per Container is 1.  No request is specified",
            ),
            (
                container("min", "1"),
                json!({"cpu": "500m"}),
                json!({}),
                "minimum cpu usage per Container is 1, but request is 500m",
            ),
            (
                container("max", "1"),
                json!({"cpu": "1"}),
                json!({}),
                "maximum cpu usage per Container is 1.  No limit is specified",
            ),
            (
                container("max", "1"),
                json!({"cpu": "1"}),
                json!({"cpu": "2"}),
                "maximum cpu usage per Container is 1, but limit is 2",
            ),
            (
                container("maxLimitRequestRatio", "2"),
                json!({"cpu": "1"}),
                json!({"cpu": "3"}),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "1"}}),
                json!({"cpu": "2"}),
                json!({"cpu": "2"}),
                "maximum cpu usage per Pod is 1, but limit is 2",
            ),
        ] {
            assert_eq!(check(limit.clone(), requests, limits), want, "{limit}");
        }
    }
}
