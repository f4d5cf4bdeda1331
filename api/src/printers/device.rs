//! resource.k8s.io (dynamic resource allocation): classes, claims, slices, taints, pool status.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, int, list, text};
use super::{AGE, Column, NAME};

pub(super) const CLASS_COLUMNS: &[Column] = &[NAME, AGE];
pub(super) const CLAIM_COLUMNS: &[Column] =
    &[NAME, Column::string("State").about("A summary of the current state (allocated, pending, reserved, etc.)."), AGE];
pub(super) const CLAIM_TEMPLATE_COLUMNS: &[Column] = &[NAME, AGE];
pub(super) const SLICE_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Node").of("io.k8s.api.resource.v1.ResourceSliceSpec", "nodeName"),
    Column::string("Driver").of("io.k8s.api.resource.v1.ResourceSliceSpec", "driver"),
    Column::string("Pool").of("io.k8s.api.resource.v1.ResourcePool", "name"),
    AGE,
];
pub(super) const TAINT_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Key").of("io.k8s.api.resource.v1.DeviceTaint", "key"),
    Column::string("Value").of("io.k8s.api.resource.v1.DeviceTaint", "value"),
    Column::string("Effect").of("io.k8s.api.resource.v1.DeviceTaint", "effect"),
    Column::string("TimeAdded").of("io.k8s.api.resource.v1.DeviceTaint", "timeAdded"),
    AGE,
];
pub(super) const POOL_STATUS_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Driver").about("The driver to query pools for."),
    Column::string("Total").about("Total number of devices across all pools."),
    Column::string("Available").about("Number of available devices across all pools."),
    Column::string("Allocated").about("Number of allocated devices across all pools."),
    Column::string("Unavailable").about("Number of unavailable devices across all pools."),
    Column::string("Errors").about("Number of pools with validation errors."),
    Column::integer("Pools").about("Total number of matching pools."),
    Column::string("Status").about("Processing status."),
    Column::string("Completed").about("Time since the observation completed."),
];
pub(super) fn claim_row(claim: &Value, now: Timestamp) -> Vec<Value> {
    let mut states = Vec::new();
    let deleting = cells::deleting(claim);
    if deleting {
        states.push("deleted");
    }
    if at(claim, &["status", "allocation"]).is_some() {
        states.push("allocated");
        if !list(claim, &["status", "reservedFor"]).is_empty() {
            states.push("reserved");
        }
    } else if !deleting {
        states.push("pending");
    }
    vec![json!(cells::name(claim)), json!(states.join(",")), cells::age(claim, now)]
}

pub(super) fn slice_row(slice: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(cells::name(slice)),
        json!(text(slice, &["spec", "nodeName"])),
        json!(text(slice, &["spec", "driver"])),
        json!(text(slice, &["spec", "pool", "name"])),
        cells::age(slice, now),
    ]
}

pub(super) fn taint_row(rule: &Value, now: Timestamp) -> Vec<Value> {
    let added = match at(rule, &["spec", "taint", "timeAdded"]) {
        Some(_) => cells::since(rule, &["spec", "taint", "timeAdded"], now),
        None => String::new(),
    };
    let taint = |field| json!(text(rule, &["spec", "taint", field]));
    vec![json!(cells::name(rule)), taint("key"), taint("value"), taint("effect"), json!(added), cells::age(rule, now)]
}

pub(super) fn pool_status_row(request: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = "Pending".to_owned();
    let mut totals = ["-", "-", "-", "-", "-"].map(str::to_owned);
    let mut completed = "<none>".to_owned();
    let pools = list(request, &["status", "pools"]);
    let pool_count = int(request, &["status", "poolCount"]);
    if at(request, &["status"]).is_some() {
        let verdict = list(request, &["status", "conditions"])
            .iter()
            .find(|c| matches!(text(c, &["type"]), "Complete" | "Failed") && text(c, &["status"]) == "True");
        match verdict.map(|condition| (condition, text(condition, &["type"]))) {
            Some((condition, "Complete")) => {
                completed = cells::since(condition, &["lastTransitionTime"], now);
                status = if pool_count > pools.len() as i64 {
                    format!("Complete ({}/{pool_count} pools)", pools.len())
                } else {
                    "Complete".into()
                };
            }
            Some(_) => status = "Failed".into(),
            None => {}
        }
        if status != "Failed" {
            let sum = |field| pools.iter().map(|pool| int(pool, &[field])).sum::<i64>().to_string();
            let errors = pools.iter().filter(|pool| at(pool, &["validationError"]).is_some()).count();
            totals = [
                sum("totalDevices"),
                sum("availableDevices"),
                sum("allocatedDevices"),
                sum("unavailableDevices"),
                errors.to_string(),
            ];
        }
    }
    let mut row = vec![json!(cells::name(request)), json!(text(request, &["spec", "driver"]))];
    row.extend(totals.into_iter().map(Value::String));
    row.extend([json!(pool_count), json!(status), json!(completed)]);
    row
}
