//! Who must be told of a change.
//!
//! Five thousand kubelets each watch the pods of their own node. If every event woke every watcher,
//! the work would grow with events times watchers. So a watcher joins the channel of the narrowest
//! scope its request has (one object, one value of an indexed field, one namespace, or everything),
//! and an event goes to the at most five channels it concerns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::entry::Entry;
use super::event::Event;

/// The narrowest set of objects a watcher's request can be about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every object of the resource.
    All,
    /// The objects of one namespace.
    Namespace(String),
    /// One object, by storage key.
    Key(String),
    /// The objects whose indexed field has a value, such as `spec.nodeName`.
    Field {
        /// The field's label.
        label: String,
        /// Its value.
        value: String,
    },
}

/// Events a channel holds for its watchers. Who falls further behind reads the resource's own ring.
const CHANNEL_EVENTS: usize = 1024;

/// Above this many watchers, wake-ups go through the [`Waker`] so that they can be batched.
const WAKE_DIRECTLY: usize = 16;

/// The events of one scope, and those waiting for more.
pub(super) struct Channel {
    ring: Mutex<ChannelRing>,
    pub notify: Notify,
    pub watchers: AtomicUsize,
    dirty: AtomicBool,
}

struct ChannelRing {
    events: VecDeque<Arc<Event>>,
    /// Sequence number of the first event in `events`.
    base: u64,
}

impl Channel {
    fn new() -> Arc<Channel> {
        Arc::new(Channel {
            ring: Mutex::new(ChannelRing { events: VecDeque::new(), base: 0 }),
            notify: Notify::new(),
            watchers: AtomicUsize::new(0),
            dirty: AtomicBool::new(false),
        })
    }

    fn push(&self, event: &Arc<Event>) {
        let mut ring = self.ring.lock();
        if ring.events.len() >= CHANNEL_EVENTS {
            ring.events.pop_front();
            ring.base += 1;
        }
        ring.events.push_back(event.clone());
    }

    /// Sequence number after the newest event.
    pub fn end(&self) -> u64 {
        let ring = self.ring.lock();
        ring.base + ring.events.len() as u64
    }

    /// Takes up to `limit` events from `cursor` on into `out`, moving `cursor`; false if some of
    /// them are gone already.
    pub fn read(&self, cursor: &mut u64, out: &mut VecDeque<Arc<Event>>, limit: usize) -> bool {
        let ring = self.ring.lock();
        let Some(from) = cursor.checked_sub(ring.base) else {
            return false;
        };
        let from = from as usize;
        let to = ring.events.len().min(from + limit);
        out.extend(ring.events.range(from..to).cloned());
        *cursor += (to - from) as u64;
        true
    }
}

/// The channels somebody is listening on.
#[derive(Default)]
pub(super) struct Channels {
    all: Option<Arc<Channel>>,
    namespaces: AHashMap<Box<str>, Arc<Channel>>,
    keys: AHashMap<Box<str>, Arc<Channel>>,
    /// By field position in the spec, then value.
    fields: AHashMap<usize, AHashMap<Box<str>, Arc<Channel>>>,
}

/// A [`Scope`] with its field resolved.
#[derive(Clone, Debug)]
pub(super) enum Place {
    All,
    Namespace(Box<str>),
    Key(Box<str>),
    Field(usize, Box<str>),
}

impl Place {
    /// Whether an object is in this scope.
    pub fn contains(&self, entry: &Entry) -> bool {
        match self {
            Place::All => true,
            Place::Namespace(namespace) => entry.namespace() == &**namespace,
            Place::Key(key) => **entry.key() == **key,
            Place::Field(at, value) => entry.field_at(*at) == &**value,
        }
    }

    /// Whether an event concerns this scope: the object was or is in it.
    pub fn concerns(&self, event: &Event) -> bool {
        [&event.object, &event.previous].into_iter().flatten().any(|entry| self.contains(entry))
    }
}

