//! PodDisruptionBudget.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::checks::{label_selector, name_is_path_segment, non_negatives};
use super::object_meta;
use super::read::Read;
use super::workload::{int_or_percent, not_more_than_100_percent};

pub(super) fn create(budget: &Value, errors: &mut ErrorList) {
    spec(budget, errors);
    if errors.is_empty() {
        object_meta::create(budget, true, name_is_path_segment, errors);
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    spec(new, errors);
    object_meta::update(new, old, errors);
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    const COUNTS: [&str; 4] = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    non_negatives(&new["status"], &COUNTS, &Path::new("status"), errors);
    object_meta::update(new, old, errors);
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
