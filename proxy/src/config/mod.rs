//! kube-proxy's configuration: `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1) and
//! upstream's flags.
//!
//! As upstream, a configuration file replaces all flags but `--hostname-override` and logging.

mod file;
mod flags;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use component_base::{duration, logging, zpages};
use ipnet::IpNet;

pub use flags::flags;

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
    /// `featureGates` of the file.
    pub feature_gates: BTreeMap<String, bool>,
    /// Which pages tell of the component itself.
    pub zpages: zpages::Settings,
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
            feature_gates: BTreeMap::new(),
            zpages: zpages::Settings::default(),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag is unknown or cannot be read.
    #[error(transparent)]
    Flags(#[from] component_base::flags::Error),
    /// The file is not a KubeProxyConfiguration.
    #[error(transparent)]
    File(#[from] component_base::config_file::Error),
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

impl Config {
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
