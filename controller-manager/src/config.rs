//! The settings of kube-controller-manager: upstream's flags, names and defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use component_base::flags::{FlagSet, Kind, Parsed};
use component_base::{logging, zpages};

use crate::descriptors;

/// Everything that can be set. The defaults are upstream's.
#[derive(Debug, Clone)]
pub struct Config {
    pub kubeconfig: Option<PathBuf>,
    pub kube_api_qps: f64,
    pub kube_api_burst: u32,
    /// `*`, names, and names after a minus, as `--controllers` takes them.
    pub controllers: Vec<String>,
    pub leader_elect: bool,
    pub leader_elect_lease_duration: Duration,
    pub leader_elect_renew_deadline: Duration,
    pub leader_elect_retry_period: Duration,
    pub leader_elect_resource_name: String,
    pub leader_elect_resource_namespace: String,
    /// No server at all when `None`, as inside one process with the others.
    pub serving: Option<Serving>,
    pub allocate_node_cidrs: bool,
    /// Ranges of pod addresses, one for each family.
    pub cluster_cidr: Vec<String>,
    pub service_cluster_ip_range: Vec<String>,
    /// 0 takes the family's default: 24 and 64.
    pub node_cidr_mask_size: u8,
    pub node_cidr_mask_size_ipv4: u8,
    pub node_cidr_mask_size_ipv6: u8,
    /// PEM of the authority that pods trust; goes into `kube-root-ca.crt` of every namespace.
    pub root_ca: Option<String>,
    /// `--feature-gates`: those that are on by it.
    pub gates: std::collections::BTreeSet<String>,
    pub service_account_private_key_file: Option<PathBuf>,
    pub use_service_account_credentials: bool,
    /// `--cluster-signing-cert-file` and `-key-file`: signs approved certificate requests.
    pub cluster_signing: Option<component_base::pki::Pair>,
    /// `--cluster-signing-duration`: the longest certificate.
    pub cluster_signing_duration: Duration,
    /// How long a generated token's Secret must be unused before it is marked, and marked before it is deleted.
    pub legacy_token_clean_up_period: Duration,
    pub concurrent_deployment_syncs: usize,
    pub concurrent_replicaset_syncs: usize,
    pub concurrent_rc_syncs: usize,
    pub concurrent_statefulset_syncs: usize,
    pub concurrent_daemonset_syncs: usize,
    pub concurrent_endpoint_syncs: usize,
    pub concurrent_service_endpoint_syncs: usize,
    pub concurrent_namespace_syncs: usize,
    pub concurrent_gc_syncs: usize,
    pub concurrent_serviceaccount_token_syncs: usize,
    pub concurrent_job_syncs: usize,
    pub concurrent_cron_job_syncs: usize,
    pub concurrent_ttl_after_finished_syncs: usize,
    pub mirroring_concurrent_service_endpoint_syncs: usize,
    pub mirroring_max_endpoints_per_subset: usize,
    pub max_endpoints_per_slice: usize,
    pub endpoint_updates_batch_period: Duration,
    pub namespace_sync_period: Duration,
    pub enable_garbage_collector: bool,
    pub node_monitor_period: Duration,
    pub node_monitor_grace_period: Duration,
    pub node_startup_grace_period: Duration,
    pub node_eviction_rate: f64,
    pub secondary_node_eviction_rate: f64,
    pub large_cluster_size_threshold: usize,
    pub unhealthy_zone_threshold: f64,
    /// Finished pods kept before the oldest are deleted; 0 or less keeps all.
    pub terminated_pod_gc_threshold: i64,
    pub logging: logging::Options,
}

