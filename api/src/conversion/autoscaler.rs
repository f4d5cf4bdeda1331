//! HorizontalPodAutoscaler in `autoscaling/v1` and the stored v2.
//!
//! v1 knows a target for CPU and nothing more; what else v2 says travels in annotations, in v1's older
//! forms of metrics and in the form in which Go writes the internal type of `behavior`.

use apimachinery::gotext;
use apimachinery::object::ObjectExt as _;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const STATUSES: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const TOLERANCES: [&str; 2] =
    ["autoscaling.alpha.kubernetes.io/scale-down-tolerance", "autoscaling.alpha.kubernetes.io/scale-up-tolerance"];

/// What v1 always meant where it named no metric.
const DEFAULT_UTILIZATION: i64 = 80;

/// Forms of metrics, by their `type`.
const KINDS: [&str; 5] = ["object", "pods", "resource", "containerResource", "external"];

fn is_cpu_utilization(metric: &Value) -> bool {
    metric.str_at(&["type"]) == Some("Resource")
        && metric.str_at(&["resource", "name"]) == Some("cpu")
        && metric.i64_at(&["resource", "target", "averageUtilization"]).is_some()
}

/// The JSON in an annotation, if it is any.
fn annotation(object: &Value, name: &str) -> Option<Value> {
    serde_json::from_str(object.annotation(name)?).ok()
}

/// Annotations of this conversion never stay: each version has its own fields.
fn drop_annotations(object: &mut Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    for name in [METRICS, STATUSES, CONDITIONS, BEHAVIOR].iter().chain(&TOLERANCES) {
        annotations.remove(*name);
    }
    if annotations.is_empty() {
        object.remove_at(&["metadata", "annotations"]);
    }
}

fn take(from: &mut Value, field: &str) -> Option<Value> {
    from.as_object_mut()?.remove(field).filter(|value| !value.is_null())
}

fn object_at<'a>(object: &'a mut Value, name: &str) -> &'a mut Value {
    let value = object.at_mut_or_create(&[name]);
    if !value.is_object() {
        *value = json!({});
    }
    value
}

