//! `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`): the fields that have an effect here, and the
//! names of those that are taken and have none.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{Error, duration};

/// The file's contents with defaults filled in.
#[derive(Clone, Debug)]
pub struct File {
    pub static_pod_path: String,
    pub file_check_frequency: Duration,
    pub address: String,
    pub port: u16,
    pub tls_cert_file: String,
    pub tls_private_key_file: String,
    pub client_ca_file: String,
    /// Names of gates and whether they are on, as texts.
    pub feature_gates: BTreeMap<String, String>,
    /// Client certificates are asked for anew before they end.
    pub rotate_certificates: bool,
    /// The serving certificate is asked for.
    pub server_tls_bootstrap: bool,
    pub anonymous_auth: bool,
    pub webhook_authentication: bool,
    /// `AlwaysAllow` or `Webhook`.
    pub authorization_mode: String,
    pub healthz_port: u16,
    pub healthz_bind_address: String,
    pub cluster_domain: String,
    pub cluster_dns: Vec<String>,
    pub node_status_update_frequency: Duration,
    pub node_lease_duration_seconds: i64,
    pub cgroup_root: String,
    pub cgroups_per_qos: bool,
    pub max_pods: i64,
    pub pods_per_core: i64,
    pub pod_pids_limit: i64,
    pub resolv_conf: String,
    pub cpu_cfs_quota: bool,
    pub container_log_max_size: String,
    pub container_log_max_files: usize,
    pub system_reserved: BTreeMap<String, String>,
    pub kube_reserved: BTreeMap<String, String>,
    pub eviction_hard: BTreeMap<String, String>,
    pub eviction_soft: BTreeMap<String, String>,
    /// How long a soft threshold must be crossed, by signal.
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    /// Seconds that a pod gets at most when a soft threshold evicts it.
    pub eviction_max_pod_grace_period: i64,
    pub eviction_pressure_transition_period: Duration,
    /// Percent of the disk above which unused images go, and down to which.
    pub image_gc_high_threshold: i64,
    pub image_gc_low_threshold: i64,
    pub image_minimum_gc_age: Duration,
    /// Unused images older than this go whatever the disk; zero for never.
    pub image_maximum_gc_age: Duration,
    /// Sysctls beyond the safe ones that pods may set.
    pub allowed_unsafe_sysctls: Vec<String>,
    pub runtime_request_timeout: Duration,
    pub register_node: bool,
    /// `{key, value, effect}` objects.
    pub register_with_taints: Vec<Value>,
    pub seccomp_default: bool,
    pub pod_logs_dir: String,
    pub provider_id: String,
    pub container_runtime_endpoint: String,
    pub image_service_endpoint: String,
    pub enable_server: bool,
    pub enable_debugging_handlers: bool,
}

impl Default for File {
    fn default() -> Self {
        Self {
            static_pod_path: String::new(),
            file_check_frequency: Duration::from_secs(20),
            address: "0.0.0.0".into(),
            port: 10250,
            tls_cert_file: String::new(),
            rotate_certificates: false,
            server_tls_bootstrap: false,
            tls_private_key_file: String::new(),
            client_ca_file: String::new(),
            anonymous_auth: false,
            webhook_authentication: true,
            authorization_mode: "Webhook".into(),
            healthz_port: 10248,
            healthz_bind_address: "127.0.0.1".into(),
            cluster_domain: String::new(),
            cluster_dns: Vec::new(),
            node_status_update_frequency: Duration::from_secs(10),
            node_lease_duration_seconds: 40,
            cgroup_root: String::new(),
            cgroups_per_qos: true,
            max_pods: 110,
            pods_per_core: 0,
            pod_pids_limit: -1,
            resolv_conf: "/etc/resolv.conf".into(),
            cpu_cfs_quota: true,
            container_log_max_size: "10Mi".into(),
            container_log_max_files: 5,
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            eviction_hard: BTreeMap::new(),
            eviction_soft: BTreeMap::new(),
            eviction_soft_grace_period: BTreeMap::new(),
            eviction_minimum_reclaim: BTreeMap::new(),
            eviction_max_pod_grace_period: 0,
            eviction_pressure_transition_period: Duration::from_secs(300),
            image_gc_high_threshold: 85,
            image_gc_low_threshold: 80,
            image_minimum_gc_age: Duration::from_secs(120),
            image_maximum_gc_age: Duration::ZERO,
            allowed_unsafe_sysctls: Vec::new(),
            runtime_request_timeout: Duration::from_secs(120),
            register_node: true,
            register_with_taints: Vec::new(),
            seccomp_default: false,
            pod_logs_dir: "/var/log/pods".into(),
            provider_id: String::new(),
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".into(),
            image_service_endpoint: String::new(),
            enable_server: true,
            enable_debugging_handlers: true,
            feature_gates: BTreeMap::new(),
        }
    }
}

