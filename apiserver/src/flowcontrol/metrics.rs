//! What Priority and Fairness measures, in upstream's names.
//!
//! The series of a FlowSchema and its level are found when the schema is compiled and made when its first request comes,
//! so that a request looks nothing up and schemas that nobody uses show nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use component_base::clock::SharedClock;
use component_base::metrics::{Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, Registry, Stability};
use parking_lot::Mutex;

use super::level::{Limits, Refusal};

const FLOW: &[&str] = &["flow_schema", "priority_level"];
const LEVEL: &[&str] = &["priority_level"];
const DURATIONS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

type Level = Gauge<f64, AtomicU64>;

/// The families, and the series in use.
pub struct FlowMetrics {
    executing_requests: GaugeVec,
    executing_seats: GaugeVec,
    waiting_requests: GaugeVec,
    waiting_seats: GaugeVec,
    dispatched: CounterVec,
    rejected: CounterVec,
    waits: HistogramVec,
    executions: HistogramVec,
    estimated: HistogramVec,
    nominal: GaugeVec,
    lower: GaugeVec,
    upper: GaugeVec,
    current: GaugeVec,
    series: Mutex<HashMap<(Arc<str>, Arc<str>), Arc<Series>>>,
    counts: Mutex<HashMap<Arc<str>, Arc<Counts>>>,
}

/// What became of the requests of a level.
#[derive(Debug, Default)]
pub struct Counts {
    pub waiting: AtomicU64,
    pub executing: AtomicU64,
    pub dispatched: AtomicU64,
    pub rejected: AtomicU64,
    pub timed_out: AtomicU64,
    pub cancelled: AtomicU64,
}

/// One schema and its level.
pub struct Series {
    families: Arc<FlowMetrics>,
    schema: Arc<str>,
    level: Arc<str>,
    counts: Arc<Counts>,
    active: OnceLock<Active>,
}

struct Active {
    executing: (Level, Level),
    waiting: (Level, Level),
    dispatched: Counter,
    waited: [Histogram; 2],
    executions: [Histogram; 2],
    estimated: Histogram,
}

impl FlowMetrics {
    /// Registers the families.
    pub fn new(registry: &Registry) -> Self {
        let gauge = |name, help, stability, labels| registry.gauge_vec(name, help, stability, labels);
        let counter = |name, help, labels| registry.counter_vec(name, help, Stability::Beta, labels);
        Self {
            executing_requests: gauge(
                "apiserver_flowcontrol_current_executing_requests",
                "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
                Stability::Beta,
                FLOW,
            ),
            executing_seats: gauge(
                "apiserver_flowcontrol_current_executing_seats",
                "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
                Stability::Beta,
                FLOW,
            ),
            waiting_requests: gauge(
                "apiserver_flowcontrol_current_inqueue_requests",
                "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
                Stability::Beta,
                FLOW,
            ),
            waiting_seats: gauge(
                "apiserver_flowcontrol_current_inqueue_seats",
                "Number of seats currently pending in queues of the API Priority and Fairness subsystem",
                Stability::Alpha,
                FLOW,
            ),
            dispatched: counter(
                "apiserver_flowcontrol_dispatched_requests_total",
                "Number of requests executed by API Priority and Fairness subsystem",
                FLOW,
            ),
            rejected: counter(
                "apiserver_flowcontrol_rejected_requests_total",
                "Number of requests rejected by API Priority and Fairness subsystem",
                &["flow_schema", "priority_level", "reason"],
            ),
            waits: registry.histogram_vec(
                "apiserver_flowcontrol_request_wait_duration_seconds",
                "Length of time a request spent waiting in its queue",
                Stability::Beta,
                &["execute", "flow_schema", "priority_level"],
                DURATIONS,
            ),
            executions: registry.histogram_vec(
                "apiserver_flowcontrol_request_execution_seconds",
                "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
                Stability::Alpha,
                &["flow_schema", "priority_level", "type"],
                DURATIONS,
            ),
            estimated: registry.histogram_vec(
                "apiserver_flowcontrol_work_estimated_seats",
                "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
                Stability::Alpha,
                FLOW,
                SEATS,
            ),
            nominal: gauge(
                "apiserver_flowcontrol_nominal_limit_seats",
                "Nominal number of execution seats configured for each priority level",
                Stability::Beta,
                LEVEL,
            ),
            lower: gauge(
                "apiserver_flowcontrol_lower_limit_seats",
                "Configured lower bound on number of execution seats available to each priority level",
                Stability::Alpha,
                LEVEL,
            ),
            upper: gauge(
                "apiserver_flowcontrol_upper_limit_seats",
                "Configured upper bound on number of execution seats available to each priority level",
                Stability::Alpha,
                LEVEL,
            ),
            current: gauge(
                "apiserver_flowcontrol_current_limit_seats",
                "current derived number of execution seats available to each priority level",
                Stability::Alpha,
                LEVEL,
            ),
            series: Mutex::default(),
            counts: Mutex::default(),
        }
    }

