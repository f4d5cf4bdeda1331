//! What a cache measures of itself and of the store below, in upstream's names.
//!
//! Series are made when something first happens to a resource: a hundred resources that nobody uses show
//! nothing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use component_base::metrics::{Counter, CounterVec, Histogram, HistogramVec, Registry, Stability};

const GROUP_RESOURCE: &[&str] = &["group", "resource"];
const OPERATION: &[&str] = &["group", "operation", "resource"];

/// Upstream's buckets of the store's latencies.
const STORE_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Upstream's buckets of waiting for the cache.
const WAIT_BUCKETS: &[f64] = &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];

/// The families, shared by all resources.
pub struct CacheMetrics {
    store_durations: HistogramVec,
    store_requests: CounterVec,
    store_events: CounterVec,
    received: CounterVec,
    dispatched: CounterVec,
    initializations: CounterVec,
    waits: HistogramVec,
    consistent: CounterVec,
}

impl CacheMetrics {
    /// Registers the families.
    pub fn new(registry: &Registry) -> Self {
        let counter = |name, help, labels| registry.counter_vec(name, help, Stability::Alpha, labels);
        Self {
            store_durations: registry.histogram_vec(
                "etcd_request_duration_seconds",
                "Etcd request latency in seconds for each operation and object type.",
                Stability::Alpha,
                OPERATION,
                STORE_BUCKETS,
            ),
            store_requests: counter(
                "etcd_requests_total",
                "Etcd request counts for each operation and object type.",
                OPERATION,
            ),
            store_events: registry.counter_vec(
                "apiserver_storage_events_received_total",
                "Number of etcd events received split by kind.",
                Stability::Beta,
                GROUP_RESOURCE,
            ),
            received: counter(
                "apiserver_watch_cache_events_received_total",
                "Counter of events received in watch cache broken by resource type.",
                GROUP_RESOURCE,
            ),
            dispatched: counter(
                "apiserver_watch_cache_events_dispatched_total",
                "Counter of events dispatched in watch cache broken by resource type.",
                GROUP_RESOURCE,
            ),
            initializations: counter(
                "apiserver_watch_cache_initializations_total",
                "Counter of watch cache initializations broken by resource type.",
                GROUP_RESOURCE,
            ),
            waits: registry.histogram_vec(
                "apiserver_watch_cache_read_wait_seconds",
                "Histogram of time spent waiting for a watch cache to become fresh.",
                Stability::Alpha,
                GROUP_RESOURCE,
                WAIT_BUCKETS,
            ),
            consistent: counter(
                "apiserver_watch_cache_consistent_read_total",
                "Counter for consistent reads from cache.",
                &["fallback", "group", "resource", "success"],
            ),
        }
    }
}

/// A request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Get,
    List,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Get => "get",
            Self::List => "list",
        }
    }
}

/// The series of one resource.
pub(super) struct ResourceMetrics {
    families: Option<Arc<CacheMetrics>>,
    group: String,
    resource: String,
    operations: [OnceLock<(Histogram, Counter)>; 5],
    events: OnceLock<[Counter; 3]>,
    consistent: OnceLock<Counter>,
}

impl ResourceMetrics {
    pub fn new(families: Option<Arc<CacheMetrics>>, group: &str, resource: &str) -> Self {
        Self {
            families,
            group: group.to_owned(),
            resource: resource.to_owned(),
            operations: Default::default(),
            events: OnceLock::new(),
            consistent: OnceLock::new(),
        }
    }

    /// A request to the store was answered.
    pub fn store(&self, operation: Operation, took: Duration) {
        let Some(families) = &self.families else { return };
        let (durations, requests) = self.operations[operation as usize].get_or_init(|| {
            let labels = [self.group.as_str(), operation.as_str(), self.resource.as_str()];
            (families.store_durations.with(&labels), families.store_requests.with(&labels))
        });
        durations.observe(took.as_secs_f64());
        requests.inc();
    }

    /// Changes came in, and became as many events.
    pub fn events(&self, received: usize, dispatched: usize) {
        let Some(families) = &self.families else { return };
        let [store, cache, sent] = self.events.get_or_init(|| {
            let labels = [self.group.as_str(), self.resource.as_str()];
            [families.store_events.with(&labels), families.received.with(&labels), families.dispatched.with(&labels)]
        });
        store.inc_by(received as u64);
        cache.inc_by(received as u64);
        sent.inc_by(dispatched as u64);
    }

    /// The cache was loaded.
    pub fn initialized(&self) {
        if let Some(families) = &self.families {
            families.initializations.inc(&[&self.group, &self.resource]);
        }
    }

    /// A read waited until the cache was fresh enough.
    pub fn waited(&self, took: Duration) {
        if let Some(families) = &self.families {
            families.waits.observe_duration(&[&self.group, &self.resource], took);
        }
    }

    /// A consistent list was answered from memory, or (`fallback`) from the store.
    pub fn consistent(&self, fallback: bool) {
        let Some(families) = &self.families else { return };
        if fallback {
            families.consistent.inc(&["true", &self.group, &self.resource, "false"]);
            return;
        }
        let counter =
            self.consistent.get_or_init(|| families.consistent.with(&["false", &self.group, &self.resource, "true"]));
        counter.inc();
    }
}
