//! Keeps pods off nodes without room for their requests, and ranks the others by how full they
//! would be: LeastAllocated (the default), MostAllocated or RequestedToCapacityRatio.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use smallvec::SmallVec;

use super::{Handle, parse_args};
use crate::framework::events::{EventKind, interests};
use crate::framework::pod_info::PodInfo;
use crate::framework::resource::Resource;
use crate::framework::snapshot::Snapshot;
use crate::framework::{Code, CycleState, Filter, MAX_NODE_SCORE, Plugin, Score, Slot, Status, Verdict};
use crate::objects::Node;

/// The plugin's name.
pub const NAME: &str = "NodeResourcesFit";

/// Scores in a `requestedToCapacityRatio` shape go up to this.
const MAX_CUSTOM_PRIORITY_SCORE: i64 = 10;

/// A resource and how much it counts.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ResourceSpec {
    pub(super) name: String,
    #[serde(default = "one")]
    pub(super) weight: i64,
}

fn one() -> i64 {
    1
}

pub(super) fn default_resources() -> Vec<ResourceSpec> {
    ["cpu", "memory"].map(|name| ResourceSpec { name: name.to_owned(), weight: 1 }).into()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Args {
    ignored_resources: Vec<String>,
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Option<ScoringStrategy>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ScoringStrategy {
    #[serde(rename = "type")]
    type_: String,
    resources: Vec<ResourceSpec>,
    requested_to_capacity_ratio: Option<RequestedToCapacityRatio>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RequestedToCapacityRatio {
    shape: Vec<ShapePoint>,
}

#[derive(Clone, Deserialize)]
struct ShapePoint {
    utilization: i64,
    score: i64,
}

enum Strategy {
    Least,
    Most,
    /// Utilisation (percent) to score, by straight lines between the points.
    Ratio(Vec<(i64, i64)>),
}

struct Fit {
    ignored: BTreeSet<String>,
    ignored_groups: BTreeSet<String>,
    strategy: Strategy,
    resources: Vec<ResourceSpec>,
}

impl Fit {
    fn ignores(&self, name: &str) -> bool {
        self.ignored.contains(name)
            || name.split_once('/').is_some_and(|(group, _)| self.ignored_groups.contains(group))
    }
}

impl Filter for Fit {
    fn filter(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> Verdict {
        let c = &snapshot.columns;
        let wanted = &pod.requests;
        let mut reasons: SmallVec<[Cow<'static, str>; 1]> = SmallVec::new();
        let mut unresolvable = false;
        if c.pods[slot] + 1 > c.allocatable_pods[slot] {
            reasons.push("Too many pods".into());
        }
        let mut check = |reason: &'static str, wanted: i64, allocatable: i64, requested: i64| {
            if wanted > 0 && wanted > allocatable - requested {
                reasons.push(reason.into());
                // Even an empty node would be too small.
                unresolvable |= wanted > allocatable;
            }
        };
        check("Insufficient cpu", wanted.milli_cpu, c.allocatable_cpu[slot], c.requested_cpu[slot]);
        check("Insufficient memory", wanted.memory, c.allocatable_memory[slot], c.requested_memory[slot]);
        check(
            "Insufficient ephemeral-storage",
            wanted.ephemeral_storage,
            c.allocatable_ephemeral[slot],
            c.requested_ephemeral[slot],
        );
        if !wanted.scalar.is_empty() {
            let node = snapshot.node(slot);
            for (name, amount) in &wanted.scalar {
                let allocatable = node.scalar_allocatable.get(name).copied().unwrap_or(0);
                let requested = node.scalar_requested.get(name).copied().unwrap_or(0);
                if *amount > 0 && *amount > allocatable - requested && !self.ignores(name) {
                    reasons.push(format!("Insufficient {name}").into());
                    unresolvable |= *amount > allocatable;
                }
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let code = if unresolvable { Code::UnschedulableAndUnresolvable } else { Code::Unschedulable };
        Err(Status { code, plugin: NAME, reasons })
    }
}

/// Allocatable and requested (with the pod) of one resource; `None` when it does not count here.
/// Requests for CPU and memory are those that are never zero, so that pods without requests spread.
fn usage(resource: &str, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> Option<(i64, i64)> {
    let c = &snapshot.columns;
    let (allocatable, requested) = match resource {
        "cpu" => (c.allocatable_cpu[slot], c.non_zero_cpu[slot] + pod.non_zero.milli_cpu),
        "memory" => (c.allocatable_memory[slot], c.non_zero_memory[slot] + pod.non_zero.memory),
        "ephemeral-storage" => {
            (c.allocatable_ephemeral[slot], c.requested_ephemeral[slot] + pod.requests.ephemeral_storage)
        }
        name => {
            let wanted = pod.requests.get(name);
            if wanted == 0 {
                return None;
            }
            let node = snapshot.node(slot);
            (
                node.scalar_allocatable.get(name).copied().unwrap_or(0),
                node.scalar_requested.get(name).copied().unwrap_or(0) + wanted,
            )
        }
    };
    (allocatable != 0).then_some((allocatable, requested))
}

impl Score for Fit {
    fn score(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> i64 {
        let mut total = 0;
        let mut weights = 0;
        for resource in &self.resources {
            let Some((allocatable, requested)) = usage(&resource.name, pod, slot, snapshot) else { continue };
            let score = match &self.strategy {
                Strategy::Least if requested > allocatable => 0,
                Strategy::Least => (allocatable - requested) * MAX_NODE_SCORE / allocatable,
                Strategy::Most => requested.min(allocatable) * MAX_NODE_SCORE / allocatable,
                Strategy::Ratio(shape) => {
                    let utilization = if requested > allocatable { 100 } else { requested * 100 / allocatable };
                    let score = broken_linear(shape, utilization);
                    if score <= 0 {
                        continue;
                    }
                    score
                }
            };
            total += score * resource.weight;
            weights += resource.weight;
        }
        if weights == 0 {
            return 0;
        }
        match self.strategy {
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // as upstream rounds
            Strategy::Ratio(_) => (total as f64 / weights as f64).round() as i64,
            _ => total / weights,
        }
    }
}

fn broken_linear(shape: &[(i64, i64)], at: i64) -> i64 {
    for (i, (x, y)) in shape.iter().enumerate() {
        if at <= *x {
            if i == 0 {
                return *y;
            }
            let (x0, y0) = shape[i - 1];
            return y0 + (y - y0) * (at - x0) / (x - x0);
        }
    }
    shape.last().map_or(0, |(_, y)| *y)
}

/// Builds it.
pub fn new(args: &Value, _: &Handle) -> Result<Plugin, String> {
    let args: Args = parse_args(args)?;
    let scoring = args.scoring_strategy.unwrap_or_default();
    let strategy = match scoring.type_.as_str() {
        "" | "LeastAllocated" => Strategy::Least,
        "MostAllocated" => Strategy::Most,
        "RequestedToCapacityRatio" => {
            let shape: Vec<(i64, i64)> = scoring
                .requested_to_capacity_ratio
                .unwrap_or_default()
                .shape
                .iter()
                .map(|point| (point.utilization, point.score * (MAX_NODE_SCORE / MAX_CUSTOM_PRIORITY_SCORE)))
                .collect();
            if shape.is_empty() {
                return Err("at least one point must be specified".to_owned());
            }
            if shape.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
                return Err("utilization values must be sorted in increasing order".to_owned());
            }
            Strategy::Ratio(shape)
        }
        other => return Err(format!("scoring strategy {other} is not supported")),
    };
    let resources = if scoring.resources.is_empty() { default_resources() } else { scoring.resources };
    if let Some(bad) = resources.iter().find(|r| !(1..=100).contains(&r.weight)) {
        return Err(format!("resource weight of {} not in valid range [1, 100]", bad.name));
    }
    let plugin = Arc::new(Fit {
        ignored: args.ignored_resources.into_iter().collect(),
        ignored_groups: args.ignored_resource_groups.into_iter().collect(),
        strategy,
        resources,
    });
    let mut waits = interests(&[EventKind::AssignedPodDelete], |_, _| true);
    waits.extend(interests(&[EventKind::AssignedPodScaleDown], |_, _| true));
    waits.extend(interests(&[EventKind::NodeAdd, EventKind::NodeUpdateAllocatable], |pod, event| {
        let (old, new) = &event.node;
        let fits = |node: &Node| {
            let room = Resource::from_list(&node.status.allocatable);
            room.pods >= 1
                && room.milli_cpu >= pod.requests.milli_cpu
                && room.memory >= pod.requests.memory
                && room.ephemeral_storage >= pod.requests.ephemeral_storage
                && pod.requests.scalar.iter().all(|(name, amount)| room.get(name) >= *amount)
        };
        let grew = |old: &Node, new: &Node| {
            let (old, new) =
                (Resource::from_list(&old.status.allocatable), Resource::from_list(&new.status.allocatable));
            let wants = &pod.requests;
            new.pods > old.pods
                || (wants.milli_cpu > 0 && new.milli_cpu > old.milli_cpu)
                || (wants.memory > 0 && new.memory > old.memory)
                || (wants.ephemeral_storage > 0 && new.ephemeral_storage > old.ephemeral_storage)
                || wants.scalar.iter().any(|(name, amount)| *amount > 0 && new.get(name) > old.get(name))
        };
        match (old, new) {
            (None, Some(new)) => fits(new),
            (Some(old), Some(new)) => fits(new) && grew(old, new),
            _ => false,
        }
    }));
    waits.extend(interests(&[EventKind::UnscheduledPodUpdate], |pod, event| {
        matches!(&event.pod, (Some(old), Some(new)) if new.uid() == pod.uid() && old.requests != new.requests)
    }));
    Ok(Plugin { name: NAME, filter: Some(plugin.clone()), score: Some(plugin), interests: waits, ..Plugin::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::NoListers;
    use crate::testing::{PodBuilder, node, pod};
    use serde_json::json;

    fn plugin(args: &Value) -> Result<Plugin, String> {
        new(args, &Handle::new(Arc::new(NoListers), None))
    }

    #[track_caller]
    fn check(pod: PodBuilder, existing: PodBuilder, code: Option<Code>, reasons: &[&str]) {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(
            node("n")
                .allocatable("10m", "20")
                .resource("pods", "32")
                .resource("example.com/aaa", "5")
                .resource("ephemeral-storage", "20")
                .done(),
        );
        snapshot.add_pod(existing.uid("existing").info(), "n");
        let filter = plugin(&Value::Null).unwrap().filter.unwrap();
        match filter.filter(&CycleState::default(), &pod.info(), 0, &snapshot) {
            Ok(()) => assert!(code.is_none()),
            Err(status) => {
                assert_eq!(Some(status.code), code);
                assert_eq!(status.reasons.iter().map(AsRef::as_ref).collect::<Vec<_>>(), reasons);
            }
        }
    }

    #[test]
    fn filtering() {
        let p = || pod("p");
        let resolvable = Some(Code::Unschedulable);
        let never = Some(Code::UnschedulableAndUnresolvable);
        check(p(), p().requests("10m", "20"), None, &[]);
        check(
            p().requests("1m", "1"),
            p().requests("10m", "20"),
            resolvable,
            &["Insufficient cpu", "Insufficient memory"],
        );
        check(p().requests("1m", "1"), p().requests("5m", "5"), None, &[]);
        check(p().requests("2m", "1"), p().requests("9m", "5"), resolvable, &["Insufficient cpu"]);
        check(p().requests("1m", "2"), p().requests("5m", "19"), resolvable, &["Insufficient memory"]);
        check(p().requests("11m", "1"), p(), never, &["Insufficient cpu"]);
        check(
            p().scalar("example.com/aaa", 3),
            p().scalar("example.com/aaa", 3),
            resolvable,
            &["Insufficient example.com/aaa"],
        );
        check(p().scalar("example.com/bbb", 1), p(), never, &["Insufficient example.com/bbb"]);
        check(
            p().scalar("ephemeral-storage", 6),
            p().scalar("ephemeral-storage", 15),
            resolvable,
            &["Insufficient ephemeral-storage"],
        );
    }

    #[test]
    fn too_many_pods() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n").allocatable("10m", "20").resource("pods", "1").done());
        snapshot.add_pod(pod("existing").info(), "n");
        let filter = plugin(&Value::Null).unwrap().filter.unwrap();
        let status = filter.filter(&CycleState::default(), &pod("p").info(), 0, &snapshot).unwrap_err();
        assert_eq!(status.message(), "Too many pods");
    }

    #[test]
    fn ignored_resources_do_not_count() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n").allocatable("10m", "20").done());
        for args in
            [json!({"ignoredResources": ["example.com/bbb"]}), json!({"ignoredResourceGroups": ["example.com"]})]
        {
            let filter = plugin(&args).unwrap().filter.unwrap();
            let pod = pod("p").scalar("example.com/bbb", 1).info();
            assert!(filter.filter(&CycleState::default(), &pod, 0, &snapshot).is_ok(), "{args}");
        }
    }

    fn scores(args: &Value, requests: (&str, &str), nodes: [(&str, &str); 2], existing: [(&str, &str); 2]) -> [i64; 2] {
        let mut snapshot = Snapshot::default();
        for (i, ((cpu, memory), (used_cpu, used_memory))) in nodes.iter().zip(existing).enumerate() {
            let name = format!("n{i}");
            snapshot.set_node(node(&name).allocatable(cpu, memory).done());
            snapshot.add_pod(pod(&name).requests(used_cpu, used_memory).info(), &name);
        }
        let score = plugin(args).unwrap().score.unwrap();
        let pod = pod("p").requests(requests.0, requests.1).info();
        [0, 1].map(|slot| score.score(&CycleState::default(), &pod, slot, &snapshot))
    }

    #[test]
    fn least_and_most_allocated() {
        // cpu: (4000 − 3000) × 100 / 4000 = 25; memory: (10000 − 5000) × 100 / 10000 = 50
        let least =
            scores(&Value::Null, ("3000m", "5000"), [("4000m", "10000"), ("6000m", "10000")], [("0", "0"), ("0", "0")]);
        assert_eq!(least, [37, 50]);
        let most = json!({"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]}});
        assert_eq!(
            scores(&most, ("3000m", "5000"), [("4000m", "10000"), ("6000m", "10000")], [("0", "0"), ("0", "0")]),
            [62, 50]
        );
        // weights: (25 × 1 + 50 × 2) / 3
        let weighted = json!({"scoringStrategy": {"type": "LeastAllocated", "resources": [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 2}]}});
        assert_eq!(
            scores(&weighted, ("3000m", "5000"), [("4000m", "10000"), ("6000m", "10000")], [("0", "0"), ("0", "0")])[0],
            41
        );
    }

    #[test]
    fn requested_to_capacity_ratio() {
        let args = json!({"scoringStrategy": {"type": "RequestedToCapacityRatio",
            "resources": [{"name": "memory", "weight": 1}, {"name": "cpu", "weight": 1}],
            "requestedToCapacityRatio": {"shape": [{"utilization": 0, "score": 10}, {"utilization": 100, "score": 0}]}}});
        // utilisation 75 % and 50 % → 25 and 50 → 38 rounded
        assert_eq!(
            scores(&args, ("3000m", "5000"), [("4000m", "10000"), ("6000m", "10000")], [("0", "0"), ("0", "0")]),
            [38, 50]
        );
        assert!(plugin(&json!({"scoringStrategy": {"type": "RequestedToCapacityRatio"}})).is_err());
        assert!(plugin(&json!({"scoringStrategy": {"type": "Other"}})).is_err());
    }
}
