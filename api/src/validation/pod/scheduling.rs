//! Where a pod may run: affinity, tolerations, gates and spreading.

use std::collections::BTreeSet;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::super::checks::{label_selector, messages, name_is_label, name_is_subdomain, positive, qualified_name};
use crate::read::Read;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn affinity(affinity: &Value, path: &Path, errors: &mut ErrorList) {
    let node = &affinity["nodeAffinity"];
    let at = path.child("nodeAffinity");
    if let Some(selector) = node.set(REQUIRED) {
        node_selector(selector, &at.child(REQUIRED), errors);
    }
    for (i, term) in node.list(PREFERRED).iter().enumerate() {
        let path = at.child(PREFERRED).index(i);
        weight(term, &path, errors);
        node_selector_term(&term["preference"], false, &path.child("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (affinity, path) = (&affinity[kind], path.child(kind));
        for (i, term) in affinity.list(REQUIRED).iter().enumerate() {
            pod_affinity_term(term, &path.child(REQUIRED).index(i), errors);
        }
        for (i, term) in affinity.list(PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(i);
            weight(term, &path, errors);
            pod_affinity_term(&term["podAffinityTerm"], &path.child("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Value, path: &Path, errors: &mut ErrorList) {
    let weight = term.num("weight");
    if !(1..=100).contains(&weight) {
        errors.push(field::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// A NodeSelector, of a pod or of a volume.
pub(in super::super) fn node_selector(selector: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("nodeSelectorTerms");
    let terms = selector.list("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(field::required(&path, "must have at least one node selector term"));
    }
    for (i, term) in terms.iter().enumerate() {
        node_selector_term(term, true, &path.index(i), errors);
    }
}

/// Values of preferences are not checked, as upstream.
fn node_selector_term(term: &Value, check_values: bool, path: &Path, errors: &mut ErrorList) {
    for (i, requirement) in term.list("matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = requirement.list("values");
        let complaint = match requirement.text("operator") {
            "In" | "NotIn" => values.is_empty().then(|| {
                field::required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
            }),
            "Exists" | "DoesNotExist" => (!values.is_empty()).then(|| {
                let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                field::forbidden(&path.child("values"), message)
            }),
            "Gt" | "Lt" => (values.len() != 1).then(|| {
                let message = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                field::required(&path.child("values"), message)
            }),
            other => Some(field::invalid(&path.child("operator"), other, "not a valid selector operator")),
        };
        errors.extend(complaint);
        qualified_name(requirement.text("key"), &path.child("key"), errors);
        for (i, value) in requirement.texts("values").enumerate().filter(|_| check_values) {
            messages(names::label_value(value), value, &path.child("values").index(i), errors);
        }
    }
    for (i, requirement) in term.list("matchFields").iter().enumerate() {
        let path = path.child("matchFields").index(i);
        match requirement.text("operator") {
            "In" | "NotIn" => {
                if requirement.list("values").len() != 1 {
                    let message = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    errors.push(field::required(&path.child("values"), message));
                }
            }
            other => {
                errors.push(field::invalid(&path.child("operator"), other, "not a valid selector operator"));
            }
        }
        let key = requirement.text("key");
        if key != "metadata.name" {
            errors.push(field::invalid(&path.child("key"), key, "not a valid field selector key"));
            continue;
        }
        for (i, value) in requirement.texts("values").enumerate() {
            messages(name_is_subdomain(value, false), value, &path.child("values").index(i), errors);
        }
    }
}

fn pod_affinity_term(term: &Value, path: &Path, errors: &mut ErrorList) {
    label_selector(&term["labelSelector"], &path.child("labelSelector"), errors);
    label_selector(&term["namespaceSelector"], &path.child("namespaceSelector"), errors);
    for namespace in term.texts("namespaces") {
        messages(name_is_label(namespace, false), namespace, &path.child("namespace"), errors);
    }
    label_keys(term, path, errors);
    let key = term.text("topologyKey");
    if key.is_empty() {
        errors.push(field::required(&path.child("topologyKey"), "can not be empty"));
    }
    qualified_name(key, &path.child("topologyKey"), errors);
}

/// `matchLabelKeys` and `mismatchLabelKeys` beside a label selector.
fn label_keys(term: &Value, path: &Path, errors: &mut ErrorList) {
    let selector = term.set("labelSelector");
    for name in ["matchLabelKeys", "mismatchLabelKeys"] {
        let path = path.child(name);
        if term.list(name).is_empty() {
            continue;
        }
        if selector.is_none() {
            errors.push(field::forbidden(&path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (i, key) in term.texts(name).enumerate() {
            qualified_name(key, &path.index(i), errors);
        }
    }
    if let Some(selector) = selector {
        let mut used: BTreeSet<&str> = selector.entries("matchLabels").map(|(k, _)| k.as_str()).collect();
        for expression in selector.list("matchExpressions") {
            let key = expression.text("key");
            if let Some(i) = term.texts("matchLabelKeys").position(|k| k == key).filter(|_| used.contains(key)) {
                let message = "exists in both matchLabelKeys and labelSelector";
                errors.push(field::invalid(&path.index(i), key, message));
            }
            used.insert(key);
        }
    }
    for (i, key) in term.texts("matchLabelKeys").enumerate() {
        if term.texts("mismatchLabelKeys").any(|k| k == key) {
            let message = "exists in both matchLabelKeys and mismatchLabelKeys";
            errors.push(field::invalid(&path.child("matchLabelKeys").index(i), key, message));
        }
    }
}

pub(in super::super) fn taint_effect(effect: &str, path: &Path, errors: &mut ErrorList) {
    if !EFFECTS.contains(&effect) {
        errors.push(field::not_supported(path, effect, EFFECTS));
    }
}

pub(in super::super) fn tolerations(tolerations: &[Value], path: &Path, errors: &mut ErrorList) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let [key, operator, value, effect] = ["key", "operator", "value", "effect"].map(|f| toleration.text(f));
        if !key.is_empty() {
            qualified_name(key, &path.child("key"), errors);
        } else if operator != "Exists" {
            let message = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(field::invalid(&path.child("operator"), operator, message));
        }
        if toleration.set("tolerationSeconds").is_some() && effect != "NoExecute" {
            let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(field::invalid(&path.child("effect"), effect, message));
        }
        let at = path.child("operator");
        match operator {
            "Equal" | "" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    errors.push(field::invalid(&at, value, wrong.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.push(field::invalid(&at, value, "value must be empty when `operator` is 'Exists'"));
                }
            }
            "Lt" | "Gt" => errors.push(field::not_supported(&at, operator, &["Equal", "Exists", "Lt", "Gt"])),
            other => errors.push(field::not_supported(&at, other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            taint_effect(effect, &path.child("effect"), errors);
        }
    }
}

pub(super) fn gates(gates: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.iter().enumerate() {
        let name = gate.text("name");
        qualified_name(name, &path.index(i), errors);
        if !seen.insert(name) {
            errors.push(field::duplicate(&path.index(i), name));
        }
    }
}

const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
const POLICIES: &[&str] = &["Honor", "Ignore"];

pub(super) fn spread(constraints: &[Value], path: &Path, errors: &mut ErrorList) {
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        positive(constraint.num("maxSkew"), &path.child("maxSkew"), errors);
        let (key, action) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        if key.is_empty() {
            errors.push(field::required(&path.child("topologyKey"), "can not be empty"));
        }
        if !ACTIONS.contains(&action) {
            errors.push(field::not_supported(&path.child("whenUnsatisfiable"), action, ACTIONS));
        }
        let same = |c: &Value| c.text("topologyKey") == key && c.text("whenUnsatisfiable") == action;
        if constraints[i + 1..].iter().any(same) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(field::duplicate(&path, format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = constraint.int("minDomains") {
            let path = path.child("minDomains");
            positive(domains, &path, errors);
            if action != "DoNotSchedule" {
                let message = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(field::invalid(&path, domains, message));
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = constraint.set(name).and_then(Value::as_str).filter(|p| !POLICIES.contains(p)) {
                errors.push(field::not_supported(&path.child(name), policy, POLICIES));
            }
        }
        label_keys(constraint, &path, errors);
        label_selector(&constraint["labelSelector"], &path.child("labelSelector"), errors);
    }
}
