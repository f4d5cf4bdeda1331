//! What is measured of every request.
//!
//! The series of a combination of labels are found once and kept, so that a request costs a look-up by a
//! key on the stack and no allocation.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use ahash::AHashMap;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use component_base::metrics::{Counter, CounterVec, Histogram, HistogramVec, Registry, Stability, exponential_buckets};
use http::Method;
use http_body::{Frame, SizeHint};
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::DURATIONS;
use crate::response::Response;
use crate::server::walk::Context;

const TOTAL_LABELS: &[&str] =
    &["code", "component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"];
const DURATION_LABELS: &[&str] =
    &["component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"];
const PLAIN_LABELS: &[&str] = &["component", "group", "resource", "scope", "subresource", "verb", "version"];

/// Subresources that are connections rather than requests.
const CONNECT: [&str; 5] = ["log", "exec", "portforward", "attach", "proxy"];

/// The request metrics.
pub struct Requests {
    total: CounterVec,
    durations: HistogramVec,
    sli: HistogramVec,
    sizes: HistogramVec,
    field_validation: HistogramVec,
    known: RwLock<AHashMap<Box<[u8]>, Arc<Series>>>,
}

/// The series of one combination of labels.
struct Series {
    totals: RwLock<SmallVec<[(u16, Counter); 2]>>,
    /// `None` for watches, whose length says nothing.
    durations: Option<(Histogram, Histogram)>,
    sizes: Option<Histogram>,
}

struct Labels<'a> {
    dry_run: &'a str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'a str,
    verb: &'a str,
}

impl Requests {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            total: registry.counter_vec(
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
                Stability::Stable,
                TOTAL_LABELS,
            ),
            durations: registry.histogram_vec(
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
                Stability::Stable,
                DURATION_LABELS,
                DURATIONS,
            ),
            sli: registry.histogram_vec(
                "apiserver_request_sli_duration_seconds",
                "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
                Stability::Alpha,
                PLAIN_LABELS,
                // As the other one, but for its first two.
                &DURATIONS[2..],
            ),
            sizes: registry.histogram_vec(
                "apiserver_response_sizes",
                "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
                Stability::Stable,
                PLAIN_LABELS,
                &exponential_buckets(1000.0, 10.0, 7),
            ),
            field_validation: registry.histogram_vec(
                "field_validation_request_duration_seconds",
                "Response latency distribution in seconds for each field validation value",
                Stability::Alpha,
                &["field_validation"],
                &DURATIONS[2..],
            ),
            known: RwLock::default(),
        }
    }

    /// Counts an answered request; the size of a body of unknown length is counted when it ends.
    pub fn observe(&self, cx: &Context, answer: Response, took: Duration) -> Response {
        let series = self.series(&labels(cx));
        series.count(answer.status().as_u16(), || {
            let labels = labels(cx);
            let code = answer.status();
            self.total.with(&[
                code.as_str(),
                "apiserver",
                labels.dry_run,
                labels.group,
                labels.resource,
                labels.scope,
                labels.subresource,
                labels.verb,
                labels.version,
            ])
        });
        let seconds = took.as_secs_f64();
        if let Some((durations, sli)) = &series.durations {
            durations.observe(seconds);
            sli.observe(took.saturating_sub(cx.latencies.of_others()).as_secs_f64());
        }
        if matches!(cx.method, Method::POST | Method::PUT | Method::PATCH)
            && let Some(directive) = cx.query.get("fieldValidation")
            && matches!(directive, "Ignore" | "Warn" | "Strict")
        {
            self.field_validation.observe(&[directive], seconds);
        }
        match &series.sizes {
            Some(sizes) => counted(answer, sizes),
            None => answer,
        }
    }

    fn series(&self, labels: &Labels<'_>) -> Arc<Series> {
        let mut key: SmallVec<[u8; 160]> = SmallVec::new();
        for part in [
            labels.group,
            labels.version,
            labels.resource,
            labels.subresource,
            labels.verb,
            labels.scope,
            labels.dry_run,
        ] {
            key.extend_from_slice(part.as_bytes());
            key.push(0);
        }
        if let Some(series) = self.known.read().get(&key[..]) {
            return series.clone();
        }
        let plain =
            ["apiserver", labels.group, labels.resource, labels.scope, labels.subresource, labels.verb, labels.version];
        let timed = !matches!(labels.verb, "WATCH" | "CONNECT");
        let durations = timed.then(|| {
            let durations = self.durations.with(&[
                "apiserver",
                labels.dry_run,
                labels.group,
                labels.resource,
                labels.scope,
                labels.subresource,
                labels.verb,
                labels.version,
            ]);
            (durations, self.sli.with(&plain))
        });
        // As upstream, only of what reads.
        let sizes = matches!(labels.verb, "GET" | "LIST").then(|| self.sizes.with(&plain));
        let series = Arc::new(Series { totals: RwLock::default(), durations, sizes });
        self.known.write().entry(key[..].into()).or_insert(series).clone()
    }
}

impl Series {
    fn count(&self, code: u16, make: impl FnOnce() -> Counter) {
        if let Some((_, counter)) = self.totals.read().iter().find(|(known, _)| *known == code) {
            counter.inc();
            return;
        }
        let counter = make();
        counter.inc();
        let mut totals = self.totals.write();
        if totals.iter().all(|(known, _)| *known != code) {
            totals.push((code, counter));
        }
    }
}

/// The labels of a request: only what is served, because paths that clients make up must not grow the registry.
fn labels(cx: &Context) -> Labels<'_> {
    let info = &cx.info;
    let dry_run = match cx.query.get("dryRun") {
        None => "",
        Some("All") => "All",
        Some(_) => "invalid",
    };
    let Some(served) = &cx.served else {
        let health = match info.path.as_str() {
            path @ ("/healthz" | "/livez" | "/readyz") => path,
            _ => "",
        };
        return Labels {
            dry_run,
            group: "",
            version: "",
            resource: "",
            subresource: health,
            scope: "",
            verb: method_verb(&cx.method),
        };
    };
    let scope = if !info.name.is_empty() || info.verb == "create" {
        "resource"
    } else if !info.namespace.is_empty() {
        "namespace"
    } else {
        "cluster"
    };
    let subresource = served.resource.subresource(&info.subresource).map_or("", |_| info.subresource.as_str());
    let content_type = cx.headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let verb = match method_verb(&cx.method) {
        _ if CONNECT.contains(&subresource) => "CONNECT",
        "GET" if info.verb == "watch" || cx.query.flag("watch") => "WATCH",
        "GET" if scope != "resource" => "LIST",
        "PATCH" if content_type == Some(b"application/apply-patch+yaml") => "APPLY",
        verb => verb,
    };
    Labels {
        dry_run,
        group: &served.resource.group,
        version: &served.resource.version,
        resource: &served.resource.plural,
        subresource,
        scope,
        verb,
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Observes the size of an answer's body, now or when it has been sent.
pub fn counted(answer: Response, sizes: &Histogram) -> Response {
    match answer.body().size_hint().exact() {
        Some(length) => {
            sizes.observe(length as f64);
            answer
        }
        None => answer.map(|inner| Body::new(Counted { inner, bytes: 0, sizes: sizes.clone() })),
    }
}

/// A body that observes how long it was.
struct Counted {
    inner: Body,
    bytes: u64,
    sizes: Histogram,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.bytes += data.len() as u64;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.sizes.observe(self.bytes as f64);
    }
}