/// The component's own HTTPS server.
#[derive(Debug, Clone)]
pub struct Serving {
    pub bind_address: IpAddr,
    /// 0 serves nothing.
    pub secure_port: u16,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_private_key_file: Option<PathBuf>,
    pub client_ca_file: Option<PathBuf>,
    pub authentication_kubeconfig: Option<PathBuf>,
    pub authorization_kubeconfig: Option<PathBuf>,
    pub always_allow_paths: Vec<String>,
    /// Which pages tell of the component itself.
    pub zpages: zpages::Settings,
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            bind_address: IpAddr::from([0, 0, 0, 0]),
            secure_port: 10257,
            tls_cert_file: None,
            tls_private_key_file: None,
            client_ca_file: None,
            authentication_kubeconfig: None,
            authorization_kubeconfig: None,
            always_allow_paths: ["/healthz", "/readyz", "/livez"].map(String::from).to_vec(),
            zpages: zpages::Settings::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            kube_api_qps: 20.0,
            kube_api_burst: 30,
            controllers: vec!["*".into()],
            leader_elect: true,
            leader_elect_lease_duration: Duration::from_secs(15),
            leader_elect_renew_deadline: Duration::from_secs(10),
            leader_elect_retry_period: Duration::from_secs(2),
            leader_elect_resource_name: "kube-controller-manager".into(),
            leader_elect_resource_namespace: "kube-system".into(),
            serving: Some(Serving::default()),
            allocate_node_cidrs: false,
            cluster_cidr: Vec::new(),
            service_cluster_ip_range: Vec::new(),
            node_cidr_mask_size: 0,
            node_cidr_mask_size_ipv4: 0,
            node_cidr_mask_size_ipv6: 0,
            root_ca: None,
            gates: std::collections::BTreeSet::new(),
            service_account_private_key_file: None,
            use_service_account_credentials: false,
            cluster_signing: None,
            cluster_signing_duration: Duration::from_secs(365 * 24 * 3600),
            legacy_token_clean_up_period: Duration::from_secs(365 * 24 * 3600),
            concurrent_deployment_syncs: 5,
            concurrent_replicaset_syncs: 5,
            concurrent_rc_syncs: 5,
            concurrent_statefulset_syncs: 5,
            concurrent_daemonset_syncs: 2,
            concurrent_endpoint_syncs: 5,
            concurrent_service_endpoint_syncs: 5,
            concurrent_namespace_syncs: 10,
            concurrent_gc_syncs: 20,
            concurrent_serviceaccount_token_syncs: 5,
            concurrent_job_syncs: 5,
            concurrent_cron_job_syncs: 5,
            concurrent_ttl_after_finished_syncs: 5,
            mirroring_concurrent_service_endpoint_syncs: 5,
            mirroring_max_endpoints_per_subset: 1000,
            max_endpoints_per_slice: 100,
            endpoint_updates_batch_period: Duration::ZERO,
            namespace_sync_period: Duration::from_secs(300),
            enable_garbage_collector: true,
            node_monitor_period: Duration::from_secs(5),
            node_monitor_grace_period: Duration::from_secs(50),
            node_startup_grace_period: Duration::from_secs(60),
            node_eviction_rate: 0.1,
            secondary_node_eviction_rate: 0.01,
            large_cluster_size_threshold: 50,
            unhealthy_zone_threshold: 0.55,
            terminated_pod_gc_threshold: 12500,
            logging: logging::Options::default(),
        }
    }
}

