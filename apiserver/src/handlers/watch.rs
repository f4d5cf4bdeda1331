//! WATCH: a cursor into shared events, each framed once per encoding.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::Status;
use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::selection::Selection;
use super::{errors, format, get, namespace, table_options};
use crate::cache::{Entry, EventType, Freshness, Item, Start, Watch, WatchRequest};
use crate::registry::Served;
use crate::request::accept::{Allowed, Encoding, Format, ROUTE_LIST, Transform};
use crate::request::options::ListOptions;
use crate::response::{self, Response, encode, table};
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
    let format = format(cx, &ROUTE_LIST, Allowed::Watch)?;
    let mut options = ListOptions::parse(&cx.query, true)?;
    options.watch = true;
    let name = if cx.info.verb_in_path || cx.info.parts.len() > 1 { cx.info.name.as_str() } else { "" };
    let selection = Selection::new(served, &options, &namespace(served, cx), name)?;
    let cache = served.cache.as_ref().ok_or_else(super::method_not_allowed)?;
    let initial = options.send_initial_events.unwrap_or_default();
    let start = match (options.resource_version.as_str(), options.send_initial_events) {
        ("", Some(true)) => Start::State(Freshness::Consistent),
        ("0", Some(true)) => Start::State(Freshness::Any),
        (text, Some(true)) => Start::State(Freshness::AtLeast(get::parse_version(text)?)),
        ("", Some(false)) => Start::Now(Freshness::Consistent),
        ("0", Some(false)) => Start::Now(Freshness::Any),
        // Without sendInitialEvents these two begin with what is there, as they always did.
        ("", None) => Start::State(Freshness::Consistent),
        ("0", None) => Start::State(Freshness::Any),
        (text, _) => Start::After(get::parse_version(text)?),
    };
    let scope = selection.scope(served);
    let request = WatchRequest {
        matcher: selection.matcher(&scope),
        scope,
        start,
        bookmarks: options.bookmarks.then_some(BOOKMARKS),
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
            return Ok(answer(format, Body::from(frame)));
        }
        Err(error) => return Err(errors::of_read(error)),
    };
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        // Upstream spreads the end of watches between once and twice the minimum.
        _ => cx.server.config.min_request_timeout.mul_f64(1.0 + rand::random::<f64>()),
    };
    let (tx, rx) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(16);
    let gauge = cx.server.metrics.long_running.with(&[
        "apiserver",
        &served.resource.group,
        &served.resource.plural,
        if selection.namespace.is_empty() { "cluster" } else { "namespace" },
        "",
        "WATCH",
        &served.resource.version,
    ]);
    let shutdown = cx.server.shutdown.clone();
    tokio::spawn(async move {
        gauge.inc();
        let deadline = Instant::now() + timeout;
        let run = run(watch, selection, sender, initial, &tx);
        tokio::select! {
            () = run => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = shutdown.cancelled() => {}
            () = tx.closed() => {}
        }
        gauge.dec();
    });
    let stream = tokio_stream::wrappers::ReceiverStream::new(rx);
    Ok(answer(format, Body::from_stream(stream)))
}

fn answer(format: Format, body: Body) -> Response {
    let content_type = match format.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ if format.stream => "application/json;stream=watch",
        _ => "application/json",
    };
    let mut answer = response::bytes(StatusCode::OK, content_type, Bytes::new());
    *answer.body_mut() = body;
    answer
}

/// Makes the frames of one watch.
struct Frames {
    served: Arc<Served>,
    format: Format,
    table: table::Options,
    columns_sent: std::sync::atomic::AtomicBool,
}

type Sender = mpsc::Sender<Result<Bytes, std::convert::Infallible>>;

impl Frames {
    /// A number for this watch's format under which events keep their frames; `None` for Tables,
    /// whose ages change.
    fn shared(&self) -> Option<u32> {
        let kind = match (self.format.encoding, self.format.transform) {
            (Encoding::Json, None) => 1,
            (Encoding::Protobuf, None) => 2,
            (Encoding::Json, Some(Transform::PartialObjectMetadata("v1"))) => 3,
            (Encoding::Protobuf, Some(Transform::PartialObjectMetadata("v1"))) => 4,
            _ => return None,
        };
        Some((u32::from(self.served.ordinal) << 4) | kind)
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
                api::canonicalize(self.served.schema, &mut object);
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
                encode::partial_metadata(metadata, version)
            }
        };
        encode::value_frame("BOOKMARK", &object, self.format).unwrap_or_default()
    }
}

async fn run(mut watch: Watch, selection: Selection, frames: Frames, initial: bool, tx: &Sender) {
    if let Some(snapshot) = watch.initial.take() {
        let namespace = Some(selection.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let mut batch = Vec::new();
        for entry in snapshot.range(namespace, None) {
            if !selection.matches(entry) {
                continue;
            }
            batch.extend_from_slice(&frames.entry(EventType::Added, entry));
            if batch.len() > 64 * 1024 && tx.send(Ok(std::mem::take(&mut batch).into())).await.is_err() {
                return;
            }
        }
        if initial {
            batch.extend_from_slice(&frames.bookmark(snapshot.revision(), true));
        }
        if !batch.is_empty() && tx.send(Ok(batch.into())).await.is_err() {
            return;
        }
    }
    loop {
        match watch.next().await {
            Ok(Item::Events(events)) => {
                let mut frames_of_batch: Vec<Bytes> = events
                    .iter()
                    .map(|(kind, event)| match frames.shared() {
                        Some(number) => event.frame(*kind, number, |entry| frames.entry(*kind, entry)),
                        None => frames.entry(*kind, event.entry(*kind)),
                    })
                    .collect();
                let chunk = if frames_of_batch.len() == 1 {
                    frames_of_batch.remove(0)
                } else {
                    Bytes::from(frames_of_batch.concat())
                };
                if tx.send(Ok(chunk)).await.is_err() {
                    return;
                }
            }
            Ok(Item::Bookmark(revision)) => {
                if tx.send(Ok(frames.bookmark(revision, false))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Nobody left to tell means nothing to do about it.
                let _ = tx.send(Ok(frames.error(&errors::of_read(error)))).await;
                return;
            }
        }
    }
}
