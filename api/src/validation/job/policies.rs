//! When a Job fails, succeeds and replaces its pods.

use std::collections::BTreeSet;

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::quote;
use serde_json::Value;

use super::super::checks::{non_negative, qualified_name};
use super::super::diff;
use super::is_indexed;
use super::status::indexes;
use crate::read::Read;

const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

pub(super) fn check(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if spec.set("podFailurePolicy").is_some() {
        failure(spec, &path.child("podFailurePolicy").child("rules"), errors);
    }
    if let Some(policy) = spec.set("successPolicy") {
        let path = path.child("successPolicy");
        if is_indexed(spec) {
            success(policy, spec, &path.child("rules"), errors);
        } else {
            errors.push(field::invalid(
                &path,
                diff::shown("SuccessPolicy", policy),
                "requires indexed completion mode",
            ));
        }
    }
    if let Some(replacement) = spec.set("podReplacementPolicy").and_then(Value::as_str) {
        let supported: &[&str] =
            if spec.set("podFailurePolicy").is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        if !supported.contains(&replacement) {
            errors.push(field::not_supported(&path.child("podReplacementPolicy"), replacement, supported));
        }
    }
}

/// One of a few texts; the message for a missing one lists them.
fn listed(value: &str, supported: &[&str], path: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
        errors.push(field::required(path, format!("valid values: [{}]", quoted.join(" "))));
    } else if !supported.contains(&value) {
        errors.push(field::not_supported(path, value, supported));
    }
}

fn failure(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let rules = spec["podFailurePolicy"].list("rules");
    if rules.len() > MOST_RULES {
        errors.push(field::too_many(path, rules.len(), MOST_RULES));
    }
    let pod = &spec["template"]["spec"];
    let containers: BTreeSet<&str> =
        ["containers", "initContainers"].iter().flat_map(|f| pod.list(f)).map(|c| c.text("name")).collect();
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        let action = rule.text("action");
        if action == "FailIndex" && spec.set("backoffLimitPerIndex").is_none() {
            let message = "requires the backoffLimitPerIndex to be set";
            errors.push(field::invalid(&path.child("action"), action, message));
        } else {
            listed(action, &ACTIONS, &path.child("action"), errors);
        }
        let (codes, conditions) = (rule.set("onExitCodes"), rule.list("onPodConditions"));
        if let Some(codes) = codes {
            exit_codes(codes, &containers, &path.child("onExitCodes"), errors);
        }
        pod_conditions(conditions, &path.child("onPodConditions"), errors);
        let message = match (codes, conditions) {
            (Some(_), [_, ..]) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (None, []) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.push(field::invalid(&path, BadValue::Omitted, message));
    }
}

fn pod_conditions(patterns: &[Value], path: &Path, errors: &mut ErrorList) {
    if patterns.len() > MOST_RULES {
        errors.push(field::too_many(path, patterns.len(), MOST_RULES));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let path = path.index(i);
        qualified_name(pattern.text("type"), &path.child("type"), errors);
        listed(pattern.text("status"), &STATUSES, &path.child("status"), errors);
    }
}

fn exit_codes(codes: &Value, containers: &BTreeSet<&str>, path: &Path, errors: &mut ErrorList) {
    listed(codes.text("operator"), &OPERATORS, &path.child("operator"), errors);
    if let Some(name) = codes.set("containerName").and_then(Value::as_str)
        && !containers.contains(name)
    {
        let message = "must be one of the container or initContainer names in the pod template";
        errors.push(field::invalid(&path.child("containerName"), name, message));
    }
    let (path, values) = (path.child("values"), codes.list("values"));
    if values.is_empty() {
        errors.push(field::invalid(&path, &codes["values"], "at least one value is required"));
    } else if values.len() > MOST_CODES {
        errors.push(field::too_many(&path, values.len(), MOST_CODES));
    }
    let (mut seen, mut ordered) = (BTreeSet::new(), true);
    let mut last = i64::MIN;
    for (i, value) in values.iter().map(|v| v.as_i64().unwrap_or_default()).enumerate() {
        if value == 0 && codes.text("operator") == "In" {
            errors.push(field::invalid(&path.index(i), value, "must not be 0 for the In operator"));
        }
        if !seen.insert(value) {
            errors.push(field::duplicate(&path.index(i), value));
        }
        ordered &= last <= value;
        last = value;
    }
    if !ordered {
        errors.push(field::invalid(&path, &codes["values"], "must be ordered"));
    }
}

fn success(policy: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let rules = policy.list("rules");
    if rules.is_empty() {
        let message = "at least one rules must be specified when the successPolicy is specified";
        errors.push(field::required(path, message));
    }
    if rules.len() > MOST_RULES {
        errors.push(field::too_many(path, rules.len(), MOST_RULES));
    }
    // Upstream panics without completions; these rules then say nothing.
    let Some(completions) = spec.int("completions") else { return };
    for (i, rule) in rules.iter().enumerate() {
        success_rule(rule, completions, &path.index(i), errors);
    }
}

fn success_rule(rule: &Value, completions: i64, path: &Path, errors: &mut ErrorList) {
    const LONGEST_INDEXES: usize = 64 * 1024;
    let (count, text) = (rule.int("succeededCount"), rule.set("succeededIndexes").and_then(Value::as_str));
    if count.is_none() && text.is_none() {
        errors.push(field::required(path, "at least one of succeededCount or succeededIndexes must be specified"));
    }
    let mut total = 0;
    if let Some(text) = text {
        let path = path.child("succeededIndexes");
        if text.len() > LONGEST_INDEXES {
            errors.push(field::too_long(&path, LONGEST_INDEXES));
        }
        match indexes(text, completions) {
            Ok(count) => total = count,
            Err(e) => errors.push(field::invalid(&path, text, format!("error parsing succeededIndexes: {e}"))),
        }
    }
    let Some(count) = count else { return };
    let path = path.child("succeededCount");
    non_negative(count, &path, errors);
    if count > completions {
        let message = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(field::invalid(&path, count, message));
    }
    if text.is_some() && count > total {
        let message = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.push(field::invalid(&path, count, message));
    }
}
