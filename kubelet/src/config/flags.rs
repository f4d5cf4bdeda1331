//! The command line. Flags that name a field of the configuration file win over it.

use std::path::PathBuf;

use component_base::flags::{FlagSet, Kind, Parsed};
use serde_json::{Value, json};

use super::{Config, Error, File};

/// The flags that do something, then those that are only taken.
pub fn set() -> FlagSet {
    let defaults = Config::default();
    let file = File::default();
    let mut set = FlagSet::new(
        "kubelet",
        "The kubelet is the primary \"node agent\" that runs on each node: it registers the node and runs the pods bound to it.",
    );
    set.string("config", "", "The Kubelet will load its initial configuration from this file.")
        .string("kubeconfig", "", "Path to a kubeconfig file, specifying how to connect to the API server.")
        .string(
            "hostname-override",
            "",
            "If non-empty, will use this string as identification instead of the actual hostname.",
        )
        .string("node-ip", "", "IP address (or comma-separated dual-stack IP addresses) of the node.")
        .string("cert-dir", "/var/lib/kubelet/pki", "The directory where the TLS certs are located.")
        .string("root-dir", "/var/lib/kubelet", "Directory path for managing kubelet files (volume mounts, etc).")
        .map("node-labels", "Labels to add when registering the node in the cluster.")
        .bool(
            "seccomp-default",
            defaults.seccomp_default,
            "Enable the use of RuntimeDefault as the default seccomp profile.",
        )
        .string("provider-id", "", "Unique identifier for identifying the node in a machine database.")
        .string(
            "container-runtime-endpoint",
            &file.container_runtime_endpoint,
            "The endpoint of container runtime service.",
        )
        .string("image-service-endpoint", "", "The endpoint of container image service; the runtime's when empty.")
        .string("pod-manifest-path", "", "Path to the directory containing static pod files to run.")
        .duration(
            "file-check-frequency",
            file.file_check_frequency,
            "Duration between checking config files for new data.",
        )
        .string("address", &file.address, "The IP address for the Kubelet to serve on.")
        .int("port", i64::from(file.port), "The port for the Kubelet to serve on.")
        .bool("enable-server", true, "Enable the Kubelet's server.")
        .string(
            "healthz-bind-address",
            &file.healthz_bind_address,
            "The IP address for the healthz server to serve on.",
        )
        .int(
            "healthz-port",
            i64::from(file.healthz_port),
            "The port of the localhost healthz endpoint (set to 0 to disable).",
        )
        .bool("anonymous-auth", file.anonymous_auth, "Enables anonymous requests to the Kubelet server.")
        .bool("authentication-token-webhook", file.webhook_authentication, "Use the TokenReview API for bearer tokens.")
        .string(
            "authorization-mode",
            &file.authorization_mode,
            "Authorization mode for Kubelet server: AlwaysAllow or Webhook.",
        )
        .string("client-ca-file", "", "Client certificates signed by one of the authorities in this file are accepted.")
        .string("tls-cert-file", "", "File containing x509 Certificate used for serving HTTPS.")
        .string("tls-private-key-file", "", "File containing x509 private key matching --tls-cert-file.")
        .string("cluster-domain", "", "Domain for this cluster.")
        .strings("cluster-dns", &[], "Comma-separated list of DNS server IP address.")
        .string(
            "resolv-conf",
            &file.resolv_conf,
            "Resolver configuration file used as the basis for the container DNS resolution.",
        )
        .duration(
            "node-status-update-frequency",
            file.node_status_update_frequency,
            "How often the kubelet posts node status.",
        )
        .string("cgroup-root", "", "Optional root cgroup to use for pods.")
        .bool("cgroups-per-qos", true, "Enable creation of QoS cgroup hierarchy.")
        .string("cgroup-driver", "cgroupfs", "Driver that the kubelet uses to manipulate cgroups: cgroupfs.")
        .int("max-pods", file.max_pods, "Number of Pods that can run on this Kubelet.")
        .int("pod-max-pids", file.pod_pids_limit, "Set the maximum number of processes per pod.")
        .bool("cpu-cfs-quota", true, "Enable CPU CFS quota enforcement for containers that specify CPU limits.")
        .string(
            "container-log-max-size",
            &file.container_log_max_size,
            "Maximum size of container log file before it is rotated.",
        )
        .int("container-log-max-files", 5, "Maximum number of container log files that can be present for a container.")
        .string("pod-logs-dir", &file.pod_logs_dir, "Directory of the logs of pods.")
        .string("container-logs-dir", "/var/log/containers", "Directory of links to the logs of containers.")
        .map("system-reserved", "Resources reserved for non-kubernetes components.")
        .map("kube-reserved", "Resources reserved for kubernetes system components.")
        .string("eviction-hard", "", "Eviction thresholds (e.g. memory.available<1Gi) that mean pressure.")
        .string("eviction-soft", "", "Eviction thresholds that mean pressure once crossed for a grace period.")
        .map("eviction-soft-grace-period", "How long a soft threshold must be crossed (e.g. memory.available=1m30s).")
        .map("eviction-minimum-reclaim", "How much to reclaim beyond a threshold (e.g. imagefs.available=2Gi).")
        .int("eviction-max-pod-grace-period", 0, "Longest grace period of pods that a soft threshold evicts.")
        .duration(
            "eviction-pressure-transition-period",
            file.eviction_pressure_transition_period,
            "How long a pressure condition outlasts its cause.",
        )
        .int("image-gc-high-threshold", 85, "The percent of disk usage after which unused images are removed.")
        .int("image-gc-low-threshold", 80, "The percent of disk usage to which unused images are removed.")
        .duration(
            "minimum-image-ttl-duration",
            file.image_minimum_gc_age,
            "Minimum age of an unused image that is removed.",
        )
        .strings("allowed-unsafe-sysctls", &[], "Unsafe sysctls or patterns of them (ending in *) that pods may set.")
        .duration(
            "runtime-request-timeout",
            file.runtime_request_timeout,
            "Timeout of all runtime requests except long running ones.",
        )
        .bool("register-node", true, "Register the node with the API server.")
        .strings("register-with-taints", &[], "Register the node with the given list of taints (key=value:effect).");
    set.string(
        "bootstrap-kubeconfig",
        "",
        "Path to a kubeconfig file that will be used to get client certificate for kubelet. If the file specified by --kubeconfig does not exist, the bootstrap kubeconfig is used to request a client certificate from the API server.",
    )
    .bool(
        "rotate-certificates",
        false,
        "Auto rotate the kubelet client certificates by requesting new certificates from the kube-apiserver when the certificate expiration approaches.",
    )
    .bool(
        "rotate-server-certificates",
        false,
        "Auto-request and rotate the kubelet serving certificates by requesting new certificates from the kube-apiserver when the certificate expiration approaches.",
    );
    set.accepted(
        Kind::Bool,
        &[
            "exit-on-lock-contention",
            "fail-swap-on=true",
            "fail-cgroupv1",
            "enable-debugging-handlers=true",
            "contention-profiling",
            "enable-controller-attach-detach=true",
            "make-iptables-util-chains=true",
            "kernel-memcg-notification",
            "local-storage-capacity-isolation=true",
            "serialize-image-pulls=true",
            "protect-kernel-defaults",
            "experimental-allocatable-ignore-eviction",
            "runonce",
            "really-crash-for-testing",
            "keep-terminated-pod-volumes",
        ],
    );
    set.accepted(
        Kind::String,
        &[
            "config-dir",
            "cloud-provider",
            "cloud-config",
            "lock-file",
            "experimental-mounter-path",
            "runtime-cgroups",
            "image-credential-provider-config",
            "image-credential-provider-bin-dir",
            "manifest-url",
            "manifest-url-header",
            "tls-min-version",
            "tls-cipher-suites",
            "volume-plugin-dir=/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
            "kubelet-cgroups",
            "system-cgroups",
            "cpu-manager-policy=none",
            "topology-manager-policy=none",
            "topology-manager-scope=container",
            "memory-manager-policy=None",
            "hairpin-mode=promiscuous-bridge",
            "pod-cidr",
            "kube-api-content-type=application/vnd.kubernetes.protobuf",
            "kube-api-qps=50",
            "kube-api-burst=100",
            "event-qps=50",
            "event-burst=100",
            "registry-qps=5",
            "registry-burst=10",
            "read-only-port=10255",
            "oom-score-adj=-999",
            "max-open-files=1000000",
            "pods-per-core=0",
            "pod-infra-container-image",
            "container-runtime",
            "network-plugin",
            "cni-conf-dir",
            "cni-bin-dir",
            "reserved-cpus",
            "reserved-memory",
            "enforce-node-allocatable",
            "system-reserved-cgroup",
            "kube-reserved-cgroup",
            "qos-reserved",
            "maximum-dead-containers=-1",
            "maximum-dead-containers-per-container=1",
            "node-status-max-images=50",
            "cpu-manager-policy-options",
            "topology-manager-policy-options",
            "max-parallel-image-pulls",
            "memory-throttling-factor",
            "iptables-drop-bit",
            "iptables-masquerade-bit",
            "azure-container-registry-config",
        ],
    );
    set.accepted(
        Kind::Duration,
        &[
            "sync-frequency=1m0s",
            "http-check-frequency=20s",
            "minimum-container-ttl-duration",
            "volume-stats-agg-period=1m0s",
            "cpu-manager-reconcile-period=10s",
            "cpu-cfs-quota-period=100ms",
            "streaming-connection-idle-timeout=4h0m0s",
            "authentication-token-webhook-cache-ttl=2m0s",
            "authorization-webhook-cache-authorized-ttl=5m0s",
            "authorization-webhook-cache-unauthorized-ttl=30s",
        ],
    );
    set.common();
    set
}

