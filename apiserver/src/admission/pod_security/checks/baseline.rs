//! The checks of the baseline level: what gives a pod power over its node.

use std::collections::BTreeSet;

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use super::subject::{Outcome, Subject, containers, context, given, name, plural, quoted, setters, strings, violation};

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub(super) fn capabilities_baseline(pod: &Subject<'_>) -> Outcome {
    let mut added = BTreeSet::new();
    let bad = pod.named(|container| {
        let more: Vec<&str> = strings(container, &["capabilities", "add"])
            .into_iter()
            .filter(|capability| !DEFAULT_CAPABILITIES.contains(capability))
            .collect();
        added.extend(more.iter().map(ToString::to_string));
        !more.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    violation(
        "non-default capabilities",
        format!("{} must not include {} in securityContext.capabilities.add", containers(&bad), quoted(&added)),
    )
}

pub(super) fn app_armor(pod: &Subject<'_>) -> Outcome {
    let mut values = BTreeSet::new();
    let mut bad = |holder: &Value| {
        let Some(profile) = context(holder, &["appArmorProfile"]) else { return false };
        let kind = profile.str_at(&["type"]).unwrap_or_default();
        let bad = !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            values.insert(kind.to_string());
        }
        bad
    };
    let by_pod = bad(pod.spec);
    let names = pod.named(&mut bad);
    let mut setters = setters(by_pod, &names);
    let mut values: Vec<String> = values.into_iter().collect();
    let annotations: BTreeSet<String> = pod
        .annotations
        .iter()
        .filter(|(key, value)| {
            key.starts_with("container.apparmor.security.beta.kubernetes.io/")
                && !(value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if !annotations.is_empty() {
        setters.push(plural("annotation", "annotations", annotations.len()).to_string());
        values.extend(annotations);
    }
    if setters.is_empty() {
        return None;
    }
    violation(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len()),
        format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values)),
    )
}

pub(super) fn host_namespaces(pod: &Subject<'_>) -> Outcome {
    let used: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec.bool_at(&[field]) == Some(true))
        .map(|field| format!("{field}=true"))
        .collect();
    if used.is_empty() { None } else { violation("host namespaces", used.join(", ")) }
}

pub(super) fn host_path_volumes(pod: &Subject<'_>) -> Outcome {
    let volumes = pod.spec.list_at(&["volumes"]).iter();
    let names: Vec<String> = volumes.filter(|volume| given(volume, "hostPath")).map(name).collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

pub(super) fn host_ports(pod: &Subject<'_>) -> Outcome {
    let mut ports = BTreeSet::new();
    let bad = pod.named(|container| {
        let used = container.list_at(&["ports"]).iter().filter_map(|port| port.i64_at(&["hostPort"]));
        let used: Vec<String> = used.filter(|port| *port != 0).map(|port| port.to_string()).collect();
        let some = !used.is_empty();
        ports.extend(used);
        some
    });
    if bad.is_empty() {
        return None;
    }
    let listed: Vec<&str> = ports.iter().map(String::as_str).collect();
    violation(
        "hostPort",
        format!(
            "{} {} {} {}",
            containers(&bad),
            plural("uses", "use", bad.len()),
            plural("hostPort", "hostPorts", ports.len()),
            listed.join(", ")
        ),
    )
}

pub(super) fn host_probes(pod: &Subject<'_>) -> Outcome {
    let mut hosts = BTreeSet::new();
    let bad: BTreeSet<String> = pod
        .named(|container| {
            let handlers: [&[&str]; 5] = [
                &["livenessProbe"],
                &["readinessProbe"],
                &["startupProbe"],
                &["lifecycle", "postStart"],
                &["lifecycle", "preStop"],
            ];
            let before = hosts.len();
            let mut some = false;
            for handler in handlers.into_iter().filter_map(|path| container.at(path)) {
                for kind in ["httpGet", "tcpSocket"] {
                    if let Some(host) = handler.str_at(&[kind, "host"]).filter(|host| !host.is_empty()) {
                        hosts.insert(host.to_string());
                        some = true;
                    }
                }
            }
            some || hosts.len() > before
        })
        .into_iter()
        .collect();
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<String> = bad.into_iter().collect();
    violation(
        "probe or lifecycle host",
        format!(
            "{} {} {} {}",
            containers(&bad),
            plural("uses", "use", bad.len()),
            plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
            quoted(&hosts)
        ),
    )
}

pub(super) fn privileged(pod: &Subject<'_>) -> Outcome {
    let bad = pod.named(|container| context(container, &["privileged"]).and_then(Value::as_bool) == Some(true));
    if bad.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
}

pub(super) fn proc_mount(pod: &Subject<'_>) -> Outcome {
    let mut kinds = BTreeSet::new();
    let bad = pod.named(|container| match context(container, &["procMount"]).and_then(Value::as_str) {
        None | Some("Default") => false,
        Some(kind) => {
            kinds.insert(kind.to_string());
            true
        }
    });
    if bad.is_empty() {
        return None;
    }
    violation("procMount", format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(&kinds)))
}

