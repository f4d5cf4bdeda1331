//! WATCH: a cursor into shared events, each framed once per encoding.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::Status;
use axum::body::Body;
use bytes::Bytes;
use component_base::metrics::{Counter, Histogram};
use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt as _};
use http::StatusCode;
use serde_json::{Value, json};

use super::selection::Selection;
use super::{errors, format, get, namespace, table_options};
use crate::cache::{Entry, Event, EventType, Freshness, Item, Snapshot, Start, Watch, WatchRequest};
use crate::registry::Served;
use crate::request::accept::{self, Allowed, Encoding, Format, Route, Transform};
use crate::request::options::ListOptions;
use crate::response::{self, Response, encode, table, websocket};
use crate::server::walk::Context;

/// How often bookmarks are sent to those who want them; upstream's figure.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// The annotation of the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Watches a collection or one object.
///
/// # Errors
/// Bad options and selectors; 410 for a version whose history is gone.
pub async fn handle(cx: &Context, served: &Arc<Served>) -> Result<Response, Status> {
    let format = format(cx, Route::List, Allowed::Watch)?;
    let mut options = ListOptions::parse(&cx.query, true)?;
    options.watch = true;
    let name = if cx.info.verb_in_path || cx.info.parts.len() > 1 { cx.info.name.as_str() } else { "" };
    let selection = Selection::new(served, &options, &namespace(served, cx), name)?;
    let cache = served.cache.as_ref().ok_or_else(super::method_not_allowed)?;
    let initial = options.bookmarks && options.send_initial_events == Some(true);
    let start = match (options.resource_version.as_str(), options.send_initial_events) {
        ("", Some(true)) => Start::State(Freshness::Consistent),
        ("0", Some(true)) => Start::State(Freshness::Any),
        (text, Some(true)) => Start::State(Freshness::AtLeast(get::parse_version(text).map_err(get::of_store)?)),
        ("", Some(false)) => Start::Now(Freshness::Consistent),
        ("0", Some(false)) => Start::Now(Freshness::Any),
        // Without sendInitialEvents these two begin with what is there, as they always did.
        ("", None) => Start::State(Freshness::Consistent),
        ("0", None) => Start::State(Freshness::Any),
        (text, _) => Start::After(get::parse_version(text).map_err(get::of_store)?),
    };
    let scope = selection.scope(served);
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        // Upstream spreads the end of watches between once and twice the minimum.
        _ => cx.server.config.min_request_timeout.mul_f64(1.0 + rand::random::<f64>()),
    };
    let request = WatchRequest {
        matcher: selection.matcher(&scope),
        scope,
        start,
        bookmarks: options.bookmarks.then_some(BOOKMARKS),
        ends_in: Some(timeout),
    };
    let table = table_options(cx)?;
    let sender =
        Frames { served: served.clone(), format, table, columns_sent: std::sync::atomic::AtomicBool::new(false) };
    let watch = match cache.watch(request).await {
        Ok(watch) => watch,
        // A watch that cannot begin says so as an event: clients of watches look there.
        Err(error @ crate::cache::Error::TooOld { .. }) => {
            let status = errors::of_read(error);
            let frame = encode::value_frame("ERROR", &status.to_value(), format)?;
            return Ok(answer(cx, format, stream::iter([Ok(frame)])));
        }
        Err(error) => return Err(errors::of_read(error)),
    };
    let gauge = cx.server.metrics.long_running.with(&[
        "apiserver",
        &served.resource.group,
        &served.resource.plural,
        if selection.namespace.is_empty() { "cluster" } else { "namespace" },
        "",
        "WATCH",
        &served.resource.version,
    ]);
    let counted = Counted::new(gauge);
    let tracked = cx.server.flow_control.watches().begin(&cx.info, node(&options.field_selector).as_deref());
    let labels = [served.resource.group.as_ref(), served.resource.plural.as_ref(), served.resource.version.as_ref()];
    let sent = Sent {
        events: cx.server.metrics.watch_events.with(&labels),
        sizes: cx.server.metrics.watch_events_sizes.with(&labels),
    };
    let running = Running::new(watch, selection, sender, initial, sent);
    // The connection's own task runs the watch: with one of its own, every event would wake two.
    let deadline = tokio::time::sleep(timeout);
    let shutdown = cx.server.lifecycle.clone().watch();
    // Rows of a definition end when it changes or goes: upstream closes their watches, too.
    let served_no_more = served.custom().map(|custom| custom.definition.ended.clone()).unwrap_or_default();
    let end = async move {
        tokio::select! {
            () = deadline => {}
            () = shutdown => {}
            () = served_no_more.cancelled_owned() => {}
        }
        drop((counted, tracked));
    };
    // What ends a watch is shared by all of them, so that looking at it takes locks that all of them take. In a set of
    // its own it is looked at when it has something to say, not at every event.
    let mut end: FuturesUnordered<_> = std::iter::once(end).collect();
    let end = async move { end.next().await };
    let stream = stream::unfold(running, Running::chunk).take_until(end);
    Ok(answer(cx, format, stream))
}

