//! Security contexts, of the pod and of containers, and the operating system they must fit.

use std::collections::BTreeSet;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::{Value, json};

use super::volumes::descending_path;
use super::{each_container, windows};
use crate::read::Read;
use crate::validation::capabilities;

const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn ids(context: &Value, fields: &[&'static str], path: &Path, errors: &mut ErrorList) {
    for name in fields {
        if let Some(id) = context.int(name) {
            errors.extend(names::user_id(id).into_iter().map(|m| field::invalid(&path.child(*name), id, m)));
        }
    }
}

/// `securityContext` of a container.
pub(super) fn container(context: &Value, host_users: bool, path: &Path, errors: &mut ErrorList) {
    if context.is_null() {
        return;
    }
    if context.flag("privileged") && !capabilities::is_privileged_allowed() {
        errors.push(field::forbidden(&path.child("privileged"), "disallowed by cluster policy"));
    }
    ids(context, &["runAsUser", "runAsGroup"], path, errors);
    if let Some(mount) = context.set("procMount").and_then(Value::as_str) {
        let path = path.child("procMount");
        if !["Default", "Unmasked"].contains(&mount) {
            errors.push(field::not_supported(&path, mount, &["Default", "Unmasked"]));
        }
        if host_users && mount == "Unmasked" {
            errors.push(field::invalid(&path, mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    seccomp(&context["seccompProfile"], &path.child("seccompProfile"), errors);
    if context.set("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if context.flag("privileged") {
            let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(field::invalid(path, go_security_context(context), message));
        }
        for capability in context["capabilities"].texts("add").filter(|c| *c == "CAP_SYS_ADMIN") {
            let _ = capability;
            let message = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(field::invalid(path, go_security_context(context), message));
        }
    }
    windows::options(&context["windowsOptions"], &path.child("windowsOptions"), errors);
    app_armor(&context["appArmorProfile"], &path.child("appArmorProfile"), errors);
}

/// The internal struct as Go would write it, for the two messages that show it whole.
fn go_security_context(context: &Value) -> field::BadValue {
    const FIELDS: &[(&str, &str)] = &[
        ("Capabilities", "capabilities"),
        ("Privileged", "privileged"),
        ("SELinuxOptions", "seLinuxOptions"),
        ("WindowsOptions", "windowsOptions"),
        ("RunAsUser", "runAsUser"),
        ("RunAsGroup", "runAsGroup"),
        ("RunAsNonRoot", "runAsNonRoot"),
        ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem"),
        ("AllowPrivilegeEscalation", "allowPrivilegeEscalation"),
        ("ProcMount", "procMount"),
        ("SeccompProfile", "seccompProfile"),
        ("AppArmorProfile", "appArmorProfile"),
    ];
    let value = |name: &str| match (name, &context[name]) {
        ("capabilities", caps) if caps.is_object() => format!("{{\"Add\":{},\"Drop\":{}}}", caps["add"], caps["drop"]),
        (_, value) => value.to_string(),
    };
    let fields: Vec<String> = FIELDS.iter().map(|(go, name)| format!("\"{go}\":{}", value(name))).collect();
    field::BadValue::Raw(format!("{{{}}}", fields.join(",")))
}

fn seccomp(profile: &Value, path: &Path, errors: &mut ErrorList) {
    if profile.is_null() {
        return;
    }
    let kind = profile.text("type");
    if kind.is_empty() {
        errors.push(field::required(&path.child("type"), "type is required when seccompProfile is set"));
    } else if !PROFILES.contains(&kind) {
        errors.push(field::not_supported(&path.child("type"), kind, PROFILES));
    }
    let at = path.child("localhostProfile");
    match (kind, profile.set("localhostProfile").and_then(Value::as_str)) {
        ("Localhost", None) => errors.push(field::required(&at, "must be set when seccomp type is Localhost")),
        ("Localhost", Some(file)) => descending_path(file, &at, errors),
        (_, Some(file)) => {
            let shown =
                field::BadValue::Raw(format!("{{\"Type\":{},\"LocalhostProfile\":{}}}", json!(kind), json!(file)));
            errors.push(field::invalid(&at, shown, "can only be set when seccomp type is Localhost"));
        }
        (_, None) => {}
    }
}

fn app_armor(profile: &Value, path: &Path, errors: &mut ErrorList) {
    if profile.is_null() {
        return;
    }
    let at = path.child("localhostProfile");
    let file = profile.set("localhostProfile").and_then(Value::as_str);
    match (profile.text("type"), file) {
        ("Localhost", None) => errors.push(field::required(&at, "must be set when AppArmor type is Localhost")),
        ("Localhost", Some(file)) => {
            if file.trim() != file {
                errors.push(field::invalid(&at, file, "must not be padded with whitespace"));
            } else if file.is_empty() {
                errors.push(field::required(&at, "must be set when AppArmor type is Localhost"));
            }
            if file.len() > 4095 {
                errors.push(field::too_long(&at, 4095));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(file)) => {
            errors.push(field::invalid(&at, file, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.push(field::required(&path.child("type"), "type is required when appArmorProfile is set")),
        (other, _) => errors.push(field::not_supported(&path.child("type"), other, PROFILES)),
    }
}

/// `securityContext` of the pod, which in the internal form holds the host flags too.
pub(super) fn pod(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let context = &spec["securityContext"];
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"], path, errors);
    for (i, group) in context.list("supplementalGroups").iter().enumerate() {
        let id = group.as_i64().unwrap_or_default();
        let path = path.child("supplementalGroups").index(i);
        errors.extend(names::user_id(id).into_iter().map(|m| field::invalid(&path, id, m)));
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(field::invalid(&path.child("shareProcessNamespace"), true, message));
    }
    sysctls(spec, &path.child("sysctls"), errors);
    let mut choice = |name: &'static str, supported: &[&str]| {
        if let Some(value) = context.set(name).and_then(Value::as_str).filter(|v| !supported.contains(v)) {
            errors.push(field::not_supported(&path.child(name), value, supported));
        }
    };
    choice("fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    seccomp(&context["seccompProfile"], &path.child("seccompProfile"), errors);
    windows::options(&context["windowsOptions"], &path.child("windowsOptions"), errors);
    app_armor(&context["appArmorProfile"], &path.child("appArmorProfile"), errors);
    let mut choice = |name: &'static str, supported: &[&str]| {
        if let Some(value) = context.set(name).and_then(Value::as_str).filter(|v| !supported.contains(v)) {
            errors.push(field::not_supported(&path.child(name), value, supported));
        }
    };
    choice("supplementalGroupsPolicy", &["Merge", "Strict"]);
    // SELinuxMount is off: no other policy is there to be chosen.
    choice("seLinuxChangePolicy", &["Recursive"]);
}

const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

fn sysctls(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    let segment = |s: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        edge(s.as_bytes().first()) && edge(s.as_bytes().last()) && s.bytes().all(inner)
    };
    for (i, sysctl) in spec["securityContext"].list("sysctls").iter().enumerate() {
        let path = path.index(i).child("name");
        let name = sysctl.text("name");
        if name.is_empty() {
            errors.push(field::required(&path, ""));
        } else if name.len() > 253 || !name.split(['.', '/']).all(segment) {
            let message = format!("must have at most 253 characters and match regex {SYSCTL}");
            errors.push(field::invalid(&path, name, message));
        } else if seen.contains(name) {
            errors.push(field::duplicate(&path, name));
        }
        let dotted = name.replace('/', ".");
        let ipc = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        if spec.flag("hostNetwork") && dotted.starts_with("net.") {
            errors.push(field::invalid(&path, name, "may not be specified when 'hostNetwork' is true"));
        } else if spec.flag("hostIPC") && ipc {
            errors.push(field::invalid(&path, name, "may not be specified when 'hostIPC' is true"));
        }
        seen.insert(name);
    }
}

/// `hostUsers: false` excludes sharing the host's other namespaces.
pub(super) fn host_users(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if spec.set("hostUsers") != Some(&Value::Bool(false)) {
        return;
    }
    for (name, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.flag(name) {
            errors.push(field::forbidden(&path.child(shown), "when `hostUsers` is false"));
        }
    }
    each_container(spec, path, |container, path| {
        if !container.list("volumeDevices").is_empty() {
            errors.push(field::forbidden(&path.child("volumeDevices"), "when `hostUsers` is false"));
        }
    });
}

/// `spec.os`, and what the other system's containers may not have.
pub(super) fn os(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(os) = spec.set("os") else { return };
    match os.text("name") {
        "" => errors.push(field::required(&path.child("os").child("name"), "")),
        "linux" => linux(spec, path, errors),
        "windows" => windows(spec, path, errors),
        other => errors.push(field::not_supported(&path.child("os"), other, &["linux", "windows"])),
    }
}

fn linux(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let message = "windows options cannot be set for a linux pod";
    if spec["securityContext"].set("windowsOptions").is_some() {
        errors.push(field::forbidden(&path.child("securityContext").child("windowsOptions"), message));
    }
    each_container(spec, path, |container, path| {
        if container["securityContext"].set("windowsOptions").is_some() {
            errors.push(field::forbidden(&path.child("securityContext").child("windowsOptions"), message));
        }
    });
}

fn windows(spec: &Value, path: &Path, errors: &mut ErrorList) {
    const MESSAGE: &str = "cannot be set for a windows pod";
    let context = &spec["securityContext"];
    let inside = path.child("securityContext");
    const FIRST: &[&str] = &["appArmorProfile", "seLinuxOptions"];
    const REST: &[&str] =
        &["runAsUser", "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy"];
    let mut check = |holder: &Value, path: &Path, names: &[&'static str]| {
        for name in
            names.iter().filter(|n| holder.set(n).is_some_and(|v| *v != Value::Bool(false) || **n == "hostUsers"))
        {
            errors.push(field::forbidden(&path.child(*name), MESSAGE));
        }
    };
    check(context, &inside, FIRST);
    check(spec, path, &["hostUsers", "hostPID", "hostIPC"]);
    check(context, &inside, &["seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls"]);
    if spec.set("shareProcessNamespace").is_some() {
        errors.push(field::forbidden(&path.child("shareProcessNamespace"), MESSAGE));
    }
    for name in REST.iter().filter(|n| context.set(n).is_some()) {
        errors.push(field::forbidden(&inside.child(*name), MESSAGE));
    }
    const CONTAINER: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    each_container(spec, path, |container, path| {
        let context = &container["securityContext"];
        for name in CONTAINER.iter().filter(|n| context.set(n).is_some()) {
            errors.push(field::forbidden(&path.child("securityContext").child(*name), MESSAGE));
        }
    });
}
