//! A work queue with upstream's guarantees: a key is never worked on twice at once, a key added
//! while it is worked on comes again, a key waiting in line is there once.
//!
//! Delays and per-key exponential back-off (5 ms doubling to 1,000 s) together with an overall
//! bucket (10 a second, 100 at once) are upstream's default controller rate limiter.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use component_base::clock::{RealClock, SharedClock};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ratelimit::TokenBucket;

/// How failed keys back off.
#[derive(Debug, Clone)]
pub struct Limits {
    pub base: Duration,
    pub max: Duration,
    /// Overall rate of rate-limited adds; zero or less lifts it.
    pub qps: f64,
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { base: Duration::from_millis(5), max: Duration::from_secs(1000), qps: 10.0, burst: 100 }
    }
}

/// A queue of keys. Clones share it.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    wake: Notify,
    clock: SharedClock,
    limits: Limits,
    bucket: TokenBucket,
}

struct State<K> {
    line: VecDeque<K>,
    /// Keys that need work: those in line and those to be put back when their work is done.
    dirty: HashSet<K, RandomState>,
    processing: HashSet<K, RandomState>,
    delayed: BinaryHeap<Reverse<(Duration, u64)>>,
    /// The earliest pending delay of each key, and the ticket that owns it.
    waiting: HashMap<K, (Duration, u64), RandomState>,
    tickets: HashMap<u64, K, RandomState>,
    next_ticket: u64,
    failures: HashMap<K, u32, RandomState>,
    closed: bool,
}

impl<K: Hash + Eq + Clone + Send + 'static> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Hash + Eq + Clone + Send + 'static> WorkQueue<K> {
    /// A queue with upstream's default limits.
    pub fn new() -> Self {
        Self::with(Limits::default(), RealClock::shared())
    }

    pub fn with(limits: Limits, clock: SharedClock) -> Self {
        Self {
            shared: Arc::new(Shared {
                bucket: TokenBucket::new(limits.qps, limits.burst, clock.clone()),
                state: Mutex::new(State {
                    line: VecDeque::new(),
                    dirty: HashSet::default(),
                    processing: HashSet::default(),
                    delayed: BinaryHeap::new(),
                    waiting: HashMap::default(),
                    tickets: HashMap::default(),
                    next_ticket: 0,
                    failures: HashMap::default(),
                    closed: false,
                }),
                wake: Notify::new(),
                clock,
                limits,
            }),
        }
    }

