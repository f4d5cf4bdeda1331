//! One watch: a stream of typed events decoded frame by frame from the body.
//!
//! Knows nothing of lists or restarts; [`crate::informer`] adds those.

use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, header};
use http_body::Body as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::error::{Error, Result, Status};
use crate::resources::Resource;
use crate::transport::{Client, ResponseBody};
use crate::verbs::{ACCEPT_JSON, ACCEPT_METADATA, Query};

/// Annotation of the bookmark that ends the initial events of a streamed list.
pub const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// The longest frame read; the server stores nothing near it.
const MAX_FRAME: usize = 64 << 20;

/// What to watch, from where.
#[derive(Debug, Clone, Default)]
pub struct WatchParams {
    pub label_selector: String,
    pub field_selector: String,
    /// Events after this version; empty together with `send_initial_events` starts with the state.
    pub resource_version: String,
    /// Streams the current state first (WatchList).
    pub send_initial_events: bool,
    /// The server ends the watch after this.
    pub timeout: Option<Duration>,
    /// Asks for `PartialObjectMetadata` only.
    pub metadata_only: bool,
}

/// One event of a watch.
#[derive(Debug, Clone)]
pub enum WatchEvent<T> {
    Added(T),
    Modified(T),
    Deleted(T),
    /// Everything up to this version has been sent; `initial_end` marks the end of the initial state.
    Bookmark {
        resource_version: String,
        initial_end: bool,
    },
}

/// Events of one watch, in order. Ends when the server ends the watch.
pub struct WatchStream<T> {
    body: ResponseBody,
    buffer: BytesMut,
    /// How far `buffer` was searched for a line end.
    scanned: usize,
    marker: PhantomData<fn() -> T>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct BookmarkObject {
    metadata: crate::meta::ObjectMeta,
}

impl Client {
    /// Opens a watch.
    pub async fn watch<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        params: &WatchParams,
    ) -> Result<WatchStream<T>> {
        let mut query = Query::default();
        query
            .push("watch", "true")
            .push("allowWatchBookmarks", "true")
            .push("labelSelector", &params.label_selector)
            .push("fieldSelector", &params.field_selector)
            .push("resourceVersion", &params.resource_version);
        if params.send_initial_events {
            query.push("sendInitialEvents", "true").push("resourceVersionMatch", "NotOlderThan");
        }
        if let Some(timeout) = params.timeout {
            query.push("timeoutSeconds", &timeout.as_secs().to_string());
        }
        let path = query.append_to(resource.path(namespace, None, None));
        let accept = if params.metadata_only { ACCEPT_METADATA } else { ACCEPT_JSON };
        let request = Request::get(path).header(header::ACCEPT, accept).body(Bytes::new())?;
        let response = self.send_ok(request).await?;
        Ok(WatchStream { body: response.into_body(), buffer: BytesMut::new(), scanned: 0, marker: PhantomData })
    }
}

impl<T: DeserializeOwned> WatchStream<T> {
    /// The next event; `None` when the watch has ended; [`Error::Api`] for an `ERROR` event.
    /// Cancellation safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<WatchEvent<T>>> {
        loop {
            if let Some(line) = self.take_line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(decode(&line));
            }
            if self.buffer.len() > MAX_FRAME {
                return Some(Err(Error::Config("a watch frame is too long".into())));
            }
            let frame = std::future::poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await;
            match frame {
                None => {
                    // The last frame may lack its line end.
                    let rest = self.buffer.split();
                    self.scanned = 0;
                    if rest.iter().all(u8::is_ascii_whitespace) {
                        return None;
                    }
                    return Some(decode(&rest));
                }
                Some(Err(error)) => return Some(Err(Error::Transport(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        let found = memchr::memchr(b'\n', &self.buffer[self.scanned..]);
        match found {
            Some(at) => {
                let line = self.buffer.split_to(self.scanned + at + 1);
                self.scanned = 0;
                Some(line)
            }
            None => {
                self.scanned = self.buffer.len();
                None
            }
        }
    }
}

/// The kind and the object of a frame as every server writes it, found without reading the object. Whatever looks
/// different is decoded as a whole.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(b"{\"type\":\"")?;
    let end = memchr::memchr(b'"', rest)?;
    let object = rest[end..].strip_prefix(b"\",\"object\":")?;
    Some((&rest[..end], object.trim_ascii_end().strip_suffix(b"}")?))
}

fn event_of<T>(kind: &[u8]) -> Option<fn(T) -> WatchEvent<T>> {
    match kind {
        b"ADDED" => Some(WatchEvent::Added),
        b"MODIFIED" => Some(WatchEvent::Modified),
        b"DELETED" => Some(WatchEvent::Deleted),
        _ => None,
    }
}

fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<WatchEvent<T>> {
    let undecodable = |source| Error::Decode { path: "watch".into(), source };
    // What does not decode here says why below.
    if let Some((kind, object)) = split(line)
        && let Some(event) = event_of(kind)
        && let Ok(object) = serde_json::from_slice(object)
    {
        return Ok(event(object));
    }
    let frame: Frame<'_> = serde_json::from_slice(line).map_err(undecodable)?;
    let object = frame.object.get();
    let parse = || serde_json::from_str::<T>(object).map_err(undecodable);
    match frame.kind.as_ref() {
        "ADDED" => Ok(WatchEvent::Added(parse()?)),
        "MODIFIED" => Ok(WatchEvent::Modified(parse()?)),
        "DELETED" => Ok(WatchEvent::Deleted(parse()?)),
        "BOOKMARK" => {
            let bookmark: BookmarkObject = serde_json::from_str(object).map_err(undecodable)?;
            Ok(WatchEvent::Bookmark {
                initial_end: bookmark.metadata.annotation(INITIAL_EVENTS_END) == Some("true"),
                resource_version: bookmark.metadata.resource_version,
            })
        }
        "ERROR" => Err(Error::Api(Box::new(Status::from_answer(500, object.as_bytes())))),
        other => Err(Error::Config(format!("unknown watch event type {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn frames_are_read_however_they_are_written() {
        for line in [
            r#"{"type":"ADDED","object":{"a":"}\"","b":{"object":1}}}"#,
            r#"{"object":{"a":"}\"","b":{"object":1}},"type":"ADDED"}"#,
            r#"{ "type": "ADDED", "object": {"a":"}\"","b":{"object":1}} }"#,
            r#"{"type":"ADDED","object":{"a":"}\"","b":{"object":1}},"more":{}}"#,
        ] {
            match decode::<Value>(format!("{line}\n").as_bytes()) {
                Ok(WatchEvent::Added(object)) => assert_eq!(object, json!({"a": "}\"", "b": {"object": 1}}), "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        let bookmark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}"#;
        match decode::<Value>(bookmark.as_bytes()) {
            Ok(WatchEvent::Bookmark { resource_version, initial_end: false }) => assert_eq!(resource_version, "7"),
            other => panic!("{other:?}"),
        }
        for line in
            [r#"{"type":"ADDED","object":{"a":}}"#, r#"{"type":"ADDED","object":{}"#, r#"{"type":"X","object":{}}"#]
        {
            assert!(decode::<Value>(line.as_bytes()).is_err(), "{line}");
        }
    }
}
