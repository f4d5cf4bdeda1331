//! CronJob.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gotext::quote;
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
        if let Err(e) = schedule(text) {
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

const FIELDS: [(i64, i64, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// Whether a text is a schedule, as the parser upstream uses has it.
fn schedule(text: &str) -> Result<(), String> {
    let mut text = text;
    if let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
        let (zone, rest) =
            rest.split_once(' ').ok_or("invalid schedule format: runtime error: slice bounds out of range [:-1]")?;
        if !zone.is_empty() && !matches!(zone, "UTC" | "Local") && TimeZone::get(zone).is_err() {
            return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
        }
        text = rest.trim();
    }
    if text.starts_with('@') {
        return descriptor(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (text, bounds) in fields.iter().zip(FIELDS) {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            range(part, bounds)?;
        }
    }
    Ok(())
}

fn descriptor(text: &str) -> Result<(), String> {
    const NAMES: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    if let Some(duration) = text.strip_prefix("@every ") {
        return go_duration(duration).map_err(|e| format!("failed to parse duration {text}: {e}"));
    }
    if NAMES.contains(&text) { Ok(()) } else { Err(format!("unrecognized descriptor: {text}")) }
}

/// Whether a text is a duration as Go writes them.
fn go_duration(text: &str) -> Result<(), String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let mut rest = text.trim_start_matches(['+', '-']);
    if text.len() - rest.len() > 1 || rest.is_empty() {
        return Err(invalid());
    }
    if rest == "0" {
        return Ok(());
    }
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - unit.len()];
        if number.parse::<f64>().is_err() {
            return Err(invalid());
        }
        rest = unit.trim_start_matches(|c: char| c != '.' && !c.is_ascii_digit());
        match &unit[..unit.len() - rest.len()] {
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => {}
            other => return Err(format!("time: unknown unit {} in duration {}", quote(other), quote(text))),
        }
    }
    Ok(())
}

fn range(text: &str, (min, max, names): (i64, i64, &[&str])) -> Result<(), String> {
    let value = |text: &str| {
        let lower = text.to_lowercase();
        let named = names.iter().zip(min..).find(|(name, _)| **name == lower);
        named.map_or_else(|| number(text), |(_, value)| Ok(value))
    };
    let parts: Vec<&str> = text.split('/').collect();
    let limits: Vec<&str> = parts[0].split('-').collect();
    let (start, mut end) = match limits[..] {
        ["*" | "?", ..] => (min, max),
        [one] => {
            let value = value(one)?;
            (value, value)
        }
        [low, high] => (value(low)?, value(high)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts[..] {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            // `N/step` is `N-max/step`.
            if limits.len() == 1 {
                end = max;
            }
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < min {
        return Err(format!("beginning of range ({start}) below minimum ({min}): {text}"));
    }
    if end > max {
        return Err(format!("end of range ({end}) above maximum ({max}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn number(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let problem = if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        "invalid syntax"
    } else {
        match text.parse::<i64>() {
            Ok(number) if number < 0 => return Err(format!("negative number ({number}) not allowed: {text}")),
            Ok(number) => return Ok(number),
            Err(_) => "value out of range",
        }
    };
    Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {}: {problem}", quote(text)))
}
