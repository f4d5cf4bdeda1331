//! The server's own metrics, in upstream's names.

use std::time::Duration;

use component_base::metrics::{CounterVec, GaugeVec, HistogramVec, Registry, Stability};

use super::walk::Context;

/// Upstream's buckets of `apiserver_request_duration_seconds`.
const DURATIONS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Registered once per server.
pub struct Metrics {
    pub registry: Registry,
    requests: CounterVec,
    durations: HistogramVec,
    /// Watches open now.
    pub long_running: GaugeVec,
}

const REQUEST_LABELS: &[&str] =
    &["code", "component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"];
const DURATION_LABELS: &[&str] =
    &["component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"];
const LONG_RUNNING_LABELS: &[&str] = &["component", "group", "resource", "scope", "subresource", "verb", "version"];

impl Metrics {
    /// A fresh registry with everything registered.
    pub fn new() -> Self {
        let registry = Registry::new();
        Self {
            requests: registry.counter_vec(
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
                Stability::Stable,
                REQUEST_LABELS,
            ),
            durations: registry.histogram_vec(
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
                Stability::Stable,
                DURATION_LABELS,
                DURATIONS,
            ),
            long_running: registry.gauge_vec(
                "apiserver_longrunning_requests",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
                Stability::Stable,
                LONG_RUNNING_LABELS,
            ),
            registry,
        }
    }

    /// Counts an answered request.
    pub fn observe(&self, cx: &Context, code: u16, took: Duration) {
        let info = &cx.info;
        // Labels only of what is served: paths that clients make up must not grow the registry.
        let known = info.is_resource && cx.server.registry.find(&info.group, &info.version, &info.resource).is_some();
        let (group, version, resource, subresource, scope) = if known {
            let scope = if !info.name.is_empty() {
                "resource"
            } else if !info.namespace.is_empty() {
                "namespace"
            } else {
                "cluster"
            };
            (info.group.as_str(), info.version.as_str(), info.resource.as_str(), info.subresource.as_str(), scope)
        } else {
            ("", "", "", "", "")
        };
        let subresource = if subresource.len() > 24 { "" } else { subresource };
        let verb = match info.verb.as_str() {
            "get" | "list" | "watch" | "deletecollection" | "patch" | "delete" => info.verb.to_ascii_uppercase(),
            "create" | "post" => "POST".to_string(),
            "update" | "put" => "PUT".to_string(),
            _ => "other".to_string(),
        };
        let dry_run = if cx.query.get("dryRun") == Some("All") { "All" } else { "" };
        let code = code.to_string();
        self.requests.inc(&[&code, "apiserver", dry_run, group, resource, scope, subresource, &verb, version]);
        if verb != "WATCH" {
            self.durations
                .observe_duration(&["apiserver", dry_run, group, resource, scope, subresource, &verb, version], took);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
