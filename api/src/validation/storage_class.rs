//! StorageClass and VolumeAttributesClass.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::{Map, Value};

use super::checks::{immutable, messages, name_is_subdomain, qualified_name, semantically_equal};
use super::object_meta;
use crate::read::Read;

pub(super) fn create(class: &Value, errors: &mut ErrorList) {
    object_meta::create(class, false, name_is_subdomain, errors);
    provisioner(class.text("provisioner"), &Path::new("provisioner"), errors);
    parameters(class.map("parameters"), errors);
    let reclaim = class.text("reclaimPolicy");
    if !reclaim.is_empty() && !matches!(reclaim, "Delete" | "Retain") {
        errors.push(field::not_supported(&Path::new("reclaimPolicy"), reclaim, &["Delete", "Retain"]));
    }
    let modes = ["Immediate", "WaitForFirstConsumer"];
    match class.set("volumeBindingMode").and_then(Value::as_str) {
        None => errors.push(field::required(&Path::new("volumeBindingMode"), "")),
        Some(mode) if modes.contains(&mode) => {}
        Some(mode) => errors.push(field::not_supported(&Path::new("volumeBindingMode"), mode, &modes)),
    }
    let terms = class.list("allowedTopologies");
    // Upstream compares with as many empty terms as there are terms, so an empty one is always a duplicate.
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new(); terms.len()];
    for (i, term) in terms.iter().enumerate() {
        let path = Path::new("allowedTopologies").index(i).child("matchLabelExpressions");
        let term = topology(term, &path, errors);
        for _ in seen.iter().filter(|other| **other == term) {
            errors.push(field::duplicate(&path, ""));
        }
        seen.push(term);
    }
}

fn topology<'a>(term: &'a Value, path: &Path, errors: &mut ErrorList) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut expressions = BTreeMap::new();
    for (i, requirement) in term.list("matchLabelExpressions").iter().enumerate() {
        let path = path.index(i);
        let (values, key) = (path.child("values"), requirement.text("key"));
        if requirement.list("values").is_empty() {
            errors.push(field::required(&values, ""));
        }
        let mut seen = BTreeSet::new();
        for (i, value) in requirement.texts("values").enumerate() {
            if !seen.insert(value) {
                errors.push(field::duplicate(&values.index(i), value));
            }
        }
        qualified_name(key, &path.child("key"), errors);
        if expressions.insert(key, seen).is_some() {
            errors.push(field::duplicate(&path.child("key"), key));
        }
    }
    expressions
}

fn provisioner(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(field::required(path, ""));
    } else {
        let lower = name.to_lowercase();
        messages(names::qualified_name(&lower), &lower, path, errors);
    }
}

fn parameters(parameters: Option<&Map<String, Value>>, errors: &mut ErrorList) {
    const MOST: usize = 512;
    const LARGEST: usize = 256 * 1024;
    let path = Path::new("parameters");
    let Some(parameters) = parameters else { return };
    if parameters.len() > MOST {
        errors.push(field::too_long(&path, MOST));
        return;
    }
    let mut size = 0;
    for (key, value) in parameters {
        if key.is_empty() {
            errors.push(field::invalid(&path, key, "field can not be empty."));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > LARGEST {
        errors.push(field::too_long(&path, LARGEST));
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    create(new, errors);
    object_meta::update(new, old, errors);
    for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        immutable(&new[name], &old[name], &Path::new(name), errors);
    }
}

pub(super) fn attributes(class: &Value, errors: &mut ErrorList) {
    object_meta::create(class, false, name_is_subdomain, errors);
    provisioner(class.text("driverName"), &Path::new("driverName"), errors);
    parameters(class.map("parameters"), errors);
    if class.map("parameters").is_none_or(Map::is_empty) {
        errors.push(field::required(&Path::new("parameters"), "must contain at least one key/value pair"));
    }
}

pub(super) fn attributes_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    for name in ["driverName", "parameters"] {
        if !semantically_equal(&new[name], &old[name]) {
            errors.push(field::forbidden(&Path::new(name), format!("updates to {name} are forbidden.")));
        }
    }
    attributes(new, errors);
}
