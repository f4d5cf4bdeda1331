//! Node.

use std::collections::BTreeSet;

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::quote;
use apimachinery::names;
use serde_json::Value;

use super::checks::{legacy_cidr, name_is_subdomain, ordered, positive, qualified_name};
use super::object_meta;
use super::pod::resources::amount;
use super::pod::scheduling::taint_effect;
use crate::read::Read;

pub(super) fn create(node: &Value, errors: &mut ErrorList) {
    object_meta::create(node, false, name_is_subdomain, errors);
    let meta = Path::new("metadata");
    taints(node["spec"].list("taints"), &meta.child("taints"), errors);
    resources(node, errors);
    if let Some(capacity) = node["status"]["nodeInfo"]["swap"].int("capacity") {
        positive(capacity, &meta.child("nodeSwapStatus").child("capacity"), errors);
    }
    declared_features(node, errors);
    let path = Path::new("spec").child("podCIDRs");
    let cidrs: Vec<&str> = node["spec"].texts("podCIDRs").collect();
    for (i, cidr) in cidrs.iter().enumerate() {
        legacy_cidr(cidr, &[], &path.index(i), errors);
    }
    if cidrs.len() > 1
        && let Some((i, cidr)) = cidrs.iter().enumerate().find(|(_, cidr)| super::checks::sloppy_cidr(cidr).is_none())
    {
        let why = format!("invalid CIDR[{i}]: <nil> (invalid CIDR address: {cidr})");
        let message = format!("invalid PodCIDRs. failed to check with dual stack with error:{why}");
        errors.push(field::internal(&path, message));
    }
    let families: Option<BTreeSet<bool>> =
        cidrs.iter().map(|cidr| super::checks::sloppy_cidr(cidr).map(|_| cidr.contains(':'))).collect();
    if cidrs.len() > 1 && (families.is_none_or(|families| families.len() < 2) || cidrs.len() > 2) {
        let message = "may specify no more than one CIDR for each IP family";
        errors.push(field::invalid(&path, &node["spec"]["podCIDRs"], message));
    }
}

fn taints(taints: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        let [key, value, effect] = ["key", "value", "effect"].map(|f| taint.text(f));
        qualified_name(key, &path.child("key"), errors);
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            errors.push(field::invalid(&path.child("value"), value, wrong.join(";")));
        }
        if effect.is_empty() {
            errors.push(field::required(&path.child("effect"), ""));
        } else {
            taint_effect(effect, &path.child("effect"), errors);
        }
        if !seen.insert((effect, key)) {
            let shown = format!(
                "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":{}}}",
                quote(key),
                quote(value),
                quote(effect),
                taint["timeAdded"]
            );
            let mut error = field::duplicate(&path, BadValue::Raw(shown));
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
        }
    }
}

fn resources(node: &Value, errors: &mut ErrorList) {
    for list in ["capacity", "allocatable"] {
        for (name, value) in node["status"].entries(list) {
            let path = Path::new("status").child(list).child(name.clone());
            amount(name, value, &path, errors);
        }
    }
}

fn declared_features(node: &Value, errors: &mut ErrorList) {
    let path = Path::new("status").child("declaredFeatures");
    let features: Vec<&str> = node["status"].texts("declaredFeatures").collect();
    let segment =
        |s: &str| s.starts_with(|c: char| c.is_ascii_alphabetic()) && s.bytes().all(|b| b.is_ascii_alphanumeric());
    for (i, feature) in features.iter().enumerate() {
        let wrong = if feature.len() > names::SUBDOMAIN_MAX {
            Some("must be no more than 253 characters")
        } else if !feature.starts_with(|c: char| c.is_ascii_uppercase()) || !feature.split('/').all(segment) {
            Some(
                "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes",
            )
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let message = format!("invalid feature name {}: {wrong}", quote(feature));
            errors.push(field::invalid(&path.index(i), *feature, message));
        }
        match features.get(i + 1) {
            Some(next) if next == feature => errors.push(field::duplicate(&path.index(i + 1), *next)),
            Some(next) if next < feature => {
                errors.push(field::invalid(&path.index(i + 1), *next, "list must be sorted alphabetically"));
            }
            _ => {}
        }
    }
}

/// Updates of the node and of its status alike.
pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    create(new, errors);
    update_status(new, old, errors);
}

/// `ValidateNodeUpdate`, which is all that an update of the status has to pass.
pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    resources(new, errors);
    declared_features(new, errors);
    let mut seen: Vec<&Value> = Vec::new();
    for (i, address) in new["status"].list("addresses").iter().enumerate() {
        if seen.contains(&address) {
            let path = Path::new("status").child("addresses").index(i);
            let shown = ordered(address, &["type", "address"])
                .replace("\"type\"", "\"Type\"")
                .replace("\"address\"", "\"Address\"");
            errors.push(field::duplicate(&path, BadValue::Raw(shown)));
        }
        seen.push(address);
    }
    let (spec, before) = (&new["spec"], &old["spec"]);
    let path = Path::new("spec");
    let (after, cidrs) = (spec.list("podCIDRs"), before.list("podCIDRs"));
    if !cidrs.is_empty() {
        let message = "node updates may not change podCIDR except from \"\" to valid";
        let changes =
            if after.len() == cidrs.len() { cidrs.iter().zip(after).filter(|(a, b)| a != b).count() } else { 1 };
        for _ in 0..changes {
            errors.push(field::forbidden(&path.child("podCIDRs"), message));
        }
    }
    let id = before.text("providerID");
    if !id.is_empty() && id != spec.text("providerID") {
        let message = "node updates may not change providerID except from \"\" to valid";
        errors.push(field::forbidden(&path.child("providerID"), message));
    }
    taints(spec.list("taints"), &Path::new("metadata").child("taints"), errors);
    if spec.text("externalID") != before.text("externalID") {
        errors.push(field::forbidden(&path.child("externalID"), "may not be updated"));
    }
}
