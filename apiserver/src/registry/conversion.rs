//! From one version of a kind to another.
//!
//! Most versions differ in nothing but their name. Those that differ have a function here:
//! Events of the core group and of `events.k8s.io`, and HorizontalPodAutoscaler v1 and v2; the betas of
//! dynamic resources are in `devices.rs`.

use api::Resource;
use apimachinery::object::ObjectExt as _;
use serde_json::{Map, Value, json};

use super::devices;

/// An object of one version in another version of the same kind.
pub fn convert(mut object: Value, from: &Resource, to: &Resource) -> Value {
    match (from.kind.as_ref(), from.group.as_ref(), from.version.as_ref(), to.version.as_ref()) {
        ("Event", "events.k8s.io", ..) => event(&mut object, false),
        ("Event", "", ..) => event(&mut object, true),
        ("HorizontalPodAutoscaler", _, "v1", "v2") => hpa_to_v2(&mut object),
        ("HorizontalPodAutoscaler", _, "v2", "v1") => hpa_to_v1(&mut object),
        (kind, "resource.k8s.io", "v1beta1", _) => devices::convert(&mut object, kind, true),
        (kind, "resource.k8s.io", _, "v1beta1") => devices::convert(&mut object, kind, false),
        _ => {}
    }
    object.set_api_version(&to.api_version());
    object
}

/// Names of an Event's fields in the core group and in `events.k8s.io`, where they differ, and
/// whether the latter always writes them.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn event(object: &mut Value, to_events: bool) {
    let Some(map) = object.as_object_mut() else { return };
    for (core, events) in EVENT_FIELDS {
        let (from, to) = if to_events { (core, events) } else { (events, core) };
        if let Some(value) = map.remove(from) {
            map.insert(to.to_string(), value);
        }
    }
    if to_events {
        // Here these are `omitempty`; the core group writes them even when empty.
        for name in ["reportingController", "reportingInstance"] {
            if map.get(name).and_then(Value::as_str) == Some("") {
                map.remove(name);
            }
        }
        map.entry("eventTime").or_insert(Value::Null);
    } else {
        for name in ["reportingComponent", "reportingInstance"] {
            map.entry(name).or_insert_with(|| "".into());
        }
        for name in ["eventTime", "firstTimestamp", "lastTimestamp"] {
            map.entry(name).or_insert(Value::Null);
        }
        for name in ["involvedObject", "source"] {
            map.entry(name).or_insert_with(|| json!({}));
        }
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const STATUSES: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn is_cpu_utilization(metric: &Value) -> bool {
    metric.str_at(&["type"]) == Some("Resource")
        && metric.str_at(&["resource", "name"]) == Some("cpu")
        && metric.at(&["resource", "target", "averageUtilization"]).is_some()
}

fn annotation(object: &mut Value, name: &str) -> Option<Value> {
    let text = object.annotation(name)?.to_string();
    let value = serde_json::from_str(&text).ok()?;
    if let Some(annotations) = object.at_mut_or_create(&["metadata", "annotations"]).as_object_mut() {
        annotations.remove(name);
    }
    if object.annotations().is_some_and(Map::is_empty) {
        object.remove_at(&["metadata", "annotations"]);
    }
    Some(value)
}

fn hpa_to_v2(object: &mut Value) {
    let mut metrics: Vec<Value> = Vec::new();
    let target = object
        .at_mut_or_create(&["spec"])
        .as_object_mut()
        .and_then(|spec| spec.remove("targetCPUUtilizationPercentage"));
    if let Some(Value::Array(others)) = annotation(object, METRICS) {
        metrics.extend(others);
    }
    if let Some(target) = target {
        metrics.push(json!({
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}},
        }));
    }
    if !metrics.is_empty() {
        object.set_at(&["spec", "metrics"], metrics.into());
    }
    if let Some(behavior) = annotation(object, BEHAVIOR) {
        object.set_at(&["spec", "behavior"], behavior);
    }
    let mut current: Vec<Value> = Vec::new();
    if let Some(Value::Array(others)) = annotation(object, STATUSES) {
        current.extend(others);
    }
    let conditions = annotation(object, CONDITIONS);
    let status = object.at_mut_or_create(&["status"]);
    if !status.is_object() {
        *status = json!({});
    }
    if let Some(utilization) = status.as_object_mut().and_then(|map| map.remove("currentCPUUtilizationPercentage")) {
        current.push(json!({
            "type": "Resource",
            "resource": {"name": "cpu", "current": {"averageUtilization": utilization}},
        }));
    }
    status["currentMetrics"] = if current.is_empty() { Value::Null } else { current.into() };
    if let Some(conditions) = conditions {
        status["conditions"] = conditions;
    }
    if let Some(map) = status.as_object_mut() {
        // v2 leaves a zero out.
        if map.get("currentReplicas").and_then(Value::as_i64) == Some(0) {
            map.remove("currentReplicas");
        }
    }
}

