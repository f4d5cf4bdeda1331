//! Which key had which revision when, in memory.
//!
//! As in etcd, the index over keys lives in memory and the values on disk: a lookup, a guard and a
//! range cost no I/O until values are read, and the writer checks a precondition without touching
//! the disk. A key costs some 100 bytes plus 16 for each version within the history window.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::storage::{Error, Result, Revision};

/// One write of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub revision: Revision,
    /// Zero marks a delete.
    create_revision: Revision,
}

impl Version {
    pub fn put(revision: Revision, create_revision: Revision) -> Version {
        Version { revision, create_revision }
    }

    pub fn deleted(revision: Revision) -> Version {
        Version { revision, create_revision: 0 }
    }

    /// The revision that created the key; `None` if this is a delete.
    pub fn created(&self) -> Option<Revision> {
        (self.create_revision != 0).then_some(self.create_revision)
    }
}

/// Minimal distance of two samples of the clock.
const SAMPLE_EVERY_MS: u64 = 1000;

#[derive(Debug)]
pub(super) struct Index {
    keys: BTreeMap<Arc<str>, SmallVec<[Version; 1]>>,
    /// Every write that made an older version obsolete, or is a delete itself: (revision, key).
    obsoleting: VecDeque<(Revision, Arc<str>)>,
    /// Keys with a time to live: (when, revision) to key.
    expiry: BTreeMap<(u64, Revision), Arc<str>>,
    /// Samples of (milliseconds since 1970, first revision written then or later).
    times: VecDeque<(u64, Revision)>,
    pub current: Revision,
    pub compacted: Revision,
}

impl Index {
    pub fn new(current: Revision, compacted: Revision) -> Index {
        Index {
            keys: BTreeMap::new(),
            obsoleting: VecDeque::new(),
            expiry: BTreeMap::new(),
            times: VecDeque::new(),
            current,
            compacted,
        }
    }

    /// The key's newest version, if it exists now.
    pub fn latest(&self, key: &str) -> Option<Version> {
        self.keys.get(key)?.last().copied().filter(|v| v.created().is_some())
    }

    /// The shared copy of a key, if it was ever written.
    pub fn shared_key(&self, key: &str) -> Option<Arc<str>> {
        self.keys.get_key_value(key).map(|(key, _)| key.clone())
    }

    /// Records a write. Revisions must come in order.
    pub fn insert(&mut self, key: Arc<str>, version: Version, written_at: u64, expires_at: u64) {
        debug_assert!(version.revision > self.current || self.keys.is_empty());
        self.current = self.current.max(version.revision);
        if self.times.back().is_none_or(|(at, _)| written_at >= at + SAMPLE_EVERY_MS) {
            self.times.push_back((written_at, version.revision));
        }
        if expires_at != 0 {
            self.expiry.insert((expires_at, version.revision), key.clone());
        }
        let versions = self.keys.entry(key.clone()).or_default();
        if !versions.is_empty() || version.created().is_none() {
            self.obsoleting.push_back((version.revision, key));
        }
        versions.push(version);
    }

    /// Checks that reads at `revision` can be answered; `None` is now.
    pub fn check(&self, revision: Option<Revision>) -> Result<Revision> {
        match revision {
            None => Ok(self.current),
            Some(requested) if requested > self.current => Err(Error::Future { requested, current: self.current }),
            // As in etcd, the compacted revision itself can still be read.
            Some(requested) if requested < self.compacted => {
                Err(Error::Compacted { requested, compacted: self.compacted })
            }
            Some(requested) => Ok(requested),
        }
    }

    /// The key's version at `revision`, if it existed then.
    pub fn at(&self, key: &str, revision: Revision) -> Option<Version> {
        at(self.keys.get(key)?, revision)
    }

