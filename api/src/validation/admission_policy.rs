//! ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings. Expressions are compiled.

use std::collections::BTreeSet;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::jsonpath::JsonPath;
use apimachinery::names;
use serde_json::Value;

use super::checks::{label_selector, messages, name_is_subdomain, qualified_name};
use super::webhook_configuration::{self as webhook, FAILURE_POLICIES, MATCH_POLICIES, optional};
use super::{conditions, object_meta};
use crate::expressions::{self, Options, Variables};
use crate::read::Read;

const MOST_ANNOTATIONS: usize = 20;
const LONGEST_EXPRESSION: usize = 5 * 1024;

pub(super) fn policy(policy: &Value, errors: &mut ErrorList) {
    let scope = what_and_when(policy, Variables::of(policy["spec"].list("variables").len()), |_, _, _| {}, errors);
    let (spec, path) = (&policy["spec"], Path::new("spec"));
    if spec.list("validations").is_empty() && spec.list("auditAnnotations").is_empty() {
        for name in ["validations", "auditAnnotations"] {
            let message = "validations or auditAnnotations must contain at least one item";
            errors.push(field::required(&path.child(name), message));
        }
        return;
    }
    for (i, validation) in spec.list("validations").iter().enumerate() {
        self::validation(validation, &scope, &path.child("validations").index(i), errors);
    }
    audit_annotations(policy, &scope, &path.child("auditAnnotations"), errors);
}

/// What policies of both kinds have: what they match and under which conditions, `rules` among it, and their variables.
/// Answers what their other expressions may use.
pub(super) fn what_and_when(
    policy: &Value,
    variables: Variables,
    rules: impl Fn(&Value, &Path, &mut ErrorList),
    errors: &mut ErrorList,
) -> Scope {
    object_meta::generic(policy, false, name_is_subdomain, errors);
    let (spec, path) = (&policy["spec"], Path::new("spec"));
    match spec.set("failurePolicy") {
        None => errors.push(field::required(&path.child("failurePolicy"), "")),
        Some(value) => optional(value, &FAILURE_POLICIES, &path.child("failurePolicy"), errors),
    }
    if let Some(kind) = spec.set("paramKind") {
        param_kind(kind, &path.child("paramKind"), errors);
    }
    let at = path.child("matchConstraints");
    match spec.set("matchConstraints") {
        None => errors.push(field::required(&at, "")),
        Some(constraints) => {
            match_resources(constraints, &at, errors);
            if constraints.list("resourceRules").is_empty() {
                errors.push(field::required(&at.child("resourceRules"), ""));
            }
            rules(constraints, &at, errors);
        }
    }
    let params = spec.set("paramKind").is_some();
    webhook::match_conditions(spec.list("matchConditions"), params, &path.child("matchConditions"), errors);
    let mut scope = Scope { params, variables };
    for (i, one) in spec.list("variables").iter().enumerate() {
        variable(one, &mut scope, &path.child("variables").index(i), errors);
    }
    scope
}

/// What the expressions of a policy may use.
pub(super) struct Scope {
    pub params: bool,
    pub variables: Variables,
}

impl Scope {
    pub fn env(&self, authorizer: bool, patches: bool) -> cel::Env {
        self.variables.within(expressions::environment(Options { params: self.params, authorizer, patches }))
    }
}

fn param_kind(kind: &Value, path: &Path, errors: &mut ErrorList) {
    let version = kind.text("apiVersion");
    let at = path.child("apiVersion");
    if version.is_empty() {
        errors.push(field::required(&at, ""));
    } else if version.matches('/').count() > 1 {
        let message = format!("unexpected GroupVersion string: {version}");
        errors.push(field::invalid(&at, version, message));
    } else {
        let (group, number) = version.split_once('/').unwrap_or(("", version));
        let wrong = names::dns1123_subdomain(group);
        if !group.is_empty() && !wrong.is_empty() {
            errors.push(field::invalid(&at, group, wrong.join(",")));
        }
        let wrong = names::dns1035_label(number);
        if number.is_empty() {
            errors.push(field::invalid(&at, version, "version must be specified"));
        } else if !wrong.is_empty() {
            errors.push(field::invalid(&at, number, wrong.join(",")));
        }
    }
    let (name, at) = (kind.text("kind"), path.child("kind"));
    let wrong = names::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.push(field::required(&at, ""));
    } else if !wrong.is_empty() {
        let message = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(field::invalid(&at, name, message));
    }
}

