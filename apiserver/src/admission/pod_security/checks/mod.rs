//! The checks of the Pod Security Standards, one function each, and since when each applies.
//!
//! Upstream: `pod-security-admission/policy`. A check answers the reason and the detail of a violation.

mod baseline;
mod restricted;
mod subject;

use super::policy::{Level, Standard, Version};
use baseline::{
    app_armor, capabilities_baseline, host_namespaces, host_path_volumes, host_ports, host_probes, privileged,
    proc_mount, seccomp, seccomp_annotations, selinux, sysctls, windows_host_process,
};
use restricted::{
    capabilities_restricted, privilege_escalation, restricted_volumes, run_as_non_root, run_as_user,
    unless_user_namespace, unless_windows,
};
use subject::Run;
pub use subject::{Subject, Violation};

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
    use serde_json::{Value, json};

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
