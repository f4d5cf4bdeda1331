//! Watching a resource: a cursor into shared events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::{self, Stream};
use tokio::time::Instant;

use super::entry::Entry;
use super::event::{Event, EventType, Matcher};
use super::resource::{Freshness, ResourceCache};
use super::scope::{Channel, Place, Scope};
use super::snapshot::Snapshot;
use super::{Error, Result};
use crate::storage::Revision;

/// Events handed out at a time: enough to batch writes, few enough to be fair.
const BATCH: usize = 256;

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the changes after this resource version.
    After(Revision),
    /// With the changes after now, "now" being as fresh as asked.
    Now(Freshness),
    /// With every object there is (as fresh as asked), then what changes after.
    State(Freshness),
}

/// What to watch.
#[derive(Clone)]
pub struct WatchRequest {
    /// The narrowest scope that contains everything wanted. A field the resource does not have
    /// counts as [`Scope::All`].
    pub scope: Scope,
    /// What is wanted within the scope; `None` for all of it. An object that begins or ceases to
    /// match is added or deleted for this watcher.
    pub matcher: Option<Arc<dyn Matcher>>,
    /// Where to begin.
    pub start: Start,
    /// How often to yield a bookmark; `None` for never.
    pub bookmarks: Option<Duration>,
    /// When the caller will end the watch; a last bookmark comes shortly before.
    pub ends_in: Option<Duration>,
}

/// How long before its end a watch yields its last bookmark; upstream's figure.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

impl std::fmt::Debug for WatchRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchRequest")
            .field("scope", &self.scope)
            .field("start", &self.start)
            .field("bookmarks", &self.bookmarks)
            .finish_non_exhaustive()
    }
}

/// What a watch yields.
#[derive(Debug)]
pub enum Item {
    /// Events in order; never empty.
    Events(Vec<(EventType, Arc<Event>)>),
    /// Everything up to this resource version has been yielded.
    Bookmark(Revision),
}

/// A running watch. Dropping it ends it.
pub struct Watch {
    cache: Arc<ResourceCache>,
    place: Place,
    matcher: Option<Arc<dyn Matcher>>,
    channel: Arc<Channel>,
    cursor: u64,
    backlog: VecDeque<Arc<Event>>,
    /// Events up to here are done with.
    seen: Revision,
    /// Whether an event was yielded.
    begun: bool,
    generation: u64,
    bookmarks: Option<Duration>,
    next_bookmark: Instant,
    /// When the last bookmark is due.
    last_bookmark: Option<Instant>,
    /// The objects to send before anything else, with [`Start::State`]: those of the scope are the
    /// caller's to pick. Take it before calling [`Watch::next`].
    pub initial: Option<Snapshot>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("place", &self.place).field("seen", &self.seen).finish()
    }
}

impl ResourceCache {
    /// Starts a watch.
    ///
    /// # Errors
    /// [`Error::TooOld`] if history does not reach back to the start; as
    /// [`ResourceCache::wait_fresh`].
    pub async fn watch(self: &Arc<Self>, request: WatchRequest) -> Result<Watch> {
        let place = match request.scope {
            Scope::All => Place::All,
            Scope::Namespace(namespace) if self.spec.namespaced => Place::Namespace(namespace.into()),
            Scope::Namespace(_) => Place::All,
            Scope::Key(key) => Place::Key(key.into()),
            Scope::Field { label, value } => match self.spec.field_index(&label) {
                Some(at) => Place::Field(at, value.into()),
                None => Place::All,
            },
        };
        match request.start {
            Start::After(_) => self.load().await?,
            Start::Now(freshness) | Start::State(freshness) => self.wait_fresh(freshness).await?,
        }
        let now = Instant::now();
        let last_bookmark = request.ends_in.and_then(|left| now.checked_add(left)?.checked_sub(LAST_BOOKMARK));
        // Events are published under the write lock: between reading the ring and joining the
        // channel none can slip through.
        let delivered = self.storage.delivered();
        let state = self.state.read();
        // Moves under the same lock when the state is replaced.
        let generation = self.generation.load(Ordering::Acquire);
        let current = delivered.max(state.applied);
        let mut initial = None;
        let seen = match request.start {
            Start::After(revision) => revision,
            Start::Now(_) => current,
            Start::State(_) => {
                initial = Some(Snapshot::new(self.spec.clone(), current, state.map.clone()));
                current
            }
        };
        let position = state.position_after(seen).ok_or(Error::TooOld { requested: seen, oldest: state.floor })?;
        let backlog = state.ring.range(position..).filter(|e| place.concerns(e)).cloned().collect();
        let channel = self.channels.lock().join(&place);
        let cursor = channel.end();
        drop(state);
        Ok(Watch {
            cache: self.clone(),
            place,
            matcher: request.matcher,
            channel,
            cursor,
            backlog,
            seen,
            begun: false,
            generation,
            bookmarks: request.bookmarks,
            next_bookmark: next_bookmark(now, request.bookmarks.unwrap_or_default(), last_bookmark),
            last_bookmark,
            initial,
        })
    }
}

