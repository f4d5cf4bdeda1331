//! The cache's data: the ordered map of entries, the indexes over it, and the ring of recent events.
//!
//! Invariants: the map holds exactly the objects of revision `applied`; the ring holds every change
//! with `floor < revision <= applied`, in order. So the map of any revision in between can be had
//! by undoing events, without asking the store.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;

use super::entry::Entry;
use super::event::Event;
use super::spec::ResourceSpec;
use crate::storage::Revision;

/// The ordered map of entries; cloning it is O(1).
pub type Map = imbl::OrdMap<Arc<str>, Arc<Entry>>;

/// How much history a resource keeps for watchers that fall behind or come back.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Events older than this go when the ring is above `soft_count`.
    pub age: Duration,
    /// Events that may stay whatever their age.
    pub soft_count: usize,
    /// Never more events than this. As upstream's upper bound.
    pub count: usize,
    /// Never more bytes than this, beyond `soft_count` events.
    pub bytes: usize,
}

impl Default for RingLimits {
    fn default() -> RingLimits {
        RingLimits {
            // Upstream keeps events at least 75 s; informers reconnect within seconds, paged lists
            // want minutes.
            age: Duration::from_secs(300),
            soft_count: 100,
            count: 102_400,
            bytes: 16 << 20,
        }
    }
}

/// Frames are kept on this many newest events; older ones are encoded again for the few who ask.
const FRAMES_KEPT: usize = 256;

#[derive(Default)]
pub(super) struct State {
    pub map: Map,
    pub ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// Changes up to here are not in the ring.
    pub floor: Revision,
    /// The newest change in the map.
    pub applied: Revision,
    /// One index per indexed field (by position in the spec), then one for owners if wanted.
    field_indexes: Vec<(usize, Index)>,
    owner_index: Option<Index>,
    /// Total bytes of JSON in the map.
    pub json_bytes: usize,
}

type Index = AHashMap<Box<str>, BTreeSet<Arc<str>>>;

impl State {
    pub fn new(spec: &ResourceSpec) -> State {
        State {
            field_indexes: spec
                .fields
                .iter()
                .enumerate()
                .filter(|(_, f)| f.indexed)
                .map(|(at, _)| (at, Index::default()))
                .collect(),
            owner_index: spec.index_owners.then(Index::default),
            ..State::default()
        }
    }

    /// The state with the objects of `revision` and no events.
    pub fn of(spec: &ResourceSpec, entries: Vec<Arc<Entry>>, revision: Revision) -> State {
        let mut state = State::new(spec);
        state.floor = revision;
        state.applied = revision;
        for entry in entries {
            state.put(entry);
        }
        state
    }

    /// Applies one change and answers its event; `None` if it is not newer than what is applied, or
    /// deletes what is not there. etcd takes away everything of a lease that is over in one revision.
    pub fn apply(
        &mut self,
        key: &Arc<str>,
        revision: Revision,
        object: Option<Arc<Entry>>,
        now: Instant,
    ) -> Option<Arc<Event>> {
        let applied = match &object {
            Some(_) if revision == self.applied => self.map.get(key).is_some_and(|entry| entry.revision() >= revision),
            _ => revision < self.applied,
        };
        if applied {
            return None;
        }
        self.applied = revision;
        let previous = match &object {
            Some(entry) => self.put(entry.clone()),
            None => self.remove(key),
        };
        if object.is_none() && previous.is_none() {
            return None;
        }
        let event = Arc::new(Event::new(revision, object, previous, now));
        self.ring_bytes += event.size();
        self.ring.push_back(event.clone());
        if self.ring.len() > FRAMES_KEPT {
            self.ring[self.ring.len() - 1 - FRAMES_KEPT].forget_frames();
        }
        Some(event)
    }

    /// Drops events beyond the limits.
    pub fn trim(&mut self, limits: &RingLimits, now: Instant) {
        while let Some(oldest) = self.ring.front() {
            let over = self.ring.len() > limits.count
                || (self.ring.len() > limits.soft_count
                    && (self.ring_bytes > limits.bytes || now.saturating_duration_since(oldest.at) > limits.age));
            if !over {
                return;
            }
            self.floor = oldest.revision;
            self.ring_bytes = self.ring_bytes.saturating_sub(oldest.size());
            self.ring.pop_front();
        }
    }

