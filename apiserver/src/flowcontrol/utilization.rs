//! How much of its limits is in use, over time: of each level, and of requests that read and that write.
//!
//! Upstream's `TimingRatioHistogram`s, which observe every nanosecond; here as there only changes cost something.

use component_base::metrics::{Registry, Stability, TimingRatio, TimingRatioVec};

const SEATS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
const REQUESTS: &[f64] = &[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
const KINDS: &[f64] = &[0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
const DEMAND: &[f64] = &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];

const PHASE_LEVEL: &[&str] = &["phase", "priority_level"];

/// The families of levels.
pub(super) struct Families {
    seats: TimingRatioVec,
    requests: TimingRatioVec,
    demand: TimingRatioVec,
}

impl Families {
    pub fn new(registry: &Registry) -> Self {
        Self {
            seats: registry.timing_ratio_vec(
                "apiserver_flowcontrol_priority_level_seat_utilization",
                "Observations, at the end of every nanosecond, of utilization of seats for any stage of execution (but only initial stage for WATCHes)",
                Stability::Alpha,
                PHASE_LEVEL,
                SEATS,
            ),
            requests: registry.timing_ratio_vec(
                "apiserver_flowcontrol_priority_level_request_utilization",
                "Observations, at the end of every nanosecond, of number of requests (as a fraction of the relevant limit) waiting or in any stage of execution (but only initial stage for WATCHes)",
                Stability::Alpha,
                PHASE_LEVEL,
                REQUESTS,
            ),
            demand: registry.timing_ratio_vec(
                "apiserver_flowcontrol_demand_seats",
                "Observations, at the end of every nanosecond, of (the number of seats each priority level could use) / (nominal number of seats for that level)",
                Stability::Alpha,
                &["priority_level"],
                DEMAND,
            ),
        }
    }

    /// Those of one level.
    pub fn level(&self, level: &str) -> Utilization {
        Utilization {
            waiting: self.requests.with(&["waiting", level]),
            executing: self.requests.with(&["executing", level]),
            seats: self.seats.with(&["executing", level]),
            demand: self.demand.with(&[level]),
        }
    }
}

/// What of a level is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub waiting: usize,
    pub executing: usize,
    pub seats: u32,
    /// Seats in use, and those that who waits would have.
    pub demand: u32,
}

/// How much of one level is in use.
#[derive(Clone)]
pub(super) struct Utilization {
    waiting: TimingRatio,
    executing: TimingRatio,
    seats: TimingRatio,
    demand: TimingRatio,
}

impl Utilization {
    /// How many may wait at most, and how many seats there are.
    pub fn limits(&self, waiting: usize, seats: u32) {
        self.waiting.set_limit(waiting as f64);
        for ratio in [&self.executing, &self.seats, &self.demand] {
            ratio.set_limit(f64::from(seats));
        }
    }

    /// Something is used differently now.
    pub fn changed(&self, before: Usage, now: Usage) {
        for (ratio, before, now) in [
            (&self.waiting, before.waiting as f64, now.waiting as f64),
            (&self.executing, before.executing as f64, now.executing as f64),
            (&self.seats, f64::from(before.seats), f64::from(now.seats)),
            (&self.demand, f64::from(before.demand), f64::from(now.demand)),
        ] {
            if before != now {
                ratio.set(now);
            }
        }
    }
}

/// Requests that read, and those that write.
pub(super) struct Kinds {
    waiting: [TimingRatio; 2],
    executing: [TimingRatio; 2],
}

/// A request that is counted until this is dropped.
pub struct Counted(TimingRatio);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

impl Counted {
    fn new(ratio: &TimingRatio) -> Self {
        ratio.add(1.0);
        Self(ratio.clone())
    }
}

impl Kinds {
    pub fn new(registry: &Registry) -> Self {
        let family = registry.timing_ratio_vec(
            "apiserver_flowcontrol_read_vs_write_current_requests",
            "Observations, at the end of every nanosecond, of the number of requests (as a fraction of the relevant limit) waiting or in regular stage of execution",
            Stability::Alpha,
            &["phase", "request_kind"],
            KINDS,
        );
        let of = |phase: &str| ["readOnly", "mutating"].map(|kind| family.with(&[phase, kind]));
        Self { waiting: of("waiting"), executing: of("executing") }
    }

    /// How many may wait at most, whatever they do. Before there are levels nobody may, and nobody does.
    pub fn limit_waiting(&self, limit: f64) {
        self.waiting.iter().for_each(|ratio| ratio.set_limit(limit.max(1.0)));
    }

    /// How many may be served at a time: of those that read, and of those that write.
    pub fn limit_executing(&self, reading: f64, writing: f64) {
        self.executing[0].set_limit(reading.max(1.0));
        self.executing[1].set_limit(writing.max(1.0));
    }

    /// A request waits.
    pub fn waits(&self, mutating: bool) -> Counted {
        Counted::new(&self.waiting[usize::from(mutating)])
    }

    /// A request is served.
    pub fn executes(&self, mutating: bool) -> Counted {
        Counted::new(&self.executing[usize::from(mutating)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_there_are_levels_nothing_is_in_use() {
        let registry = Registry::new();
        let kinds = Kinds::new(&registry);
        kinds.limit_waiting(0.0);
        kinds.limit_executing(0.0, 0.0);
        drop((kinds.waits(false), kinds.executes(true)));
        let text = registry.encode();
        assert!(text.contains("read_vs_write_current_requests_sum") && !text.contains("NaN"), "{text}");
    }
}
