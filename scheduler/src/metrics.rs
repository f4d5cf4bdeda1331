//! kube-scheduler's metrics, under upstream's names (subsystem `scheduler`).

use std::time::Duration;

use component_base::metrics::{CounterVec, GaugeVec, HistogramVec, Registry, Stability, exponential_buckets};

use crate::queue::Lengths;

/// All of them; clones share values.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    attempts: CounterVec,
    attempt_duration: HistogramVec,
    algorithm_duration: HistogramVec,
    sli_duration: HistogramVec,
    pod_attempts: HistogramVec,
    pending: GaugeVec,
    cache: GaugeVec,
    preemption_attempts: CounterVec,
    preemption_victims: HistogramVec,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let r = Registry::new();
        let milliseconds = exponential_buckets(0.001, 2.0, 15);
        Self {
            attempts: r.counter_vec("scheduler_schedule_attempts_total", "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.", Stability::Stable, &["result", "profile"]),
            attempt_duration: r.histogram_vec("scheduler_scheduling_attempt_duration_seconds", "Scheduling attempt latency in seconds (scheduling algorithm + binding)", Stability::Stable, &["result", "profile"], &milliseconds),
            algorithm_duration: r.histogram_vec("scheduler_scheduling_algorithm_duration_seconds", "Scheduling algorithm latency in seconds", Stability::Alpha, &[], &milliseconds),
            sli_duration: r.histogram_vec("scheduler_pod_scheduling_sli_duration_seconds", "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.", Stability::Beta, &["attempts"], &exponential_buckets(0.01, 2.0, 20)),
            pod_attempts: r.histogram_vec("scheduler_pod_scheduling_attempts", "Number of attempts to successfully schedule a pod.", Stability::Stable, &[], &exponential_buckets(1.0, 2.0, 5)),
            pending: r.gauge_vec("scheduler_pending_pods", "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.", Stability::Stable, &["queue"]),
            cache: r.gauge_vec("scheduler_cache_size", "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.", Stability::Alpha, &["type"]),
            preemption_attempts: r.counter_vec("scheduler_preemption_attempts_total", "Total preemption attempts in the cluster till now", Stability::Stable, &[]),
            preemption_victims: r.histogram_vec("scheduler_preemption_victims", "Number of selected preemption victims", Stability::Stable, &[], &exponential_buckets(1.0, 2.0, 7)),
            registry: r,
        }
    }
}

impl Metrics {
    /// What `/metrics` serves.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// One pass of the algorithm over `pods` pods.
    pub fn algorithm(&self, took: Duration, pods: usize) {
        let each = took / u32::try_from(pods.max(1)).unwrap_or(u32::MAX);
        for _ in 0..pods {
            self.algorithm_duration.observe_duration(&[], each);
        }
    }

    /// A pod was bound: `took` since its last try began, `total` since it entered the queue.
    pub fn scheduled(&self, profile: &str, took: Duration, total: Duration, attempts: u32) {
        self.attempts.inc(&["scheduled", profile]);
        self.attempt_duration.observe_duration(&["scheduled", profile], took);
        self.pod_attempts.observe(&[], f64::from(attempts));
        let label = if attempts >= 15 { "15+".to_owned() } else { attempts.to_string() };
        self.sli_duration.observe_duration(&[&label], total);
    }

    /// A pod was not placed; `result` is `unschedulable` or `error`.
    pub fn failed(&self, result: &str, profile: &str, took: Duration) {
        self.attempts.inc(&[result, profile]);
        self.attempt_duration.observe_duration(&[result, profile], took);
    }

    /// Preemption was tried; how many pods have to go.
    pub fn preempted(&self, victims: usize) {
        self.preemption_attempts.inc(&[]);
        if victims > 0 {
            #[allow(clippy::cast_precision_loss)] // far below 2^52 pods
            self.preemption_victims.observe(&[], victims as f64);
        }
    }

    /// How many pods and nodes are where.
    pub fn sizes(&self, queue: Lengths, nodes: usize, pods: usize, assumed: usize) {
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let number = |n: usize| n as f64;
        for (name, length) in [
            ("active", queue.active),
            ("backoff", queue.backoff),
            ("unschedulable", queue.unschedulable),
            ("gated", queue.gated),
        ] {
            self.pending.set(&[name], number(length));
        }
        for (name, length) in [("nodes", nodes), ("pods", pods), ("assumed_pods", assumed)] {
            self.cache.set(&[name], number(length));
        }
    }
}
