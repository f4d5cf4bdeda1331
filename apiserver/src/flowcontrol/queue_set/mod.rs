//! The queues of one level, and what is served of them.
//!
//! Fair queuing for server requests: virtual time `R` is the seat-seconds that each queue with something in it
//! could have had. A queue's next request starts, in virtual time, where the one before ended; the queue whose
//! next request would end first is served. How long a request takes is guessed at first and corrected when it
//! ends. Upstream: `util/flowcontrol/fairqueuing/queueset` (its `doc.go` explains the idea).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use component_base::clock::SharedClock;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::allocation::{Integrator, Observed};
use super::metrics::{LevelSeries, Series};
use super::utilization::Usage;
use super::work::{SERVICE, Work};
use crate::request::{RequestInfo, UserInfo};

/// What becomes of a request that finds no free seat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// There is always one.
    Exempt,
    /// It is refused.
    #[default]
    Reject,
    /// It waits.
    Queue { queues: usize, hand_size: usize, length: usize },
}

/// Why a request got no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its queue is full.
    QueueFull,
    /// The level has no queues and no free seat.
    ConcurrencyLimit,
    /// It waited too long, or its client left.
    TimedOut,
}

/// Who asks for what; for those who look into queues.
#[derive(Clone, Debug, Default)]
pub struct Details {
    pub user: Arc<UserInfo>,
    pub info: Arc<RequestInfo>,
}

/// A request, as queues know it.
#[derive(Clone)]
pub struct Asked {
    pub series: Arc<Series>,
    /// Tells flows apart.
    pub flow: u64,
    pub distinguisher: String,
    pub work: Work,
    pub is_watch: bool,
    pub details: Details,
}

struct Waiter {
    id: u64,
    asked: Asked,
    arrived: Timestamp,
    arrived_r: f64,
    /// Set when somebody sleeps on it.
    wake: Option<oneshot::Sender<()>>,
}

struct Executing {
    id: u64,
    asked: Asked,
    arrived: Timestamp,
    started: Timestamp,
    begun: Duration,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiter>,
    executing: Vec<Executing>,
    /// Virtual time at which the next of this queue starts.
    next_r: f64,
    seats_in_use: u32,
    /// Seat-seconds of those who wait.
    work: f64,
}

impl Queue {
    fn is_active(&self) -> bool {
        !self.waiting.is_empty() || !self.executing.is_empty()
    }

    /// Nobody starts before they came.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next_r = self.next_r.max(oldest.arrived_r);
        }
    }
}

/// How many requests came to what end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub waiting: usize,
    pub executing: usize,
    pub dispatched: u64,
    pub rejected: u64,
    pub timed_out: u64,
    pub cancelled: u64,
}

#[derive(Default)]
struct State {
    rule: Rule,
    limit: u32,
    queues: Vec<Queue>,
    /// Those that came without a queue.
    direct: AHashMap<u64, Executing>,
    robin: usize,
    r: f64,
    since: Duration,
    active: usize,
    seats_in_use: u32,
    seats_waiting: u32,
    enqueued: usize,
    next: u64,
    counts: Counts,
    demand: Integrator,
    /// What was last told to be in use.
    usage: Usage,
    /// How long queues are, or were when there were any.
    length: usize,
}

struct Inner {
    clock: SharedClock,
    series: LevelSeries,
    state: Mutex<State>,
}

/// A level's queues. Clones share them.
#[derive(Clone)]
pub struct QueueSet(Arc<Inner>);

/// Seats of a level; dropping it gives them back.
pub struct Seat {
    set: QueueSet,
    id: u64,
    queue: Option<usize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.set.finish(self.id, self.queue);
    }
}

/// A place in a queue; dropping it leaves the queue.
struct Place<'a> {
    set: &'a QueueSet,
    id: u64,
    queue: usize,
    served: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.served {
            self.set.leave(self.id, self.queue);
        }
    }
}