/// The one node whose pods are watched.
fn node(selector: &str) -> Option<String> {
    let terms = apimachinery::fields::Selector::parse(selector).ok()?.requirements;
    terms.into_iter().find(|term| term.field == "spec.nodeName" && !term.negated).map(|term| term.value)
}

fn answer(
    cx: &Context,
    format: Format,
    chunks: impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
) -> Response {
    if websocket::is_wanted(&cx.headers) {
        return websocket::watch(cx, format, chunks);
    }
    let content_type = match format.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Encoding::Cbor => accept::CBOR_SEQUENCE,
        _ if format.stream => "application/json;stream=watch",
        _ => "application/json",
    };
    let mut answer = response::bytes(StatusCode::OK, content_type, Bytes::new());
    *answer.body_mut() = Body::from_stream(chunks);
    answer
}

/// Makes the frames of one watch.
struct Frames {
    served: Arc<Served>,
    format: Format,
    table: table::Options,
    columns_sent: std::sync::atomic::AtomicBool,
}

impl Frames {
    /// A number for this watch's format under which events keep their frames; `None` for Tables,
    /// whose ages change.
    fn shared(&self) -> Option<u32> {
        let kind = match (self.format.encoding, self.format.transform) {
            (Encoding::Json, None) => 1,
            (Encoding::Protobuf, None) => 2,
            (Encoding::Json, Some(Transform::PartialObjectMetadata("v1"))) => 3,
            (Encoding::Protobuf, Some(Transform::PartialObjectMetadata("v1"))) => 4,
            (Encoding::Cbor, None) => 5,
            (Encoding::Cbor, Some(Transform::PartialObjectMetadata("v1"))) => 6,
            _ => return None,
        };
        Some((self.served.ordinal << 4) | kind)
    }

    fn table(&self) -> table::Options {
        let sent = self.columns_sent.swap(true, std::sync::atomic::Ordering::Relaxed);
        table::Options { with_columns: !sent, ..self.table }
    }

    fn entry(&self, kind: EventType, entry: &Entry) -> Bytes {
        encode::event_frame(&self.served, kind.as_str(), entry, self.format, &self.table())
            .unwrap_or_else(|status| self.error(&status))
    }

    fn error(&self, status: &Status) -> Bytes {
        encode::value_frame("ERROR", &status.to_value(), self.format).unwrap_or_default()
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object: Value = match self.format.transform {
            None => {
                let mut object = json!({
                    "kind": self.served.resource.kind,
                    "apiVersion": self.served.api_version(),
                    "metadata": metadata,
                });
                if self.served.custom().is_none() {
                    api::canonicalize(self.served.schema(), &mut object);
                }
                object["kind"] = self.served.resource.kind.as_ref().into();
                object["apiVersion"] = self.served.api_version().into();
                object
            }
            Some(Transform::Table(version)) => {
                let object = json!({"metadata": metadata});
                let table = self.table().of_object(&self.served, &object, version);
                table.unwrap_or(object)
            }
            Some(Transform::PartialObjectMetadata(version) | Transform::PartialObjectMetadataList(version)) => {
                encode::partial_metadata(&self.served, metadata, version)
            }
        };
        encode::value_frame("BOOKMARK", &object, self.format).unwrap_or_default()
    }
}

type Gauge = prometheus_client::metrics::gauge::Gauge<f64, std::sync::atomic::AtomicU64>;

/// Counts a running watch for as long as it lives, however it ends.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Counted {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is counted of the events of a watch.
struct Sent {
    events: Counter,
    sizes: Histogram,
}

impl Sent {
    fn count(&self, frame: &Bytes) {
        self.events.inc();
        self.sizes.observe(frame.len() as f64);
    }
}

type Events = Vec<(EventType, Arc<Event>)>;

/// A watch on its way to a client.
struct Running {
    watch: Watch,
    selection: Selection,
    frames: Frames,
    /// What is left of the state to begin with.
    state: Option<State>,
    /// Whether a bookmark ends the state.
    initial: bool,
    ended: bool,
    sent: Sent,
}

struct State {
    snapshot: Snapshot,
    /// First storage key not sent yet.
    next: Option<String>,
}

