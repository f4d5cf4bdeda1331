//! Spreads pods over zones, nodes or any other topology (KEP-895), by the pod's own constraints or,
//! when it has none, by defaults for pods that belong to a service or an owner.
//!
//! Counts are kept per domain; every node's domain is looked up once per cycle and then known by a
//! number, so that filtering and scoring touch no labels.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use apimachinery::labels::{Operator, Requirement, Selector};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Handle, Listers, parse_args};
use crate::framework::events::{ClusterEvent, EventKind, interests};
use crate::framework::pod_info::PodInfo;
use crate::framework::selector::untolerated;
use crate::framework::snapshot::{NodeInfo, Snapshot};
use crate::framework::{
    CycleState, Filter, MAX_NODE_SCORE, NodeNames, Place, Plugin, PreFilter, PreScore, Score, Slot, Status, Verdict,
};
use crate::objects::TopologySpreadConstraint;

/// The plugin's name.
pub const NAME: &str = "PodTopologySpread";

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const REASON_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";
const DO_NOT_SCHEDULE: &str = "DoNotSchedule";
const SCHEDULE_ANYWAY: &str = "ScheduleAnyway";
/// The domain of nodes without the label.
const NO_DOMAIN: u32 = u32::MAX;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Args {
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: String,
}

struct PodTopologySpread {
    defaults: Vec<TopologySpreadConstraint>,
    /// The defaults are the built-in ones, which also count nodes lacking a label.
    system_defaulted: bool,
    listers: Arc<dyn Listers>,
    filter_place: Place,
    score_place: Place,
}

/// A constraint with its selector parsed.
struct Constraint {
    max_skew: i64,
    key: String,
    selector: Selector,
    min_domains: usize,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    /// Whether the node takes part in counting for this pod.
    fn includes(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        if self.honor_affinity && !pod.required_node_affinity.matches(&node.name, node.labels()) {
            return false;
        }
        let taints = node.node.as_ref().map_or(&[][..], |n| &n.spec.taints);
        !(self.honor_taints && untolerated(taints, pod.tolerations()).is_some())
    }
}

/// Counts of matching pods by domain, for one constraint.
struct Counts {
    constraint: Constraint,
    /// The incoming pod counts too, where it lands.
    self_match: bool,
    /// By slot.
    domain_of: Vec<u32>,
    /// By slot: whether the node takes part.
    included: Vec<bool>,
    /// By domain.
    pods: Vec<i64>,
    /// By domain: how many included nodes; only those with any are domains.
    nodes: Vec<usize>,
    min: i64,
}

impl Counts {
    fn new(
        constraint: Constraint,
        pod: &PodInfo,
        snapshot: &Snapshot,
        takes_part: impl Fn(Slot, &NodeInfo) -> bool,
    ) -> Self {
        let slots = snapshot.columns.pods.len();
        let mut out = Self {
            self_match: constraint.selector.matches(&pod.pod.metadata.labels),
            domain_of: vec![NO_DOMAIN; slots],
            included: vec![false; slots],
            pods: Vec::new(),
            nodes: Vec::new(),
            min: 0,
            constraint,
        };
        let mut known: HashMap<&str, u32> = HashMap::new();
        for slot in snapshot.known_order() {
            let node = snapshot.node(*slot);
            let Some(value) = node.labels().get(&out.constraint.key) else { continue };
            let domain = *known.entry(value).or_insert_with(|| {
                out.pods.push(0);
                out.nodes.push(0);
                u32::try_from(out.pods.len() - 1).unwrap_or(NO_DOMAIN)
            });
            out.domain_of[*slot] = domain;
            if takes_part(*slot, node) && out.constraint.includes(pod, node) {
                out.included[*slot] = true;
                out.nodes[domain as usize] += 1;
            }
        }
        if !out.constraint.selector.is_empty() {
            for (slot, other) in snapshot.pods_in(pod.namespace()) {
                if out.included.get(slot) == Some(&true)
                    && !other.is_terminating()
                    && out.constraint.selector.matches(&other.pod.metadata.labels)
                {
                    out.pods[out.domain_of[slot] as usize] += 1;
                }
            }
        }
        out.update_min();
        out
    }

    fn update_min(&mut self) {
        let domains = || self.nodes.iter().zip(&self.pods).filter(|(nodes, _)| **nodes > 0);
        // Fewer domains than wanted: the missing ones count as empty.
        self.min = if domains().count() < self.constraint.min_domains {
            0
        } else {
            domains().map(|(_, pods)| *pods).min().unwrap_or(i64::from(i32::MAX))
        };
    }

