//! MutatingAdmissionPolicy and its binding (KEP-3962). Expressions are compiled.

use apimachinery::field::{self, ErrorList, Path};
use serde_json::Value;

use super::admission_policy::{Scope, match_resources, param_ref, what_and_when};
use super::checks::{messages, name_is_subdomain, one_of};
use super::object_meta;
use super::webhook_configuration::expression;
use crate::expressions::{self, Variables};
use crate::read::Read;

const OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

pub(super) fn policy(policy: &Value, errors: &mut ErrorList) {
    let scope = what_and_when(policy, Variables::always(), operations, errors);
    let (spec, path) = (&policy["spec"], Path::new("spec"));
    let mutations = spec.list("mutations");
    if mutations.is_empty() {
        errors.push(field::required(&path.child("mutations"), "mutations must contain at least one item"));
    }
    for (i, mutation) in mutations.iter().enumerate() {
        self::mutation(mutation, &scope, &path.child("mutations").index(i), errors);
    }
    one_of(spec.text("reinvocationPolicy"), &["IfNeeded", "Never"], &path.child("reinvocationPolicy"), errors);
}

/// What is deleted cannot be changed on the way.
fn operations(resources: &Value, path: &Path, errors: &mut ErrorList) {
    for rule in resources.list("resourceRules") {
        for operation in rule.texts("operations").filter(|operation| !OPERATIONS.contains(operation)) {
            let path = path.children(&["resourceRules", "operations"]);
            errors.push(field::not_supported(&path, operation, &OPERATIONS));
        }
    }
}

fn mutation(mutation: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    let kind = mutation.text("patchType");
    let (mine, other, of) = match kind {
        "" => {
            errors.push(field::required(&path.child("patchType"), ""));
            return;
        }
        "JSONPatch" => ("jsonPatch", "applyConfiguration", expressions::json_patch()),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", expressions::object()),
        _ => {
            let supported = ["ApplyConfiguration", "JSONPatch"];
            errors.push(field::not_supported(&path.child("patchType"), kind, &supported));
            return;
        }
    };
    match mutation.set(mine) {
        None => errors.push(field::required(&path.child(mine), format!("must be specified when patchType is {kind}"))),
        Some(patch) if patch.text("expression").trim().is_empty() => {
            errors.push(field::required(&path.child(mine).child("expression"), ""));
        }
        Some(patch) => {
            let (text, at) = (patch.text("expression").trim(), path.child(mine).child("expression"));
            expression(&scope.env(true, true), text, text, &[of], &at, errors);
        }
    }
    if mutation.set(other).is_some() {
        let message = format!("must not be specified when patchType is {kind}");
        errors.push(field::invalid(&path.child(other), format!("{{{other}}}"), message));
    }
}

pub(super) fn binding(binding: &Value, errors: &mut ErrorList) {
    object_meta::generic(binding, false, name_is_subdomain, errors);
    let (spec, path) = (&binding["spec"], Path::new("spec"));
    let (policy, at) = (spec.text("policyName"), path.child("policyName"));
    if policy.is_empty() {
        errors.push(field::required(&at, ""));
    } else {
        messages(name_is_subdomain(policy, false), policy, &at, errors);
    }
    if let Some(reference) = spec.set("paramRef") {
        param_ref(reference, &path.child("paramRef"), errors);
    }
    if let Some(resources) = spec.set("matchResources") {
        match_resources(resources, &path.child("matchResources"), errors);
        operations(resources, &path.child("matchResources"), errors);
    }
}