/// Builds the configuration.
pub fn read(flags: &Parsed) -> Result<Config, Error> {
    let mut config = Config { logging: component_base::logging::Options::from_flags(flags), ..Config::default() };
    config.version = flags.string("version") != "false";
    if let Some(path) = flags.nonempty("config") {
        config.file = File::read(&PathBuf::from(path))?;
    }
    config.zpages = component_base::zpages::Settings::from_flags(flags, &config.file.feature_gates);
    config.seccomp_default = config.file.seccomp_default;
    config.provider_id = config.file.provider_id.clone();
    config.kubeconfig = flags.nonempty("kubeconfig").map(PathBuf::from);
    config.bootstrap_kubeconfig = flags.nonempty("bootstrap-kubeconfig").map(PathBuf::from);
    config.hostname_override = flags.string("hostname-override");
    config.node_ips = flags.string("node-ip").split(',').filter(|ip| !ip.is_empty()).map(str::to_owned).collect();
    for ip in &config.node_ips {
        let parsed = ip.parse::<std::net::IpAddr>();
        parsed.map_err(|e| Error::Value { name: "--node-ip", value: ip.clone(), reason: e.to_string() })?;
    }
    config.root_dir = flags.string("root-dir").into();
    config.cert_dir = match flags.changed("cert-dir") {
        true => flags.string("cert-dir").into(),
        false => config.root_dir.join("pki"),
    };
    config.node_labels = flags.map("node-labels");
    config.container_logs_dir = flags.string("container-logs-dir").into();
    if flags.changed("seccomp-default") {
        config.seccomp_default = flags.bool("seccomp-default");
    }
    if flags.changed("provider-id") {
        config.provider_id = flags.string("provider-id");
    }
    over(flags, &mut config.file)?;
    Ok(config)
}

