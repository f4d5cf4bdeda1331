//! What a controller did and has not seen yet. Its cache lags behind its writes; until the cache has
//! caught up, acting again would act twice.
//!
//! Creations are counted, deletions are remembered by pod, so that a deletion seen twice (once as a
//! deletion timestamp, once as a removal) counts once. After five minutes without the expected
//! events the cache is trusted again, because an event may have been lost for good.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use client::ObjectKey;
use component_base::clock::SharedClock;
use parking_lot::Mutex;

const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Expected {
    creations: i64,
    /// Pods by uid.
    deletions: HashSet<String>,
    since: Duration,
}

/// Expectations of one controller, by the key of the controlling object.
pub struct Expectations {
    clock: SharedClock,
    expected: Mutex<HashMap<ObjectKey, Expected>>,
}

impl Expectations {
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, expected: Mutex::default() }
    }

    /// Whether everything expected has been seen, or has been awaited too long.
    pub fn satisfied(&self, key: &ObjectKey) -> bool {
        let expected = self.expected.lock();
        expected.get(key).is_none_or(|expected| {
            (expected.creations <= 0 && expected.deletions.is_empty())
                || self.clock.monotonic().saturating_sub(expected.since) > TIMEOUT
        })
    }

    pub fn expect_creations(&self, key: &ObjectKey, count: usize) {
        let since = self.clock.monotonic();
        self.expected
            .lock()
            .insert(key.clone(), Expected { creations: count as i64, deletions: HashSet::new(), since });
    }

    pub fn expect_deletions(&self, key: &ObjectKey, uids: impl IntoIterator<Item = String>) {
        let since = self.clock.monotonic();
        self.expected
            .lock()
            .insert(key.clone(), Expected { creations: 0, deletions: uids.into_iter().collect(), since });
    }

    /// Creations and deletions at once.
    pub fn expect(&self, key: &ObjectKey, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let since = self.clock.monotonic();
        self.expected.lock().insert(
            key.clone(),
            Expected { creations: creations as i64, deletions: deletions.into_iter().collect(), since },
        );
    }

    pub fn creation_observed(&self, key: &ObjectKey) {
        self.creations_observed(key, 1);
    }

    pub fn creations_observed(&self, key: &ObjectKey, count: usize) {
        if let Some(expected) = self.expected.lock().get_mut(key) {
            expected.creations -= count as i64;
        }
    }

    pub fn deletion_observed(&self, key: &ObjectKey, uid: &str) {
        if let Some(expected) = self.expected.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// Forgets an object that is gone.
    pub fn delete(&self, key: &ObjectKey) {
        self.expected.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_base::clock::FakeClock;
    use std::sync::Arc;

    #[test]
    fn expectations_are_met_or_expire() {
        let clock = FakeClock::new(client::Timestamp::UNIX_EPOCH);
        let expectations = Expectations::new(Arc::new(clock.clone()));
        let key = ObjectKey::new("a", "b");
        assert!(expectations.satisfied(&key));
        expectations.expect_creations(&key, 2);
        expectations.creation_observed(&key);
        assert!(!expectations.satisfied(&key));
        expectations.creation_observed(&key);
        assert!(expectations.satisfied(&key));
        expectations.expect_deletions(&key, ["u1".to_string(), "u2".to_string()]);
        expectations.deletion_observed(&key, "u1");
        expectations.deletion_observed(&key, "u1");
        assert!(!expectations.satisfied(&key));
        clock.step(Duration::from_secs(301));
        assert!(expectations.satisfied(&key));
    }
}
