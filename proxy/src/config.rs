//! kube-proxy's configuration: `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1) and
//! upstream's flags.
//!
//! As upstream, a configuration file replaces all flags but `--hostname-override` and logging.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use component_base::duration;
use component_base::flags::{FlagSet, Kind, Parsed};
use component_base::logging;
use ipnet::IpNet;
use serde::Deserialize;

/// The port of `/healthz`.
pub const HEALTHZ_PORT: u16 = 10256;
/// The port of `/metrics`.
pub const METRICS_PORT: u16 = 10249;

/// How pod traffic is told apart (`detectLocalMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectLocalMode {
    /// By the range of all pods.
    #[default]
    ClusterCidr,
    /// By this node's pod range.
    NodeCidr,
    /// By the bridge.
    BridgeInterface,
    /// By the interface's name.
    InterfaceNamePrefix,
}

/// Everything kube-proxy can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Path of a kubeconfig; in-cluster without.
    pub kubeconfig: Option<PathBuf>,
    /// Replaces the kubeconfig's server.
    pub master: Option<String>,
    /// This node's name, when it is not the host's.
    pub hostname_override: Option<String>,
    /// The node's primary address, when the API does not tell.
    pub bind_address: IpAddr,
    /// `/healthz` and `/livez`; `None` switches them off.
    pub healthz_bind_address: Option<SocketAddr>,
    /// `/metrics`; `None` switches it off.
    pub metrics_bind_address: Option<SocketAddr>,
    /// Failing to bind ends the process.
    pub bind_address_hard_fail: bool,
    /// Masquerade everything that goes to a service address.
    pub masquerade_all: bool,
    /// The bit of the packet mark that means "masquerade".
    pub masquerade_bit: u8,
    /// Node ports answer on 127.0.0.1.
    pub localhost_node_ports: bool,
    /// Retry after a failed sync, and look for flushed rules, this often.
    pub sync_period: Duration,
    /// At least this long between two syncs.
    pub min_sync_period: Duration,
    /// How pod traffic is told apart.
    pub detect_local_mode: DetectLocalMode,
    /// For [`DetectLocalMode::BridgeInterface`].
    pub bridge_interface: String,
    /// For [`DetectLocalMode::InterfaceNamePrefix`].
    pub interface_name_prefix: String,
    /// For [`DetectLocalMode::ClusterCidr`].
    pub cluster_cidrs: Vec<IpNet>,
    /// Node ports answer on these; empty means all.
    pub node_port_addresses: Vec<IpNet>,
    /// Node ports answer on the node's primary addresses only.
    pub node_port_addresses_primary: bool,
    /// The process's OOM score adjustment.
    pub oom_score_adj: Option<i32>,
    /// Connection tracking.
    pub conntrack: Conntrack,
    /// Informers resync this often.
    pub config_sync_period: Duration,
    /// Prepare what needs root, then exit.
    pub init_only: bool,
    /// Remove all rules, then exit.
    pub cleanup: bool,
    /// Requests a second and burst to the API.
    pub client_rate: (f64, u32),
    /// Logging.
    pub logging: logging::Options,
}