    /// Puts a key in line, unless it is there.
    pub fn add(&self, key: K) {
        let mut state = self.shared.state.lock();
        if state.closed {
            return;
        }
        if state.enqueue(key) {
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Puts a key in line after a delay; of several delays of one key the shortest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let due = self.shared.clock.monotonic() + delay;
        let mut state = self.shared.state.lock();
        if state.closed || state.waiting.get(&key).is_some_and(|(known, _)| *known <= due) {
            return;
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        if let Some((_, old)) = state.waiting.insert(key.clone(), (due, ticket)) {
            state.tickets.remove(&old);
        }
        state.tickets.insert(ticket, key);
        state.delayed.push(Reverse((due, ticket)));
        drop(state);
        // Somebody may sleep until a later moment.
        self.shared.wake.notify_one();
    }

    /// Puts a key in line after its back-off, which grows with each call until [`WorkQueue::forget`].
    pub fn add_rate_limited(&self, key: K) {
        let limits = &self.shared.limits;
        let failures = {
            let mut state = self.shared.state.lock();
            let count = state.failures.entry(key.clone()).or_insert(0);
            *count += 1;
            *count - 1
        };
        let exponential = limits.base.mul_f64(2f64.powi(failures.min(40) as i32)).min(limits.max);
        let delay = exponential.max(self.shared.bucket.reserve());
        self.add_after(key, delay);
    }

    /// Ends a key's back-off.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often a key has failed since it was forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Keys in line.
    pub fn len(&self) -> usize {
        self.shared.state.lock().line.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key; `None` once the queue is closed and empty. [`WorkQueue::done`] must follow.
    pub async fn get(&self) -> Option<K> {
        loop {
            let next = {
                let mut state = self.shared.state.lock();
                let now = self.shared.clock.monotonic();
                state.release(now);
                if let Some(key) = state.line.pop_front() {
                    state.dirty.remove(&key);
                    state.processing.insert(key.clone());
                    let more = !state.line.is_empty() || !state.delayed.is_empty();
                    drop(state);
                    if more {
                        // One notification may stand for several adds, and the pending delays need
                        // somebody who sleeps for them.
                        self.shared.wake.notify_one();
                    }
                    return Some(key);
                }
                if state.closed {
                    drop(state);
                    self.shared.wake.notify_one();
                    return None;
                }
                state.delayed.peek().map(|Reverse((due, _))| due.saturating_sub(now))
            };
            let notified = self.shared.wake.notified();
            match next {
                None => notified.await,
                Some(wait) => {
                    tokio::select! {
                        () = notified => {}
                        () = self.shared.clock.sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Says that the work on a key has ended; a key added meanwhile goes back in line.
    pub fn done(&self, key: &K) {
        let mut state = self.shared.state.lock();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.line.push_back(key.clone());
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Takes no more keys; readers drain what is in line.
    pub fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        state.delayed.clear();
        state.waiting.clear();
        state.tickets.clear();
        drop(state);
        self.shared.wake.notify_one();
    }
}

impl<K: Hash + Eq + Clone> State<K> {
    /// Whether a key came into line.
    fn enqueue(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.processing.contains(&key) {
            return false;
        }
        self.line.push_back(key);
        true
    }

    /// Puts keys in line whose delay is over.
    fn release(&mut self, now: Duration) {
        while let Some(Reverse((due, ticket))) = self.delayed.peek().copied() {
            let Some(key) = self.tickets.get(&ticket) else {
                // A shorter delay of the same key replaced this one.
                self.delayed.pop();
                continue;
            };
            if due > now {
                return;
            }
            let key = key.clone();
            self.delayed.pop();
            self.tickets.remove(&ticket);
            self.waiting.remove(&key);
            self.enqueue(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_base::clock::FakeClock;

    fn queue() -> (WorkQueue<&'static str>, FakeClock) {
        let clock = FakeClock::new(jiff::Timestamp::UNIX_EPOCH);
        (WorkQueue::with(Limits { qps: 0.0, ..Limits::default() }, Arc::new(clock.clone())), clock)
    }

    #[tokio::test]
    async fn a_key_is_worked_on_once_at_a_time() {
        let (queue, _) = queue();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.get().await, Some("b"));
        assert_eq!(queue.len(), 0, "a waits for its work to end");
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        queue.done(&"b");
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test]
    async fn delays_follow_the_clock_and_the_shortest_wins() {
        let (queue, clock) = queue();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(20));
        let getter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.get().await }
        });
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        clock.step(Duration::from_secs(5));
        assert_eq!(getter.await.unwrap(), Some("a"));
        queue.done(&"a");
        clock.step(Duration::from_secs(100));
        queue.add("b");
        assert_eq!(queue.get().await, Some("b"), "the longer delays of a are gone");
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn failures_back_off_until_forgotten() {
        let (queue, clock) = queue();
        for (failure, wait) in [5u64, 10, 20, 40].into_iter().enumerate() {
            assert_eq!(queue.failures(&"a"), failure as u32);
            queue.add_rate_limited("a");
            clock.step(Duration::from_millis(wait - 1));
            queue.shared.state.lock().release(clock_now(&clock));
            assert!(queue.is_empty());
            clock.step(Duration::from_millis(1));
            assert_eq!(queue.get().await, Some("a"));
            queue.done(&"a");
        }
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    fn clock_now(clock: &FakeClock) -> Duration {
        use component_base::clock::Clock as _;
        clock.monotonic()
    }

    #[tokio::test]
    async fn many_workers_see_every_key() {
        let (queue, _) = queue();
        let queue_of_numbers: WorkQueue<u32> = WorkQueue::new();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue_of_numbers.clone();
                tokio::spawn(async move {
                    let mut seen = 0;
                    while let Some(key) = queue.get().await {
                        seen += 1;
                        tokio::task::yield_now().await;
                        queue.done(&key);
                    }
                    seen
                })
            })
            .collect();
        for number in 0..1000 {
            queue_of_numbers.add(number);
        }
        queue_of_numbers.close();
        let mut total = 0;
        for worker in workers {
            total += worker.await.unwrap();
        }
        assert_eq!(total, 1000);
        queue.close();
        assert_eq!(queue.get().await, None);
        queue.add("x");
        assert!(queue.is_empty());
    }
}