    fn change(&mut self, slot: Slot, by: i64) {
        if self.included.get(slot) == Some(&true) {
            self.pods[self.domain_of[slot] as usize] += by;
            self.update_min();
        }
    }

    fn domain(&self, slot: Slot) -> Option<usize> {
        self.domain_of.get(slot).filter(|d| **d != NO_DOMAIN).map(|d| *d as usize)
    }
}

struct FilterState(Vec<Counts>);

struct ScoreState {
    counts: Vec<Counts>,
    weights: Vec<f64>,
    /// By slot: lacks a label that the pod's own constraints need.
    ignored: Vec<bool>,
}

impl PodTopologySpread {
    fn constraints(&self, pod: &PodInfo, action: &str) -> Vec<Constraint> {
        let own = &pod.pod.spec.topology_spread_constraints;
        if !own.is_empty() {
            return own.iter().filter(|c| c.when_unsatisfiable == action).map(|c| parse(c, pod, None)).collect();
        }
        let defaults: Vec<_> = self.defaults.iter().filter(|c| c.when_unsatisfiable == action).collect();
        if defaults.is_empty() {
            return Vec::new();
        }
        let selector = default_selector(pod, self.listers.as_ref());
        if selector.is_empty() {
            return Vec::new();
        }
        defaults.into_iter().map(|c| parse(c, pod, Some(selector.clone()))).collect()
    }
}

fn parse(c: &TopologySpreadConstraint, pod: &PodInfo, selector: Option<Selector>) -> Constraint {
    let selector = selector.unwrap_or_else(|| {
        let base = Selector::from_label_selector(c.label_selector.as_ref()).unwrap_or_else(|_| Selector::nothing());
        let extra: Vec<Requirement> = c
            .match_label_keys
            .iter()
            .filter_map(|key| {
                let value = pod.pod.metadata.labels.get(key)?;
                Requirement::new(key, Operator::In, vec![value.clone()]).ok()
            })
            .collect();
        if extra.is_empty() || base.is_nothing() {
            base
        } else {
            Selector::new(base.requirements().iter().cloned().chain(extra).collect())
        }
    });
    Constraint {
        max_skew: i64::from(c.max_skew),
        key: c.topology_key.clone(),
        selector,
        min_domains: c.min_domains.and_then(|d| usize::try_from(d).ok()).unwrap_or(1),
        honor_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
    }
}

/// What the pod's services and its controller select: pods like it.
fn default_selector(pod: &PodInfo, listers: &dyn Listers) -> Selector {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for service in listers.services(pod.namespace()) {
        let Some(selector) = service.spec.selector.as_ref().and_then(Value::as_object) else { continue };
        let matches =
            selector.iter().all(|(key, value)| pod.pod.metadata.labels.get(key).map(String::as_str) == value.as_str());
        if matches {
            labels.extend(selector.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))));
        }
    }
    let equals = |labels: BTreeMap<String, String>| -> Vec<Requirement> {
        labels
            .into_iter()
            .filter_map(|(key, value)| Requirement::new(&key, Operator::Equals, vec![value]).ok())
            .collect()
    };
    let owner = pod.pod.metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
    let Some(owner) = owner else { return Selector::new(equals(labels)) };
    let known = match (owner.api_version.as_str(), owner.kind.as_str()) {
        ("v1", "ReplicationController") | ("apps/v1", "ReplicaSet" | "StatefulSet") => {
            listers.owner(&owner.kind, pod.namespace(), &owner.name)
        }
        _ => None,
    };
    let selector = known.and_then(|owner| owner.spec.selector.clone());
    match selector {
        None => Selector::new(equals(labels)),
        Some(map) if owner.kind == "ReplicationController" => {
            let map = map.as_object().cloned().unwrap_or_default();
            labels.extend(map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))));
            Selector::new(equals(labels))
        }
        Some(selector) => {
            let owners = Selector::from_label_selector(Some(&selector)).unwrap_or_else(|_| Selector::nothing());
            Selector::new(equals(labels).into_iter().chain(owners.requirements().iter().cloned()).collect())
        }
    }
}

