//! The scheduling core: from the pods that wait and the nodes there are to placements. Does no I/O.
//!
//! Equal pods are the common case: a Deployment's replicas differ in nothing a plugin looks at. So
//! pods of one signature are taken from the queue together. Nodes are filtered and scored for the
//! first; after each placement only what that placement changed is computed again: the node that
//! took the pod, and the plugins that say they look across nodes.

mod cycle;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::framework::events::{ClusterEvent, EventKind, node_update_kinds};
use crate::framework::pod_info::PodInfo;
use crate::framework::profile::Profile;
use crate::framework::snapshot::Snapshot;
use crate::framework::{Diagnosis, Nominated as _, PostFilterResult, Slot};
use crate::objects::{Node, Pod};
use crate::queue::{QueuedPod, SchedulingQueue};
use cycle::{Cycle, NoNode};

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
}

#[cfg(test)]
mod tests;
