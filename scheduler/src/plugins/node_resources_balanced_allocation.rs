//! Prefers nodes on which the pod evens out the use of resources.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use smallvec::SmallVec;

use super::node_resources_fit::{ResourceSpec, default_resources};
use super::{Handle, parse_args};
use crate::framework::pod_info::PodInfo;
use crate::framework::snapshot::Snapshot;
use crate::framework::{CycleState, MAX_NODE_SCORE, Plugin, PreScore, Score, Slot, Status, Verdict};

/// The plugin's name.
pub const NAME: &str = "NodeResourcesBalancedAllocation";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Args {
    resources: Vec<ResourceSpec>,
}

struct BalancedAllocation {
    resources: Vec<ResourceSpec>,
}

impl PreScore for BalancedAllocation {
    fn pre_score(&self, _: &mut CycleState, pod: &PodInfo, _: &[Slot], _: &Snapshot) -> Verdict {
        // A pod that asks for nothing balances nothing.
        if self.resources.iter().all(|resource| pod.requests.get(&resource.name) == 0) {
            return Err(Status::skip());
        }
        Ok(())
    }
}

impl Score for BalancedAllocation {
    #[allow(clippy::cast_precision_loss)] // fractions need no more precision
    fn score(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> i64 {
        let mut before: SmallVec<[f64; 4]> = SmallVec::new();
        let mut after: SmallVec<[f64; 4]> = SmallVec::new();
        let c = &snapshot.columns;
        for resource in &self.resources {
            let wanted = pod.requests.get(&resource.name);
            let (allocatable, requested) = match resource.name.as_str() {
                "cpu" => (c.allocatable_cpu[slot], c.requested_cpu[slot]),
                "memory" => (c.allocatable_memory[slot], c.requested_memory[slot]),
                "ephemeral-storage" => (c.allocatable_ephemeral[slot], c.requested_ephemeral[slot]),
                _ if wanted == 0 => continue,
                name => {
                    let node = snapshot.node(slot);
                    let of = |map: &std::collections::BTreeMap<String, i64>| map.get(name).copied().unwrap_or(0);
                    (of(&node.scalar_allocatable), of(&node.scalar_requested))
                }
            };
            if allocatable == 0 {
                continue;
            }
            let fraction = |amount: i64| (amount as f64 / allocatable as f64).min(1.0);
            before.push(fraction(requested));
            after.push(fraction(requested + wanted));
        }
        let half = MAX_NODE_SCORE / 2;
        half + (half + balance(&after) - balance(&before)) / 2
    }
}

/// 100 when all fractions are equal, less the further they are apart (standard deviation).
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // as upstream computes it
fn balance(fractions: &[f64]) -> i64 {
    let deviation = match fractions {
        [] | [_] => 0.0,
        [a, b] => ((a - b) / 2.0).abs(),
        many => {
            let count = many.len() as f64;
            let mean = many.iter().sum::<f64>() / count;
            (many.iter().map(|f| (f - mean) * (f - mean)).sum::<f64>() / count).sqrt()
        }
    };
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}

/// Builds it.
pub fn new(args: &Value, _: &Handle) -> Result<Plugin, String> {
    let mut resources = parse_args::<Args>(args)?.resources;
    if resources.is_empty() {
        resources = default_resources();
    }
    if let Some(bad) = resources.iter().find(|r| r.weight != 1) {
        return Err(format!("resource weight of {} not in valid range [1, 1]", bad.name));
    }
    let plugin = Arc::new(BalancedAllocation { resources });
    Ok(Plugin { name: NAME, pre_score: Some(plugin.clone()), score: Some(plugin), ..Plugin::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    fn score(requests: (&str, &str), allocatable: (&str, &str), used: (&str, &str)) -> i64 {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n").allocatable(allocatable.0, allocatable.1).done());
        snapshot.add_pod(pod("used").requests(used.0, used.1).info(), "n");
        let plugin = BalancedAllocation { resources: default_resources() };
        plugin.score(&CycleState::default(), &pod("p").requests(requests.0, requests.1).info(), 0, &snapshot)
    }

    #[test]
    fn balance_is_rewarded() {
        // before: both 0 → 100; after: 75 % and 50 % → 1 − 0.125 → 87; 50 + (50 + 87 − 100) / 2 = 68
        assert_eq!(score(("3000m", "5000"), ("4000m", "10000"), ("0", "0")), 68);
        // 50 % and 50 % stays balanced: 75
        assert_eq!(score(("3000m", "5000"), ("6000m", "10000"), ("0", "0")), 75);
        // becomes more balanced: before 50 % and 0 → 75, after 50 % and 50 % → 100
        assert_eq!(score(("0", "5000"), ("6000m", "10000"), ("3000m", "0")), 87);
    }

    #[test]
    fn pods_without_requests_are_skipped() {
        let plugin = BalancedAllocation { resources: default_resources() };
        let verdict = plugin.pre_score(&mut CycleState::default(), &pod("p").info(), &[], &Snapshot::default());
        assert_eq!(verdict, Err(Status::skip()));
    }
}
