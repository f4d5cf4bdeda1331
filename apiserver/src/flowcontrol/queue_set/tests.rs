//! Who waits, who is served next, and what is left behind.

use component_base::clock::{FakeClock, RealClock};
use component_base::metrics::Registry;

use super::super::metrics::FlowMetrics;
use super::*;

const PATIENCE: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(30);
const QUEUED: Rule = Rule::Queue { queues: 8, hand_size: 1, length: 2 };

struct Bench {
    set: QueueSet,
    series: Arc<Series>,
    registry: Registry,
}

fn bench_on(clock: SharedClock, rule: Rule, limit: u32) -> Bench {
    let registry = Registry::new();
    let metrics = Arc::new(FlowMetrics::new(&registry));
    let set = QueueSet::new(clock, metrics.level(&"level".into()));
    set.configure(rule, limit, limit);
    Bench { set, series: metrics.of(&"schema".into(), &"level".into()), registry }
}

fn bench(rule: Rule, limit: u32) -> Bench {
    bench_on(RealClock::shared(), rule, limit)
}

impl Bench {
    fn asked(&self, flow: u64, work: Work) -> Asked {
        Asked {
            series: self.series.clone(),
            flow,
            distinguisher: format!("flow {flow}"),
            work,
            is_watch: false,
            details: Details { user: Arc::new(UserInfo::new("ada", &[])), info: Arc::default() },
        }
    }

    async fn start(&self, flow: u64, patience: Duration) -> Result<Seat, Refusal> {
        self.set.start(self.asked(flow, Work::plain(1)), patience).await
    }

    /// A request of a task of its own, once it waits.
    async fn waits(&self, flow: u64, work: Work) -> tokio::task::JoinHandle<Option<Seat>> {
        let before = self.set.counts().waiting;
        let (set, asked) = (self.set.clone(), self.asked(flow, work));
        let task = tokio::spawn(async move { set.start(asked, LONG).await.ok() });
        while self.set.counts().waiting == before {
            tokio::task::yield_now().await;
        }
        task
    }

