//! What a kube-apiserver is started with: built from flags, or by `deploy` in code.

pub mod features;
pub mod flags;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Which store is underneath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageBackend {
    /// `--storage-backend=embedded --data-dir DIR`.
    Embedded {
        /// Held by one process at a time.
        data_dir: PathBuf,
    },
    /// `--storage-backend=etcd3`.
    Etcd {
        /// `--etcd-servers`.
        servers: Vec<String>,
        /// `--etcd-cafile`, `--etcd-certfile`, `--etcd-keyfile`.
        ca_file: Option<PathBuf>,
        cert_file: Option<PathBuf>,
        key_file: Option<PathBuf>,
    },
}

/// `--authorization-mode` or `--authorization-config`, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Box<crate::authorization::webhook::Options>),
}

/// Where the kubelets are and how to talk to them.
#[derive(Clone, Debug, Default)]
pub struct KubeletClient {
    /// `--kubelet-certificate-authority`; without one the kubelet's certificate is not checked.
    pub certificate_authority: Option<PathBuf>,
    /// `--kubelet-client-certificate`.
    pub client_certificate: Option<PathBuf>,
    /// `--kubelet-client-key`.
    pub client_key: Option<PathBuf>,
    /// `--kubelet-preferred-address-types`.
    pub preferred_address_types: Vec<String>,
    /// `--kubelet-timeout`.
    pub timeout: Duration,
}

/// The aggregation layer: how extension servers are reached, and what they are told about users.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// `--proxy-client-cert-file`: the certificate that vouches for the identity headers.
    pub client_certificate: Option<PathBuf>,
    /// `--proxy-client-key-file`.
    pub client_key: Option<PathBuf>,
    /// `--enable-aggregator-routing`: to endpoints instead of cluster IPs.
    pub aggregator_routing: bool,
    /// `--aggregator-reject-forwarding-redirect`.
    pub reject_redirects: bool,
}

impl Default for FrontProxy {
    fn default() -> Self {
        Self { client_certificate: None, client_key: None, aggregator_routing: false, reject_redirects: true }
    }
}

/// How front proxies tell who their users are (`--requestheader-*`). Extension servers learn it from the
/// ConfigMap `extension-apiserver-authentication`.
#[derive(Clone, Debug, Default)]
pub struct RequestHeader {
    /// `--requestheader-client-ca-file`; without one no front proxy is believed.
    pub client_ca_file: Option<PathBuf>,
    /// `--requestheader-allowed-names`: common names of front proxies; any when empty.
    pub allowed_names: Vec<String>,
    /// `--requestheader-username-headers`.
    pub username_headers: Vec<String>,
    /// `--requestheader-uid-headers`.
    pub uid_headers: Vec<String>,
    /// `--requestheader-group-headers`.
    pub group_headers: Vec<String>,
    /// `--requestheader-extra-headers-prefix`.
    pub extra_headers_prefixes: Vec<String>,
}

