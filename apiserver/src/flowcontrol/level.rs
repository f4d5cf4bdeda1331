//! Priority levels: their seats, and what they lend each other.
//!
//! Each level has a nominal share of the server's seats. Every ten seconds the seats are divided anew by what
//! the levels would have used, within the bounds that each level's configuration sets: what it keeps, and what
//! it may borrow. Upstream: `util/flowcontrol/apf_controller.go`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::clock::SharedClock;
use parking_lot::Mutex;
use serde::Deserialize;

use super::allocation::{Demand, Item, allocate};
use super::metrics::FlowMetrics;
use super::queue_set::{QueueSet, Rule};

/// How often seats are divided anew.
pub(super) const PERIOD: Duration = Duration::from_secs(10);
/// Of a level's nominal seats, the part that one request may have.
const WIDEST: f64 = 0.15;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Spec {
    #[serde(rename = "type")]
    pub kind: String,
    limited: Option<Limited>,
    exempt: Option<Exempt>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Limited {
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
#[serde(default, rename_all = "camelCase")]
struct Exempt {
    nominal_concurrency_shares: u32,
    lendable_percent: u32,
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

impl Spec {
    pub fn is_exempt(&self) -> bool {
        self.kind == "Exempt"
    }

    /// Shares, lendable percent, and the most that may be borrowed in percent.
    fn shares(&self) -> (u32, u32, Option<u32>) {
        if self.is_exempt() {
            let exempt = self.exempt.clone().unwrap_or_default();
            return (exempt.nominal_concurrency_shares, exempt.lendable_percent, None);
        }
        let limited = self.limited.clone().unwrap_or_default();
        (limited.nominal_concurrency_shares, limited.lendable_percent, limited.borrowing_limit_percent)
    }

    fn rule(&self) -> Rule {
        if self.is_exempt() {
            return Rule::Exempt;
        }
        match self.limited.as_ref().and_then(|limited| limited.limit_response.queuing.as_ref()) {
            Some(queuing) => Rule::Queue {
                queues: queuing.queues.max(1),
                hand_size: queuing.hand_size.max(1),
                length: queuing.queue_length_limit,
            },
            None => Rule::Reject,
        }
    }
}

/// One level.
struct Level {
    spec: Spec,
    queues: QueueSet,
    /// It is not there any more; what is in it is served.
    quiescing: bool,
    nominal: u32,
    minimum: u32,
    maximum: u32,
    current: u32,
    demand: Demand,
    widest: u32,
}

/// A level, as requests need it.
#[derive(Clone)]
pub(super) struct Entrance {
    pub queues: QueueSet,
    /// The most seats that a request may have.
    pub widest: u32,
    /// Nobody waits here.
    pub exempt: bool,
    /// Who finds no seat may wait for one.
    pub waits: bool,
}

/// All levels of a server.
pub(super) struct Levels {
    total: u32,
    clock: SharedClock,
    metrics: Arc<FlowMetrics>,
    levels: Mutex<HashMap<Arc<str>, Level>>,
}

fn percent(of: u32, percent: u32) -> u32 {
    (f64::from(of) * f64::from(percent) / 100.0).round() as u32
}

impl Levels {
    pub fn new(total: u32, clock: SharedClock, metrics: Arc<FlowMetrics>) -> Self {
        Self { total, clock, metrics, levels: Mutex::default() }
    }

    /// Other levels, or the same with other specs.
    pub fn configure(&self, specs: &HashMap<Arc<str>, Spec>) -> HashMap<Arc<str>, Entrance> {
        let mut levels = self.levels.lock();
        for (name, level) in levels.iter_mut() {
            level.quiescing = !specs.contains_key(name);
        }
        levels.retain(|_, level| !(level.quiescing && level.queues.is_idle()));
        for (name, spec) in specs {
            let made = || Level {
                spec: Spec::default(),
                queues: QueueSet::new(self.clock.clone(), self.metrics.level(name)),
                quiescing: false,
                nominal: 0,
                minimum: 0,
                maximum: 0,
                current: 0,
                demand: Demand::default(),
                widest: 0,
            };
            levels.entry(name.clone()).or_insert_with(made).spec = spec.clone();
        }
        let sum: f64 = levels.values().map(|level| f64::from(level.spec.shares().0)).sum();
        for (name, level) in levels.iter_mut() {
            let (shares, lendable, borrowing) = level.spec.shares();
            let nominal = (f64::from(self.total) * f64::from(shares) / sum.max(1.0)).ceil() as u32;
            level.nominal = nominal;
            level.minimum = nominal - percent(nominal, lendable).min(nominal);
            level.maximum = nominal + borrowing.map_or(self.total, |limit| percent(nominal, limit));
            if let Rule::Queue { hand_size, .. } = level.spec.rule() {
                let part = (f64::from(nominal) * WIDEST).ceil() as u32;
                level.widest = part.min(nominal / u32::try_from(hand_size).unwrap_or(u32::MAX)).max(1);
            } else {
                level.widest = u32::MAX;
            }
            self.metrics.limits(name, level.nominal, level.minimum, level.maximum);
        }
        let executing: u32 = levels.values().map(|level| level.nominal).sum();
        let waiting = levels.values().map(|level| match level.spec.rule() {
            Rule::Queue { queues, length, .. } => queues * length,
            Rule::Exempt | Rule::Reject => 0,
        });
        self.metrics.kinds.limit_waiting(waiting.sum::<usize>() as f64);
        self.metrics.kinds.limit_executing(f64::from(executing), f64::from(executing));
        self.divide(&mut levels);
        let entrance = |level: &Level| Entrance {
            queues: level.queues.clone(),
            widest: level.widest,
            exempt: level.spec.is_exempt(),
            waits: matches!(level.spec.rule(), Rule::Queue { .. }),
        };
        levels.iter().map(|(name, level)| (name.clone(), entrance(level))).collect()
    }

    /// Divides the seats by what was asked for since the last time.
    pub fn adjust(&self) {
        let mut levels = self.levels.lock();
        levels.retain(|_, level| !(level.quiescing && level.queues.is_idle()));
        self.divide(&mut levels);
    }

    fn divide(&self, levels: &mut HashMap<Arc<str>, Level>) {
        // A lower bound is what was needed at most, but not more than the share; and what the level keeps anyway.
        let least = |level: &Level| {
            let watermark = level.demand.high_watermark as u32;
            let needed = if level.spec.is_exempt() { watermark } else { watermark.min(level.nominal) };
            level.minimum.max(needed)
        };
        let all: u32 = levels.values().map(|level| level.nominal).sum();
        let mut names: Vec<Arc<str>> = levels.keys().cloned().collect();
        names.sort();
        let (mut items, mut kept, mut needed, mut left) = (Vec::new(), 0_u32, 0_u32, i64::from(all));
        for name in &names {
            let Some(level) = levels.get_mut(name) else { continue };
            level.demand.update(level.queues.observe());
            let lower = least(level);
            if level.spec.is_exempt() {
                left -= i64::from(lower);
                continue;
            }
            let target = f64::from(lower).max(level.demand.smoothed);
            items.push(Item { target, lower: f64::from(lower), upper: f64::from(level.maximum) });
            kept += level.minimum;
            needed += lower;
        }
        // Exempt levels may leave too little for what others keep, or for what they need.
        let shared = if left <= i64::from(kept) {
            Some(0.0)
        } else if left <= i64::from(needed) {
            Some((left - i64::from(kept)) as f64 / f64::from(needed - kept))
        } else {
            None
        };
        let allocated = if shared.is_none() { allocate(f64::from(all), &items) } else { None };
        self.metrics.fair(allocated.as_ref().map_or(0.0, |(_, fraction)| *fraction));
        let mut next = 0;
        for name in &names {
            let Some(level) = levels.get_mut(name) else { continue };
            let lower = least(level);
            let mut target = f64::from(lower);
            if level.spec.is_exempt() {
                level.current = lower;
            } else {
                target = items[next].target;
                if let Some(fraction) = shared {
                    level.current = level.minimum + (f64::from(lower - level.minimum) * fraction).round() as u32;
                } else if let Some((shares, _)) = &allocated {
                    level.current = shares[next].round() as u32;
                }
                next += 1;
            }
            self.metrics.adjusted(name, level.demand, target, level.current);
            // What has no seats is measured by a tenth of all.
            let measure =
                if level.current > 0 { level.current } else { (f64::from(self.total) / 10.0).round().max(1.0) as u32 };
            level.queues.configure(level.spec.rule(), level.current, measure);
        }
    }

    /// Name, queues and whether it is going away, by name.
    pub fn all(&self) -> Vec<(Arc<str>, QueueSet, bool)> {
        let levels = self.levels.lock();
        let mut found: Vec<_> =
            levels.iter().map(|(name, level)| (name.clone(), level.queues.clone(), level.quiescing)).collect();
        found.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        found
    }

    #[cfg(test)]
    fn current(&self, name: &str) -> u32 {
        self.levels.lock()[name].current
    }
}

#[cfg(test)]
mod tests {
    use super::super::objects;
    use super::super::queue_set::{Asked, Details};
    use super::super::work::Work;
    use super::*;
    use component_base::clock::FakeClock;
    use component_base::metrics::Registry;

    fn specs(value: &serde_json::Value) -> HashMap<Arc<str>, Spec> {
        let specs: HashMap<String, Spec> = serde_json::from_value(value.clone()).unwrap();
        specs.into_iter().map(|(name, spec)| (name.into(), spec)).collect()
    }

    struct Bench {
        levels: Levels,
        clock: FakeClock,
        metrics: Arc<FlowMetrics>,
    }

    fn bench(total: u32) -> Bench {
        let clock = FakeClock::new(jiff::Timestamp::from_second(1_800_000_000).unwrap());
        let metrics = Arc::new(FlowMetrics::new(&Registry::new()));
        Bench { levels: Levels::new(total, Arc::new(clock.clone()), metrics.clone()), clock, metrics }
    }

    impl Bench {
        fn asked(&self, level: &str, seats: u32) -> Asked {
            Asked {
                series: self.metrics.of(&"schema".into(), &level.into()),
                flow: 1,
                distinguisher: String::new(),
                work: Work::plain(seats),
                is_watch: false,
                details: Details::default(),
            }
        }
    }

    fn limited(shares: u32, lendable: u32, borrowing: Option<u32>) -> serde_json::Value {
        let mut spec = serde_json::json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 8, "handSize": 2, "queueLengthLimit": 50}},
        }});
        if let Some(percent) = borrowing {
            spec["limited"]["borrowingLimitPercent"] = percent.into();
        }
        spec
    }

    #[test]
    fn the_default_levels_have_upstreams_seats() {
        let bench = bench(600);
        let specs = objects::levels().into_iter().map(|level| {
            let name: Arc<str> = level["metadata"]["name"].as_str().unwrap().into();
            (name, serde_json::from_value(level["spec"].clone()).unwrap())
        });
        let entrances = bench.levels.configure(&specs.collect());
        let levels = bench.levels.levels.lock();
        let of = |name: &str| (levels[name].nominal, levels[name].minimum, levels[name].maximum);
        assert_eq!(of("workload-low"), (245, 24, 845));
        assert_eq!(of("workload-high"), (98, 49, 698));
        assert_eq!(of("node-high"), (98, 73, 698));
        assert_eq!(of("catch-all"), (13, 13, 613));
        assert_eq!(of("exempt"), (0, 0, 600));
        assert_eq!(entrances["workload-low"].widest, 37);
        assert_eq!(entrances["leader-election"].widest, 4);
    }

    /// A level that is flooded borrows what others do not use, and gives it back when they do.
    #[tokio::test]
    async fn seats_go_where_they_are_asked_for() {
        let bench = bench(100);
        let config = specs(&serde_json::json!({"a": limited(1, 50, None), "b": limited(1, 50, Some(40))}));
        let entrances = bench.levels.configure(&config);
        let hold = async |level: &str, count: usize| {
            let mut held = Vec::new();
            for _ in 0..count {
                held.extend(entrances[level].queues.start(bench.asked(level, 1), Duration::from_millis(1)).await.ok());
            }
            held
        };
        let mut held = hold("a", 60).await;
        let before = held.len();
        assert!(before < 60, "{before} at once");
        bench.clock.step(PERIOD);
        bench.levels.adjust();
        held.extend(hold("a", 40).await);
        assert!(held.len() > before, "others lend");
        assert_eq!(held.len(), bench.levels.current("a") as usize);
        // B keeps its half, whatever a would use.
        assert!(bench.levels.current("b") >= 25, "{}", bench.levels.current("b"));
        drop(held);
        let held = hold("b", 100).await;
        bench.clock.step(PERIOD);
        bench.levels.adjust();
        let more = hold("b", 100).await;
        assert!(bench.levels.current("b") <= 70, "no more than 40 percent are borrowed");
        assert_eq!(held.len() + more.len(), bench.levels.current("b") as usize);
    }

    #[tokio::test]
    async fn a_level_that_is_gone_serves_what_it_has() {
        let bench = bench(100);
        let both = specs(&serde_json::json!({"a": limited(1, 0, None), "b": limited(1, 0, None)}));
        let entrances = bench.levels.configure(&both);
        let seat = entrances["a"].queues.start(bench.asked("a", 1), Duration::from_millis(1)).await.ok().unwrap();
        bench.levels.configure(&specs(&serde_json::json!({"b": limited(1, 0, None)})));
        let names = || bench.levels.all().iter().map(|(name, _, gone)| format!("{name} {gone}")).collect::<Vec<_>>();
        assert_eq!(names(), ["a true", "b false"]);
        drop(seat);
        bench.levels.adjust();
        assert_eq!(names(), ["b false"]);
    }
}
