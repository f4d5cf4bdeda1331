//! LimitRange.

use std::collections::BTreeSet;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use apimachinery::quantity::{Format, Quantity};
use serde_json::Value;

use super::checks::{messages, name_is_subdomain, quantity};
use super::object_meta;
use super::pod::resources::{container_resource_name, overcommit_allowed, resource_name};
use crate::read::Read;

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];

pub(super) fn create(range: &Value, errors: &mut ErrorList) {
    object_meta::create(range, true, name_is_subdomain, errors);
    let path = Path::new("spec").child("limits");
    let limits = range["spec"].list("limits");
    for (i, limit) in limits.iter().enumerate() {
        let (path, kind) = (path.index(i), limit.text("type"));
        type_name(kind, &path.child("type"), errors);
        if limits[..i].iter().any(|other| other.text("type") == kind) {
            errors.push(field::duplicate(&path.child("type"), kind));
        }
        self::limit(limit, kind, &path, errors);
    }
}

fn type_name(kind: &str, path: &Path, errors: &mut ErrorList) {
    let wrong = names::qualified_name(kind);
    if wrong.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
        errors.push(field::invalid(path, kind, "must be a standard limit type or fully qualified"));
    }
    messages(wrong, kind, path, errors);
}

fn limit<'a>(limit: &'a Value, kind: &str, path: &Path, errors: &mut ErrorList) {
    let mut keys: BTreeSet<&'a str> = BTreeSet::new();
    let mut check = |list: &'static str, errors: &mut ErrorList| {
        for (name, _) in limit.entries(list) {
            let path = path.child(list).key(name.clone());
            if matches!(kind, "Pod" | "Container") {
                container_resource_name(name, &path, errors);
            } else {
                resource_name(name, &path, errors);
            }
            keys.insert(name);
        }
    };
    check("max", errors);
    check("min", errors);
    let pod = kind == "Pod";
    for list in ["default", "defaultRequest"] {
        if !pod {
            check(list, errors);
        } else if limit.map(list).is_some_and(|list| !list.is_empty()) {
            errors.push(field::forbidden(&path.child(list), "may not be specified when `type` is 'Pod'"));
        }
    }
    let storage = |list: &str| limit[list].get("storage").is_some();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let message = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(field::required(&path.child("limits"), message));
    }
    check("maxLimitRequestRatio", errors);
    for key in keys {
        amounts(limit, key, pod, path, errors);
    }
}

fn amounts(limit: &Value, key: &str, pod: bool, path: &Path, errors: &mut ErrorList) {
    let of = |list: &str| limit[list].get(key).map(quantity);
    let (min, max, ratio) = (of("min"), of("max"), of("maxLimitRequestRatio"));
    let (default, request) = if pod { (None, None) } else { (of("default"), of("defaultRequest")) };
    let mut wrong = |list: &'static str, value: &Quantity, message: String| {
        errors.push(field::invalid(&path.child(list).key(key), value.to_string(), message));
    };
    if let (Some(min), Some(max)) = (&min, &max)
        && min > max
    {
        wrong("min", min, format!("min value {min} is greater than max value {max}"));
    }
    if let Some(request) = &request {
        if let Some(min) = min.as_ref().filter(|min| *min > request) {
            wrong(
                "defaultRequest",
                request,
                format!("min value {min} is greater than default request value {request}"),
            );
        }
        if let Some(max) = max.as_ref().filter(|max| request > *max) {
            wrong(
                "defaultRequest",
                request,
                format!("default request value {request} is greater than max value {max}"),
            );
        }
        if let Some(default) = default.as_ref().filter(|default| request > *default) {
            let message = format!("default request value {request} is greater than default limit value {default}");
            wrong("defaultRequest", request, message);
        }
    }
    if let Some(default) = &default {
        if let Some(min) = min.as_ref().filter(|min| *min > default) {
            wrong("default", min, format!("min value {min} is greater than default value {default}"));
        }
        if let Some(max) = max.as_ref().filter(|max| default > *max) {
            wrong("default", max, format!("default value {default} is greater than max value {max}"));
        }
    }
    if let Some(ratio) = &ratio {
        if *ratio < Quantity::new(1, Format::DecimalSI) {
            wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            // Thousandths are compared where they fit.
            const MOST: i64 = i64::MAX / 1000;
            let small = [ratio, min, max].iter().all(|q| q.value() < MOST);
            let (asked, low, high) = if small {
                (ratio.milli_value() as f64 / 1000.0, min.milli_value(), max.milli_value())
            } else {
                (ratio.value() as f64, min.value(), max.value())
            };
            let most = high as f64 / low as f64;
            if asked > most {
                wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is greater than max/min = {most:.6}"));
            }
        }
    }
    if let (Some(default), Some(request)) = (&default, &request)
        && !overcommit_allowed(key)
        && default != request
    {
        let message = format!("default value {default} must equal to defaultRequest value {request} in {key}");
        wrong("defaultRequest", request, message);
    }
}