    fn has(&self, line: &str) {
        let text = self.registry.encode();
        assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn excess_waits_or_is_refused() {
    let bench = bench(QUEUED, 2);
    let first = bench.start(1, PATIENCE).await.ok().unwrap();
    let _second = bench.start(1, PATIENCE).await.ok().unwrap();
    assert_eq!(bench.start(1, PATIENCE).await.err(), Some(Refusal::TimedOut));
    let waiting = [bench.waits(1, Work::plain(1)).await, bench.waits(1, Work::plain(1)).await];
    assert_eq!(bench.start(1, PATIENCE).await.err(), Some(Refusal::QueueFull));
    drop(first);
    for task in waiting {
        assert!(task.await.unwrap().is_some());
    }
    let counts = bench.set.counts();
    assert_eq!((counts.waiting, counts.dispatched, counts.rejected, counts.cancelled), (0, 4, 2, 1));
    for (reason, count) in [("queue-full", 1), ("time-out", 1)] {
        bench.has(&format!(
            "apiserver_flowcontrol_rejected_requests_total{{flow_schema=\"schema\",priority_level=\"level\",reason=\"{reason}\"}} {count}"
        ));
    }
    bench.has("apiserver_flowcontrol_current_executing_requests{flow_schema=\"schema\",priority_level=\"level\"} 1.0");
    bench.has("apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"schema\",priority_level=\"level\"} 0.0");
}

#[tokio::test]
async fn without_queues_excess_is_refused_at_once() {
    let bench = bench(Rule::Reject, 1);
    let seat = bench.start(1, LONG).await.ok().unwrap();
    assert_eq!(bench.start(1, LONG).await.err(), Some(Refusal::ConcurrencyLimit));
    drop(seat);
    assert!(bench.start(1, LONG).await.is_ok());
    let exempt = self::bench(Rule::Exempt, 0);
    assert!(exempt.start(1, PATIENCE).await.is_ok());
}

#[tokio::test]
async fn a_client_that_leaves_takes_nothing_along() {
    let bench = bench(QUEUED, 1);
    let seat = bench.start(1, LONG).await.ok().unwrap();
    let task = bench.waits(1, Work::plain(1)).await;
    task.abort();
    assert!(task.await.is_err());
    assert_eq!((bench.set.counts().waiting, bench.set.counts().cancelled), (0, 1));
    drop(seat);
    assert!(bench.set.is_idle());
    assert!(bench.start(2, PATIENCE).await.is_ok());
    assert_eq!(bench.set.0.state.lock().seats_in_use, 0);
}

/// Flow 0 fills its queue first; flow 1 comes last and yet is served second.
#[tokio::test]
async fn a_flood_does_not_starve_another_flow() {
    let clock = FakeClock::new(Timestamp::UNIX_EPOCH);
    let bench = bench_on(Arc::new(clock.clone()), QUEUED, 1);
    let seat = bench.start(0, LONG).await.ok().unwrap();
    let flood = [bench.waits(0, Work::plain(1)).await, bench.waits(0, Work::plain(1)).await];
    let other = bench.waits(1, Work::plain(1)).await;
    // Served a while, as guessed.
    clock.step(SERVICE);
    drop(seat);
    let [first, second] = flood;
    let served = tokio::select! {
        seat = other => { drop(seat.unwrap()); "other" }
        seat = first => { drop(seat.unwrap()); "flood" }
    };
    assert_eq!(served, "other");
    assert!(second.await.unwrap().is_some());
}

#[tokio::test]
async fn a_wide_request_runs_alone_and_a_narrow_one_waits_for_it() {
    let bench = bench(QUEUED, 2);
    let wide = bench.set.start(bench.asked(1, Work::plain(10)), PATIENCE).await.ok().unwrap();
    assert_eq!(bench.start(2, PATIENCE).await.err(), Some(Refusal::TimedOut));
    drop(wide);
    let _narrow = bench.start(2, PATIENCE).await.ok().unwrap();
    let wide = bench.set.start(bench.asked(1, Work::plain(10)), PATIENCE).await;
    assert_eq!(wide.err(), Some(Refusal::TimedOut), "not beside another");
    bench.has(
        "apiserver_flowcontrol_request_dispatch_no_accommodation_total{flow_schema=\"schema\",priority_level=\"level\"} 1",
    );
}

#[tokio::test(start_paused = true)]
async fn seats_linger_for_those_who_watch() {
    let clock = FakeClock::new(Timestamp::UNIX_EPOCH);
    let bench = bench_on(Arc::new(clock.clone()), QUEUED, 4);
    let work = Work { initial: 1, last: 4, linger: Duration::from_millis(20) };
    drop(bench.set.start(bench.asked(1, work), PATIENCE).await.ok().unwrap());
    assert!(bench.set.is_idle(), "it was answered");
    assert_eq!(bench.start(2, PATIENCE).await.err(), Some(Refusal::TimedOut), "but its seats are taken");
    tokio::task::yield_now().await;
    clock.step(Duration::from_millis(20));
    tokio::task::yield_now().await;
    assert!(bench.start(2, PATIENCE).await.is_ok());
}

#[test]
fn a_hand_has_different_cards() {
    for flow in [0, 1, 7, u64::MAX, 0x1234_5678_9abc_def0] {
        let hand = deal(flow, 128, 6);
        let mut sorted: Vec<usize> = hand.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 6, "{flow} {hand:?}");
        assert!(sorted.iter().all(|card| *card < 128));
    }
    // As upstream's dealer deals.
    assert_eq!(deal(0, 8, 3).as_slice(), [0, 1, 2]);
    assert_eq!(deal(8 * 7 * 6 - 1, 8, 3).as_slice(), [7, 6, 5]);
}

#[tokio::test]
async fn queues_go_when_they_are_empty() {
    let bench = bench(QUEUED, 1);
    let seat = bench.start(7, LONG).await.ok().unwrap();
    bench.set.configure(Rule::Queue { queues: 2, hand_size: 1, length: 2 }, 1, 1);
    assert_eq!(bench.set.queues().len(), 8, "somebody is in the last one");
    drop(seat);
    assert_eq!(bench.set.queues().len(), 2);
    assert!(bench.start(7, PATIENCE).await.is_ok());
}

#[tokio::test]
async fn requests_can_be_looked_at() {
    let bench = bench(QUEUED, 1);
    let _seat = bench.start(1, LONG).await.ok().unwrap();
    let _waiting = bench.waits(1, Work::plain(1)).await;
    let mut requests = bench.set.requests();
    requests.sort_by_key(|request| request.index);
    let shown: Vec<_> =
        requests.iter().map(|request| (request.queue, request.index, request.started.is_some())).collect();
    assert_eq!(shown, [(1, -1, true), (1, 0, false)]);
    assert_eq!((&*requests[0].schema, requests[0].distinguisher.as_str()), ("schema", "flow 1"));
    let queue = bench.set.queues()[1];
    assert_eq!((queue.pending, queue.executing, queue.seats_in_use, queue.sums), (1, 1, 1, (1, 1, 0.003)));
}

#[tokio::test]
async fn use_is_measured_over_time() {
    let bench = bench(QUEUED, 1);
    let seat = bench.start(1, PATIENCE).await.ok().unwrap();
    let waiting = bench.waits(1, Work::plain(1)).await;
    drop(seat);
    drop(waiting.await.unwrap().unwrap());
    let text = bench.registry.encode();
    let sum = |family: &str, labels: &str| {
        let name = format!("apiserver_flowcontrol_{family}_sum{{{labels}}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.parse::<f64>().unwrap()
    };
    let executing = sum("priority_level_request_utilization", "phase=\"executing\",priority_level=\"level\"");
    let waiting = sum("priority_level_request_utilization", "phase=\"waiting\",priority_level=\"level\"");
    let seats = sum("priority_level_seat_utilization", "phase=\"executing\",priority_level=\"level\"");
    let demand = sum("demand_seats", "priority_level=\"level\"");
    // One of one seat, one of sixteen places; what waits would be served, too.
    assert!(executing > 0.0 && waiting > 0.0 && seats > 0.0, "{executing} {waiting} {seats}");
    assert!(waiting < executing && seats < demand, "{waiting} {executing}, {seats} {demand}");
}
