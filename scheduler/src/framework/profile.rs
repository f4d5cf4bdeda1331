//! A profile: the plugins of one scheduler name, in order and with weights, and running them.

use std::sync::Arc;

use super::pod_info::PodInfo;
use super::snapshot::Snapshot;
use super::{
    Bind, Code, CycleState, Diagnosis, Filter, NodeNames, Nominated, Permit, PostBind, PostFilter, PostFilterContext,
    PostFilterResult, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort, Reserve, Score, Slot, Status, Verdict,
};

/// One extension point's plugins.
pub type List<T> = Vec<(&'static str, Arc<T>)>;

/// The plugins of one scheduler name.
#[derive(Default)]
#[allow(missing_docs)] // the extension points
pub struct Profile {
    pub scheduler_name: String,
    /// `None` means the global setting.
    pub percentage_of_nodes_to_score: Option<i64>,
    pub queue_sort: Option<Arc<dyn QueueSort>>,
    pub pre_enqueue: List<dyn PreEnqueue>,
    pub pre_filter: List<dyn PreFilter>,
    pub filter: List<dyn Filter>,
    pub post_filter: List<dyn PostFilter>,
    pub pre_score: List<dyn PreScore>,
    /// With weights.
    pub score: Vec<(&'static str, i64, Arc<dyn Score>)>,
    pub reserve: List<dyn Reserve>,
    pub permit: List<dyn Permit>,
    pub pre_bind: List<dyn PreBind>,
    pub bind: List<dyn Bind>,
    pub post_bind: List<dyn PostBind>,
    /// What each plugin waits for.
    pub interests: Vec<(&'static str, Vec<super::events::Interest>)>,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile").field("scheduler_name", &self.scheduler_name).finish_non_exhaustive()
    }
}

impl Profile {
    /// Refuses pods that must not enter the active queue.
    pub fn run_pre_enqueue(&self, pod: &PodInfo) -> Verdict {
        for (name, plugin) in &self.pre_enqueue {
            plugin.pre_enqueue(pod).map_err(|status| status.by(name))?;
        }
        Ok(())
    }

    /// Runs PreFilter. The error is the refusal of the whole pod; `restricting` are the plugins that
    /// named nodes.
    pub fn run_pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(NodeNames, Vec<&'static str>), Status> {
        let mut names: NodeNames = None;
        let mut restricting = Vec::new();
        let mut skip = 0_u64;
        for (i, (name, plugin)) in self.pre_filter.iter().enumerate() {
            match plugin.pre_filter(state, pod, snapshot) {
                Ok(None) => {}
                Ok(Some(these)) => {
                    restricting.push(*name);
                    let both = match names {
                        None => these,
                        Some(known) => known.intersection(&these).cloned().collect(),
                    };
                    if both.is_empty() {
                        let message = if restricting.len() == 1 {
                            format!("node(s) didn't satisfy plugin {}", restricting[0])
                        } else {
                            format!("node(s) didn't satisfy plugins {restricting:?} simultaneously")
                        };
                        return Err(Status::unresolvable(message).by(name));
                    }
                    names = Some(both);
                }
                Err(status) if status.code == Code::Skip => skip |= 1 << i,
                Err(status) => return Err(status.by(name)),
            }
        }
        state.skip_filter = skip;
        Ok((names, restricting))
    }

    /// Whether the plugin's PreFilter said it has nothing to filter in this cycle.
    fn skips_filter(&self, state: &CycleState, name: &str) -> bool {
        state.skip_filter != 0
            && self.pre_filter.iter().position(|(n, _)| *n == name).is_some_and(|i| state.skip_filter & (1 << i) != 0)
    }

    /// The filters that have something to do in this cycle.
    pub fn active_filters<'a>(&'a self, state: &CycleState) -> Vec<(&'static str, &'a dyn Filter)> {
        self.filter
            .iter()
            .filter(|(name, _)| !self.skips_filter(state, name))
            .map(|(name, plugin)| (*name, plugin.as_ref()))
            .collect()
    }

    /// Runs all filters on one node; the first refusal counts.
    pub fn run_filter(&self, state: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> Verdict {
        for (name, plugin) in &self.filter {
            if self.skips_filter(state, name) {
                continue;
            }
            plugin.filter(state, pod, slot, snapshot).map_err(|status| status.by(name))?;
        }
        Ok(())
    }

    /// The same, but pods of equal or higher priority that are expected on the node count as there;
    /// and, because they might end up elsewhere, the pod must fit without them too.
    pub fn run_filter_with_nominated(
        &self,
        state: &mut CycleState,
        pod: &Arc<PodInfo>,
        slot: Slot,
        snapshot: &mut Snapshot,
        nominated: &dyn Nominated,
    ) -> Verdict {
        let expected: Vec<Arc<PodInfo>> = nominated
            .on(snapshot.name(slot))
            .into_iter()
            .filter(|other| other.priority() >= pod.priority() && other.uid() != pod.uid())
            .collect();
        if expected.is_empty() {
            return self.run_filter(state, pod, slot, snapshot);
        }
        for other in &expected {
            snapshot.place(other.clone(), slot);
            self.run_add_pod(state, pod, other, slot, snapshot);
        }
        let with = self.run_filter(state, pod, slot, snapshot);
        for other in &expected {
            snapshot.unplace(other.uid(), slot);
            self.run_remove_pod(state, pod, other, slot, snapshot);
        }
        with?;
        self.run_filter(state, pod, slot, snapshot)
    }

    /// Tells PreFilter plugins that `other` is on `slot` now.
    pub fn run_add_pod(&self, state: &mut CycleState, pod: &PodInfo, other: &PodInfo, slot: Slot, snapshot: &Snapshot) {
        for (i, (_, plugin)) in self.pre_filter.iter().enumerate() {
            if state.skip_filter & (1 << i) == 0 {
                plugin.add_pod(state, pod, other, slot, snapshot);
            }
        }
    }

    /// Tells PreFilter plugins that `other` left `slot`.
    pub fn run_remove_pod(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        other: &PodInfo,
        slot: Slot,
        snapshot: &Snapshot,
    ) {
        for (i, (_, plugin)) in self.pre_filter.iter().enumerate() {
            if state.skip_filter & (1 << i) == 0 {
                plugin.remove_pod(state, pod, other, slot, snapshot);
            }
        }
    }

    /// Whether placing `pod` may change verdicts about other nodes for the next equal pod.
    pub fn filters_depend_on_other_nodes(&self, state: &CycleState, pod: &PodInfo) -> bool {
        self.filter.iter().any(|(name, plugin)| !self.skips_filter(state, name) && plugin.depends_on_other_nodes(pod))
    }

    /// Runs PostFilter plugins until one helps. The message is what users read.
    pub fn run_post_filter(
        &self,
        context: &mut PostFilterContext<'_>,
        state: &mut CycleState,
        pod: &Arc<PodInfo>,
        diagnosis: &Diagnosis,
    ) -> (Option<PostFilterResult>, String) {
        let mut messages = Vec::new();
        let mut last = None;
        for (_, plugin) in &self.post_filter {
            let (result, verdict) = plugin.post_filter(context, state, pod, diagnosis);
            last = result.or(last);
            match verdict {
                Ok(()) => return (last, String::new()),
                Err(status) => messages.push(status.message()),
            }
        }
        (last, messages.join(", "))
    }

    /// Runs PreScore; returns which score plugins have something to do.
    pub fn run_pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        nodes: &[Slot],
        snapshot: &Snapshot,
    ) -> Result<(), Status> {
        state.skip_score = 0;
        for (i, (name, plugin)) in self.pre_score.iter().enumerate() {
            match plugin.pre_score(state, pod, nodes, snapshot) {
                Ok(()) => {}
                Err(status) if status.code == Code::Skip => state.skip_score |= 1 << i,
                Err(status) => return Err(status.by(name)),
            }
        }
        Ok(())
    }

    /// The score plugins that have something to do in this cycle, with weights.
    pub fn active_scores<'a>(&'a self, state: &CycleState) -> Vec<(&'static str, i64, &'a dyn Score)> {
        self.score
            .iter()
            .filter(|(name, _, _)| {
                state.skip_score == 0
                    || self
                        .pre_score
                        .iter()
                        .position(|(n, _)| n == name)
                        .is_none_or(|i| state.skip_score & (1 << i) == 0)
            })
            .map(|(name, weight, plugin)| (*name, *weight, plugin.as_ref()))
            .collect()
    }

    /// Tells PreScore plugins that an equal pod was placed.
    pub fn run_placed(&self, state: &mut CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) {
        for (i, (_, plugin)) in self.pre_score.iter().enumerate() {
            if state.skip_score & (1 << i) == 0 {
                plugin.placed(state, pod, slot, snapshot);
            }
        }
    }

    /// Runs Reserve; a refusal has been undone already.
    pub fn run_reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Verdict {
        for (name, plugin) in &self.reserve {
            if let Err(status) = plugin.reserve(state, pod, node) {
                self.run_unreserve(state, pod, node);
                return Err(status.by(name));
            }
        }
        Ok(())
    }

    /// Gives back what Reserve took, in reverse order.
    pub fn run_unreserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) {
        for (_, plugin) in self.reserve.iter().rev() {
            plugin.unreserve(state, pod, node);
        }
    }

    /// Permit, PreBind, Bind and PostBind, one after another.
    pub async fn run_binding(&self, pod: &PodInfo, node: &str) -> Verdict {
        for (name, plugin) in &self.permit {
            plugin.permit(pod, node).await.map_err(|status| status.by(name))?;
        }
        for (name, plugin) in &self.pre_bind {
            plugin.pre_bind(pod, node).await.map_err(|status| status.by(name))?;
        }
        for (name, plugin) in &self.bind {
            match plugin.bind(pod, node).await {
                Err(status) if status.code == Code::Skip => {}
                Err(status) => return Err(status.by(name)),
                Ok(()) => {
                    for (_, plugin) in &self.post_bind {
                        plugin.post_bind(pod, node);
                    }
                    return Ok(());
                }
            }
        }
        Err(Status::error("no binder took the pod"))
    }
}
