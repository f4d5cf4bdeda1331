//! What a Job's status may say, given what it said before.
//!
//! A rule applies only to what an update changed, so that a status which was wrong before can still
//! be updated in other respects.

use std::collections::BTreeSet;

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::quote;
use serde_json::Value;

use super::super::checks::non_negatives;
use super::super::object_meta;
use super::is_indexed;
use crate::read::Read;

pub(super) fn is_true(status: &Value, condition: &str) -> bool {
    status.list("conditions").iter().any(|c| c.text("type") == condition && c.text("status") == "True")
}

/// What a Job's conditions say.
struct State {
    complete: bool,
    failed: bool,
    failure_target: bool,
    success_met: bool,
}

impl State {
    fn of(status: &Value) -> Self {
        Self {
            complete: is_true(status, "Complete"),
            failed: is_true(status, "Failed"),
            failure_target: is_true(status, "FailureTarget"),
            success_met: is_true(status, "SuccessCriteriaMet"),
        }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }
}

pub(in super::super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let path = Path::new("status");
    let (spec, status, before) = (&new["spec"], &new["status"], &old["status"]);
    let (is, was) = (State::of(status), State::of(before));
    counts(status, &path, errors);
    conditions(spec, status, before, &is, &was, &path, errors);
    finished(spec, status, before, &is, &was, &path, errors);
    completed_indexes(spec, status, before, &path, errors);
    transitions(new, old, &is, &was, &path, errors);
}

