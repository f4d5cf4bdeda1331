//! What Priority and Fairness measures, in upstream's names.
//!
//! The series of a FlowSchema and its level are found when the schema is compiled and made when its first request comes,
//! so that a request looks nothing up and schemas that nobody uses show nothing.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use component_base::metrics::{Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, Registry, Stability};
use parking_lot::Mutex;

use super::allocation::Demand;
use super::utilization::{self, Counted, Kinds, Utilization};

const FLOW: &[&str] = &["flow_schema", "priority_level"];
const LEVEL: &[&str] = &["priority_level"];
const BOUNDS: &[&str] = &["bound", "priority_level"];
const DURATIONS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

const QUEUE_LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const WATCHES: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0];

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
    queue_lengths: HistogramVec,
    watches: HistogramVec,
    not_accommodated: CounterVec,
    nominal: GaugeVec,
    lower: GaugeVec,
    upper: GaugeVec,
    current: GaugeVec,
    /// High watermark, average, deviation, smoothed, and what comes of them.
    demand: [GaugeVec; 4],
    target: GaugeVec,
    fair: Level,
    current_r: GaugeVec,
    dispatch_r: GaugeVec,
    latest_s: GaugeVec,
    next_s: GaugeVec,
    next_discounted_s: GaugeVec,
    utilization: utilization::Families,
    /// How many requests wait and are served, of those that read and of those that write.
    pub(super) kinds: Kinds,
    /// By the names of schema and level.
    series: Mutex<HashMap<Names, Arc<Series>>>,
}

/// The names of a schema and of its level.
type Names = (Arc<str>, Arc<str>);

/// One schema and its level.
pub struct Series {
    families: Arc<FlowMetrics>,
    schema: Arc<str>,
    level: Arc<str>,
    active: OnceLock<Active>,
}

struct Active {
    executing: (Level, Level),
    dispatched: Counter,
    /// Where requests may wait: not at an exempt level.
    waiting: OnceLock<(Level, Level)>,
    waited: OnceLock<[Histogram; 2]>,
    executions: [Histogram; 2],
    estimated: Histogram,
    queue_lengths: OnceLock<Histogram>,
    /// Of what changes something.
    watches: OnceLock<Histogram>,
}

/// The virtual time of a level.
#[derive(Clone)]
pub struct LevelSeries {
    pub(super) current_r: Level,
    pub(super) utilization: Utilization,
    families: Arc<FlowMetrics>,
    level: Arc<str>,
}

impl LevelSeries {
    /// Something is served: virtual time, the time at which it starts, and the bounds of such times.
    pub(super) fn dispatch(&self, r: f64, start: f64, bounds: (f64, f64), discounted: (f64, f64)) {
        let families = &self.families;
        families.dispatch_r.set(&[&self.level], r);
        families.latest_s.set(&[&self.level], start);
        for (family, (least, most)) in [(&families.next_s, bounds), (&families.next_discounted_s, discounted)] {
            family.set(&["min", &self.level], least);
            family.set(&["max", &self.level], most);
        }
    }
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
            queue_lengths: registry.histogram_vec(
                "apiserver_flowcontrol_request_queue_length_after_enqueue",
                "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
                Stability::Alpha,
                FLOW,
                QUEUE_LENGTHS,
            ),
            watches: registry.histogram_vec(
                "apiserver_flowcontrol_watch_count_samples",
                "count of watchers for mutating requests in API Priority and Fairness",
                Stability::Alpha,
                FLOW,
                WATCHES,
            ),
            not_accommodated: registry.counter_vec(
                "apiserver_flowcontrol_request_dispatch_no_accommodation_total",
                "Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats",
                Stability::Alpha,
                FLOW,
            ),
            demand: [
                ("high_watermark", "High watermark, over last adjustment period, of demand_seats"),
                ("average", "Time-weighted average, over last adjustment period, of demand_seats"),
                ("stdev", "Time-weighted standard deviation, over last adjustment period, of demand_seats"),
                ("smoothed", "Smoothed seat demands"),
            ]
            .map(|(name, help)| {
                let name = format!("apiserver_flowcontrol_demand_seats_{name}");
                registry.gauge_vec(&name, help, Stability::Alpha, LEVEL)
            }),
            target: gauge("apiserver_flowcontrol_target_seats", "Seat allocation targets", Stability::Alpha, LEVEL),
            fair: gauge(
                "apiserver_flowcontrol_seat_fair_frac",
                "Fair fraction of server's concurrency to allocate to each priority level that can use it",
                Stability::Alpha,
                &[],
            )
            .with(&[]),
            current_r: gauge("apiserver_flowcontrol_current_r", "R(time of last change)", Stability::Alpha, LEVEL),
            dispatch_r: gauge("apiserver_flowcontrol_dispatch_r", "R(time of last dispatch)", Stability::Alpha, LEVEL),
            latest_s: gauge(
                "apiserver_flowcontrol_latest_s",
                "S(most recently dispatched request)",
                Stability::Alpha,
                LEVEL,
            ),
            next_s: gauge(
                "apiserver_flowcontrol_next_s_bounds",
                "min and max, over queues, of S(oldest waiting request in queue)",
                Stability::Alpha,
                BOUNDS,
            ),
            next_discounted_s: gauge(
                "apiserver_flowcontrol_next_discounted_s_bounds",
                "min and max, over queues, of S(oldest waiting request in queue) - estimated work in progress",
                Stability::Alpha,
                BOUNDS,
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
            kinds: Kinds::new(registry),
            utilization: utilization::Families::new(registry),
            series: Mutex::default(),
        }
    }

    /// The series of a schema and its level.
    pub(super) fn of(self: &Arc<Self>, schema: &Arc<str>, level: &Arc<str>) -> Arc<Series> {
        let made = || {
            let (schema, level) = (schema.clone(), level.clone());
            Arc::new(Series { families: self.clone(), schema, level, active: OnceLock::new() })
        };
        self.series.lock().entry((schema.clone(), level.clone())).or_insert_with(made).clone()
    }

    /// The series of a level.
    pub(super) fn level(self: &Arc<Self>, level: &Arc<str>) -> LevelSeries {
        LevelSeries {
            current_r: self.current_r.with(&[level]),
            utilization: self.utilization.level(level),
            families: self.clone(),
            level: level.clone(),
        }
    }

    /// How many requests are served at a time at most without Priority and Fairness; 0 is no limit.
    pub fn limit_in_flight(&self, reading: usize, writing: usize) {
        self.kinds.limit_executing(reading as f64, writing as f64);
    }

    /// Counts a request that is served without Priority and Fairness.
    pub fn executes(&self, mutating: bool) -> Counted {
        self.kinds.executes(mutating)
    }

    /// The limits of a level, as they are configured.
    pub(super) fn limits(&self, level: &str, nominal: u32, lower: u32, upper: u32) {
        for (gauge, seats) in [(&self.nominal, nominal), (&self.lower, lower), (&self.upper, upper)] {
            gauge.set(&[level], f64::from(seats));
        }
    }

    /// What a level would use, and what it gets.
    pub(super) fn adjusted(&self, level: &str, demand: Demand, target: f64, current: u32) {
        let figures = [demand.high_watermark, demand.average, demand.deviation, demand.smoothed];
        for (gauge, figure) in self.demand.iter().zip(figures) {
            gauge.set(&[level], figure);
        }
        self.target.set(&[level], target);
        self.current.set(&[level], f64::from(current));
    }

    /// The fraction of what it would use that every level gets.
    pub(super) fn fair(&self, fraction: f64) {
        self.fair.set(fraction);
    }
}