fn next_bookmark(now: Instant, every: Duration, last: Option<Instant>) -> Instant {
    let regular = now + every;
    last.filter(|last| *last > now).map_or(regular, |last| last.min(regular))
}

impl Watch {
    /// The resource version the watch has reached: where it began, or the last event yielded.
    pub fn revision(&self) -> Revision {
        self.seen
    }

    /// The next events or bookmark; waits for them. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::TooOld`] when this watcher is too far behind, or the cache had to start over. The
    /// watch is finished then.
    pub async fn next(&mut self) -> Result<Item> {
        loop {
            if let Some(item) = self.poll_ready()? {
                return Ok(item);
            }
            let channel = self.channel.clone();
            let notified = channel.notify.notified();
            tokio::pin!(notified);
            // Registered before looking again, so that no wake-up falls in between.
            notified.as_mut().enable();
            if let Some(item) = self.poll_ready()? {
                return Ok(item);
            }
            match self.bookmarks {
                Some(_) => tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep_until(self.next_bookmark) => {}
                },
                None => notified.await,
            }
        }
    }

    /// The resource version up to which everything has been yielded, for a bookmark at will; `None`
    /// while events are waiting.
    pub fn bookmark_revision(&mut self) -> Result<Option<Revision>> {
        // Whatever is delivered is in the channel: read in this order, an empty channel means that
        // nothing up to `delivered` is left.
        let delivered = self.cache.storage.delivered();
        self.fill()?;
        Ok(self.backlog.is_empty().then_some(delivered.max(self.seen)))
    }

    /// As a stream that ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Item>> + Send {
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(item) => Some((Ok(item), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    fn poll_ready(&mut self) -> Result<Option<Item>> {
        loop {
            if self.bookmarks.is_some() && Instant::now() >= self.next_bookmark {
                let reached = self.bookmark_revision()?;
                if let Some(reached) = reached {
                    let every = self.bookmarks.unwrap_or_default();
                    self.next_bookmark = next_bookmark(Instant::now(), every, self.last_bookmark);
                    self.seen = reached;
                    return Ok(Some(Item::Bookmark(reached)));
                }
            }
            self.fill()?;
            if self.backlog.is_empty() {
                return Ok(None);
            }
            let mut events = Vec::new();
            while let Some(event) = self.backlog.pop_front() {
                // Once it runs, a watch may find several events of one revision.
                if event.revision < self.seen || (event.revision == self.seen && !self.begun) {
                    continue;
                }
                self.begun = true;
                self.seen = event.revision;
                let wanted = |entry: &Entry| {
                    self.place.contains(entry) && self.matcher.as_ref().is_none_or(|m| m.matches(entry))
                };
                if let Some(kind) = event.classify(wanted) {
                    events.push((kind, event));
                    if events.len() >= BATCH {
                        break;
                    }
                }
            }
            if !events.is_empty() {
                return Ok(Some(Item::Events(events)));
            }
        }
    }

    /// Reads what is new into an empty backlog.
    fn fill(&mut self) -> Result<()> {
        if self.generation != self.cache.generation.load(Ordering::Acquire) {
            return Err(Error::TooOld { requested: self.seen, oldest: self.cache.revision() });
        }
        if !self.backlog.is_empty() || self.channel.read(&mut self.cursor, &mut self.backlog, BATCH) {
            return Ok(());
        }
        // Further behind than the channel reaches: the resource's ring is longer.
        let state = self.cache.state.read();
        let position =
            state.position_after(self.seen).ok_or(Error::TooOld { requested: self.seen, oldest: state.floor })?;
        self.backlog.extend(state.ring.range(position..).filter(|e| self.place.concerns(e)).cloned());
        self.cursor = self.channel.end();
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.cache.channels.lock().leave(&self.place, &self.channel);
    }
}
