//! What controllers of pods share: template and selector, replica counts, rolling updates; and the
//! two old ones, PodTemplate and ReplicationController.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::labels::Selector;
use apimachinery::names;
use serde_json::Value;

use super::checks::{name_is_long_name, name_is_subdomain, non_negative, non_negatives};
use super::{object_meta, pod};
use crate::read::Read;

/// A template's labels must match; an empty selector asks for nothing.
pub(super) fn selects_template(selector: &Selector, template: &Value, path: &Path, errors: &mut ErrorList) {
    let labels = template["metadata"].map("labels");
    if !selector.is_empty() && !selector.matches(&labels) {
        let path = path.child("metadata").child("labels");
        let message = "`selector` does not match template `labels`";
        errors.push(field::invalid(&path, &template["metadata"]["labels"], message));
    }
}

/// A number or a share: `ValidatePositiveIntOrPercent`.
pub(super) fn int_or_percent(value: &Value, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::String(text) => {
            errors.extend(names::percent(text).into_iter().map(|m| field::invalid(path, text, m)));
        }
        other => non_negative(other.as_i64().unwrap_or_default(), path, errors),
    }
}

/// The number of a number or a share; 0 for other text.
pub(super) fn int_or_percent_value(value: &Value) -> i64 {
    match value {
        Value::String(text) => {
            let share = names::percent(text).is_empty();
            let digits = if share { text.trim_end_matches('%') } else { text };
            digits.parse().unwrap_or_default()
        }
        other => other.as_i64().unwrap_or_default(),
    }
}

pub(super) fn not_more_than_100_percent(value: &Value, path: &Path, errors: &mut ErrorList) {
    let is_percent = value.as_str().is_some_and(|text| names::percent(text).is_empty());
    if is_percent && int_or_percent_value(value) > 100 {
        errors.push(field::invalid(path, value, "must not be greater than 100%"));
    }
}

/// Counts of a status that cannot exceed `replicas`, in upstream's order.
pub(super) fn status_counts(status: &Value, counts: &[&'static str], path: &Path, errors: &mut ErrorList) {
    for name in counts {
        if status.num(name) > status.num("replicas") {
            let message = "cannot be greater than status.replicas";
            errors.push(field::invalid(&path.child(*name), status.num(name), message));
        }
    }
}

/// Available ones are ready ones.
pub(super) fn available_are_ready(status: &Value, what: &str, path: &Path, errors: &mut ErrorList) {
    let available = status.num("availableReplicas");
    if available > status.num("readyReplicas") {
        let message = format!("cannot be greater than {what}");
        errors.push(field::invalid(&path.child("availableReplicas"), available, message));
    }
}

/// `collisionCount` only grows.
pub(super) fn collision_count(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let (after, before) = (new.num("collisionCount"), old.num("collisionCount"));
    if old.set("collisionCount").is_some() && (new.set("collisionCount").is_none() || after < before) {
        errors.push(field::invalid(&path.child("collisionCount"), after, "cannot be decremented"));
    }
}

pub(super) fn pod_template(object: &Value, errors: &mut ErrorList) {
    object_meta::create(object, true, name_is_subdomain, errors);
    pod::template(&object["template"], &Path::new("template"), errors);
}

pub(super) fn pod_template_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    pod::template(&new["template"], &Path::new("template"), errors);
}

pub(super) fn replication_controller(object: &Value, errors: &mut ErrorList) {
    object_meta::generated(object, true, name_is_long_name, errors);
    replication_controller_spec(&object["spec"], errors);
}

fn replication_controller_spec(spec: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    non_negative(spec.num("minReadySeconds"), &path.child("minReadySeconds"), errors);
    let selector = spec.map("selector").filter(|s| !s.is_empty());
    if selector.is_none() {
        errors.push(field::required(&path.child("selector"), ""));
    }
    match spec.int("replicas") {
        None => errors.push(field::required(&path.child("replicas"), "")),
        Some(replicas) => non_negative(replicas, &path.child("replicas"), errors),
    }
    let at = path.child("template");
    let Some(template) = spec.set("template") else {
        errors.push(field::required(&at, ""));
        return;
    };
    if let Some(selector) = selector {
        selects_template(&Selector::from_map(selector), template, &at, errors);
    }
    pod::template(template, &at, errors);
    pod::always_running(template, "ReplicationController", &at, errors);
}

pub(super) fn replication_controller_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    replication_controller_spec(&new["spec"], errors);
}

pub(super) fn replication_controller_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let (status, path) = (&new["status"], Path::new("status"));
    const COUNTS: &[&str] =
        &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    non_negatives(status, COUNTS, &path, errors);
    status_counts(status, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], &path, errors);
    available_are_ready(status, "readyReplicas", &path, errors);
}
