//! kube-scheduler's configuration: upstream's flags ([`flags()`]), `KubeSchedulerConfiguration`
//! (kubescheduler.config.k8s.io/v1), and building profiles from them.

mod file;
mod flags;
mod profiles;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use component_base::{logging, zpages};

use crate::queue::BackOff;

pub use flags::flags;
pub use profiles::{PluginConfig, PluginRef, PluginSet, PluginSets, ProfileConfig, build_profiles};

/// The profile that pods without a scheduler name get.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";
/// The port of `/healthz` and `/metrics`.
pub const SECURE_PORT: u16 = 10259;

/// Everything kube-scheduler can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Path of a kubeconfig; in-cluster without.
    pub kubeconfig: Option<PathBuf>,
    /// Replaces the kubeconfig's server.
    pub master: Option<String>,
    /// Requests a second and burst, when they were set explicitly.
    pub client_rate: Option<(f64, u32)>,
    /// Where `/healthz`, `/livez`, `/readyz` and `/metrics` are; `None` switches them off.
    pub serving: Option<Serving>,
    /// Leader election; `None` leads at once.
    pub leader_election: Option<LeaderElection>,
    /// The profiles.
    pub profiles: Vec<ProfileConfig>,
    /// Share of nodes to score, 0 to adapt to their number.
    pub percentage_of_nodes_to_score: i64,
    /// Back-off of pods.
    pub back_off: BackOff,
    /// Bindings under way at the same time.
    pub parallel_bindings: usize,
    /// Logging.
    pub logging: logging::Options,
}

/// The HTTPS server.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Serving {
    pub bind_address: IpAddr,
    pub port: u16,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    /// Asks the API who a caller is and what it may do; without, the API of `kubeconfig`.
    pub authorization_kubeconfig: Option<PathBuf>,
    /// Paths that need no permission.
    pub always_allow: Vec<String>,
    /// Which pages tell of the component itself.
    pub zpages: zpages::Settings,
}

/// Leader election.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct LeaderElection {
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
    pub namespace: String,
    pub name: String,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            namespace: "kube-system".to_owned(),
            name: "kube-scheduler".to_owned(),
        }
    }
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            bind_address: IpAddr::from([0, 0, 0, 0]),
            port: SECURE_PORT,
            certificate: None,
            key: None,
            client_ca: None,
            authorization_kubeconfig: None,
            always_allow: ["/healthz", "/readyz", "/livez"].map(str::to_owned).into(),
            zpages: zpages::Settings::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            master: None,
            client_rate: None,
            serving: Some(Serving::default()),
            leader_election: Some(LeaderElection::default()),
            profiles: vec![ProfileConfig::default()],
            percentage_of_nodes_to_score: 0,
            back_off: BackOff::default(),
            parallel_bindings: 256,
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
    /// The file is not a KubeSchedulerConfiguration.
    #[error(transparent)]
    File(#[from] component_base::config_file::Error),
    /// A value is out of its range.
    #[error("{field}: Invalid value: {message}")]
    Invalid {
        /// The field, as in the file.
        field: String,
        /// What is wrong.
        message: String,
    },
}

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Error {
    Error::Invalid { field: field.into(), message: message.into() }
}

impl Config {
    fn validate(&self) -> Result<(), Error> {
        if !(0..=100).contains(&self.percentage_of_nodes_to_score) {
            return Err(invalid("percentageOfNodesToScore", "not in valid range [0-100]"));
        }
        if self.back_off.initial.is_zero() {
            return Err(invalid("podInitialBackoffSeconds", "must be greater than 0"));
        }
        if self.back_off.max < self.back_off.initial {
            return Err(invalid("podMaxBackoffSeconds", "must be greater than or equal to PodInitialBackoffSeconds"));
        }
        let mut names = BTreeSet::new();
        for (i, profile) in self.profiles.iter().enumerate() {
            let name = profile.scheduler_name.as_deref().unwrap_or(DEFAULT_SCHEDULER_NAME);
            if !names.insert(name) {
                return Err(invalid(format!("profiles[{i}].schedulerName"), format!("Duplicate value: {name:?}")));
            }
        }
        Ok(())
    }
}
