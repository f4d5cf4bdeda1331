//! ResourceClaim, ResourceClaimTemplate and DeviceClass.

use std::collections::BTreeMap;

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::super::checks::{
    annotations, dns1123_label, dns1123_subdomain, immutable_struct, labels, messages, name_is_long_name,
    name_is_subdomain, qualified_name,
};
use super::super::object_meta;
use super::super::pod::resources::is_extended;
use super::{EFFECTS, attribute_name, driver_name, fits, itself, name, raw_object, unique_texts};
use crate::expressions::{self, DeviceRefusal, Refusal};
use crate::read::Read;

const MOST_REQUESTS: usize = 32;
const MOST: usize = 32;
const MOST_ALTERNATIVES: usize = 8;
const LARGEST_PARAMETERS: usize = 10 * 1024;
const LONGEST_EXPRESSION: usize = 10 * 1024;

/// The names of a claim's requests, each with those of its alternatives.
pub(super) struct Requests<'a>(BTreeMap<&'a str, Vec<&'a str>>);

impl<'a> Requests<'a> {
    pub(super) fn of(devices: &'a Value) -> Self {
        let names = devices.list("requests").iter();
        Self(names.map(|r| (r.text("name"), r.list("firstAvailable").iter().map(name).collect())).collect())
    }

    /// Checks `request` or `request/alternative`.
    pub(super) fn check(&self, reference: &str, path: &Path, errors: &mut ErrorList) {
        const MESSAGE: &str =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let (request, sub) = reference.split_once('/').map_or((reference, None), |(r, s)| (r, Some(s)));
        if sub.is_some_and(|sub| sub.contains('/')) {
            errors.push(field::invalid(path, reference, MESSAGE));
            return;
        }
        for segment in [Some(request), sub].into_iter().flatten() {
            dns1123_label(segment, path, errors);
        }
        let known = self.0.get(request).is_some_and(|subs| sub.is_none_or(|sub| subs.contains(&sub)));
        if !known {
            errors.push(field::invalid(path, reference, MESSAGE));
        }
    }
}

pub(in super::super) fn claim(claim: &Value, errors: &mut ErrorList) {
    object_meta::create(claim, true, name_is_subdomain, errors);
    devices(&claim["spec"]["devices"], &Path::new("spec").child("devices"), errors);
}

pub(in super::super) fn claim_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::create(new, true, name_is_subdomain, errors);
    object_meta::update(new, old, errors);
    immutable_struct("ResourceClaimSpec", &new["spec"], &old["spec"], &Path::new("spec"), errors);
}

pub(in super::super) fn template(template: &Value, errors: &mut ErrorList) {
    object_meta::create(template, true, name_is_subdomain, errors);
    let (spec, path) = (&template["spec"], Path::new("spec"));
    let (meta, at) = (&spec["metadata"], path.child("metadata"));
    annotations(&meta["annotations"], &at.child("annotations"), errors);
    labels(&meta["labels"], &at.child("labels"), errors);
    super::super::persistent_volume_claim::only_labels_and_annotations(meta, &at, errors);
    devices(&spec["spec"]["devices"], &path.children(&["spec", "devices"]), errors);
}

pub(in super::super) fn template_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    immutable_struct("ResourceClaimTemplateSpec", &new["spec"], &old["spec"], &Path::new("spec"), errors);
}

fn devices(devices: &Value, path: &Path, errors: &mut ErrorList) {
    let known = Requests::of(devices);
    let (requests, at) = (devices.list("requests"), path.child("requests"));
    if fits(requests, MOST_REQUESTS, &at, errors) {
        for (i, request) in requests.iter().enumerate() {
            self::request(request, &at.index(i), errors);
        }
        unique_texts(requests, name, &at, errors);
    }
    let (constraints, at) = (devices.list("constraints"), path.child("constraints"));
    if fits(constraints, MOST, &at, errors) {
        for (i, constraint) in constraints.iter().enumerate() {
            self::constraint(constraint, &known, &at.index(i), errors);
        }
    }
    let (config, at) = (devices.list("config"), path.child("config"));
    if fits(config, MOST, &at, errors) {
        for (i, config) in config.iter().enumerate() {
            references(config, &known, &at.index(i), errors);
            configuration(config, &at.index(i), errors);
        }
    }
}

/// `requests` of a constraint or a configuration.
pub(super) fn references(object: &Value, known: &Requests<'_>, path: &Path, errors: &mut ErrorList) {
    let (list, path) = (object.list("requests"), path.child("requests"));
    if fits(list, MOST_REQUESTS, &path, errors) {
        for (i, reference) in list.iter().enumerate() {
            known.check(itself(reference), &path.index(i), errors);
        }
        unique_texts(list, itself, &path, errors);
    }
}

fn request(request: &Value, path: &Path, errors: &mut ErrorList) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    dns1123_label(request.text("name"), &path.child("name"), errors);
    let alternatives = request.list("firstAvailable");
    match (request.set("exactly"), alternatives.is_empty()) {
        (None, true) => errors.push(field::required(path, ONE)),
        (Some(_), false) => {
            let message = format!("{ONE}, but multiple fields are set");
            errors.push(field::invalid(path, BadValue::Value(Value::Null), message));
        }
        (Some(exactly), true) => device_request(exactly, &path.child("exactly"), errors),
        (None, false) => {
            let path = path.child("firstAvailable");
            if fits(alternatives, MOST_ALTERNATIVES, &path, errors) {
                for (i, alternative) in alternatives.iter().enumerate() {
                    let path = path.index(i);
                    dns1123_label(alternative.text("name"), &path.child("name"), errors);
                    device_request(alternative, &path, errors);
                }
                unique_texts(alternatives, name, &path, errors);
            }
        }
    }
}

