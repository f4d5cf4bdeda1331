//! ResourceQuota.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use serde_json::Value;

use super::checks::{IMMUTABLE, name_is_subdomain};
use super::object_meta;
use super::pod::resources::{amount, is_standard, resource_name};
use crate::read::Read;

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const CONFLICTS: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

pub(super) fn create(quota: &Value, errors: &mut ErrorList) {
    object_meta::create(quota, true, name_is_subdomain, errors);
    spec(&quota["spec"], errors);
    status(&quota["status"], errors);
}

/// What quota keeps count of: the standard resources but plain storage.
fn is_quota_resource(name: &str) -> bool {
    name != "storage" && is_standard(name)
}

fn amounts(object: &Value, name: &'static str, path: &Path, errors: &mut ErrorList) {
    for (resource, value) in object.entries(name) {
        let path = path.child(name).key(resource.clone());
        resource_name(resource, &path, errors);
        if !resource.contains('/') && !is_quota_resource(resource) {
            errors.push(field::invalid(&path, resource, "must be a standard resource for quota"));
        }
        amount(resource, value, &path, errors);
    }
}

fn status(status: &Value, errors: &mut ErrorList) {
    for name in ["hard", "used"] {
        amounts(status, name, &Path::new("status"), errors);
    }
}

fn spec(spec: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec");
    amounts(spec, "hard", &path, errors);
    let scopes: Vec<&str> = spec.texts("scopes").collect();
    let at = path.child("scopes");
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.push(field::invalid(&at, &spec["scopes"], "unsupported scope"));
        }
        for _ in misapplied(spec, scope) {
            errors.push(field::invalid(&at, &spec["scopes"], "unsupported scope applied to resource"));
        }
    }
    conflicts(&scopes, spec, &at, errors);
    if let Some(selector) = spec.set("scopeSelector") {
        scope_selector(spec, selector, &path.children(&["scopeSelector", "matchExpressions"]), errors);
    }
}

/// Limited resources that a scope cannot be applied to.
fn misapplied<'a>(spec: &'a Value, scope: &str) -> impl Iterator<Item = &'a str> {
    const COMPUTE: [&str; 7] =
        ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    let allowed: Option<&[&str]> = match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            Some(&COMPUTE)
        }
        "BestEffort" => Some(&["pods"]),
        "VolumeAttributesClass" => Some(&["persistentvolumeclaims", "requests.storage"]),
        _ => None,
    };
    let names = spec.entries("hard").map(|(name, _)| name.as_str());
    names.filter(move |name| is_quota_resource(name) && allowed.is_some_and(|allowed| !allowed.contains(name)))
}

fn conflicts(scopes: &[&str], spec: &Value, path: &Path, errors: &mut ErrorList) {
    for _ in CONFLICTS.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))) {
        errors.push(field::invalid(path, &spec["scopes"], "conflicting scopes"));
    }
}

fn scope_selector(spec: &Value, selector: &Value, path: &Path, errors: &mut ErrorList) {
    const EXISTS: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
    let mut scopes = Vec::new();
    for requirement in selector.list("matchExpressions") {
        let (scope, operator) = (requirement.text("scopeName"), requirement.text("operator"));
        if !SCOPES.contains(&scope) {
            errors.push(field::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in misapplied(spec, scope) {
            errors.push(field::invalid(path, selector, "unsupported scope applied to resource"));
        }
        let plain = SCOPES.contains(&scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if plain && operator != "Exists" {
            errors.push(field::invalid(&path.child("operator"), operator, EXISTS));
        }
        let values = requirement.list("values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let message = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(field::required(&path.child("values"), message));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let message = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(field::invalid(&path.child("values"), &requirement["values"], message));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(field::invalid(&path.child("operator"), operator, "not a valid selector operator")),
        }
        scopes.push(scope);
    }
    conflicts(&scopes, spec, path, errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    spec(&new["spec"], errors);
    let scopes = |quota: &Value| {
        let mut scopes: Vec<String> = quota["spec"].texts("scopes").map(str::to_owned).collect();
        scopes.sort_unstable();
        scopes.dedup();
        scopes
    };
    if scopes(new) != scopes(old) {
        let shown = new["spec"].set("scopes").map_or(BadValue::Value(Value::Null), BadValue::from);
        errors.push(field::invalid(&Path::new("spec").child("scopes"), shown, IMMUTABLE));
    }
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    if new["metadata"].text("resourceVersion").is_empty() {
        errors.push(field::required(&Path::new("resourceVersion"), ""));
    }
    status(&new["status"], errors);
}
