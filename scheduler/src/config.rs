//! kube-scheduler's configuration: `KubeSchedulerConfiguration` (kubescheduler.config.k8s.io/v1),
//! upstream's flags, and building profiles from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use component_base::flags::{FlagSet, Kind, Parsed};
use component_base::{duration, logging};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::framework::Plugin;
use crate::framework::profile::Profile;
use crate::plugins::{DEFAULT, Handle, REGISTRY};
use crate::queue::BackOff;

/// The profile that pods without a scheduler name get.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";
/// The port of `/healthz` and `/metrics`.
pub const SECURE_PORT: u16 = 10259;

/// Plugins of upstream's that configurations may name although they are not here yet: disabling or
/// configuring them does nothing, enabling them explicitly is an error.
const NOT_YET: &[&str] = &[
    "DynamicResources",
    "GangScheduling",
    "NodeDeclaredFeatures",
    "NodeVolumeLimits",
    "VolumeBinding",
    "VolumeRestrictions",
    "VolumeZone",
];

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

/// `KubeSchedulerProfile`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ProfileConfig {
    pub scheduler_name: Option<String>,
    pub percentage_of_nodes_to_score: Option<i64>,
    pub plugins: Option<PluginSets>,
    pub plugin_config: Option<Vec<PluginConfig>>,
}

/// `PluginConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PluginConfig {
    pub name: String,
    pub args: Value,
}

/// `Plugins`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PluginSets {
    pub pre_enqueue: PluginSet,
    pub queue_sort: PluginSet,
    pub pre_filter: PluginSet,
    pub filter: PluginSet,
    pub post_filter: PluginSet,
    pub pre_score: PluginSet,
    pub score: PluginSet,
    pub reserve: PluginSet,
    pub permit: PluginSet,
    pub pre_bind: PluginSet,
    pub bind: PluginSet,
    pub post_bind: PluginSet,
    pub multi_point: PluginSet,
}

/// `PluginSet`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PluginSet {
    pub enabled: Vec<PluginRef>,
    pub disabled: Vec<PluginRef>,
}

/// `Plugin`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PluginRef {
    pub name: String,
    pub weight: Option<i64>,
}

impl PluginSet {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|plugin| plugin.name == name || plugin.name == "*")
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
    /// The file is not a KubeSchedulerConfiguration.
    #[error("failed to decode {path}: {message}")]
    Decode {
        /// The file.
        path: String,
        /// Why.
        message: String,
    },
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

