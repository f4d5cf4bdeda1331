//! Ingress and IngressClass.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::checks::{
    domain_prefixed_path, immutable_text, legacy_ip, messages, name_is_subdomain, path_segment, port_num, sloppy_ip,
};
use super::object_meta;
use crate::read::Read;

pub(super) fn create(ingress: &Value, errors: &mut ErrorList) {
    check(ingress, Lenience::default(), errors);
    let annotation = &ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"];
    let class = ingress["spec"].set("ingressClassName").and_then(Value::as_str);
    if let (Some(annotation), Some(class)) = (annotation.as_str(), class)
        && annotation != class
    {
        errors.push(field::invalid(
            &Path::new("annotations").child("kubernetes.io/ingress.class"),
            annotation,
            "must match `ingressClassName` when both are specified",
        ));
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let bad_secret = |tls: &Value| {
        let name = tls.text("secretName");
        !name.is_empty() && !names::dns1123_subdomain(name).is_empty()
    };
    let bad_wildcard = |rule: &Value| {
        let mut errors = ErrorList::new();
        if rule.text("host").contains('*') {
            rule_value(rule, &Path::nil(), &mut errors);
        }
        !errors.is_empty()
    };
    let lenience = Lenience {
        secret_names: old["spec"].list("tls").iter().any(bad_secret),
        wildcard_rules: old["spec"].list("rules").iter().any(bad_wildcard),
    };
    check(new, lenience, errors);
}

/// What an update may keep that a new Ingress may not have.
#[derive(Default, Clone, Copy)]
struct Lenience {
    secret_names: bool,
    wildcard_rules: bool,
}

fn check(ingress: &Value, lenience: Lenience, errors: &mut ErrorList) {
    object_meta::create(ingress, true, name_is_subdomain, errors);
    let (spec, path) = (&ingress["spec"], Path::new("spec"));
    let default = spec.set("defaultBackend");
    if spec.list("rules").is_empty() && default.is_none() {
        let message = "either `defaultBackend` or `rules` must be specified";
        errors.push(field::invalid(&path, &spec["rules"], message));
    }
    if let Some(default) = default {
        backend(default, &path.child("defaultBackend"), errors);
    }
    for (i, rule) in spec.list("rules").iter().enumerate() {
        let path = path.child("rules").index(i);
        let host = rule.text("host");
        if !host.is_empty() {
            if sloppy_ip(host).is_some() {
                errors.push(field::invalid(&path.child("host"), host, "must be a DNS name, not an IP address"));
            }
            self::host(host, &path.child("host"), errors);
        }
        if !host.contains('*') || !lenience.wildcard_rules {
            rule_value(rule, &path, errors);
        }
    }
    for (i, tls) in spec.list("tls").iter().enumerate() {
        let path = path.child("tls").index(i);
        for (i, host) in tls.texts("hosts").enumerate() {
            self::host(host, &path.child("hosts").index(i), errors);
        }
        let secret = tls.text("secretName");
        if !secret.is_empty() && !lenience.secret_names {
            messages(names::dns1123_subdomain(secret), secret, &path.child("secretName"), errors);
        }
    }
    if let Some(class) = spec.set("ingressClassName").and_then(Value::as_str) {
        messages(names::dns1123_subdomain(class), class, &path.child("ingressClassName"), errors);
    }
}

fn host(host: &str, path: &Path, errors: &mut ErrorList) {
    let wrong =
        if host.contains('*') { names::wildcard_dns1123_subdomain(host) } else { names::dns1123_subdomain(host) };
    messages(wrong, host, path, errors);
}

fn rule_value(rule: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(http) = rule.set("http") else { return };
    let path = path.child("http").child("paths");
    if http.list("paths").is_empty() {
        errors.push(field::required(&path, ""));
    }
    for (i, item) in http.list("paths").iter().enumerate() {
        http_path(item, &path.index(i), errors);
    }
}

fn http_path(item: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(kind) = item.set("pathType").and_then(Value::as_str) else {
        errors.push(field::required(&path.child("pathType"), "pathType must be specified"));
        return;
    };
    let text = item.text("path");
    let mut wrong = |message: String| errors.push(field::invalid(&path.child("path"), text, message));
    match kind {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                wrong("must be an absolute path".to_owned());
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| text.contains(part)) {
                wrong(format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].into_iter().filter(|end| text.ends_with(end)) {
                wrong(format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                wrong("must be an absolute path".to_owned());
            }
        }
        other => errors.push(field::not_supported(
            &path.child("pathType"),
            other,
            &["Exact", "ImplementationSpecific", "Prefix"],
        )),
    }
    backend(&item["backend"], &path.child("backend"), errors);
}

fn backend(backend: &Value, path: &Path, errors: &mut ErrorList) {
    match (backend.set("resource"), backend.set("service")) {
        (Some(_), Some(_)) => {
            errors.push(field::invalid(path, "", "cannot set both resource and service backends"));
        }
        (Some(resource), None) => reference(resource, &path.child("resource"), errors),
        (None, Some(service)) => service_backend(service, path, errors),
        (None, None) => errors.push(field::invalid(path, "", "resource or service backend is required")),
    }
}

fn service_backend(service: &Value, path: &Path, errors: &mut ErrorList) {
    let at = path.child("service");
    let name = service.text("name");
    if name.is_empty() {
        errors.push(field::required(&at.child("name"), ""));
    } else {
        messages(names::dns1123_label(name), name, &at.child("name"), errors);
    }
    let port = &service["port"];
    let at = at.child("port");
    match (port.text("name"), port.num("number")) {
        ("", 0) => errors.push(field::required(path, "port name or number is required")),
        ("", number) => port_num(number, &at.child("number"), errors),
        (name, 0) => messages(names::port_name(name), name, &at.child("name"), errors),
        _ => errors.push(field::invalid(path, "", "cannot set both port name & port number")),
    }
}

fn reference(reference: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(group) = reference.set("apiGroup").and_then(Value::as_str) {
        messages(names::dns1123_subdomain(group), group, &path.child("apiGroup"), errors);
    }
    for name in ["kind", "name"] {
        path_segment(reference.text(name), &path.child(name), errors);
    }
}

pub(super) fn update_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let known: Vec<&str> = old["status"]["loadBalancer"].list("ingress").iter().map(|i| i.text("ip")).collect();
    for (i, ingress) in new["status"]["loadBalancer"].list("ingress").iter().enumerate() {
        let path = Path::new("status").children(&["loadBalancer", "ingress"]).index(i);
        if !ingress.text("ip").is_empty() {
            legacy_ip(ingress.text("ip"), &known, &path.child("ip"), errors);
        }
        let host = ingress.text("hostname");
        if !host.is_empty() {
            messages(names::dns1123_subdomain(host), host, &path.child("hostname"), errors);
            if sloppy_ip(host).is_some() {
                errors.push(field::invalid(&path.child("hostname"), host, "must be a DNS name, not an IP address"));
            }
        }
    }
}