/// Bytes of initial events put together before they are handed to the connection.
const CHUNK: usize = 64 * 1024;

impl Running {
    fn new(mut watch: Watch, selection: Selection, frames: Frames, initial: bool, sent: Sent) -> Running {
        let state = watch.initial.take().map(|snapshot| State { snapshot, next: None });
        Running { watch, selection, frames, state, initial, ended: false, sent }
    }

    /// The next piece of the body; `None` at its end.
    async fn chunk(mut self) -> Option<(Result<Bytes, std::convert::Infallible>, Running)> {
        if self.ended {
            return None;
        }
        if let Err(status) = self.prepare_state().await {
            self.ended = true;
            return Some((Ok(self.frames.error(&status)), self));
        }
        let bytes = loop {
            let bytes = match self.state_chunk() {
                Some(bytes) => bytes,
                None => match self.watch.next().await {
                    Ok(Item::Events(events)) => match self.prepare_events(events).await {
                        Ok(events) => self.events(&events),
                        Err(status) => {
                            self.ended = true;
                            self.frames.error(&status)
                        }
                    },
                    Ok(Item::Bookmark(revision)) => self.frames.bookmark(revision, false),
                    Err(error) => {
                        self.ended = true;
                        self.frames.error(&errors::of_read(error))
                    }
                },
            };
            // Nothing of what happened may concern this client.
            if !bytes.is_empty() || self.ended {
                break bytes;
            }
        };
        Some((Ok(bytes), self))
    }

    /// Has what may need a conversion converted before it is framed, and leaves out what the client does not
    /// want once it is converted.
    async fn prepare_events(&self, mut events: Events) -> Result<Events, Status> {
        let served = &self.frames.served;
        if served.custom().is_none() {
            return Ok(events);
        }
        if self.selection.needs_conversion() {
            let both = events.iter().flat_map(|(_, event)| [&event.object, &event.previous]).flatten();
            let both: Vec<Arc<Entry>> = both.filter(|entry| self.selection.could_match(entry)).cloned().collect();
            served.prepare(&both).await?;
            let selection = &self.selection;
            let wanted = |(_, event): (EventType, Arc<Event>)| {
                event.classify(|entry| selection.matches(entry)).map(|kind| (kind, event))
            };
            events = events.into_iter().filter_map(wanted).collect();
        }
        let entries: Vec<Arc<Entry>> = events.iter().map(|(kind, event)| event.entry(*kind).clone()).collect();
        served.prepare(&entries).await?;
        Ok(events)
    }

    async fn prepare_state(&self) -> Result<(), Status> {
        let Some(state) = self.state.as_ref().filter(|state| state.next.is_none()) else { return Ok(()) };
        if self.frames.served.custom().is_none() {
            return Ok(());
        }
        let namespace = Some(self.selection.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let entries: Vec<Arc<Entry>> =
            state.snapshot.range(namespace, None).filter(|entry| self.selection.could_match(entry)).cloned().collect();
        self.frames.served.prepare(&entries).await
    }

    /// The next piece of the state to begin with; `None` once all of it was sent.
    fn state_chunk(&mut self) -> Option<Bytes> {
        let state = self.state.as_mut()?;
        let namespace = Some(self.selection.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let mut chunk = Vec::new();
        let mut next = None;
        for entry in state.snapshot.range(namespace, state.next.as_deref()) {
            if chunk.len() >= CHUNK {
                next = Some(entry.key().to_string());
                break;
            }
            if self.selection.matches(entry) {
                let frame = self.frames.entry(EventType::Added, entry);
                self.sent.count(&frame);
                chunk.extend_from_slice(&frame);
            }
        }
        match next {
            Some(next) => state.next = Some(next),
            None => {
                if self.initial {
                    chunk.extend_from_slice(&self.frames.bookmark(state.snapshot.revision(), true));
                }
                // The snapshot keeps deleted objects alive: it goes as soon as it was sent.
                self.state = None;
            }
        }
        (!chunk.is_empty()).then(|| chunk.into())
    }

    fn events(&self, events: &[(EventType, Arc<Event>)]) -> Bytes {
        let frame = |(kind, event): &(EventType, Arc<Event>)| {
            let frame = match self.frames.shared() {
                Some(number) => event.frame(*kind, number, |entry| self.frames.entry(*kind, entry)),
                None => self.frames.entry(*kind, event.entry(*kind)),
            };
            self.sent.count(&frame);
            frame
        };
        match events {
            [one] => frame(one),
            many => Bytes::from(many.iter().map(frame).collect::<Vec<_>>().concat()),
        }
    }
}