/// Fields that upstream knows and that change nothing here (yet). Writing them is not a mistake.
const WITHOUT_EFFECT: &[&str] = &[
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "contentType",
    "cpuCFSQuotaPeriod",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "crashLoopBackOff",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebugFlagsHandler",
    "enableProfilingHandler",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "eventBurst",
    "eventRecordQPS",
    "failCgroupV1",
    "failSwapOn",
    "hairpinMode",
    "httpCheckFrequency",
    "imagePullCredentialsVerificationPolicy",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "maxParallelImagePulls",
    "memoryManagerPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "mergeDefaultEvictionSettings",
    "nodeStatusMaxImages",
    "nodeStatusReportFrequency",
    "oomScoreAdj",
    "podCIDR",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "qosReserved",
    "readOnlyPort",
    "registryBurst",
    "registryPullQPS",
    "reservedMemory",
    "reservedSystemCPUs",
    "runOnce",
    "serializeImagePulls",
    "showHiddenMetricsForVersion",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "staticPodURL",
    "staticPodURLHeader",
    "streamingConnectionIdleTimeout",
    "syncFrequency",
    "systemCgroups",
    "systemReservedCgroup",
    "tlsCipherSuites",
    "tlsMinVersion",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

impl File {
    /// Reads a file, YAML or JSON.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let value = apimachinery::yaml::parse(&text).map_err(|e| failed(e.to_string()))?;
        Self::from_value(&value).map_err(failed)
    }

    /// Reads the object; the error names the field.
    pub fn from_value(value: &Value) -> Result<Self, String> {
        let mut out = Self::default();
        let fields = value.as_object().ok_or("the file does not hold an object")?;
        match (value["apiVersion"].as_str(), value["kind"].as_str()) {
            (Some("kubelet.config.k8s.io/v1beta1"), Some("KubeletConfiguration")) => {}
            (version, kind) => {
                return Err(format!(
                    "no kind {:?} is registered for version {:?}",
                    kind.unwrap_or(""),
                    version.unwrap_or("")
                ));
            }
        }
        for (name, value) in fields {
            if value.is_null() || WITHOUT_EFFECT.contains(&name.as_str()) {
                continue;
            }
            out.set(name, value).ok_or_else(|| match known(name) {
                true => format!("invalid value {value} for field {name:?}"),
                false => format!("strict decoding error: unknown field {name:?}"),
            })?;
        }
        Ok(out)
    }

    fn set(&mut self, name: &str, value: &Value) -> Option<()> {
        let text = || value.as_str().map(str::to_owned);
        let list = || value.as_array().map(|a| a.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect());
        let map = || {
            let object = value.as_object()?;
            Some(
                object
                    .iter()
                    .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
                    .collect(),
            )
        };
        match name {
            "apiVersion" | "kind" => {}
            "enableServer" => self.enable_server = value.as_bool()?,
            "staticPodPath" => self.static_pod_path = text()?,
            "fileCheckFrequency" => self.file_check_frequency = nonzero(duration(value)?, self.file_check_frequency),
            "address" => self.address = text()?,
            "port" => self.port = u16::try_from(value.as_u64()?).ok()?,
            "rotateCertificates" => self.rotate_certificates = value.as_bool()?,
            "serverTLSBootstrap" => self.server_tls_bootstrap = value.as_bool()?,
            "tlsCertFile" => self.tls_cert_file = text()?,
            "tlsPrivateKeyFile" => self.tls_private_key_file = text()?,
            "authentication" => {
                self.client_ca_file = value["x509"]["clientCAFile"].as_str().unwrap_or_default().to_owned();
                self.anonymous_auth = value["anonymous"]["enabled"].as_bool().unwrap_or(self.anonymous_auth);
                self.webhook_authentication =
                    value["webhook"]["enabled"].as_bool().unwrap_or(self.webhook_authentication);
            }
            "authorization" => {
                if let Some(mode) = value["mode"].as_str() {
                    self.authorization_mode = mode.to_owned();
                }
            }
            "healthzPort" => self.healthz_port = u16::try_from(value.as_u64()?).ok()?,
            "healthzBindAddress" => self.healthz_bind_address = text()?,
            "clusterDomain" => self.cluster_domain = text()?,
            "clusterDNS" => self.cluster_dns = list()?,
            "nodeStatusUpdateFrequency" => {
                self.node_status_update_frequency = nonzero(duration(value)?, self.node_status_update_frequency);
            }
            "nodeLeaseDurationSeconds" => self.node_lease_duration_seconds = value.as_i64().filter(|s| *s > 0)?,
            "cgroupRoot" => self.cgroup_root = text()?,
            "cgroupsPerQOS" => self.cgroups_per_qos = value.as_bool()?,
            // The systemd driver needs systemd's D-Bus; only files are written here.
            "cgroupDriver" => return (text()? == "cgroupfs" || text()?.is_empty()).then_some(()),
            "maxPods" => self.max_pods = value.as_i64().filter(|n| *n >= 0)?,
            "podsPerCore" => self.pods_per_core = value.as_i64()?,
            "podPidsLimit" => self.pod_pids_limit = value.as_i64()?,
            "resolvConf" => self.resolv_conf = text()?,
            "cpuCFSQuota" => self.cpu_cfs_quota = value.as_bool()?,
            "containerLogMaxSize" => self.container_log_max_size = text()?,
            "containerLogMaxFiles" => self.container_log_max_files = usize::try_from(value.as_u64()?).ok()?,
            "systemReserved" => self.system_reserved = map()?,
            "kubeReserved" => self.kube_reserved = map()?,
            "featureGates" => {
                self.feature_gates = map()?;
                value.as_object()?.values().all(serde_json::Value::is_boolean).then_some(())?;
            }
            "evictionHard" => self.eviction_hard = map()?,
            "evictionSoft" => self.eviction_soft = map()?,
            "evictionSoftGracePeriod" => self.eviction_soft_grace_period = map()?,
            "evictionMinimumReclaim" => self.eviction_minimum_reclaim = map()?,
            "evictionMaxPodGracePeriod" => self.eviction_max_pod_grace_period = value.as_i64()?,
            "evictionPressureTransitionPeriod" => {
                self.eviction_pressure_transition_period =
                    nonzero(duration(value)?, self.eviction_pressure_transition_period);
            }
            "imageGCHighThresholdPercent" => self.image_gc_high_threshold = percent(value)?,
            "imageGCLowThresholdPercent" => self.image_gc_low_threshold = percent(value)?,
            "imageMinimumGCAge" => self.image_minimum_gc_age = nonzero(duration(value)?, self.image_minimum_gc_age),
            "imageMaximumGCAge" => self.image_maximum_gc_age = duration(value)?,
            "allowedUnsafeSysctls" => self.allowed_unsafe_sysctls = list()?,
            "runtimeRequestTimeout" => {
                self.runtime_request_timeout = nonzero(duration(value)?, self.runtime_request_timeout);
            }
            "registerNode" => self.register_node = value.as_bool()?,
            "registerWithTaints" => self.register_with_taints = value.as_array()?.clone(),
            "seccompDefault" => self.seccomp_default = value.as_bool()?,
            "podLogsDir" => self.pod_logs_dir = text()?,
            "providerID" => self.provider_id = text()?,
            "containerRuntimeEndpoint" => self.container_runtime_endpoint = text()?,
            "imageServiceEndpoint" => self.image_service_endpoint = text()?,
            "enableDebuggingHandlers" => self.enable_debugging_handlers = value.as_bool()?,
            _ => return None,
        }
        Some(())
    }

    /// Bytes after which a container's log is rotated.
    pub fn log_max_size(&self) -> u64 {
        u64::try_from(super::quantity(&self.container_log_max_size, false)).unwrap_or(10 << 20).max(1)
    }
}

/// A whole number from 0 to 100.
fn percent(value: &Value) -> Option<i64> {
    value.as_i64().filter(|percent| (0..=100).contains(percent))
}

/// Zero stands for the default, as files written by kubeadm have it.
fn nonzero(value: Duration, default: Duration) -> Duration {
    if value.is_zero() { default } else { value }
}

/// Whether a field exists, whatever its value.
fn known(name: &str) -> bool {
    let mut probe = File::default();
    let samples = [
        Value::from(1),
        Value::from("1s"),
        Value::from(""),
        Value::from(true),
        serde_json::json!([]),
        serde_json::json!({}),
    ];
    samples.iter().any(|sample| probe.set(name, sample).is_some())
}
