//! Upstream's flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use component_base::flags::{FlagSet, Kind, Parsed};
use component_base::{logging, zpages};

use super::values::{
    detect_local_mode, masquerade_bit, mode, node_port_addresses, oom_score_adj, parse_cidrs, parse_ip, socket_address,
};
use super::{Config, Conntrack, Error, HEALTHZ_PORT, METRICS_PORT, invalid};

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
        &[
            "ipvs-sync-period=30s",
            "ipvs-min-sync-period",
            "ipvs-tcp-timeout",
            "ipvs-tcpfin-timeout",
            "ipvs-udp-timeout",
        ],
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
        let gates = config.feature_gates.iter().map(|(name, on)| (name.clone(), on.to_string())).collect();
        config.zpages = zpages::Settings::from_flags(p, &gates);
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
            ..Self::default()
        })
    }
}
