//! Containers: regular, initializing and ephemeral ones.

use std::collections::BTreeSet;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::super::checks::{dns1123_label, messages, one_of, port_num};
use super::volumes::{Volumes, devices, mounts};
use super::{env, probes, resources, security};
use crate::read::Read;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const RULES_NEED_POLICY: &str = "must specify restartPolicy when restart rules are used";
const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// What the checks of one container need to know of its pod.
pub(super) struct Context<'a> {
    pub volumes: Volumes<'a>,
    pub claims: BTreeSet<&'a str>,
    pub grace: Option<i64>,
    pub restart_policy: &'a str,
    pub host_users: bool,
}

pub(super) fn pull_policy(policy: &str, path: &Path, errors: &mut ErrorList) {
    one_of(policy, PULL_POLICIES, path, errors);
}

pub(super) fn containers(list: &[Value], context: &Context<'_>, path: &Path, errors: &mut ErrorList) {
    if list.is_empty() {
        errors.push(field::required(path, ""));
        return;
    }
    let mut names_seen = BTreeSet::new();
    for (i, container) in list.iter().enumerate() {
        let path = path.index(i);
        common(container, context, &path, errors);
        if !names_seen.insert(container.text("name")) {
            errors.push(field::duplicate(&path.child("name"), container.text("name")));
        }
        if let Some(lifecycle) = container.set("lifecycle") {
            probes::lifecycle(lifecycle, context.grace, &path.child("lifecycle"), errors);
        }
        probes::probes(container, context.grace, &path, errors);
        restart_policy(container, &path, errors);
    }
    host_ports(list, path, errors);
}

pub(super) fn init_containers(spec: &Value, context: &Context<'_>, path: &Path, errors: &mut ErrorList) {
    let mut names_seen: BTreeSet<&str> = spec.list("containers").iter().map(|c| c.text("name")).collect();
    for (i, container) in spec.list("initContainers").iter().enumerate() {
        let at = path.index(i);
        common(container, context, &at, errors);
        if container.set("restartPolicy").is_some() {
            restart_policy(container, &at, errors);
        } else if !container.list("restartPolicyRules").is_empty() {
            errors.push(field::required(&at.child("restartPolicy"), RULES_NEED_POLICY));
        }
        let name = container.text("name");
        if names_seen.contains(name) {
            errors.push(field::duplicate(&at.child("name"), name));
        } else if !name.is_empty() {
            names_seen.insert(name);
        }
        host_ports(std::slice::from_ref(container), path, errors);
        let sidecar = container.text("restartPolicy") == "Always";
        if sidecar {
            if let Some(lifecycle) = container.set("lifecycle") {
                probes::lifecycle(lifecycle, context.grace, &at.child("lifecycle"), errors);
            }
            probes::probes(container, context.grace, &at, errors);
            continue;
        }
        for field_name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.set(field_name).is_some() {
                let message = "may not be set for init containers without restartPolicy=Always";
                errors.push(field::forbidden(&at.child(field_name), message));
            }
        }
        for (j, policy) in container.list("resizePolicy").iter().enumerate() {
            if policy.text("restartPolicy") == "RestartContainer" {
                errors.push(field::invalid(
                    &at.child("resizePolicy").index(j).child("restartPolicy"),
                    "RestartContainer",
                    "must not be set to 'RestartContainer' for non-sidecar initContainers",
                ));
            }
        }
    }
}

pub(super) fn ephemeral_containers(spec: &Value, context: &Context<'_>, path: &Path, errors: &mut ErrorList) {
    let others: BTreeSet<&str> =
        spec.list("containers").iter().chain(spec.list("initContainers")).map(|c| c.text("name")).collect();
    let mut all = others.clone();
    for (i, container) in spec.list("ephemeralContainers").iter().enumerate() {
        let path = path.index(i);
        common(container, context, &path, errors);
        trimmed_image(container, &path, errors);
        if !all.insert(container.text("name")) {
            errors.push(field::duplicate(&path.child("name"), container.text("name")));
        }
        let target = container.text("targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errors.push(field::not_found(&path.child("targetContainerName"), target));
        }
        const NOT_ALLOWED: &[&str] = &[
            "ports",
            "resources",
            "resizePolicy",
            "restartPolicy",
            "restartPolicyRules",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ];
        for name in NOT_ALLOWED {
            // To Go an empty struct is no value, but a pointer to one and an empty list are.
            let empty_struct = |v: &Value| *name == "resources" && v.as_object().is_some_and(serde_json::Map::is_empty);
            let given = container.set(name).is_some_and(|v| !empty_struct(v));
            if given {
                errors.push(field::forbidden(&path.child(*name), "cannot be set for an Ephemeral Container"));
            }
        }
        for (i, mount) in container.list("volumeMounts").iter().enumerate() {
            for name in ["subPath", "subPathExpr"] {
                if !mount.text(name).is_empty() {
                    let path = path.child("volumeMounts").index(i).child(name);
                    errors.push(field::forbidden(&path, "cannot be set for an Ephemeral Container"));
                }
            }
        }
    }
}