fn device_request(request: &Value, path: &Path, errors: &mut ErrorList) {
    let (class, at) = (request.text("deviceClassName"), path.child("deviceClassName"));
    if class.is_empty() {
        errors.push(field::required(&at, ""));
    } else {
        dns1123_subdomain(class, &at, errors);
    }
    selectors(request, path, errors);
    let (mode, count) = (request.text("allocationMode"), request.num("count"));
    let at = path.child("count");
    match mode {
        "All" if count != 0 => {
            errors.push(field::invalid(&at, count, "must not be specified when allocationMode is 'All'"));
        }
        "ExactCount" if count <= 0 => errors.push(field::invalid(&at, count, "must be greater than zero")),
        "All" | "ExactCount" => {}
        other => errors.push(field::not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"])),
    }
    for (i, toleration) in request.list("tolerations").iter().enumerate() {
        self::toleration(toleration, &path.child("tolerations").index(i), errors);
    }
}

fn selectors(object: &Value, path: &Path, errors: &mut ErrorList) {
    let (selectors, path) = (object.list("selectors"), path.child("selectors"));
    if !fits(selectors, MOST, &path, errors) {
        return;
    }
    for (i, selector) in selectors.iter().enumerate() {
        let path = path.index(i).child("cel");
        match selector.set("cel") {
            None => errors.push(field::required(&path, "")),
            Some(cel) if cel.text("expression").len() > LONGEST_EXPRESSION => {
                errors.push(field::too_long(&path.child("expression"), LONGEST_EXPRESSION));
            }
            Some(cel) => selects_devices(cel.text("expression"), &path.child("expression"), errors),
        }
    }
}

/// An expression that selects devices.
fn selects_devices(expression: &str, path: &Path, errors: &mut ErrorList) {
    match expressions::device_selector(expression) {
        None => {}
        Some(DeviceRefusal::TooComplex) => errors.push(field::forbidden(path, "too complex, exceeds cost limit")),
        Some(DeviceRefusal::Wrong(Refusal::Invalid(detail))) => errors.push(field::invalid(path, expression, detail)),
        Some(DeviceRefusal::Wrong(Refusal::Internal(detail))) => errors.push(field::internal(path, detail)),
    }
}

fn toleration(toleration: &Value, path: &Path, errors: &mut ErrorList) {
    let [key, operator, value, effect] = ["key", "operator", "value", "effect"].map(|f| toleration.text(f));
    if !key.is_empty() {
        qualified_name(key, &path.child("key"), errors);
    }
    let at = path.child("operator");
    match operator {
        "Exists" if !value.is_empty() => {
            errors.push(field::invalid(&path.child("value"), value, "must be empty for operator `Exists`"));
        }
        "Exists" => {}
        "Equal" => messages(names::label_value(value), value, &path.child("value"), errors),
        "" => errors.push(field::required(&at, "")),
        other => errors.push(field::not_supported(&at, other, &["Equal", "Exists"])),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.push(field::not_supported(&path.child("effect"), effect, &EFFECTS));
    }
}

fn constraint(constraint: &Value, known: &Requests<'_>, path: &Path, errors: &mut ErrorList) {
    references(constraint, known, path, errors);
    for name in ["matchAttribute", "distinctAttribute"] {
        if let Some(attribute) = constraint.set(name).and_then(Value::as_str) {
            let path = path.child(name);
            attribute_name(attribute, &path, errors);
            if !attribute.contains('/') {
                let message = "a fully qualified name must be a domain and a name separated by a slash";
                errors.push(field::invalid(&path, attribute, message));
            }
            return;
        }
    }
    let message = r#"exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#;
    errors.push(field::required(path, message));
}

pub(super) fn configuration(config: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("opaque");
    let Some(opaque) = config.set("opaque") else {
        errors.push(field::required(&path, ""));
        return;
    };
    driver_name(opaque.text("driver"), &path.child("driver"), errors);
    raw_object(opaque.set("parameters"), LARGEST_PARAMETERS, &path.child("parameters"), errors);
}

pub(in super::super) fn class(class: &Value, errors: &mut ErrorList) {
    object_meta::generated(class, false, name_is_long_name, errors);
    let (spec, path) = (&class["spec"], Path::new("spec"));
    selectors(spec, &path, errors);
    let (config, at) = (spec.list("config"), path.child("config"));
    if fits(config, MOST, &at, errors) {
        for (i, config) in config.iter().enumerate() {
            configuration(config, &at.index(i), errors);
        }
    }
    if let Some(name) = spec.set("extendedResourceName").and_then(Value::as_str)
        && !is_extended(name)
    {
        let message = "must be a valid extended resource name";
        errors.push(field::invalid(&path.child("extendedResourceName"), name, message));
    }
}

pub(in super::super) fn class_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let mut found = ErrorList::new();
    class(new, &mut found);
    // Metadata is looked at both ways before the rest.
    let at = found.iter().position(|error| error.field.starts_with("spec")).unwrap_or(found.len());
    let rest = found.0.split_off(at);
    errors.extend(found);
    object_meta::update(new, old, errors);
    errors.extend(rest);
}
