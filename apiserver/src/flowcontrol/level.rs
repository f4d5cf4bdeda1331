//! Seats, queues and fairness of the priority levels.
//!
//! A level has a share of the server's seats. Whoever finds none free waits in one of the level's
//! queues: a flow is dealt a small hand of queues by its hash and takes the shortest, so that a flow
//! that floods can fill few of the queues of others. Queues are served by start-time fair queuing.
//! Seats that a level does not use may be borrowed by others, up to what it lends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::oneshot;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Spec {
    #[serde(rename = "type")]
    pub kind: String,
    pub limited: Option<Limited>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Limited {
    nominal_concurrency_shares: u32,
    lendable_percent: u32,
    borrowing_limit_percent: Option<u32>,
    limit_response: LimitResponse,
}

impl Default for Limited {
    fn default() -> Self {
        Self {
            nominal_concurrency_shares: 30,
            lendable_percent: 0,
            borrowing_limit_percent: None,
            limit_response: LimitResponse::default(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LimitResponse {
    queuing: Option<Queuing>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Queuing {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

impl Default for Queuing {
    fn default() -> Self {
        Self { queues: 64, hand_size: 8, queue_length_limit: 50 }
    }
}

/// The seats of a level: its own, those it keeps, and the most it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub nominal: u32,
    pub lower: u32,
    pub upper: u32,
}

/// A queue at some moment.
#[derive(Clone, Debug)]
pub(super) struct QueueState {
    pub level: Arc<str>,
    pub index: usize,
    pub pending: usize,
    /// What was served from it and still runs: requests and seats.
    pub executing: (u32, u32),
    pub start: f64,
    /// Of those who wait.
    pub seats: u32,
}

/// Why a request got no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its queue is full.
    QueueFull,
    /// The level has no queues and no free seat.
    ConcurrencyLimit,
    /// It waited too long.
    TimedOut,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiter>,
    /// Virtual time at which the next of this queue would start; grows with what it was given.
    start: f64,
    /// What was served from it and still runs: requests and seats.
    executing: (u32, u32),
}

struct Waiter {
    id: u64,
    seats: u32,
    wake: oneshot::Sender<()>,
}

#[derive(Default)]
struct Level {
    nominal: u32,
    /// What stays reserved even when idle.
    minimum: u32,
    maximum: u32,
    queuing: Option<Queuing>,
    queues: Vec<Queue>,
    executing: u32,
    /// The virtual start of what was served last.
    clock: f64,
}

#[derive(Default)]
struct State {
    total: u32,
    executing: u32,
    next: u64,
    levels: HashMap<Arc<str>, Level>,
}

/// All levels of a server.
#[derive(Clone, Default)]
pub struct Levels(Arc<Mutex<State>>);

/// A request's seats; dropping it gives them back.
pub struct Seat {
    levels: Levels,
    level: Arc<str>,
    seats: u32,
    /// The queue that it was waited for in.
    queue: Option<usize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(queue) = self.queue {
            self.levels.served(&self.level, queue, |(requests, seats)| {
                (requests.saturating_sub(1), seats.saturating_sub(self.seats))
            });
        }
        self.levels.release(&self.level, self.seats);
    }
}

/// A place in a queue; dropping it leaves the queue.
struct Place<'a> {
    levels: &'a Levels,
    level: &'a Arc<str>,
    queue: usize,
    id: u64,
    seats: u32,
    served: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        let mut state = self.levels.0.lock();
        let Some(level) = state.levels.get_mut(self.level) else { return };
        let queue = level.queues.get_mut(self.queue);
        let at = queue.as_ref().and_then(|queue| queue.waiting.iter().position(|waiter| waiter.id == self.id));
        match (queue, at) {
            (Some(queue), Some(at)) => {
                queue.waiting.remove(at);
            }
            // It was served in the very moment it left: the seat goes to the next.
            _ => {
                drop(state);
                self.levels.release(self.level, self.seats);
            }
        }
    }
}

impl Level {
    fn fits(&self, seats: u32, free: u32, reserved_by_others: u32) -> bool {
        if self.executing == 0 && free >= 1 {
            // A request that is wider than its level runs alone rather than never.
            return free >= seats.min(self.nominal.max(1));
        }
        let wanted = self.executing + seats;
        if wanted <= self.nominal {
            return free >= seats;
        }
        wanted <= self.maximum && free >= seats + reserved_by_others
    }

