//! Metrics of the aggregator, in upstream's names.

use component_base::metrics::{CounterVec, GaugeVec, Registry, Stability};

/// Registered once per server.
pub struct Metrics {
    unavailable: GaugeVec,
    unavailable_total: CounterVec,
    /// Aggregated discovery documents made.
    pub discovery_aggregations: CounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        Self {
            unavailable: registry.gauge_vec(
                "aggregator_unavailable_apiservice",
                "Gauge of APIServices which are marked as unavailable broken down by APIService name.",
                Stability::Alpha,
                &["name"],
            ),
            unavailable_total: registry.counter_vec(
                "aggregator_unavailable_apiservice_total",
                "Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
                Stability::Alpha,
                &["name", "reason"],
            ),
            discovery_aggregations: registry.counter_vec(
                "aggregator_discovery_aggregation_count_total",
                "Counter of number of times discovery was aggregated",
                Stability::Alpha,
                &[],
            ),
        }
    }

    /// What an APIService is now.
    pub fn state(&self, name: &str, available: bool) {
        self.unavailable.set(&[name], if available { 0.0 } else { 1.0 });
    }

    /// It ceased to be available.
    pub fn lost(&self, name: &str, reason: &str) {
        self.unavailable_total.inc(&[name, reason]);
    }

    /// It is gone.
    pub fn forget(&self, name: &str) {
        self.unavailable.remove(&[name]);
    }
}
