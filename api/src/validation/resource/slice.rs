//! ResourceSlice: the devices that a driver offers.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::super::checks::{dns1123_label, immutable, messages, name_is_subdomain, quantity, semantically_equal};
use super::super::object_meta;
use super::super::pod::resources::is_native;
use super::super::pod::scheduling::node_selector;
use super::{
    LONGEST_DOMAIN, LONGEST_ID, attribute_name, binding_conditions, driver_name, fits, name, pool_name, shown_key,
    taint, unique, unique_texts,
};
use crate::read::Read;

const MOST_DEVICES: usize = 128;
const MOST_ADVANCED_DEVICES: usize = 64;
const MOST_ATTRIBUTES: usize = 32;
const MOST_VALUES: usize = 48;
const LONGEST_VALUE: usize = 64;
const MOST_TAINTS: usize = 16;
const MOST_COUNTER_SETS: usize = 8;
const MOST_CONSUMED_SETS: usize = 2;
const MOST_COUNTERS: usize = 32;
const MOST_OPTIONS: usize = 10;
const VALUE_LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

pub(in super::super) fn slice(slice: &Value, errors: &mut ErrorList) {
    object_meta::create(slice, false, name_is_subdomain, errors);
    spec(&slice["spec"], None, errors);
}

pub(in super::super) fn slice_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    spec(&new["spec"], Some(&old["spec"]), errors);
}

