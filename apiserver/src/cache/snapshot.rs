//! A resource's objects at one moment: what LIST reads.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::entry::Entry;
use super::spec::ResourceSpec;
use super::state::Map;
use crate::storage::Revision;

/// An immutable view of a resource. Taking one is O(1) and holds no lock; what was deleted since
/// stays in memory as long as the view does.
#[derive(Clone)]
pub struct Snapshot {
    spec: Arc<ResourceSpec>,
    revision: Revision,
    map: Map,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({} {}@{})", self.spec.prefix, self.map.len(), self.revision)
    }
}

impl Snapshot {
    pub(super) fn new(spec: Arc<ResourceSpec>, revision: Revision, map: Map) -> Snapshot {
        Snapshot { spec, revision, map }
    }

    /// The resource version of the list.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    /// One object by storage key.
    pub fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.map.get(key)
    }

    /// Objects of all namespaces together.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Objects of a namespace (`None`: of all), in key order, beginning at storage key `start`
    /// (`None`: at the first).
    pub fn range<'a>(
        &'a self,
        namespace: Option<&str>,
        start: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
        let prefix = self.spec.namespace_prefix(namespace);
        let from = match start {
            Some(start) if start > prefix.as_str() => start,
            _ => prefix.as_str(),
        };
        // A prefix ends with a slash, and the next character ends what begins with it. Keys are compared at both ends
        // only: looking at each of them would cost as much as the rest of a list.
        debug_assert!(prefix.ends_with('/'));
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let bounds = (Bound::Included(from), Bound::Excluded(end.as_str()));
        self.map.range::<_, str>(bounds).map(|(_, entry)| entry)
    }
}

/// Maps kept for the later pages of paged lists, so that each page need not undo the ring again.
#[derive(Default)]
pub(super) struct Stash(Mutex<VecDeque<(Revision, Instant, Map)>>);

/// Maps kept, and for how long after their last use. More pagers than this only cost time.
const KEPT: usize = 8;
const KEPT_FOR: Duration = Duration::from_secs(60);

impl Stash {
    pub fn get(&self, revision: Revision) -> Option<Map> {
        let mut kept = self.0.lock();
        let (_, used, map) = kept.iter_mut().find(|(r, ..)| *r == revision)?;
        *used = Instant::now();
        Some(map.clone())
    }

    pub fn put(&self, revision: Revision, map: Map) {
        let mut kept = self.0.lock();
        kept.retain(|(r, ..)| *r != revision);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((revision, Instant::now(), map));
    }

    pub fn sweep(&self, now: Instant) {
        self.0.lock().retain(|(_, used, _)| now.saturating_duration_since(*used) < KEPT_FOR);
    }
}
