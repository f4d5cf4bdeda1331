//! kube-proxy's metrics, under upstream's names (subsystem `kubeproxy`).

use std::time::Duration;

use component_base::metrics::{CounterVec, GaugeVec, HistogramVec, Registry, Stability, exponential_buckets};

use crate::backend::SyncReport;
use crate::types::IpFamily;

const FAMILY: &[&str] = &["ip_family"];

/// All of them; clones share values.
#[derive(Clone)]
#[allow(missing_docs)] // each is explained by its help text
pub struct Metrics {
    registry: Registry,
    sync: HistogramVec,
    full_sync: HistogramVec,
    partial_sync: HistogramVec,
    last: GaugeVec,
    last_queued: GaugeVec,
    pub endpoint_changes_pending: GaugeVec,
    pub endpoint_changes_total: CounterVec,
    pub service_changes_pending: GaugeVec,
    pub service_changes_total: CounterVec,
    restore_failures: CounterVec,
    partial_restore_failures: CounterVec,
    rules_total: GaugeVec,
    rules_last: GaugeVec,
    no_local_endpoints: GaugeVec,
    pub healthz_total: CounterVec,
    pub livez_total: CounterVec,
    pub conntrack_deleted: CounterVec,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let buckets = exponential_buckets(0.001, 2.0, 15);
        let histogram = |name: &str, help: &str| {
            registry.histogram_vec(&format!("kubeproxy_{name}"), help, Stability::Alpha, FAMILY, &buckets)
        };
        let gauge = |name: &str, help: &str, labels: &'static [&'static str]| {
            registry.gauge_vec(&format!("kubeproxy_{name}"), help, Stability::Alpha, labels)
        };
        let counter = |name: &str, help: &str, labels: &'static [&'static str]| {
            registry.counter_vec(&format!("kubeproxy_{name}"), help, Stability::Alpha, labels)
        };
        Self {
            sync: histogram("sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds"),
            full_sync: histogram(
                "sync_full_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for full resyncs",
            ),
            partial_sync: histogram(
                "sync_partial_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for partial resyncs",
            ),
            last: gauge(
                "sync_proxy_rules_last_timestamp_seconds",
                "The last time proxy rules were successfully synced",
                FAMILY,
            ),
            last_queued: gauge(
                "sync_proxy_rules_last_queued_timestamp_seconds",
                "The last time a sync of proxy rules was queued",
                FAMILY,
            ),
            endpoint_changes_pending: gauge(
                "sync_proxy_rules_endpoint_changes_pending",
                "Pending proxy rules Endpoint changes",
                &[],
            ),
            endpoint_changes_total: counter(
                "sync_proxy_rules_endpoint_changes_total",
                "Cumulative proxy rules Endpoint changes",
                &[],
            ),
            service_changes_pending: gauge(
                "sync_proxy_rules_service_changes_pending",
                "Pending proxy rules Service changes",
                &[],
            ),
            service_changes_total: counter(
                "sync_proxy_rules_service_changes_total",
                "Cumulative proxy rules Service changes",
                &[],
            ),
            restore_failures: counter(
                "sync_proxy_rules_iptables_restore_failures_total",
                "Cumulative proxy iptables restore failures",
                FAMILY,
            ),
            partial_restore_failures: counter(
                "sync_proxy_rules_iptables_partial_restore_failures_total",
                "Cumulative proxy iptables partial restore failures",
                FAMILY,
            ),
            rules_total: gauge(
                "sync_proxy_rules_iptables_total",
                "Total number of iptables rules owned by kube-proxy",
                &["table", "ip_family"],
            ),
            rules_last: gauge(
                "sync_proxy_rules_iptables_last",
                "Number of iptables rules written by kube-proxy in last sync",
                &["table", "ip_family"],
            ),
            no_local_endpoints: gauge(
                "sync_proxy_rules_no_local_endpoints_total",
                "Number of services with a Local traffic policy and no endpoints",
                &["traffic_policy", "ip_family"],
            ),
            healthz_total: counter("proxy_healthz_total", "Cumulative proxy healthz HTTP status", &["code"]),
            livez_total: counter("proxy_livez_total", "Cumulative proxy livez HTTP status", &["code"]),
            conntrack_deleted: counter(
                "conntrack_reconciler_deleted_entries_total",
                "Cumulative conntrack flows deleted by conntrack reconciler",
                FAMILY,
            ),
            registry,
        }
    }
}

impl Metrics {
    /// What `/metrics` serves.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A change waits to be synced.
    pub fn queued(&self, family: IpFamily, now: jiff::Timestamp) {
        self.last_queued.set(&[family.as_str()], now.as_duration().as_secs_f64());
    }

    /// A sync ended well.
    pub fn synced(&self, family: IpFamily, full: bool, took: Duration, now: jiff::Timestamp, report: SyncReport) {
        let labels = &[family.as_str()];
        self.took(family, full, took);
        self.last.set(labels, now.as_duration().as_secs_f64());
        #[allow(clippy::cast_precision_loss)] // far below 2^52 rules
        let number = |n: usize| n as f64;
        for (table, total, written) in
            [("filter", report.filter_rules, report.filter_rules), ("nat", report.nat_rules, report.nat_rules_written)]
        {
            self.rules_total.set(&[table, family.as_str()], number(total));
            self.rules_last.set(&[table, family.as_str()], number(written));
        }
        for (policy, count) in
            [("internal", report.no_local_endpoints_internal), ("external", report.no_local_endpoints_external)]
        {
            self.no_local_endpoints.set(&[policy, family.as_str()], number(count));
        }
    }

    /// A sync failed.
    pub fn failed(&self, family: IpFamily, full: bool, took: Duration) {
        self.took(family, full, took);
        self.restore_failures.inc(&[family.as_str()]);
        if !full {
            self.partial_restore_failures.inc(&[family.as_str()]);
        }
    }

    fn took(&self, family: IpFamily, full: bool, took: Duration) {
        let labels = &[family.as_str()];
        self.sync.observe_duration(labels, took);
        if full { &self.full_sync } else { &self.partial_sync }.observe_duration(labels, took);
    }
}