/// The queues that a flow is dealt: `hand_size` different ones of `queues`.
fn deal(mut flow: u64, queues: usize, hand_size: usize) -> smallvec::SmallVec<[usize; 16]> {
    let mut remainders: smallvec::SmallVec<[usize; 16]> = smallvec::SmallVec::new();
    for dealt in 0..hand_size.clamp(1, queues.max(1)) {
        let left = (queues - dealt) as u64;
        remainders.push((flow % left) as usize);
        flow /= left;
    }
    let mut hand = smallvec::SmallVec::new();
    for at in 0..remainders.len() {
        let mut card = remainders[at];
        for before in remainders[..at].iter().rev() {
            card += usize::from(card >= *before);
        }
        hand.push(card);
    }
    hand
}

impl State {
    /// Lets virtual time pass: what is asked for, divided among the queues that ask.
    fn sync(&mut self, now: Duration, series: &LevelSeries) {
        let passed = now.saturating_sub(self.since).as_secs_f64();
        self.since = now;
        if self.active > 0 {
            let asked = f64::from(self.seats_in_use + self.seats_waiting).min(f64::from(self.limit));
            self.r += passed * asked / self.active as f64;
        }
        series.current_r.set(self.r);
    }

    /// Tells those who measure what is in use.
    fn note(&mut self, now: Duration, series: &LevelSeries) {
        let usage = Usage {
            waiting: self.counts.waiting,
            executing: self.counts.executing,
            seats: self.seats_in_use,
            demand: self.seats_in_use + self.seats_waiting,
        };
        self.demand.set(now, f64::from(usage.demand));
        series.utilization.changed(self.usage, usage);
        self.usage = usage;
    }

    fn fits(&self, seats: u32) -> bool {
        if self.rule == Rule::Exempt {
            return true;
        }
        if seats > self.limit {
            // It runs alone rather than never.
            return self.counts.executing == 0;
        }
        self.seats_in_use + seats <= self.limit
    }

    /// Changes a queue, and keeps count of those with something in them.
    fn with_queue<T>(&mut self, at: usize, change: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        let queue = self.queues.get_mut(at)?;
        let before = queue.is_active();
        let outcome = change(queue);
        let after = queue.is_active();
        self.active = self.active + usize::from(after) - usize::from(before);
        Some(outcome)
    }

    /// The queue of a flow's hand with the least work.
    fn choose(&mut self, flow: u64, queues: usize, hand_size: usize) -> usize {
        let hand = deal(flow, queues, hand_size);
        let offset = self.enqueued % hand.len();
        self.enqueued = self.enqueued.wrapping_add(1);
        let (mut best, mut least) = (hand[offset], f64::INFINITY);
        for at in 0..hand.len() {
            let card = hand[(offset + at) % hand.len()];
            if self.queues[card].work < least {
                (best, least) = (card, self.queues[card].work);
            }
        }
        best
    }

    /// The queue whose next request would end first.
    fn next_queue(&mut self, series: &LevelSeries) -> Option<usize> {
        let count = self.queues.len();
        let (mut best, mut earliest) = (None, f64::INFINITY);
        let (mut start, mut discounted) = ((f64::INFINITY, f64::NEG_INFINITY), (f64::INFINITY, f64::NEG_INFINITY));
        for step in 1..=count {
            let at = (self.robin + step) % count;
            let queue = &self.queues[at];
            let Some(oldest) = queue.waiting.front() else { continue };
            let under_way = f64::from(queue.seats_in_use) * SERVICE.as_secs_f64();
            for (range, value) in [(&mut start, queue.next_r), (&mut discounted, queue.next_r - under_way)] {
                *range = (range.0.min(value), range.1.max(value));
            }
            let end = queue.next_r + oldest.asked.work.total();
            if end < earliest {
                (best, earliest) = (Some(at), end);
            }
        }
        let at = best?;
        series.dispatch(self.r, self.queues[at].next_r, start, discounted);
        Some(at)
    }

