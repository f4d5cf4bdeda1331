//! DaemonSet.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::quote;
use serde_json::Value;

use super::checks::{
    label_selector, name_is_subdomain, non_negatives, parsed_selector, selector_is_empty, selector_text,
};
use super::deployment::immutable_selector;
use super::workload::{collision_count, int_or_percent, int_or_percent_value, not_more_than_100_percent};
use super::{object_meta, pod};
use crate::read::Read;

pub(super) fn create(set: &Value, errors: &mut ErrorList) {
    object_meta::create(set, true, name_is_subdomain, errors);
    spec(&set["spec"], errors);
}

fn spec(spec: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let (selector, at) = (&spec["selector"], path.child("selector"));
    label_selector(selector, &at, errors);
    let (template, template_path) = (&spec["template"], path.child("template"));
    if parsed_selector(selector).is_some_and(|s| !s.matches(&template["metadata"].map("labels"))) {
        let path = template_path.child("metadata").child("labels");
        let message = "`selector` does not match template `labels`";
        errors.push(field::invalid(&path, &template["metadata"]["labels"], message));
    }
    if !selector.is_null() && selector_is_empty(selector) {
        errors.push(field::invalid(&at, selector_text(selector), "empty selector is invalid for daemonset"));
    }
    pod::template(template, &template_path, errors);
    pod::always_running(template, "DaemonSet", &template_path, errors);
    non_negatives(spec, &["minReadySeconds"], &path, errors);
    strategy(&spec["updateStrategy"], &path.child("updateStrategy"), errors);
    non_negatives(spec, &["revisionHistoryLimit"], &path, errors);
}

fn strategy(strategy: &Value, path: &Path, errors: &mut ErrorList) {
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = path.child("rollingUpdate");
            let Some(rolling) = strategy.set("rollingUpdate") else {
                errors.push(field::required(&at, ""));
                return;
            };
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            let (unavailable_path, surge_path) = (at.child("maxUnavailable"), at.child("maxSurge"));
            int_or_percent(unavailable, &unavailable_path, errors);
            int_or_percent(surge, &surge_path, errors);
            not_more_than_100_percent(unavailable, &unavailable_path, errors);
            not_more_than_100_percent(surge, &surge_path, errors);
            match (int_or_percent_value(unavailable) != 0, int_or_percent_value(surge) != 0) {
                (true, true) => {
                    let message = "may not be set when maxUnavailable is non-zero";
                    errors.push(field::invalid(&surge_path, surge, message));
                }
                (false, false) => {
                    errors.push(field::required(&unavailable_path, "cannot be 0 when maxSurge is 0"));
                }
                _ => {}
            }
        }
        other => {
            let rolling = strategy.set("rollingUpdate").map_or("null".to_owned(), |r| {
                let number = |name: &str| if r[name].is_null() { Value::from(0) } else { r[name].clone() };
                format!("{{\"MaxUnavailable\":{},\"MaxSurge\":{}}}", number("maxUnavailable"), number("maxSurge"))
            });
            let shown = format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", quote(other));
            errors.push(field::not_supported(path, BadValue::Raw(shown), &["RollingUpdate", "OnDelete"]));
        }
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    immutable_selector(new, old, errors);
    spec(&new["spec"], errors);
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let path = Path::new("status");
    const COUNTS: &[&str] = &[
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    non_negatives(&new["status"], COUNTS, &path, errors);
    collision_count(&new["status"], &old["status"], &path, errors);
}