/// Everything a server needs to know. Upstream's defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--bind-address`.
    pub bind_address: IpAddr,
    /// `--secure-port`; zero takes a free one.
    pub secure_port: u16,
    /// More addresses to listen on, beside `bind_address` (not a flag of upstream's).
    pub extra_bind: Vec<std::net::SocketAddr>,
    /// `--advertise-address`; what the `kubernetes` Service points at.
    pub advertise_address: Option<IpAddr>,
    /// The flags as they were given, when the server was started with any.
    pub flags: Option<component_base::zpages::Flags>,
    /// `--peer-advertise-ip` and `--peer-advertise-port`, when both are given.
    pub peer_advertise: Option<(String, String)>,
    /// `--external-hostname`.
    pub external_hostname: Option<String>,
    /// `--tls-cert-file` and `--tls-private-key-file`.
    pub tls_files: Option<(PathBuf, PathBuf)>,
    /// `--cert-dir`: where a self-made serving certificate is kept when none is given.
    pub cert_dir: PathBuf,
    /// `--client-ca-file`.
    pub client_ca_file: Option<PathBuf>,
    /// `--token-auth-file`.
    pub token_auth_file: Option<PathBuf>,
    /// `--enable-bootstrap-token-auth`.
    pub bootstrap_token_auth: bool,
    /// `--audit-policy-file`.
    pub audit_policy_file: Option<PathBuf>,
    /// `--audit-log-*`.
    pub audit_log: Option<crate::audit::LogOptions>,
    /// `--audit-webhook-*`.
    pub audit_webhook: Option<crate::audit::WebhookOptions>,
    /// `--authentication-config`, or what `--oidc-*` say.
    pub authentication: crate::authentication::configuration::Settings,
    /// `--anonymous-auth`.
    pub anonymous_auth: bool,
    /// `--authorization-mode`, or what `--authorization-config` says.
    pub authorization_modes: Vec<AuthorizationMode>,
    /// `--storage-backend`.
    pub storage: StorageBackend,
    /// `--etcd-prefix`.
    pub etcd_prefix: String,
    /// `--etcd-compaction-interval`.
    pub compaction_interval: Duration,
    /// `--tls-sni-cert-key`: certificate, key, and names.
    pub sni_files: Vec<(PathBuf, PathBuf, Vec<String>)>,
    /// `--authentication-token-webhook-*`.
    pub token_webhook: Option<crate::authentication::webhook::Options>,
    /// `--authentication-config`, read again when it changes.
    pub authentication_config_file: Option<PathBuf>,
    /// `--authorization-config`, likewise.
    pub authorization_config_file: Option<PathBuf>,
    /// `--encryption-provider-config`, and whether it is read again when it changes.
    pub encryption: Option<(PathBuf, bool)>,
    /// `--event-ttl`.
    pub event_ttl: Duration,
    /// `--runtime-config`: group/version or `api/all` and the like, to on or off.
    pub runtime_config: Vec<(String, bool)>,
    /// `--feature-gates`.
    pub feature_gates: Vec<(String, bool)>,
    /// `--enable-admission-plugins`.
    pub enable_admission_plugins: Vec<String>,
    /// `--disable-admission-plugins`.
    pub disable_admission_plugins: Vec<String>,
    /// `--service-account-issuer`.
    pub service_account_issuers: Vec<String>,
    /// `--service-account-signing-key-file`.
    pub service_account_signing_key_file: Option<PathBuf>,
    /// `--service-account-key-file`.
    pub service_account_key_files: Vec<PathBuf>,
    /// `--service-account-jwks-uri`.
    pub service_account_jwks_uri: Option<String>,
    /// `--service-account-max-token-expiration`.
    pub service_account_max_token_expiration: Duration,
    /// `--service-account-extend-token-expiration`.
    pub service_account_extend_token_expiration: bool,
    /// `--api-audiences`; the issuers when empty.
    pub api_audiences: Vec<String>,
    /// `--service-cluster-ip-range`, one or two.
    pub service_cluster_ip_ranges: Vec<ipnet::IpNet>,
    /// `--service-node-port-range`, inclusive.
    pub service_node_port_range: (u16, u16),
    /// `--endpoint-reconciler-type` is not `none`.
    pub reconcile_endpoints: bool,
    /// `--kubelet-*`.
    pub kubelet: KubeletClient,
    /// `--requestheader-*`.
    pub request_header: RequestHeader,
    /// `--proxy-client-*` and the like.
    pub front_proxy: FrontProxy,
    /// `--allow-privileged`.
    pub allow_privileged: bool,
    /// `--request-timeout`.
    pub request_timeout: Duration,
    /// `--min-request-timeout`.
    pub min_request_timeout: Duration,
    /// `--max-requests-inflight` plus `--max-mutating-requests-inflight`; zero means no limit.
    pub max_requests_inflight: usize,
    pub max_mutating_requests_inflight: usize,
    /// `--enable-priority-and-fairness`.
    pub priority_and_fairness: bool,
    /// What admission plugins are configured with.
    pub admission: crate::admission::Settings,
    /// `--default-not-ready-toleration-seconds`.
    pub default_not_ready_toleration_seconds: i64,
    /// `--default-unreachable-toleration-seconds`.
    pub default_unreachable_toleration_seconds: i64,
    /// `--http2-max-streams-per-connection`.
    pub http2_max_streams: u32,
    /// `--enable-garbage-collector`.
    pub enable_garbage_collector: bool,
    /// `--shutdown-delay-duration`.
    pub shutdown_delay: Duration,
    /// `--shutdown-watch-termination-grace-period`; zero ends all watches at once.
    pub shutdown_watch_grace: Duration,
    /// `--shutdown-send-retry-after`.
    pub shutdown_send_retry_after: bool,
    /// `--goaway-chance`: of an HTTP/2 request, to be the last one on its connection.
    pub goaway_chance: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            secure_port: 6443,
            extra_bind: Vec::new(),
            advertise_address: None,
            peer_advertise: None,
            flags: None,
            external_hostname: None,
            tls_files: None,
            cert_dir: PathBuf::from("/var/run/kubernetes"),
            client_ca_file: None,
            token_auth_file: None,
            bootstrap_token_auth: false,
            audit_policy_file: None,
            audit_log: None,
            audit_webhook: None,
            authentication: crate::authentication::configuration::Settings::default(),
            anonymous_auth: true,
            authorization_modes: vec![AuthorizationMode::AlwaysAllow],
            storage: StorageBackend::Etcd { servers: Vec::new(), ca_file: None, cert_file: None, key_file: None },
            etcd_prefix: "/registry".to_string(),
            compaction_interval: Duration::from_secs(300),
            sni_files: Vec::new(),
            token_webhook: None,
            authentication_config_file: None,
            authorization_config_file: None,
            encryption: None,
            event_ttl: Duration::from_secs(3600),
            runtime_config: Vec::new(),
            feature_gates: Vec::new(),
            enable_admission_plugins: Vec::new(),
            disable_admission_plugins: Vec::new(),
            service_account_issuers: Vec::new(),
            service_account_signing_key_file: None,
            service_account_key_files: Vec::new(),
            service_account_jwks_uri: None,
            service_account_max_token_expiration: Duration::ZERO,
            service_account_extend_token_expiration: true,
            api_audiences: Vec::new(),
            service_cluster_ip_ranges: vec!["10.0.0.0/24".parse().expect("a valid range")],
            service_node_port_range: (30000, 32767),
            reconcile_endpoints: true,
            kubelet: KubeletClient {
                preferred_address_types: ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"]
                    .map(String::from)
                    .to_vec(),
                timeout: Duration::from_secs(5),
                ..KubeletClient::default()
            },
            request_header: RequestHeader::default(),
            front_proxy: FrontProxy::default(),
            allow_privileged: false,
            request_timeout: Duration::from_secs(60),
            min_request_timeout: Duration::from_secs(1800),
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            priority_and_fairness: true,
            admission: crate::admission::Settings::default(),
            default_not_ready_toleration_seconds: 300,
            default_unreachable_toleration_seconds: 300,
            http2_max_streams: 250,
            enable_garbage_collector: true,
            shutdown_delay: Duration::ZERO,
            shutdown_watch_grace: Duration::ZERO,
            shutdown_send_retry_after: false,
            goaway_chance: 0.0,
        }
    }
}

impl Config {
    /// The address that others reach the server at: a loopback address is never advertised.
    pub fn advertised(&self) -> IpAddr {
        let bound = Some(self.bind_address).filter(|bound| !bound.is_unspecified() && !bound.is_loopback());
        self.advertise_address.or(bound).unwrap_or_else(crate::server::start::outgoing_address)
    }
}

/// What a server cannot be started with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Flags(#[from] component_base::flags::Error),
    #[error("invalid argument \"{value}\" for \"--{name}\" flag: {reason}")]
    Value { name: &'static str, value: String, reason: String },
    #[error("{0}")]
    Combination(String),
}
