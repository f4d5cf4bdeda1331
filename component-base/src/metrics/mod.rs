//! Metrics in Prometheus' text format 0.0.4, on `prometheus-client`.
//!
//! A [`Registry`] is made in `main` and passed down; each unit registers its own metrics in its
//! `metrics.rs`. `/metrics` is [`Registry::router`]. Names are upstream's, with `_total` or without.

mod histogram;
mod timing;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use histogram::Buckets;
pub use histogram::Histogram;
use http::header;
use parking_lot::Mutex;
use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
pub use timing::{TimingRatio, TimingRatioVec};

/// How stable upstream declares a metric; goes into the help text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    Internal,
    Alpha,
    Beta,
    Stable,
}

impl Stability {
    fn prefix(self) -> &'static str {
        match self {
            Stability::Internal => "[INTERNAL]",
            Stability::Alpha => "[ALPHA]",
            Stability::Beta => "[BETA]",
            Stability::Stable => "[STABLE]",
        }
    }
}

type Labels = Vec<(&'static str, String)>;

/// A counter per combination of label values.
#[derive(Clone)]
pub struct CounterVec {
    names: &'static [&'static str],
    family: Family<Labels, Counter>,
}

/// A gauge per combination of label values.
#[derive(Clone)]
pub struct GaugeVec {
    names: &'static [&'static str],
    family: Family<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>,
}

/// A histogram per combination of label values.
#[derive(Clone)]
pub struct HistogramVec {
    names: &'static [&'static str],
    family: Family<Labels, Histogram, Buckets>,
}

fn labels(names: &'static [&'static str], values: &[&str]) -> Labels {
    assert_eq!(names.len(), values.len(), "one value for each label of {names:?}");
    names.iter().copied().zip(values.iter().map(|value| value.to_string())).collect()
}

impl CounterVec {
    /// The counter of these label values; keep it where it is incremented often.
    pub fn with(&self, values: &[&str]) -> Counter {
        self.family.get_or_create_owned(&labels(self.names, values))
    }

    pub fn inc(&self, values: &[&str]) {
        self.family.get_or_create(&labels(self.names, values)).inc();
    }
}

impl GaugeVec {
    pub fn with(&self, values: &[&str]) -> Gauge<f64, std::sync::atomic::AtomicU64> {
        self.family.get_or_create_owned(&labels(self.names, values))
    }

    pub fn set(&self, values: &[&str], value: f64) {
        self.family.get_or_create(&labels(self.names, values)).set(value);
    }

    pub fn remove(&self, values: &[&str]) {
        self.family.remove(&labels(self.names, values));
    }
}

impl HistogramVec {
    pub fn with(&self, values: &[&str]) -> Histogram {
        self.family.get_or_create_owned(&labels(self.names, values))
    }

    pub fn observe(&self, values: &[&str], value: f64) {
        self.family.get_or_create(&labels(self.names, values)).observe(value);
    }

    pub fn observe_duration(&self, values: &[&str], value: Duration) {
        self.observe(values, value.as_secs_f64());
    }
}

/// Prometheus' default buckets, in seconds.
pub const DEFAULT_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// `count` buckets, each `factor` times the one before.
pub fn exponential_buckets(start: f64, factor: f64, count: usize) -> Vec<f64> {
    std::iter::successors(Some(start), |bucket| Some(bucket * factor)).take(count).collect()
}

/// A component's metrics. Clones share them.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Mutex<prometheus_client::registry::Registry>>,
    /// Counters whose names do not end with `_total`.
    bare: Arc<Mutex<BTreeSet<String>>>,
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    fn help(stability: Stability, help: &str) -> String {
        format!("{} {help}", stability.prefix())
    }

    /// A counter. A name that does not end with `_total` stays as it is.
    pub fn counter_vec(
        &self,
        name: &str,
        help: &str,
        stability: Stability,
        names: &'static [&'static str],
    ) -> CounterVec {
        let family = Family::<Labels, Counter>::default();
        // The library appends the suffix itself.
        let stem = name.strip_suffix("_total").unwrap_or_else(|| {
            self.bare.lock().insert(name.to_owned());
            name
        });
        self.inner.lock().register(stem, Self::help(stability, help), family.clone());
        CounterVec { names, family }
    }

    pub fn gauge_vec(&self, name: &str, help: &str, stability: Stability, names: &'static [&'static str]) -> GaugeVec {
        let family = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        self.inner.lock().register(name, Self::help(stability, help), family.clone());
        GaugeVec { names, family }
    }

    pub fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        stability: Stability,
        names: &'static [&'static str],
        buckets: &[f64],
    ) -> HistogramVec {
        let family = Family::new_with_constructor(Buckets(buckets.into()));
        self.inner.lock().register(name, Self::help(stability, help), family.clone());
        HistogramVec { names, family }
    }

    /// A family of [`TimingRatio`]s.
    pub fn timing_ratio_vec(
        &self,
        name: &str,
        help: &str,
        stability: Stability,
        names: &'static [&'static str],
        buckets: &[f64],
    ) -> TimingRatioVec {
        let family = Family::new_with_constructor(timing::Bounds(buckets.into()));
        let help = format!("EXPERIMENTAL: {}", Self::help(stability, help));
        self.inner.lock().register(name, help, family.clone());
        TimingRatioVec { names, family }
    }

    /// The text that `/metrics` answers, with the process's own figures.
    pub fn encode(&self) -> String {
        let mut open = String::new();
        prometheus_client::encoding::text::encode_registry(&mut open, &self.inner.lock())
            .expect("writing to a String cannot fail");
        let mut text = classic(&open, &self.bare.lock());
        process_metrics(&mut text);
        text
    }

    /// The route `/metrics`.
    pub fn router(&self) -> Router {
        let registry = self.clone();
        Router::new().route(
            "/metrics",
            get(move || async move {
                (
                    [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")],
                    registry.encode(),
                )
            }),
        )
    }
}

