//! Deployment.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::quote;
use serde_json::Value;

use super::checks::{IMMUTABLE, name_is_subdomain, non_negative, non_negatives, selector_text, semantically_equal};
use super::object_meta;
use super::replica_set::selector_and_template;
use super::workload::{
    available_are_ready, collision_count, int_or_percent, int_or_percent_value, not_more_than_100_percent,
    status_counts,
};
use crate::read::Read;

pub(super) fn create(deployment: &Value, errors: &mut ErrorList) {
    object_meta::create(deployment, true, name_is_subdomain, errors);
    spec(&deployment["spec"], errors);
}

fn spec(spec: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    non_negative(spec.num("replicas"), &path.child("replicas"), errors);
    selector_and_template(spec, &path, errors);
    strategy(&spec["strategy"], &path.child("strategy"), errors);
    non_negatives(spec, &["minReadySeconds", "revisionHistoryLimit"], &path, errors);
    if let Some(seconds) = spec.int("progressDeadlineSeconds") {
        let path = path.child("progressDeadlineSeconds");
        non_negative(seconds, &path, errors);
        if seconds <= spec.num("minReadySeconds") {
            errors.push(field::invalid(&path, seconds, "must be greater than minReadySeconds"));
        }
    }
}

fn strategy(strategy: &Value, path: &Path, errors: &mut ErrorList) {
    let at = path.child("rollingUpdate");
    let rolling = strategy.set("rollingUpdate");
    match (strategy.text("type"), rolling) {
        ("Recreate", Some(_)) => {
            errors.push(field::forbidden(&at, "may not be specified when strategy `type` is 'Recreate'"));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.push(field::required(&at, "this should be defaulted and never be nil"));
        }
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            let unavailable_path = at.child("maxUnavailable");
            int_or_percent(unavailable, &unavailable_path, errors);
            int_or_percent(surge, &at.child("maxSurge"), errors);
            if int_or_percent_value(unavailable) == 0 && int_or_percent_value(surge) == 0 {
                let shown = or_zero(unavailable);
                errors.push(field::invalid(&unavailable_path, shown, "may not be 0 when `maxSurge` is 0"));
            }
            not_more_than_100_percent(unavailable, &unavailable_path, errors);
        }
        (other, rolling) => {
            let rolling = rolling.map_or("null".to_owned(), |r| {
                let (unavailable, surge) = (or_zero(&r["maxUnavailable"]), or_zero(&r["maxSurge"]));
                format!("{{\"MaxUnavailable\":{unavailable},\"MaxSurge\":{surge}}}")
            });
            let shown = format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", quote(other));
            errors.push(field::not_supported(path, BadValue::Raw(shown), &["Recreate", "RollingUpdate"]));
        }
    }
}

/// A number that was left out is 0 to Go.
fn or_zero(value: &Value) -> Value {
    if value.is_null() { Value::from(0) } else { value.clone() }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    spec(&new["spec"], errors);
    immutable_selector(new, old, errors);
}

/// A controller's selector never changes.
pub(super) fn immutable_selector(new: &Value, old: &Value, errors: &mut ErrorList) {
    let (after, before) = (&new["spec"]["selector"], &old["spec"]["selector"]);
    if !semantically_equal(after, before) {
        errors.push(field::invalid(&Path::new("spec").child("selector"), selector_text(after), IMMUTABLE));
    }
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let (status, path) = (&new["status"], Path::new("status"));
    const COUNTS: &[&str] = &[
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    non_negatives(status, COUNTS, &path, errors);
    status_counts(status, &["updatedReplicas", "readyReplicas", "availableReplicas"], &path, errors);
    available_are_ready(status, "readyReplicas", &path, errors);
    collision_count(status, &old["status"], &path, errors);
}