    fn put(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        self.json_bytes += entry.json().len();
        let previous = self.map.insert(entry.key().clone(), entry.clone());
        if let Some(previous) = &previous {
            self.json_bytes -= previous.json().len();
        }
        for (at, index) in &mut self.field_indexes {
            let new = entry.field_at(*at);
            match &previous {
                Some(p) if p.field_at(*at) == new => continue,
                Some(p) => unindex(index, p.field_at(*at), p.key()),
                None => {}
            }
            add_index(index, new, entry.key());
        }
        if let Some(index) = &mut self.owner_index {
            if let Some(p) = &previous {
                p.owners().iter().for_each(|o| unindex(index, o, p.key()));
            }
            entry.owners().iter().for_each(|o| add_index(index, o, entry.key()));
        }
        previous
    }

    fn remove(&mut self, key: &Arc<str>) -> Option<Arc<Entry>> {
        let previous = self.map.remove(key)?;
        self.json_bytes -= previous.json().len();
        for (at, index) in &mut self.field_indexes {
            unindex(index, previous.field_at(*at), key);
        }
        if let Some(index) = &mut self.owner_index {
            previous.owners().iter().for_each(|o| unindex(index, o, key));
        }
        Some(previous)
    }

    /// The objects whose field (by position in the spec) has `value`, in key order; `None` if that
    /// field has no index.
    pub fn by_field(&self, field: usize, value: &str) -> Option<Vec<Arc<Entry>>> {
        let (_, index) = self.field_indexes.iter().find(|(at, _)| *at == field)?;
        Some(self.collect(index, value))
    }

    /// The objects owned by `uid`; `None` if owners are not indexed.
    pub fn by_owner(&self, uid: &str) -> Option<Vec<Arc<Entry>>> {
        Some(self.collect(self.owner_index.as_ref()?, uid))
    }

    fn collect(&self, index: &Index, value: &str) -> Vec<Arc<Entry>> {
        let keys = index.get(value).into_iter().flatten();
        keys.filter_map(|key| self.map.get(key).cloned()).collect()
    }

    /// Position in the ring of the first event after `revision`; `None` if some are gone already.
    pub fn position_after(&self, revision: Revision) -> Option<usize> {
        (revision >= self.floor).then(|| self.ring.partition_point(|e| e.revision <= revision))
    }

    /// The map as it was at `revision`; `None` if the ring does not reach back that far.
    pub fn map_at(&self, revision: Revision) -> Option<Map> {
        let position = self.position_after(revision)?;
        let mut map = self.map.clone();
        for event in self.ring.range(position..).rev() {
            match &event.previous {
                Some(previous) => {
                    map.insert(previous.key().clone(), previous.clone());
                }
                None => {
                    map.remove(event.any().key());
                }
            }
        }
        Some(map)
    }
}

fn add_index(index: &mut Index, value: &str, key: &Arc<str>) {
    match index.get_mut(value) {
        Some(keys) => {
            keys.insert(key.clone());
        }
        None => {
            index.insert(value.into(), BTreeSet::from([key.clone()]));
        }
    }
}

