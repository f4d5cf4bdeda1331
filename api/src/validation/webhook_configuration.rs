//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration.

use std::collections::BTreeSet;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::checks::{label_selector, messages, name_is_subdomain, qualified_name};
use super::object_meta;
use crate::expressions::{self, Options, Refusal};
use crate::read::Read;

const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
pub(super) const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];

/// Rules that an update need not follow if what was there did not.
#[derive(Clone, Copy)]
struct Strictness {
    side_effects: bool,
    versions: bool,
    unique_names: bool,
}

pub(super) fn create(configuration: &Value, errors: &mut ErrorList) {
    check(configuration, Strictness { side_effects: true, versions: true, unique_names: true }, errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let hooks = old.list("webhooks");
    let mut names = BTreeSet::new();
    let strictness = Strictness {
        side_effects: hooks.iter().all(|hook| NO_SIDE_EFFECTS.contains(&hook.text("sideEffects"))),
        versions: hooks.iter().all(|hook| {
            let versions = "admissionReviewVersions";
            hook.list(versions).is_empty() || hook.texts(versions).any(|v| REVIEW_VERSIONS.contains(&v))
        }),
        unique_names: hooks.iter().all(|hook| names.insert(hook.text("name"))),
    };
    check(new, strictness, errors);
}

fn check(configuration: &Value, strictness: Strictness, errors: &mut ErrorList) {
    object_meta::generic(configuration, false, name_is_subdomain, errors);
    let mut seen = BTreeSet::new();
    for (i, hook) in configuration.list("webhooks").iter().enumerate() {
        let path = Path::new("webhooks").index(i);
        self::hook(hook, strictness, &path, errors);
        review_versions(hook, strictness, &path.child("admissionReviewVersions"), errors);
        let name = hook.text("name");
        if strictness.unique_names && !name.is_empty() && !seen.insert(name) {
            errors.push(field::duplicate(&path.child("name"), name));
        }
    }
}

/// One of a few texts, if it is set.
pub(super) fn optional(value: &Value, supported: &[&str], path: &Path, errors: &mut ErrorList) {
    if let Some(text) = value.as_str().filter(|text| !supported.contains(text)) {
        errors.push(field::not_supported(path, text, supported));
    }
}

fn hook(hook: &Value, strictness: Strictness, path: &Path, errors: &mut ErrorList) {
    fully_qualified_name(hook.text("name"), &path.child("name"), errors);
    for (i, rule) in hook.list("rules").iter().enumerate() {
        self::rule(rule, &path.child("rules").index(i), errors);
    }
    optional(&hook["failurePolicy"], &FAILURE_POLICIES, &path.child("failurePolicy"), errors);
    optional(&hook["matchPolicy"], &MATCH_POLICIES, &path.child("matchPolicy"), errors);
    let classes: &[&str] =
        if strictness.side_effects { &NO_SIDE_EFFECTS } else { &["None", "NoneOnDryRun", "Some", "Unknown"] };
    if hook.set("sideEffects").is_none() {
        let message = format!("must specify one of {}", classes.join(", "));
        errors.push(field::required(&path.child("sideEffects"), message));
    }
    optional(&hook["sideEffects"], classes, &path.child("sideEffects"), errors);
    if let Some(seconds) = hook.int("timeoutSeconds").filter(|s| !(1..=30).contains(s)) {
        let message = "the timeout value must be between 1 and 30 seconds";
        errors.push(field::invalid(&path.child("timeoutSeconds"), seconds, message));
    }
    for name in ["namespaceSelector", "objectSelector"] {
        label_selector(&hook[name], &path.child(name), errors);
    }
    optional(&hook["reinvocationPolicy"], &["IfNeeded", "Never"], &path.child("reinvocationPolicy"), errors);
    client_config(&hook["clientConfig"], &path.child("clientConfig"), errors);
    match_conditions(hook.list("matchConditions"), false, &path.child("matchConditions"), errors);
}

fn review_versions(hook: &Value, strictness: Strictness, path: &Path, errors: &mut ErrorList) {
    let versions = &hook["admissionReviewVersions"];
    if hook.list("admissionReviewVersions").is_empty() {
        errors.push(field::required(path, "must specify one of v1, v1beta1"));
        return;
    }
    let (mut seen, mut accepted) = (BTreeSet::new(), false);
    for (i, version) in hook.texts("admissionReviewVersions").enumerate() {
        if !seen.insert(version) {
            errors.push(field::invalid(&path.index(i), version, "duplicate version"));
            continue;
        }
        messages(names::dns1035_label(version), version, &path.index(i), errors);
        accepted |= REVIEW_VERSIONS.contains(&version);
    }
    if strictness.versions && !accepted {
        errors.push(field::invalid(path, versions, "must include at least one of v1, v1beta1"));
    }
}

/// A domain of at least three parts, required.
fn fully_qualified_name(name: &str, path: &Path, errors: &mut ErrorList) {
    let wrong = names::dns1123_subdomain(name);
    if name.is_empty() {
        errors.push(field::required(path, ""));
    } else if !wrong.is_empty() {
        errors.push(field::invalid(path, name, wrong.join(",")));
    } else if name.split('.').count() < 3 {
        let message = "should be a domain with at least three segments separated by dots";
        errors.push(field::invalid(path, name, message));
    }
}

fn all_or_some(rule: &Value, name: &'static str, what: &str, path: &Path, errors: &mut ErrorList) {
    let values = rule.list(name);
    if values.is_empty() {
        errors.push(field::required(&path.child(name), ""));
    }
    if values.len() > 1 && rule.texts(name).any(|v| v == "*") {
        let message = format!("if '*' is present, must not specify other {what}");
        errors.push(field::invalid(&path.child(name), &rule[name], message));
    }
}

/// What is done to which resources.
pub(super) fn rule(rule: &Value, path: &Path, errors: &mut ErrorList) {
    all_or_some(rule, "operations", "operations", path, errors);
    for (i, operation) in rule.texts("operations").enumerate() {
        if !OPERATIONS.contains(&operation) {
            errors.push(field::not_supported(&path.child("operations").index(i), operation, &OPERATIONS));
        }
    }
    all_or_some(rule, "apiGroups", "API groups", path, errors);
    all_or_some(rule, "apiVersions", "API versions", path, errors);
    for (i, version) in rule.texts("apiVersions").enumerate() {
        if version.is_empty() {
            errors.push(field::required(&path.child("apiVersions").index(i), ""));
        }
    }
    resources(rule, &path.child("resources"), errors);
    optional(&rule["scope"], &["*", "Cluster", "Namespaced"], &path.child("scope"), errors);
}

fn resources(rule: &Value, path: &Path, errors: &mut ErrorList) {
    if rule.list("resources").is_empty() {
        errors.push(field::required(path, ""));
    }
    let (mut all_subresources, mut on_all_resources) = (BTreeSet::new(), BTreeSet::new());
    let (mut everything, mut every_resource, mut plain) = (false, false, false);
    for (i, text) in rule.texts("resources").enumerate() {
        let path = path.index(i);
        if text.is_empty() {
            errors.push(field::required(&path, ""));
            continue;
        }
        everything |= text == "*/*";
        every_resource |= text == "*";
        let Some((resource, subresource)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if all_subresources.contains(resource) {
            let message = format!("if '{resource}/*' is present, must not specify {text}");
            errors.push(field::invalid(&path, text, message));
        }
        if on_all_resources.contains(subresource) {
            let message = format!("if '*/{subresource}' is present, must not specify {text}");
            errors.push(field::invalid(&path, text, message));
        }
        if subresource == "*" {
            all_subresources.insert(resource);
        }
        if resource == "*" {
            on_all_resources.insert(subresource);
        }
    }
    let value = &rule["resources"];
    if rule.list("resources").len() > 1 && everything {
        errors.push(field::invalid(path, value, "if '*/*' is present, must not specify other resources"));
    }
    if every_resource && plain {
        let message = "if '*' is present, must not specify other resources without subresources";
        errors.push(field::invalid(path, value, message));
    }
}

fn client_config(config: &Value, path: &Path, errors: &mut ErrorList) {
    match (config.set("url").and_then(Value::as_str), config.set("service")) {
        (Some(url), None) => self::url(url, &path.child("url"), errors),
        (None, Some(service)) => self::service(service, &path.child("service"), errors),
        _ => errors.push(field::required(path, "exactly one of url or service is required")),
    }
}

pub(super) fn url(text: &str, path: &Path, errors: &mut ErrorList) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if rest.starts_with(':') {
        let message = format!("url must be a valid URL: parse {text:?}: missing protocol scheme{FORM}");
        errors.push(field::required(path, message));
        return;
    }
    if let Some(escape) = bad_escape(rest) {
        let message = format!("url must be a valid URL: parse {text:?}: invalid URL escape {escape:?}{FORM}");
        errors.push(field::required(path, message));
        return;
    }
    let is_scheme = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", rest));
    if scheme.is_empty() && rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
        let why = "first path segment in URL cannot contain colon";
        errors.push(field::required(path, format!("url must be a valid URL: parse {text:?}: {why}{FORM}")));
        return;
    }
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let scheme = scheme.to_lowercase();
    if scheme != "https" {
        let message = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(field::invalid(path, scheme.as_str(), message));
    }
    if host.is_empty() {
        errors.push(field::invalid(path, host, format!("host must be specified{FORM}")));
    }
    if let Some(user) = user {
        errors.push(field::invalid(path, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(field::invalid(path, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(field::invalid(path, query, "query parameters are not permitted in the URL"));
    }
}

/// The first `%` without two hexadecimal digits, with what follows it.
fn bad_escape(text: &str) -> Option<&str> {
    text.match_indices('%').find_map(|(at, _)| {
        let hex = text.as_bytes().get(at + 1..at + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
        let end = text[at..].char_indices().nth(3).map_or(text.len(), |(n, _)| at + n);
        (!hex).then(|| &text[at..end])
    })
}

pub(super) fn service(service: &Value, path: &Path, errors: &mut ErrorList) {
    // Upstream mixes the two up, which shows in the order only.
    for (name, shown) in [("namespace", "name"), ("name", "namespace")] {
        if service.text(name).is_empty() {
            errors.push(field::required(&path.child(shown), ""));
        }
    }
    let port = service.num("port");
    let wrong = names::port_num(port);
    if !wrong.is_empty() {
        let message = format!("port is not valid: {}", wrong.join(", "));
        errors.push(field::invalid(&path.child("port"), port, message));
    }
    let text = service.text("path");
    let path = path.child("path");
    if text.is_empty() || text == "/" {
        return;
    }
    if text == "//" {
        errors.push(field::invalid(&path, text, "segment[0] may not be empty"));
        return;
    }
    if !text.starts_with('/') {
        errors.push(field::invalid(&path, text, "must start with a '/'"));
    }
    // Upstream cuts off a byte, which may be a part of a character.
    let cut = String::from_utf8_lossy(&text.as_bytes()[1..]);
    let rest = &*cut;
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            errors.push(field::invalid(&path, text, format!("segment[{i}] may not be empty")));
            continue;
        }
        for message in names::dns1123_subdomain(step) {
            errors.push(field::invalid(&path, text, format!("segment[{i}]: {message}")));
        }
    }
}

/// Conditions under which a webhook or policy is asked; their expressions are not compiled here.
/// `params` tells whether expressions may use those of a policy.
pub(super) fn match_conditions(conditions: &[Value], params: bool, path: &Path, errors: &mut ErrorList) {
    if conditions.len() > 64 {
        errors.push(field::too_many(path, conditions.len(), 64));
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let (path, name) = (path.index(i), condition.text("name"));
        let (expression, at) = (condition.text("expression").trim(), path.child("expression"));
        if expression.is_empty() {
            errors.push(field::required(&at, ""));
        } else {
            let env = expressions::environment(Options { params, authorizer: true, patches: false });
            self::expression(env, expression, expression, &[cel::Type::Bool], &at, errors);
        }
        if name.is_empty() {
            errors.push(field::required(&path.child("name"), ""));
            continue;
        }
        qualified_name(name, &path.child("name"), errors);
        if !seen.insert(name) {
            errors.push(field::duplicate(&path.child("name"), name));
        }
    }
}

/// Compiles an expression; `shown` is what an error shows as the value.
pub(super) fn expression(
    env: &cel::Env,
    text: &str,
    shown: &str,
    types: &[cel::Type],
    path: &Path,
    errors: &mut ErrorList,
) -> Option<cel::Program> {
    match expressions::compile(env, text, types) {
        Ok(program) => Some(program),
        Err(Refusal::Invalid(detail)) => {
            errors.push(field::invalid(path, shown, detail));
            None
        }
        Err(Refusal::Internal(detail)) => {
            errors.push(field::internal(path, detail));
            None
        }
    }
}