/// The flags of upstream's kube-scheduler.
pub fn flags() -> FlagSet {
    let mut f = FlagSet::new(
        "kube-scheduler",
        "The Kubernetes scheduler is a control plane process which assigns Pods to Nodes.",
    );
    let l = LeaderElection::default();
    f.string("config", "", "The path to the configuration file.");
    f.string("kubeconfig", "", "Path to kubeconfig file with authorization and master location information.");
    f.string("master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig)");
    f.string("authentication-kubeconfig", "", "kubeconfig file pointing at the 'core' kubernetes server with enough rights to create tokenreviews.authentication.k8s.io.");
    f.string("authorization-kubeconfig", "", "kubeconfig file pointing at the 'core' kubernetes server with enough rights to create subjectaccessreviews.authorization.k8s.io.");
    f.strings(
        "authorization-always-allow-paths",
        &["/healthz", "/readyz", "/livez"],
        "A list of HTTP paths to skip during authorization.",
    );
    f.string("bind-address", "0.0.0.0", "The IP address on which to listen for the --secure-port port.");
    f.int(
        "secure-port",
        i64::from(SECURE_PORT),
        "The port on which to serve HTTPS with authentication and authorization. If 0, don't serve HTTPS at all.",
    );
    f.string("tls-cert-file", "", "File containing the default x509 Certificate for HTTPS.");
    f.string("tls-private-key-file", "", "File containing the default x509 private key matching --tls-cert-file.");
    f.string("client-ca-file", "", "If set, any request presenting a client certificate signed by one of the authorities in the client-ca-file is authenticated with an identity corresponding to the CommonName of the client certificate.");
    f.bool("leader-elect", true, "Start a leader election client and gain leadership before executing the main loop.");
    f.duration("leader-elect-lease-duration", l.lease_duration, "The duration that non-leader candidates will wait after observing a leadership renewal until attempting to acquire leadership.");
    f.duration(
        "leader-elect-renew-deadline",
        l.renew_deadline,
        "The interval between attempts by the acting master to renew a leadership slot before it stops leading.",
    );
    f.duration(
        "leader-elect-retry-period",
        l.retry_period,
        "The duration the clients should wait between attempting acquisition and renewal of a leadership.",
    );
    f.string(
        "leader-elect-resource-lock",
        "leases",
        "The type of resource object that is used for locking during leader election. Supported options are 'leases'.",
    );
    f.string(
        "leader-elect-resource-name",
        &l.name,
        "The name of resource object that is used for locking during leader election.",
    );
    f.string(
        "leader-elect-resource-namespace",
        &l.namespace,
        "The namespace of resource object that is used for locking during leader election.",
    );
    f.float("kube-api-qps", 50.0, "QPS to use while talking with kubernetes apiserver. Without it there is no limit.");
    f.int("kube-api-burst", 100, "burst to use while talking with kubernetes apiserver.");
    f.string("kube-api-content-type", "", "content type of requests sent to apiserver.");
    f.accepted(
        Kind::Bool,
        &[
            "authentication-tolerate-lookup-failure",
            "authentication-skip-lookup",
            "contention-profiling",
            "profiling",
            "permit-address-sharing",
            "permit-port-sharing",
        ],
    );
    f.accepted(
        Kind::String,
        &[
            "cert-dir",
            "requestheader-client-ca-file",
            "show-hidden-metrics-for-version",
            "tls-min-version",
            "write-config-to",
            "allow-metric-labels-manifest",
            "tls-sni-cert-key",
            "pod-max-in-unschedulable-pods-duration",
        ],
    );
    f.accepted(
        Kind::Strings,
        &[
            "requestheader-allowed-names",
            "requestheader-extra-headers-prefix",
            "requestheader-group-headers",
            "requestheader-username-headers",
            "requestheader-uid-headers",
            "tls-cipher-suites",
            "disabled-metrics",
            "tls-curve-preferences",
        ],
    );
    f.accepted(Kind::Map, &["allow-metric-labels"]);
    f.accepted(Kind::Int, &["http2-max-streams-per-connection"]);
    f.accepted(
        Kind::Duration,
        &[
            "authentication-token-webhook-cache-ttl",
            "authorization-webhook-cache-authorized-ttl",
            "authorization-webhook-cache-unauthorized-ttl",
        ],
    );
    f.common();
    f
}

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
    api_version: String,
    kind: String,
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
    /// From arguments (without the program's name).
    pub fn from_args<I, S>(args: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self::from_flags(&flags().parse(args)?)
    }

    /// From parsed flags, and the file they name: what the file says of leader election and of the
    /// connection can be overridden by flags, as upstream does.
    pub fn from_flags(p: &Parsed) -> Result<Self, Error> {
        let mut config = match p.nonempty("config") {
            Some(path) => Self::from_file(Path::new(&path))?,
            None => Self::default(),
        };
        if let Some(path) = p.nonempty("kubeconfig") {
            config.kubeconfig = Some(PathBuf::from(path));
        }
        config.master = p.nonempty("master");
        if p.changed("kube-api-qps") || p.changed("kube-api-burst") {
            config.client_rate = Some((p.float("kube-api-qps"), u32::try_from(p.int("kube-api-burst")).unwrap_or(100)));
        }
        config.override_leader_election(p)?;
        let port = u16::try_from(p.int("secure-port")).map_err(|_| invalid("--secure-port", "must be a port"))?;
        config.serving = (port != 0)
            .then(|| -> Result<Serving, Error> {
                Ok(Serving {
                    bind_address: p
                        .string("bind-address")
                        .parse()
                        .map_err(|_| invalid("--bind-address", "must be an IP address"))?,
                    port,
                    certificate: p.nonempty("tls-cert-file").map(PathBuf::from),
                    key: p.nonempty("tls-private-key-file").map(PathBuf::from),
                    client_ca: p.nonempty("client-ca-file").map(PathBuf::from),
                    authorization_kubeconfig: p
                        .nonempty("authorization-kubeconfig")
                        .or_else(|| p.nonempty("authentication-kubeconfig"))
                        .map(PathBuf::from),
                    always_allow: p.strings("authorization-always-allow-paths"),
                })
            })
            .transpose()?;
        config.logging = logging::Options::from_flags(p);
        config.validate()?;
        Ok(config)
    }

    fn override_leader_election(&mut self, p: &Parsed) -> Result<(), Error> {
        if p.changed("leader-elect") {
            self.leader_election = p.bool("leader-elect").then(|| self.leader_election.clone().unwrap_or_default());
        }
        if p.string("leader-elect-resource-lock") != "leases" {
            return Err(invalid("leaderElection.resourceLock", "resourceLock value must be \"leases\""));
        }
        let Some(election) = &mut self.leader_election else { return Ok(()) };
        for (name, field) in [
            ("leader-elect-lease-duration", &mut election.lease_duration),
            ("leader-elect-renew-deadline", &mut election.renew_deadline),
            ("leader-elect-retry-period", &mut election.retry_period),
        ] {
            if p.changed(name) {
                *field = p.duration(name);
            }
        }
        for (name, field) in [
            ("leader-elect-resource-name", &mut election.name),
            ("leader-elect-resource-namespace", &mut election.namespace),
        ] {
            if p.changed(name) {
                *field = p.string(name);
            }
        }
        Ok(())
    }

    /// From a `KubeSchedulerConfiguration`.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: shown.clone(), source })?;
        Self::from_yaml(&text).map_err(|error| match error {
            Error::Decode { message, .. } => Error::Decode { path: shown, message },
            other => other,
        })
    }

    /// From the text of a `KubeSchedulerConfiguration`.
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        let decode = |message: String| Error::Decode { path: String::new(), message };
        let value = apimachinery::yaml::parse(text).map_err(|e| decode(e.to_string()))?;
        let file: File = serde_json::from_value(value).map_err(|e| decode(e.to_string()))?;
        if file.kind != "KubeSchedulerConfiguration" || file.api_version != "kubescheduler.config.k8s.io/v1" {
            return Err(decode(format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version)));
        }
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