/// v1 → v2.
pub(super) fn to_v2(object: &mut Value) {
    let others = annotation(object, METRICS).and_then(|v| v.as_array().cloned());
    let behavior = annotation(object, BEHAVIOR).map(|behavior| renamed(behavior, lower)).filter(|b| b != &json!({}));
    let statuses = annotation(object, STATUSES).and_then(|v| v.as_array().cloned());
    let conditions = annotation(object, CONDITIONS).filter(Value::is_array);
    drop_annotations(object);
    let spec = object_at(object, "spec");
    let mut metrics: Vec<Value> = others.into_iter().flatten().map(|metric| metric_to_v2(metric, true)).collect();
    let target = take(spec, "targetCPUUtilizationPercentage");
    let target = target.or_else(|| metrics.is_empty().then(|| DEFAULT_UTILIZATION.into()));
    if let Some(target) = target {
        let target = json!({"type": "Utilization", "averageUtilization": target});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    spec["metrics"] = metrics.into();
    if let Some(behavior) = behavior {
        spec["behavior"] = behavior;
    }
    let status = object_at(object, "status");
    let utilization = take(status, "currentCPUUtilizationPercentage");
    let current = match (statuses, utilization) {
        (Some(statuses), _) => statuses.into_iter().map(|metric| metric_to_v2(metric, false)).collect(),
        (None, Some(utilization)) => json!([{
            "type": "Resource",
            "resource": {"name": "cpu", "current": {"averageUtilization": utilization}},
        }]),
        (None, None) => Value::Null,
    };
    status["currentMetrics"] = current;
    if let Some(conditions) = conditions {
        status["conditions"] = conditions;
    }
    // v2 leaves a zero out.
    if status.i64_at(&["currentReplicas"]) == Some(0) {
        status.remove_at(&["currentReplicas"]);
    }
}

/// v2 → v1.
pub(super) fn to_v1(object: &mut Value) {
    drop_annotations(object);
    let spec = object_at(object, "spec");
    let (metrics, behavior) = (take(spec, "metrics"), take(spec, "behavior"));
    let metrics = metrics.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(cpu) = metrics.iter().find(|metric| is_cpu_utilization(metric)) {
        spec["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"].clone();
    }
    let others: Vec<Value> =
        metrics.into_iter().filter(|m| !is_cpu_utilization(m)).map(|m| metric_to_v1(m, true)).collect();
    let status = object_at(object, "status");
    let (current, conditions) = (take(status, "currentMetrics"), take(status, "conditions"));
    let current = current.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    if status.get("currentReplicas").is_none() {
        status["currentReplicas"] = 0.into();
    }
    let cpu = |metric: &&Value| metric.str_at(&["resource", "name"]) == Some("cpu") && metric["type"] == "Resource";
    for metric in current.iter().filter(cpu) {
        if let Some(utilization) = metric.at(&["resource", "current", "averageUtilization"]) {
            status["currentCPUUtilizationPercentage"] = utilization.clone();
        }
    }
    let current: Vec<Value> = current.into_iter().map(|metric| metric_to_v1(metric, false)).collect();
    for (name, value) in [(METRICS, others), (STATUSES, current)] {
        if !value.is_empty() {
            object.set_annotation(name, &go_text(&value.into()));
        }
    }
    if let Some(behavior) = behavior {
        object.set_annotation(BEHAVIOR, &internal_behavior(&behavior));
    }
    if let Some(conditions) = conditions.filter(|c| c.as_array().is_some_and(|c| !c.is_empty())) {
        object.set_annotation(CONDITIONS, &go_text(&conditions));
    }
}

/// Moves fields of an object that are there.
fn moved(from: &Value, fields: &[(&str, &str)], to: &mut Map<String, Value>) {
    for (name, new) in fields {
        if let Some(value) = from.pointer(name).filter(|value| !value.is_null()) {
            to.insert((*new).to_owned(), value.clone());
        }
    }
}

/// A quantity that v1 cannot leave out.
fn or_zero(map: &mut Map<String, Value>, name: &str) {
    map.entry(name).or_insert_with(|| "0".into());
}

/// A metric's source, or its status, as v1 had it.
fn metric_to_v1(metric: Value, source: bool) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), metric.get("type").cloned().unwrap_or_else(|| "".into()));
    let (of, names) = if source { ("target", NAMES) } else { ("current", STATUS_NAMES) };
    let at = |field: &str| format!("/{of}/{field}");
    let (value, average, utilization) = (at("value"), at("averageValue"), at("averageUtilization"));
    for kind in KINDS {
        let Some(from) = metric.get(kind).filter(|value| value.is_object()) else { continue };
        let mut to = Map::new();
        match kind {
            "object" => {
                to.insert("target".into(), from.get("describedObject").cloned().unwrap_or_default());
                let fields = [(&*value, names.value), (&*average, "averageValue")];
                moved(from, &[("/metric/name", "metricName"), ("/metric/selector", "selector")], &mut to);
                moved(from, &fields, &mut to);
                or_zero(&mut to, names.value);
            }
            "pods" => {
                moved(from, &[("/metric/name", "metricName"), ("/metric/selector", "selector")], &mut to);
                moved(from, &[(&average, names.average)], &mut to);
                or_zero(&mut to, names.average);
            }
            "external" => {
                moved(from, &[("/metric/name", "metricName"), ("/metric/selector", "metricSelector")], &mut to);
                moved(from, &[(&value, names.value), (&average, names.average)], &mut to);
                if !source {
                    or_zero(&mut to, names.value);
                }
            }
            _ => {
                moved(from, &[("/name", "name"), ("/container", "container")], &mut to);
                moved(from, &[(&utilization, names.utilization), (&average, names.average)], &mut to);
                if !source {
                    or_zero(&mut to, names.average);
                }
            }
        }
        out.insert(kind.into(), to.into());
    }
    out.into()
}

/// What v1 calls values.
struct Names {
    value: &'static str,
    average: &'static str,
    utilization: &'static str,
}

const NAMES: Names =
    Names { value: "targetValue", average: "targetAverageValue", utilization: "targetAverageUtilization" };
const STATUS_NAMES: Names =
    Names { value: "currentValue", average: "currentAverageValue", utilization: "currentAverageUtilization" };

fn metric_to_v2(metric: Value, source: bool) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), metric.get("type").cloned().unwrap_or_else(|| "".into()));
    let names = if source { NAMES } else { STATUS_NAMES };
    let pointer = |field: &str| format!("/{field}");
    let (value, average, utilization) = (pointer(names.value), pointer(names.average), pointer(names.utilization));
    for kind in KINDS {
        let Some(from) = metric.get(kind).filter(|value| value.is_object()) else { continue };
        let (mut to, mut amounts, mut id) = (Map::new(), Map::new(), Map::new());
        let selector = if kind == "external" { "/metricSelector" } else { "/selector" };
        moved(from, &[("/metricName", "name"), (selector, "selector")], &mut id);
        let average: &str = if kind == "object" { "/averageValue" } else { &average };
        moved(
            from,
            &[(&value, "value"), (average, "averageValue"), (&utilization, "averageUtilization")],
            &mut amounts,
        );
        let target = match kind {
            "object" | "external" if amounts.contains_key("averageValue") => "AverageValue",
            "object" | "external" => "Value",
            "resource" | "containerResource" if amounts.contains_key("averageUtilization") => "Utilization",
            _ => "AverageValue",
        };
        // v1 cannot leave an object's value out: zero beside an average is none.
        if source && kind == "object" && target == "AverageValue" && amounts.get("value") == Some(&"0".into()) {
            amounts.remove("value");
        }
        if source {
            let target = if kind == "external" && amounts.contains_key("value") { "Value" } else { target };
            amounts.insert("type".into(), target.into());
        }
        if kind == "object" {
            to.insert("describedObject".into(), from.get("target").cloned().unwrap_or_default());
        }
        if matches!(kind, "resource" | "containerResource") {
            moved(from, &[("/name", "name"), ("/container", "container")], &mut to);
        } else {
            to.insert("metric".into(), id.into());
        }
        to.insert(if source { "target" } else { "current" }.into(), amounts.into());
        out.insert(kind.into(), to.into());
    }
    out.into()
}

