//! FlowSchema and PriorityLevelConfiguration.

use apimachinery::field::{self, BadValue, ErrorList, Path};
use apimachinery::gotext::quote;
use apimachinery::names;
use serde_json::Value;

use super::checks::{dns1123_label, dns1123_subdomain, name_is_subdomain};
use super::object_meta;
use crate::read::Read;

const SUBJECTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub(super) fn schema(schema: &Value, errors: &mut ErrorList) {
    object_meta::create(schema, false, name_is_subdomain, errors);
    let (spec, path) = (&schema["spec"], Path::new("spec"));
    let (precedence, at) = (spec.num("matchingPrecedence"), path.child("matchingPrecedence"));
    if precedence <= 0 {
        errors.push(field::invalid(&at, precedence, "must be a positive value"));
    }
    if precedence > 10_000 {
        errors.push(field::invalid(&at, precedence, "must not be greater than 10000"));
    }
    if precedence == 1 && schema["metadata"].text("name") != "exempt" {
        let message = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(field::invalid(&at, precedence, message));
    }
    if let Some(method) = spec.set("distinguisherMethod")
        && !matches!(method.text("type"), "ByNamespace" | "ByUser")
    {
        let path = path.child("distinguisherMethod").child("type");
        let shown = BadValue::Raw(format!("{{\"Type\":{}}}", quote(method.text("type"))));
        errors.push(field::not_supported(&path, shown, &["ByNamespace", "ByUser"]));
    }
    let (level, at) = (spec["priorityLevelConfiguration"].text("name"), path.child("priorityLevelConfiguration"));
    if level.is_empty() {
        errors.push(field::required(&at.child("name"), "must reference a priority level"));
    } else {
        dns1123_subdomain(level, &at.child("name"), errors);
    }
    for (i, rule) in spec.list("rules").iter().enumerate() {
        rules(rule, &path.child("rules").index(i), errors);
    }
    conditions(&schema["status"], errors);
}

/// The status alone.
pub(super) fn update_status(new: &Value, errors: &mut ErrorList) {
    conditions(&new["status"], errors);
}

fn conditions(status: &Value, errors: &mut ErrorList) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, condition) in status.list("conditions").iter().enumerate() {
        let path = Path::new("status").child("conditions").index(i).child("type");
        if !seen.insert(condition.text("type")) {
            errors.push(field::duplicate(&path, condition.text("type")));
        }
        if condition.text("type").is_empty() {
            errors.push(field::required(&path, ""));
        }
    }
}

fn rules(rule: &Value, path: &Path, errors: &mut ErrorList) {
    if rule.list("subjects").is_empty() {
        errors.push(field::required(&path.child("subjects"), "subjects must contain at least one value"));
    }
    for (i, subject) in rule.list("subjects").iter().enumerate() {
        self::subject(subject, &path.child("subjects").index(i), errors);
    }
    if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
        let message = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(field::required(path, message));
    }
    for (i, rule) in rule.list("resourceRules").iter().enumerate() {
        resource_rule(rule, &path.child("resourceRules").index(i), errors);
    }
    for (i, rule) in rule.list("nonResourceRules").iter().enumerate() {
        let path = path.child("nonResourceRules").index(i);
        verbs(rule, &path, errors);
        urls(rule, &path.child("nonResourceURLs"), errors);
    }
}

fn subject(subject: &Value, path: &Path, errors: &mut ErrorList) {
    let kind = subject.text("kind");
    let Some((_, name)) = SUBJECTS.iter().find(|(known, _)| *known == kind) else {
        errors.push(field::not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]));
        return;
    };
    let at = path.child(*name);
    match subject.set(name) {
        None => {
            errors.push(field::required(&at, format!("{name} is required when subject kind is '{kind}'")));
        }
        Some(of) => {
            let text = of.text("name");
            if text.is_empty() {
                errors.push(field::required(&at.child("name"), ""));
            } else if kind == "ServiceAccount" && text != "*" {
                dns1123_subdomain(text, &at.child("name"), errors);
            }
            let (namespace, at) = (of.text("namespace"), at.child("namespace"));
            if kind == "ServiceAccount" && namespace.is_empty() {
                errors.push(field::required(&at, "must specify namespace for service account"));
            } else if kind == "ServiceAccount" {
                dns1123_label(namespace, &at, errors);
            }
        }
    }
    for (other, name) in SUBJECTS.iter().filter(|(other, name)| *other != kind && subject.set(name).is_some()) {
        let message = format!("{name} is forbidden when subject kind is not '{other}'");
        errors.push(field::forbidden(&path.child(*name), message));
    }
}

fn verbs(rule: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("verbs");
    if rule.list("verbs").is_empty() {
        errors.push(field::required(&path, "verbs must contain at least one value"));
    } else if rule.texts("verbs").any(|verb| verb == "*") {
        only(rule, "verbs", "verbs", &path, errors);
    } else if !rule.texts("verbs").all(|verb| VERBS.contains(&verb)) {
        errors.push(field::not_supported(&path, &rule["verbs"], &VERBS));
    }
}

/// `*` stands alone.
fn only(rule: &Value, name: &str, what: &str, path: &Path, errors: &mut ErrorList) {
    if rule.list(name).len() > 1 && rule.texts(name).any(|v| v == "*") {
        let message = format!("if '*' is present, must not specify other {what}");
        errors.push(field::invalid(path, &rule[name], message));
    }
}

