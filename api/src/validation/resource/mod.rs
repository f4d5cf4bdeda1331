//! Kinds of `resource.k8s.io`: dynamic resource allocation (KEP-4381).

mod claim;
mod slice;
mod status;
mod taint_rule;

pub(super) use claim::{claim, claim_update, class, class_update, template, template_update};
pub(super) use slice::{slice, slice_update};
pub(super) use status::claim_status;
pub(super) use taint_rule::{taint_rule, taint_rule_status, taint_rule_update};

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::checks::{dns1123_subdomain, messages, qualified_name};
use super::pod::volume_sources::csi_driver_name as driver_name;
use crate::read::Read;

/// Checks a list's size; a list that is too long is not looked into.
fn fits(list: &[Value], most: usize, path: &Path, errors: &mut ErrorList) -> bool {
    if list.len() > most {
        errors.push(field::too_many(path, list.len(), most));
    }
    list.len() <= most
}

/// Complains of each item whose key an earlier one has.
fn unique<K: PartialEq>(
    list: &[Value],
    key: impl Fn(&Value) -> K,
    show: fn(K) -> BadValue,
    path: &Path,
    errors: &mut ErrorList,
) {
    let keys: Vec<K> = list.iter().map(key).collect();
    let repeated: Vec<usize> = (0..keys.len()).filter(|i| keys[..*i].contains(&keys[*i])).collect();
    for (i, key) in keys.into_iter().enumerate().filter(|(i, _)| repeated.contains(i)) {
        errors.push(field::duplicate(&path.index(i), show(key)));
    }
}

fn unique_texts(list: &[Value], key: fn(&Value) -> &str, path: &Path, errors: &mut ErrorList) {
    unique(list, |item| key(item).to_owned(), BadValue::from, path, errors);
}

fn name(item: &Value) -> &str {
    item.text("name")
}

fn itself(item: &Value) -> &str {
    item.as_str().unwrap_or_default()
}

/// Names of pools: domains, one within another.
fn pool_name(name: &str, path: &Path, errors: &mut ErrorList) {
    const LONGEST: usize = 253;
    if name.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    if name.len() > LONGEST {
        errors.push(field::too_long(path, LONGEST));
    }
    for part in name.split('/') {
        dns1123_subdomain(part, path, errors);
    }
}

const LONGEST_DOMAIN: usize = 63;
const LONGEST_ID: usize = 32;

fn c_identifier(id: &str, path: &Path, errors: &mut ErrorList) {
    if id.len() > LONGEST_ID {
        errors.push(field::too_long(path, LONGEST_ID));
    }
    messages(names::c_identifier(id), id, path, errors);
}

/// An identifier, with a driver's domain before it or not.
fn attribute_name(name: &str, path: &Path, errors: &mut ErrorList) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => c_identifier(id, path, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(field::invalid(path, "", "the domain must not be empty"));
            } else {
                driver_name(domain, path, errors);
            }
            if id.is_empty() {
                errors.push(field::invalid(path, "", "the name must not be empty"));
            } else {
                c_identifier(id, path, errors);
            }
        }
        // Upstream lets names with more slashes through.
        _ => {}
    }
}

/// The key of a map's entry in a path, cut in its middle where it is too long.
fn shown_key(key: &str, longest: usize) -> String {
    if key.len() <= longest || !key.is_ascii() {
        return key.to_owned();
    }
    let rest = longest - 3;
    format!("{}...{}", &key[..rest.div_ceil(2)], &key[key.len() - rest / 2..])
}

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// A taint; an effect that was there before may stay.
fn taint(taint: &Value, old: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let [key, value, effect] = ["key", "value", "effect"].map(|f| taint.text(f));
    qualified_name(key, &path.child("key"), errors);
    messages(names::label_value(value), value, &path.child("value"), errors);
    if old.is_none_or(|old| old.text("effect") != effect) {
        super::checks::one_of(effect, &EFFECTS, &path.child("effect"), errors);
    }
}

/// What a device must fulfil before it is bound, and what shows that it never will.
fn binding_conditions(object: &Value, path: &Path, errors: &mut ErrorList) {
    const MOST: usize = 4;
    const CONDITIONS: &str = "bindingConditions";
    const FAILURES: &str = "bindingFailureConditions";
    for name in [CONDITIONS, FAILURES] {
        let (list, path) = (object.list(name), path.child(name));
        if fits(list, MOST, &path, errors) {
            for (i, condition) in list.iter().enumerate() {
                qualified_name(itself(condition), &path.index(i), errors);
            }
        }
    }
    let (conditions, failures) = (object.list(CONDITIONS), object.list(FAILURES));
    unique_texts(conditions, itself, &path.child(CONDITIONS), errors);
    let at = path.child(FAILURES);
    for (i, failure) in failures.iter().enumerate() {
        if failures[..i].contains(failure) {
            errors.push(field::duplicate(&at.index(i), failure));
        }
        if conditions.contains(failure) {
            let message = "bindingFailureConditions must not overlap with bindingConditions";
            errors.push(field::invalid(&at.index(i), failure, message));
        }
    }
    for (mine, theirs) in [(CONDITIONS, FAILURES), (FAILURES, CONDITIONS)] {
        if object.list(mine).is_empty() && !object.list(theirs).is_empty() {
            errors.push(field::invalid(
                &path.child(mine),
                &object[mine],
                format!("{mine} are required to use {theirs}"),
            ));
        }
    }
}

/// What only a driver understands: a JSON object.
fn raw_object(value: Option<&Value>, most: usize, path: &Path, errors: &mut ErrorList) {
    match value {
        None => errors.push(field::required(path, "")),
        Some(value) if apimachinery::gotext::json(value).len() > most => errors.push(field::too_long(path, most)),
        Some(Value::Object(_)) => {}
        Some(_) => errors.push(field::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}
