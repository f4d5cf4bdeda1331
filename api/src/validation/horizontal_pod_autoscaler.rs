//! HorizontalPodAutoscaler, of either version: v1's CPU target is judged as the metric it means.

use std::borrow::Cow;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::{Value, json};

use super::checks::{dns1123_label, messages, name_is_subdomain, non_negative_quantity, non_negatives, quantity};
use super::object_meta;
use super::pod::resources::container_resource_name;
use crate::read::Read;

const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

pub(super) fn create(autoscaler: &Value, errors: &mut ErrorList) {
    object_meta::create(autoscaler, true, name_is_subdomain, errors);
    spec(autoscaler, None, errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    spec(new, Some(&old["spec"]), errors);
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    non_negatives(&new["status"], &["currentReplicas", "desiredReplicas"], &Path::new("status"), errors);
}

fn spec(autoscaler: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let (spec, path) = (&autoscaler["spec"], Path::new("spec"));
    let lowest = i64::from(old.is_none_or(|old| old.int("minReplicas") != Some(0)));
    let (min, max) = (spec.int("minReplicas"), spec.num("maxReplicas"));
    if let Some(min) = min.filter(|min| *min < lowest) {
        errors.push(field::invalid(
            &path.child("minReplicas"),
            min,
            format!("must be greater than or equal to {lowest}"),
        ));
    }
    if max == 0 {
        errors.push(field::required(&path.child("maxReplicas"), "must be set and greater than 0"));
    } else if max < 0 {
        errors.push(field::invalid(&path.child("maxReplicas"), max, "must be greater than or equal to 1"));
    }
    if min.is_some_and(|min| max < min) {
        let message = "must be greater than or equal to `minReplicas`";
        errors.push(field::invalid(&path.child("maxReplicas"), max, message));
    }
    let target = &spec["scaleTargetRef"];
    let same = |old: &Value| ["apiVersion", "kind"].iter().all(|f| old["scaleTargetRef"].text(f) == target.text(f));
    let versions = match old {
        Some(old) if same(old) => Versions::Any,
        _ if target.text("kind") == "ReplicationController" => Versions::Valid,
        _ => Versions::OfGroups,
    };
    reference(target, versions, &path.child("scaleTargetRef"), errors);
    let broken = |metric: &Value| {
        metric.text("type") == "Object"
            && metric.set("object").is_some_and(|o| version_error(&o["describedObject"], Versions::Valid).is_some())
    };
    let versions =
        if old.is_some_and(|old| old.list("metrics").iter().any(broken)) { Versions::Any } else { Versions::Valid };
    let metrics = metrics(spec);
    for (i, metric) in metrics.iter().enumerate() {
        self::metric(metric, versions, &path.child("metrics").index(i), errors);
    }
    let scales_to_zero = |m: &Value| matches!(m.text("type"), "Object" | "External");
    if min == Some(0) && !metrics.iter().any(scales_to_zero) {
        errors.push(field::forbidden(
            &path.child("metrics"),
            "must specify at least one Object or External metric to support scaling to zero replicas",
        ));
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec["behavior"].set(direction) {
            scaling_rules(rules, &path.children(&["behavior", direction]), errors);
        }
    }
}

fn metrics(spec: &Value) -> Cow<'_, [Value]> {
    match spec.int("targetCPUUtilizationPercentage") {
        None => Cow::Borrowed(spec.list("metrics")),
        Some(percent) => Cow::Owned(vec![json!({"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent},
        }})]),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Versions {
    Any,
    Valid,
    OfGroups,
}

fn version_error(reference: &Value, versions: Versions) -> Option<String> {
    let version = reference.text("apiVersion");
    match version.matches('/').count() {
        _ if versions == Versions::Any => None,
        2.. => Some(format!("unexpected GroupVersion string: {version}")),
        0 if versions == Versions::OfGroups => Some("apiVersion must specify API group".to_owned()),
        1 if versions == Versions::OfGroups && version.starts_with('/') => {
            Some("apiVersion must specify API group".to_owned())
        }
        _ => None,
    }
}

fn reference(reference: &Value, versions: Versions, path: &Path, errors: &mut ErrorList) {
    for name in ["kind", "name"] {
        segment(reference.text(name), "", &path.child(name), errors);
    }
    if let Some(error) = version_error(reference, versions) {
        errors.push(field::invalid(&path.child("apiVersion"), reference.text("apiVersion"), error));
    }
}

/// A name that can be part of a URL's path, required.
fn segment(name: &str, detail: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(field::required(path, detail));
    } else {
        messages(names::path_segment(name), name, path, errors);
    }
}

fn metric(metric: &Value, versions: Versions, path: &Path, errors: &mut ErrorList) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = metric.text("type");
    let unknown = !TYPES.contains(&kind);
    if kind.is_empty() {
        errors.push(field::required(&path.child("type"), "must specify a metric source type"));
    }
    if unknown {
        errors.push(field::not_supported(&path.child("type"), kind, &TYPES));
    }
    let present: Vec<&'static str> =
        SOURCES.iter().map(|(_, name)| *name).filter(|n| metric.set(n).is_some()).collect();
    if let Some(first) = present.first() {
        source(first, &metric[*first], versions, &path.child(*first), errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, name)| *name);
    match expected {
        Some(name) if metric.set(name).is_none() => {
            errors.push(field::required(&path.child(name), "must populate information for the given metric source"));
        }
        Some(_) => {}
        None => errors.push(field::not_supported(&path.child("type"), kind, &TYPES)),
    }
    if present.len() != 1 {
        for name in present.into_iter().filter(|n| Some(*n) != expected) {
            errors.push(field::forbidden(&path.child(name), "must populate the given metric source only"));
        }
    }
}

