//! HorizontalPodAutoscalers of both versions, and the Scale subresource.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, int, list, opt_int, quantity, text};
use super::{AGE, Column, META, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Reference").of("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec", "scaleTargetRef"),
    Column::string("Targets").of("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec", "metrics"),
    Column::string("MinPods").of("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec", "minReplicas"),
    Column::string("MaxPods").of("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec", "maxReplicas"),
    Column::string("Replicas").of("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerStatus", "currentReplicas"),
    AGE,
];
pub(super) const SCALE_COLUMNS: &[Column] = &[
    Column::string("Name").of(META, "name"),
    Column::integer("Desired").of("io.k8s.api.autoscaling.v1.ScaleSpec", "replicas"),
    Column::integer("Available").of("io.k8s.api.autoscaling.v1.ScaleStatus", "replicas"),
    AGE,
];
/// How many metrics a cell lists before it only counts.
const MAX: usize = 2;

pub(super) fn row(autoscaler: &Value, now: Timestamp) -> Vec<Value> {
    let target = |field| text(autoscaler, &["spec", "scaleTargetRef", field]);
    let minimum = opt_int(autoscaler, &["spec", "minReplicas"]).map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
    vec![
        json!(cells::name(autoscaler)),
        json!(format!("{}/{}", target("kind"), target("name"))),
        json!(metrics(autoscaler)),
        json!(minimum),
        json!(int(autoscaler, &["spec", "maxReplicas"])),
        json!(int(autoscaler, &["status", "currentReplicas"])),
        cells::age(autoscaler, now),
    ]
}

pub(super) fn scale_row(scale: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(cells::name(scale)),
        json!(int(scale, &["spec", "replicas"])),
        json!(int(scale, &["status", "replicas"])),
        cells::age(scale, now),
    ]
}

fn metrics(autoscaler: &Value) -> String {
    // v1 knows one metric, CPU utilization, in fields of its own.
    if let Some(target) = opt_int(autoscaler, &["spec", "targetCPUUtilizationPercentage"]) {
        let current = opt_int(autoscaler, &["status", "currentCPUUtilizationPercentage"])
            .map_or_else(|| "<unknown>".to_owned(), |percent| format!("{percent}%"));
        return format!("cpu: {current}/{target}%");
    }
    let specs = list(autoscaler, &["spec", "metrics"]);
    if specs.is_empty() {
        return "<none>".into();
    }
    let statuses = list(autoscaler, &["status", "currentMetrics"]);
    let shown: Vec<String> = specs
        .iter()
        .take(MAX)
        .enumerate()
        .map(|(i, spec)| metric(spec, statuses.get(i).unwrap_or(&Value::Null)))
        .collect();
    let joined = shown.join(", ");
    if specs.len() > MAX { format!("{joined} + {} more...", specs.len() - MAX) } else { joined }
}

fn metric(spec: &Value, status: &Value) -> String {
    let source = match text(spec, &["type"]) {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let current = at(status, &[source]);
    let average_target = at(spec, &[source, "target", "averageValue"]).is_some();
    let wanted = |field| quantity(spec, &[source, "target", field]);
    let measured = |field, must_exist: bool| match current {
        Some(current) if !must_exist || at(current, &["current", field]).is_some() => {
            quantity(current, &["current", field])
        }
        _ => "<unknown>".to_owned(),
    };
    match source {
        "pods" => format!("{}/{}", measured("averageValue", false), wanted("averageValue")),
        "external" | "object" if average_target => {
            format!("{}/{} (avg)", measured("averageValue", true), wanted("averageValue"))
        }
        "external" | "object" => format!("{}/{}", measured("value", false), wanted("value")),
        _ => {
            let name = text(spec, &[source, "name"]);
            if average_target {
                return format!("{name}: {}/{}", measured("averageValue", false), wanted("averageValue"));
            }
            let percent = |n: Option<i64>, absent: &str| n.map_or_else(|| absent.to_owned(), |n| format!("{n}%"));
            let now = percent(current.and_then(|c| opt_int(c, &["current", "averageUtilization"])), "<unknown>");
            let target = percent(opt_int(spec, &[source, "target", "averageUtilization"]), "<auto>");
            format!("{name}: {now}/{target}")
        }
    }
}