/// `conntrack` of the configuration; zero leaves a setting as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// Connections per CPU core.
    pub max_per_core: i64,
    /// At least this many connections.
    pub min: i64,
    /// Idle time of established TCP connections.
    pub tcp_established_timeout: Duration,
    /// Time in CLOSE_WAIT.
    pub tcp_close_wait_timeout: Duration,
    /// Take out-of-window packets.
    pub tcp_be_liberal: bool,
    /// Idle time of unreplied UDP flows.
    pub udp_timeout: Duration,
    /// Idle time of replied UDP flows.
    pub udp_stream_timeout: Duration,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_per_core: 32 * 1024,
            min: 128 * 1024,
            tcp_established_timeout: Duration::from_secs(24 * 3600),
            tcp_close_wait_timeout: Duration::from_secs(3600),
            tcp_be_liberal: false,
            udp_timeout: Duration::ZERO,
            udp_stream_timeout: Duration::ZERO,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            master: None,
            hostname_override: None,
            bind_address: IpAddr::from([0, 0, 0, 0]),
            healthz_bind_address: Some(SocketAddr::from(([0, 0, 0, 0], HEALTHZ_PORT))),
            metrics_bind_address: Some(SocketAddr::from(([127, 0, 0, 1], METRICS_PORT))),
            bind_address_hard_fail: false,
            masquerade_all: false,
            masquerade_bit: 14,
            localhost_node_ports: true,
            sync_period: Duration::from_secs(30),
            min_sync_period: Duration::from_secs(1),
            detect_local_mode: DetectLocalMode::ClusterCidr,
            bridge_interface: String::new(),
            interface_name_prefix: String::new(),
            cluster_cidrs: Vec::new(),
            node_port_addresses: Vec::new(),
            node_port_addresses_primary: false,
            oom_score_adj: Some(-999),
            conntrack: Conntrack::default(),
            config_sync_period: Duration::from_secs(15 * 60),
            init_only: false,
            cleanup: false,
            client_rate: (5.0, 10),
            logging: logging::Options::default(),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag is unknown or cannot be read.
    #[error(transparent)]
    Flags(#[from] component_base::flags::Error),
    /// The file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a KubeProxyConfiguration.
    #[error("failed to decode {path}: {message}")]
    Decode {
        /// The file.
        path: String,
        /// Why.
        message: String,
    },
    /// A value is out of its range.
    #[error("{field}: Invalid value: {value:?}: {message}")]
    Invalid {
        /// The field, as in the file.
        field: &'static str,
        /// The value.
        value: String,
        /// What is wrong.
        message: String,
    },
}

fn invalid(field: &'static str, value: impl ToString, message: impl ToString) -> Error {
    Error::Invalid { field, value: value.to_string(), message: message.to_string() }
}

