//! When the node is short of something: thresholds from the configuration, weighed against what is
//! observed. Pure; times come in as an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use apimachinery::quantity::{Format, Quantity};

use crate::config::File;

/// Something that can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// First: of several shortages memory is seen to first.
    MemoryAvailable,
    PidAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
}

impl Signal {
    const ALL: [Self; 6] = [
        Self::MemoryAvailable,
        Self::PidAvailable,
        Self::NodefsAvailable,
        Self::NodefsInodesFree,
        Self::ImagefsAvailable,
        Self::ImagefsInodesFree,
    ];

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::PidAvailable => "pid.available",
            Self::NodefsAvailable => "nodefs.available",
            Self::NodefsInodesFree => "nodefs.inodesFree",
            Self::ImagefsAvailable => "imagefs.available",
            Self::ImagefsInodesFree => "imagefs.inodesFree",
        }
    }

    /// The resource that eviction messages name.
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::PidAvailable => "pids",
            Self::NodefsAvailable | Self::ImagefsAvailable => "ephemeral-storage",
            Self::NodefsInodesFree | Self::ImagefsInodesFree => "inodes",
        }
    }

    /// The node's condition that a shortage raises.
    pub fn condition(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "MemoryPressure",
            Self::PidAvailable => "PIDPressure",
            _ => "DiskPressure",
        }
    }
}

/// How much must be left.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Amount {
    Absolute(i64),
    /// Of the capacity, from 0 to 1.
    Share(f64),
}

impl Amount {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix('%') {
            Some(percent) => Some(Self::Share(percent.trim().parse::<f64>().ok()? / 100.0)),
            None => Some(Self::Absolute(Quantity::parse(text).ok()?.value())),
        }
    }

    fn of(self, capacity: i64) -> i64 {
        match self {
            Self::Absolute(amount) => amount,
            Self::Share(share) => (capacity as f64 * share) as i64,
        }
    }
}

/// One line of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    amount: Amount,
    /// Zero for a hard threshold, which acts at once.
    pub grace: Duration,
    reclaim: Option<Amount>,
}

impl Threshold {
    /// Pods that it evicts get no time.
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }
}

/// What is there of a resource, and what there is in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    pub available: i64,
    pub capacity: i64,
}

/// A shortage to act on.
#[derive(Clone, Debug, PartialEq)]
pub struct Shortage {
    pub threshold: Threshold,
    /// How much should be left, and how much is, as messages write them.
    pub quantity: String,
    pub available: String,
}