fn spec(spec: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let path = Path::new("spec");
    driver_name(spec.text("driver"), &path.child("driver"), errors);
    pool(&spec["pool"], &path.child("pool"), errors);
    if let Some(old) = old {
        immutable(&spec["pool"]["name"], &old["pool"]["name"], &path.children(&["pool", "name"]), errors);
        for name in ["driver", "nodeName"] {
            immutable(&spec[name], &old[name], &path.child(name), errors);
        }
    }
    let mut given = Vec::new();
    if let Some(node) = spec.set("nodeName").and_then(Value::as_str) {
        if node.is_empty() {
            let message = "must be either unset or set to a non-empty string";
            errors.push(field::invalid(&path.child("nodeName"), node, message));
        } else {
            given.push("`nodeName`");
            messages(name_is_subdomain(node, false), node, &path.child("nodeName"), errors);
        }
    }
    if let Some(selector) = spec.set("nodeSelector") {
        given.push("`nodeSelector`");
        let at = path.child("nodeSelector");
        node_selector(selector, &at, errors);
        if selector.list("nodeSelectorTerms").len() != 1 {
            let message = "must have exactly one node selector term";
            errors.push(field::invalid(&at.child("nodeSelectorTerms"), &selector["nodeSelectorTerms"], message));
        }
    }
    only_true(spec, "allNodes", "`allNodes`", &mut given, &path, errors);
    only_true(spec, "perDeviceNodeSelection", "`perDeviceNodeSelection`", &mut given, &path, errors);
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.push(field::required(&path, ONE)),
        1 => {}
        _ => {
            let message = format!("{ONE}, but multiple fields are set");
            errors.push(field::invalid(&path, format!("{{{}}}", given.join(", ")), message));
        }
    }
    if spec.set("sharedCounters").is_some() && spec.set("devices").is_some() {
        errors.push(field::invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let (devices, at) = (spec.list("devices"), path.child("devices"));
    let most = if devices.iter().any(is_advanced) { MOST_ADVANCED_DEVICES } else { MOST_DEVICES };
    if fits(devices, most, &at, errors) {
        for (i, device) in devices.iter().enumerate() {
            let before = old.and_then(|old| old.list("devices").iter().find(|d| name(d) == name(device)));
            self::device(device, before, spec.flag("perDeviceNodeSelection"), &at.index(i), errors);
        }
        unique_texts(devices, name, &at, errors);
    }
    let (sets, at) = (spec.list("sharedCounters"), path.child("sharedCounters"));
    if fits(sets, MOST_COUNTER_SETS, &at, errors) {
        for (i, set) in sets.iter().enumerate() {
            counters(set, "name", &at.index(i), errors);
        }
        unique_texts(sets, name, &at, errors);
    }
}

fn only_true(
    object: &Value,
    name: &'static str,
    shown: &'static str,
    given: &mut Vec<&'static str>,
    path: &Path,
    errors: &mut ErrorList,
) {
    match object.set(name) {
        Some(Value::Bool(true)) => given.push(shown),
        Some(value) => errors.push(field::invalid(&path.child(name), value, "must be either unset or set to true")),
        None => {}
    }
}

fn is_advanced(device: &Value) -> bool {
    !device.list("taints").is_empty()
        || !device.list("consumesCounters").is_empty()
        || device.entries("attributes").any(|(_, attribute)| VALUE_LISTS.iter().any(|l| attribute.set(l).is_some()))
}

fn pool(pool: &Value, path: &Path, errors: &mut ErrorList) {
    pool_name(pool.text("name"), &path.child("name"), errors);
    super::super::checks::positive(pool.num("resourceSliceCount"), &path.child("resourceSliceCount"), errors);
    let generation = pool.num("generation");
    if generation < 0 {
        let message = "must be greater than or equal to zero";
        errors.push(field::invalid(&path.child("generation"), generation, message));
    }
}

/// A set of counters, or what a device takes of one.
fn counters(set: &Value, name: &'static str, path: &Path, errors: &mut ErrorList) {
    if set.text(name).is_empty() {
        errors.push(field::required(&path.child(name), ""));
    } else {
        dns1123_label(set.text(name), &path.child(name), errors);
    }
    let path = path.child("counters");
    let count = set.map("counters").map_or(0, serde_json::Map::len);
    if count == 0 {
        errors.push(field::required(&path, ""));
    } else if count > MOST_COUNTERS {
        errors.push(field::too_many(&path, count, MOST_COUNTERS));
    } else {
        for (name, _) in set.entries("counters") {
            dns1123_label(name, &path, errors);
        }
    }
}

fn device(device: &Value, old: Option<&Value>, per_device: bool, path: &Path, errors: &mut ErrorList) {
    dns1123_label(name(device), &path.child("name"), errors);
    let count = |name: &str| device.map(name).map_or(0, serde_json::Map::len);
    let total = count("attributes") + count("capacity");
    if total > MOST_ATTRIBUTES {
        let message = format!("the total number of attributes and capacities must not exceed {MOST_ATTRIBUTES}");
        errors.push(field::invalid(path, total, message));
    }
    let values: usize = device
        .entries("attributes")
        .map(|(_, attribute)| match VALUE_LISTS.iter().map(|list| attribute.list(list).len()).sum() {
            0 => 1,
            listed => listed,
        })
        .sum();
    if values > MOST_VALUES {
        let message = format!("the total number of attribute values must not exceed {MOST_VALUES}");
        errors.push(field::invalid(path, values, message));
    }
    const LONGEST_KEY: usize = LONGEST_DOMAIN + 1 + LONGEST_ID;
    for (key, attribute) in device.entries("attributes") {
        let path = path.child("attributes");
        attribute_name(key, &path, errors);
        self::attribute(attribute, &path.key(shown_key(key, LONGEST_KEY)), errors);
    }
    let shared = device.flag("allowMultipleAllocations");
    for (key, capacity) in device.entries("capacity") {
        let path = path.child("capacity");
        attribute_name(key, &path, errors);
        let path = path.key(shown_key(key, LONGEST_KEY)).child("requestPolicy");
        match capacity.set("requestPolicy") {
            Some(policy) if shared => request_policy(policy, &quantity(&capacity["value"]), &path, errors),
            Some(_) => errors.push(field::forbidden(&path, "allowMultipleAllocations must be true")),
            None => {}
        }
    }
    let taints = device.list("taints");
    if old.is_none_or(|old| !semantically_equal(&old["taints"], &device["taints"]))
        && fits(taints, MOST_TAINTS, &path.child("taints"), errors)
    {
        for (i, one) in taints.iter().enumerate() {
            taint(one, None, &path.child("taints").index(i), errors);
        }
    }
    let (consumed, at) = (device.list("consumesCounters"), path.child("consumesCounters"));
    if fits(consumed, MOST_CONSUMED_SETS, &at, errors) {
        for (i, set) in consumed.iter().enumerate() {
            counters(set, "counterSet", &at.index(i), errors);
        }
        unique_texts(consumed, |set| set.text("counterSet"), &at, errors);
    }
    node_selection(device, per_device, path, errors);
    binding_conditions(device, path, errors);
    mappings(device, &path.child("nodeAllocatableResourceMappings"), errors);
}

fn node_selection(device: &Value, per_device: bool, path: &Path, errors: &mut ErrorList) {
    if !per_device {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|name| device.set(name).is_some()) {
            let message = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.push(field::invalid(path, BadValue::Value(Value::Null), message));
        }
        return;
    }
    let mut given = Vec::new();
    if let Some(node) = device.set("nodeName").and_then(Value::as_str) {
        if node.is_empty() {
            errors.push(field::invalid(&path.child("nodeName"), node, "must not be empty"));
        } else {
            given.push("`nodeName`");
            messages(name_is_subdomain(node, false), node, &path.child("nodeName"), errors);
        }
    }
    if let Some(selector) = device.set("nodeSelector") {
        given.push("`nodeSelector`");
        node_selector(selector, &path.child("nodeSelector"), errors);
    }
    only_true(device, "allNodes", "`allNodes`", &mut given, path, errors);
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match given.len() {
        0 => errors.push(field::required(path, ONE)),
        1 => {}
        _ => errors.push(field::invalid(path, format!("{{{}}}", given.join(", ")), ONE)),
    }
}

