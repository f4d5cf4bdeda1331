//! Pods: phase and QoS class at birth, graceful deletion, and what each subresource may change.

use apimachinery::object::ObjectExt as _;
use serde_json::{Value, json};

use crate::registry::hooks::{HookContext, Hooks};

pub struct Pod;

impl Hooks for Pod {
    fn prepare_create(&self, cx: &HookContext<'_>, object: &mut Value) {
        // Upstream computes the class only where none is claimed.
        let claimed = object.str_at(&["status", "qosClass"]).filter(|class| !class.is_empty());
        let class = claimed.unwrap_or_else(|| api::qos::class(object));
        let mut status = json!({"phase": "Pending", "qosClass": class});
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
        label_keys(object);
        app_armor(cx, object);
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
                keep_observed(new, old);
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

/// Terms that name label keys get the pod's own values of them (KEP-3633, KEP-3243).
fn label_keys(pod: &mut Value) {
    const TERMS: [(&str, &str); 4] = [
        ("/affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution", "/podAffinityTerm"),
        ("/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution", ""),
        ("/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution", "/podAffinityTerm"),
        ("/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution", ""),
    ];
    let spec = &pod["spec"];
    if spec.get("affinity").is_none() && spec.get("topologySpreadConstraints").is_none() {
        return;
    }
    let labels = pod.at(&["metadata", "labels"]).cloned().unwrap_or_default();
    let Some(spec) = pod.get_mut("spec") else { return };
    for (list, term) in TERMS.into_iter().chain([("/topologySpreadConstraints", "")]) {
        for item in spec.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(term) = item.pointer_mut(term) {
                merge_keys(term, &labels);
            }
        }
    }
}

fn merge_keys(term: &mut Value, labels: &Value) {
    let mut expressions = Vec::new();
    for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term.list_at(&[keys]).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                expressions.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if let Some(Value::Object(selector)) = term.get_mut("labelSelector")
        && !expressions.is_empty()
        && let Value::Array(list) = selector.entry("matchExpressions").or_insert_with(|| json!([]))
    {
        list.append(&mut expressions);
    }
}

/// The annotations that AppArmor profiles once were become fields (KEP-24).
fn app_armor(cx: &HookContext<'_>, pod: &mut Value) {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let is_windows = pod.str_at(&["spec", "os", "name"]) == Some("windows");
    let annotations: Vec<(String, Option<Value>)> = pod
        .map_at(&["metadata", "annotations"])
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?.to_string(), profile(value.as_str()?))))
        .collect();
    if is_windows || annotations.is_empty() {
        return;
    }
    let of_pod = pod.at(&["spec", "securityContext", "appArmorProfile"]).cloned();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container.str_at(&["name"]).unwrap_or_default().to_string();
            let Some((_, profile)) = annotations.iter().find(|(of, _)| *of == name) else { continue };
            if container.at(&["securityContext", "appArmorProfile"]).is_some_and(|profile| !profile.is_null()) {
                continue;
            }
            if let Some(profile) = profile {
                if Some(profile) == of_pod.as_ref() {
                    continue;
                }
                container.set_at(&["securityContext", "appArmorProfile"], profile.clone());
            }
            let key = format!("metadata.annotations[{PREFIX}{name}]");
            let message = format!("{key}: deprecated since v1.30; use the \"appArmorProfile\" field instead");
            cx.warnings.lock().push(message);
        }
    }
}

/// The field that says what an annotation says, if that can be said.
fn profile(annotation: &str) -> Option<Value> {
    const LONGEST: usize = 4095;
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let name = annotation.strip_prefix("localhost/")?;
            let is_good = !name.is_empty() && name.trim() == name && name.len() <= LONGEST;
            is_good.then(|| json!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

/// Kubelets that do not know of observed generations leave those that are there.
fn keep_observed(new: &mut Value, old: &Value) {
    const FIELD: &str = "observedGeneration";
    let missing = |value: &Value| value.i64_at(&[FIELD]).unwrap_or_default() == 0;
    let status = &old["status"];
    if let Some(known) = status.get(FIELD)
        && missing(&new["status"])
    {
        new.set_at(&["status", FIELD], known.clone());
    }
    let mut known: Vec<&Value> = old.list_at(&["status", "conditions"]).iter().collect();
    let conditions = new.get_mut("status").and_then(|status| status.get_mut("conditions"));
    for condition in conditions.and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(at) = known.iter().position(|other| other.get("type") == condition.get("type")) else { continue };
        let before = known.remove(at);
        if missing(condition)
            && let Some(generation) = before.get(FIELD)
        {
            condition[FIELD] = generation.clone();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_keys_become_expressions() {
        let term = |selector: Value| json!({"labelSelector": selector, "matchLabelKeys": ["a", "none"], "mismatchLabelKeys": ["b"]});
        let mut pod = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {
            "affinity": {"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [term(json!({}))],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": term(Value::Null)}],
            }},
            "topologySpreadConstraints": [{"labelSelector": {}, "matchLabelKeys": ["a"]}],
        }});
        label_keys(&mut pod);
        let check =
            |pointer: &str, want: Value| assert_eq!(pod.pointer(&format!("/spec{pointer}/labelSelector")), Some(&want));
        let a = json!({"key": "a", "operator": "In", "values": ["1"]});
        let b = json!({"key": "b", "operator": "NotIn", "values": ["2"]});
        let anti = "/affinity/podAntiAffinity";
        check(&format!("{anti}/requiredDuringSchedulingIgnoredDuringExecution/0"), json!({"matchExpressions": [a, b]}));
        check(&format!("{anti}/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm"), Value::Null);
        check("/topologySpreadConstraints/0", json!({"matchExpressions": [a]}));
    }

    #[test]
    fn annotations_say_profiles() {
        for (annotation, want) in [
            ("unconfined", Some(json!({"type": "Unconfined"}))),
            ("runtime/default", Some(json!({"type": "RuntimeDefault"}))),
            ("localhost/x", Some(json!({"type": "Localhost", "localhostProfile": "x"}))),
            ("localhost/", None),
            ("localhost/ x", None),
            ("other", None),
        ] {
            assert_eq!(profile(annotation), want, "{annotation}");
        }
    }

    #[test]
    fn old_kubelets_keep_generations() {
        let old = json!({"status": {"observedGeneration": 3, "conditions": [{"type": "A", "observedGeneration": 2}, {"type": "A", "observedGeneration": 1}]}});
        let mut new =
            json!({"status": {"conditions": [{"type": "B"}, {"type": "A"}, {"type": "A", "observedGeneration": 3}]}});
        keep_observed(&mut new, &old);
        let want = json!({"observedGeneration": 3, "conditions": [{"type": "B"}, {"type": "A", "observedGeneration": 2}, {"type": "A", "observedGeneration": 3}]});
        assert_eq!(new["status"], want);
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
