//! CronJob.

use apimachinery::cron::Schedule;
use apimachinery::field::{self, ErrorList, Path};
use jiff::tz::TimeZone;
use serde_json::Value;

use super::checks::{name_is_subdomain, non_negative, one_of};
use super::{job, object_meta};
use crate::read::Read;

pub(super) fn create(job: &Value, errors: &mut ErrorList) {
    object_meta::create(job, true, name_is_subdomain, errors);
    spec(&job["spec"], None, errors);
    let name = job["metadata"].text("name");
    if name.len() > 52 {
        let path = Path::new("metadata").child("name");
        errors.push(field::invalid(&path, name, "must be no more than 52 characters"));
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    spec(&new["spec"], Some(&old["spec"]), errors);
}

fn spec(spec: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let (text, zone) = (spec.text("schedule"), spec.set("timeZone").and_then(Value::as_str));
    let at = path.child("schedule");
    if text.is_empty() {
        errors.push(field::required(&at, ""));
    } else {
        if let Err(e) = Schedule::parse(text) {
            errors.push(field::invalid(&at, text, e));
        }
        let zone_allowed = old.is_some_and(|old| old.text("schedule").contains("TZ"));
        if text.contains("TZ") && !zone_allowed {
            let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(field::invalid(&at, text, message));
        } else if text.contains("TZ") && zone.is_some() {
            let message = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            errors.push(field::invalid(&at, text, message));
        }
    }
    non_negative(spec.num("startingDeadlineSeconds"), &path.child("startingDeadlineSeconds"), errors);
    if let Some(zone) = zone
        && old.is_none_or(|old| old["timeZone"] != spec["timeZone"])
    {
        time_zone(zone, &path.child("timeZone"), errors);
    }
    one_of(spec.text("concurrencyPolicy"), &["Allow", "Forbid", "Replace"], &path.child("concurrencyPolicy"), errors);
    job::template(&spec["jobTemplate"], &path.child("jobTemplate"), errors);
    for name in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(spec.num(name), &path.child(name), errors);
    }
}

fn time_zone(zone: &str, path: &Path, errors: &mut ErrorList) {
    if zone.is_empty() {
        errors.push(field::invalid(path, zone, "timeZone must be nil or non-empty string"));
        return;
    }
    let unknown = || field::invalid(path, zone, format!("unknown time zone {zone}"));
    let plain = |part: &str| {
        (1..=14).contains(&part.len())
            && !part.starts_with('-')
            && !matches!(part, "." | "..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    if !zone.split('/').all(plain) {
        errors.push(unknown());
        return;
    }
    // Go looks for these before it looks for the zone.
    if zone.contains("..") {
        errors.push(field::invalid(path, zone, "time: invalid location name"));
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        let message = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(field::invalid(path, zone, message));
    }
    let known = matches!(zone, "UTC" | "Local")
        || TimeZone::get(zone).is_ok_and(|found| found.iana_name().is_none_or(|name| name == zone));
    if !known {
        errors.push(unknown());
    }
}