/// The flags, with upstream's names.
pub fn flags() -> FlagSet {
    let defaults = Config::default();
    let mut set = FlagSet::new(
        "kube-controller-manager",
        "The Kubernetes controller manager runs the control loops that move the cluster from its current state towards the desired one.",
    );
    set.common();
    set.string("kubeconfig", "", "Path to kubeconfig file with authorization and master location information.")
        .string("master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig).")
        .float("kube-api-qps", defaults.kube_api_qps, "QPS to use while talking with kubernetes apiserver.")
        .int("kube-api-burst", i64::from(defaults.kube_api_burst), "Burst to use while talking with kubernetes apiserver.")
        .strings("controllers", &["*"], "A list of controllers to enable. '*' enables all on-by-default controllers, 'foo' enables the controller named 'foo', '-foo' disables it.")
        .bool("leader-elect", true, "Start a leader election client and gain leadership before executing the main loop.")
        .duration("leader-elect-lease-duration", defaults.leader_elect_lease_duration, "The duration that non-leader candidates will wait after observing a leadership renewal.")
        .duration("leader-elect-renew-deadline", defaults.leader_elect_renew_deadline, "The interval between attempts by the acting master to renew a leadership slot before it stops leading.")
        .duration("leader-elect-retry-period", defaults.leader_elect_retry_period, "The duration the clients should wait between attempting acquisition and renewal of a leadership.")
        .string("leader-elect-resource-lock", "leases", "The type of resource object that is used for locking during leader election.")
        .string("leader-elect-resource-name", &defaults.leader_elect_resource_name, "The name of resource object that is used for locking during leader election.")
        .string("leader-elect-resource-namespace", &defaults.leader_elect_resource_namespace, "The namespace of resource object that is used for locking during leader election.")
        .string("cluster-signing-cert-file", "", "Filename containing a PEM-encoded X509 CA certificate used to issue cluster-scoped certificates.")
        .string("cluster-signing-key-file", "", "Filename containing a PEM-encoded RSA or ECDSA private key used to sign cluster-scoped certificates.")
        .duration("legacy-service-account-token-clean-up-period", defaults.legacy_token_clean_up_period, "The period of time since the last usage of an legacy service account token before it can be deleted.")
        .duration("cluster-signing-duration", defaults.cluster_signing_duration, "The max length of duration signed certificates will be given.")
        .string("bind-address", "0.0.0.0", "The IP address on which to listen for the --secure-port port.")
        .int("secure-port", 10257, "The port on which to serve HTTPS with authentication and authorization. If 0, don't serve HTTPS at all.")
        .string("cert-dir", "", "The directory where the TLS certs are located.")
        .string("tls-cert-file", "", "File containing the default x509 Certificate for HTTPS.")
        .string("tls-private-key-file", "", "File containing the default x509 private key matching --tls-cert-file.")
        .string("client-ca-file", "", "If set, any request presenting a client certificate signed by one of the authorities in the client-ca-file is authenticated with an identity corresponding to the CommonName of the client certificate.")
        .string("authentication-kubeconfig", "", "kubeconfig file pointing at the 'core' kubernetes server with enough rights to create tokenreviews.authentication.k8s.io.")
        .string("authorization-kubeconfig", "", "kubeconfig file pointing at the 'core' kubernetes server with enough rights to create subjectaccessreviews.authorization.k8s.io.")
        .strings("authorization-always-allow-paths", &["/healthz", "/readyz", "/livez"], "A list of HTTP paths to skip during authorization.")
        .bool("allocate-node-cidrs", false, "Should CIDRs for Pods be allocated and set on the nodes.")
        .strings("cluster-cidr", &[], "CIDR Range for Pods in cluster. Requires --allocate-node-cidrs to be true.")
        .strings("service-cluster-ip-range", &[], "CIDR Range for Services in cluster.")
        .int("node-cidr-mask-size", 0, "Mask size for node cidr in cluster. Default is 24 for IPv4 and 64 for IPv6.")
        .int("node-cidr-mask-size-ipv4", 0, "Mask size for IPv4 node cidr in dual-stack cluster. Default is 24.")
        .int("node-cidr-mask-size-ipv6", 0, "Mask size for IPv6 node cidr in dual-stack cluster. Default is 64.")
        .string("root-ca-file", "", "If set, this root certificate authority will be included in service account's token secret. This must be a valid PEM-encoded CA bundle.")
        .string("service-account-private-key-file", "", "Filename containing a PEM-encoded private RSA or ECDSA key used to sign service account tokens.")
        .bool("use-service-account-credentials", false, "If true, use individual service account credentials for each controller.")
        .int("concurrent-deployment-syncs", 5, "The number of deployment objects that are allowed to sync concurrently.")
        .int("concurrent-replicaset-syncs", 5, "The number of replica sets that are allowed to sync concurrently.")
        .int("concurrent-rc-syncs", 5, "The number of replication controllers that are allowed to sync concurrently.")
        .int("concurrent-statefulset-syncs", 5, "The number of statefulset objects that are allowed to sync concurrently.")
        .int("concurrent-daemonset-syncs", 2, "The number of daemonset objects that are allowed to sync concurrently.")
        .int("concurrent-endpoint-syncs", 5, "The number of endpoint syncing operations that will be done concurrently.")
        .int("concurrent-service-endpoint-syncs", 5, "The number of service endpoint syncing operations that will be done concurrently.")
        .int("concurrent-namespace-syncs", 10, "The number of namespace objects that are allowed to sync concurrently.")
        .int("concurrent-gc-syncs", 20, "The number of garbage collector workers that are allowed to sync concurrently.")
        .int("concurrent-serviceaccount-token-syncs", 5, "The number of service account token objects that are allowed to sync concurrently.")
        .int("concurrent-job-syncs", 5, "The number of job objects that are allowed to sync concurrently.")
        .int("concurrent-cron-job-syncs", 5, "The number of cron job objects that are allowed to sync concurrently.")
        .int("concurrent-ttl-after-finished-syncs", 5, "The number of ttl-after-finished-controller workers that are allowed to sync concurrently.")
        .int("mirroring-concurrent-service-endpoint-syncs", 5, "The number of service endpoint syncing operations that will be done concurrently by the endpointslice-mirroring-controller.")
        .int("mirroring-max-endpoints-per-subset", 1000, "The maximum number of endpoints that will be added to an EndpointSlice by the endpointslice-mirroring-controller.")
        .int("max-endpoints-per-slice", 100, "The maximum number of endpoints that will be added to an EndpointSlice.")
        .duration("endpoint-updates-batch-period", Duration::ZERO, "The length of endpoint updates batching period.")
        .duration("endpointslice-updates-batch-period", Duration::ZERO, "The length of endpoint slice updates batching period.")
        .duration("namespace-sync-period", defaults.namespace_sync_period, "The period for syncing namespace life-cycle updates.")
        .bool("enable-garbage-collector", true, "Enables the generic garbage collector.")
        .duration("node-monitor-period", defaults.node_monitor_period, "The period for syncing NodeStatus in cloud-node-lifecycle-controller.")
        .duration("node-monitor-grace-period", defaults.node_monitor_grace_period, "Amount of time which we allow running Node to be unresponsive before marking it unhealthy.")
        .duration("node-startup-grace-period", defaults.node_startup_grace_period, "Amount of time which we allow starting Node to be unresponsive before marking it unhealthy.")
        .float("node-eviction-rate", defaults.node_eviction_rate, "Number of nodes per second on which pods are deleted in case of node failure when a zone is healthy.")
        .float("secondary-node-eviction-rate", defaults.secondary_node_eviction_rate, "Number of nodes per second on which pods are deleted in case of node failure when a zone is unhealthy.")
        .int("large-cluster-size-threshold", 50, "Number of nodes from which node-lifecycle-controller treats the cluster as large for the eviction logic purposes.")
        .float("unhealthy-zone-threshold", defaults.unhealthy_zone_threshold, "Fraction of Nodes in a zone which needs to be not Ready for zone to be treated as unhealthy.")
        .int("terminated-pod-gc-threshold", defaults.terminated_pod_gc_threshold, "Number of terminated pods that can exist before the terminated pod garbage collector starts deleting terminated pods.");
    accept_others(&mut set);
    set
}

