//! Sandbox and container configurations in CRI's terms, from a pod's spec.
//!
//! Pure: mounts and environment are made before and handed in.

use k8s_openapi::api::core::v1::{Capabilities, Container, Pod, SeccompProfile, SecurityContext};
use proto::cri;

use super::labels;
use crate::network;
use crate::pod::PodExt;
use crate::resources;
use crate::settings::{Settings, container_log_path};

/// Paths of `/proc` and `/sys` hidden from containers, unless `procMount` says otherwise.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths that containers may only read.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The sandbox of a pod.
pub fn sandbox(pod: &Pod, attempt: u32, settings: &Settings, cgroup_parent: String) -> cri::PodSandboxConfig {
    let spec = pod.pod_spec();
    let context = spec.security_context.clone().unwrap_or_default();
    let hostname =
        if pod.host_network() { String::new() } else { network::kernel_hostname(pod, &settings.dns.cluster_domain) };
    let port_mappings = spec
        .containers
        .iter()
        .chain(pod.init_containers().iter().filter(|c| crate::pod::is_sidecar(c)))
        .flat_map(|c| c.ports.iter().flatten())
        .map(|port| cri::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or_default(),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect();
    let privileged = spec
        .containers
        .iter()
        .chain(pod.init_containers())
        .any(|c| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true));
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: pod.pod_name().into(),
            uid: pod.uid().into(),
            namespace: pod.pod_namespace().into(),
            attempt,
        }),
        hostname,
        log_directory: settings
            .pod_log_dir(pod.pod_namespace(), pod.pod_name(), pod.uid())
            .to_string_lossy()
            .into_owned(),
        dns_config: Some(network::pod_dns(pod, &settings.dns)),
        port_mappings,
        labels: labels::sandbox_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent,
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(pod)),
                selinux_options: context.se_linux_options.as_ref().map(selinux),
                run_as_user: context.run_as_user.map(|value| cri::Int64Value { value }),
                run_as_group: context.run_as_group.map(|value| cri::Int64Value { value }),
                supplemental_groups: groups(pod),
                supplemental_groups_policy: groups_policy(pod),
                privileged,
                seccomp: Some(profile(cri::security_profile::ProfileType::RuntimeDefault)),
                ..Default::default()
            }),
            sysctls: context.sysctls.iter().flatten().map(|s| (s.name.clone(), s.value.clone())).collect(),
            overhead: Some(resources::overhead_resources(pod)),
            resources: Some(resources::sandbox_resources(pod)),
        }),
    }
}

/// Which namespaces a pod shares, with the node or inside.
pub fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let spec = pod.pod_spec();
    let on = |flag: Option<bool>| flag.unwrap_or(false);
    let node_or = |node: bool, other: cri::NamespaceMode| if node { cri::NamespaceMode::Node } else { other };
    let pid = if on(spec.share_process_namespace) { cri::NamespaceMode::Pod } else { cri::NamespaceMode::Container };
    cri::NamespaceOption {
        network: node_or(pod.host_network(), cri::NamespaceMode::Pod).into(),
        pid: node_or(on(spec.host_pid), pid).into(),
        ipc: node_or(on(spec.host_ipc), cri::NamespaceMode::Pod).into(),
        ..Default::default()
    }
}

fn groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = &pod.pod_spec().security_context else { return Vec::new() };
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

fn groups_policy(pod: &Pod) -> i32 {
    let policy = pod.pod_spec().security_context.as_ref().and_then(|c| c.supplemental_groups_policy.as_deref());
    match policy {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict,
        _ => cri::SupplementalGroupsPolicy::Merge,
    }
    .into()
}

fn selinux(options: &k8s_openapi::api::core::v1::SELinuxOptions) -> cri::SeLinuxOption {
    cri::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn profile(kind: cri::security_profile::ProfileType) -> cri::SecurityProfile {
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() }
}

/// The pod's security context with the container's on top.
pub fn effective_security(pod: &Pod, container: &Container) -> SecurityContext {
    let mut out = container.security_context.clone().unwrap_or_default();
    if let Some(pod) = &pod.pod_spec().security_context {
        out.run_as_user = out.run_as_user.or(pod.run_as_user);
        out.run_as_group = out.run_as_group.or(pod.run_as_group);
        out.run_as_non_root = out.run_as_non_root.or(pod.run_as_non_root);
        out.se_linux_options = out.se_linux_options.or_else(|| pod.se_linux_options.clone());
        out.seccomp_profile = out.seccomp_profile.or_else(|| pod.seccomp_profile.clone());
        out.app_armor_profile = out.app_armor_profile.or_else(|| pod.app_armor_profile.clone());
    }
    out
}

/// The user an image names: a number, or a name that only the runtime can resolve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

/// Refuses what `runAsNonRoot` forbids, in upstream's words.
pub fn verify_non_root(pod: &Pod, container: &Container, user: &ImageUser) -> Result<(), String> {
    let context = effective_security(pod, container);
    if context.run_as_non_root != Some(true) {
        return Ok(());
    }
    let place = format!("(pod: {:?}, container: {})", pod.described(), container.name);
    match (context.run_as_user, user.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, Some(_)) => Ok(()),
        (None, None) if !user.name.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {place}",
            user.name
        )),
        (None, None) => Ok(()),
    }
}