/// `ScaleUp` → `scaleUp`, at every level; what is null is gone.
fn renamed(value: Value, name: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (name(&key), renamed(value, name)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(|item| renamed(item, name)).collect(),
        other => other,
    }
}

fn lower(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

/// Scaling rules as Go writes its internal type.
fn internal_behavior(behavior: &Value) -> String {
    let text = |value: &Value, field: &str| gotext::json(value.get(field).unwrap_or(&Value::Null));
    let rules = |rules: Option<&Value>| {
        let Some(rules) = rules.filter(|rules| rules.is_object()) else { return "null".to_owned() };
        let policies = match rules.get("policies").and_then(Value::as_array) {
            None => "null".to_owned(),
            Some(list) => {
                let list: Vec<String> = list
                    .iter()
                    .map(|policy| {
                        let [kind, value, period] = ["type", "value", "periodSeconds"].map(|field| text(policy, field));
                        format!("{{\"Type\":{kind},\"Value\":{value},\"PeriodSeconds\":{period}}}")
                    })
                    .collect();
                format!("[{}]", list.join(","))
            }
        };
        let [window, select, tolerance] =
            ["stabilizationWindowSeconds", "selectPolicy", "tolerance"].map(|field| text(rules, field));
        format!(
            "{{\"StabilizationWindowSeconds\":{window},\"SelectPolicy\":{select},\"Policies\":{policies},\"Tolerance\":{tolerance}}}"
        )
    };
    format!("{{\"ScaleUp\":{},\"ScaleDown\":{}}}", rules(behavior.get("scaleUp")), rules(behavior.get("scaleDown")))
}

/// JSON with fields in the order of Go's structs; one order serves all that occur here.
fn go_text(value: &Value) -> String {
    const ORDER: [&str; 29] = [
        "type",
        "status",
        "lastTransitionTime",
        "reason",
        "message",
        "object",
        "pods",
        "resource",
        "containerResource",
        "external",
        "target",
        "kind",
        "name",
        "apiVersion",
        "metricName",
        "metricSelector",
        "targetValue",
        "currentValue",
        "targetAverageUtilization",
        "currentAverageUtilization",
        "targetAverageValue",
        "currentAverageValue",
        "container",
        "selector",
        "averageValue",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
    ];
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let mut fields: Vec<(&String, &Value)> = map.iter().collect();
            fields.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(name, value)| {
                    let value = if name == "matchLabels" { gotext::json(value) } else { go_text(value) };
                    format!("{}:{value}", gotext::quote(name))
                })
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        other => gotext::json(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let metrics = json!([
            {"type": "Pods", "pods": {"metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "100"}}},
            {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "i"}, "target": {"type": "Value", "value": "2k"}}},
            {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "30"}}},
            {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "target": {"type": "AverageValue", "averageValue": "10Mi"}}},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
        ]);
        let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": 10, "selectPolicy": "Min", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}});
        let v2 = json!({
            "metadata": {"name": "x"},
            "spec": {"maxReplicas": 3, "metrics": metrics, "behavior": behavior},
            "status": {"desiredReplicas": 0, "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 3, "averageValue": "30m"}}},
            ], "conditions": [{"type": "AbleToScale", "status": "True"}]},
        });
        let mut object = v2.clone();
        to_v1(&mut object);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 70}));
        assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 3);
        let annotations = &object["metadata"]["annotations"];
        assert!(annotations[METRICS].as_str().unwrap().starts_with(
            r#"[{"type":"Pods","pods":{"metricName":"rps","targetAverageValue":"100","selector":{"matchLabels":{"a":"b"}}}},{"type":"Object","object":{"target":{"kind":"Service","name":"i","apiVersion":"v1"},"metricName":"hits","targetValue":"2k"}}"#
        ), "{annotations}");
        assert_eq!(
            annotations[BEHAVIOR],
            r#"{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":10,"SelectPolicy":"Min","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":60}],"Tolerance":null}}"#
        );
        to_v2(&mut object);
        assert_eq!(object, v2);
    }

    #[test]
    fn no_metric_means_cpu() {
        let mut object = json!({"spec": {"maxReplicas": 1}, "status": {}});
        to_v2(&mut object);
        assert_eq!(object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    }
}