fn attribute(attribute: &Value, path: &Path, errors: &mut ErrorList) {
    const ONE: &str = "exactly one value must be specified";
    let mut given = ["bool", "int"].iter().filter(|name| attribute.set(name).is_some()).count();
    if let Some(text) = attribute.set("string").and_then(Value::as_str) {
        given += 1;
        text_value(text, &path.child("string"), errors);
    }
    if let Some(text) = attribute.set("version").and_then(Value::as_str) {
        given += 1;
        version_value(text, &path.child("version"), errors);
    }
    for list in VALUE_LISTS {
        let Some(value) = attribute.set(list) else { continue };
        let path = path.child(list);
        given += 1;
        if attribute.list(list).is_empty() {
            errors.push(field::invalid(&path, value, "must not be empty if specified"));
        }
        for (i, text) in attribute.texts(list).enumerate() {
            match list {
                "strings" => text_value(text, &path.index(i), errors),
                "versions" => version_value(text, &path.index(i), errors),
                _ => {}
            }
        }
    }
    match given {
        0 => errors.push(field::invalid(path, "", ONE)),
        1 => {}
        _ => errors.push(field::invalid(path, attribute, ONE)),
    }
}

fn text_value(text: &str, path: &Path, errors: &mut ErrorList) {
    if text.len() > LONGEST_VALUE {
        errors.push(field::too_long(path, LONGEST_VALUE));
    }
}

fn version_value(text: &str, path: &Path, errors: &mut ErrorList) {
    if !super::super::lease::is_semantic(text) {
        errors.push(field::invalid(path, text, "must be a string compatible with semver.org spec 2.0.0"));
    }
    text_value(text, path, errors);
}

/// How much of a shared capacity may be asked for: some amounts, or a range.
fn request_policy(policy: &Value, capacity: &Quantity, path: &Path, errors: &mut ErrorList) {
    let (values, range) = (policy.list("validValues"), policy.set("validRange"));
    let default = policy.set("default").map(quantity);
    let mut require = |what: &str| {
        errors.push(field::required(&path.child("default"), format!("required when {what} is defined")));
    };
    match (values.is_empty(), range, default) {
        (false, Some(_), _) => {
            let message = r#"exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time"#;
            errors.push(field::forbidden(path, message));
        }
        (false, None, None) => require("validValues"),
        (true, Some(_), None) => require("validRange"),
        (false, None, Some(default)) => valid_values(values, &default, capacity, &path.child("validValues"), errors),
        (true, Some(range), Some(default)) => {
            valid_range(range, &default, capacity, &path.child("validRange"), errors);
        }
        (true, None, _) => {}
    }
}