/// Builds every profile's plugins.
pub fn build_profiles(config: &Config, handle: &Handle) -> Result<Vec<Arc<Profile>>, Error> {
    config.profiles.iter().enumerate().map(|(i, profile)| build_profile(i, profile, handle).map(Arc::new)).collect()
}

fn build_profile(index: usize, config: &ProfileConfig, handle: &Handle) -> Result<Profile, Error> {
    let field = |rest: &str| format!("profiles[{index}].{rest}");
    let empty = PluginSets::default();
    let sets = config.plugins.as_ref().unwrap_or(&empty);
    let mut args: BTreeMap<&str, &Value> = BTreeMap::new();
    for plugin in config.plugin_config.iter().flatten() {
        if args.insert(&plugin.name, &plugin.args).is_some() {
            return Err(invalid(field("pluginConfig"), format!("repeated config for plugin {}", plugin.name)));
        }
    }
    let multi = multi_point(&sets.multi_point);

    // Every plugin named anywhere is built once, whatever number of points it serves.
    let mut built: BTreeMap<String, Plugin> = BTreeMap::new();
    let explicit = all_sets(sets);
    let named = multi
        .iter()
        .map(|(name, _)| name.clone())
        .chain(explicit.iter().flat_map(|set| &set.enabled).map(|plugin| plugin.name.clone()));
    for name in named {
        if built.contains_key(&name) {
            continue;
        }
        let Some((_, factory)) = REGISTRY.iter().find(|(known, _)| *known == name) else {
            let message = if NOT_YET.contains(&name.as_str()) {
                format!("plugin {name:?} is not supported yet")
            } else {
                format!("plugin {name:?} does not exist")
            };
            return Err(invalid(field("plugins"), message));
        };
        let null = Value::Null;
        let plugin = factory(args.get(name.as_str()).copied().unwrap_or(&null), handle)
            .map_err(|message| invalid(field("pluginConfig"), format!("{name}: {message}")))?;
        built.insert(name, plugin);
    }
    for name in args.keys() {
        if !REGISTRY.iter().any(|(known, _)| known == name) && !NOT_YET.contains(name) {
            return Err(invalid(field("pluginConfig"), format!("plugin {name:?} does not exist")));
        }
    }

    let pick = |set: &PluginSet, serves: &dyn Fn(&Plugin) -> bool| order(set, &multi, &built, serves);
    macro_rules! point {
        ($set:expr, $part:ident) => {
            pick(&$set, &|plugin| plugin.$part.is_some())
                .iter()
                .filter_map(|(plugin, _)| Some((plugin.name, plugin.$part.clone()?)))
                .collect()
        };
    }
    let sorts = pick(&sets.queue_sort, &|plugin| plugin.queue_sort.is_some());
    if sorts.len() != 1 {
        return Err(invalid(field("plugins.queueSort"), "exactly one queue sort plugin must be enabled"));
    }
    let score = pick(&sets.score, &|plugin| plugin.score.is_some())
        .iter()
        .filter_map(|(plugin, weight)| {
            Some((plugin.name, if *weight == 0 { 1 } else { *weight }, plugin.score.clone()?))
        })
        .collect();
    Ok(Profile {
        scheduler_name: config.scheduler_name.clone().unwrap_or_else(|| DEFAULT_SCHEDULER_NAME.to_owned()),
        percentage_of_nodes_to_score: config.percentage_of_nodes_to_score,
        queue_sort: sorts[0].0.queue_sort.clone(),
        pre_enqueue: point!(sets.pre_enqueue, pre_enqueue),
        pre_filter: point!(sets.pre_filter, pre_filter),
        filter: point!(sets.filter, filter),
        post_filter: point!(sets.post_filter, post_filter),
        pre_score: point!(sets.pre_score, pre_score),
        score,
        reserve: point!(sets.reserve, reserve),
        permit: point!(sets.permit, permit),
        pre_bind: point!(sets.pre_bind, pre_bind),
        bind: point!(sets.bind, bind),
        post_bind: point!(sets.post_bind, post_bind),
        interests: built.values().map(|plugin| (plugin.name, plugin.interests.clone())).collect(),
    })
}