pub(super) fn match_resources(resources: &Value, path: &Path, errors: &mut ErrorList) {
    match resources.set("matchPolicy") {
        None => errors.push(field::required(&path.child("matchPolicy"), "")),
        Some(value) => optional(value, &MATCH_POLICIES, &path.child("matchPolicy"), errors),
    }
    for name in ["namespaceSelector", "objectSelector"] {
        match resources.set(name) {
            None => errors.push(field::required(&path.child(name), "")),
            Some(selector) => label_selector(selector, &path.child(name), errors),
        }
    }
    for name in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in resources.list(name).iter().enumerate() {
            let path = path.child(name).index(i);
            let mut seen = BTreeSet::new();
            for (i, name) in rule.texts("resourceNames").enumerate() {
                let path = path.child("resourceNames").index(i);
                messages(names::path_segment(name), name, &path, errors);
                if !seen.insert(name) {
                    errors.push(field::duplicate(&path, name));
                }
            }
            webhook::rule(rule, &path, errors);
        }
    }
}

fn variable(variable: &Value, scope: &mut Scope, path: &Path, errors: &mut ErrorList) {
    let name = variable.text("name");
    let identifier = name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
        && !cel::KEYWORDS.contains(&name);
    if name.trim().is_empty() {
        errors.push(field::required(&path.child("name"), "name is not specified"));
    } else if !identifier {
        errors.push(field::invalid(&path.child("name"), name, "must be a valid CEL identifier"));
    }
    let (text, at) = (variable.text("expression"), path.child("expression"));
    if text.trim().is_empty() {
        errors.push(field::required(&at, "expression is not specified"));
        return;
    }
    let program = webhook::expression(&scope.env(true, false), text, text, &[], &at, errors);
    scope.variables.add(name, program.as_ref().map(cel::Program::output_type));
}

fn validation(validation: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    let (text, at) = (validation.text("expression"), path.child("expression"));
    if text.trim().is_empty() {
        errors.push(field::required(&at, "expression is not specified"));
    } else {
        webhook::expression(&scope.env(true, false), text, text, &[cel::Type::Bool], &at, errors);
    }
    let text = validation.text("messageExpression");
    if !text.trim().is_empty() {
        let at = path.child("messageExpression");
        webhook::expression(&scope.env(false, false), text, text, &[cel::Type::String], &at, errors);
    }
    for name in ["messageExpression", "message"] {
        let text = validation.text(name);
        if !text.is_empty() && text.trim().is_empty() {
            errors.push(field::invalid(&path.child(name), text, "must be non-empty if specified"));
        } else if name == "message" && text.trim().contains(['\n', '\r']) {
            errors.push(field::invalid(&path.child(name), text, "must not contain line breaks"));
        }
    }
    optional(&validation["reason"], &REASONS, &path.child("reason"), errors);
}