/// What has been made for a container before its configuration.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    pub mounts: Vec<cri::Mount>,
    pub env: Vec<(String, String)>,
    pub image_ref: String,
    pub image_user: ImageUser,
    pub restart_count: u32,
    /// For an ephemeral container: the container whose processes it sees.
    pub target_id: Option<String>,
}

/// The configuration of a container. Errors are for the user.
pub fn container(
    pod: &Pod,
    container: &Container,
    prepared: Prepared,
    settings: &Settings,
) -> Result<cri::ContainerConfig, String> {
    verify_non_root(pod, container, &prepared.image_user)?;
    let lookup = |name: &str| prepared.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let expand = |words: &Option<Vec<String>>| words.iter().flatten().map(|w| crate::env::expand(w, lookup)).collect();
    let stop_signal = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.stop_signal.as_deref())
        .and_then(|name| {
            cri::Signal::from_str_name(&name.replace("RTMAX-", "RTMAXMINUS").replace("RTMIN+", "RTMINPLUS"))
        })
        .unwrap_or(cri::Signal::RuntimeDefault);
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: prepared.restart_count }),
        image: Some(cri::ImageSpec {
            image: prepared.image_ref.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels: labels::container_labels(pod, container),
        annotations: labels::container_annotations(pod, container, prepared.restart_count),
        log_path: container_log_path(&container.name, prepared.restart_count),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::container_resources(
                pod,
                container,
                settings.memory_capacity,
                settings.cfs_quota,
            )),
            security_context: Some(security(pod, container, &prepared, settings)?),
        }),
        envs: prepared.env.into_iter().map(|(key, value)| cri::KeyValue { key, value: value.into_bytes() }).collect(),
        mounts: prepared.mounts,
        stop_signal: stop_signal.into(),
        ..Default::default()
    })
}

fn security(
    pod: &Pod,
    container: &Container,
    prepared: &Prepared,
    settings: &Settings,
) -> Result<cri::LinuxContainerSecurityContext, String> {
    let context = effective_security(pod, container);
    let mut options = namespaces(pod);
    if let Some(target) = &prepared.target_id
        && options.pid == cri::NamespaceMode::Container as i32
    {
        options.pid = cri::NamespaceMode::Target.into();
        options.target_id = target.clone();
    }
    let unmasked = context.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let (run_as_user, run_as_username) = match context.run_as_user {
        Some(value) => (Some(value), String::new()),
        None => (prepared.image_user.uid, prepared.image_user.name.clone()),
    };
    let (apparmor, apparmor_profile) = apparmor(&context);
    #[allow(deprecated)]
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: context.capabilities.as_ref().map(capabilities),
        privileged: context.privileged.unwrap_or(false),
        namespace_options: Some(options),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: run_as_user.map(|value| cri::Int64Value { value }),
        run_as_group: context.run_as_group.map(|value| cri::Int64Value { value }),
        run_as_username,
        readonly_rootfs: context.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: context.allow_privilege_escalation == Some(false),
        masked_paths: paths(MASKED),
        readonly_paths: paths(READ_ONLY),
        seccomp: Some(seccomp(context.seccomp_profile.as_ref(), settings)?),
        apparmor,
        apparmor_profile,
        ..Default::default()
    })
}

fn capabilities(wanted: &Capabilities) -> cri::Capability {
    cri::Capability {
        add_capabilities: wanted.add.clone().unwrap_or_default(),
        drop_capabilities: wanted.drop.clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn seccomp(wanted: Option<&SeccompProfile>, settings: &Settings) -> Result<cri::SecurityProfile, String> {
    use cri::security_profile::ProfileType::{Localhost, RuntimeDefault, Unconfined};
    Ok(match wanted.map(|p| p.type_.as_str()) {
        None if settings.seccomp_default => profile(RuntimeDefault),
        None => profile(Unconfined),
        Some("RuntimeDefault") => profile(RuntimeDefault),
        Some("Localhost") => {
            let file = wanted.and_then(|p| p.localhost_profile.as_deref()).filter(|f| !f.is_empty());
            let file = file.ok_or("localhostProfile must be set if seccompProfile type is Localhost.")?;
            let path = settings.root_dir.join("seccomp").join(file);
            cri::SecurityProfile { profile_type: Localhost.into(), localhost_ref: path.to_string_lossy().into_owned() }
        }
        Some(_) => profile(Unconfined),
    })
}

/// The new field and the old one that older runtimes read.
fn apparmor(context: &SecurityContext) -> (Option<cri::SecurityProfile>, String) {
    use cri::security_profile::ProfileType::{Localhost, RuntimeDefault, Unconfined};
    let Some(wanted) = &context.app_armor_profile else { return (None, String::new()) };
    let local = wanted.localhost_profile.clone().unwrap_or_default();
    match wanted.type_.as_str() {
        "RuntimeDefault" => (Some(profile(RuntimeDefault)), "runtime/default".into()),
        "Localhost" => {
            let name = format!("localhost/{local}");
            (Some(cri::SecurityProfile { profile_type: Localhost.into(), localhost_ref: local }), name)
        }
        _ => (Some(profile(Unconfined)), "unconfined".into()),
    }
}
