//! What the controller remembers about its own writes until its caches show them.

use std::collections::{HashMap, HashSet};

use client::{ObjectKey, ObjectMeta};
use parking_lot::Mutex;

/// Pods whose finalizer was taken off. Counting such a pod again would count it twice.
#[derive(Default)]
pub struct Removals(Mutex<HashMap<ObjectKey, HashSet<String>>>);

impl Removals {
    pub fn expect(&self, job: &ObjectKey, uids: impl IntoIterator<Item = String>) {
        self.0.lock().entry(job.clone()).or_default().extend(uids);
    }

    pub fn observed(&self, job: &ObjectKey, uid: &str) {
        if let Some(uids) = self.0.lock().get_mut(job) {
            uids.remove(uid);
        }
    }

    /// The pods of a Job whose finalizer is off, whatever the cache says.
    pub fn of(&self, job: &ObjectKey) -> HashSet<String> {
        self.0.lock().get(job).cloned().unwrap_or_default()
    }

    pub fn forget(&self, job: &ObjectKey) {
        self.0.lock().remove(job);
    }
}

/// The last version written of each Job. From an older one the counters would be computed wrongly:
/// pods that have lost their finalizer since are in none of them (KEP-5647).
#[derive(Default)]
pub struct Written(Mutex<HashMap<ObjectKey, (String, u64)>>);

impl Written {
    pub fn note(&self, metadata: &ObjectMeta) {
        if let Ok(version) = metadata.resource_version.parse() {
            self.0.lock().insert(metadata.key(), (metadata.uid.clone(), version));
        }
    }

    /// Whether this is older than what was written.
    pub fn is_newer_than(&self, metadata: &ObjectMeta) -> bool {
        self.0.lock().get(&metadata.key()).is_some_and(|(uid, written)| {
            *uid == metadata.uid && metadata.resource_version.parse::<u64>().is_ok_and(|cached| cached < *written)
        })
    }

    pub fn forget(&self, job: &ObjectKey) {
        self.0.lock().remove(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_cache_is_noticed() {
        let written = Written::default();
        let metadata = |uid: &str, version: &str| ObjectMeta {
            name: "a".into(),
            uid: uid.into(),
            resource_version: version.into(),
            ..ObjectMeta::default()
        };
        written.note(&metadata("u", "100"));
        for (seen, newer) in [
            (metadata("u", "99"), true),
            (metadata("u", "100"), false),
            (metadata("u", "101"), false),
            (metadata("other", "1"), false),
        ] {
            assert_eq!(written.is_newer_than(&seen), newer);
        }
        written.forget(&ObjectKey::cluster("a"));
        assert!(!written.is_newer_than(&metadata("u", "99")));
    }

    #[test]
    fn removals_are_observed() {
        let removals = Removals::default();
        let key = ObjectKey::new("ns", "a");
        removals.expect(&key, ["p".to_string(), "q".to_string()]);
        removals.observed(&key, "p");
        assert_eq!(removals.of(&key), HashSet::from(["q".to_string()]));
        removals.forget(&key);
        assert!(removals.of(&key).is_empty());
    }
}