/// Upstream's flags whose subject is not here: accepted, so that existing manifests start.
fn accept_others(set: &mut FlagSet) {
    set.accepted(
        Kind::Bool,
        &[
            "contention-profiling",
            "profiling=true",
            "enable-leader-migration",
            "configure-cloud-routes=true",
            "disable-http2-serving",
            "permit-address-sharing",
            "permit-port-sharing",
            "authentication-skip-lookup",
            "authentication-tolerate-lookup-failure",
            "disable-attach-detach-reconcile-sync",
            "disable-force-detach-on-timeout",
            "enable-dynamic-provisioning=true",
            "enable-hostpath-provisioner",
            "unsupported-kube-api-over-localhost",
        ],
    );
    set.accepted(
        Kind::String,
        &[
            "leader-migration-config",
            "cidr-allocator-type=RangeAllocator",
            "cloud-config",
            "cloud-provider",
            "cluster-name=kubernetes",
            "external-cloud-volume-plugin",
            "kube-api-content-type=application/vnd.kubernetes.protobuf",
            "tls-min-version",
            "tls-sni-cert-key",
            "requestheader-client-ca-file",
            "cluster-signing-kube-apiserver-client-cert-file",
            "cluster-signing-kube-apiserver-client-key-file",
            "cluster-signing-kubelet-client-cert-file",
            "cluster-signing-kubelet-client-key-file",
            "cluster-signing-kubelet-serving-cert-file",
            "cluster-signing-kubelet-serving-key-file",
            "cluster-signing-legacy-unknown-cert-file",
            "cluster-signing-legacy-unknown-key-file",
            "flex-volume-plugin-dir=/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
            "pv-recycler-pod-template-filepath-hostpath",
            "pv-recycler-pod-template-filepath-nfs",
            "allow-metric-labels-manifest",
            "show-hidden-metrics-for-version",
        ],
    );
    set.accepted(
        Kind::Strings,
        &[
            "tls-cipher-suites",
            "tls-curve-preferences",
            "requestheader-allowed-names",
            "requestheader-extra-headers-prefix=x-remote-extra-",
            "requestheader-group-headers=x-remote-group",
            "requestheader-uid-headers",
            "requestheader-username-headers=x-remote-user",
            "disabled-metrics",
            "allow-metric-labels",
        ],
    );
    set.accepted(
        Kind::Duration,
        &[
            "controller-shutdown-timeout=10s",
            "controller-start-interval",
            "min-resync-period=12h0m0s",
            "route-reconciliation-period=10s",
            "authentication-token-webhook-cache-ttl=10s",
            "authorization-webhook-cache-authorized-ttl=10s",
            "authorization-webhook-cache-unauthorized-ttl=10s",
            "attach-detach-reconcile-sync-period=1m0s",
            "mirroring-endpointslice-updates-batch-period",
            "horizontal-pod-autoscaler-cpu-initialization-period=5m0s",
            "horizontal-pod-autoscaler-downscale-stabilization=5m0s",
            "horizontal-pod-autoscaler-initial-readiness-delay=30s",
            "horizontal-pod-autoscaler-sync-period=15s",
            "pvclaimbinder-sync-period=15s",
            "resource-quota-sync-period=5m0s",
        ],
    );
    set.accepted(
        Kind::Int,
        &[
            "concurrent-service-syncs=1",
            "http2-max-streams-per-connection",
            "concurrent-device-taint-eviction-syncs=8",
            "concurrent-resourceclaim-syncs=50",
            "concurrent-ephemeralvolume-syncs=5",
            "concurrent-horizontal-pod-autoscaler-syncs=5",
            "pv-recycler-increment-timeout-nfs=30",
            "pv-recycler-minimum-timeout-hostpath=60",
            "pv-recycler-minimum-timeout-nfs=300",
            "pv-recycler-timeout-increment-hostpath=30",
            "concurrent-resource-quota-syncs=5",
            "concurrent-validating-admission-policy-status-syncs=5",
        ],
    );
    set.accepted(Kind::Float, &["horizontal-pod-autoscaler-tolerance=0.1"]);
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Flags(#[from] component_base::flags::Error),
    #[error("cannot read {path}")]
    Io { path: String, source: std::io::Error },
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// From arguments, without the program's name.
    pub fn from_args<I, S>(args: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self::from_flags(&flags().parse(args)?)
    }

    pub fn from_flags(flags: &Parsed) -> Result<Self, Error> {
        let path = |name: &str| flags.nonempty(name).map(PathBuf::from);
        let count = |name: &str| -> Result<usize, Error> {
            usize::try_from(flags.int(name))
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| Error::Invalid(format!("{name} must be greater than 0, but got {}", flags.int(name))))
        };
        let mask = |name: &str| -> Result<u8, Error> {
            u8::try_from(flags.int(name)).map_err(|_| Error::Invalid(format!("invalid {name}: {}", flags.int(name))))
        };
        let root_ca = match path("root-ca-file") {
            None => None,
            Some(path) => Some(
                std::fs::read_to_string(&path)
                    .map_err(|source| Error::Io { path: path.display().to_string(), source })?,
            ),
        };
        let read = |name: &str| -> Result<Option<String>, Error> {
            path(name)
                .map(|path| {
                    std::fs::read_to_string(&path)
                        .map_err(|source| Error::Io { path: path.display().to_string(), source })
                })
                .transpose()
        };
        // A missing file must not keep the other controllers from running: kubeadm's argv names files that
        // exist only where the authority is local.
        let cluster_signing = match (read("cluster-signing-cert-file"), read("cluster-signing-key-file")) {
            (Ok(Some(cert_pem)), Ok(Some(key_pem))) => Some(component_base::pki::Pair { cert_pem, key_pem }),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "certificate requests will not be signed");
                None
            }
            _ => None,
        };
        let config = Self {
            kubeconfig: path("kubeconfig"),
            kube_api_qps: flags.float("kube-api-qps"),
            kube_api_burst: u32::try_from(flags.int("kube-api-burst")).unwrap_or(0),
            controllers: flags.strings("controllers"),
            leader_elect: flags.bool("leader-elect"),
            leader_elect_lease_duration: flags.duration("leader-elect-lease-duration"),
            leader_elect_renew_deadline: flags.duration("leader-elect-renew-deadline"),
            leader_elect_retry_period: flags.duration("leader-elect-retry-period"),
            leader_elect_resource_name: flags.string("leader-elect-resource-name"),
            leader_elect_resource_namespace: flags.string("leader-elect-resource-namespace"),
            serving: Some(Serving {
                bind_address: flags
                    .string("bind-address")
                    .parse()
                    .map_err(|_| Error::Invalid("--bind-address must be an IP address".into()))?,
                secure_port: u16::try_from(flags.int("secure-port")).map_err(|_| {
                    Error::Invalid(
                        "--secure-port must be between 0 and 65535, inclusive. 0 for turning off secure port".into(),
                    )
                })?,
                tls_cert_file: path("tls-cert-file"),
                tls_private_key_file: path("tls-private-key-file"),
                client_ca_file: path("client-ca-file"),
                authentication_kubeconfig: path("authentication-kubeconfig"),
                authorization_kubeconfig: path("authorization-kubeconfig"),
                always_allow_paths: flags.strings("authorization-always-allow-paths"),
                zpages: zpages::Settings::from_flags(flags, &BTreeMap::new()),
            }),
            allocate_node_cidrs: flags.bool("allocate-node-cidrs"),
            cluster_cidr: flags.strings("cluster-cidr"),
            service_cluster_ip_range: flags.strings("service-cluster-ip-range"),
            node_cidr_mask_size: mask("node-cidr-mask-size")?,
            node_cidr_mask_size_ipv4: mask("node-cidr-mask-size-ipv4")?,
            node_cidr_mask_size_ipv6: mask("node-cidr-mask-size-ipv6")?,
            root_ca,
            gates: flags
                .map("feature-gates")
                .into_iter()
                .filter(|(_, value)| component_base::featuregate::parse_bool(value) == Some(true))
                .map(|(name, _)| name)
                .collect(),
            service_account_private_key_file: path("service-account-private-key-file"),
            use_service_account_credentials: flags.bool("use-service-account-credentials"),
            cluster_signing,
            legacy_token_clean_up_period: flags.duration("legacy-service-account-token-clean-up-period"),
            cluster_signing_duration: flags.duration("cluster-signing-duration"),
            concurrent_deployment_syncs: count("concurrent-deployment-syncs")?,
            concurrent_replicaset_syncs: count("concurrent-replicaset-syncs")?,
            concurrent_rc_syncs: count("concurrent-rc-syncs")?,
            concurrent_statefulset_syncs: count("concurrent-statefulset-syncs")?,
            concurrent_daemonset_syncs: count("concurrent-daemonset-syncs")?,
            concurrent_endpoint_syncs: count("concurrent-endpoint-syncs")?,
            concurrent_service_endpoint_syncs: count("concurrent-service-endpoint-syncs")?,
            concurrent_namespace_syncs: count("concurrent-namespace-syncs")?,
            concurrent_gc_syncs: count("concurrent-gc-syncs")?,
            concurrent_serviceaccount_token_syncs: count("concurrent-serviceaccount-token-syncs")?,
            concurrent_job_syncs: count("concurrent-job-syncs")?,
            concurrent_cron_job_syncs: count("concurrent-cron-job-syncs")?,
            concurrent_ttl_after_finished_syncs: count("concurrent-ttl-after-finished-syncs")?,
            mirroring_concurrent_service_endpoint_syncs: count("mirroring-concurrent-service-endpoint-syncs")?,
            mirroring_max_endpoints_per_subset: count("mirroring-max-endpoints-per-subset")?,
            max_endpoints_per_slice: count("max-endpoints-per-slice")?,
            endpoint_updates_batch_period: flags.duration("endpointslice-updates-batch-period"),
            namespace_sync_period: flags.duration("namespace-sync-period"),
            enable_garbage_collector: flags.bool("enable-garbage-collector"),
            node_monitor_period: flags.duration("node-monitor-period"),
            node_monitor_grace_period: flags.duration("node-monitor-grace-period"),
            node_startup_grace_period: flags.duration("node-startup-grace-period"),
            node_eviction_rate: flags.float("node-eviction-rate"),
            secondary_node_eviction_rate: flags.float("secondary-node-eviction-rate"),
            large_cluster_size_threshold: usize::try_from(flags.int("large-cluster-size-threshold")).unwrap_or(0),
            unhealthy_zone_threshold: flags.float("unhealthy-zone-threshold"),
            terminated_pod_gc_threshold: flags.int("terminated-pod-gc-threshold"),
            logging: logging::Options::from_flags(flags),
        };
        config.validate()?;
        Ok(config)
    }

    /// Upstream's checks.
    pub fn validate(&self) -> Result<(), Error> {
        let known: BTreeSet<&str> = descriptors::ALL
            .iter()
            .flat_map(|descriptor| std::iter::once(descriptor.name).chain(descriptor.aliases.iter().copied()))
            .collect();
        for name in &self.controllers {
            let bare = name.strip_prefix('-').unwrap_or(name);
            if name != "*" && !known.contains(bare) {
                return Err(Error::Invalid(format!("{bare:?} is not in the list of known controllers")));
            }
        }
        if self.node_monitor_grace_period.is_zero() {
            return Err(Error::Invalid("node-monitor-grace-period should be greater than 0".into()));
        }
        if self.leader_elect {
            self.leader_election("").validate().map_err(Error::Invalid)?;
        }
        Ok(())
    }

    /// Whether a controller is to run: named, or on by default and not switched off.
    pub fn is_enabled(&self, descriptor: &descriptors::Descriptor) -> bool {
        let names = || std::iter::once(descriptor.name).chain(descriptor.aliases.iter().copied());
        let mut star = false;
        for entry in &self.controllers {
            if names().any(|name| entry == name) {
                return true;
            }
            if entry.strip_prefix('-').is_some_and(|off| names().any(|name| off == name)) {
                return false;
            }
            star |= entry == "*";
        }
        star && descriptor.on_by_default
    }

    pub fn leader_election(&self, identity: &str) -> client::leader_election::Config {
        client::leader_election::Config {
            lease_duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
            ..client::leader_election::Config::new(
                &self.leader_elect_resource_namespace,
                &self.leader_elect_resource_name,
                identity,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeadms_flags_are_understood() {
        let config = Config::from_args([
            "--allocate-node-cidrs=true",
            "--authentication-kubeconfig=/etc/kubernetes/controller-manager.conf",
            "--authorization-kubeconfig=/etc/kubernetes/controller-manager.conf",
            "--bind-address=127.0.0.1",
            "--cluster-cidr=10.244.0.0/16",
            "--cluster-name=kind",
            "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt",
            "--controllers=*,bootstrapsigner,tokencleaner,-nodeipam",
            "--enable-hostpath-provisioner=true",
            "--kubeconfig=/etc/kubernetes/controller-manager.conf",
            "--leader-elect=true",
            "--requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--use-service-account-credentials=true",
            "-v=2",
        ])
        .unwrap();
        assert!(config.allocate_node_cidrs);
        assert_eq!(config.cluster_cidr, ["10.244.0.0/16"]);
        assert_eq!(config.serving.as_ref().unwrap().bind_address.to_string(), "127.0.0.1");
        assert_eq!(config.logging.verbosity, 2);
        let enabled = |name: &str| {
            let descriptor = descriptors::ALL.iter().find(|descriptor| descriptor.name == name).unwrap();
            config.is_enabled(descriptor)
        };
        assert!(enabled("deployment-controller"));
        assert!(enabled("bootstrap-signer-controller"));
        assert!(!enabled("node-ipam-controller"));
        let told = config.serving.unwrap().zpages.flags.unwrap();
        for (name, value) in [
            ("controllers", "[*,bootstrapsigner,tokencleaner,-nodeipam]"),
            ("cluster-name", "kind"),
            ("min-resync-period", "12h0m0s"),
            ("horizontal-pod-autoscaler-tolerance", "0.1"),
            ("v", "2"),
        ] {
            assert_eq!(told[name], value, "{name}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (args, text) in [
            (vec!["--controllers=*,nonsense"], "\"nonsense\" is not in the list of known controllers"),
            (vec!["--leader-elect-renew-deadline=20s"], "leaseDuration must be greater than renewDeadline"),
            (vec!["--concurrent-gc-syncs=0"], "concurrent-gc-syncs must be greater than 0, but got 0"),
            (vec!["--controler=x"], "unknown flag: --controler; did you mean --controllers?"),
        ] {
            assert_eq!(Config::from_args(args).unwrap_err().to_string(), text);
        }
    }
}
