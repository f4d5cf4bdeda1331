//! `KubeSchedulerConfiguration` (kubescheduler.config.k8s.io/v1).

use std::path::{Path, PathBuf};
use std::time::Duration;

use component_base::{config_file, duration};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Config, Error, LeaderElection, ProfileConfig, invalid};
use crate::queue::BackOff;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

/// Unknown fields are errors, as upstream's strict decoding has it; those without a subject here are
/// read and ignored.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct File {
    #[serde(rename = "parallelism")]
    _parallelism: IgnoredAny,
    #[serde(rename = "enableProfiling")]
    _enable_profiling: IgnoredAny,
    #[serde(rename = "enableContentionProfiling")]
    _enable_contention_profiling: IgnoredAny,
    #[serde(rename = "delayCacheUntilActive")]
    _delay_cache_until_active: IgnoredAny,
    client_connection: FileClient,
    leader_election: FileLeaderElection,
    percentage_of_nodes_to_score: Option<i64>,
    pod_initial_backoff_seconds: Option<u64>,
    pod_max_backoff_seconds: Option<u64>,
    profiles: Option<Vec<ProfileConfig>>,
    extenders: Option<Vec<Value>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct FileClient {
    #[serde(rename = "acceptContentTypes")]
    _accept_content_types: IgnoredAny,
    #[serde(rename = "contentType")]
    _content_type: IgnoredAny,
    kubeconfig: String,
    qps: Option<f64>,
    burst: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct FileLeaderElection {
    #[serde(rename = "resourceLock")]
    _resource_lock: IgnoredAny,
    leader_elect: Option<bool>,
    lease_duration: Option<FileDuration>,
    renew_deadline: Option<FileDuration>,
    retry_period: Option<FileDuration>,
    resource_name: String,
    resource_namespace: String,
}

#[derive(Clone, Copy, Deserialize)]
struct FileDuration(#[serde(with = "duration::serde_text")] Duration);

impl Config {
    /// From a `KubeSchedulerConfiguration`.
    ///
    /// # Errors
    /// When it cannot be read, or says what cannot be.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::from_document(config_file::read(path, API_VERSION, KIND)?)
    }

    /// From the text of a `KubeSchedulerConfiguration`.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        Self::from_document(config_file::parse(text, API_VERSION, KIND)?)
    }

    fn from_document(file: File) -> Result<Self, Error> {
        if file.extenders.is_some_and(|extenders| !extenders.is_empty()) {
            return Err(invalid("extenders", "extenders are not supported"));
        }
        let d = Self::default();
        let election = file.leader_election;
        let l = LeaderElection::default();
        let or = |given: Option<FileDuration>, default: Duration| given.map_or(default, |given| given.0);
        let text_or = |given: String, default: String| if given.is_empty() { default } else { given };
        let client_rate = match (file.client_connection.qps, file.client_connection.burst) {
            (None, None) => None,
            (qps, burst) => Some((qps.unwrap_or(50.0), burst.unwrap_or(100))),
        };
        let config = Self {
            kubeconfig: Some(file.client_connection.kubeconfig).filter(|path| !path.is_empty()).map(PathBuf::from),
            client_rate,
            leader_election: election.leader_elect.unwrap_or(true).then(|| LeaderElection {
                lease_duration: or(election.lease_duration, l.lease_duration),
                renew_deadline: or(election.renew_deadline, l.renew_deadline),
                retry_period: or(election.retry_period, l.retry_period),
                namespace: text_or(election.resource_namespace, l.namespace),
                name: text_or(election.resource_name, l.name),
            }),
            profiles: file.profiles.filter(|profiles| !profiles.is_empty()).unwrap_or(d.profiles.clone()),
            percentage_of_nodes_to_score: file.percentage_of_nodes_to_score.unwrap_or(0),
            back_off: BackOff {
                initial: file.pod_initial_backoff_seconds.map_or(d.back_off.initial, Duration::from_secs),
                max: file.pod_max_backoff_seconds.map_or(d.back_off.max, Duration::from_secs),
            },
            ..d
        };
        config.validate()?;
        Ok(config)
    }
}