fn audit_annotations(policy: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    let annotations = policy["spec"].list("auditAnnotations");
    let name = policy["metadata"].text("name");
    if annotations.len() > MOST_ANNOTATIONS {
        let message = format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations");
        errors.push(field::invalid(path, &policy["spec"]["auditAnnotations"], message));
    }
    let mut seen = BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let (path, key) = (path.index(i), annotation.text("key"));
        if name.is_empty() {
            errors.push(field::invalid(&path.child("key"), key, "requires metadata.name be non-empty"));
        } else {
            qualified_name(&format!("{name}/{key}"), &path.child("key"), errors);
        }
        let (expression, at) = (annotation.text("valueExpression").trim(), path.child("valueExpression"));
        if expression.is_empty() {
            errors.push(field::required(&at, "valueExpression is not specified"));
        } else if expression.len() > LONGEST_EXPRESSION {
            errors.push(field::required(&at, format!("must not exceed {LONGEST_EXPRESSION} bytes in length")));
        } else {
            let types = [cel::Type::String, cel::Type::Null];
            let shown = annotation.text("valueExpression");
            webhook::expression(&scope.env(true, false), expression, shown, &types, &at, errors);
        }
        if !seen.insert(key) {
            errors.push(field::duplicate(&path.child("key"), key));
        }
    }
}

/// What the type checker and others say of a policy.
pub(super) fn update_status(new: &Value, errors: &mut ErrorList) {
    let (status, path) = (&new["status"], Path::new("status"));
    for (i, warning) in status["typeChecking"].list("expressionWarnings").iter().enumerate() {
        let path = path.children(&["typeChecking", "expressionWarnings"]).index(i);
        if warning.text("warning").is_empty() {
            errors.push(field::required(&path.child("warning"), ""));
        }
        let reference = warning.text("fieldRef").trim();
        if reference.is_empty() {
            errors.push(field::required(&path.child("fieldRef"), ""));
        } else if let Err(error) = JsonPath::parse(&format!("{{{reference}}}")) {
            errors.push(field::invalid(&path.child("fieldRef"), reference, format!("invalid JSONPath: {error}")));
        }
    }
    conditions::check(status.list("conditions"), &path.child("conditions"), errors);
}

pub(super) fn binding(binding: &Value, errors: &mut ErrorList) {
    object_meta::generic(binding, false, name_is_subdomain, errors);
    let (spec, path) = (&binding["spec"], Path::new("spec"));
    let policy = spec.text("policyName");
    if policy.is_empty() {
        errors.push(field::required(&path.child("policyName"), ""));
    } else {
        messages(names::dns1123_subdomain(policy), policy, &path.child("policyName"), errors);
    }
    if let Some(reference) = spec.set("paramRef") {
        param_ref(reference, &path.child("paramRef"), errors);
    }
    if let Some(resources) = spec.set("matchResources") {
        match_resources(resources, &path.child("matchResources"), errors);
    }
    actions(spec, &path.child("validationActions"), errors);
}

pub(super) fn param_ref(reference: &Value, path: &Path, errors: &mut ErrorList) {
    const ACTIONS: [&str; 2] = ["Deny", "Allow"];
    let (name, selector) = (reference.text("name"), reference.set("selector"));
    if !name.is_empty() {
        messages(names::path_segment(name), name, &path.child("name"), errors);
    }
    let both = !name.is_empty() && selector.is_some();
    if both {
        errors.push(field::forbidden(&path.child("name"), "name and selector are mutually exclusive"));
    }
    if let Some(selector) = selector {
        label_selector(selector, &path.child("selector"), errors);
    }
    if both {
        errors.push(field::forbidden(&path.child("selector"), "name and selector are mutually exclusive"));
    }
    if name.is_empty() && selector.is_none() {
        errors.push(field::required(path, "one of name or selector must be specified"));
    }
    super::checks::one_of(
        reference.text("parameterNotFoundAction"),
        &ACTIONS,
        &path.child("parameterNotFoundAction"),
        errors,
    );
}

fn actions(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, action) in spec.texts("validationActions").enumerate() {
        optional(&action.into(), &["Audit", "Deny", "Warn"], &path.index(i), errors);
        if !seen.insert(action) {
            errors.push(field::duplicate(&path.index(i), action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let message = "must not contain both Deny and Warn (repeating the same validation failure information \
                       in the API response and headers serves no purpose)";
        errors.push(field::invalid(path, &spec["validationActions"], message));
    }
    if seen.is_empty() {
        errors.push(field::required(path, "at least one validation action is required"));
    }
}