/// The thresholds of a configuration. Hard ones default as upstream's do; a list replaces them all.
pub fn configured(file: &File) -> Vec<Threshold> {
    let defaults: BTreeMap<String, String> = [
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
    ]
    .map(|(signal, amount)| (signal.to_owned(), amount.to_owned()))
    .into();
    let hard = if file.eviction_hard.is_empty() { &defaults } else { &file.eviction_hard };
    let graces = &file.eviction_soft_grace_period;
    let of = |list: &BTreeMap<String, String>, soft: bool| -> Vec<Threshold> {
        let each = Signal::ALL.into_iter().filter_map(|signal| {
            let amount = Amount::parse(list.get(signal.name())?)?;
            // Nothing and everything are not thresholds.
            let useless = matches!(amount, Amount::Share(share) if share <= 0.0 || share >= 1.0)
                || matches!(amount, Amount::Absolute(bytes) if bytes <= 0);
            let grace = match soft {
                true => component_base::duration::parse(graces.get(signal.name())?).ok()?,
                false => Duration::ZERO,
            };
            let reclaim = file.eviction_minimum_reclaim.get(signal.name()).and_then(|text| Amount::parse(text));
            (!useless).then_some(Threshold { signal, amount, grace, reclaim })
        });
        each.collect()
    };
    let mut out = of(hard, false);
    out.extend(of(&file.eviction_soft, true));
    out
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Watcher {
    thresholds: Vec<Threshold>,
    transition: Duration,
    /// When each threshold that is crossed was first seen crossed, by its place in the list.
    since: HashMap<usize, Duration>,
    /// When each condition last had a reason.
    last: HashMap<&'static str, Duration>,
}

impl Watcher {
    /// A condition outlasts its reason by `transition`, so that it does not flap.
    pub fn new(thresholds: Vec<Threshold>, transition: Duration) -> Self {
        Self { thresholds, transition, ..Default::default() }
    }

    /// Takes one look, at the monotonic time `now`: the conditions of the node, and the shortages to act
    /// on, the most pressing one first.
    pub fn look(
        &mut self,
        observed: &HashMap<Signal, Observation>,
        now: Duration,
    ) -> (BTreeSet<&'static str>, Vec<Shortage>) {
        let mut shortages = Vec::new();
        for (index, threshold) in self.thresholds.iter().enumerate() {
            let Some(seen) = observed.get(&threshold.signal) else { continue };
            let mut wanted = threshold.amount.of(seen.capacity);
            if self.since.contains_key(&index) {
                // Once acted upon, more than the bare minimum has to come back.
                wanted += threshold.reclaim.map_or(0, |amount| amount.of(seen.capacity));
            }
            if seen.available >= wanted {
                self.since.remove(&index);
                continue;
            }
            self.last.insert(threshold.signal.condition(), now);
            let since = *self.since.entry(index).or_insert(now);
            if now.saturating_sub(since) >= threshold.grace {
                shortages.push(Shortage {
                    threshold: threshold.clone(),
                    quantity: amount_text(threshold.signal, threshold.amount.of(seen.capacity)),
                    available: amount_text(threshold.signal, seen.available),
                });
            }
        }
        shortages.sort_by_key(|shortage| shortage.threshold.signal);
        self.last.retain(|_, last| now.saturating_sub(*last) < self.transition || *last == now);
        (self.last.keys().copied().collect(), shortages)
    }
}

fn amount_text(signal: Signal, amount: i64) -> String {
    let format = match signal {
        Signal::MemoryAvailable | Signal::NodefsAvailable | Signal::ImagefsAvailable => Format::BinarySI,
        _ => Format::DecimalSI,
    };
    Quantity::new(amount, format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(fields: serde_json::Value) -> File {
        let mut value = json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"});
        for (key, field) in fields.as_object().unwrap() {
            value[key] = field.clone();
        }
        File::from_value(&value).unwrap()
    }

    fn memory(available: i64) -> HashMap<Signal, Observation> {
        HashMap::from([(Signal::MemoryAvailable, Observation { available, capacity: 1000 })])
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn configurations() {
        let signals = |file: &File| configured(file).into_iter().map(|t| t.signal.name()).collect::<Vec<_>>();
        let default = File::default();
        let names =
            ["memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree"];
        assert_eq!(signals(&default), names);
        assert_eq!(
            signals(&file(json!({"evictionHard": {"nodefs.available": "0%", "pid.available": "100"}}))),
            ["pid.available"]
        );
        let soft = configured(&file(json!({"evictionHard": {"memory.available": "1Gi"},
            "evictionSoft": {"memory.available": "2Gi"}, "evictionSoftGracePeriod": {"memory.available": "1m30s"}})));
        assert_eq!(
            soft.iter().map(|t| (t.is_hard(), t.grace)).collect::<Vec<_>>(),
            [(true, Duration::ZERO), (false, 90 * SECOND)]
        );
    }

    #[test]
    fn a_hard_shortage_acts_at_once_and_its_condition_outlasts_it() {
        let thresholds = configured(&file(json!({"evictionHard": {"memory.available": "10%"}})));
        let mut watcher = Watcher::new(thresholds, 300 * SECOND);
        assert_eq!(watcher.look(&memory(100), SECOND), (BTreeSet::new(), Vec::new()));
        let (conditions, shortages) = watcher.look(&memory(99), 2 * SECOND);
        assert_eq!(conditions, BTreeSet::from(["MemoryPressure"]));
        assert_eq!((shortages[0].quantity.as_str(), shortages[0].available.as_str()), ("100", "99"));
        let (conditions, shortages) = watcher.look(&memory(500), 301 * SECOND);
        assert_eq!((conditions.len(), shortages.len()), (1, 0));
        assert_eq!(watcher.look(&memory(500), 303 * SECOND).0, BTreeSet::new());
    }

    #[test]
    fn a_soft_shortage_waits_for_its_grace_period_and_wants_more_back() {
        let thresholds = configured(&file(json!({"evictionHard": {"memory.available": "1"},
            "evictionSoft": {"memory.available": "100"}, "evictionSoftGracePeriod": {"memory.available": "30s"},
            "evictionMinimumReclaim": {"memory.available": "50"}})));
        let mut watcher = Watcher::new(thresholds, SECOND);
        assert!(watcher.look(&memory(50), SECOND).1.is_empty());
        assert_eq!(watcher.look(&memory(50), SECOND).0.len(), 1);
        assert_eq!(watcher.look(&memory(50), 31 * SECOND).1.len(), 1);
        assert_eq!(watcher.look(&memory(120), 32 * SECOND).1.len(), 1);
        assert!(watcher.look(&memory(150), 33 * SECOND).1.is_empty());
    }
}