    /// The queue from which to serve next: the one whose turn is earliest.
    fn next_queue(&self) -> Option<usize> {
        let candidates = self.queues.iter().enumerate().filter(|(_, queue)| !queue.waiting.is_empty());
        candidates.min_by(|(_, a), (_, b)| a.start.total_cmp(&b.start)).map(|(at, _)| at)
    }

    /// Deals a hand of queues to a flow and answers the shortest of them.
    fn deal(&self, flow: u64, queuing: &Queuing) -> usize {
        let mut left: Vec<usize> = (0..self.queues.len()).collect();
        let (mut value, mut best) = (flow, None);
        for _ in 0..queuing.hand_size.clamp(1, self.queues.len()) {
            let count = left.len() as u64;
            let card = left.swap_remove((value % count) as usize);
            value /= count;
            let length = self.queues[card].waiting.len();
            if best.is_none_or(|(_, shortest)| length < shortest) {
                best = Some((card, length));
            }
        }
        best.map_or(0, |(card, _)| card)
    }
}

impl State {
    /// Seats that others keep for themselves although they do not use them now.
    fn reserved_besides(&self, name: &str) -> u32 {
        let others = self.levels.iter().filter(|(have, _)| &***have != name);
        others.map(|(_, level)| level.minimum.saturating_sub(level.executing)).sum()
    }

    fn take(&mut self, name: &Arc<str>, seats: u32) -> bool {
        let free = self.total.saturating_sub(self.executing);
        let reserved = self.reserved_besides(name);
        let Some(level) = self.levels.get_mut(name) else { return false };
        if !level.fits(seats, free, reserved) {
            return false;
        }
        level.executing += seats;
        self.executing += seats;
        true
    }