fn all_sets(sets: &PluginSets) -> [&PluginSet; 12] {
    [
        &sets.pre_enqueue,
        &sets.queue_sort,
        &sets.pre_filter,
        &sets.filter,
        &sets.post_filter,
        &sets.pre_score,
        &sets.score,
        &sets.reserve,
        &sets.permit,
        &sets.pre_bind,
        &sets.bind,
        &sets.post_bind,
    ]
}

/// The defaults, with the configured ones in their places or after them.
fn multi_point(custom: &PluginSet) -> Vec<(String, i64)> {
    let mut list: Vec<(String, i64)> = Vec::new();
    for (name, weight) in DEFAULT {
        if custom.disables(name) {
            continue;
        }
        let given = custom.enabled.iter().find(|plugin| plugin.name == *name);
        list.push(((*name).to_owned(), given.map_or(*weight, |plugin| plugin.weight.unwrap_or(0))));
    }
    for plugin in &custom.enabled {
        if !list.iter().any(|(name, _)| *name == plugin.name) {
            list.push((plugin.name.clone(), plugin.weight.unwrap_or(0)));
        }
    }
    list
}

/// One point's plugins: first those named both here and for all points, then those for all points,
/// then those named here alone.
fn order<'a>(
    set: &PluginSet,
    multi: &[(String, i64)],
    built: &'a BTreeMap<String, Plugin>,
    serves: &dyn Fn(&Plugin) -> bool,
) -> Vec<(&'a Plugin, i64)> {
    let in_multi = |name: &str| multi.iter().any(|(known, _)| known == name);
    let here: Vec<(&str, i64)> =
        set.enabled.iter().map(|plugin| (plugin.name.as_str(), plugin.weight.unwrap_or(0))).collect();
    let overriding = here.iter().filter(|(name, _)| in_multi(name)).copied();
    let expanded = multi
        .iter()
        .map(|(name, weight)| (name.as_str(), *weight))
        .filter(|(name, _)| !set.disables(name) && !here.iter().any(|(known, _)| known == name));
    let alone = here.iter().filter(|(name, _)| !in_multi(name)).copied();
    overriding
        .chain(expanded)
        .chain(alone)
        .filter_map(|(name, weight)| Some((built.get(name)?, weight)))
        .filter(|(plugin, _)| serves(plugin))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::NoListers;

    fn profiles(text: &str) -> Result<Vec<Arc<Profile>>, Error> {
        let config = Config::from_yaml(&format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n{text}"
        ))?;
        build_profiles(&config, &Handle::new(Arc::new(NoListers), None))
    }

    fn scores(profile: &Profile) -> Vec<(&str, i64)> {
        profile.score.iter().map(|(name, weight, _)| (*name, *weight)).collect()
    }

    #[test]
    fn the_default_profile() {
        let profile = &profiles("").unwrap()[0];
        assert_eq!(profile.scheduler_name, "default-scheduler");
        assert_eq!(
            scores(profile),
            [
                ("TaintToleration", 3),
                ("NodeAffinity", 2),
                ("NodeResourcesFit", 1),
                ("PodTopologySpread", 2),
                ("InterPodAffinity", 2),
                ("NodeResourcesBalancedAllocation", 1),
                ("ImageLocality", 1),
            ]
        );
        let filters: Vec<&str> = profile.filter.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            filters,
            [
                "NodeUnschedulable",
                "NodeName",
                "TaintToleration",
                "NodeAffinity",
                "NodePorts",
                "NodeResourcesFit",
                "PodTopologySpread",
                "InterPodAffinity"
            ]
        );
    }

    #[test]
    fn sets_are_merged_as_upstream_does() {
        let all = profiles(
            "
profiles:
- schedulerName: a
  plugins:
    score:
      disabled: [{name: ImageLocality}]
      enabled: [{name: NodeResourcesFit, weight: 7}]
    multiPoint:
      disabled: [{name: NodePorts}, {name: VolumeBinding}]
- schedulerName: b
  plugins:
    score: {disabled: [{name: '*'}], enabled: [{name: TaintToleration}]}
  pluginConfig:
  - {name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated}}}
  - {name: VolumeBinding, args: {bindTimeoutSeconds: 5}}