fn source(kind: &str, source: &Value, versions: Versions, path: &Path, errors: &mut ErrorList) {
    let of = &source["target"];
    let at = path.child("target");
    match kind {
        "object" => reference(&source["describedObject"], versions, &path.child("describedObject"), errors),
        "resource" | "containerResource" => {
            let name = source.text("name");
            if name.is_empty() {
                errors.push(field::required(&path.child("name"), "must specify a resource name"));
            } else if kind == "containerResource" {
                container_resource_name(name, &path.child("name"), errors);
            }
        }
        _ => {}
    }
    if kind == "containerResource" {
        let container = source.text("container");
        if container.is_empty() {
            errors.push(field::required(&path.child("container"), "must specify a container"));
        } else {
            dns1123_label(container, &path.child("container"), errors);
        }
    }
    if matches!(kind, "object" | "external" | "pods") {
        let name = source["metric"].text("name");
        segment(name, "must specify a metric name", &path.child("metric").child("name"), errors);
    }
    target(of, &at, errors);
    let (value, average) = (of.set("value").is_some(), of.set("averageValue").is_some());
    let utilization = of.set("averageUtilization").is_some();
    let mut missing = |name: &'static str, detail: &str| errors.push(field::required(&at.child(name), detail));
    match kind {
        "object" if !value && !average => missing("averageValue", "must set either a target value or averageValue"),
        "external" if !value && !average => {
            missing("averageValue", "must set either a target value for metric or a per-pod target");
        }
        "external" if value && average => errors.push(field::forbidden(
            &at.child("value"),
            "may not set both a target value for metric and a per-pod target",
        )),
        "pods" if !average => missing("averageValue", "must specify a positive target averageValue"),
        "resource" | "containerResource" if !utilization && !average => {
            missing("averageUtilization", "must set either a target raw value or a target utilization");
        }
        "resource" | "containerResource" if utilization && average => errors.push(field::forbidden(
            &at.child("averageValue"),
            "may not set both a target raw value and a target utilization",
        )),
        _ => {}
    }
}

fn target(target: &Value, path: &Path, errors: &mut ErrorList) {
    let kind = target.text("type");
    if kind.is_empty() {
        errors.push(field::required(&path.child("type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let message = "must be either Utilization, Value, or AverageValue";
        errors.push(field::invalid(&path.child("type"), kind, message));
    }
    for name in ["value", "averageValue"] {
        if let Some(amount) = target.set(name)
            && quantity(amount).sign() <= 0
        {
            errors.push(field::invalid(&path.child(name), amount, "must be positive"));
        }
    }
    if let Some(percent) = target.int("averageUtilization").filter(|p| *p < 1) {
        errors.push(field::invalid(&path.child("averageUtilization"), percent, "must be greater than 0"));
    }
}

fn scaling_rules(rules: &Value, path: &Path, errors: &mut ErrorList) {
    const LONGEST_WINDOW: i64 = 3600;
    const SELECTIONS: [&str; 3] = ["Disabled", "Max", "Min"];
    if let Some(window) = rules.int("stabilizationWindowSeconds") {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.push(field::invalid(&path, window, "must be greater than or equal to zero"));
        }
        if window > LONGEST_WINDOW {
            errors.push(field::invalid(&path, window, format!("must be less than or equal to {LONGEST_WINDOW}")));
        }
    }
    if let Some(select) = rules.set("selectPolicy").and_then(Value::as_str)
        && !SELECTIONS.contains(&select)
    {
        errors.push(field::not_supported(&path.child("selectPolicy"), select, &SELECTIONS));
    }
    let policies = path.child("policies");
    if rules.list("policies").is_empty() {
        errors.push(field::required(&policies, "must specify at least one Policy"));
    }
    for (i, policy) in rules.list("policies").iter().enumerate() {
        scaling_policy(policy, &policies.index(i), errors);
    }
    if let Some(tolerance) = rules.set("tolerance") {
        non_negative_quantity(tolerance, &path.child("tolerance"), errors);
    }
}

fn scaling_policy(policy: &Value, path: &Path, errors: &mut ErrorList) {
    const LONGEST_PERIOD: i64 = 1800;
    const TYPES: [&str; 2] = ["Percent", "Pods"];
    if !TYPES.contains(&policy.text("type")) {
        errors.push(field::not_supported(&path.child("type"), policy.text("type"), &TYPES));
    }
    for name in ["value", "periodSeconds"] {
        if policy.num(name) <= 0 {
            errors.push(field::invalid(&path.child(name), policy.num(name), "must be greater than zero"));
        }
    }
    let period = policy.num("periodSeconds");
    if period > LONGEST_PERIOD {
        errors.push(field::invalid(
            &path.child("periodSeconds"),
            period,
            format!("must be less than or equal to {LONGEST_PERIOD}"),
        ));
    }
}
