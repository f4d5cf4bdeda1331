//! The cache of one resource: loading it, feeding it, and reading from it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::entry::Entry;
use super::metrics::{CacheMetrics, Operation, ResourceMetrics};
use super::scope::{Channels, Waker};
use super::snapshot::{Snapshot, Stash};
use super::spec::ResourceSpec;
use super::state::{RingLimits, State};
use super::write::Prepared;
use super::{Error, Result};
use crate::encryption;
use crate::storage::{self, Change, RangeRequest, Revision, Sink, Storage, Watch};

/// How long a read waits for a resource version that has not happened yet; upstream's figure.
pub(super) const FRESHNESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Objects read from the store at a time when loading.
const LOAD_PAGE: usize = 1000;

/// Changes from before a start that are read back into the ring.
const HISTORY: usize = 1000;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever is cached (`resourceVersion=0`).
    Any,
    /// Not older than this resource version.
    AtLeast(Revision),
    /// Every write acknowledged before the read began (no `resourceVersion`).
    Consistent,
}

/// What is below a resource's cache: the store, and how values are stored in it.
pub(super) struct Below {
    pub storage: Arc<dyn Storage>,
    pub stored: encryption::Storage,
}

/// The watch cache of one resource. Loads itself on first use.
pub struct ResourceCache {
    pub(super) spec: Arc<ResourceSpec>,
    pub(super) storage: Arc<dyn Storage>,
    /// Between the cache, which holds objects in the clear, and the store.
    pub(super) stored: encryption::Storage,
    pub(super) state: RwLock<State>,
    /// Locked after `state`, where both are.
    pub(super) channels: Mutex<Channels>,
    pub(super) stash: Stash,
    /// Counts how often the cache started over; watchers of an older generation get 410.
    pub(super) generation: AtomicU64,
    pub(super) metrics: ResourceMetrics,
    limits: RingLimits,
    waker: Waker,
    feed: tokio::sync::Mutex<Option<Feed>>,
    /// Whether the feed is up and the map loaded: spares readers the async lock.
    ready: AtomicBool,
    /// The resource version of the last change that the map has: who only wants to know whether something changed, as
    /// every write does of the configuration of admission, takes no lock.
    changed: AtomicU64,
    this: Weak<ResourceCache>,
}

impl std::fmt::Debug for ResourceCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ResourceCache").field(&self.spec).finish()
    }
}

struct Feed {
    _watch: Watch,
}

impl ResourceCache {
    pub(super) fn new(
        spec: ResourceSpec,
        below: Below,
        limits: RingLimits,
        waker: Waker,
        metrics: Option<Arc<CacheMetrics>>,
    ) -> Arc<ResourceCache> {
        Arc::new_cyclic(|this| ResourceCache {
            metrics: ResourceMetrics::new(metrics, &spec.group, &spec.resource),
            state: RwLock::new(State::new(&spec)),
            spec: Arc::new(spec),
            storage: below.storage,
            stored: below.stored,
            channels: Mutex::default(),
            stash: Stash::default(),
            generation: AtomicU64::new(0),
            limits,
            waker,
            feed: tokio::sync::Mutex::new(None),
            ready: AtomicBool::new(false),
            changed: AtomicU64::new(0),
            this: this.clone(),
        })
    }

    /// What is cached here.
    pub fn spec(&self) -> &Arc<ResourceSpec> {
        &self.spec
    }