fn counts(status: &Value, path: &Path, errors: &mut ErrorList) {
    non_negatives(status, &["active", "succeeded", "failed", "ready", "terminating"], path, errors);
    let mut seen = BTreeSet::new();
    for name in ["succeeded", "failed"] {
        let path = path.child("uncountedTerminatedPods").child(name);
        for (i, uid) in status["uncountedTerminatedPods"].texts(name).enumerate() {
            if uid.is_empty() {
                errors.push(field::invalid(&path.index(i), uid, "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(field::duplicate(&path.index(i), uid));
            }
        }
    }
}

fn conditions(
    spec: &Value,
    status: &Value,
    before: &Value,
    is: &State,
    was: &State,
    path: &Path,
    errors: &mut ErrorList,
) {
    let changed = |name: &str| status[name] != before[name];
    let complete_changed = is.complete != was.complete;
    let failed_changed = is.failed != was.failed;
    let wrong = |message: &str| field::invalid(&path.child("conditions"), BadValue::Omitted, message);
    if (complete_changed || failed_changed) && is.complete && is.failed {
        errors.push(wrong("cannot set Complete=True and Failed=true conditions"));
    }
    if (complete_changed || is.failure_target != was.failure_target) && is.complete && is.failure_target {
        errors.push(wrong("cannot set Complete=True and FailureTarget=true conditions"));
    }
    let completed = status.set("completionTime");
    let at = path.child("completionTime");
    if complete_changed || changed("completionTime") {
        if let Some(time) = completed.filter(|_| !is.complete) {
            let message = "cannot set completionTime when there is no Complete=True condition";
            errors.push(field::invalid(&at, time, message));
        }
        if completed.is_none() && is.complete {
            errors.push(field::required(&at, "completionTime is required for Complete jobs"));
        }
    }
    if (changed("startTime") || changed("completionTime"))
        && let (Some(start), Some(end)) = (status.set("startTime").and_then(Value::as_str), completed)
        && end.as_str().unwrap_or_default() < start
    {
        errors.push(field::invalid(&at, end, "must be equal to or after `startTime`"));
    }
    if (failed_changed || changed("failedIndexes")) && is.failed && !is.failure_target {
        errors.push(wrong("cannot set Failed=True condition without the FailureTarget=true condition"));
    }
    if (complete_changed || is.success_met != was.success_met) && is.complete && !is.success_met {
        errors.push(wrong("cannot set Complete=True condition without the SuccessCriteriaMet=true condition"));
    }
    if is.success_met && is.failed {
        errors.push(wrong("cannot set SuccessCriteriaMet=True and Failed=true conditions"));
    }
    if is.success_met && is.failure_target {
        errors.push(wrong("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"));
    }
    if spec.set("successPolicy").is_some() && !is.success_met && is.complete {
        let message = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        errors.push(wrong(message));
    }
}

fn finished(
    spec: &Value,
    status: &Value,
    before: &Value,
    is: &State,
    was: &State,
    path: &Path,
    errors: &mut ErrorList,
) {
    let now = is.finished();
    let changed = |name: &str| now != was.finished() || status[name] != before[name];
    if now && changed("active") && status.num("active") > 0 {
        errors.push(field::invalid(
            &path.child("active"),
            status.num("active"),
            "active>0 is invalid for finished job",
        ));
    }
    let nothing_to_do = spec.flag("suspend") && spec.int("completions") == Some(0);
    if now && changed("startTime") && !nothing_to_do && status.set("startTime").is_none() {
        errors.push(field::required(&path.child("startTime"), "startTime is required for finished job"));
    }
    let uncounted = &status["uncountedTerminatedPods"];
    let any = !uncounted.list("failed").is_empty() || !uncounted.list("succeeded").is_empty();
    if now && any && changed("uncountedTerminatedPods") {
        let path = path.child("uncountedTerminatedPods");
        errors.push(field::invalid(&path, uncounted, "must be empty for finished job"));
    }
    if now && changed("terminating") && status.num("terminating") > 0 {
        let message = "terminating>0 is invalid for finished job";
        errors.push(field::invalid(&path.child("terminating"), status.num("terminating"), message));
    }
    if (status["ready"] != before["ready"] || status["active"] != before["active"])
        && status.num("ready") > status.num("active")
    {
        let message = "cannot set more ready pods than active";
        errors.push(field::invalid(&path.child("ready"), status.num("ready"), message));
    }
}

fn completed_indexes(spec: &Value, status: &Value, before: &Value, path: &Path, errors: &mut ErrorList) {
    let changed = |name: &str| status.text(name) != before.text(name);
    let (completed, failed) = (status.text("completedIndexes"), status.set("failedIndexes").and_then(Value::as_str));
    let completions = spec.int("completions");
    let mut wrong = |name: &'static str, value: &str, message: String| {
        errors.push(field::invalid(&path.child(name), value, message));
    };
    let (completed_changed, failed_changed) = (changed("completedIndexes"), changed("failedIndexes"));
    if let Some(completions) = completions {
        if completed_changed && let Err(e) = indexes(completed, completions) {
            wrong("completedIndexes", completed, format!("error parsing completedIndexes: {e}"));
        }
        if failed_changed
            && spec.set("backoffLimitPerIndex").is_some()
            && let Some(failed) = failed
            && let Err(e) = indexes(failed, completions)
        {
            wrong("failedIndexes", failed, format!("error parsing failedIndexes: {e}"));
        }
    }
    if completed_changed && !completed.is_empty() && !is_indexed(spec) {
        let message = "cannot set non-empty completedIndexes when non-indexed completion mode";
        wrong("completedIndexes", completed, message.to_owned());
    }
    let Some(failed) = failed else { return };
    if failed_changed && spec.set("backoffLimitPerIndex").is_none() {
        let message = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        wrong("failedIndexes", failed, message.to_owned());
    }
    if let Some(completions) = completions.filter(|_| failed_changed || completed_changed)
        && let Some(index) = overlap(completed, failed, completions)
    {
        wrong("failedIndexes", failed, format!("failedIndexes and completedIndexes overlap at index: {index}"));
    }
}

fn transitions(new: &Value, old: &Value, is: &State, was: &State, path: &Path, errors: &mut ErrorList) {
    let (spec, status, before) = (&new["spec"], &new["status"], &old["status"]);
    let conditions = path.child("conditions");
    let mut wrong = |message: String| errors.push(field::invalid(&conditions, BadValue::Omitted, message));
    for (name, was, is) in [
        ("Failed", was.failed, is.failed),
        ("Complete", was.complete, is.complete),
        ("FailureTarget", was.failure_target, is.failure_target),
    ] {
        if was && !is {
            wrong(format!("cannot disable the terminal {name}=True condition"));
        }
    }
    let may_shrink = is_indexed(spec) && spec["completions"] == spec["parallelism"];
    for (name, fixed) in [("failed", true), ("succeeded", !may_shrink)] {
        if fixed && status.num(name) < before.num(name) {
            let message = format!("cannot decrease the {name} counter");
            errors.push(field::invalid(&path.child(name), status.num(name), message));
        }
    }
    if let (Some(now), Some(then)) = (status.set("completionTime"), before.set("completionTime"))
        && now != then
    {
        errors.push(field::invalid(&path.child("completionTime"), now, "field is immutable"));
    }
    let suspended = |c: &&Value| c.text("type") == "Suspended" && c.text("status") == "False";
    let resuming = is_true(before, "Suspended") && status.list("conditions").iter().any(|c| suspended(&c));
    if before.set("startTime").is_some()
        && before["startTime"] != status["startTime"]
        && !resuming
        && !spec.flag("suspend")
    {
        let message = "field is immutable for unsuspended job once set";
        errors.push(field::invalid(&path.child("startTime"), &status["startTime"], message));
    }
    let mut wrong = |message: &str| errors.push(field::invalid(&conditions, BadValue::Omitted, message));
    if was.success_met && !is.success_met {
        wrong("cannot disable the SuccessCriteriaMet=True condition");
    }
    if was.complete && !was.success_met && is.success_met {
        wrong("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}

/// How many indexes a text such as `1,3-5,7` names.
pub(super) fn indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (low, high) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= low) {
            return Err(format!("non-increasing order, previous: {last}, current: {low}"));
        }
        total += high - low + 1;
        last = Some(high);
    }
    Ok(total)
}

fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = text.split('-').collect();
    if limits.len() > 2 {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts \
             separated by '-'",
            quote(text)
        ));
    }
    let number = |text: &str| {
        let number: i64 =
            text.parse().map_err(|_| format!("cannot convert string to integer for index: {}", quote(text)))?;
        if number >= completions { Err(format!("too large index: {}", quote(text))) } else { Ok(number) }
    };
    let low = number(limits[0])?;
    let Some(high) = limits.get(1) else { return Ok((low, low)) };
    let high = number(high)?;
    if low >= high {
        return Err(format!("non-increasing order, previous: {low}, current: {high}"));
    }
    Ok((low, high))
}

/// The first index that both name; what cannot be read is skipped.
fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let failed = intervals(failed);
    intervals(completed).into_iter().find_map(|(low, high)| {
        failed.iter().find(|(from, to)| low <= *to && *from <= high).map(|(from, _)| low.max(*from))
    })
}