    /// Gives free seats to those who wait: the level in which they became free first, then others.
    fn serve(&mut self, first: &Arc<str>) {
        let mut names: Vec<Arc<str>> = self.levels.keys().filter(|name| *name != first).cloned().collect();
        names.insert(0, first.clone());
        for name in names {
            while let Some(level) = self.levels.get(&name) {
                let Some(at) = level.next_queue() else { break };
                let seats = level.queues[at].waiting.front().map_or(1, |waiter| waiter.seats);
                if !self.take(&name, seats) {
                    break;
                }
                let Some(level) = self.levels.get_mut(&name) else { break };
                let queue = &mut level.queues[at];
                level.clock = level.clock.max(queue.start);
                queue.start = queue.start.max(level.clock) + f64::from(seats);
                let gone = queue.waiting.pop_front().is_none_or(|waiter| waiter.wake.send(()).is_err());
                if gone {
                    level.executing -= seats;
                    self.executing -= seats;
                }
            }
        }
    }
}

impl Levels {
    /// Divides `total` seats among the levels by their shares.
    pub(super) fn configure(&self, total: u32, specs: &HashMap<Arc<str>, Spec>) {
        let mut state = self.0.lock();
        state.total = total;
        let limited: Vec<(&Arc<str>, Limited)> = specs
            .iter()
            .filter(|(_, spec)| spec.kind != "Exempt")
            .map(|(name, spec)| (name, spec.limited.clone().unwrap_or_default()))
            .collect();
        let shares: u64 = limited.iter().map(|(_, limited)| u64::from(limited.nominal_concurrency_shares)).sum();
        // A level that is gone keeps what still runs or waits in it; it gets no new seats.
        for level in state.levels.values_mut() {
            (level.nominal, level.minimum, level.maximum) = (0, 0, 0);
        }
        for (name, limited) in limited {
            let share = u64::from(limited.nominal_concurrency_shares);
            let nominal = (u64::from(total) * share).div_ceil(shares.max(1)) as u32;
            let lendable = (f64::from(nominal) * f64::from(limited.lendable_percent) / 100.0).round() as u32;
            let level = state.levels.entry(name.clone()).or_default();
            level.nominal = nominal;
            level.minimum = nominal.saturating_sub(lendable);
            level.maximum = match limited.borrowing_limit_percent {
                Some(percent) => nominal + (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32,
                None => total,
            };
            let queuing = limited.limit_response.queuing;
            let wanted = queuing.as_ref().map_or(0, |queuing| queuing.queues);
            // Queues never go away while somebody waits in them.
            while level.queues.len() < wanted {
                level.queues.push(Queue::default());
            }
            level.queuing = queuing;
        }
        state.levels.retain(|_, level| {
            level.nominal > 0 || level.executing > 0 || level.queues.iter().any(|queue| !queue.waiting.is_empty())
        });
    }

    fn release(&self, name: &Arc<str>, seats: u32) {
        let mut state = self.0.lock();
        state.executing = state.executing.saturating_sub(seats);
        if let Some(level) = state.levels.get_mut(name) {
            level.executing = level.executing.saturating_sub(seats);
        }
        state.serve(name);
    }

    fn seat(&self, level: &Arc<str>, seats: u32, queue: Option<usize>) -> Seat {
        if let Some(queue) = queue {
            self.served(level, queue, |(requests, all)| (requests + 1, all + seats));
        }
        Seat { levels: self.clone(), level: level.clone(), seats, queue }
    }

    /// Changes what runs of a queue's requests.
    fn served(&self, level: &Arc<str>, queue: usize, change: impl Fn((u32, u32)) -> (u32, u32)) {
        let mut state = self.0.lock();
        if let Some(queue) = state.levels.get_mut(level).and_then(|level| level.queues.get_mut(queue)) {
            queue.executing = change(queue.executing);
        }
    }

    /// The limits of levels, those of exempt ones too.
    pub(super) fn limits(&self, specs: &HashMap<Arc<str>, Spec>) -> Vec<(Arc<str>, Limits)> {
        let state = self.0.lock();
        let of = |name: &Arc<str>| match state.levels.get(name) {
            Some(level) => Limits {
                nominal: level.nominal,
                lower: level.minimum,
                // Upstream's bound without a limit of its own: its share and all others.
                upper: if level.maximum == state.total { level.nominal + state.total } else { level.maximum },
            },
            None => Limits { nominal: 0, lower: 0, upper: state.total },
        };
        specs.keys().map(|name| (name.clone(), of(name))).collect()
    }

    /// All queues, by level and index.
    pub(super) fn queues(&self) -> Vec<QueueState> {
        let state = self.0.lock();
        let mut names: Vec<&Arc<str>> = state.levels.keys().collect();
        names.sort();
        let mut found = Vec::new();
        for name in names {
            for (index, queue) in state.levels[name].queues.iter().enumerate() {
                found.push(QueueState {
                    level: name.clone(),
                    index,
                    pending: queue.waiting.len(),
                    executing: queue.executing,
                    start: queue.start,
                    seats: queue.waiting.iter().map(|waiter| waiter.seats).sum(),
                });
            }
        }
        found
    }

    /// Waits for seats of a level, at most `patience`. `flow` tells flows of the level apart.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn acquire(
        &self,
        level: &Arc<str>,
        flow: u64,
        seats: u32,
        patience: std::time::Duration,
    ) -> Result<Seat, Refusal> {
        let (mut place, woken) = {
            let mut state = self.0.lock();
            let nobody_waits =
                state.levels.get(level).is_none_or(|level| level.queues.iter().all(|queue| queue.waiting.is_empty()));
            if nobody_waits && state.take(level, seats) {
                return Ok(self.seat(level, seats, None));
            }
            state.next += 1;
            let id = state.next;
            let Some(own) = state.levels.get_mut(level) else { return Err(Refusal::ConcurrencyLimit) };
            let Some(queuing) = own.queuing.clone().filter(|_| !own.queues.is_empty()) else {
                return Err(Refusal::ConcurrencyLimit);
            };
            let queue = own.deal(flow, &queuing);
            if own.queues[queue].waiting.len() >= queuing.queue_length_limit {
                return Err(Refusal::QueueFull);
            }
            let clock = own.clock;
            let waiting = &mut own.queues[queue];
            if waiting.waiting.is_empty() {
                waiting.start = waiting.start.max(clock);
            }
            let (wake, woken) = oneshot::channel();
            waiting.waiting.push_back(Waiter { id, seats, wake });
            (Place { levels: self, level, queue, id, seats, served: false }, woken)
        };
        match tokio::time::timeout(patience, woken).await {
            Ok(Ok(())) => {
                place.served = true;
                Ok(self.seat(level, seats, Some(place.queue)))
            }
            _ => Err(Refusal::TimedOut),
        }
    }