    /// The series of a schema and its level.
    pub(super) fn of(self: &Arc<Self>, schema: &Arc<str>, level: &Arc<str>) -> Arc<Series> {
        let counts = self.counts(level);
        let mut known = self.series.lock();
        let made = || {
            Arc::new(Series {
                families: self.clone(),
                schema: schema.clone(),
                level: level.clone(),
                counts,
                active: OnceLock::new(),
            })
        };
        known.entry((schema.clone(), level.clone())).or_insert_with(made).clone()
    }

    /// What became of the requests of a level.
    pub(super) fn counts(&self, level: &Arc<str>) -> Arc<Counts> {
        self.counts.lock().entry(level.clone()).or_default().clone()
    }

    /// The limits of a level.
    pub(super) fn limits(&self, level: &str, limits: Limits) {
        for (gauge, seats) in [
            (&self.nominal, limits.nominal),
            (&self.lower, limits.lower),
            (&self.upper, limits.upper),
            (&self.current, limits.nominal),
        ] {
            gauge.set(&[level], f64::from(seats));
        }
    }
}

impl Series {
    fn active(&self) -> &Active {
        self.active.get_or_init(|| {
            let (families, schema, level) = (&self.families, &*self.schema, &*self.level);
            let flow = [schema, level];
            Active {
                executing: (families.executing_requests.with(&flow), families.executing_seats.with(&flow)),
                waiting: (families.waiting_requests.with(&flow), families.waiting_seats.with(&flow)),
                dispatched: families.dispatched.with(&flow),
                waited: ["true", "false"].map(|execute| families.waits.with(&[execute, schema, level])),
                executions: ["regular", "watch"].map(|kind| families.executions.with(&[schema, level, kind])),
                estimated: families.estimated.with(&flow),
            }
        })
    }

    /// A request comes.
    pub(super) fn estimated(&self, seats: u32) {
        self.active().estimated.observe(f64::from(seats));
    }

    /// A request waits for its turn.
    pub(super) fn wait(self: &Arc<Self>, seats: u32) -> Waiting {
        let (requests, all) = &self.active().waiting;
        requests.inc();
        all.inc_by(f64::from(seats));
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { series: self.clone(), seats, answered: false }
    }

    /// A request is worked on from now until the answer is dropped.
    pub(super) fn run(self: &Arc<Self>, seats: u32, is_watch: bool, clock: &SharedClock) -> Running {
        let active = self.active();
        active.executing.0.inc();
        active.executing.1.inc_by(f64::from(seats));
        active.dispatched.inc();
        self.counts.executing.fetch_add(1, Ordering::Relaxed);
        self.counts.dispatched.fetch_add(1, Ordering::Relaxed);
        Running { series: self.clone(), seats, is_watch, clock: clock.clone(), begun: clock.monotonic() }
    }

    fn reject(&self, reason: &str, count: &AtomicU64) {
        self.families.rejected.inc(&[&self.schema, &self.level, reason]);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request that waits; one that is dropped unanswered was cancelled.
pub struct Waiting {
    series: Arc<Series>,
    seats: u32,
    answered: bool,
}

impl Waiting {
    /// It got its seats, or did not.
    pub(super) fn answer(mut self, refused: Option<Refusal>, waited: Duration) {
        self.answered = true;
        let series = &self.series;
        series.active().waited[usize::from(refused.is_some())].observe(waited.as_secs_f64());
        match refused {
            None => {}
            Some(Refusal::QueueFull) => series.reject("queue-full", &series.counts.rejected),
            Some(Refusal::ConcurrencyLimit) => series.reject("concurrency-limit", &series.counts.rejected),
            Some(Refusal::TimedOut) => series.reject("time-out", &series.counts.timed_out),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let (requests, all) = &self.series.active().waiting;
        requests.dec();
        all.dec_by(f64::from(self.seats));
        self.series.counts.waiting.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            self.series.reject("cancelled", &self.series.counts.cancelled);
        }
    }
}

/// A request that is worked on.
pub struct Running {
    series: Arc<Series>,
    seats: u32,
    is_watch: bool,
    clock: SharedClock,
    begun: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        let active = self.series.active();
        active.executing.0.dec();
        active.executing.1.dec_by(f64::from(self.seats));
        active.executions[usize::from(self.is_watch)].observe((self.clock.monotonic() - self.begun).as_secs_f64());
        self.series.counts.executing.fetch_sub(1, Ordering::Relaxed);
    }
}
