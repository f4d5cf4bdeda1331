//! Which of our own slice writes the cache has not shown yet. Planning over a cache that lags would
//! create slices twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::ObjectKey;
use component_base::clock::SharedClock;
use parking_lot::Mutex;

use crate::types::EndpointSlice;

/// An event may be lost for good over a disconnection; then the cache is right after this.
const TRUST_AFTER: Duration = Duration::from_secs(60);

struct Tracked {
    generation: i64,
    deleted: bool,
    at: Duration,
}

pub(crate) struct Tracker {
    clock: SharedClock,
    /// By service, then by the slice's uid.
    known: Mutex<HashMap<ObjectKey, HashMap<String, Tracked>>>,
}

impl Tracker {
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, known: Mutex::default() }
    }

    fn put(&self, service: &ObjectKey, slice: &EndpointSlice, deleted: bool) {
        let tracked = Tracked { generation: slice.metadata.generation, deleted, at: self.clock.monotonic() };
        self.known.lock().entry(service.clone()).or_default().insert(slice.metadata.uid.clone(), tracked);
    }

    /// Remembers a created or updated slice.
    pub fn update(&self, service: &ObjectKey, slice: &EndpointSlice) {
        self.put(service, slice, false);
    }

    pub fn expect_deletion(&self, service: &ObjectKey, slice: &EndpointSlice) {
        self.put(service, slice, true);
    }

    /// Whether the cached slices are older than what was written.
    pub fn is_stale(&self, service: &ObjectKey, cached: &[Arc<EndpointSlice>]) -> bool {
        let now = self.clock.monotonic();
        let mut known = self.known.lock();
        let Some(slices) = known.get_mut(service) else { return false };
        let find = |uid: &str| cached.iter().find(|slice| slice.metadata.uid == uid);
        slices.retain(|uid, tracked| {
            // What the cache shows at last, or never will, needs no watching.
            let late = now.saturating_sub(tracked.at) > TRUST_AFTER;
            !(late || tracked.deleted && find(uid).is_none())
        });
        slices.iter().any(|(uid, tracked)| match find(uid) {
            None => !tracked.deleted,
            Some(slice) => tracked.deleted || slice.metadata.generation < tracked.generation,
        })
    }

    /// Whether an event only shows what was written by us.
    pub fn is_expected(&self, service: &ObjectKey, slice: &EndpointSlice) -> bool {
        self.known
            .lock()
            .get(service)
            .and_then(|slices| slices.get(&slice.metadata.uid))
            .is_some_and(|tracked| !tracked.deleted && tracked.generation >= slice.metadata.generation)
    }

    /// Takes note of a deletion; true when it was ours.
    pub fn observe_deletion(&self, service: &ObjectKey, slice: &EndpointSlice) -> bool {
        self.known
            .lock()
            .get_mut(service)
            .and_then(|slices| slices.remove(&slice.metadata.uid))
            .is_some_and(|tracked| tracked.deleted)
    }

    pub fn forget(&self, service: &ObjectKey) {
        self.known.lock().remove(service);
    }
}
