//! What is counted of impersonation.

use std::time::Duration;

use component_base::metrics::{CounterVec, HistogramVec, Registry, Stability, exponential_buckets};

const LABELS: &[&str] = &["decision", "mode"];

/// Attempts to be somebody else, and the questions they cost.
#[derive(Clone)]
pub struct ImpersonationMetrics {
    attempts: (CounterVec, HistogramVec),
    questions: (CounterVec, HistogramVec),
}

fn note((counter, duration): &(CounterVec, HistogramVec), mode: &str, allowed: bool, took: Duration) {
    let labels = [if allowed { "allowed" } else { "denied" }, mode];
    counter.inc(&labels);
    duration.observe_duration(&labels, took);
}

impl ImpersonationMetrics {
    pub(in crate::server) fn new(registry: &Registry) -> Self {
        let buckets = exponential_buckets(0.001, 2.0, 15);
        let pair = |name: &str, counted: &str, timed: &str| {
            let (counter, duration) = (format!("{name}_total"), format!("{name}_duration_seconds"));
            (
                registry.counter_vec(&counter, counted, Stability::Alpha, LABELS),
                registry.histogram_vec(&duration, timed, Stability::Alpha, LABELS, &buckets),
            )
        };
        Self {
            attempts: pair(
                "apiserver_impersonation_attempts",
                "Total number of impersonation attempts split by mode and decision.",
                "Latency of impersonation attempts in seconds split by mode and decision.",
            ),
            questions: pair(
                "apiserver_impersonation_authorization_attempts",
                "Total number of authorization checks made by the impersonation handler split by mode and decision.",
                "Latency of authorization checks made by the impersonation handler in seconds split by mode and decision.",
            ),
        }
    }

    /// Somebody wanted to be somebody else; `mode` is empty when nothing allowed it.
    pub fn attempted(&self, mode: &str, allowed: bool, took: Duration) {
        note(&self.attempts, mode, allowed, took);
    }

    /// The authorizer was asked.
    pub fn asked(&self, mode: &str, allowed: bool, took: Duration) {
        note(&self.questions, mode, allowed, took);
    }
}