/// Lays the flags that were given over the file.
fn over(flags: &Parsed, file: &mut File) -> Result<(), Error> {
    let text = |name: &str, to: &mut String| {
        if flags.changed(name) {
            *to = flags.string(name);
        }
    };
    if flags.changed("rotate-certificates") {
        file.rotate_certificates = flags.bool("rotate-certificates");
    }
    if flags.changed("rotate-server-certificates") {
        file.server_tls_bootstrap = flags.bool("rotate-server-certificates");
    }
    text("container-runtime-endpoint", &mut file.container_runtime_endpoint);
    text("image-service-endpoint", &mut file.image_service_endpoint);
    text("pod-manifest-path", &mut file.static_pod_path);
    text("address", &mut file.address);
    text("healthz-bind-address", &mut file.healthz_bind_address);
    text("authorization-mode", &mut file.authorization_mode);
    text("client-ca-file", &mut file.client_ca_file);
    text("tls-cert-file", &mut file.tls_cert_file);
    text("tls-private-key-file", &mut file.tls_private_key_file);
    text("cluster-domain", &mut file.cluster_domain);
    text("resolv-conf", &mut file.resolv_conf);
    text("cgroup-root", &mut file.cgroup_root);
    text("container-log-max-size", &mut file.container_log_max_size);
    text("pod-logs-dir", &mut file.pod_logs_dir);
    let truth = |name: &str, to: &mut bool| {
        if flags.changed(name) {
            *to = flags.bool(name);
        }
    };
    truth("enable-server", &mut file.enable_server);
    truth("anonymous-auth", &mut file.anonymous_auth);
    truth("authentication-token-webhook", &mut file.webhook_authentication);
    truth("cgroups-per-qos", &mut file.cgroups_per_qos);
    truth("cpu-cfs-quota", &mut file.cpu_cfs_quota);
    truth("register-node", &mut file.register_node);
    let time = |name: &str, to: &mut std::time::Duration| {
        if flags.changed(name) {
            *to = flags.duration(name);
        }
    };
    time("file-check-frequency", &mut file.file_check_frequency);
    time("node-status-update-frequency", &mut file.node_status_update_frequency);
    time("runtime-request-timeout", &mut file.runtime_request_timeout);
    time("eviction-pressure-transition-period", &mut file.eviction_pressure_transition_period);
    time("minimum-image-ttl-duration", &mut file.image_minimum_gc_age);
    if flags.changed("port") {
        file.port = port("--port", flags.int("port"))?;
    }
    if flags.changed("healthz-port") {
        file.healthz_port = port("--healthz-port", flags.int("healthz-port"))?;
    }
    if flags.changed("max-pods") {
        file.max_pods = flags.int("max-pods");
    }
    if flags.changed("pod-max-pids") {
        file.pod_pids_limit = flags.int("pod-max-pids");
    }
    if flags.changed("container-log-max-files") {
        file.container_log_max_files = usize::try_from(flags.int("container-log-max-files")).unwrap_or(5);
    }
    if flags.changed("cluster-dns") {
        file.cluster_dns = flags.strings("cluster-dns");
    }
    if flags.changed("system-reserved") {
        file.system_reserved = flags.map("system-reserved");
    }
    if flags.changed("kube-reserved") {
        file.kube_reserved = flags.map("kube-reserved");
    }
    for (name, to) in [("eviction-hard", &mut file.eviction_hard), ("eviction-soft", &mut file.eviction_soft)] {
        if flags.changed(name) {
            let text = flags.string(name);
            let parts = text.split(',').filter_map(|part| part.split_once('<'));
            *to = parts.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        }
    }
    for (name, to) in [
        ("eviction-soft-grace-period", &mut file.eviction_soft_grace_period),
        ("eviction-minimum-reclaim", &mut file.eviction_minimum_reclaim),
    ] {
        if flags.changed(name) {
            *to = flags.map(name);
        }
    }
    for (name, to) in [
        ("eviction-max-pod-grace-period", &mut file.eviction_max_pod_grace_period),
        ("image-gc-high-threshold", &mut file.image_gc_high_threshold),
        ("image-gc-low-threshold", &mut file.image_gc_low_threshold),
    ] {
        if flags.changed(name) {
            *to = flags.int(name);
        }
    }
    if flags.changed("allowed-unsafe-sysctls") {
        file.allowed_unsafe_sysctls = flags.strings("allowed-unsafe-sysctls");
    }
    if flags.changed("cgroup-driver") && flags.string("cgroup-driver") != "cgroupfs" {
        let reason = "only the cgroupfs driver is supported".to_owned();
        return Err(Error::Value { name: "--cgroup-driver", value: flags.string("cgroup-driver"), reason });
    }
    if flags.changed("register-with-taints") {
        file.register_with_taints =
            flags.strings("register-with-taints").iter().map(|t| taint(t)).collect::<Result<_, _>>()?;
    }
    Ok(())
}

fn port(name: &'static str, number: i64) -> Result<u16, Error> {
    u16::try_from(number).map_err(|e| Error::Value { name, value: number.to_string(), reason: e.to_string() })
}

/// `key=value:effect`, or without the value.
fn taint(text: &str) -> Result<Value, Error> {
    let bad = || Error::Value {
        name: "--register-with-taints",
        value: text.to_owned(),
        reason: "taints are written key=value:effect".to_owned(),
    };
    let (rest, effect) = text.rsplit_once(':').ok_or_else(bad)?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(bad());
    }
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    Ok(match value {
        "" => json!({"key": key, "effect": effect}),
        value => json!({"key": key, "value": value, "effect": effect}),
    })
}
