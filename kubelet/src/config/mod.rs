//! The kubelet's configuration: upstream's flags over upstream's `KubeletConfiguration` file over
//! upstream's defaults.

mod file;
mod flags;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

pub use file::File;

/// A configuration that cannot be used; the text says where and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Flags(#[from] component_base::flags::Error),
    #[error("failed to load kubelet config file, path: {}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("invalid value {value:?} for {name}: {reason}")]
    Value { name: &'static str, value: String, reason: String },
}

/// Everything the kubelet is told. `Default` is upstream's defaults with no API server.
#[derive(Clone, Debug)]
pub struct Config {
    /// No API without one: static pods only.
    pub kubeconfig: Option<PathBuf>,
    /// With which the first certificate, and `kubeconfig`, are made (`--bootstrap-kubeconfig`).
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// What a config file or the defaults say, flags applied.
    pub file: File,
    pub hostname_override: String,
    pub node_ips: Vec<String>,
    pub root_dir: PathBuf,
    /// Where a self-signed serving certificate is kept when none is given.
    pub cert_dir: PathBuf,
    pub node_labels: BTreeMap<String, String>,
    pub seccomp_default: bool,
    pub provider_id: String,
    pub container_logs_dir: PathBuf,
    pub logging: component_base::logging::Options,
    /// Which pages tell of the component itself.
    pub zpages: component_base::zpages::Settings,
    /// `--version` was given: print and leave.
    pub version: bool,
}

impl Default for Config {
    fn default() -> Self {
        let root_dir = PathBuf::from("/var/lib/kubelet");
        Self {
            kubeconfig: None,
            bootstrap_kubeconfig: None,
            file: File::default(),
            hostname_override: String::new(),
            node_ips: Vec::new(),
            cert_dir: root_dir.join("pki"),
            root_dir,
            node_labels: BTreeMap::new(),
            seccomp_default: false,
            provider_id: String::new(),
            container_logs_dir: "/var/log/containers".into(),
            logging: component_base::logging::Options::default(),
            zpages: component_base::zpages::Settings::default(),
            version: false,
        }
    }
}

impl Config {
    /// Reads flags (without the program's name) and the file they may name.
    pub fn from_args<I, S>(args: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        flags::read(&flags::set().parse(args)?)
    }

    /// The text of `--help`.
    pub fn help() -> String {
        flags::set().help()
    }

    /// The name of the Node object.
    pub fn node_name(&self) -> String {
        let name = match self.hostname_override.is_empty() {
            false => self.hostname_override.clone(),
            true => component_base::program::hostname().unwrap_or_default(),
        };
        name.trim().to_lowercase()
    }

    /// Milli-CPUs, bytes of memory and of disk kept from pods; `disk` is the disk's size.
    pub fn reserved(&self, disk: i64) -> crate::node::status::Reserved {
        let of = |name: &str| -> i64 {
            let lists = [&self.file.system_reserved, &self.file.kube_reserved];
            lists.into_iter().filter_map(|list| list.get(name)).map(|text| quantity(text, name == "cpu")).sum()
        };
        let thresholds = self.thresholds();
        crate::node::status::Reserved {
            cpu: of("cpu"),
            memory: of("memory") + thresholds.memory_available,
            storage: of("ephemeral-storage") + (disk as f64 * thresholds.disk_available) as i64,
        }
    }

    /// The hard eviction thresholds, as far as they decide about pressure and allocatable.
    pub fn thresholds(&self) -> crate::node::status::Thresholds {
        let mut out = crate::node::status::Thresholds::default();
        let given = &self.file.eviction_hard;
        let share = |text: &String| text.strip_suffix('%').and_then(|t| t.parse::<f64>().ok()).map(|p| p / 100.0);
        if !given.is_empty() {
            // A list replaces the defaults as a whole.
            out.memory_available = given.get("memory.available").map_or(0, |text| quantity(text, false));
            out.disk_available = given.get("nodefs.available").and_then(share).unwrap_or(0.0);
            out.inodes_free = given.get("nodefs.inodesFree").and_then(share).unwrap_or(0.0);
        }
        out
    }
}

fn quantity(text: &str, milli: bool) -> i64 {
    let parsed = apimachinery::quantity::Quantity::parse(text);
    parsed.map_or(0, |q| if milli { q.milli_value() } else { q.value() })
}

/// A duration as Go writes it, or as a number of nanoseconds.
fn duration(value: &Value) -> Option<Duration> {
    match value {
        Value::String(text) => component_base::duration::parse(text).ok(),
        Value::Number(number) => number.as_u64().map(Duration::from_nanos),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        std::fs::write(
            &path,
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\nclusterDNS: [10.96.0.10]\n\
             clusterDomain: cluster.local\nstaticPodPath: /from/file\nnodeStatusUpdateFrequency: 20s\nport: 10255\n\
             authentication:\n  x509:\n    clientCAFile: /ca.crt\nevictionHard:\n  memory.available: 200Mi\n\
             featureGates:\n  ComponentStatusz: false\n  ComponentFlagz: false\n  SomethingElse: true\n",
        )
        .unwrap();
        let config = Config::from_args([
            format!("--config={}", path.display()),
            "--pod-manifest-path=/from/flag".into(),
            "--hostname-override=Node-1".into(),
            "--node-ip=10.0.0.1".into(),
            "--feature-gates=ComponentFlagz=true".into(),
            "--node-labels=a=b,c=".into(),
            "--register-with-taints=k=v:NoSchedule".into(),
        ])
        .unwrap();
        assert_eq!(config.file.max_pods, 50);
        assert_eq!(config.file.static_pod_path, "/from/flag");
        assert_eq!(config.file.node_status_update_frequency, Duration::from_secs(20));
        assert_eq!(config.file.port, 10255);
        assert_eq!(config.file.pods_per_core, 0);
        assert_eq!(config.file.client_ca_file, "/ca.crt");
        assert_eq!(config.node_name(), "node-1");
        assert_eq!(config.node_ips, ["10.0.0.1"]);
        assert_eq!(config.node_labels["c"], "");
        assert_eq!(
            config.file.register_with_taints[0],
            serde_json::json!({"key": "k", "value": "v", "effect": "NoSchedule"})
        );
        assert_eq!(config.thresholds().memory_available, 200 << 20);
        assert_eq!(config.thresholds().disk_available, 0.0);
        let clock = component_base::clock::RealClock::shared();
        let pages = config.zpages.pages("kubelet", clock, ["/pods"]);
        assert_eq!(pages.served().collect::<Vec<_>>(), [component_base::zpages::FLAGZ]);
        let told = config.zpages.flags.unwrap();
        assert_eq!((told["hostname-override"].as_str(), told["volume-stats-agg-period"].as_str()), ("Node-1", "1m0s"));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |args: &[&str]| Config::from_args(args.iter().copied()).unwrap_err().to_string();
        assert!(error(&["--max-podz=1"]).contains("--max-pods"));
        assert!(error(&["--config=/does/not/exist"]).contains("/does/not/exist"));
        assert!(error(&["--register-with-taints=bad"]).contains("register-with-taints"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.yaml");
        std::fs::write(&path, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPodz: 1\n")
            .unwrap();
        assert!(error(&[&format!("--config={}", path.display())]).contains("maxPodz"));
    }
}
