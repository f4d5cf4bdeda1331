//! The checks of the Pod Security Standards, one function each, and since when each applies.
//!
//! Upstream: `pod-security-admission/policy`. A check answers the reason and the detail of a violation.

use std::collections::BTreeSet;

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use super::policy::{Level, Standard, Version};

/// A pod, or the template of one.
pub struct Subject<'a> {
    pub annotations: Vec<(&'a str, &'a str)>,
    pub spec: &'a Value,
}

impl<'a> Subject<'a> {
    /// Of an object with `metadata` and `spec`.
    pub fn new(pod: &'a Value) -> Self {
        let annotations = pod.annotations().into_iter().flatten();
        let annotations = annotations.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
        Self { annotations, spec: pod.get("spec").unwrap_or(&Value::Null) }
    }

    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|field| self.spec.list_at(&[field]))
    }

    fn windows(&self) -> bool {
        self.spec.str_at(&["os", "name"]) == Some("windows")
    }

    fn has_user_namespace(&self) -> bool {
        self.spec.bool_at(&["hostUsers"]) == Some(false)
    }

    /// Names of the containers for which this holds.
    fn named(&self, mut bad: impl FnMut(&Value) -> bool) -> Vec<String> {
        self.containers().filter(|container| bad(container)).map(name).collect()
    }
}

/// Reason and detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