impl PreFilter for PodTopologySpread {
    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot) -> Result<NodeNames, Status> {
        let constraints = self.constraints(pod, DO_NOT_SCHEDULE);
        if constraints.is_empty() {
            return Err(Status::skip());
        }
        let keys: Vec<String> = constraints.iter().map(|c| c.key.clone()).collect();
        let has_all = |_: Slot, node: &NodeInfo| keys.iter().all(|key| node.labels().contains_key(key));
        let counts = constraints.into_iter().map(|c| Counts::new(c, pod, snapshot, has_all)).collect();
        state.write(self.filter_place, FilterState(counts));
        Ok(None)
    }

    fn add_pod(&self, state: &mut CycleState, pod: &PodInfo, other: &PodInfo, slot: Slot, _: &Snapshot) {
        self.update(state, pod, other, slot, 1);
    }

    fn remove_pod(&self, state: &mut CycleState, pod: &PodInfo, other: &PodInfo, slot: Slot, _: &Snapshot) {
        self.update(state, pod, other, slot, -1);
    }
}

impl PodTopologySpread {
    fn update(&self, state: &mut CycleState, pod: &PodInfo, other: &PodInfo, slot: Slot, by: i64) {
        let Some(FilterState(counts)) = state.read_mut(self.filter_place) else { return };
        if other.namespace() != pod.namespace() {
            return;
        }
        for counts in counts {
            if counts.constraint.selector.matches(&other.pod.metadata.labels) {
                counts.change(slot, by);
            }
        }
    }
}

impl Filter for PodTopologySpread {
    fn filter(&self, state: &CycleState, _: &PodInfo, slot: Slot, _: &Snapshot) -> Verdict {
        let Some(FilterState(all)) = state.read(self.filter_place) else { return Ok(()) };
        for counts in all {
            let Some(domain) = counts.domain(slot) else { return Err(Status::unresolvable(REASON_LABEL)) };
            // Pods of a domain none of whose nodes takes part were not counted, as upstream does.
            let skew = counts.pods[domain] + i64::from(counts.self_match) - counts.min;
            if skew > counts.constraint.max_skew {
                return Err(Status::unschedulable(REASON));
            }
        }
        Ok(())
    }

    fn depends_on_other_nodes(&self, _: &PodInfo) -> bool {
        true
    }
}

impl PreScore for PodTopologySpread {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, nodes: &[Slot], snapshot: &Snapshot) -> Verdict {
        let constraints = self.constraints(pod, SCHEDULE_ANYWAY);
        if constraints.is_empty() {
            return Err(Status::skip());
        }
        let require_all = !pod.pod.spec.topology_spread_constraints.is_empty() || !self.system_defaulted;
        let keys: Vec<String> = constraints.iter().map(|c| c.key.clone()).collect();
        let has_all = |node: &NodeInfo| keys.iter().all(|key| node.labels().contains_key(key));
        let mut ignored = vec![false; snapshot.columns.pods.len()];
        if require_all {
            for slot in nodes {
                ignored[*slot] = !has_all(snapshot.node(*slot));
            }
        }
        let counts: Vec<Counts> = constraints
            .into_iter()
            .map(|c| {
                // A node's own pods count whatever the policies say about the node.
                let by_host = c.key == HOSTNAME;
                let mut c = c;
                if by_host {
                    (c.honor_affinity, c.honor_taints) = (false, false);
                }
                Counts::new(c, pod, snapshot, |_, node| by_host || !require_all || has_all(node))
            })
            .collect();
        let weights = counts
            .iter()
            .map(|c| {
                let rated = nodes.iter().filter(|slot| !ignored[**slot]);
                let size = if c.constraint.key == HOSTNAME {
                    rated.count()
                } else {
                    let mut domains: Vec<u32> = rated.map(|slot| c.domain_of[*slot]).collect();
                    domains.sort_unstable();
                    domains.dedup();
                    domains.len()
                };
                #[allow(clippy::cast_precision_loss)] // far below 2^52 nodes
                let weight = (size as f64 + 2.0).ln();
                weight
            })
            .collect();
        state.write(self.score_place, ScoreState { counts, weights, ignored });
        Ok(())
    }

    fn placed(&self, state: &mut CycleState, _: &PodInfo, slot: Slot, _: &Snapshot) {
        let Some(score) = state.read_mut::<ScoreState>(self.score_place) else { return };
        for counts in &mut score.counts {
            if counts.self_match {
                counts.change(slot, 1);
            }
        }
    }
}