/// The flags of upstream's kube-proxy.
pub fn flags() -> FlagSet {
    let d = Config::default();
    let mut f = FlagSet::new(
        "kube-proxy",
        "The Kubernetes network proxy runs on each node. It makes the addresses of Services work by translating connections to them into connections to their endpoints.",
    );
    f.string("config", "", "The path to the configuration file.");
    f.string("kubeconfig", "", "Path to kubeconfig file with authorization information (the master location can be overridden by the master flag).");
    f.string("master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig)");
    f.string("hostname-override", "", "The name of the Node that kube-proxy is running on; its hostname by default.");
    f.string("bind-address", "0.0.0.0", "Overrides kube-proxy's idea of what its node's primary IP is.");
    f.string(
        "healthz-bind-address",
        "0.0.0.0:10256",
        "The IP address and port for the health check server to serve on.",
    );
    f.string(
        "metrics-bind-address",
        "127.0.0.1:10249",
        "The IP address and port for the metrics server to serve on. Set empty to disable.",
    );
    f.int("healthz-port", i64::from(HEALTHZ_PORT), "The port to bind the health check server. Use 0 to disable.");
    f.int("metrics-port", i64::from(METRICS_PORT), "The port to bind the metrics server. Use 0 to disable.");
    f.bool(
        "bind-address-hard-fail",
        false,
        "If true kube-proxy will treat failure to bind to a port as fatal and exit",
    );
    f.bool("cleanup", false, "If true cleanup iptables rules and exit.");
    f.bool(
        "init-only",
        false,
        "If true, perform any initialization steps that must be done with full root privileges, and then exit.",
    );
    f.string("proxy-mode", "", "Which proxy mode to use: 'iptables' (default).");
    f.int(
        "iptables-masquerade-bit",
        i64::from(d.masquerade_bit),
        "The bit of the fwmark space to mark packets requiring SNAT with. Must be within the range [0, 31].",
    );
    f.bool("iptables-localhost-nodeports", true, "If false, NodePort services cannot be accessed via localhost.");
    f.duration(
        "iptables-sync-period",
        d.sync_period,
        "How frequently various re-synchronizing and cleanup operations are performed.",
    );
    f.duration("iptables-min-sync-period", d.min_sync_period, "The minimum period between iptables rule resyncs.");
    f.bool("masquerade-all", false, "SNAT all traffic sent via Service cluster IPs.");
    f.string(
        "detect-local-mode",
        "",
        "Mode to use to detect local traffic: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.",
    );
    f.string("pod-bridge-interface", "", "A bridge interface name, for --detect-local-mode=BridgeInterface.");
    f.string("pod-interface-name-prefix", "", "An interface name prefix, for --detect-local-mode=InterfaceNamePrefix.");
    f.string(
        "cluster-cidr",
        "",
        "The CIDR range of the pods in the cluster (for dual-stack clusters a comma-separated pair).",
    );
    f.strings("nodeport-addresses", &[], "CIDR ranges that contain valid node IPs, or the single string 'primary'.");
    f.int(
        "oom-score-adj",
        -999,
        "The oom-score-adj value for the kube-proxy process. Values must be within the range [-1000, 1000].",
    );
    f.int("conntrack-max-per-core", d.conntrack.max_per_core, "Maximum number of NAT connections to track per CPU core (0 to leave the limit as-is and ignore conntrack-min).");
    f.int(
        "conntrack-min",
        d.conntrack.min,
        "Minimum number of conntrack entries to allocate, regardless of conntrack-max-per-core.",
    );
    f.duration(
        "conntrack-tcp-timeout-established",
        d.conntrack.tcp_established_timeout,
        "Idle timeout for established TCP connections (0 to leave as-is)",
    );
    f.duration(
        "conntrack-tcp-timeout-close-wait",
        d.conntrack.tcp_close_wait_timeout,
        "NAT timeout for TCP connections in the CLOSE_WAIT state",
    );
    f.bool(
        "conntrack-tcp-be-liberal",
        false,
        "Enable liberal mode for tracking TCP packets by setting nf_conntrack_tcp_be_liberal to 1",
    );
    f.duration(
        "conntrack-udp-timeout",
        Duration::ZERO,
        "Idle timeout for UNREPLIED UDP connections (0 to leave as-is)",
    );
    f.duration(
        "conntrack-udp-timeout-stream",
        Duration::ZERO,
        "Idle timeout for ASSURED UDP connections (0 to leave as-is)",
    );
    f.duration(
        "config-sync-period",
        d.config_sync_period,
        "How often configuration from the apiserver is refreshed. Must be greater than 0.",
    );
    f.float("kube-api-qps", 5.0, "QPS to use while talking with kubernetes apiserver");
    f.int("kube-api-burst", 10, "Burst to use while talking with kubernetes apiserver");
    f.string("kube-api-content-type", "", "Content type of requests sent to apiserver.");
    f.accepted(Kind::Bool, &["profiling", "ipvs-strict-arp"]);
    f.accepted(
        Kind::String,
        &["write-config-to", "show-hidden-metrics-for-version", "ipvs-scheduler", "boot-id-file", "machine-id-file"],
    );
    f.accepted(Kind::Strings, &["ipvs-exclude-cidrs"]);
    f.accepted(
        Kind::Duration,
        &["ipvs-sync-period", "ipvs-min-sync-period", "ipvs-tcp-timeout", "ipvs-tcpfin-timeout", "ipvs-udp-timeout"],
    );
    f.common();
    f
}

impl Config {
    /// From arguments (without the program's name).
    pub fn from_args<I, S>(args: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self::from_flags(&flags().parse(args)?)
    }