    fn dispatch_all(&mut self, now: Duration, wall: Timestamp, series: &LevelSeries) {
        while self.counts.waiting > 0 && self.seats_in_use < self.limit && self.dispatch(now, wall, series) {}
    }

    fn dispatch(&mut self, now: Duration, wall: Timestamp, series: &LevelSeries) -> bool {
        let Some(at) = self.next_queue(series) else { return false };
        let limit = self.limit;
        let Some(oldest) = self.queues[at].waiting.front() else { return false };
        if !self.fits(oldest.asked.work.seats()) {
            oldest.asked.series.not_accommodated();
            return false;
        }
        self.robin = at;
        let taken = self.with_queue(at, |queue| {
            let mut waiter = queue.waiting.pop_front()?;
            queue.work -= waiter.asked.work.total();
            let seats = waiter.asked.work.seats();
            waiter.asked.work = waiter.asked.work.narrowed(limit);
            let gone = waiter.wake.take().is_some_and(|wake| wake.send(()).is_err());
            waiter.asked.series.dequeued(seats);
            if !gone {
                queue.next_r += waiter.asked.work.total();
                queue.seats_in_use += waiter.asked.work.seats();
                waiter.asked.series.executes(waiter.asked.work.seats());
                let Waiter { id, asked, arrived, .. } = waiter;
                queue.executing.push(Executing { id, asked, arrived, started: wall, begun: now });
            }
            queue.bound();
            let executing = queue.executing.last().filter(|_| !gone);
            Some((seats, executing.map(|executing| executing.asked.work.seats())))
        });
        let Some((waited, executes)) = taken.flatten() else { return false };
        self.counts.waiting -= 1;
        self.seats_waiting -= waited;
        if let Some(seats) = executes {
            self.counts.executing += 1;
            self.counts.dispatched += 1;
            self.seats_in_use += seats;
        }
        self.note(now, series);
        true
    }

    /// Queues beyond those that are wanted go when the last of them are empty.
    fn trim(&mut self) {
        let wanted = if let Rule::Queue { queues, .. } = self.rule { queues } else { 0 };
        while self.queues.len() > wanted && self.queues.last().is_some_and(|queue| !queue.is_active()) {
            self.queues.pop();
        }
        self.robin = self.robin.min(self.queues.len().saturating_sub(1));
    }
}

impl QueueSet {
    /// Queues with nobody in them.
    pub fn new(clock: SharedClock, series: LevelSeries) -> Self {
        let now = clock.monotonic();
        let mut state = State { since: now, ..State::default() };
        state.demand.set(now, 0.0);
        Self(Arc::new(Inner { clock, series, state: Mutex::new(state) }))
    }

    fn locked(&self) -> (parking_lot::MutexGuard<'_, State>, Duration) {
        let mut state = self.0.state.lock();
        let now = self.0.clock.monotonic();
        state.sync(now, &self.0.series);
        (state, now)
    }

    /// Another rule, another number of seats, and the number that use is measured by.
    pub fn configure(&self, rule: Rule, limit: u32, measure: u32) {
        let (mut state, now) = self.locked();
        (state.rule, state.limit) = (rule, limit);
        if let Rule::Queue { length, .. } = rule {
            state.length = length;
        }
        let queues = if let Rule::Queue { queues, .. } = rule { queues } else { 1 };
        self.0.series.utilization.limits(state.length.max(1) * queues, measure);
        if let Rule::Queue { queues, .. } = rule {
            // Queues never go away while somebody is in them.
            while state.queues.len() < queues {
                state.queues.push(Queue::default());
            }
        }
        state.trim();
        state.dispatch_all(now, self.0.clock.now(), &self.0.series);
    }

    /// The demand since this was asked last.
    pub fn observe(&self) -> Observed {
        let (mut state, now) = self.locked();
        state.demand.reset(now)
    }

