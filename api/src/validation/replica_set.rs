//! ReplicaSet, and the selector and template it shares with Deployment.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::checks::{
    label_selector, name_is_subdomain, non_negatives, parsed_selector, selector_is_empty, selector_text,
};
use super::deployment::immutable_selector;
use super::workload::{available_are_ready, selects_template, status_counts};
use super::{object_meta, pod};

pub(super) fn create(set: &Value, errors: &mut ErrorList) {
    object_meta::create(set, true, name_is_subdomain, errors);
    spec(&set["spec"], errors);
}

fn spec(spec: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    non_negatives(spec, &["replicas", "minReadySeconds"], &path, errors);
    selector_and_template(spec, &path, errors);
}

/// A selector that is given, selects something, and selects the template's pods.
pub(super) fn selector_and_template(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let (selector, at) = (&spec["selector"], path.child("selector"));
    if selector.is_null() {
        errors.push(field::required(&at, ""));
    } else {
        label_selector(selector, &at, errors);
        if selector_is_empty(selector) {
            let message = "empty selector is invalid for deployment";
            errors.push(field::invalid(&at, selector_text(selector), message));
        }
    }
    match parsed_selector(selector) {
        None => errors.push(field::invalid(&at, selector_text(selector), "invalid label selector")),
        Some(parsed) => {
            let (template, at) = (&spec["template"], path.child("template"));
            selects_template(&parsed, template, &at, errors);
            pod::template(template, &at, errors);
            pod::always_running(template, "ReplicaSet", &at, errors);
        }
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    spec(&new["spec"], errors);
    immutable_selector(new, old, errors);
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let (status, path) = (&new["status"], Path::new("status"));
    const COUNTS: &[&str] = &[
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    non_negatives(status, COUNTS, &path, errors);
    status_counts(status, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], &path, errors);
    available_are_ready(status, "readyReplicas", &path, errors);
}
