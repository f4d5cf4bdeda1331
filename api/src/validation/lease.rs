//! Lease.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::checks::{messages, name_is_subdomain, non_negative};
use super::object_meta;
use super::read::Read;

pub(super) fn create(lease: &Value, errors: &mut ErrorList) {
    object_meta::create(lease, true, name_is_subdomain, errors);
    spec(lease, errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    spec(new, errors);
}

fn spec(lease: &Value, errors: &mut ErrorList) {
    let (spec, path) = (&lease["spec"], Path::new("spec"));
    if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.push(field::invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    non_negative(spec.num("leaseTransitions"), &path.child("leaseTransitions"), errors);
    if let Some(strategy) = spec.set("strategy").and_then(Value::as_str) {
        // One of Kubernetes' own, or somebody's: `domain/Name`.
        if strategy.contains('/') {
            let path = path.child("strategy");
            messages(apimachinery::names::qualified_name(strategy), strategy, &path, errors);
        } else if strategy != "OldestEmulationVersion" {
            errors.push(field::not_supported(&path.child("strategy"), strategy, &["OldestEmulationVersion"]));
        }
    }
    if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
        let message = "may only be specified if `strategy` is defined";
        errors.push(field::forbidden(&path.child("preferredHolder"), message));
    }
}