    /// Whether nobody waits and nothing is served.
    pub fn is_idle(&self) -> bool {
        let counts = self.0.state.lock().counts;
        counts.waiting == 0 && counts.executing == 0
    }

    /// Waits for seats, at most `patience`.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn start(&self, asked: Asked, patience: Duration) -> Result<Seat, Refusal> {
        let series = asked.series.clone();
        let (mut place, woken) = {
            let (mut state, now) = self.locked();
            let wall = self.0.clock.now();
            state.next += 1;
            let id = state.next;
            let (seats, arrived_r) = (asked.work.seats(), state.r);
            let Rule::Queue { queues, hand_size, length } = state.rule else {
                if !state.fits(seats) {
                    state.counts.rejected += 1;
                    series.rejected("concurrency-limit");
                    return Err(Refusal::ConcurrencyLimit);
                }
                state.counts.executing += 1;
                state.counts.dispatched += 1;
                state.seats_in_use += seats;
                series.executes(seats);
                state.direct.insert(id, Executing { id, asked, arrived: wall, started: wall, begun: now });
                state.note(now, &self.0.series);
                return Ok(Seat { set: self.clone(), id, queue: None });
            };
            let at = state.choose(asked.flow, queues, hand_size);
            if state.seats_in_use >= state.limit && state.queues[at].waiting.len() >= length {
                state.counts.rejected += 1;
                series.rejected("queue-full");
                return Err(Refusal::QueueFull);
            }
            let r = state.r;
            let queued = state.with_queue(at, |queue| {
                if !queue.is_active() {
                    queue.next_r = r;
                }
                queue.work += asked.work.total();
                queue.waiting.push_back(Waiter { id, asked, arrived: wall, arrived_r, wake: None });
                queue.bound();
                queue.waiting.len()
            });
            state.counts.waiting += 1;
            state.seats_waiting += seats;
            series.enqueued(seats, queued.unwrap_or_default());
            state.note(now, &self.0.series);
            state.dispatch_all(now, wall, &self.0.series);
            let newest = state.queues[at].waiting.back_mut().filter(|waiter| waiter.id == id);
            let Some(waiter) = newest else { return Ok(Seat { set: self.clone(), id, queue: Some(at) }) };
            let (wake, woken) = oneshot::channel();
            waiter.wake = Some(wake);
            (Place { set: self, id, queue: at, served: false }, woken)
        };
        match tokio::time::timeout(patience, woken).await {
            Ok(Ok(())) => {
                place.served = true;
                Ok(Seat { set: self.clone(), id: place.id, queue: Some(place.queue) })
            }
            _ => Err(Refusal::TimedOut),
        }
    }

    /// Somebody waits no longer.
    fn leave(&self, id: u64, at: usize) {
        let (mut state, now) = self.locked();
        let left = state.with_queue(at, |queue| {
            let place = queue.waiting.iter().position(|waiter| waiter.id == id)?;
            let waiter = queue.waiting.remove(place)?;
            queue.work -= waiter.asked.work.total();
            queue.bound();
            Some(waiter)
        });
        match left.flatten() {
            Some(waiter) => {
                let seats = waiter.asked.work.seats();
                state.counts.waiting -= 1;
                state.counts.rejected += 1;
                state.counts.cancelled += 1;
                state.seats_waiting -= seats;
                waiter.asked.series.dequeued(seats);
                waiter.asked.series.rejected("time-out");
                state.note(now, &self.0.series);
                state.trim();
            }
            // It was served in the very moment it left: the seats go to the next.
            None => {
                drop(state);
                self.finish(id, Some(at));
            }
        }
    }

    /// A request was answered. Its seats may be taken a while longer.
    fn finish(&self, id: u64, at: Option<usize>) {
        let (mut state, now) = self.locked();
        let ended = match at {
            None => state.direct.remove(&id),
            Some(at) => state
                .with_queue(at, |queue| {
                    let place = queue.executing.iter().position(|executing| executing.id == id)?;
                    let ended = queue.executing.swap_remove(place);
                    // The guess is corrected.
                    let took = (now - ended.begun).as_secs_f64();
                    queue.next_r -= f64::from(ended.asked.work.initial) * (SERVICE.as_secs_f64() - took);
                    queue.bound();
                    Some(ended)
                })
                .flatten(),
        };
        let Some(ended) = ended else { return };
        state.counts.executing -= 1;
        let Asked { series, work, is_watch, .. } = ended.asked;
        series.executed(now - ended.begun, is_watch);
        if !work.linger.is_zero()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            state.note(now, &self.0.series);
            drop(state);
            let set = self.clone();
            runtime.spawn(async move {
                set.0.clock.sleep(work.linger).await;
                let (mut state, now) = set.locked();
                set.release(&mut state, now, &series, work.seats(), at);
            });
            return;
        }
        self.release(&mut state, now, &series, work.seats(), at);
    }

    fn release(&self, state: &mut State, now: Duration, series: &Series, seats: u32, at: Option<usize>) {
        state.seats_in_use -= seats;
        if let Some(queue) = at.and_then(|at| state.queues.get_mut(at)) {
            queue.seats_in_use = queue.seats_in_use.saturating_sub(seats);
        }
        series.released(seats);
        state.note(now, &self.0.series);
        state.trim();
        state.dispatch_all(now, self.0.clock.now(), &self.0.series);
    }
}

