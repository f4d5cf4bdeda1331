//! One pass over the nodes for a pod: filter, score, and what is kept of both for equal pods that follow.

use std::sync::Arc;

use super::{Core, Failure};
use crate::framework::pod_info::PodInfo;
use crate::framework::profile::Profile;
use crate::framework::snapshot::Snapshot;
use crate::framework::{CycleState, Diagnosis, PostFilterContext, Slot, Status};

/// With fewer nodes than this all are looked at.
const MIN_FEASIBLE_NODES_TO_FIND: usize = 100;
/// With many nodes at least this share (percent) is looked for.
const MIN_FEASIBLE_NODES_PERCENTAGE: usize = 5;

/// How many feasible nodes to look for among `count`.
pub(super) fn nodes_to_find(percentage: i64, count: usize) -> usize {
    if count < MIN_FEASIBLE_NODES_TO_FIND {
        return count;
    }
    let percentage = match usize::try_from(percentage) {
        Ok(0) | Err(_) => 50_usize.saturating_sub(count / 125).max(MIN_FEASIBLE_NODES_PERCENTAGE),
        Ok(given) => given,
    };
    (count * percentage / 100).max(MIN_FEASIBLE_NODES_TO_FIND)
}

/// Why a pass gave no node.
pub(super) enum NoNode {
    Unfit(Box<(CycleState, Diagnosis)>),
    Error(Status),
}

/// Feasible nodes and their scores, shared by pods of one signature.
pub(super) struct Cycle {
    pub(super) state: CycleState,
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
    pub(super) fn best(&self) -> Slot {
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

impl Core {
    /// Filters and scores nodes for `pod`.
    pub(super) fn begin(&mut self, profile: &Profile, pod: &Arc<PodInfo>) -> Result<Cycle, NoNode> {
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
    pub(super) fn carry_on(
        &mut self,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        mut cycle: Cycle,
        slot: Slot,
    ) -> Option<Cycle> {
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
    pub(super) fn explain(
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
