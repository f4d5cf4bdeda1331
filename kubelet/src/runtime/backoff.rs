//! Exponential back-off per key, as upstream's `flowcontrol.Backoff`: 10 s doubling to 5 min, forgotten
//! after twice the maximum without an event.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

struct Entry {
    delay: Duration,
    updated: Timestamp,
}

/// The delays of many keys.
pub struct Backoff {
    initial: Duration,
    max: Duration,
    entries: Mutex<HashMap<String, Entry>>,
}

impl Backoff {
    /// Starts at `initial`, doubles up to `max`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, entries: Mutex::default() }
    }

    /// The present delay of a key; zero when it has none.
    pub fn get(&self, key: &str) -> Duration {
        self.entries.lock().get(key).map_or(Duration::ZERO, |e| e.delay)
    }

    /// Records another failure that happened at `event`.
    pub fn next(&self, key: &str, event: Timestamp, now: Timestamp) {
        let mut entries = self.entries.lock();
        let delay = match entries.get(key) {
            Some(entry) if !self.expired(event, entry.updated) => (entry.delay * 2).min(self.max),
            _ => self.initial,
        };
        entries.insert(key.to_owned(), Entry { delay, updated: now });
    }

    /// Whether the delay that began at `event` is still running.
    pub fn active_since(&self, key: &str, event: Timestamp, now: Timestamp) -> bool {
        let entries = self.entries.lock();
        entries.get(key).is_some_and(|e| !self.expired(event, e.updated) && since(event, now) < e.delay)
    }

    /// Whether the delay that began at the last failure is still running at `now`.
    pub fn active_since_update(&self, key: &str, now: Timestamp) -> bool {
        let entries = self.entries.lock();
        entries.get(key).is_some_and(|e| !self.expired(now, e.updated) && since(e.updated, now) < e.delay)
    }

    /// When the last failure of a key was recorded.
    pub fn updated(&self, key: &str) -> Option<Timestamp> {
        self.entries.lock().get(key).map(|e| e.updated)
    }

    /// Drops the keys that start with `prefix`: their pod is gone.
    pub fn forget(&self, prefix: &str) {
        self.entries.lock().retain(|key, _| !key.starts_with(prefix));
    }

    fn expired(&self, event: Timestamp, updated: Timestamp) -> bool {
        since(updated, event) > self.max * 2
    }
}

/// Time from `start` to `end`, zero when it is negative.
pub fn since(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_maximum_and_forgets() {
        let backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        let mut now = Timestamp::from_second(1_000).unwrap();
        assert!(!backoff.active_since("k", now, now));
        let mut seen = Vec::new();
        for _ in 0..7 {
            backoff.next("k", now, now);
            seen.push(backoff.get("k").as_secs());
            assert!(backoff.active_since("k", now, now));
            now += backoff.get("k");
            assert!(!backoff.active_since("k", now - backoff.get("k"), now));
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
        now += Duration::from_secs(601);
        assert!(!backoff.active_since("k", now, now));
        backoff.next("k", now, now);
        assert_eq!(backoff.get("k").as_secs(), 10);
    }
}