/// A request in a queue, or being served.
#[derive(Clone)]
pub struct RequestDump {
    pub schema: Arc<str>,
    /// -1 without a queue.
    pub queue: i64,
    /// -1 when it is being served.
    pub index: i64,
    pub distinguisher: String,
    pub arrived: Timestamp,
    pub work: Work,
    pub started: Option<Timestamp>,
    pub details: Details,
}

/// A queue at some moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueDump {
    pub pending: usize,
    pub executing: usize,
    pub seats_in_use: u32,
    pub next_r: f64,
    /// Of those who wait: initial seats, most seats, seat-seconds.
    pub sums: (u32, u32, f64),
}

impl QueueSet {
    /// How many came to what end.
    pub fn counts(&self) -> Counts {
        self.0.state.lock().counts
    }

    /// All queues, by index.
    pub fn queues(&self) -> Vec<QueueDump> {
        let of = |queue: &Queue| {
            let mut sums = (0, 0, 0.0);
            for waiter in &queue.waiting {
                let work = waiter.asked.work;
                sums = (sums.0 + work.initial, sums.1 + work.seats(), sums.2 + work.total());
            }
            QueueDump {
                pending: queue.waiting.len(),
                executing: queue.executing.len(),
                seats_in_use: queue.seats_in_use,
                next_r: queue.next_r,
                sums,
            }
        };
        self.0.state.lock().queues.iter().map(of).collect()
    }

    /// All requests.
    pub fn requests(&self) -> Vec<RequestDump> {
        let state = self.0.state.lock();
        let dump =
            |asked: &Asked, queue: i64, index: i64, arrived: Timestamp, started: Option<Timestamp>| RequestDump {
                schema: asked.series.schema(),
                queue,
                index,
                distinguisher: asked.distinguisher.clone(),
                arrived,
                work: asked.work,
                started,
                details: asked.details.clone(),
            };
        let mut found = Vec::new();
        for (at, queue) in state.queues.iter().enumerate() {
            let at = at as i64;
            for (index, waiter) in queue.waiting.iter().enumerate() {
                found.push(dump(&waiter.asked, at, index as i64, waiter.arrived, None));
            }
            for executing in &queue.executing {
                found.push(dump(&executing.asked, at, -1, executing.arrived, Some(executing.started)));
            }
        }
        for executing in state.direct.values() {
            found.push(dump(&executing.asked, -1, -1, executing.arrived, Some(executing.started)));
        }
        found
    }
}

#[cfg(test)]
mod tests;
