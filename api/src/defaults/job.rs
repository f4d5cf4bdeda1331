//! Job.

use apimachinery::object::ObjectExt;
use serde_json::Value;

use super::pod_spec;
use super::set::{Tree, at, child, if_nil, if_zero, is_zero, items};

pub(super) fn set(job: &mut Value) {
    let labels = job.at(&["spec", "template", "metadata", "labels"]).filter(|l| l.is_object()).cloned();
    if let (Some(labels), Some(metadata)) = (labels, at(job, &["metadata"])) {
        if_zero(metadata, "labels", labels);
    }
    if let Some(spec) = at(job, &["spec"]) {
        let absent = |spec: &Tree, name: &str| spec.get(name).is_none_or(Value::is_null);
        if absent(spec, "completions") && absent(spec, "parallelism") {
            spec.insert("completions".into(), 1.into());
        }
        if_nil(spec, "parallelism", 1);
        let limit = if absent(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
        if_nil(spec, "backoffLimit", limit);
        if_nil(spec, "completionMode", "NonIndexed");
        if_nil(spec, "suspend", false);
        let replacement = if absent(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
        if_nil(spec, "podReplacementPolicy", replacement);
        if_nil(spec, "manualSelector", false);
        within_template(spec);
    }
}

/// What a job's spec gets where it is a template of a CronJob: the fields inside it only.
pub(super) fn within_template(spec: &mut Tree) {
    if let Some(policy) = child(spec, "podFailurePolicy") {
        for rule in items(policy, "rules") {
            for pattern in items(rule, "onPodConditions") {
                if is_zero(pattern.get("status")) {
                    pattern.insert("status".into(), "True".into());
                }
            }
        }
    }
    pod_spec::template(spec.get_mut("template"));
}