fn unindex(index: &mut Index, value: &str, key: &Arc<str>) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cache::event::EventType;
    use crate::cache::spec::SelectableField;

    fn spec() -> Arc<ResourceSpec> {
        let mut spec = ResourceSpec::new("", "pods", "/registry/pods/", true);
        spec.fields = vec![SelectableField::at_path("spec.nodeName").indexed()];
        spec.index_owners = true;
        Arc::new(spec)
    }

    fn pod(spec: &Arc<ResourceSpec>, name: &str, node: &str, revision: Revision) -> Arc<Entry> {
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","ownerReferences":[{{"uid":"o"}}]}},"spec":{{"nodeName":"{node}"}}}}"#
        );
        let key: Arc<str> = spec.key("default", name).into();
        Entry::decode(spec, key, revision, revision, &Bytes::from(json)).unwrap()
    }

    fn names(entries: &[Arc<Entry>]) -> Vec<&str> {
        entries.iter().map(|e| e.name()).collect()
    }

    #[test]
    fn indexes_follow_changes() {
        let spec = spec();
        let now = Instant::now();
        let entries = vec![pod(&spec, "a", "", 1), pod(&spec, "b", "n1", 2)];
        let mut state = State::of(&spec, entries, 2);
        assert_eq!(names(&state.by_field(0, "n1").unwrap()), ["b"]);
        let a = pod(&spec, "a", "n1", 3);
        state.apply(a.key(), 3, Some(a.clone()), now).unwrap();
        assert_eq!(names(&state.by_field(0, "n1").unwrap()), ["a", "b"]);
        assert_eq!(names(&state.by_field(0, "").unwrap()), [""; 0]);
        assert_eq!(names(&state.by_owner("o").unwrap()), ["a", "b"]);
        state.apply(a.key(), 4, None, now).unwrap();
        assert_eq!(names(&state.by_field(0, "n1").unwrap()), ["b"]);
        assert_eq!(names(&state.by_owner("o").unwrap()), ["b"]);
        assert!(state.apply(a.key(), 4, None, now).is_none(), "an old change is not applied");
        assert!(state.apply(a.key(), 5, None, now).is_none(), "nothing to delete");
        assert_eq!(state.applied, 5);
    }

    #[test]
    fn changes_of_one_revision_are_all_applied() {
        let spec = spec();
        let now = Instant::now();
        let mut state = State::of(&spec, vec![pod(&spec, "a", "", 1), pod(&spec, "b", "", 2)], 2);
        let (a, b) = (pod(&spec, "a", "", 3), pod(&spec, "b", "", 3));
        assert!(state.apply(a.key(), 3, None, now).is_some());
        assert!(state.apply(b.key(), 3, None, now).is_some(), "a lease that is over takes both");
        assert!(state.map.is_empty());
        assert!(state.apply(a.key(), 4, Some(pod(&spec, "a", "", 4)), now).is_some());
        assert!(state.apply(a.key(), 4, Some(pod(&spec, "a", "", 4)), now).is_none(), "it is there already");
    }

    #[test]
    fn undoes_to_any_revision_in_the_ring() {
        let spec = spec();
        let now = Instant::now();
        let mut state = State::of(&spec, vec![pod(&spec, "a", "", 1)], 1);
        let mut maps = vec![(1, state.map.clone())];
        for (revision, name, delete) in
            [(2, "b", false), (4, "a", false), (5, "b", true), (7, "b", false), (8, "a", true)]
        {
            let entry = pod(&spec, name, "", revision);
            state.apply(entry.key(), revision, (!delete).then(|| entry.clone()), now).unwrap();
            maps.push((revision, state.map.clone()));
        }
        for (revision, expected) in &maps {
            let map = state.map_at(*revision).unwrap();
            let flat = |m: &Map| m.values().map(|e| (e.key().clone(), e.revision())).collect::<Vec<_>>();
            assert_eq!(flat(&map), flat(expected), "at {revision}");
        }
        let limits = RingLimits { count: 2, ..RingLimits::default() };
        state.trim(&limits, now);
        assert_eq!((state.floor, state.ring.len()), (5, 2));
        assert!(state.map_at(4).is_none());
        assert!(state.map_at(5).is_some());
        assert_eq!(state.position_after(7), Some(1));
    }

    #[test]
    fn frames_are_kept_on_the_newest_events_only() {
        let spec = spec();
        let mut state = State::new(&spec);
        for revision in 1..=FRAMES_KEPT as Revision + 2 {
            let entry = pod(&spec, "a", "", revision);
            state.apply(entry.key(), revision, Some(entry.clone()), Instant::now()).unwrap();
        }
        let frame = |at: usize| state.ring[at].json_frame(EventType::Modified);
        // Both are held at once, so that one cannot take the place of the other.
        let is_kept = |at: usize| {
            let (one, two) = (frame(at), frame(at));
            assert_eq!(one, two);
            one.as_ptr() == two.as_ptr()
        };
        let newest = state.ring.len() - 1;
        assert!(is_kept(newest) && is_kept(newest + 1 - FRAMES_KEPT));
        assert!(!is_kept(newest - FRAMES_KEPT) && !is_kept(0), "made again for a watcher who comes late");
        let kept = state.ring[newest].json_frame(EventType::Modified);
        state.ring[newest].forget_frames();
        assert_ne!(state.ring[newest].json_frame(EventType::Modified).as_ptr(), kept.as_ptr());
    }

    #[test]
    fn trims_by_age_and_bytes_beyond_the_soft_count() {
        let spec = spec();
        let now = Instant::now();
        let mut state = State::of(&spec, vec![], 1);
        for revision in 2..12 {
            let entry = pod(&spec, "a", "", revision);
            state.apply(entry.key(), revision, Some(entry.clone()), now).unwrap();
        }
        let limits = RingLimits { age: Duration::from_secs(1), soft_count: 4, count: 100, bytes: usize::MAX };
        state.trim(&limits, now);
        assert_eq!(state.ring.len(), 10);
        state.trim(&limits, now + Duration::from_secs(2));
        assert_eq!(state.ring.len(), 4);
        state.trim(&RingLimits { bytes: 1, soft_count: 1, ..limits }, now);
        assert_eq!(state.ring.len(), 1);
    }
}