fn valid_values(values: &[Value], default: &Quantity, capacity: &Quantity, path: &Path, errors: &mut ErrorList) {
    for (i, pair) in values.windows(2).enumerate() {
        if quantity(&pair[0]) > quantity(&pair[1]) {
            let message = "values must be sorted in ascending order";
            errors.push(field::invalid(&path.index(i + 1), quantity(&pair[1]).to_string(), message));
        }
    }
    let mut found = false;
    if fits(values, MOST_OPTIONS, path, errors) {
        for (i, value) in values.iter().enumerate() {
            let value = quantity(value);
            found |= value == *default;
            if value > *capacity {
                let message = format!("option is larger than capacity value: {capacity}");
                errors.push(field::invalid(&path.index(i), value.to_string(), message));
            }
        }
        let key = |value: &Value| quantity(value).value().to_string();
        unique(values, key, BadValue::from, path, errors);
    }
    if !found {
        let message = "default value is not valid according to the requestPolicy";
        errors.push(field::invalid(path, default.to_string(), message));
    }
}

fn valid_range(range: &Value, default: &Quantity, capacity: &Quantity, path: &Path, errors: &mut ErrorList) {
    let of = |name: &str| range.set(name).map(quantity);
    let mut wrong = |name: &'static str, value: &Quantity, message: String| {
        errors.push(field::invalid(&path.child(name), value.to_string(), message));
    };
    let Some(min) = of("min") else {
        errors.push(field::required(&path.child("min"), "required when validRange is defined"));
        return;
    };
    if min > *capacity {
        wrong("min", &min, format!("min is larger than capacity value: {capacity}"));
    }
    if *default < min {
        wrong("min", default, format!("default is less than min: {min}"));
    }
    let max = of("max");
    if let Some(max) = &max {
        if min > *max {
            wrong("max", &min, format!("min is larger than max: {max}"));
        }
        if max > capacity {
            wrong("max", max, format!("max is larger than capacity value: {capacity}"));
        }
        if default > max {
            wrong("max", default, format!("default is more than max: {max}"));
        }
    }
    let Some(step) = of("step") else { return };
    let mut next = min.clone();
    next.add(&step);
    if next > *capacity {
        wrong("step", &step, format!("one step {next} is larger than capacity value: {capacity}"));
    }
    for value in [Some(default), max.as_ref()].into_iter().flatten() {
        // Upstream divides by zero here and answers nothing.
        if (value.value() - min.value()).checked_rem(step.value()) != Some(0) {
            wrong("step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}

fn mappings(device: &Value, path: &Path, errors: &mut ErrorList) {
    for (resource, mapping) in device.entries("nodeAllocatableResourceMappings") {
        let path = path.key(resource.clone());
        if !is_native(resource) {
            errors.push(field::invalid(&path, resource, "must be a node allocatable resource name"));
        }
        let (multiplier, key) = (mapping.set("allocationMultiplier"), mapping.set("capacityKey"));
        if multiplier.is_none() && key.is_none() {
            let message = "at least one of allocationMultiplier or capacityKey must be set";
            errors.push(field::invalid(&path, "", message));
        }
        if let Some(multiplier) = multiplier.map(quantity).filter(|multiplier| multiplier.sign() <= 0) {
            let at = path.child("allocationMultiplier");
            errors.push(field::invalid(&at, multiplier.to_string(), "must be positive"));
        }
        let at = path.child("capacityKey");
        match key.and_then(Value::as_str) {
            Some("") => errors.push(field::invalid(&at, "", "capacityKey must not be an empty string")),
            Some(key) if device["capacity"].get(key).is_none() => errors.push(field::not_found(&at, key)),
            _ => {}
        }
    }
}