    /// Seats in use, and requests that wait, in a level.
    #[cfg(test)]
    pub fn load(&self, level: &str) -> (u32, usize) {
        let state = self.0.lock();
        state
            .levels
            .get(level)
            .map_or((0, 0), |level| (level.executing, level.queues.iter().map(|queue| queue.waiting.len()).sum()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn levels(total: u32, specs: serde_json::Value) -> Levels {
        let specs: HashMap<String, Spec> = serde_json::from_value(specs).unwrap();
        let levels = Levels::default();
        levels.configure(total, &specs.into_iter().map(|(name, spec)| (name.into(), spec)).collect());
        levels
    }

    fn queued(shares: u32, lendable: u32) -> serde_json::Value {
        serde_json::json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 8, "handSize": 1, "queueLengthLimit": 2}},
        }})
    }

    const PATIENCE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn excess_waits_or_is_refused() {
        let reject = serde_json::json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}});
        let levels = levels(4, serde_json::json!({"a": queued(1, 0), "b": reject}));
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = levels.acquire(&a, 1, 1, PATIENCE).await.ok().unwrap();
        let _second = levels.acquire(&a, 1, 1, PATIENCE).await.ok().unwrap();
        assert_eq!(levels.acquire(&a, 1, 1, PATIENCE).await.err(), Some(Refusal::TimedOut));
        assert_eq!(levels.load("a"), (2, 0), "who gave up left the queue");
        let waiting = [0, 1].map(|_| {
            let (levels, a) = (levels.clone(), a.clone());
            tokio::spawn(async move { levels.acquire(&a, 1, 1, Duration::from_secs(5)).await.is_ok() })
        });
        while levels.load("a").1 < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(levels.acquire(&a, 1, 1, PATIENCE).await.err(), Some(Refusal::QueueFull));
        drop(first);
        for task in waiting {
            assert!(task.await.unwrap());
        }
        let _held = [
            levels.acquire(&b, 1, 1, PATIENCE).await.ok().unwrap(),
            levels.acquire(&b, 1, 1, PATIENCE).await.ok().unwrap(),
        ];
        assert_eq!(levels.acquire(&b, 1, 1, PATIENCE).await.err(), Some(Refusal::ConcurrencyLimit));
    }

    #[tokio::test]
    async fn idle_seats_are_borrowed_as_far_as_they_are_lent() {
        let levels = levels(10, serde_json::json!({"a": queued(1, 0), "b": queued(1, 60)}));
        let a: Arc<str> = "a".into();
        let mut held = Vec::new();
        for flow in 0..8 {
            held.push(levels.acquire(&a, flow, 1, PATIENCE).await.ok().unwrap());
        }
        // Five of its own and three that b lends; two stay b's.
        assert_eq!(levels.acquire(&a, 9, 1, PATIENCE).await.err(), Some(Refusal::TimedOut));
        let b: Arc<str> = "b".into();
        let _own = levels.acquire(&b, 1, 2, PATIENCE).await.ok().unwrap();
    }

    #[tokio::test]
    async fn a_flood_does_not_starve_another_flow() {
        let levels = levels(1, serde_json::json!({"a": queued(1, 0)}));
        let a: Arc<str> = "a".into();
        let seat = levels.acquire(&a, 0, 1, PATIENCE).await.ok().unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        // Flow 0 fills its queue first; flow 1 comes last and yet is served second.
        for (flow, label) in [(0, "flood"), (0, "flood"), (1, "other")] {
            let (levels, a, order) = (levels.clone(), a.clone(), order.clone());
            let before = levels.load("a").1;
            let task_levels = levels.clone();
            tasks.push(tokio::spawn(async move {
                let seat = task_levels.acquire(&a, flow, 1, Duration::from_secs(5)).await.ok().unwrap();
                order.lock().push(label);
                drop(seat);
            }));
            while levels.load("a").1 == before {
                tokio::task::yield_now().await;
            }
        }
        drop(seat);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), ["flood", "other", "flood"]);
        assert_eq!(levels.load("a"), (0, 0));
    }
}
