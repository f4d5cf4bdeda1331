//! How much work a request is: seats while it is served, and seats for a while after, for those who watch what
//! it changes. Upstream: `util/flowcontrol/request`, `util/flowcontrol/watch_tracker.go`.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;

use crate::request::RequestInfo;

/// The most seats that a list, and that a change takes.
const MOST_LIST: u32 = 100;
const MOST_CHANGE: u32 = 10;
/// Bytes that a seat of a list stands for, and the most that a list holds at once when the cache answers it.
const BYTES_PER_SEAT: u64 = 100_000;
const MOST_BYTES: u64 = 1_000_000;
/// Watches that a seat stands for, and how long an event of that many takes.
const WATCHES_PER_SEAT: u32 = 10;
const EVENT: Duration = Duration::from_millis(5);
/// What the fair queues take a request for, before they know how long it was.
pub const SERVICE: Duration = Duration::from_millis(3);

/// What is known of a request before it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// One seat.
    Plain,
    /// A list, or a watch that begins with one: objects of the resource and their bytes, and the most that
    /// are wanted (zero: all).
    List { objects: u64, bytes: u64, limit: u64 },
    /// A change that so many watches hear of.
    Change { watches: u32 },
}

/// Seats, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    pub initial: u32,
    /// After the request is answered, for `linger`.
    pub last: u32,
    pub linger: Duration,
}

impl Work {
    /// One that ends with its answer.
    pub fn plain(initial: u32) -> Self {
        Self { initial, last: 0, linger: Duration::ZERO }
    }

    /// The estimate, for a level where a request may have so many seats.
    pub fn of(load: Load, most: u32) -> Self {
        match load {
            Load::Plain => Self::plain(1),
            Load::List { objects, bytes, limit } => {
                let average = bytes.checked_div(objects).unwrap_or_default();
                let wanted = if limit > 0 { limit.min(objects) } else { objects };
                let seats = wanted.saturating_mul(average).min(MOST_BYTES).div_ceil(BYTES_PER_SEAT);
                Self::plain(u32::try_from(seats).unwrap_or(MOST_LIST).clamp(1, most.clamp(1, MOST_LIST)))
            }
            Load::Change { watches } if watches >= WATCHES_PER_SEAT => {
                let seats = watches.div_ceil(WATCHES_PER_SEAT);
                // Narrower for longer: a wide request blocks seats until it has them all.
                let last = seats.min(most.clamp(1, MOST_CHANGE));
                Self { initial: 1, last, linger: EVENT.mul_f64(f64::from(seats) / f64::from(last)) }
            }
            Load::Change { .. } => Self::plain(1),
        }
    }

    /// Seats that have to be free for it to begin.
    pub fn seats(&self) -> u32 {
        self.initial.max(self.last)
    }

    /// Seat-seconds.
    pub fn total(&self) -> f64 {
        f64::from(self.initial) * SERVICE.as_secs_f64() + f64::from(self.last) * self.linger.as_secs_f64()
    }

    /// The same work where there are fewer seats.
    pub fn narrowed(self, limit: u32) -> Self {
        if self.last <= limit || limit == 0 {
            return self;
        }
        let linger = self.linger.mul_f64(f64::from(self.last) / f64::from(limit));
        Self { last: limit, linger, ..self }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Watched {
    group: String,
    resource: String,
    namespace: String,
    name: String,
}

/// Who watches what.
#[derive(Clone, Debug, Default)]
pub struct Watches(Arc<Mutex<AHashMap<Watched, u32>>>);

/// One watch; it is over when this is dropped.
pub struct Watching {
    all: Watches,
    what: Watched,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock();
        if let Some(count) = counts.get_mut(&self.what) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.what);
            }
        }
    }
}

impl Watches {
    /// A watch begins. `None` for one that events find by an index: that of a node's pods.
    pub fn begin(&self, info: &RequestInfo, node: Option<&str>) -> Option<Watching> {
        if info.resource == "pods" && node.is_some_and(|node| !node.is_empty()) {
            return None;
        }
        let what = Watched {
            group: info.group.clone(),
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
        };
        *self.0.lock().entry(what.clone()).or_default() += 1;
        Some(Watching { all: self.clone(), what })
    }

    /// How many watches may hear of a change.
    pub fn interested(&self, info: &RequestInfo) -> u32 {
        let counts = self.0.lock();
        if counts.is_empty() {
            return 0;
        }
        let mut key = Watched {
            group: info.group.clone(),
            resource: info.resource.clone(),
            namespace: String::new(),
            name: String::new(),
        };
        let mut found = counts.get(&key).copied().unwrap_or_default();
        if !info.namespace.is_empty() {
            key.namespace.clone_from(&info.namespace);
            found += counts.get(&key).copied().unwrap_or_default();
        }
        if !info.name.is_empty() {
            key.name.clone_from(&info.name);
            found += counts.get(&key).copied().unwrap_or_default();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;

    #[test]
    fn lists_are_as_wide_as_what_they_hold() {
        let list = |objects, bytes, limit| Work::of(Load::List { objects, bytes, limit }, 100).seats();
        assert_eq!(list(0, 0, 0), 1);
        assert_eq!(list(100, 100_000, 0), 1);
        assert_eq!(list(100, 200_001, 0), 2, "1,000 objects of 2,000 bytes");
        assert_eq!(list(10_000, 20_000_000, 0), 10, "an answer of the cache is streamed");
        assert_eq!(list(10_000, 20_000_000, 100), 2);
        assert_eq!(Work::of(Load::List { objects: 10_000, bytes: 20_000_000, limit: 0 }, 4).seats(), 4);
    }

    #[test]
    fn changes_linger_for_those_who_watch() {
        let change = |watches, most| Work::of(Load::Change { watches }, most);
        assert_eq!(change(9, 10), Work::plain(1));
        assert_eq!(change(25, 10), Work { initial: 1, last: 3, linger: EVENT });
        assert_eq!(change(1000, 10), Work { initial: 1, last: 10, linger: 10 * EVENT });
        assert_eq!(change(1000, 2), Work { initial: 1, last: 2, linger: 50 * EVENT });
        assert_eq!(change(1000, 10).narrowed(5), Work { initial: 1, last: 5, linger: 20 * EVENT });
    }

    #[test]
    fn watches_are_counted_as_far_as_they_reach() {
        let info =
            |method: &str, path: &str| RequestInfo::new(&method.parse().unwrap(), path, &Query::default()).unwrap();
        let watches = Watches::default();
        let all = watches.begin(&info("GET", "/api/v1/pods"), None);
        let own = watches.begin(&info("GET", "/api/v1/namespaces/a/pods"), Some(""));
        let one = watches.begin(&info("GET", "/api/v1/namespaces/a/pods/p"), None);
        assert!(watches.begin(&info("GET", "/api/v1/pods"), Some("n1")).is_none());
        let interested = |path: &str| watches.interested(&info("PUT", path));
        assert_eq!(interested("/api/v1/namespaces/a/pods/p"), 3);
        assert_eq!(interested("/api/v1/namespaces/a/pods/q"), 2);
        assert_eq!(interested("/api/v1/namespaces/b/pods/p"), 1);
        assert_eq!(interested("/api/v1/namespaces/a/secrets/p"), 0);
        drop((all, own, one));
        assert!(watches.0.lock().is_empty());
    }
}