impl Score for PodTopologySpread {
    fn score(&self, state: &CycleState, _: &PodInfo, slot: Slot, _: &Snapshot) -> i64 {
        let Some(state) = state.read::<ScoreState>(self.score_place) else { return 0 };
        if state.ignored.get(slot) == Some(&true) {
            return 0;
        }
        let mut score = 0.0;
        for (counts, weight) in state.counts.iter().zip(&state.weights) {
            if let Some(domain) = counts.domain(slot) {
                #[allow(clippy::cast_precision_loss)] // far below 2^52 pods
                let (pods, skew) = (counts.pods[domain] as f64, (counts.constraint.max_skew - 1) as f64);
                score += pods * weight + skew;
            }
        }
        #[allow(clippy::cast_possible_truncation)] // as upstream rounds
        let rounded = score.round() as i64;
        rounded
    }

    fn normalize(&self, state: &CycleState, _: &PodInfo, nodes: &[Slot], scores: &mut [i64], _: &Snapshot) {
        let Some(state) = state.read::<ScoreState>(self.score_place) else { return };
        let ignored = |slot: &Slot| state.ignored.get(*slot) == Some(&true);
        let rated = || nodes.iter().zip(scores.iter()).filter(|(slot, _)| !ignored(slot)).map(|(_, score)| *score);
        let min = rated().min().unwrap_or(i64::MAX);
        let max = rated().max().unwrap_or(0);
        for (slot, score) in nodes.iter().zip(scores.iter_mut()) {
            *score = if ignored(slot) {
                0
            } else if max == 0 {
                MAX_NODE_SCORE
            } else {
                MAX_NODE_SCORE * (max + min - *score) / max
            };
        }
    }

    fn depends_on_other_nodes(&self) -> bool {
        true
    }
}

/// Builds it.
pub fn new(args: &Value, handle: &Handle) -> Result<Plugin, String> {
    let args: Args = parse_args(args)?;
    let system_defaulted = match args.defaulting_type.as_str() {
        "" | "System" if args.default_constraints.is_empty() => true,
        "" | "System" => return Err("when .defaultingType is System, .defaultConstraints must be empty".to_owned()),
        "List" => false,
        other => return Err(format!("unsupported defaultingType {other:?}")),
    };
    let defaults = if system_defaulted {
        let built_in = json!([
            {"topologyKey": HOSTNAME, "whenUnsatisfiable": SCHEDULE_ANYWAY, "maxSkew": 3},
            {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": SCHEDULE_ANYWAY, "maxSkew": 5},
        ]);
        serde_json::from_value(built_in).map_err(|error| error.to_string())?
    } else {
        args.default_constraints
    };
    let plugin = Arc::new(PodTopologySpread {
        defaults,
        system_defaulted,
        listers: handle.listers.clone(),
        filter_place: handle.place(),
        score_place: handle.place(),
    });
    let hinting = plugin.clone();
    let mut waits = interests(
        &[EventKind::AssignedPodAdd, EventKind::AssignedPodDelete, EventKind::AssignedPodUpdateLabel],
        move |pod, event| hinting.pod_change_helps(pod, event),
    );
    waits.extend(interests(
        &[EventKind::NodeAdd, EventKind::NodeDelete, EventKind::NodeUpdateLabel, EventKind::NodeUpdateTaint],
        |_, _| true,
    ));
    waits.extend(interests(&[EventKind::UnscheduledPodUpdate], |pod, event| {
        event.pod.1.as_ref().is_some_and(|new| new.uid() == pod.uid())
    }));
    Ok(Plugin {
        name: NAME,
        pre_filter: Some(plugin.clone()),
        filter: Some(plugin.clone()),
        pre_score: Some(plugin.clone()),
        score: Some(plugin),
        interests: waits,
        ..Plugin::default()
    })
}

impl PodTopologySpread {
    fn pod_change_helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let (old, new) = (&event.pod.0, &event.pod.1);
        if old.iter().chain(new).any(|other| other.namespace() != pod.namespace()) {
            return false;
        }
        let constraints = self.constraints(pod, DO_NOT_SCHEDULE);
        constraints.iter().any(|c| {
            let matches = |p: &Option<Arc<PodInfo>>| p.as_ref().map(|p| c.selector.matches(&p.pod.metadata.labels));
            match (matches(old), matches(new)) {
                (Some(before), Some(after)) => before != after,
                (before, after) => before.or(after).unwrap_or(false),
            }
        })
    }
}

#[cfg(test)]
mod tests;
