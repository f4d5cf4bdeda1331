//! What is counted of audit, in upstream's names (`apiserver/pkg/audit/metrics.go`).

use component_base::metrics::{Counter, CounterVec, Registry, Stability};

use super::policy::Level;

/// Registered whether or not there is a policy.
#[derive(Clone)]
pub struct Metrics {
    events: Counter,
    errors: CounterVec,
    levels: CounterVec,
    rejected: Counter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let counter = |name, help, labels| registry.counter_vec(name, help, Stability::Alpha, labels);
        Self {
            events: counter(
                "apiserver_audit_event_total",
                "Counter of audit events generated and sent to the audit backend.",
                &[],
            )
            .with(&[]),
            errors: counter(
                "apiserver_audit_error_total",
                "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
                &["plugin"],
            ),
            levels: counter(
                "apiserver_audit_level_total",
                "Counter of policy levels for audit events (1 per request).",
                &["level"],
            ),
            rejected: counter(
                "apiserver_audit_requests_rejected_total",
                "Counter of apiserver requests rejected due to an error in audit logging backend.",
                &[],
            )
            .with(&[]),
        }
    }

    pub(super) fn event(&self) {
        self.events.inc();
    }

    pub(super) fn level(&self, level: Level) {
        self.levels.inc(&[level.as_str()]);
    }

    /// A request was not served because its event could not be kept.
    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// Events that this part of the way could not deliver.
    pub(super) fn lost(&self, plugin: &str, events: usize, why: &str) {
        self.errors.with(&[plugin]).inc_by(events as u64);
        tracing::error!(plugin, events, why, "Error in audit plugin");
    }
}
