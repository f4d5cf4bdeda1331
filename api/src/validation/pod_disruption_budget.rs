//! PodDisruptionBudget.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::checks::{label_selector, non_negatives};
use super::conditions;
use super::workload::{int_or_percent, not_more_than_100_percent};
use crate::read::Read;

pub(super) fn create(budget: &Value, errors: &mut ErrorList) {
    spec(budget, errors);
}

pub(super) fn update_status(new: &Value, errors: &mut ErrorList) {
    const COUNTS: [&str; 4] = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    let (status, path) = (&new["status"], Path::new("status"));
    conditions::check(status.list("conditions"), &path.child("conditions"), errors);
    non_negatives(status, &COUNTS, &path, errors);
}

fn spec(budget: &Value, errors: &mut ErrorList) {
    const EVICTION: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];
    let (spec, path) = (&budget["spec"], Path::new("spec"));
    if spec.set("minAvailable").is_some() && spec.set("maxUnavailable").is_some() {
        errors.push(field::invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set"));
    }
    for name in ["minAvailable", "maxUnavailable"] {
        if let Some(value) = spec.set(name) {
            int_or_percent(value, &path.child(name), errors);
            not_more_than_100_percent(value, &path.child(name), errors);
        }
    }
    label_selector(&spec["selector"], &path.child("selector"), errors);
    if let Some(policy) = spec.set("unhealthyPodEvictionPolicy").and_then(Value::as_str)
        && !EVICTION.contains(&policy)
    {
        errors.push(field::not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, &EVICTION));
    }
}