    /// Up to `limit` (zero: all) keys with `prefix` from `start` on that existed at `revision`, and
    /// whether there are more.
    pub fn range(
        &self,
        prefix: &str,
        start: &str,
        limit: usize,
        revision: Revision,
    ) -> (Vec<(Arc<str>, Version)>, bool) {
        let from = if start > prefix { start } else { prefix };
        let mut found = Vec::new();
        for (key, versions) in self.keys.range::<str, _>((Bound::Included(from), Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            if let Some(version) = at(versions, revision) {
                if limit != 0 && found.len() == limit {
                    return (found, true);
                }
                found.push((key.clone(), version));
            }
        }
        (found, false)
    }

    /// The newest writes of keys with `prefix` that history holds, at most `limit`, in order, and the
    /// revision they build upon.
    pub fn recent(&self, prefix: &str, limit: usize) -> (Revision, Vec<(Arc<str>, Version)>) {
        let mut recent = Vec::new();
        for (key, versions) in self.keys.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            let new = versions.partition_point(|v| v.revision <= self.compacted);
            recent.extend(versions[new..].iter().map(|v| (key.clone(), *v)));
        }
        recent.sort_unstable_by_key(|(_, version)| version.revision);
        let cut = recent.len().saturating_sub(limit);
        let base = match cut.checked_sub(1) {
            Some(last_cut) => recent[last_cut].1.revision,
            None => self.compacted,
        };
        (base, recent.split_off(cut))
    }

    /// The revision that created what `version` of `key` is about: for a delete, what it deleted.
    pub fn created_before(&self, key: &str, version: Version) -> Revision {
        let before = || self.at(key, version.revision - 1).and_then(|v| v.created());
        version.created().or_else(before).unwrap_or(0)
    }

    /// The newest revision written before `time` (milliseconds since 1970), going by samples: a
    /// little older rather than newer.
    pub fn revision_before(&self, time: u64) -> Option<Revision> {
        let after = self.times.partition_point(|(at, _)| *at < time);
        // The sample names the first revision of its second; those before it are older still.
        after.checked_sub(1).map(|at| self.times[at].1.saturating_sub(1))
    }

    /// Moves the compacted revision; what that makes superfluous is then taken with
    /// [`Index::take_obsolete`].
    pub fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        while self.times.get(1).is_some_and(|(_, first)| *first <= revision) {
            self.times.pop_front();
        }
    }

    /// Takes up to about `limit` revisions that no allowed read needs any more.
    pub fn take_obsolete(&mut self, limit: usize) -> Vec<Revision> {
        let mut gone = Vec::new();
        while gone.len() < limit {
            match self.obsoleting.front() {
                Some((revision, _)) if *revision <= self.compacted => {}
                _ => break,
            }
            let (_, key) = self.obsoleting.pop_front().expect("looked at just now");
            let Some(versions) = self.keys.get_mut(&key) else {
                continue;
            };
            // The newest version at or below the compacted revision stays, unless it is a delete.
            let newest = versions.partition_point(|v| v.revision <= self.compacted);
            let Some(newest) = newest.checked_sub(1) else {
                continue;
            };
            let keep_from = if versions[newest].created().is_none() { newest + 1 } else { newest };
            gone.extend(versions.drain(..keep_from).map(|v| v.revision));
            if versions.is_empty() {
                self.keys.remove(&key);
            } else {
                versions.shrink_to_fit();
            }
        }
        gone
    }

    /// When the next key expires.
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiry.keys().next().map(|(at, _)| *at)
    }

    /// Takes a key due at `now`, with the revision it must still have to be deleted.
    pub fn take_expired(&mut self, now: u64) -> Option<(Arc<str>, Revision)> {
        loop {
            let entry = self.expiry.first_entry()?;
            if entry.key().0 > now {
                return None;
            }
            let ((_, revision), key) = entry.remove_entry();
            // A key written again has another expiry, or none.
            if self.latest(&key).is_some_and(|v| v.revision == revision) {
                return Some((key, revision));
            }
        }
    }

    /// Keys with any version left.
    pub fn len(&self) -> usize {
        self.keys.len()
    }
}

