//! `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use component_base::{config_file, duration};
use serde::Deserialize;

use super::values::{
    detect_local_mode, masquerade_bit, mode, node_port_addresses, oom_score_adj, parse_cidrs, parse_ip, socket_address,
};
use super::{Config, Conntrack, Error, HEALTHZ_PORT, METRICS_PORT};

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

impl Config {
    /// From a `KubeProxyConfiguration`.
    ///
    /// # Errors
    /// When it cannot be read, or says what cannot be.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        config_file::read::<File>(path, API_VERSION, KIND)?.into_config()
    }

    /// From the text of a `KubeProxyConfiguration`.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        config_file::parse::<File>(text, API_VERSION, KIND)?.into_config()
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
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
            feature_gates: self.feature_gates,
            ..d
        };
        Ok(config)
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
