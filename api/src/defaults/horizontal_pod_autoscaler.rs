//! HorizontalPodAutoscaler: one replica at least; in v2 a CPU target and scaling rules.

use serde_json::{Value, json};

use super::set::{Tree, at, child, if_nil, if_zero};

pub(super) fn set(version: &str, autoscaler: &mut Value) {
    // v1 has its other metrics in an annotation.
    let annotation = &autoscaler["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"];
    let others = annotation.as_str().and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok());
    let others = others.is_some_and(|metrics| !metrics.is_empty());
    let Some(spec) = at(autoscaler, &["spec"]) else { return };
    if_nil(spec, "minReplicas", 1);
    if version != "v2" {
        if !others {
            if_nil(spec, "targetCPUUtilizationPercentage", 80);
        }
        return;
    }
    let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    if_zero(spec, "metrics", cpu);
    if let Some(behavior) = child(spec, "behavior") {
        rules(
            behavior,
            "scaleUp",
            &json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]}),
        );
        rules(
            behavior,
            "scaleDown",
            &json!({"selectPolicy": "Max", "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15}]}),
        );
    }
}

fn rules(behavior: &mut Tree, name: &str, defaults: &Value) {
    if_nil(behavior, name, json!({}));
    if let (Some(rules), Value::Object(defaults)) = (child(behavior, name), defaults) {
        for (field, value) in defaults {
            if_nil(rules, field, value.clone());
        }
    }
}