impl Channels {
    /// Joins the channel of `place`.
    pub fn join(&mut self, place: &Place) -> Arc<Channel> {
        let channel = match place {
            Place::All => self.all.get_or_insert_with(Channel::new),
            Place::Namespace(n) => self.namespaces.entry(n.clone()).or_insert_with(Channel::new),
            Place::Key(k) => self.keys.entry(k.clone()).or_insert_with(Channel::new),
            Place::Field(at, v) => {
                let values = self.fields.entry(*at).or_default();
                values.entry(v.clone()).or_insert_with(Channel::new)
            }
        };
        channel.watchers.fetch_add(1, Ordering::Relaxed);
        channel.clone()
    }

    /// Leaves it; the last one closes it.
    pub fn leave(&mut self, place: &Place, channel: &Channel) {
        if channel.watchers.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        match place {
            Place::All => self.all = None,
            Place::Namespace(n) => drop(self.namespaces.remove(n)),
            Place::Key(k) => drop(self.keys.remove(k)),
            Place::Field(at, v) => {
                if let Some(values) = self.fields.get_mut(at) {
                    values.remove(v);
                }
            }
        }
    }

    /// Puts an event into every channel it concerns, adding those to `touched`.
    pub fn dispatch(&self, event: &Arc<Event>, touched: &mut Vec<Arc<Channel>>) {
        let mut push = |channel: Option<&Arc<Channel>>| {
            if let Some(channel) = channel {
                channel.push(event);
                if !touched.iter().any(|c| Arc::ptr_eq(c, channel)) {
                    touched.push(channel.clone());
                }
            }
        };
        push(self.all.as_ref());
        let any = event.any();
        if !self.namespaces.is_empty() {
            push(self.namespaces.get(any.namespace()));
        }
        if !self.keys.is_empty() {
            push(self.keys.get(&**any.key()));
        }
        for (at, values) in &self.fields {
            let new = event.object.as_ref().map(|e| e.field_at(*at));
            let old = event.previous.as_ref().map(|e| e.field_at(*at));
            if let Some(new) = new {
                push(values.get(new));
            }
            if let Some(old) = old.filter(|old| Some(*old) != new) {
                push(values.get(old));
            }
        }
    }

    /// Every channel, to tell all watchers that the cache starts over.
    pub fn every(&self) -> Vec<Arc<Channel>> {
        let fields = self.fields.values().flat_map(|values| values.values());
        self.all.iter().chain(self.namespaces.values()).chain(self.keys.values()).chain(fields).cloned().collect()
    }
}

/// Wakes watchers. Crowded channels are woken from a task of their own, which pauses in proportion
/// to the number it woke: under load a watcher then gets several events at one wake-up, and an event
/// costs the committing thread nothing.
#[derive(Clone)]
pub(super) struct Waker(tokio::sync::mpsc::UnboundedSender<Arc<Channel>>);

/// Pause per woken watcher, and the longest pause: at a thousand watchers 4 ms.
const PAUSE_PER_WATCHER: std::time::Duration = std::time::Duration::from_micros(4);
const LONGEST_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

impl Waker {
    /// Starts the task; it ends when every clone of the waker is gone.
    pub fn start() -> Waker {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<Arc<Channel>>();
        tokio::spawn(async move {
            while let Some(first) = receiver.recv().await {
                let mut woken = 0;
                let mut next = Some(first);
                while let Some(channel) = next {
                    channel.dirty.store(false, Ordering::Release);
                    woken += channel.watchers.load(Ordering::Relaxed);
                    channel.notify.notify_waiters();
                    next = receiver.try_recv().ok();
                }
                let pause = (PAUSE_PER_WATCHER * woken as u32).min(LONGEST_PAUSE);
                if pause >= std::time::Duration::from_millis(1) {
                    tokio::time::sleep(pause).await;
                }
            }
        });
        Waker(sender)
    }

    /// Wakes the watchers of `channels`, now or soon.
    pub fn wake(&self, channels: Vec<Arc<Channel>>) {
        for channel in channels {
            if channel.watchers.load(Ordering::Relaxed) <= WAKE_DIRECTLY {
                channel.notify.notify_waiters();
            } else if !channel.dirty.swap(true, Ordering::AcqRel) {
                // A closed receiver means the runtime is shutting down: nobody is left to wake.
                let _ = self.0.send(channel);
            }
        }
    }
}