/// OpenMetrics to the classic text: counters are named with their suffix in `HELP` and `TYPE` too,
/// and help texts lose the full stop the library adds.
fn classic(open: &str, bare: &BTreeSet<String>) -> String {
    let mut out = String::with_capacity(open.len());
    let mut held_help: Option<(&str, &str)> = None;
    let mut strip: Option<&str> = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            held_help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            strip = (kind == "counter" && bare.contains(name)).then_some(name);
            let suffix = if kind == "counter" && strip.is_none() { "_total" } else { "" };
            if let Some((_, help)) = held_help.take() {
                let help = help.strip_suffix('.').unwrap_or(help);
                out += &format!("# HELP {name}{suffix} {help}\n");
            }
            out += &format!("# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            match strip.and_then(|name| Some((name, line.strip_prefix(name)?.strip_prefix("_total")?))) {
                Some((name, rest)) => {
                    out += name;
                    out += rest;
                }
                None => out += line,
            }
            out.push('\n');
        }
    }
    out
}

// A clock tick is a hundredth of a second on every Linux that Kubernetes runs on.
const TICKS: f64 = 100.0;

/// The fields of `/proc/self/stat` behind the name, as numbers.
fn process_stat() -> Option<Vec<f64>> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(|field| field.parse().unwrap_or(0.0)).collect())
}

/// Seconds since the epoch at which this process began.
fn process_start_seconds(stat: &[f64]) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + stat.get(19)? / TICKS)
}

/// When this process began, to the second; `None` where there is no `/proc`.
pub fn process_start() -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(process_start_seconds(&process_stat()?)? as i64).ok()
}

/// The standard `process_*` gauges, read from `/proc/self`; nothing where there is no `/proc`.
fn process_metrics(out: &mut String) {
    let mut put = |name: &str, kind: &str, help: &str, value: f64| {
        *out += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    if let Some(stat) = process_stat() {
        let number = |index: usize| stat.get(index).copied().unwrap_or(0.0);
        put(
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            (number(11) + number(12)) / TICKS,
        );
        put("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", number(20));
        put("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", number(21) * 4096.0);
        if let Some(start) = process_start_seconds(&stat) {
            put("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", start);
        }
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        put("process_open_fds", "gauge", "Number of open file descriptors.", entries.count() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_the_classic_text() {
        let registry = Registry::new();
        let requests =
            registry.counter_vec("apiserver_request_total", "Counter of requests.", Stability::Stable, &["code"]);
        requests.inc(&["200"]);
        let bare = registry.counter_vec("webhook_rejection_count", "Refusals", Stability::Alpha, &["name"]);
        bare.inc(&["a"]);
        let latency = registry.histogram_vec("latency_seconds", "How long", Stability::Alpha, &["verb"], &[0.1, 1.0]);
        latency.observe(&["GET"], 0.5);
        let use_of =
            registry.timing_ratio_vec("seat_utilization", "Seats in use", Stability::Alpha, &["level"], &[0.5]);
        use_of.with(&["a"]).set(1.0);
        let text = registry.encode();
        assert!(
            text.starts_with(
                "# HELP apiserver_request_total [STABLE] Counter of requests.\n\
             # TYPE apiserver_request_total counter\n\
             apiserver_request_total{code=\"200\"} 1\n\
             # HELP webhook_rejection_count [ALPHA] Refusals\n\
             # TYPE webhook_rejection_count counter\n\
             webhook_rejection_count{name=\"a\"} 1\n\
             # HELP latency_seconds [ALPHA] How long\n\
             # TYPE latency_seconds histogram\n"
            ),
            "{text}"
        );
        assert!(text.contains("latency_seconds_bucket{le=\"1.0\",verb=\"GET\"} 1"), "{text}");
        assert!(text.contains("# HELP seat_utilization EXPERIMENTAL: [ALPHA] Seats in use\n"), "{text}");
        let of = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.rsplit(' ').next().unwrap_or_default().parse::<f64>().unwrap_or_default()
        };
        assert!(of("seat_utilization_count{level=\"a\"}") > 0.0, "{text}");
        let count = of("seat_utilization_count{level=\"a\"}");
        assert_eq!(of("seat_utilization_bucket{le=\"+Inf\",level=\"a\"}"), count, "{text}");
        assert!(!text.contains("# EOF"));
    }
}
