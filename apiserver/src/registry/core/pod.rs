//! Pods: phase and QoS class at birth, graceful deletion, and what each subresource may change.

use apimachinery::object::ObjectExt as _;
use apimachinery::quantity::Quantity;
use serde_json::{Map, Value, json};

use crate::registry::hooks::{HookContext, Hooks};

pub struct Pod;

impl Hooks for Pod {
    fn prepare_create(&self, cx: &HookContext<'_>, object: &mut Value) {
        let mut status = json!({"phase": "Pending", "qosClass": qos_class(object)});
        if !object.list_at(&["spec", "schedulingGates"]).is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null,
                "lastTransitionTime": cx.server.timestamp(),
            }]);
        }
        object.set_at(&["status"], status);
    }

    fn prepare_update(&self, cx: &HookContext<'_>, new: &mut Value, old: &Value) {
        match cx.subresource {
            "status" => {
                // The kubelet's copy may be older than a deletion or a change of owner.
                let owners = old.at(&["metadata", "ownerReferences"]).cloned();
                new.remove_at(&["metadata", "ownerReferences"]);
                if let Some(owners) = owners {
                    new.set_at(&["metadata", "ownerReferences"], owners);
                }
                new.remove_at(&["metadata", "deletionTimestamp"]);
                if new.str_at(&["status", "qosClass"]).unwrap_or_default().is_empty()
                    && let Some(class) = old.at(&["status", "qosClass"]).cloned()
                {
                    new.set_at(&["status", "qosClass"], class);
                }
            }
            "ephemeralcontainers" => {
                let containers = new.at(&["spec", "ephemeralContainers"]).cloned();
                restore(new, old);
                match containers {
                    Some(containers) => new.set_at(&["spec", "ephemeralContainers"], containers),
                    None => {
                        new.remove_at(&["spec", "ephemeralContainers"]);
                    }
                }
                count(new, old);
            }
            "resize" => {
                let changed = new.clone();
                restore(new, old);
                for list in ["containers", "initContainers"] {
                    resize(new, &changed, list);
                }
                count(new, old);
            }
            _ => count(new, old),
        }
    }

    fn grace_period(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let phase = object.str_at(&["status", "phase"]).unwrap_or_default();
        let mut period =
            requested.or_else(|| object.i64_at(&["spec", "terminationGracePeriodSeconds"])).unwrap_or_default();
        // Nothing runs that could be given time.
        if object.str_at(&["spec", "nodeName"]).unwrap_or_default().is_empty()
            || matches!(phase, "Succeeded" | "Failed")
        {
            period = 0;
        }
        if period < 0 {
            period = 1;
        }
        Some(period)
    }
}

/// Everything of the old pod, but the client's resource version and managed fields.
fn restore(new: &mut Value, old: &Value) {
    let version = new.resource_version().to_string();
    let managed = new.at(&["metadata", "managedFields"]).cloned();
    *new = old.clone();
    if !version.is_empty() {
        new.set_resource_version(&version);
    }
    if let Some(managed) = managed {
        new.set_at(&["metadata", "managedFields"], managed);
    }
}

fn resize(new: &mut Value, changed: &Value, list: &str) {
    let wanted: Vec<Value> = changed.list_at(&["spec", list]).to_vec();
    let Some(containers) = new.at_mut_or_create(&["spec"]).get_mut(list).and_then(Value::as_array_mut) else {
        return;
    };
    for container in containers {
        let Some(other) = wanted.iter().find(|other| other.get("name") == container.get("name")) else {
            continue;
        };
        for field in ["resources", "resizePolicy"] {
            if let Some(value) = other.get(field) {
                container[field] = value.clone();
            }
        }
    }
}

fn count(new: &mut Value, old: &Value) {
    if new.get("spec") != old.get("spec") {
        new.set_generation(old.generation() + 1);
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by the requests and limits for CPU and memory.
pub fn qos_class(pod: &Value) -> &'static str {
    let positive = |list: Option<&Map<String, Value>>, name: &str| -> Option<Quantity> {
        let quantity = Quantity::parse(list?.get(name)?.as_str()?).ok()?;
        (quantity.sign() > 0).then_some(quantity)
    };
    let mut any = false;
    let mut guaranteed = true;
    let pod_resources = pod.at(&["spec", "resources"]);
    let containers: Vec<&Value> = match pod_resources {
        Some(resources) if resources.get("requests").is_some() || resources.get("limits").is_some() => vec![resources],
        _ => pod
            .list_at(&["spec", "containers"])
            .iter()
            .chain(pod.list_at(&["spec", "initContainers"]))
            .filter_map(|container| container.get("resources"))
            .collect(),
    };
    let count = if containers.is_empty() { 0 } else { containers.len() };
    let total = pod.list_at(&["spec", "containers"]).len() + pod.list_at(&["spec", "initContainers"]).len();
    for resources in &containers {
        let requests = resources.get("requests").and_then(Value::as_object);
        let limits = resources.get("limits").and_then(Value::as_object);
        for name in ["cpu", "memory"] {
            let (request, limit) = (positive(requests, name), positive(limits, name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= match (&request, &limit) {
                (None, Some(_)) => true,
                (Some(request), Some(limit)) => request.as_f64() == limit.as_f64(),
                _ => false,
            };
        }
    }
    if pod_resources.is_none_or(|r| r.get("requests").is_none() && r.get("limits").is_none()) {
        guaranteed &= count == total;
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let check = |resources: Value, want: &str| {
            let pod = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
            assert_eq!(qos_class(&pod), want, "{pod}");
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed");
        check(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
            "Guaranteed",
        );
        check(json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}), "Burstable");
    }

    #[test]
    fn grace() {
        let running =
            json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
        assert_eq!(Pod.grace_period(&running, None), Some(30));
        assert_eq!(Pod.grace_period(&running, Some(5)), Some(5));
        assert_eq!(Pod.grace_period(&running, Some(-5)), Some(1));
        let unscheduled = json!({"spec": {"terminationGracePeriodSeconds": 30}});
        assert_eq!(Pod.grace_period(&unscheduled, None), Some(0));
    }
}
