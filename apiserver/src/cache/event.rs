//! One change as watchers share it: the new object, the old one, and each frame encoded once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::entry::{Encodings, Entry};
use crate::storage::Revision;

/// What a watcher is told about an object. Depends on the watcher: an object that stops matching a
/// selector was modified in the store and deleted for the watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The object appeared, or began to match.
    Added,
    /// The object changed and matched before and after.
    Modified,
    /// The object went, or no longer matches.
    Deleted,
}

impl EventType {
    /// The `type` of a watch event on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// Decides which objects a watcher or a list wants. Closures over [`Entry`] work.
pub trait Matcher: Send + Sync + 'static {
    /// Whether the object is wanted.
    fn matches(&self, entry: &Entry) -> bool;
}

impl<F: Fn(&Entry) -> bool + Send + Sync + 'static> Matcher for F {
    fn matches(&self, entry: &Entry) -> bool {
        self(entry)
    }
}

/// One change of one object, shared by everybody who watches it.
pub struct Event {
    /// Resource version of the change.
    pub revision: Revision,
    /// The object after the change; `None` for a delete.
    pub object: Option<Arc<Entry>>,
    /// The object before the change; `None` for a create.
    pub previous: Option<Arc<Entry>>,
    pub(super) at: Instant,
    gone: OnceLock<Arc<Entry>>,
    frames: Encodings,
    /// Frames are not kept any more.
    old: AtomicBool,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Event({:?} -> {:?} @{})", self.previous, self.object, self.revision)
    }
}

/// Frame key of the JSON frames that [`Event::json_frame`] makes; callers' own keys start above.
const JSON: u32 = 0;

impl Event {
    pub(super) fn new(
        revision: Revision,
        object: Option<Arc<Entry>>,
        previous: Option<Arc<Entry>>,
        at: Instant,
    ) -> Event {
        debug_assert!(object.is_some() || previous.is_some());
        Event {
            revision,
            object,
            previous,
            at,
            gone: OnceLock::new(),
            frames: Encodings::default(),
            old: AtomicBool::new(false),
        }
    }

    /// Any of the two objects, for what does not change: key, namespace, name.
    pub fn any(&self) -> &Arc<Entry> {
        self.object.as_ref().or(self.previous.as_ref()).expect("an event has an object or a previous one")
    }

    /// What this change is to somebody who wants the objects that `wanted` accepts; `None` if it is
    /// nothing to them.
    pub fn classify(&self, wanted: impl Fn(&Entry) -> bool) -> Option<EventType> {
        let wanted = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|e| wanted(e));
        match (wanted(&self.previous), wanted(&self.object)) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }

    /// The object to send with an event of type `kind`: for `Deleted`, the last state that was
    /// there, under the resource version of this change.
    pub fn entry(&self, kind: EventType) -> &Arc<Entry> {
        match kind {
            EventType::Added | EventType::Modified => self.object.as_ref().expect("only a delete has no object"),
            EventType::Deleted => self.gone.get_or_init(|| {
                let previous = self.previous.as_ref().expect("only a create has no previous object");
                previous.at_revision(self.revision, previous.create_revision())
            }),
        }
    }

    /// A frame of this event as sent to watchers, made once per (`kind`, `encoding`) while the event is new. For those who
    /// come late it is made again: what was kept for one of them would stay for as long as the event.
    ///
    /// `encoding` is the caller's number for a media type and form; it must be above zero (zero is
    /// [`Event::json_frame`]) and below 2^30.
    pub fn frame(&self, kind: EventType, encoding: u32, make: impl FnOnce(&Entry) -> Bytes) -> Bytes {
        let entry = self.entry(kind);
        if self.old.load(Ordering::Relaxed) {
            return make(entry);
        }
        self.frames.get_or_make((encoding << 2) | kind as u32, || make(entry))
    }

    /// The JSON frame: `{"type":…,"object":…}` and a newline.
    pub fn json_frame(&self, kind: EventType) -> Bytes {
        self.frame(kind, JSON, |entry| json_frame(kind, entry.json()))
    }

    /// Drops the frames made so far, and keeps none from now on.
    pub(super) fn forget_frames(&self) {
        self.old.store(true, Ordering::Relaxed);
        self.frames.clear();
    }

    /// Bytes that only this event keeps alive, roughly: the state it replaced.
    pub(super) fn size(&self) -> usize {
        // Constant over the event's life, so that what was added can be taken away again.
        self.previous.as_ref().map_or(0, |p| p.json().len() + 256) + 160
    }
}

/// A JSON watch frame around an encoded object.
pub fn json_frame(kind: EventType, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_str().as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
    out.freeze()
}