impl Series {
    fn active(&self) -> &Active {
        self.active.get_or_init(|| {
            let (families, schema, level) = (&self.families, &*self.schema, &*self.level);
            let flow = [schema, level];
            Active {
                executing: (families.executing_requests.with(&flow), families.executing_seats.with(&flow)),
                dispatched: families.dispatched.with(&flow),
                waiting: OnceLock::new(),
                waited: OnceLock::new(),
                executions: ["regular", "watch"].map(|kind| families.executions.with(&[schema, level, kind])),
                estimated: families.estimated.with(&flow),
                queue_lengths: OnceLock::new(),
                watches: OnceLock::new(),
            }
        })
    }

    fn waiting(&self) -> &(Level, Level) {
        self.active().waiting.get_or_init(|| {
            let flow = [&*self.schema, &*self.level];
            (self.families.waiting_requests.with(&flow), self.families.waiting_seats.with(&flow))
        })
    }

    /// The schema's name.
    pub(super) fn schema(&self) -> Arc<str> {
        self.schema.clone()
    }

    /// A request comes.
    pub(super) fn estimated(&self, seats: u32) {
        self.active().estimated.observe(f64::from(seats));
    }

    /// A change comes that so many watches hear of.
    pub(super) fn watched(&self, watches: u32) {
        let series = self.active().watches.get_or_init(|| self.families.watches.with(&[&self.schema, &self.level]));
        series.observe(f64::from(watches));
    }

    /// A request waits, and so many with it.
    pub(super) fn enqueued(&self, seats: u32, length: usize) {
        let (requests, all) = self.waiting();
        requests.inc();
        all.inc_by(f64::from(seats));
        let lengths = &self.active().queue_lengths;
        let lengths = lengths.get_or_init(|| self.families.queue_lengths.with(&[&self.schema, &self.level]));
        lengths.observe(length as f64);
    }

    /// It waits no longer.
    pub(super) fn dequeued(&self, seats: u32) {
        let (requests, all) = self.waiting();
        requests.dec();
        all.dec_by(f64::from(seats));
    }

    /// The time it waited, and whether it is served now.
    pub(super) fn waited(&self, execute: bool, time: Duration) {
        let waited = self.active().waited.get_or_init(|| {
            ["true", "false"].map(|execute| self.families.waits.with(&[execute, &self.schema, &self.level]))
        });
        waited[usize::from(!execute)].observe(time.as_secs_f64());
    }

    /// It was its turn, but there are not enough seats.
    pub(super) fn not_accommodated(&self) {
        self.families.not_accommodated.inc(&[&self.schema, &self.level]);
    }

    pub(super) fn rejected(&self, reason: &str) {
        self.families.rejected.inc(&[&self.schema, &self.level, reason]);
    }

    /// A request is served.
    pub(super) fn executes(&self, seats: u32) {
        let active = self.active();
        active.executing.0.inc();
        active.executing.1.inc_by(f64::from(seats));
        active.dispatched.inc();
    }

    /// It was answered; its seats may be taken a while longer.
    pub(super) fn executed(&self, time: Duration, is_watch: bool) {
        let active = self.active();
        active.executing.0.dec();
        active.executions[usize::from(is_watch)].observe(time.as_secs_f64());
    }

    /// Its seats are free.
    pub(super) fn released(&self, seats: u32) {
        self.active().executing.1.dec_by(f64::from(seats));
    }
}