",
        )
        .unwrap();
        assert_eq!(scores(&all[0])[0], ("NodeResourcesFit", 7));
        assert!(!scores(&all[0]).iter().any(|(name, _)| *name == "ImageLocality"));
        assert!(!all[0].filter.iter().any(|(name, _)| *name == "NodePorts"));
        assert_eq!(scores(&all[1]), [("TaintToleration", 1)]);
        assert_eq!(all[1].filter.len(), 8);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "percentageOfNodesToScore: 101",
            "podInitialBackoffSeconds: 20",
            "profiles: [{schedulerName: a}, {schedulerName: a}]",
            "profiles: [{plugins: {filter: {enabled: [{name: Nope}]}}}]",
            "profiles: [{plugins: {nope: {}}}]",
            "profiles: [{plugins: {queueSort: {disabled: [{name: '*'}]}}}]",
            "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: X}}}]}]",
            "profiles: [{pluginConfig: [{name: NodeAffinity}, {name: NodeAffinity}]}]",
            "extenders: [{urlPrefix: 'http://x'}]",
            "percentageOfNodesToScor: 5",
            "leaderElection: {leaderElects: true}",
        ] {
            assert!(profiles(text).is_err(), "{text}");
        }
        assert!(Config::from_yaml("apiVersion: v1\nkind: Pod\n").is_err());
        assert!(Config::from_args(["--leader-elect-resource-lock=configmaps"]).is_err());
        assert!(Config::from_args(["--no-such-flag"]).is_err());
    }

    #[test]
    fn flags_as_kubeadm_writes_them() {
        let config = Config::from_args([
            "--authentication-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--authorization-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--bind-address=127.0.0.1",
            "--kubeconfig=/etc/kubernetes/scheduler.conf",
            "--leader-elect=true",
        ])
        .unwrap();
        assert_eq!(config.serving.unwrap().bind_address.to_string(), "127.0.0.1");
        assert!(config.leader_election.is_some() && config.client_rate.is_none());
        let config = Config::from_args(["--leader-elect=false", "--secure-port=0", "--kube-api-qps=10"]).unwrap();
        assert!(config.leader_election.is_none() && config.serving.is_none());
        assert_eq!(config.client_rate, Some((10.0, 100)));
    }
}
