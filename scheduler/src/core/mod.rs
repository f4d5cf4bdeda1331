//! The scheduling core: from the pods that wait and the nodes there are to placements. Does no I/O.
//!
//! Equal pods are the common case: a Deployment's replicas differ in nothing a plugin looks at. So
//! pods of one signature are taken from the queue together. Nodes are filtered and scored for the
//! first; after each placement only what that placement changed is computed again: the node that
//! took the pod, and the plugins that say they look across nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::framework::events::{ClusterEvent, EventKind, node_update_kinds};
use crate::framework::pod_info::PodInfo;
use crate::framework::profile::Profile;
use crate::framework::snapshot::Snapshot;
use crate::framework::{CycleState, Diagnosis, Nominated as _, PostFilterContext, PostFilterResult, Slot, Status};
use crate::objects::{Node, Pod};
use crate::queue::{QueuedPod, SchedulingQueue};

/// With fewer nodes than this all are looked at.
pub const MIN_FEASIBLE_NODES_TO_FIND: usize = 100;
/// With many nodes at least this share (percent) is looked for.
pub const MIN_FEASIBLE_NODES_PERCENTAGE: usize = 5;
/// Pods placed over one set of nodes; a bound so that events are not left waiting.
pub const MAX_BATCH: usize = 256;

/// What became of a pod in a scheduling cycle.
#[derive(Debug)]
pub enum Outcome {
    /// It has a node, and is assumed there until it is bound.
    Placed {
        /// The pod.
        pod: QueuedPod,
        /// Its node.
        node: Arc<str>,
    },
    /// It fits nowhere, or something failed.
    Failed {
        /// The pod.
        pod: QueuedPod,
        /// Why.
        failure: Failure,
    },
}

/// Why a pod has no node.
#[derive(Debug)]
pub struct Failure {
    /// `Unschedulable` or `SchedulerError`, the condition's reason.
    pub reason: &'static str,
    /// What users read.
    pub message: String,
    /// Preemption's result: pods to delete, and the node to wait for.
    pub post_filter: Option<PostFilterResult>,
    /// Less important pods that waited for the same node and no longer do.
    pub withdrawn: Vec<Arc<PodInfo>>,
}

impl Failure {
    /// A failure without preemption.
    pub fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message, post_filter: None, withdrawn: Vec::new() }
    }
}

/// A placed pod that the API has not confirmed yet.
#[derive(Debug)]
struct Assumed {
    slot: Slot,
    /// When to stop believing in it; set once binding ended.
    deadline: Option<Duration>,
}

/// The scheduler's state and algorithm.
#[derive(Debug)]
pub struct Core {
    profiles: HashMap<String, Arc<Profile>>,
    /// The cluster.
    pub snapshot: Snapshot,
    /// Pods that wait.
    pub queue: SchedulingQueue,
    assumed: HashMap<String, Assumed>,
    /// Slots of pods on nodes, by UID.
    placed: HashMap<String, Slot>,
    percentage_of_nodes_to_score: i64,
    next_start: usize,
    /// How long a bound pod is believed in without the API saying so; `None` means for ever.
    assume_ttl: Option<Duration>,
}

impl Core {
    /// A core with these profiles; `percentage` of nodes to score, 0 to adapt to their number.
    pub fn new(profiles: Vec<Arc<Profile>>, percentage: i64, queue: SchedulingQueue) -> Self {
        Self {
            profiles: profiles.into_iter().map(|p| (p.scheduler_name.clone(), p)).collect(),
            snapshot: Snapshot::default(),
            queue,
            assumed: HashMap::new(),
            placed: HashMap::new(),
            percentage_of_nodes_to_score: percentage,
            next_start: 0,
            assume_ttl: None,
        }
    }

    /// Stops believing in bound pods that the API does not confirm within `ttl`.
    pub fn set_assume_ttl(&mut self, ttl: Option<Duration>) {
        self.assume_ttl = ttl;
    }

    /// The profile of a pod.
    pub fn profile(&self, pod: &PodInfo) -> Option<&Arc<Profile>> {
        self.profiles.get(&pod.pod.spec.scheduler_name)
    }

    // ---- events ----

