//! The server's own metrics, in upstream's names, labels and buckets.
//!
//! What is counted per request is looked up once per combination of labels and kept (`requests.rs`); what
//! is a figure of the moment (objects stored, requests in flight) is read when somebody scrapes.

mod admission;
mod auth;
mod impersonation;
mod reloads;
mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use component_base::metrics::{CounterVec, GaugeVec, HistogramVec, Registry, Stability, exponential_buckets};

use super::Server;
use crate::cache::CacheMetrics;
use crate::flowcontrol::FlowMetrics;
pub use admission::{AdmissionMetrics, Check, Ending, Subject};
pub use auth::AuthMetrics;
pub use impersonation::ImpersonationMetrics;
pub use reloads::{ManifestReloads, Reloads};
pub use requests::{Requests, counted};

/// Upstream's buckets of request latencies.
pub(crate) const DURATIONS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

const LONG_RUNNING_LABELS: &[&str] = &["component", "group", "resource", "scope", "subresource", "verb", "version"];
const GROUP_RESOURCE: &[&str] = &["group", "resource"];
const GROUP_VERSION_RESOURCE: &[&str] = &["group", "resource", "version"];

/// Registered once per server.
pub struct Metrics {
    pub registry: Registry,
    pub requests: Requests,
    pub auth: AuthMetrics,
    pub impersonation: ImpersonationMetrics,
    pub audit: crate::audit::Metrics,
    pub authentication_reloads: Reloads,
    pub authorization_reloads: Reloads,
    pub manifests: ManifestReloads,
    pub admission: AdmissionMetrics,
    /// Of Priority and Fairness.
    pub flow: Arc<FlowMetrics>,
    /// Watches open now.
    pub long_running: GaugeVec,
    /// Events sent to watches.
    pub watch_events: CounterVec,
    /// Their frames, in bytes.
    pub watch_events_sizes: HistogramVec,
    /// Lists that the cache answered: how many, what was looked at, what was answered.
    pub list_total: CounterVec,
    pub list_fetched: CounterVec,
    pub list_returned: CounterVec,
    /// What the cache itself counts.
    pub cache: Arc<CacheMetrics>,
    /// Requests being worked on.
    pub mutating: InFlight,
    pub reading: InFlight,
    in_flight: GaugeVec,
    objects: GaugeVec,
    objects_deprecated: GaugeVec,
    sizes: GaugeVec,
    versions: GaugeVec,
}

impl Metrics {
    /// A fresh registry with everything registered.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name, help, labels| registry.counter_vec(name, help, Stability::Alpha, labels);
        let gauge = |name, help, labels| registry.gauge_vec(name, help, Stability::Alpha, labels);
        let metrics = Self {
            requests: Requests::new(&registry),
            auth: AuthMetrics::new(&registry),
            impersonation: ImpersonationMetrics::new(&registry),
            audit: crate::audit::Metrics::new(&registry),
            authentication_reloads: Reloads::new(
                &registry,
                "apiserver_authentication_config_controller",
                "authentication",
            ),
            authorization_reloads: Reloads::new(
                &registry,
                "apiserver_authorization_config_controller",
                "authorization",
            ),
            manifests: ManifestReloads::new(&registry),
            admission: AdmissionMetrics::new(&registry),
            flow: Arc::new(FlowMetrics::new(&registry)),
            cache: Arc::new(CacheMetrics::new(&registry)),
            long_running: registry.gauge_vec(
                "apiserver_longrunning_requests",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
                Stability::Stable,
                LONG_RUNNING_LABELS,
            ),
            watch_events: counter(
                "apiserver_watch_events_total",
                "Number of events sent in watch clients",
                GROUP_VERSION_RESOURCE,
            ),
            watch_events_sizes: registry.histogram_vec(
                "apiserver_watch_events_sizes",
                "Watch event size distribution in bytes",
                Stability::Alpha,
                GROUP_VERSION_RESOURCE,
                &exponential_buckets(1024.0, 2.0, 8),
            ),
            list_total: counter(
                "apiserver_cache_list_total",
                "Number of LIST requests served from watch cache",
                &["group", "index", "resource"],
            ),
            list_fetched: counter(
                "apiserver_cache_list_fetched_objects_total",
                "Number of objects read from watch cache in the course of serving a LIST request",
                &["group", "index", "resource"],
            ),
            list_returned: counter(
                "apiserver_cache_list_returned_objects_total",
                "Number of objects returned for a LIST request from watch cache",
                GROUP_RESOURCE,
            ),
            in_flight: registry.gauge_vec(
                "apiserver_current_inflight_requests",
                "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
                Stability::Stable,
                &["request_kind"],
            ),
            objects: gauge(
                "apiserver_resource_objects",
                "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
                GROUP_RESOURCE,
            ),
            objects_deprecated: registry.gauge_vec(
                "apiserver_storage_objects",
                "(Deprecated since 1.34.0) [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
                Stability::Stable,
                &["resource"],
            ),
            sizes: gauge(
                "apiserver_resource_size_estimate_bytes",
                "Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.",
                GROUP_RESOURCE,
            ),
            versions: gauge(
                "apiserver_watch_cache_resource_version",
                "Current resource version of watch cache broken by resource type. This is truncated to the 15 least significant digits.",
                GROUP_RESOURCE,
            ),
            mutating: InFlight::default(),
            reading: InFlight::default(),
            registry,
        };
        build_info(&metrics.registry);
        metrics
    }

    /// The text of `/metrics`, with the figures of this moment.
    pub fn text(&self, server: &Server) -> String {
        self.in_flight.set(&["mutating"], self.mutating.peak());
        self.in_flight.set(&["readOnly"], self.reading.peak());
        for cache in server.cache.resources() {
            let spec = cache.spec();
            let (group, resource) = (spec.group.as_str(), spec.resource.as_str());
            let (objects, bytes) = cache.size();
            self.objects.set(&[group, resource], objects as f64);
            self.sizes.set(&[group, resource], bytes as f64);
            self.versions.set(&[group, resource], (cache.revision() % 1_000_000_000_000_000) as f64);
            let name = if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") };
            self.objects_deprecated.set(&[&name], objects as f64);
        }
        self.registry.encode()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn build_info(registry: &Registry) {
    let version = api::version();
    let text = |name: &str| version.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_string();
    let info = registry.gauge_vec(
        "kubernetes_build_info",
        "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        Stability::Beta,
        &[
            "build_date", "compiler", "git_commit", "git_tree_state", "git_version", "go_version", "major", "minor",
            "platform",
        ],
    );
    info.set(
        &[
            &text("buildDate"),
            &text("compiler"),
            &text("gitCommit"),
            &text("gitTreeState"),
            &text("gitVersion"),
            &text("goVersion"),
            &text("major"),
            &text("minor"),
            &text("platform"),
        ],
        1.0,
    );
}

/// How many requests of one kind are being worked on, and the most there were since somebody looked.
#[derive(Debug, Default)]
pub struct InFlight {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One request being worked on.
pub struct Running<'a>(&'a InFlight);

impl InFlight {
    /// Counts a request until the answer is dropped.
    pub fn enter(&self) -> Running<'_> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Running(self)
    }

    fn peak(&self) -> f64 {
        self.most.swap(self.now.load(Ordering::Relaxed), Ordering::Relaxed) as f64
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_requests_at_a_time() {
        let kind = InFlight::default();
        {
            let _first = kind.enter();
            let _second = kind.enter();
        }
        let _third = kind.enter();
        assert_eq!(kind.peak(), 2.0);
        assert_eq!(kind.peak(), 1.0);
    }
}