type Outcome = Option<Violation>;
type Run = fn(&Subject<'_>) -> Outcome;

fn violation(reason: &str, detail: String) -> Outcome {
    Some(Violation { reason: reason.to_string(), detail })
}

fn name(container: &Value) -> String {
    container.str_at(&["name"]).unwrap_or_default().to_string()
}

fn quoted<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.as_ref().to_string()).collect();
    format!("\"{}\"", items.join("\", \""))
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn containers(names: &[String]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and containers "a", "b"`: who set something.
fn setters(pod: bool, names: &[String]) -> Vec<String> {
    let mut setters = Vec::new();
    if pod {
        setters.push("pod".to_string());
    }
    if !names.is_empty() {
        setters.push(containers(names));
    }
    setters
}

const POD: [&str; 1] = ["securityContext"];

fn context<'a>(holder: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let context = holder.at(&POD)?;
    context.at(path).filter(|value| !value.is_null())
}

fn strings<'a>(container: &'a Value, path: &[&str]) -> Vec<&'a str> {
    let list = context(container, path).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

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

fn capabilities_baseline(pod: &Subject<'_>) -> Outcome {
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

fn capabilities_restricted(pod: &Subject<'_>) -> Outcome {
    let undropped = pod.named(|container| !strings(container, &["capabilities", "drop"]).contains(&"ALL"));
    let mut added = BTreeSet::new();
    let adding = pod.named(|container| {
        let mut more = strings(container, &["capabilities", "add"]);
        more.retain(|capability| *capability != "NET_BIND_SERVICE");
        added.extend(more.iter().map(ToString::to_string));
        !more.is_empty()
    });
    let mut details = Vec::new();
    if !undropped.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&undropped)));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adding),
            quoted(&added)
        ));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

/// Windows has none of these.
fn unless_windows(pod: &Subject<'_>, check: Run) -> Outcome {
    if pod.windows() { None } else { check(pod) }
}

/// A user namespace takes the danger out of these.
fn unless_user_namespace(pod: &Subject<'_>, check: Run) -> Outcome {
    if pod.has_user_namespace() { None } else { check(pod) }
}

fn privilege_escalation(pod: &Subject<'_>) -> Outcome {
    let bad = pod
        .named(|container| context(container, &["allowPrivilegeEscalation"]).and_then(Value::as_bool) != Some(false));
    if bad.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad)),
    )
}

fn app_armor(pod: &Subject<'_>) -> Outcome {
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

fn host_namespaces(pod: &Subject<'_>) -> Outcome {
    let used: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec.bool_at(&[field]) == Some(true))
        .map(|field| format!("{field}=true"))
        .collect();
    if used.is_empty() { None } else { violation("host namespaces", used.join(", ")) }
}

fn given(object: &Value, field: &str) -> bool {
    object.get(field).is_some_and(|value| !value.is_null())
}

fn host_path_volumes(pod: &Subject<'_>) -> Outcome {
    let volumes = pod.spec.list_at(&["volumes"]).iter();
    let names: Vec<String> = volumes.filter(|volume| given(volume, "hostPath")).map(name).collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

fn host_ports(pod: &Subject<'_>) -> Outcome {
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

fn host_probes(pod: &Subject<'_>) -> Outcome {
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

fn privileged(pod: &Subject<'_>) -> Outcome {
    let bad = pod.named(|container| context(container, &["privileged"]).and_then(Value::as_bool) == Some(true));
    if bad.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
}

fn proc_mount(pod: &Subject<'_>) -> Outcome {
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

const UNRESTRICTED_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const RESTRICTED_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

fn restricted_volumes(pod: &Subject<'_>) -> Outcome {
    let mut kinds = BTreeSet::new();
    let mut names = Vec::new();
    for volume in pod.spec.list_at(&["volumes"]) {
        if UNRESTRICTED_VOLUMES.iter().any(|kind| given(volume, kind)) {
            continue;
        }
        names.push(name(volume));
        kinds.insert(RESTRICTED_VOLUMES.iter().find(|kind| given(volume, kind)).copied().unwrap_or("unknown"));
    }
    if names.is_empty() {
        return None;
    }
    violation(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural("restricted volume type", "restricted volume types", kinds.len()),
            quoted(&kinds)
        ),
    )
}

fn run_as_non_root(pod: &Subject<'_>) -> Outcome {
    const REASON: &str = "runAsNonRoot != true";
    let of = |holder: &Value| context(holder, &["runAsNonRoot"]).and_then(Value::as_bool);
    let by_pod = of(pod.spec);
    let explicit = pod.named(|container| of(container) == Some(false));
    let setters = setters(by_pod == Some(false), &explicit);
    if !setters.is_empty() {
        return violation(REASON, format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and ")));
    }
    let implicit = pod.named(|container| of(container).is_none() && by_pod != Some(true));
    if implicit.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit)))
}

fn run_as_user(pod: &Subject<'_>) -> Outcome {
    let root = |holder: &Value| context(holder, &["runAsUser"]).and_then(Value::as_i64) == Some(0);
    let setters = setters(root(pod.spec), &pod.named(root));
    if setters.is_empty() {
        return None;
    }
    violation("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and ")))
}

fn selinux(pod: &Subject<'_>, engine: bool) -> Outcome {
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

fn seccomp_annotations(pod: &Subject<'_>) -> Outcome {
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

fn seccomp(pod: &Subject<'_>, required: bool) -> Outcome {
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

fn sysctls(pod: &Subject<'_>, minor: u32) -> Outcome {
    let safe = |name: &str| SAFE_SYSCTLS.iter().any(|(have, since)| *have == name && *since <= minor);
    let forbidden: Vec<String> =
        pod.spec.list_at(&["securityContext", "sysctls"]).iter().map(name).filter(|name| !safe(name)).collect();
    if forbidden.is_empty() { None } else { violation("forbidden sysctls", forbidden.join(", ")) }
}

fn windows_host_process(pod: &Subject<'_>) -> Outcome {
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

/// A check in the form it has since a minor release.
struct Check {
    id: &'static str,
    level: Level,
    since: u32,
    run: Run,
    /// The baseline check that this stricter one makes superfluous.
    overrides: &'static str,
}

const fn baseline(id: &'static str, since: u32, run: Run) -> Check {
    Check { id, level: Level::Baseline, since, run, overrides: "" }
}

const fn restricted(id: &'static str, since: u32, overrides: &'static str, run: Run) -> Check {
    Check { id, level: Level::Restricted, since, run, overrides }
}

/// Baseline before restricted, each by id, each check's forms oldest first.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", 0, app_armor),
    baseline("capabilities_baseline", 0, capabilities_baseline),
    baseline("hostNamespaces", 0, host_namespaces),
    baseline("hostPathVolumes", 0, host_path_volumes),
    baseline("hostPorts", 0, host_ports),
    baseline("hostProbesAndHostLifecycle", 34, host_probes),
    baseline("privileged", 0, privileged),
    baseline("procMount", 0, proc_mount),
    baseline("procMount", 35, |pod| unless_user_namespace(pod, proc_mount)),
    baseline("seLinuxOptions", 0, |pod| selinux(pod, false)),
    baseline("seLinuxOptions", 31, |pod| selinux(pod, true)),
    baseline("seccompProfile_baseline", 0, seccomp_annotations),
    baseline("seccompProfile_baseline", 19, |pod| seccomp(pod, false)),
    baseline("sysctls", 0, |pod| sysctls(pod, 0)),
    baseline("sysctls", 27, |pod| sysctls(pod, 27)),
    baseline("sysctls", 29, |pod| sysctls(pod, 29)),
    baseline("sysctls", 32, |pod| sysctls(pod, 32)),
    baseline("windowsHostProcess", 0, windows_host_process),
    restricted("allowPrivilegeEscalation", 8, "", privilege_escalation),
    restricted("allowPrivilegeEscalation", 25, "", |pod| unless_windows(pod, privilege_escalation)),
    restricted("capabilities_restricted", 22, "capabilities_baseline", capabilities_restricted),
    restricted("capabilities_restricted", 25, "capabilities_baseline", |pod| {
        unless_windows(pod, capabilities_restricted)
    }),
    restricted("procMount_restricted", 35, "procMount", proc_mount),
    restricted("restrictedVolumes", 0, "hostPathVolumes", restricted_volumes),
    restricted("runAsNonRoot", 0, "", run_as_non_root),
    restricted("runAsNonRoot", 35, "", |pod| unless_user_namespace(pod, run_as_non_root)),
    restricted("runAsUser", 23, "", run_as_user),
    restricted("runAsUser", 35, "", |pod| unless_user_namespace(pod, run_as_user)),
    restricted("seccompProfile_restricted", 19, "seccompProfile_baseline", |pod| seccomp(pod, true)),
    restricted("seccompProfile_restricted", 25, "seccompProfile_baseline", |pod| {
        unless_windows(pod, |pod| seccomp(pod, true))
    }),
];

/// What a pod has against it.
pub fn evaluate(standard: Standard, pod: &Subject<'_>) -> Vec<Violation> {
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let applies = |check: &Check| match standard.version {
        Version::Latest => true,
        Version::Minor(minor) => check.since <= minor,
    };
    // The last form of each check that applies.
    let mut active: Vec<&Check> = Vec::new();
    for check in CHECKS.iter().filter(|check| check.level <= standard.level && applies(check)) {
        match active.last_mut() {
            Some(last) if last.id == check.id => *last = check,
            _ => active.push(check),
        }
    }
    let overridden: Vec<&str> = active.iter().map(|check| check.overrides).collect();
    active.iter().filter(|check| !overridden.contains(&check.id)).filter_map(|check| (check.run)(pod)).collect()
}

/// All violations in one text.
pub fn describe(violations: &[Violation]) -> String {
    let each = violations.iter().map(|violation| match violation.detail.as_str() {
        "" => violation.reason.clone(),
        detail => format!("{} ({detail})", violation.reason),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Only the reasons.
pub fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(level: Level, version: Version, pod: Value) -> String {
        describe(&evaluate(Standard { level, version }, &Subject::new(&pod)))
    }

    #[test]
    fn a_plain_pod_under_the_restricted_level() {
        let pod = json!({"spec": {"containers": [{"name": "c"}]}});
        assert_eq!(text(Level::Baseline, Version::Latest, pod.clone()), "");
        assert_eq!(
            text(Level::Restricted, Version::Latest, pod),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
    }

    #[test]
    fn each_check_speaks_upstreams_words() {
        let spec = |spec: Value| json!({"spec": spec});
        let one = |context: Value| spec(json!({"containers": [{"name": "a", "securityContext": context}]}));
        for (pod, want) in [
            (spec(json!({"hostNetwork": true, "hostPID": true})), "host namespaces (hostNetwork=true, hostPID=true)"),
            (spec(json!({"volumes": [{"name": "v", "hostPath": {}}]})), "hostPath volumes (volume \"v\")"),
            (
                spec(json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]}]})),
                "hostPort (container \"a\" uses hostPorts 443, 80)",
            ),
            (
                one(json!({"privileged": true})),
                "privileged (container \"a\" must not set securityContext.privileged=true)",
            ),
            (
                one(json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}})),
                "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
            ),
            (
                one(json!({"procMount": "Unmasked"})),
                "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
            ),
            (
                one(json!({"seccompProfile": {"type": "Unconfined"}})),
                "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
            (
                one(json!({"seLinuxOptions": {"type": "spc_t", "user": "u"}})),
                "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
            ),
            (
                spec(
                    json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}}),
                ),
                "forbidden sysctls (kernel.msgmax)",
            ),
            (
                spec(json!({"securityContext": {"windowsOptions": {"hostProcess": true}}})),
                "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
            ),
            (
                spec(json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]})),
                "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"10.0.0.1\")",
            ),
            (
                json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}}, "spec": {}}),
                "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")",
            ),
        ] {
            assert_eq!(text(Level::Baseline, Version::Latest, pod.clone()), want, "{pod}");
        }
    }

    #[test]
    fn versions_decide_which_checks_there_are() {
        let pod = json!({"spec": {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}});
        assert_eq!(text(Level::Baseline, Version::Minor(31), pod.clone()), "forbidden sysctls (net.ipv4.tcp_rmem)");
        assert_eq!(text(Level::Baseline, Version::Minor(32), pod), "");
        let pod = json!({"spec": {"containers": [{"name": "a", "securityContext": {
            "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"add": ["SYS_ADMIN"]},
        }}]}});
        assert_eq!(
            text(Level::Restricted, Version::Minor(18), pod.clone()),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)"
        );
        let pod = json!({"spec": {"hostUsers": false, "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]}});
        assert_eq!(text(Level::Baseline, Version::Latest, pod.clone()), "");
        assert!(text(Level::Restricted, Version::Latest, pod.clone()).contains("procMount"));
        assert!(text(Level::Baseline, Version::Minor(34), pod).contains("procMount"));
    }
}