    /// A node appeared or changed.
    pub fn on_node(&mut self, old: Option<&Arc<Node>>, new: &Arc<Node>, now: Duration) {
        self.snapshot.set_node(new.clone());
        match old {
            None => {
                let event = ClusterEvent::node(EventKind::NodeAdd, None, Some(new.clone()));
                self.queue.on_event(&event, now);
            }
            Some(old) => {
                for kind in node_update_kinds(old, new) {
                    let event = ClusterEvent::node(kind, Some(old.clone()), Some(new.clone()));
                    self.queue.on_event(&event, now);
                }
            }
        }
    }

    /// A node went away.
    pub fn on_node_deleted(&mut self, node: &Arc<Node>, now: Duration) {
        self.snapshot.remove_node(&node.metadata.name);
        self.queue.on_event(&ClusterEvent::node(EventKind::NodeDelete, Some(node.clone()), None), now);
    }

    /// A pod appeared or changed.
    pub fn on_pod(&mut self, old: Option<&Arc<Pod>>, new: &Arc<Pod>, now: Duration) {
        let info = Arc::new(PodInfo::new(new.clone()));
        let finished = matches!(new.status.phase.as_str(), "Succeeded" | "Failed");
        if finished {
            self.forget(&info, now);
            self.queue.remove(info.uid());
            return;
        }
        if info.node_name().is_empty() {
            self.on_waiting_pod(old, info, now);
        } else {
            self.on_assigned_pod(info, now);
        }
    }

    fn on_waiting_pod(&mut self, old: Option<&Arc<Pod>>, info: Arc<PodInfo>, now: Duration) {
        // The binding is under way; the watch is only behind.
        if self.assumed.contains_key(info.uid()) {
            return;
        }
        if self.profile(&info).is_none() {
            return;
        }
        let old = old.filter(|_| self.queue.contains(info.uid())).map(|old| Arc::new(PodInfo::new(old.clone())));
        self.queue.add_or_update(old, info, now);
    }

    fn on_assigned_pod(&mut self, info: Arc<PodInfo>, now: Duration) {
        self.queue.remove(info.uid());
        let was_assumed = self.assumed.remove(info.uid()).is_some();
        let before = self.placed.get(info.uid()).copied().and_then(|slot| self.snapshot.unplace(info.uid(), slot));
        let slot = self.snapshot.add_pod(info.clone(), info.node_name());
        self.placed.insert(info.uid().to_owned(), slot);
        let mut kinds = Vec::new();
        match &before {
            Some(before) if !was_assumed => {
                if before.pod.metadata.labels != info.pod.metadata.labels {
                    kinds.push(EventKind::AssignedPodUpdateLabel);
                }
                if before.requests != info.requests {
                    kinds.push(EventKind::AssignedPodScaleDown);
                }
            }
            _ => kinds.push(EventKind::AssignedPodAdd),
        }
        let before = before.filter(|_| !was_assumed);
        for kind in kinds {
            self.queue.on_event(&ClusterEvent::pod(kind, before.clone(), Some(info.clone())), now);
        }
    }

    /// A pod went away.
    pub fn on_pod_deleted(&mut self, pod: &Arc<Pod>, now: Duration) {
        let info = Arc::new(PodInfo::new(pod.clone()));
        let nominated = self.queue.remove(info.uid());
        self.forget(&info, now);
        if nominated {
            // Room that was kept for it is free.
            self.queue.on_event(&ClusterEvent::pod(EventKind::AssignedPodDelete, Some(info), None), now);
        }
    }

    fn forget(&mut self, info: &Arc<PodInfo>, now: Duration) {
        self.assumed.remove(info.uid());
        if let Some(slot) = self.placed.remove(info.uid()) {
            self.snapshot.unplace(info.uid(), slot);
            self.queue.on_event(&ClusterEvent::pod(EventKind::AssignedPodDelete, Some(info.clone()), None), now);
        }
    }

    /// Something else changed.
    pub fn on_event(&mut self, kind: EventKind, now: Duration) {
        self.queue.on_event(&ClusterEvent::of(kind), now);
    }

    /// Binding ended well. The pod stays assumed until the API shows it on its node.
    pub fn bound(&mut self, uid: &str, now: Duration) {
        if let Some(assumed) = self.assumed.get_mut(uid) {
            assumed.deadline = self.assume_ttl.map(|ttl| now + ttl);
        }
    }