    /// From parsed flags, and the file they name.
    pub fn from_flags(p: &Parsed) -> Result<Self, Error> {
        let mut config = match p.nonempty("config") {
            Some(path) => Self::from_file(Path::new(&path))?,
            None => Self::from_flags_alone(p)?,
        };
        config.cleanup = p.bool("cleanup");
        config.init_only = p.bool("init-only");
        config.logging = logging::Options::from_flags(p);
        if let Some(name) = p.nonempty("hostname-override") {
            let name = name.trim().to_lowercase();
            if name.is_empty() {
                return Err(invalid("hostname-override", "", "empty hostname-override is invalid"));
            }
            config.hostname_override = Some(name);
        }
        config.validate()?;
        Ok(config)
    }

    fn from_flags_alone(p: &Parsed) -> Result<Self, Error> {
        let address = |name: &'static str, port_name: &str, default: u16| -> Result<Option<SocketAddr>, Error> {
            let port = p.int(port_name);
            if port == 0 {
                return Ok(None);
            }
            let port = u16::try_from(port).map_err(|_| invalid(name, port, "must be a port"))?;
            let text = p.string(name);
            let address = socket_address(name, &text, default)?;
            // The deprecated port flag counts only where the address names no port of its own.
            Ok(address.map(|mut a| {
                if p.changed(port_name) && !p.changed(name) {
                    a.set_port(port);
                }
                a
            }))
        };
        let (node_port_addresses, primary) = node_port_addresses(&p.strings("nodeport-addresses"))?;
        mode(&p.string("proxy-mode"))?;
        Ok(Self {
            kubeconfig: p.nonempty("kubeconfig").map(PathBuf::from),
            master: p.nonempty("master"),
            hostname_override: None,
            bind_address: parse_ip("bindAddress", &p.string("bind-address"))?,
            healthz_bind_address: address("healthz-bind-address", "healthz-port", HEALTHZ_PORT)?,
            metrics_bind_address: address("metrics-bind-address", "metrics-port", METRICS_PORT)?,
            bind_address_hard_fail: p.bool("bind-address-hard-fail"),
            masquerade_all: p.bool("masquerade-all"),
            masquerade_bit: masquerade_bit(p.int("iptables-masquerade-bit"))?,
            localhost_node_ports: p.bool("iptables-localhost-nodeports"),
            sync_period: p.duration("iptables-sync-period"),
            min_sync_period: p.duration("iptables-min-sync-period"),
            detect_local_mode: detect_local_mode(&p.string("detect-local-mode"))?,
            bridge_interface: p.string("pod-bridge-interface"),
            interface_name_prefix: p.string("pod-interface-name-prefix"),
            cluster_cidrs: parse_cidrs("clusterCIDR", &p.string("cluster-cidr"))?,
            node_port_addresses,
            node_port_addresses_primary: primary,
            oom_score_adj: Some(oom_score_adj(p.int("oom-score-adj"))?),
            conntrack: Conntrack {
                max_per_core: p.int("conntrack-max-per-core"),
                min: p.int("conntrack-min"),
                tcp_established_timeout: p.duration("conntrack-tcp-timeout-established"),
                tcp_close_wait_timeout: p.duration("conntrack-tcp-timeout-close-wait"),
                tcp_be_liberal: p.bool("conntrack-tcp-be-liberal"),
                udp_timeout: p.duration("conntrack-udp-timeout"),
                udp_stream_timeout: p.duration("conntrack-udp-timeout-stream"),
            },
            config_sync_period: p.duration("config-sync-period"),
            init_only: false,
            cleanup: false,
            client_rate: (p.float("kube-api-qps"), u32::try_from(p.int("kube-api-burst")).unwrap_or(10)),
            logging: logging::Options::default(),
        })
    }

    /// From a `KubeProxyConfiguration`.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: shown.clone(), source })?;
        Self::from_yaml(&text).map_err(|error| match error {
            Error::Decode { message, .. } => Error::Decode { path: shown, message },
            other => other,
        })
    }

    /// From the text of a `KubeProxyConfiguration`.
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        let decode = |message: String| Error::Decode { path: String::new(), message };
        let value = apimachinery::yaml::parse(text).map_err(|e| decode(e.to_string()))?;
        let file: File = serde_json::from_value(value).map_err(|e| decode(e.to_string()))?;
        if file.kind != "KubeProxyConfiguration" || file.api_version != "kubeproxy.config.k8s.io/v1alpha1" {
            return Err(decode(format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version)));
        }
        file.into_config()
    }

    fn validate(&self) -> Result<(), Error> {
        if self.sync_period.is_zero() {
            return Err(invalid("iptables.syncPeriod", "0s", "must be greater than 0"));
        }
        if self.min_sync_period > self.sync_period {
            return Err(invalid(
                "iptables.syncPeriod",
                duration::format(self.sync_period),
                "must be greater than or equal to KubeProxyConfiguration.ProxySyncPeriod",
            ));
        }
        if self.config_sync_period.is_zero() {
            return Err(invalid("configSyncPeriod", "0s", "must be greater than 0"));
        }
        match self.detect_local_mode {
            DetectLocalMode::BridgeInterface if self.bridge_interface.is_empty() => {
                Err(invalid("detectLocal.bridgeInterface", "", "may not be empty"))
            }
            DetectLocalMode::InterfaceNamePrefix if self.interface_name_prefix.is_empty() => {
                Err(invalid("detectLocal.interfaceNamePrefix", "", "may not be empty"))
            }
            _ => Ok(()),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    api_version: String,
    kind: String,
    bind_address: String,
    healthz_bind_address: String,
    metrics_bind_address: String,
    bind_address_hard_fail: bool,
    client_connection: FileClient,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: String,
    config_sync_period: FileDuration,
    conntrack: FileConntrack,
    detect_local_mode: String,
    detect_local: FileDetectLocal,
    #[allow(dead_code)] // read so that a wrong type is an error; no gate changes this component
    feature_gates: BTreeMap<String, bool>,
    hostname_override: String,
    iptables: FileIptables,
    mode: String,
    node_port_addresses: Option<Vec<String>>,
    oom_score_adj: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct FileClient {
    kubeconfig: String,
    qps: f64,
    burst: u32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct FileConntrack {
    max_per_core: Option<i64>,
    min: Option<i64>,
    tcp_established_timeout: Option<FileDuration>,
    tcp_close_wait_timeout: Option<FileDuration>,
    tcp_be_liberal: bool,
    udp_timeout: FileDuration,
    udp_stream_timeout: FileDuration,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct FileDetectLocal {
    bridge_interface: String,
    interface_name_prefix: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct FileIptables {
    masquerade_bit: Option<i64>,
    masquerade_all: bool,
    localhost_node_ports: Option<bool>,
    sync_period: FileDuration,
    min_sync_period: FileDuration,
}

/// `metav1.Duration`.
#[derive(Clone, Copy, Default, Deserialize)]
struct FileDuration(#[serde(with = "duration::serde_text")] Duration);

impl FileDuration {
    fn or(self, default: Duration) -> Duration {
        if self.0.is_zero() { default } else { self.0 }
    }
}

impl File {
    fn into_config(self) -> Result<Config, Error> {
        let d = Config::default();
        let bind_address =
            if self.bind_address.is_empty() { d.bind_address } else { parse_ip("bindAddress", &self.bind_address)? };
        // A cluster that binds to IPv6 wants its servers there too.
        let (healthz, metrics) = if bind_address.is_ipv6() { ("[::]", "[::1]") } else { ("0.0.0.0", "127.0.0.1") };
        let address = |name, text: String, host: &str, port: u16| {
            let text = if text.is_empty() { format!("{host}:{port}") } else { text };
            socket_address(name, &text, port)
        };
        let (node_port_addresses, primary) = node_port_addresses(&self.node_port_addresses.unwrap_or_default())?;
        mode(&self.mode)?;
        let c = self.conntrack;
        let config = Config {
            kubeconfig: non_empty(self.client_connection.kubeconfig).map(PathBuf::from),
            master: None,
            hostname_override: non_empty(self.hostname_override.trim().to_lowercase()),
            bind_address,
            healthz_bind_address: address("healthzBindAddress", self.healthz_bind_address, healthz, HEALTHZ_PORT)?,
            metrics_bind_address: address("metricsBindAddress", self.metrics_bind_address, metrics, METRICS_PORT)?,
            bind_address_hard_fail: self.bind_address_hard_fail,
            masquerade_all: self.iptables.masquerade_all,
            masquerade_bit: masquerade_bit(self.iptables.masquerade_bit.unwrap_or(14))?,
            localhost_node_ports: self.iptables.localhost_node_ports.unwrap_or(true),
            sync_period: self.iptables.sync_period.or(d.sync_period),
            min_sync_period: self.iptables.min_sync_period.or(d.min_sync_period),
            detect_local_mode: detect_local_mode(&self.detect_local_mode)?,
            bridge_interface: self.detect_local.bridge_interface,
            interface_name_prefix: self.detect_local.interface_name_prefix,
            cluster_cidrs: parse_cidrs("clusterCIDR", &self.cluster_cidr)?,
            node_port_addresses,
            node_port_addresses_primary: primary,
            oom_score_adj: Some(oom_score_adj(self.oom_score_adj.unwrap_or(-999))?),
            conntrack: Conntrack {
                max_per_core: c.max_per_core.unwrap_or(d.conntrack.max_per_core),
                min: c.min.unwrap_or(d.conntrack.min),
                tcp_established_timeout: c.tcp_established_timeout.map_or(d.conntrack.tcp_established_timeout, |t| t.0),
                tcp_close_wait_timeout: c.tcp_close_wait_timeout.map_or(d.conntrack.tcp_close_wait_timeout, |t| t.0),
                tcp_be_liberal: c.tcp_be_liberal,
                udp_timeout: c.udp_timeout.0,
                udp_stream_timeout: c.udp_stream_timeout.0,
            },
            config_sync_period: self.config_sync_period.or(d.config_sync_period),
            init_only: false,
            cleanup: false,
            client_rate: (
                if self.client_connection.qps == 0.0 { 5.0 } else { self.client_connection.qps },
                if self.client_connection.burst == 0 { 10 } else { self.client_connection.burst },
            ),
            logging: logging::Options::default(),
        };
        Ok(config)
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn mode(text: &str) -> Result<(), Error> {
    match text {
        "" | "iptables" => Ok(()),
        other => Err(invalid(
            "mode",
            other,
            "must be iptables or blank (blank means the best-available proxy [currently iptables])",
        )),
    }
}

fn detect_local_mode(text: &str) -> Result<DetectLocalMode, Error> {
    Ok(match text {
        "" | "ClusterCIDR" => DetectLocalMode::ClusterCidr,
        "NodeCIDR" => DetectLocalMode::NodeCidr,
        "BridgeInterface" => DetectLocalMode::BridgeInterface,
        "InterfaceNamePrefix" => DetectLocalMode::InterfaceNamePrefix,
        other => {
            return Err(invalid(
                "detectLocalMode",
                other,
                "must be ClusterCIDR,NodeCIDR,BridgeInterface,InterfaceNamePrefix or blank",
            ));
        }
    })
}

fn masquerade_bit(bit: i64) -> Result<u8, Error> {
    u8::try_from(bit)
        .ok()
        .filter(|bit| *bit < 32)
        .ok_or_else(|| invalid("iptables.masqueradeBit", bit, "must be within the range [0, 31]"))
}

fn oom_score_adj(value: i64) -> Result<i32, Error> {
    i32::try_from(value)
        .ok()
        .filter(|v| (-1000..=1000).contains(v))
        .ok_or_else(|| invalid("oomScoreAdj", value, "must be within the range [-1000, 1000]"))
}

fn parse_ip(field: &'static str, text: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| invalid(field, text, "not a valid textual representation of an IP address"))
}

fn parse_cidrs(field: &'static str, text: &str) -> Result<Vec<IpNet>, Error> {
    text.split(',')
        .map(str::trim)
        .filter(|cidr| !cidr.is_empty())
        .map(|cidr| {
            cidr.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| {
                invalid(field, cidr, "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)")
            })
        })
        .collect()
}

fn node_port_addresses(list: &[String]) -> Result<(Vec<IpNet>, bool), Error> {
    if matches!(list, [only] if only == "primary") {
        return Ok((Vec::new(), true));
    }
    Ok((parse_cidrs("nodePortAddresses", &list.join(","))?, false))
}

/// `IP:port`, or an IP alone with the default port; empty switches the server off.
fn socket_address(field: &'static str, text: &str, port: u16) -> Result<Option<SocketAddr>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Some(address));
    }
    match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => Ok(Some(SocketAddr::new(ip, port))),
        Err(_) => Err(invalid(field, text, "must be IP:port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_kubeadm_files_are_read() {
        let config = Config::from_yaml(
            r#"
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: 0
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: 0s
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: "Kind-Worker"
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 1s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  verbosity: 0
metricsBindAddress: "0.0.0.0"
mode: iptables
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
"#,
        )
        .expect("reads");
        assert_eq!(config.conntrack.max_per_core, 0);
        assert_eq!(config.conntrack.min, 128 * 1024);
        assert_eq!(config.conntrack.tcp_close_wait_timeout, Duration::ZERO);
        assert_eq!(config.conntrack.tcp_established_timeout, Duration::from_secs(86_400));
        assert_eq!(config.cluster_cidrs.len(), 2);
        assert_eq!(config.hostname_override.as_deref(), Some("kind-worker"));
        assert_eq!(config.sync_period, Duration::from_secs(30));
        assert_eq!(config.metrics_bind_address.unwrap().to_string(), "0.0.0.0:10249");
        assert_eq!(config.healthz_bind_address.unwrap().to_string(), "0.0.0.0:10256");
        assert_eq!(config.client_rate, (5.0, 10));
    }

    #[test]
    fn flags_stand_in_for_a_file() {
        let config = Config::from_args([
            "--kubeconfig=/k",
            "--hostname-override=N1",
            "--cluster-cidr=10.244.0.0/16",
            "--nodeport-addresses=primary",
            "--iptables-min-sync-period=500ms",
            "--metrics-bind-address=",
            "--healthz-port=0",
            "--masquerade-all",
        ])
        .expect("parses");
        assert_eq!(config.hostname_override.as_deref(), Some("n1"));
        assert_eq!(config.min_sync_period, Duration::from_millis(500));
        assert!(config.metrics_bind_address.is_none() && config.healthz_bind_address.is_none());
        assert!(config.node_port_addresses_primary && config.masquerade_all);
    }

    #[test]
    fn nonsense_is_refused() {
        for args in [
            vec!["--iptables-masquerade-bit=32"],
            vec!["--cluster-cidr=10.0.0"],
            vec!["--detect-local-mode=x"],
            vec!["--iptables-sync-period=1s", "--iptables-min-sync-period=2s"],
            vec!["--oom-score-adj=2000"],
            vec!["--proxy-mode=userspace"],
            vec!["--no-such-flag"],
            vec!["--detect-local-mode=BridgeInterface"],
        ] {
            assert!(Config::from_args(args.clone()).is_err(), "{args:?}");
        }
        assert!(Config::from_yaml("apiVersion: v1\nkind: Pod\n").is_err());
    }
}
