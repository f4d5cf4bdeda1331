//! scheduling.k8s.io: PriorityClass, Workload, PodGroup.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, flag, int, list, opt_text, text};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Value").of("io.k8s.api.scheduling.v1.PriorityClass", "value"),
    Column::boolean("Global-Default").of("io.k8s.api.scheduling.v1.PriorityClass", "globalDefault"),
    AGE,
    Column::string("PreemptionPolicy").of("io.k8s.api.scheduling.v1.PriorityClass", "preemptionPolicy"),
];
pub(super) const WORKLOAD_COLUMNS: &[Column] = &[NAME, AGE];
pub(super) const POD_GROUP_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Policy").of("io.k8s.api.scheduling.v1alpha2.PodGroupSpec", "schedulingPolicy"),
    Column::string("Workload").about("Name of the referenced Workload object"),
    Column::string("Status").about("Status of the PodGroup"),
    AGE,
];
pub(super) fn row(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(cells::name(class)),
        json!(int(class, &["value"])),
        json!(flag(class, &["globalDefault"])),
        cells::age(class, now),
        json!(text(class, &["preemptionPolicy"])),
    ]
}

pub(super) fn pod_group_row(group: &Value, now: Timestamp) -> Vec<Value> {
    let condition = |r#type| list(group, &["status", "conditions"]).iter().rev().find(|c| text(c, &["type"]) == r#type);
    let status = match (condition("DisruptionTarget"), condition("PodGroupScheduled")) {
        (Some(disrupted), _) => text(disrupted, &["reason"]),
        (None, Some(scheduled)) if text(scheduled, &["status"]) == "True" => "Scheduled",
        (None, Some(_)) => "Unschedulable",
        (None, None) => "Pending",
    };
    let gang = at(group, &["spec", "schedulingPolicy", "gang"]).is_some();
    vec![
        json!(cells::name(group)),
        json!(if gang { "Gang" } else { "Basic" }),
        json!(opt_text(group, &["spec", "podGroupTemplateRef", "workload", "workloadName"]).unwrap_or("<none>")),
        json!(status),
        cells::age(group, now),
    ]
}