pub(super) fn selinux(pod: &Subject<'_>, engine: bool) -> Outcome {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |holder: &Value| {
        let Some(options) = context(holder, &["seLinuxOptions"]) else { return false };
        let text = |field: &str| options.str_at(&[field]).unwrap_or_default();
        let kind = text("type");
        let allowed = matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (engine && kind == "container_engine_t");
        if !allowed {
            types.insert(kind.to_string());
        }
        user |= !text("user").is_empty();
        role |= !text("role").is_empty();
        !allowed || !text("user").is_empty() || !text("role").is_empty()
    };
    let by_pod = bad(pod.spec);
    let names = pod.named(&mut bad);
    let setters = setters(by_pod, &names);
    if setters.is_empty() {
        return None;
    }
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if user {
        data.push("user may not be set".to_string());
    }
    if role {
        data.push("role may not be set".to_string());
    }
    violation(
        "seLinuxOptions",
        format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.join(" and "), data.join("; ")),
    )
}

pub(super) fn seccomp_annotations(pod: &Subject<'_>) -> Outcome {
    let mut forbidden = BTreeSet::new();
    let mut check = |key: String| {
        let value = pod.annotations.iter().find(|(have, _)| *have == key).map(|(_, value)| *value);
        let valid =
            |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
        if let Some(value) = value.filter(|value| !valid(value)) {
            forbidden.insert(format!("{key}={value:?}"));
        }
    };
    check("seccomp.security.alpha.kubernetes.io/pod".to_string());
    for container in pod.containers() {
        check(format!("container.seccomp.security.alpha.kubernetes.io/{}", name(container)));
    }
    if forbidden.is_empty() {
        return None;
    }
    let listed: Vec<&str> = forbidden.iter().map(String::as_str).collect();
    violation(
        "seccompProfile",
        format!("forbidden {} {}", plural("annotation", "annotations", forbidden.len()), listed.join(", ")),
    )
}

pub(super) fn seccomp(pod: &Subject<'_>, required: bool) -> Outcome {
    const REASON: &str = "seccompProfile";
    let kind = |holder: &Value| {
        context(holder, &["seccompProfile"]).map(|profile| profile.str_at(&["type"]).unwrap_or_default().to_string())
    };
    let valid = |kind: &str| matches!(kind, "Localhost" | "RuntimeDefault");
    let mut values = BTreeSet::new();
    let mut bad = |holder: &Value| match kind(holder) {
        Some(kind) if !valid(&kind) => {
            values.insert(kind);
            true
        }
        _ => false,
    };
    let by_pod = bad(pod.spec);
    let explicit = pod.named(&mut bad);
    let setters = setters(by_pod, &explicit);
    if !setters.is_empty() {
        return violation(
            REASON,
            format!(
                "{} must not set securityContext.seccompProfile.type to {}",
                setters.join(" and "),
                quoted(&values)
            ),
        );
    }
    if !required || kind(pod.spec).is_some() {
        return None;
    }
    let implicit = pod.named(|container| kind(container).is_none());
    if implicit.is_empty() {
        return None;
    }
    violation(
        REASON,
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&implicit)
        ),
    )
}

/// Sysctls that touch only the pod, and since which minor release they count as safe.
const SAFE_SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

pub(super) fn sysctls(pod: &Subject<'_>, minor: u32) -> Outcome {
    let safe = |name: &str| SAFE_SYSCTLS.iter().any(|(have, since)| *have == name && *since <= minor);
    let forbidden: Vec<String> =
        pod.spec.list_at(&["securityContext", "sysctls"]).iter().map(name).filter(|name| !safe(name)).collect();
    if forbidden.is_empty() { None } else { violation("forbidden sysctls", forbidden.join(", ")) }
}

pub(super) fn windows_host_process(pod: &Subject<'_>) -> Outcome {
    let bad =
        |holder: &Value| context(holder, &["windowsOptions", "hostProcess"]).and_then(Value::as_bool) == Some(true);
    let setters = setters(bad(pod.spec), &pod.named(bad));
    if setters.is_empty() {
        return None;
    }
    violation(
        "hostProcess",
        format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.join(" and ")),
    )
}
