//! Pods and pod templates, split by concern.

mod annotations;
mod containers;
mod env;
mod probes;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
mod status;
mod status_claims;
mod subresources;
mod update;
pub(super) mod volume_sources;
pub(super) mod volumes;
mod windows;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::checks::{
    dns1123_label, dns1123_subdomain, labels, legacy_ip, messages, name_is_subdomain, one_of, qualified_name,
};
use super::object_meta;
use crate::read::Read;
use containers::Context;

pub(super) use status::update as update_status;
pub(super) use subresources::{ephemeral_containers, resize};
pub(super) use update::update;

/// `ValidatePodCreate`.
pub(super) fn create(pod: &Value, errors: &mut ErrorList) {
    metadata_and_spec(pod, errors);
    let (spec, path) = (&pod["spec"], Path::new("spec"));
    if !spec.list("ephemeralContainers").is_empty() {
        errors.push(field::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !spec.text("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
        let message = "cannot be set until all schedulingGates have been cleared";
        errors.push(field::forbidden(&path.child("nodeName"), message));
    }
    annotations::match_fields(&pod["metadata"], spec, &path, errors);
}

/// `validatePodMetadataAndSpec`.
fn metadata_and_spec(pod: &Value, errors: &mut ErrorList) {
    let (path, spec) = (Path::new("spec"), &pod["spec"]);
    object_meta::create(pod, true, name_is_subdomain, errors);
    let meta_path = Path::new("metadata").child("annotations");
    annotations::specific(&pod["metadata"]["annotations"], spec, &meta_path, errors);
    self::spec(spec, pod["metadata"].text("name"), true, &path, errors);
    if spec.text("serviceAccountName").is_empty() {
        for (i, volume) in spec.list("volumes").iter().enumerate() {
            for (j, source) in volume["projected"].list("sources").iter().enumerate() {
                if source.set("serviceAccountToken").is_some() {
                    let path = path.child("volumes").index(i).child("projected").child("sources").index(j);
                    let message = "must not be specified when serviceAccountName is not set";
                    errors.push(field::forbidden(&path.child("serviceAccountToken"), message));
                }
            }
        }
    }
    for name in ["containers", "initContainers"] {
        for (i, container) in spec.list(name).iter().enumerate() {
            containers::trimmed_image(container, &path.child(name).index(i), errors);
        }
    }
}

/// `ValidatePodTemplateSpec`.
pub(super) fn template(template: &Value, path: &Path, errors: &mut ErrorList) {
    let (meta, spec) = (&template["metadata"], &template["spec"]);
    labels(&meta["labels"], &path.child("labels"), errors);
    super::checks::annotations(&meta["annotations"], &path.child("annotations"), errors);
    annotations::specific(&meta["annotations"], spec, &path.child("annotations"), errors);
    self::spec(spec, "", false, &path.child("spec"), errors);
    annotations::match_fields(meta, spec, &path.child("spec"), errors);
    if !spec.list("ephemeralContainers").is_empty() {
        let path = path.child("spec").child("ephemeralContainers");
        errors.push(field::forbidden(&path, "ephemeral containers not allowed in pod template"));
    }
}

/// Restart policy and deadline of pods that a controller keeps running.
pub(super) fn always_running(template: &Value, controller: &str, path: &Path, errors: &mut ErrorList) {
    let (spec, path) = (&template["spec"], path.child("spec"));
    if spec.text("restartPolicy") != "Always" {
        errors.push(field::not_supported(&path.child("restartPolicy"), spec.text("restartPolicy"), &["Always"]));
    }
    if spec.set("activeDeadlineSeconds").is_some() {
        let message = format!("activeDeadlineSeconds in {controller} is not Supported");
        errors.push(field::forbidden(&path.child("activeDeadlineSeconds"), message));
    }
}

/// Every container of a spec, in upstream's order, with its path.
fn each_container(spec: &Value, path: &Path, mut visit: impl FnMut(&Value, &Path)) {
    for name in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in spec.list(name).iter().enumerate() {
            visit(container, &path.child(name).index(i));
        }
    }
}

/// `ValidatePodSpec`; `is_pod` is false in templates.
fn spec(spec: &Value, pod_name: &str, is_pod: bool, path: &Path, errors: &mut ErrorList) {
    let grace = spec.int("terminationGracePeriodSeconds");
    if grace.is_none() {
        errors.push(field::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let volumes = volumes::volumes(spec.list("volumes"), pod_name, &path.child("volumes"), errors);
    let claims = volumes::resource_claims(spec, &path.child("resourceClaims"), errors);
    let host_users = spec.set("hostUsers") != Some(&Value::Bool(false));
    let restart_policy = spec.text("restartPolicy");
    let context = Context { volumes, claims, grace, restart_policy, host_users };
    containers::containers(spec.list("containers"), &context, &path.child("containers"), errors);
    containers::init_containers(spec, &context, &path.child("initContainers"), errors);
    containers::ephemeral_containers(spec, &context, &path.child("ephemeralContainers"), errors);
    resources::pod_resources(spec, &context.claims, path, errors);
    host_network_ports(spec, is_pod, path, errors);
    one_of(restart_policy, &["Always", "OnFailure", "Never"], &path.child("restartPolicy"), errors);
    const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(spec.text("dnsPolicy"), DNS_POLICIES, &path.child("dnsPolicy"), errors);
    labels(&spec["nodeSelector"], &path.child("nodeSelector"), errors);
    security::pod(spec, &path.child("securityContext"), errors);
    scheduling::affinity(&spec["affinity"], &path.child("affinity"), errors);
    dns_config(spec, &path.child("dnsConfig"), errors);
    for (i, gate) in spec.list("readinessGates").iter().enumerate() {
        let path = path.child("readinessGates").index(i).child("conditionType");
        qualified_name(gate.text("conditionType"), &path, errors);
    }
    scheduling::gates(spec.list("schedulingGates"), &path.child("schedulingGates"), errors);
    let spread = spec.list("topologySpreadConstraints");
    scheduling::spread(spread, &path.child("topologySpreadConstraints"), errors);
    windows::host_process(spec, path, errors);
    security::host_users(spec, path, errors);
    host_name(spec, path, errors);
    names_of_others(spec, path, errors);
    security::os(spec, path, errors);
    file_key_volumes(spec, path, errors);
}

/// The names and small values in the second half of `ValidatePodSpec`.
fn names_of_others(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for name in ["serviceAccountName", "nodeName"] {
        let value = spec.text(name);
        if !value.is_empty() {
            messages(name_is_subdomain(value, false), value, &path.child(name), errors);
        }
    }
    if let Some(seconds) = spec.int("activeDeadlineSeconds") {
        let max = i64::from(i32::MAX);
        let path = path.child("activeDeadlineSeconds");
        errors.extend(names::in_range(seconds, 1, max).into_iter().map(|m| field::invalid(&path, seconds, m)));
    }
    for name in ["hostname", "subdomain"] {
        if !spec.text(name).is_empty() {
            dns1123_label(spec.text(name), &path.child(name), errors);
        }
    }
    scheduling::tolerations(spec.list("tolerations"), &path.child("tolerations"), errors);
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(i);
        legacy_ip(alias.text("ip"), &[], &path.child("ip"), errors);
        for (j, name) in alias.texts("hostnames").enumerate() {
            dns1123_subdomain(name, &path.child("hostnames").index(j), errors);
        }
    }
    for name in ["priorityClassName", "runtimeClassName"] {
        let value = spec.text(name);
        if !value.is_empty() || (name == "runtimeClassName" && spec.set(name).is_some()) {
            messages(name_is_subdomain(value, false), value, &path.child(name), errors);
        }
    }
    if spec.set("preemptionPolicy").is_some() {
        let policies = &["PreemptLowerPriority", "Never"];
        one_of(spec.text("preemptionPolicy"), policies, &path.child("preemptionPolicy"), errors);
    }
    if let Some(overhead) = spec.set("overhead") {
        resources::overhead(overhead, &path.child("overhead"), errors);
    }
}

fn host_network_ports(spec: &Value, is_pod: bool, path: &Path, errors: &mut ErrorList) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for (i, container) in spec.list("containers").iter().enumerate() {
        for (j, port) in container.list("ports").iter().enumerate() {
            let (host, own) = (port.num("hostPort"), port.num("containerPort"));
            if (is_pod || host != 0) && host != own {
                let path = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                errors.push(field::invalid(&path, host, "must match `containerPort` when `hostNetwork` is true"));
            }
        }
    }
}

fn dns_config(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let config = spec.set("dnsConfig");
    if spec.text("dnsPolicy") == "None" {
        match config {
            None => {
                errors.push(field::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
                return;
            }
            Some(config) if config.list("nameservers").is_empty() => {
                let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                errors.push(field::required(&path.child("nameservers"), message));
                return;
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return };
    let at = path.child("nameservers");
    if config.list("nameservers").len() > 3 {
        errors.push(field::invalid(&at, &config["nameservers"], "must not have more than 3 nameservers"));
    }
    for (i, server) in config.texts("nameservers").enumerate() {
        legacy_ip(server, &[], &at.index(i), errors);
    }
    let at = path.child("searches");
    let searches: Vec<&str> = config.texts("searches").collect();
    if searches.len() > 32 {
        errors.push(field::invalid(&at, &config["searches"], "must not have more than 32 search paths"));
    }
    if searches.join(" ").len() > 2048 {
        let message = "must not have more than 2048 characters (including spaces) in the search list";
        errors.push(field::invalid(&at, &config["searches"], message));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| **s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        messages(names::dns1123_subdomain_with_underscore(search), search, &at.index(i), errors);
    }
    for (i, option) in config.list("options").iter().enumerate() {
        if option.text("name").is_empty() {
            errors.push(field::required(&path.child("options").index(i), "must not be empty"));
        }
    }
}

fn host_name(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(name) = spec.set("hostnameOverride").and_then(Value::as_str) else { return };
    let path = path.child("hostnameOverride");
    if spec.flag("setHostnameAsFQDN") {
        errors.push(field::forbidden(&path, "may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.flag("hostNetwork") {
        errors.push(field::forbidden(&path, "may not be specified when hostNetwork is true"));
    }
    if name.len() > 64 {
        errors.push(field::too_long(&path, 64));
    }
    dns1123_subdomain(name, &path, errors);
}

fn file_key_volumes(spec: &Value, path: &Path, errors: &mut ErrorList) {
    each_container(spec, path, |container, path| {
        for (i, variable) in container.list("env").iter().enumerate() {
            let Some(reference) = variable["valueFrom"].set("fileKeyRef") else { continue };
            let name = reference.text("volumeName");
            let path = path.child("env").index(i).children(&["valueFrom", "fileKeyRef", "volumeName"]);
            match spec.list("volumes").iter().find(|v| v.text("name") == name) {
                None => errors.push(field::not_found(&path, name)),
                Some(volume) if volume.set("emptyDir").is_none() => {
                    errors.push(field::invalid(&path, name, "referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    });
}

/// A Binding's target.
pub(super) fn binding(binding: &Value, errors: &mut ErrorList) {
    let (target, path) = (&binding["target"], Path::new("target"));
    if !matches!(target.text("kind"), "" | "Node") {
        errors.push(field::not_supported(&path.child("kind"), target.text("kind"), &["Node", "<empty>"]));
    }
    if target.text("name").is_empty() {
        errors.push(field::required(&path.child("name"), ""));
    }
}