fn common(container: &Value, context: &Context<'_>, path: &Path, errors: &mut ErrorList) {
    let name = container.text("name");
    if name.is_empty() {
        errors.push(field::required(&path.child("name"), ""));
    } else {
        dns1123_label(name, &path.child("name"), errors);
    }
    if container.text("image").is_empty() {
        errors.push(field::required(&path.child("image"), ""));
    }
    let policy = container.text("terminationMessagePolicy");
    one_of(policy, &["File", "FallbackToLogsOnError"], &path.child("terminationMessagePolicy"), errors);
    ports(container.list("ports"), &path.child("ports"), errors);
    env::env(container.list("env"), &path.child("env"), errors);
    env::env_from(container.list("envFrom"), &path.child("envFrom"), errors);
    mounts(container, &context.volumes, &path.child("volumeMounts"), errors);
    devices(container, &context.volumes, &path.child("volumeDevices"), errors);
    pull_policy(container.text("imagePullPolicy"), &path.child("imagePullPolicy"), errors);
    resources::container_resources(&container["resources"], &context.claims, &path.child("resources"), errors);
    resize_policy(container.list("resizePolicy"), context.restart_policy, &path.child("resizePolicy"), errors);
    security::container(&container["securityContext"], context.host_users, &path.child("securityContext"), errors);
}

fn ports(ports: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = port.text("name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if !wrong.is_empty() {
                messages(wrong, name, &path.child("name"), errors);
            } else if !seen.insert(name) {
                errors.push(field::duplicate(&path.child("name"), name));
            }
        }
        let number = port.num("containerPort");
        if number == 0 {
            errors.push(field::required(&path.child("containerPort"), ""));
        } else {
            port_num(number, &path.child("containerPort"), errors);
        }
        if port.num("hostPort") != 0 {
            port_num(port.num("hostPort"), &path.child("hostPort"), errors);
        }
        one_of(port.text("protocol"), PROTOCOLS, &path.child("protocol"), errors);
    }
}

fn host_ports(containers: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut used = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.list("ports").iter().enumerate().filter(|(_, p)| p.num("hostPort") != 0) {
            let text = format!("{}/{}/{}", port.text("protocol"), port.text("hostIP"), port.num("hostPort"));
            if used.contains(&text) {
                let path = path.index(i).child("ports").index(j).child("hostPort");
                errors.push(field::duplicate(&path, text.as_str()));
            }
            used.insert(text);
        }
    }
}

fn resize_policy(policies: &[Value], pod_restart: &str, path: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        let (resource, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
        if !seen.insert(resource) {
            errors.push(field::duplicate(&path.index(i), resource));
        }
        one_of(resource, &["cpu", "memory"], path, errors);
        one_of(restart, &["NotRequired", "RestartContainer"], path, errors);
        if pod_restart == "Never" && restart != "NotRequired" {
            let message = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(field::invalid(path, restart, message));
        }
    }
}

fn restart_policy(container: &Value, path: &Path, errors: &mut ErrorList) {
    let rules = container.list("restartPolicyRules");
    match container.set("restartPolicy").and_then(Value::as_str) {
        None if rules.is_empty() => return,
        None => errors.push(field::required(&path.child("restartPolicy"), RULES_NEED_POLICY)),
        Some(policy) if !RESTART_POLICIES.contains(&policy) => {
            errors.push(field::not_supported(&path.child("restartPolicy"), policy, RESTART_POLICIES));
        }
        Some(_) => {}
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.push(field::too_many(&path, rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        if !["Restart", "RestartAllContainers"].contains(&rule.text("action")) {
            let supported = ["Restart", "RestartAllContainers"];
            errors.push(field::not_supported(&path.child("action"), rule.text("action"), &supported));
        }
        let Some(codes) = rule.set("exitCodes") else {
            errors.push(field::required(&path.child("exitCodes"), "must be specified"));
            continue;
        };
        if !["In", "NotIn"].contains(&codes.text("operator")) {
            let path = path.child("exitCodes").child("operator");
            errors.push(field::not_supported(&path, codes.text("operator"), &["In", "NotIn"]));
        }
        if codes.list("values").len() > 255 {
            let path = path.child("exitCodes").child("values");
            errors.push(field::too_many(&path, codes.list("values").len(), 255));
        }
    }
}

/// Pods, unlike templates, may not have blanks around an image.
pub(super) fn trimmed_image(container: &Value, path: &Path, errors: &mut ErrorList) {
    let image = container.text("image");
    if image.trim().len() != image.len() {
        errors.push(field::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"));
    }
}
