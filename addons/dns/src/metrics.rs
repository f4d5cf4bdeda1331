//! Metrics under the names of CoreDNS, which dashboards know: a server block for the root, with its plugins
//! `kubernetes`, `forward` and `cache`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use component_base::metrics::{Counter, CounterVec, Gauge, HistogramVec, Registry, Stability, exponential_buckets};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

/// Where all questions are taken, and in no view.
const ZONE: &str = ".";
const VIEW: &str = "";
/// Sizes that questions and answers fall into.
const SIZES: [f64; 14] =
    [0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16_000.0, 32_000.0, 48_000.0, 64_000.0];

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// Nobody: the question was none.
    None,
    Kubernetes,
    Forward,
}

impl Plugin {
    fn name(self) -> &'static str {
        match self {
            Plugin::None => "",
            Plugin::Kubernetes => "kubernetes",
            Plugin::Forward => "forward",
        }
    }
}

/// All of them; clones share values.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    server: Arc<str>,
    requests: CounterVec,
    responses: CounterVec,
    duration: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    panics: Counter,
    upstream: HistogramVec,
    rejected: Counter,
    cache_hits: CounterVec,
    cache_misses: Counter,
    cache_entries: Gauge<f64, std::sync::atomic::AtomicU64>,
}

impl Metrics {
    /// Those of a server that answers at these addresses.
    pub fn new(port: u16) -> Self {
        let registry = Registry::new();
        let server: Arc<str> = format!("dns://:{port}").into();
        let counter = |name: &str, help: &str, labels: &'static [&'static str]| {
            registry.counter_vec(&format!("coredns_{name}"), help, Stability::Alpha, labels)
        };
        let histogram = |name: &str, help: &str, labels: &'static [&'static str], buckets: &[f64]| {
            registry.histogram_vec(&format!("coredns_{name}"), help, Stability::Alpha, labels, buckets)
        };
        let times = exponential_buckets(0.000_25, 2.0, 16);
        Self {
            requests: counter(
                "dns_requests_total",
                "Counter of DNS requests made per zone, protocol and family",
                &["server", "zone", "view", "proto", "family", "type"],
            ),
            responses: counter(
                "dns_responses_total",
                "Counter of response status codes",
                &["server", "zone", "view", "rcode", "plugin"],
            ),
            duration: histogram(
                "dns_request_duration_seconds",
                "Histogram of the time (in seconds) each request took per zone",
                &["server", "zone", "view"],
                &times,
            ),
            request_size: histogram(
                "dns_request_size_bytes",
                "Size of a request in bytes per zone and protocol",
                &["server", "zone", "view", "proto"],
                &SIZES,
            ),
            response_size: histogram(
                "dns_response_size_bytes",
                "Size of the returned response in bytes",
                &["server", "zone", "view", "proto"],
                &SIZES,
            ),
            panics: counter("panics_total", "Number of panics", &[]).with(&[]),
            upstream: histogram(
                "proxy_request_duration_seconds",
                "Histogram of the time each request to an upstream server took",
                &["proxy_name", "to", "rcode"],
                &times,
            ),
            rejected: counter(
                "forward_max_concurrent_rejects_total",
                "Counter of the number of queries rejected because the concurrent queries were at maximum",
                &[],
            )
            .with(&[]),
            cache_hits: counter("cache_hits_total", "The count of cache hits", &["server", "type", "zones", "view"]),
            cache_misses: counter(
                "cache_misses_total",
                "The count of cache misses. Deprecated, derive misses from cache hits/requests counters",
                &["server", "zones", "view"],
            )
            .with(&[&server, ZONE, VIEW]),
            cache_entries: registry
                .gauge_vec(
                    "coredns_cache_entries",
                    "The number of elements in the cache",
                    Stability::Alpha,
                    &["server", "zones", "view"],
                )
                .with(&[&server, ZONE, VIEW]),
            registry,
            server,
        }
    }

    /// What `/metrics` shows.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A question came.
    pub fn asked(&self, tcp: bool, peer: SocketAddr, kind: RecordType, size: usize) {
        let protocol = protocol(tcp);
        let family = if peer.is_ipv4() { "1" } else { "2" };
        self.requests.inc(&[&self.server, ZONE, VIEW, protocol, family, type_name(kind)]);
        self.request_size.observe(&[&self.server, ZONE, VIEW, protocol], size as f64);
    }

    /// It was answered.
    pub fn answered(&self, tcp: bool, code: ResponseCode, plugin: Plugin, size: usize, took: Duration) {
        self.responses.inc(&[&self.server, ZONE, VIEW, code_name(code), plugin.name()]);
        self.response_size.observe(&[&self.server, ZONE, VIEW, protocol(tcp)], size as f64);
        self.duration.observe_duration(&[&self.server, ZONE, VIEW], took);
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    pub(crate) fn upstream_answered(&self, upstream: SocketAddr, code: ResponseCode, took: Duration) {
        self.upstream.observe_duration(&["forward", &upstream.to_string(), code_name(code)], took);
    }

    pub(crate) fn rejected(&self) {
        self.rejected.inc();
    }

    pub(crate) fn cache_hit(&self, denial: bool) {
        let kind = if denial { "denial" } else { "success" };
        self.cache_hits.inc(&[&self.server, kind, ZONE, VIEW]);
    }

    pub(crate) fn cache_missed(&self) {
        self.cache_misses.inc();
    }

    pub(crate) fn cache_holds(&self, entries: usize) {
        self.cache_entries.set(entries as f64);
    }
}

fn protocol(tcp: bool) -> &'static str {
    if tcp { "tcp" } else { "udp" }
}

/// The types that are told apart: a label whose values come from outside would grow without bound.
fn type_name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A
        | RecordType::AAAA
        | RecordType::ANY
        | RecordType::CNAME
        | RecordType::HTTPS
        | RecordType::MX
        | RecordType::NS
        | RecordType::PTR
        | RecordType::SOA
        | RecordType::SRV
        | RecordType::SVCB
        | RecordType::TXT => kind.into(),
        _ => "other",
    }
}

fn code_name(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}