    /// Binding failed: the room is free again, and the pod waits for its next try.
    pub fn binding_failed(&mut self, pod: QueuedPod, now: Duration) {
        let info = pod.info.clone();
        // Unassumed only if the API has not meanwhile said that it is on a node after all.
        if self.assumed.contains_key(info.uid()) {
            self.forget(&info, now);
            self.queue.retry_after_error(pod, now);
        }
    }

    /// Forgets bound pods that the API never confirmed.
    pub fn expire_assumed(&mut self, now: Duration) -> Vec<String> {
        let expired: Vec<String> = self
            .assumed
            .iter()
            .filter(|(_, assumed)| assumed.deadline.is_some_and(|deadline| now >= deadline))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in &expired {
            if let Some(assumed) = self.assumed.remove(uid) {
                self.snapshot.unplace(uid, assumed.slot);
                self.placed.remove(uid);
            }
        }
        expired
    }

    /// Nodes, pods on nodes, and those of them that are assumed.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.snapshot.known_order().len(), self.placed.len(), self.assumed.len())
    }

    /// Whether a pod is assumed on a node.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains_key(uid)
    }

    // ---- scheduling ----

    /// Takes the next pods off the queue and schedules them.
    pub fn schedule(&mut self, now: Duration) -> Vec<Outcome> {
        let batch = self.queue.pop_batch(MAX_BATCH, now);
        if batch.is_empty() { Vec::new() } else { self.schedule_batch(batch, now) }
    }

    /// Schedules pods of one signature.
    pub fn schedule_batch(&mut self, pods: Vec<QueuedPod>, now: Duration) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(pods.len());
        let Some(profile) = pods.first().and_then(|pod| self.profile(&pod.info)).cloned() else {
            return outcomes;
        };
        self.snapshot.order();
        let mut pods = pods.into_iter();
        let mut cycle: Option<Cycle> = None;
        while let Some(pod) = pods.next() {
            let info = pod.info.clone();
            if info.is_terminating() || self.assumed.contains_key(info.uid()) {
                continue;
            }
            let ready = match cycle.take() {
                Some(ready) => Ok(ready),
                None => self.begin(&profile, &info),
            };
            let mut current = match ready {
                Ok(current) => current,
                Err(NoNode::Error(status)) => {
                    let reason = if status.is_rejected() { "Unschedulable" } else { "SchedulerError" };
                    let failure = Failure::new(reason, status.message());
                    outcomes.push(self.fail(pod, failure, &Diagnosis::default(), true, now));
                    continue;
                }
                Err(NoNode::Unfit(unfit)) => {
                    let (mut state, mut diagnosis) = *unfit;
                    let (failure, helped) = self.explain(&profile, &info, &mut state, &mut diagnosis);
                    outcomes.push(self.fail(pod, failure, &diagnosis, false, now));
                    if !helped {
                        // Equal pods fail equally.
                        for pod in pods.by_ref() {
                            let failure =
                                Failure::new("Unschedulable", diagnosis.message(self.snapshot.known_order().len()));
                            outcomes.push(self.fail(pod, failure, &diagnosis, false, now));
                        }
                    }
                    continue;
                }
            };
            let slot = current.best();
            let node = self.snapshot.node(slot).name.clone();
            if let Err(status) = profile.run_reserve(&mut current.state, &info, &node) {
                let mut diagnosis = Diagnosis::default();
                diagnosis.add_plugin(&status);
                let rejected = status.is_rejected();
                diagnosis.nodes.push((slot, status.clone()));
                let failure = if rejected {
                    Failure::new("Unschedulable", diagnosis.message(1))
                } else {
                    Failure::new("SchedulerError", status.message())
                };
                outcomes.push(self.fail(pod, failure, &diagnosis, !rejected, now));
                continue;
            }
            self.assume(&info, slot);
            cycle = self.carry_on(&profile, &info, current, slot);
            outcomes.push(Outcome::Placed { pod, node });
        }
        outcomes
    }

    fn assume(&mut self, info: &Arc<PodInfo>, slot: Slot) {
        self.queue.nominated_mut().remove(info.uid());
        self.snapshot.place(info.clone(), slot);
        self.placed.insert(info.uid().to_owned(), slot);
        self.assumed.insert(info.uid().to_owned(), Assumed { slot, deadline: None });
    }

    fn fail(
        &mut self,
        pod: QueuedPod,
        mut failure: Failure,
        diagnosis: &Diagnosis,
        error: bool,
        now: Duration,
    ) -> Outcome {
        let returned = pod.clone();
        if error {
            self.queue.retry_after_error(pod, now);
        } else {
            self.queue.add_unschedulable(pod, diagnosis, now);
        }
        if let Some(PostFilterResult { nominated_node: Some(node), .. }) = &failure.post_filter {
            if !node.is_empty() {
                for other in self.queue.nominated().on(node) {
                    if other.priority() < returned.info.priority() {
                        self.queue.nominated_mut().remove(other.uid());
                        failure.withdrawn.push(other);
                    }
                }
            }
            self.queue.nominated_mut().set(&returned.info, node);
        }
        Outcome::Failed { pod: returned, failure }
    }

    /// Filters and scores nodes for `pod`.
    fn begin(&mut self, profile: &Profile, pod: &Arc<PodInfo>) -> Result<Cycle, NoNode> {
        if self.snapshot.known_order().is_empty() {
            return Err(NoNode::Error(Status::unresolvable("no nodes available to schedule pods")));
        }
        let mut state = CycleState::default();
        let mut diagnosis = Diagnosis::default();
        let (names, restricting) = match profile.run_pre_filter(&mut state, pod, &self.snapshot) {
            Ok(result) => result,
            Err(status) if status.is_rejected() => {
                diagnosis.add_plugin(&status);
                diagnosis.pre_filter_message = status.message();
                diagnosis.absent = Some(status);
                return Err(NoNode::Unfit(Box::new((state, diagnosis))));
            }
            Err(status) => return Err(NoNode::Error(status)),
        };
        diagnosis.unschedulable_plugins.extend(restricting.iter());

        // The node that was emptied for it comes first; others only if it does not fit there.
        let nominated = pod.pod.status.nominated_node_name.as_str();
        let nominated = if nominated.is_empty() {
            self.queue.nominated().node_of(pod.uid()).unwrap_or_default()
        } else {
            nominated.to_owned()
        };
        if let Some(slot) = self.snapshot.slot(&nominated)
            && names.as_ref().is_none_or(|names| names.contains(&nominated))
            && self.filter_one(profile, &mut state, pod, slot).is_ok()
        {
            return self.score(profile, state, pod, vec![slot], false).map_err(NoNode::Error);
        }

        let candidates: Vec<Slot> = match &names {
            None => self.snapshot.known_order().to_vec(),
            Some(names) => {
                let plugins: Vec<&str> = restricting.clone();
                diagnosis.absent =
                    Some(Status::unresolvable(format!("node(s) didn't satisfy plugin(s) [{}]", plugins.join(" "))));
                names.iter().filter_map(|name| self.snapshot.slot(name)).collect()
            }
        };
        let wanted = self.nodes_to_find(profile, candidates.len());
        let feasible = self.filter(profile, &mut state, pod, &candidates, wanted, &mut diagnosis)?;
        if feasible.is_empty() {
            return Err(NoNode::Unfit(Box::new((state, diagnosis))));
        }
        let sampled = feasible.len() < candidates.len();
        self.score(profile, state, pod, feasible, sampled).map_err(NoNode::Error)
    }

    /// Runs the filters until enough nodes are found, starting where the last cycle stopped, so that
    /// all nodes get their turn.
    fn filter(
        &mut self,
        profile: &Profile,
        state: &mut CycleState,
        pod: &Arc<PodInfo>,
        candidates: &[Slot],
        wanted: usize,
        diagnosis: &mut Diagnosis,
    ) -> Result<Vec<Slot>, NoNode> {
        let mut feasible = Vec::with_capacity(wanted.min(candidates.len()));
        let mut processed = 0;
        let count = candidates.len();
        let start = if count == 0 { 0 } else { self.next_start % count };
        let nobody_nominated = self.queue.nominated().is_empty();
        {
            let filters = profile.active_filters(state);
            for i in 0..count {
                if feasible.len() >= wanted {
                    break;
                }
                let slot = candidates[(start + i) % count];
                processed += 1;
                let verdict = if nobody_nominated {
                    filters.iter().try_for_each(|(name, filter)| {
                        filter.filter(state, pod, slot, &self.snapshot).map_err(|status| status.by(name))
                    })
                } else {
                    profile.run_filter_with_nominated(state, pod, slot, &mut self.snapshot, self.queue.nominated())
                };
                match verdict {
                    Ok(()) => feasible.push(slot),
                    Err(status) if status.is_rejected() => {
                        diagnosis.add_plugin(&status);
                        diagnosis.nodes.push((slot, status));
                    }
                    Err(status) => return Err(NoNode::Error(status)),
                }
            }
        }
        let all = self.snapshot.known_order().len().max(1);
        self.next_start = (self.next_start + processed) % all;
        Ok(feasible)
    }

    fn filter_one(
        &mut self,
        profile: &Profile,
        state: &mut CycleState,
        pod: &Arc<PodInfo>,
        slot: Slot,
    ) -> Result<(), Status> {
        profile.run_filter_with_nominated(state, pod, slot, &mut self.snapshot, self.queue.nominated())
    }

    fn nodes_to_find(&self, profile: &Profile, count: usize) -> usize {
        if profile.score.is_empty() {
            return 1;
        }
        nodes_to_find(profile.percentage_of_nodes_to_score.unwrap_or(self.percentage_of_nodes_to_score), count)
    }

    fn score(
        &self,
        profile: &Profile,
        mut state: CycleState,
        pod: &Arc<PodInfo>,
        nodes: Vec<Slot>,
        sampled: bool,
    ) -> Result<Cycle, Status> {
        let mut columns = Vec::new();
        if nodes.len() > 1 {
            profile.run_pre_score(&mut state, pod, &nodes, &self.snapshot)?;
            for (_, weight, plugin) in profile.active_scores(&state) {
                let raw = nodes.iter().map(|slot| plugin.score(&state, pod, *slot, &self.snapshot)).collect();
                columns.push(Column { weight, raw, global: plugin.depends_on_other_nodes() });
            }
        }
        let started_with = nodes.len();
        let mut cycle = Cycle { state, nodes, columns, totals: Vec::new(), started_with, sampled };
        cycle.total(profile, pod, &self.snapshot);
        Ok(cycle)
    }

    /// Brings the cycle up to date after a pod equal to `pod` was placed on `slot`; `None` when
    /// nodes have to be looked for anew.
    fn carry_on(&mut self, profile: &Profile, pod: &Arc<PodInfo>, mut cycle: Cycle, slot: Slot) -> Option<Cycle> {
        // Nominations concern single pods and nodes: no sharing while there are any.
        if cycle.columns.is_empty() || !self.queue.nominated().is_empty() {
            return None;
        }
        profile.run_add_pod(&mut cycle.state, pod, pod, slot, &self.snapshot);
        let global = profile.filters_depend_on_other_nodes(&cycle.state, pod);
        profile.run_placed(&mut cycle.state, pod, slot, &self.snapshot);
        if global {
            return self.refilter(profile, pod, cycle);
        }
        let at = cycle.nodes.iter().position(|s| *s == slot)?;
        if profile.run_filter(&cycle.state, pod, slot, &self.snapshot).is_err() {
            cycle.nodes.swap_remove(at);
            for column in &mut cycle.columns {
                column.raw.swap_remove(at);
            }
            // A sample that has shrunk this much no longer speaks for all nodes.
            if cycle.nodes.len() <= 1 || (cycle.sampled && cycle.nodes.len() * 2 < cycle.started_with) {
                return None;
            }
            cycle.rescore(profile, pod, None, &self.snapshot);
        } else {
            cycle.rescore(profile, pod, Some(at), &self.snapshot);
        }
        Some(cycle)
    }

    /// Filters all nodes again, keeping what PreFilter knows.
    fn refilter(&mut self, profile: &Profile, pod: &Arc<PodInfo>, mut cycle: Cycle) -> Option<Cycle> {
        let candidates = self.snapshot.known_order().to_vec();
        let wanted = self.nodes_to_find(profile, candidates.len());
        let mut unused = Diagnosis::default();
        let nodes = self.filter(profile, &mut cycle.state, pod, &candidates, wanted, &mut unused).ok()?;
        // Without nodes the whole cycle is run once more, for a complete diagnosis.
        if nodes.len() < 2 {
            return None;
        }
        let sampled = nodes.len() < candidates.len();
        self.score(profile, cycle.state, pod, nodes, sampled).ok()
    }

    /// Runs PostFilter and puts the failure into words. `true` when preemption made room.
    fn explain(
        &mut self,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        state: &mut CycleState,
        diagnosis: &mut Diagnosis,
    ) -> (Failure, bool) {
        let total = self.snapshot.known_order().len();
        let mut post_filter = None;
        if !profile.post_filter.is_empty() {
            let mut context =
                PostFilterContext { snapshot: &mut self.snapshot, profile, nominated: self.queue.nominated() };
            let (result, message) = profile.run_post_filter(&mut context, state, pod, diagnosis);
            post_filter = result;
            diagnosis.post_filter_message = message;
        }
        let helped = post_filter
            .as_ref()
            .is_some_and(|result| result.nominated_node.as_deref().is_some_and(|node| !node.is_empty()));
        let failure = Failure { post_filter, ..Failure::new("Unschedulable", diagnosis.message(total)) };
        (failure, helped)
    }
}