pub(super) fn class(class: &Value, errors: &mut ErrorList) {
    const LONGEST_CONTROLLER: usize = 250;
    object_meta::create(class, false, name_is_subdomain, errors);
    let (spec, path) = (&class["spec"], Path::new("spec"));
    let controller = spec.text("controller");
    if controller.len() > LONGEST_CONTROLLER {
        errors.push(field::too_long(&path.child("controller"), LONGEST_CONTROLLER));
    }
    domain_prefixed_path(controller, &path.child("controller"), errors);
    let Some(parameters) = spec.set("parameters") else { return };
    let path = path.child("parameters");
    reference(parameters, &path, errors);
    let namespace = parameters.set("namespace").and_then(Value::as_str);
    match (parameters.set("scope").and_then(Value::as_str), namespace) {
        (None, _) => errors.push(field::required(&path.child("scope"), "")),
        (Some("Namespace"), None) => {
            errors.push(field::required(&path.child("namespace"), "`parameters.scope` is set to 'Namespace'"))
        }
        (Some("Namespace"), Some(name)) => {
            messages(names::dns1123_label(name), name, &path.child("namespace"), errors);
        }
        (Some("Cluster"), Some(_)) => {
            errors.push(field::forbidden(&path.child("namespace"), "`parameters.scope` is set to 'Cluster'"));
        }
        (Some("Cluster"), None) => {}
        (Some(other), _) => {
            errors.push(field::not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]));
        }
    }
}

pub(super) fn class_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    let path = Path::new("spec").child("controller");
    immutable_text(&new["spec"]["controller"], &old["spec"]["controller"], &path, errors);
    class(new, errors);
}