fn urls(rule: &Value, path: &Path, errors: &mut ErrorList) {
    if rule.list("nonResourceURLs").is_empty() {
        errors.push(field::required(path, "nonResourceURLs must contain at least one value"));
    }
    if rule.texts("nonResourceURLs").any(|url| url == "*") {
        only(rule, "nonResourceURLs", "non-resource URLs", path, errors);
        return;
    }
    for (i, url) in rule.texts("nonResourceURLs").enumerate() {
        let stars = url.matches('*').count();
        let message = match url {
            "" => "must not be empty",
            "/" => continue,
            _ if !url.starts_with('/') => "must start with slash",
            _ if url.contains(' ') => "must not contain white-space",
            _ if url.contains("//") => "must not contain double slash",
            _ if stars > 1 || (stars == 1 && !url.ends_with("/*")) => "wildcard can only do suffix matching",
            _ => continue,
        };
        errors.push(field::invalid(&path.index(i), url, message));
    }
}

fn resource_rule(rule: &Value, path: &Path, errors: &mut ErrorList) {
    verbs(rule, path, errors);
    for (name, what) in [("apiGroups", "api group"), ("resources", "resource")] {
        if rule.list(name).is_empty() {
            let message = format!("resource rules must supply at least one {what}");
            errors.push(field::required(&path.child(name), message));
        }
        only(rule, name, &format!("{what}s"), &path.child(name), errors);
    }
    let path = path.child("namespaces");
    if rule.list("namespaces").is_empty() && !rule.flag("clusterScope") {
        let message = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(field::required(&path, message));
    } else if rule.texts("namespaces").any(|n| n == "*") {
        only(rule, "namespaces", "namespaces", &path, errors);
    } else {
        for (i, namespace) in rule.texts("namespaces").enumerate() {
            for message in names::dns1123_label(namespace) {
                let message = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                errors.push(field::invalid(&path.index(i), namespace, message));
            }
        }
    }
}

pub(super) fn level(level: &Value, errors: &mut ErrorList) {
    object_meta::create(level, false, name_is_subdomain, errors);
    let (spec, path, name) = (&level["spec"], Path::new("spec"), level["metadata"].text("name"));
    let kind = spec.text("type");
    if (name == "exempt") != (kind == "Exempt") {
        let message = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(field::invalid(&path.child("type"), kind, message));
    }
    let (exempt, limited) = (path.child("exempt"), path.child("limited"));
    match kind {
        "Exempt" => {
            if spec.set("limited").is_some() {
                errors.push(field::forbidden(&limited, "must be nil if the type is not Limited"));
            }
            shares(&spec["exempt"], &exempt, errors);
            lendable(&spec["exempt"], &exempt, errors);
        }
        "Limited" => {
            if spec.set("exempt").is_some() {
                errors.push(field::forbidden(&exempt, "must be nil if the type is Limited"));
            }
            match spec.set("limited") {
                None => errors.push(field::required(&limited, "must not be empty when type is Limited")),
                Some(value) => self::limited(value, &limited, errors),
            }
        }
        other => errors.push(field::not_supported(&path.child("type"), other, &["Exempt", "Limited"])),
    }
    conditions(&level["status"], errors);
}

fn shares(value: &Value, path: &Path, errors: &mut ErrorList) {
    let shares = value.num("nominalConcurrencyShares");
    if shares < 0 {
        let path = path.child("nominalConcurrencyShares");
        errors.push(field::invalid(&path, shares, "must be a non-negative integer"));
    }
}

fn lendable(value: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(percent) = value.int("lendablePercent").filter(|p| !(0..=100).contains(p)) {
        let path = path.child("lendablePercent");
        errors.push(field::invalid(&path, percent, "must be between 0 and 100, inclusive"));
    }
}

fn limited(limited: &Value, path: &Path, errors: &mut ErrorList) {
    shares(limited, path, errors);
    let (response, at) = (&limited["limitResponse"], path.child("limitResponse"));
    let queuing = at.child("queuing");
    match (response.text("type"), response.set("queuing")) {
        ("Reject", Some(_)) => {
            let message = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(field::forbidden(&queuing, message));
        }
        ("Reject", None) => {}
        ("Queue", None) => {
            let message = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(field::required(&queuing, message));
        }
        ("Queue", Some(value)) => self::queuing(value, &queuing, errors),
        (other, _) => errors.push(field::not_supported(&at.child("type"), other, &["Queue", "Reject"])),
    }
    lendable(limited, path, errors);
    if let Some(percent) = limited.int("borrowingLimitPercent").filter(|p| *p < 0) {
        let path = path.child("borrowingLimitPercent");
        errors.push(field::invalid(&path, percent, "if specified, must be a non-negative integer"));
    }
}

fn queuing(queuing: &Value, path: &Path, errors: &mut ErrorList) {
    const MOST_QUEUES: i64 = 10_000_000;
    const HASH_BITS: u32 = 60;
    let [length, queues, hand] = ["queueLengthLimit", "queues", "handSize"].map(|f| queuing.num(f));
    if length <= 0 {
        errors.push(field::invalid(&path.child("queueLengthLimit"), length, "must be positive"));
    }
    if queues <= 0 {
        errors.push(field::invalid(&path.child("queues"), queues, "must be positive"));
    } else if queues > MOST_QUEUES {
        let message = format!("must not be greater than {MOST_QUEUES}");
        errors.push(field::invalid(&path.child("queues"), queues, message));
    }
    let path = path.child("handSize");
    if hand <= 0 {
        errors.push(field::invalid(&path, hand, "must be positive"));
    } else if hand > queues {
        let message = format!("should not be greater than queues ({queues})");
        errors.push(field::invalid(&path, hand, message));
    } else if entropy_bits(queues, hand) > HASH_BITS {
        let message = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        errors.push(field::invalid(&path, hand, message));
    }
}

/// How many bits it takes to deal a hand of so many cards from a deck.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn entropy_bits(deck: i64, hand: i64) -> u32 {
    ((deck as f64).log2() * hand as f64).ceil() as u32
}