/// How many feasible nodes to look for among `count`.
pub fn nodes_to_find(percentage: i64, count: usize) -> usize {
    if count < MIN_FEASIBLE_NODES_TO_FIND {
        return count;
    }
    let percentage = match usize::try_from(percentage) {
        Ok(0) | Err(_) => 50_usize.saturating_sub(count / 125).max(MIN_FEASIBLE_NODES_PERCENTAGE),
        Ok(given) => given,
    };
    (count * percentage / 100).max(MIN_FEASIBLE_NODES_TO_FIND)
}

enum NoNode {
    Unfit(Box<(CycleState, Diagnosis)>),
    Error(Status),
}

/// Feasible nodes and their scores, shared by pods of one signature.
struct Cycle {
    state: CycleState,
    nodes: Vec<Slot>,
    columns: Vec<Column>,
    totals: Vec<i64>,
    started_with: usize,
    sampled: bool,
}

/// One plugin's scores, by position in `nodes`.
struct Column {
    weight: i64,
    raw: Vec<i64>,
    global: bool,
}

impl Cycle {
    fn total(&mut self, profile: &Profile, pod: &PodInfo, snapshot: &Snapshot) {
        self.totals.clear();
        self.totals.resize(self.nodes.len(), 0);
        let plugins = profile.active_scores(&self.state);
        let mut scores = Vec::new();
        for (column, (_, _, plugin)) in self.columns.iter().zip(plugins) {
            scores.clone_from(&column.raw);
            plugin.normalize(&self.state, pod, &self.nodes, &mut scores, snapshot);
            for (total, score) in self.totals.iter_mut().zip(&scores) {
                *total += score * column.weight;
            }
        }
    }

    /// Computes anew what a placement changed: everything of the plugins that look across nodes,
    /// and the node at `changed` for the others.
    fn rescore(&mut self, profile: &Profile, pod: &PodInfo, changed: Option<usize>, snapshot: &Snapshot) {
        for (column, (_, _, plugin)) in self.columns.iter_mut().zip(profile.active_scores(&self.state)) {
            if column.global {
                for (raw, slot) in column.raw.iter_mut().zip(&self.nodes) {
                    *raw = plugin.score(&self.state, pod, *slot, snapshot);
                }
            } else if let Some(at) = changed {
                column.raw[at] = plugin.score(&self.state, pod, self.nodes[at], snapshot);
            }
        }
        self.total(profile, pod, snapshot);
    }

    /// The node with the best score; among equals each has the same chance.
    fn best(&self) -> Slot {
        let Some(best) = self.totals.iter().max() else { return self.nodes[0] };
        let mut seen = 0_u32;
        let mut chosen = 0;
        for (at, total) in self.totals.iter().enumerate() {
            if total == best {
                seen += 1;
                if rand::random_range(0..seen) == 0 {
                    chosen = at;
                }
            }
        }
        self.nodes[chosen]
    }
}

#[cfg(test)]
mod tests;
