//! Roles, ClusterRoles and their bindings.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::checks::{label_selector, messages, name_is_path_segment, parsed_selector, semantically_equal};
use super::diff;
use super::object_meta;
use crate::read::Read;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(role: &Value, errors: &mut ErrorList) {
    object_meta::create(role, true, name_is_path_segment, errors);
    rules(role, true, errors);
}

pub(super) fn role_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    role(new, errors);
    object_meta::update(new, old, errors);
}

pub(super) fn cluster_role(role: &Value, errors: &mut ErrorList) {
    object_meta::create(role, false, name_is_path_segment, errors);
    rules(role, false, errors);
    if let Some(aggregation) = role.set("aggregationRule") {
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        let selectors = aggregation.list("clusterRoleSelectors");
        if selectors.is_empty() {
            errors.push(field::required(
                &path,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            ));
        }
        for (i, selector) in selectors.iter().enumerate() {
            label_selector(selector, &path.index(i), errors);
            if parsed_selector(selector).is_none() {
                errors.push(field::invalid(&path.index(i), Value::Null, "invalid label selector."));
            }
        }
    }
}

pub(super) fn cluster_role_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    cluster_role(new, errors);
    object_meta::update(new, old, errors);
}

fn rules(role: &Value, namespaced: bool, errors: &mut ErrorList) {
    for (i, rule) in role.list("rules").iter().enumerate() {
        policy_rule(rule, namespaced, &Path::new("rules").index(i), errors);
    }
}

fn policy_rule(rule: &Value, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    if rule.list("verbs").is_empty() {
        errors.push(field::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    let urls = &rule["nonResourceURLs"];
    if !rule.list("nonResourceURLs").is_empty() {
        let path = path.child("nonResourceURLs");
        if namespaced {
            errors.push(field::invalid(&path, urls, "namespaced rules cannot apply to non-resource URLs"));
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|f| !rule.list(f).is_empty()) {
            errors.push(field::invalid(
                &path,
                urls,
                "rules cannot apply to both regular resources and non-resource URLs",
            ));
        }
        return;
    }
    if rule.list("apiGroups").is_empty() {
        errors.push(field::required(&path.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if rule.list("resources").is_empty() {
        errors.push(field::required(&path.child("resources"), "resource rules must supply at least one resource"));
    }
}

pub(super) fn role_binding(binding: &Value, errors: &mut ErrorList) {
    self::binding(binding, true, errors);
}

pub(super) fn role_binding_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    binding_update(new, old, true, errors);
}

pub(super) fn cluster_role_binding(binding: &Value, errors: &mut ErrorList) {
    self::binding(binding, false, errors);
}

pub(super) fn cluster_role_binding_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    binding_update(new, old, false, errors);
}

fn binding(binding: &Value, namespaced: bool, errors: &mut ErrorList) {
    object_meta::create(binding, namespaced, name_is_path_segment, errors);
    let (path, role) = (Path::new("roleRef"), &binding["roleRef"]);
    if role.text("apiGroup") != GROUP {
        errors.push(field::not_supported(&path.child("apiGroup"), role.text("apiGroup"), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text("kind")) {
        errors.push(field::not_supported(&path.child("kind"), role.text("kind"), kinds));
    }
    if role.text("name").is_empty() {
        errors.push(field::required(&path.child("name"), ""));
    } else {
        messages(names::path_segment(role.text("name")), role.text("name"), &path.child("name"), errors);
    }
    for (i, subject) in binding.list("subjects").iter().enumerate() {
        self::subject(subject, namespaced, &Path::new("subjects").index(i), errors);
    }
}

fn subject(subject: &Value, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    let (name, group) = (subject.text("name"), subject.text("apiGroup"));
    if name.is_empty() {
        errors.push(field::required(&path.child("name"), ""));
    }
    match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                messages(names::dns1123_subdomain(name), name, &path.child("name"), errors);
            }
            if !group.is_empty() {
                errors.push(field::not_supported(&path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && subject.text("namespace").is_empty() {
                errors.push(field::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(field::not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
        }
        other => {
            errors.push(field::not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]));
        }
    }
}

fn binding_update(new: &Value, old: &Value, namespaced: bool, errors: &mut ErrorList) {
    binding(new, namespaced, errors);
    object_meta::update(new, old, errors);
    if !semantically_equal(&new["roleRef"], &old["roleRef"]) {
        errors.push(field::invalid(
            &Path::new("roleRef"),
            diff::shown("RoleRef", &new["roleRef"]),
            "cannot change roleRef",
        ));
    }
}
