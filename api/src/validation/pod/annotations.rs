//! Annotations that pods give a meaning: mirrors, deletion cost, and the old ways of asking for
//! seccomp and AppArmor profiles.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gotext::quote;
use serde_json::Value;

use super::each_container;
use super::volumes::descending_path;
use crate::read::Read;

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// `ValidatePodSpecificAnnotations`.
pub(super) fn specific(annotations: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(map) = annotations.as_object() else { return };
    if map.contains_key(MIRROR) && spec.text("nodeName").is_empty() {
        let message = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(field::invalid(&path.key(MIRROR), annotations.text(MIRROR), message));
    }
    if map.contains_key(DELETION_COST) {
        let cost = annotations.text(DELETION_COST);
        // Leading zeros and a plus sign are not numbers here.
        let plain = cost == "0" || cost.strip_prefix('-').unwrap_or(cost).starts_with(|c: char| matches!(c, '1'..='9'));
        if !plain || cost.parse::<i32>().is_err() {
            errors.push(field::invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer"));
        }
    }
    if map.contains_key(SECCOMP_POD) {
        seccomp(annotations.text(SECCOMP_POD), &path.child(SECCOMP_POD), errors);
    }
    for key in map.keys().filter(|k| k.starts_with(SECCOMP_CONTAINER)) {
        seccomp(annotations.text(key), &path.child(key.clone()), errors);
    }
    for (key, container) in map.keys().filter_map(|k| Some((k, k.strip_prefix(APP_ARMOR)?))) {
        let mut found = false;
        each_container(spec, path, |c, _| found |= c.text("name") == container);
        if !found {
            errors.push(field::invalid(&path.key(key.clone()), container, "container not found"));
        }
        let profile = annotations.text(key);
        let known = matches!(profile, "" | "runtime/default" | "unconfined") || profile.starts_with("localhost/");
        if !known {
            let message = format!("invalid AppArmor profile name: {}", quote(profile));
            errors.push(field::invalid(&path.key(key.clone()), profile, message));
        }
    }
}

fn seccomp(profile: &str, path: &Path, errors: &mut ErrorList) {
    match profile {
        "runtime/default" | "docker/default" | "unconfined" => {}
        _ => match profile.strip_prefix("localhost/") {
            Some(file) => descending_path(file, path, errors),
            None => errors.push(field::invalid(path, profile, "must be a valid seccomp profile")),
        },
    }
}

/// Where both an annotation and the field it became are given, they must say the same.
pub(super) fn match_fields(meta: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let annotations = &meta["annotations"];
    let annotation = |key: &str| annotations.set(key).and_then(Value::as_str);
    let pod = &spec["securityContext"];
    if let (Some(profile), Some(text)) = (pod.set("seccompProfile"), annotation(SECCOMP_POD)) {
        let path = path.child("securityContext").child("seccompProfile");
        matches(text, profile, "seccomp", &["runtime/default", "docker/default"], &path, errors);
    }
    each_container(spec, path, |container, path| {
        let key = format!("{SECCOMP_CONTAINER}{}", container.text("name"));
        let profile = container["securityContext"].set("seccompProfile");
        if let (Some(profile), Some(text)) = (profile, annotation(&key)) {
            let path = path.child("securityContext").child("seccompProfile");
            matches(text, profile, "seccomp", &["runtime/default", "docker/default"], &path, errors);
        }
    });
    if spec["os"].text("name") == "windows" {
        return;
    }
    each_container(spec, path, |container, path| {
        let own = container["securityContext"].set("appArmorProfile");
        let key = format!("{APP_ARMOR}{}", container.text("name"));
        if let (Some(profile), Some(text)) = (own.or_else(|| pod.set("appArmorProfile")), annotation(&key)) {
            let path = path.child("securityContext").child("appArmorProfile");
            matches(text, profile, "apparmor", &["runtime/default"], &path, errors);
        }
    });
}

fn matches(text: &str, profile: &Value, what: &str, defaults: &[&str], path: &Path, errors: &mut ErrorList) {
    let same_type = match profile.text("type") {
        "Unconfined" => text == "unconfined",
        "RuntimeDefault" => defaults.contains(&text),
        "Localhost" => match text.strip_prefix("localhost/") {
            Some(file) => {
                if profile.set("localhostProfile").and_then(Value::as_str) != Some(file) {
                    let message = format!("{what} profile in annotation and field must match");
                    errors.push(field::forbidden(&path.child("localhostProfile"), message));
                }
                true
            }
            None => false,
        },
        _ => true,
    };
    if !same_type {
        let message = format!("{what} type in annotation and field must match");
        errors.push(field::forbidden(&path.child("type"), message));
    }
}