    /// Loads the resource if that has not happened yet. Every read and watch does so itself.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store cannot be read.
    pub async fn load(&self) -> Result<()> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        // Loaded once, called by all: on the heap, so that the state of every request is not as large as this.
        Box::pin(self.load_now()).await
    }

    async fn load_now(&self) -> Result<()> {
        let mut feed = self.feed.lock().await;
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        // Dropping an old feed first detaches it: two feeds would deliver everything twice.
        *feed = None;
        let sink = Arc::new(FeedSink {
            cache: self.this.clone(),
            buffer: Mutex::new(Some(Vec::new())),
            broken: AtomicBool::new(false),
        });
        // Attached before reading, so that what changes while reading is in the buffer.
        let watch = self.storage.watch(&self.spec.prefix, None, sink.clone()).await?;
        let state = self.read_state().await?;

        let mut buffer = sink.buffer.lock();
        if sink.broken.load(Ordering::Acquire) {
            return Err(Error::Unavailable("the feed broke while loading".to_owned()));
        }
        {
            let mut current = self.state.write();
            *current = state;
            self.changed.store(current.applied, Ordering::Release);
            // Whoever began to watch the old state since the feed broke must start over as well.
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        self.wake_all();
        let missed = buffer.take().expect("only loading takes the buffer");
        self.publish(&missed);
        self.ready.store(true, Ordering::Release);
        self.metrics.initialized();
        drop(buffer);
        *feed = Some(Feed { _watch: watch });
        Ok(())
    }

    /// The present objects, with as much of the recent past as the store can tell: a client that
    /// watched before a restart then goes on where it was.
    async fn read_state(&self) -> Result<State> {
        let history = match self.storage.history(&self.spec.prefix, HISTORY).await {
            Ok(history) => history,
            Err(storage::Error::Compacted { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(history) = history {
            match self.read_all(Some(history.base)).await {
                Ok((entries, base)) => {
                    let mut state = State::of(&self.spec, entries, base);
                    let now = Instant::now();
                    for change in &history.changes {
                        if let Some(value) = &change.value
                            && let Some(work) = self.stored.prepare(value)
                        {
                            work.await;
                        }
                        match self.entry_of(change) {
                            Ok(entry) => {
                                state.apply(&change.key, change.revision, entry, now);
                            }
                            // Keys that nobody needs any more may be gone: without history, then.
                            Err(Error::Transform(_)) => return self.read_present().await,
                            Err(error) => tracing::error!(%error, "a change was left out of the cache"),
                        }
                    }
                    state.applied = history.until;
                    state.trim(&self.limits, now);
                    return Ok(state);
                }
                // Compacted meanwhile: without history, then.
                Err(Error::TooOld { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.read_present().await
    }

    async fn read_present(&self) -> Result<State> {
        let (entries, revision) = self.read_all(None).await?;
        Ok(State::of(&self.spec, entries, revision))
    }

    /// Every object as of `revision` (`None`: now), read and decoded from the store.
    pub(super) async fn read_all(&self, revision: Option<Revision>) -> Result<(Vec<Arc<Entry>>, Revision)> {
        let mut request =
            RangeRequest { prefix: self.spec.prefix.clone(), limit: LOAD_PAGE, revision, ..RangeRequest::default() };
        let mut entries = Vec::new();
        loop {
            let begun = Instant::now();
            let page = self.storage.range(request.clone()).await?;
            self.metrics.store(Operation::List, begun.elapsed());
            // Later pages must be of the first one's revision.
            request.revision = Some(page.revision);
            if let Some(last) = page.items.last() {
                request.start = format!("{}\0", last.key);
            }
            for item in &page.items {
                if let Some(work) = self.stored.prepare(&item.value) {
                    work.await;
                }
                match self.decode(item.clone()) {
                    Ok(entry) => entries.push(entry),
                    // Without its key the resource cannot be said to be what is left of it.
                    Err(Error::Transform(why)) => {
                        return Err(Error::Transform(format!("unable to transform key {:?}: {why}", &*item.key)));
                    }
                    // One bad value must not take the resource down; it stays in the store.
                    Err(error) => tracing::error!(%error, "left out of the cache"),
                }
            }
            if !page.more {
                return Ok((entries, page.revision));
            }
            tokio::task::yield_now().await;
        }
    }

    /// Applies changes and tells whoever watches. In revision order, from one caller at a time.
    fn publish(&self, changes: &[Change]) {
        let entries: Vec<_> = changes.iter().map(|change| self.entry_of(change)).collect();
        if let Some(Err(error)) = entries.iter().find(|entry| matches!(entry, Err(Error::Transform(_)))) {
            // Leaving it out would make the cache untrue: whoever reads next is told.
            self.start_over(error);
            return;
        }
        let now = Instant::now();
        let mut touched = Vec::new();
        let mut dispatched = 0;
        {
            let mut state = self.state.write();
            let channels = self.channels.lock();
            for (change, entry) in changes.iter().zip(entries) {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        tracing::error!(%error, "a change was left out of the cache");
                        continue;
                    }
                };
                if let Some(event) = state.apply(&change.key, change.revision, entry, now) {
                    channels.dispatch(&event, &mut touched);
                    dispatched += 1;
                }
            }
            state.trim(&self.limits, now);
            self.changed.store(state.applied, Ordering::Release);
        }
        self.metrics.events(changes.len(), dispatched);
        self.waker.wake(touched);
    }

    /// An object out of the store.
    pub(super) fn decode(&self, stored: storage::KeyValue) -> Result<Arc<Entry>> {
        let (plain, _) =
            self.stored.read(&stored.key, stored.value).map_err(|error| Error::Transform(error.message))?;
        Entry::decode(&self.spec, stored.key, stored.mod_revision, stored.create_revision, &plain)
    }

    fn entry_of(&self, change: &Change) -> Result<Option<Arc<Entry>>> {
        let Some(value) = &change.value else {
            return Ok(None);
        };
        let prepared = change.attachment.as_ref().and_then(|a| a.downcast_ref::<Prepared>());
        // A write through a resource that was registered anew meanwhile took other facts.
        if let Some(prepared) = prepared.filter(|prepared| prepared.is_of(&self.spec)) {
            return Ok(Some(prepared.commit(&self.spec, &change.key, change.revision, change.create_revision)));
        }
        let stored = storage::KeyValue {
            key: change.key.clone(),
            value: value.clone(),
            create_revision: change.create_revision,
            mod_revision: change.revision,
        };
        self.decode(stored).map(Some)
    }

    /// The feed is gone: watchers must start over, and so must the cache.
    fn start_over(&self, why: &dyn std::fmt::Display) {
        tracing::warn!(resource = %self.spec.resource, %why, "the cache starts over");
        self.ready.store(false, Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.wake_all();
    }

    fn wake_all(&self) {
        let channels = self.channels.lock().every();
        for channel in channels {
            channel.notify.notify_waiters();
        }
    }

    /// Drops what the limits allow; called from time to time for resources nothing happens to.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        if self.ready.load(Ordering::Acquire) {
            self.state.write().trim(&self.limits, now);
        }
        self.stash.sweep(now);
    }

    /// Waits until reads from memory are as fresh as asked.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the resource version does not happen within three seconds.
    pub async fn wait_fresh(&self, freshness: Freshness) -> Result<()> {
        self.load().await?;
        let wanted = match freshness {
            Freshness::Any => return Ok(()),
            Freshness::Consistent if self.storage.delivers_before_acknowledging() => return Ok(()),
            Freshness::Consistent => self.storage.current_revision().await?,
            Freshness::AtLeast(revision) => revision,
        };
        if self.revision() >= wanted {
            return Ok(());
        }
        let begun = Instant::now();
        let wait = self.storage.wait_delivered(wanted);
        let waited = tokio::time::timeout(FRESHNESS_TIMEOUT, wait).await;
        self.metrics.waited(begun.elapsed());
        if waited.is_err() {
            let current = self.revision();
            return Err(Error::TooLarge { requested: wanted, current });
        }
        Ok(())
    }

    /// The resource version reads from memory have now.
    pub fn revision(&self) -> Revision {
        // Read before the map: what is delivered is applied, so the pair can only be too careful.
        let delivered = self.storage.delivered();
        delivered.max(self.state.read().applied)
    }

    /// One object, by storage key.
    ///
    /// # Errors
    /// As [`ResourceCache::wait_fresh`], and [`Error::Corrupt`].
    pub async fn get(&self, key: &str, freshness: Freshness) -> Result<Option<Arc<Entry>>> {
        match self.load().await {
            // Another object cannot be decrypted; this one perhaps can.
            Err(Error::Transform(_)) => return self.get_from_storage(key).await,
            loaded => loaded?,
        }
        if freshness == Freshness::Consistent && !self.storage.delivers_before_acknowledging() {
            // One round trip either way; asking for the key itself needs no wait for the feed.
            return self.get_from_storage(key).await;
        }
        self.wait_fresh(freshness).await?;
        Ok(self.cached(key))
    }

    /// The resource version of the last change of this resource that memory has.
    pub fn changed_at(&self) -> Revision {
        self.changed.load(Ordering::Acquire)
    }

    /// All objects as cached now, in key order, without waiting for anything. None before loading.
    pub fn present(&self) -> Vec<Arc<Entry>> {
        self.state.read().map.values().cloned().collect()
    }

    /// One object as cached now, without waiting for anything. `None` also before loading.
    pub fn cached(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().map.get(key).cloned()
    }

    /// The objects of a namespace as cached now, without waiting for anything.
    pub fn cached_all(&self, namespace: &str) -> Vec<Arc<Entry>> {
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        self.snapshot_now().range(namespace, None).cloned().collect()
    }

    /// One object, certainly as the store has it.
    pub(super) async fn get_from_storage(&self, key: &str) -> Result<Option<Arc<Entry>>> {
        let begun = Instant::now();
        let stored = self.storage.get(key, None).await?;
        self.metrics.store(Operation::Get, begun.elapsed());
        let Some(stored) = stored else {
            return Ok(None);
        };
        match self.cached(key) {
            // The usual case: the cache is up to date and nothing needs decoding.
            Some(entry) if entry.revision() == stored.mod_revision => Ok(Some(entry)),
            _ => {
                if let Some(work) = self.stored.prepare(&stored.value) {
                    work.await;
                }
                self.decode(stored).map(Some)
            }
        }
    }

    /// One object as it was at `revision`, as far as history reaches.
    ///
    /// # Errors
    /// [`Error::TooOld`] and [`Error::TooLarge`].
    pub async fn get_at(&self, key: &str, revision: Revision) -> Result<Option<Arc<Entry>>> {
        self.load().await?;
        let Some(stored) = self.storage.get(key, Some(revision)).await? else { return Ok(None) };
        if let Some(work) = self.stored.prepare(&stored.value) {
            work.await;
        }
        self.decode(stored).map(Some)
    }

    /// All objects at one moment, in key order.
    ///
    /// # Errors
    /// As [`ResourceCache::wait_fresh`].
    pub async fn snapshot(&self, freshness: Freshness) -> Result<Snapshot> {
        match self.wait_fresh(freshness).await {
            // An etcd that does not report progress must not fail consistent lists: read it.
            Err(Error::TooLarge { .. }) if freshness == Freshness::Consistent => {
                self.metrics.consistent(true);
                let (entries, revision) = self.read_all(None).await?;
                let map = entries.into_iter().map(|e| (e.key().clone(), e)).collect();
                Ok(Snapshot::new(self.spec.clone(), revision, map))
            }
            waited => {
                waited?;
                if freshness == Freshness::Consistent {
                    self.metrics.consistent(false);
                }
                Ok(self.snapshot_now())
            }
        }
    }

    pub(super) fn snapshot_now(&self) -> Snapshot {
        let delivered = self.storage.delivered();
        let state = self.state.read();
        Snapshot::new(self.spec.clone(), delivered.max(state.applied), state.map.clone())
    }

    /// All objects as they were at exactly `revision` (`resourceVersionMatch=Exact`, and pages
    /// after the first).
    ///
    /// # Errors
    /// [`Error::TooOld`] when history no longer reaches back that far, [`Error::TooLarge`] when the
    /// revision does not happen within three seconds.
    pub async fn snapshot_at(&self, revision: Revision) -> Result<Snapshot> {
        self.wait_fresh(Freshness::AtLeast(revision)).await?;
        // What is at hand here reaches further back than the store's history, which is what clients are promised:
        // a page that cannot be had after a restart cannot be had before it either.
        let compacted = self.storage.known_compacted();
        if revision < compacted {
            return Err(Error::TooOld { requested: revision, oldest: compacted });
        }
        if let Some(map) = self.stash.get(revision) {
            return Ok(Snapshot::new(self.spec.clone(), revision, map));
        }
        let map = self.state.read().map_at(revision);
        let map = match map {
            Some(map) => map,
            None => {
                let (entries, _) = self.read_all(Some(revision)).await?;
                entries.into_iter().map(|e| (e.key().clone(), e)).collect()
            }
        };
        self.stash.put(revision, map.clone());
        Ok(Snapshot::new(self.spec.clone(), revision, map))
    }

    /// Keeps a snapshot's map at hand because pages of it will be asked for.
    pub fn keep_for_paging(&self, snapshot: &Snapshot) {
        self.stash.put(snapshot.revision(), snapshot.map().clone());
    }

    /// The objects whose indexed field has `value`, and the resource version they are of; `None` if
    /// the field has no index (then filter a snapshot).
    ///
    /// # Errors
    /// As [`ResourceCache::wait_fresh`].
    pub async fn by_field(
        &self,
        label: &str,
        value: &str,
        freshness: Freshness,
    ) -> Result<Option<(Vec<Arc<Entry>>, Revision)>> {
        self.wait_fresh(freshness).await?;
        let Some(field) = self.spec.field_index(label) else {
            return Ok(None);
        };
        let delivered = self.storage.delivered();
        let state = self.state.read();
        Ok(state.by_field(field, value).map(|found| (found, delivered.max(state.applied))))
    }

    /// The objects owned by `uid`, likewise.
    ///
    /// # Errors
    /// As [`ResourceCache::wait_fresh`].
    pub async fn by_owner(&self, uid: &str, freshness: Freshness) -> Result<Option<(Vec<Arc<Entry>>, Revision)>> {
        self.wait_fresh(freshness).await?;
        let delivered = self.storage.delivered();
        let state = self.state.read();
        Ok(state.by_owner(uid).map(|found| (found, delivered.max(state.applied))))
    }

    /// Objects cached, and bytes of their JSON; zero before loading.
    pub fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.map.len(), state.json_bytes)
    }
}

/// Takes changes from the engine: into a buffer while the cache loads, into the cache afterwards.
struct FeedSink {
    cache: Weak<ResourceCache>,
    buffer: Mutex<Option<Vec<Change>>>,
    broken: AtomicBool,
}

impl Sink for FeedSink {
    fn apply(&self, changes: &[Change]) {
        {
            let mut buffer = self.buffer.lock();
            if let Some(buffer) = buffer.as_mut() {
                buffer.extend_from_slice(changes);
                return;
            }
        }
        if let Some(cache) = self.cache.upgrade() {
            cache.publish(changes);
        }
    }

    fn broken(&self, error: storage::Error) {
        let buffer = self.buffer.lock();
        self.broken.store(true, Ordering::Release);
        // While loading, the loader sees the flag itself.
        if buffer.is_none()
            && let Some(cache) = self.cache.upgrade()
        {
            cache.start_over(&error);
        }
    }
}