fn hpa_to_v1(object: &mut Value) {
    let spec = object.at_mut_or_create(&["spec"]);
    let metrics = spec.as_object_mut().and_then(|spec| spec.remove("metrics"));
    let behavior = spec.as_object_mut().and_then(|spec| spec.remove("behavior"));
    let mut others = Vec::new();
    let mut target = None;
    for metric in metrics.as_ref().and_then(Value::as_array).into_iter().flatten() {
        if target.is_none() && is_cpu_utilization(metric) {
            target = metric.at(&["resource", "target", "averageUtilization"]).cloned();
        } else {
            others.push(metric.clone());
        }
    }
    if let Some(target) = target {
        spec["targetCPUUtilizationPercentage"] = target;
    }
    if !others.is_empty() {
        object.set_annotation(METRICS, &Value::from(others).to_string());
    }
    if let Some(behavior) = behavior {
        object.set_annotation(BEHAVIOR, &behavior.to_string());
    }
    let status = object.at_mut_or_create(&["status"]);
    if !status.is_object() {
        *status = json!({});
    }
    let current = status.as_object_mut().and_then(|map| map.remove("currentMetrics"));
    let conditions = status.as_object_mut().and_then(|map| map.remove("conditions"));
    if status.get("currentReplicas").is_none() {
        status["currentReplicas"] = 0.into();
    }
    let mut others = Vec::new();
    for metric in current.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let utilization = metric.at(&["resource", "current", "averageUtilization"]);
        match utilization {
            Some(utilization) if metric.str_at(&["resource", "name"]) == Some("cpu") => {
                status["currentCPUUtilizationPercentage"] = utilization.clone();
            }
            _ => others.push(metric.clone()),
        }
    }
    if !others.is_empty() {
        object.set_annotation(STATUSES, &Value::from(others).to_string());
    }
    if let Some(conditions) = conditions {
        object.set_annotation(CONDITIONS, &conditions.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoscalers_survive_the_way_there_and_back() {
        let table = api::table();
        let find = |version| table.find_resource("autoscaling", version, "horizontalpodautoscalers").unwrap();
        let v1 = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"},
            "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50},
            "status": {"currentReplicas": 0, "desiredReplicas": 0},
        });
        let v2 = convert(v1.clone(), find("v1"), find("v2"));
        assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        assert_eq!(convert(v2, find("v2"), find("v1")), v1);
    }

    #[test]
    fn events_are_one() {
        let table = api::table();
        let core = table.find_resource("", "v1", "events").unwrap();
        let events = table.find_resource("events.k8s.io", "v1", "events").unwrap();
        let object = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {}, "note": "n", "regarding": {"kind": "Pod"}, "eventTime": null});
        let stored = convert(object, events, core);
        assert_eq!(stored["message"], "n");
        assert_eq!(stored["involvedObject"]["kind"], "Pod");
        assert_eq!(stored["apiVersion"], "v1");
    }
}