fn at(versions: &[Version], revision: Revision) -> Option<Version> {
    let after = versions.partition_point(|v| v.revision <= revision);
    let version = versions[after.checked_sub(1)?];
    version.created().map(|_| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(writes: &[(&str, Version)]) -> Index {
        let mut index = Index::new(0, 0);
        for (key, version) in writes {
            index.insert((*key).into(), *version, version.revision * 1000, 0);
        }
        index
    }

    fn keys(index: &Index, revision: Revision) -> Vec<(String, Revision)> {
        let (found, more) = index.range("/", "", 0, revision);
        assert!(!more);
        found.into_iter().map(|(k, v)| (k.to_string(), v.revision)).collect()
    }

    fn sample() -> Index {
        index(&[
            ("/a", Version::put(1, 1)),
            ("/b", Version::put(2, 2)),
            ("/a", Version::put(3, 1)),
            ("/b", Version::deleted(4)),
            ("/b", Version::put(5, 5)),
            ("/a", Version::deleted(6)),
        ])
    }

    #[test]
    fn reads_every_revision() {
        let index = sample();
        let pairs = |list: &[(&str, u64)]| list.iter().map(|(k, r)| ((*k).to_owned(), *r)).collect::<Vec<_>>();
        assert_eq!(keys(&index, 1), pairs(&[("/a", 1)]));
        assert_eq!(keys(&index, 2), pairs(&[("/a", 1), ("/b", 2)]));
        assert_eq!(keys(&index, 3), pairs(&[("/a", 3), ("/b", 2)]));
        assert_eq!(keys(&index, 4), pairs(&[("/a", 3)]));
        assert_eq!(keys(&index, 5), pairs(&[("/a", 3), ("/b", 5)]));
        assert_eq!(keys(&index, 6), pairs(&[("/b", 5)]));
        assert_eq!(index.check(None), Ok(6));
        assert_eq!(index.check(Some(7)), Err(Error::Future { requested: 7, current: 6 }));
    }

    #[test]
    fn ranges_by_page() {
        let index = index(&[
            ("/a/1", Version::put(1, 1)),
            ("/a/2", Version::put(2, 2)),
            ("/a/3", Version::put(3, 3)),
            ("/b/1", Version::put(4, 4)),
        ]);
        let (page, more) = index.range("/a/", "", 2, 4);
        assert_eq!((page.len(), more), (2, true));
        let (page, more) = index.range("/a/", "/a/2\0", 2, 4);
        assert_eq!((page[0].0.as_ref(), page.len(), more), ("/a/3", 1, false));
    }

    #[test]
    fn compaction_keeps_what_can_be_read() {
        for compacted in 1..=6 {
            let mut index = sample();
            let before: Vec<_> = (compacted..=6).map(|r| keys(&index, r)).collect();
            index.compact(compacted);
            let mut gone = Vec::new();
            loop {
                let some = index.take_obsolete(1);
                if some.is_empty() {
                    break;
                }
                gone.extend(some);
            }
            let after: Vec<_> = (compacted..=6).map(|r| keys(&index, r)).collect();
            assert_eq!(before, after, "compacted at {compacted}");
            assert!(index.check(Some(compacted)).is_ok());
            assert!(compacted == 1 || index.check(Some(compacted - 1)).is_err());
            let expected: &[u64] = match compacted {
                1 | 2 => &[],
                3 => &[1],
                4 => &[1, 2, 4],
                5 => &[1, 2, 4],
                _ => &[1, 3, 6, 2, 4],
            };
            gone.sort_unstable();
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(gone, expected, "compacted at {compacted}");
        }
    }

    #[test]
    fn tells_recent_changes() {
        let mut index = sample();
        let revisions = |index: &Index, limit| {
            let (base, recent) = index.recent("/", limit);
            (base, recent.iter().map(|(_, v)| v.revision).collect::<Vec<_>>())
        };
        assert_eq!(revisions(&index, 10), (0, vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(revisions(&index, 2), (4, vec![5, 6]));
        index.compact(3);
        assert_eq!(revisions(&index, 10), (3, vec![4, 5, 6]));
        assert_eq!(index.recent("/b", 10).1.len(), 2);
        assert_eq!(index.created_before("/b", Version::deleted(4)), 2);
        assert_eq!(index.created_before("/b", Version::put(5, 5)), 5);
    }

    #[test]
    fn expires_only_what_was_not_written_again() {
        let mut index = Index::new(0, 0);
        index.insert("/a".into(), Version::put(1, 1), 0, 10);
        index.insert("/b".into(), Version::put(2, 2), 0, 20);
        index.insert("/a".into(), Version::put(3, 1), 0, 0);
        assert_eq!(index.next_expiry(), Some(10));
        assert_eq!(index.take_expired(15), None);
        assert_eq!(index.take_expired(20), Some(("/b".into(), 2)));
        assert_eq!(index.take_expired(20), None);
    }

    #[test]
    fn finds_revisions_by_time() {
        let index = sample();
        assert_eq!(index.revision_before(500), None);
        assert_eq!(index.revision_before(3500), Some(2));
        assert_eq!(index.revision_before(u64::MAX), Some(5));
    }
}
