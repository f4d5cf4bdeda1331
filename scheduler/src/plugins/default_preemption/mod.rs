//! Makes room for a pod by removing less important ones: on the node where that hurts least,
//! respecting disruption budgets where possible.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::labels::Selector;
use serde::Deserialize;
use serde_json::Value;

use super::{Handle, Listers, parse_args};
use crate::framework::pod_info::PodInfo;
use crate::framework::{
    Code, CycleState, Diagnosis, Plugin, PostFilter, PostFilterContext, PostFilterResult, Slot, Status, Verdict,
};
use crate::objects::PodDisruptionBudget;

/// The plugin's name.
pub const NAME: &str = "DefaultPreemption";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Args {
    min_candidate_nodes_percentage: usize,
    min_candidate_nodes_absolute: usize,
}

impl Default for Args {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

struct DefaultPreemption {
    args: Args,
    listers: Arc<dyn Listers>,
}

/// A node on which the pod would fit without these.
struct Candidate {
    slot: Slot,
    /// The most important first.
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Higher is more important: by priority, then by age.
fn importance(pod: &PodInfo) -> (i32, Reverse<client::Timestamp>) {
    // A pod that has not started yet counts as started now, hence as the youngest.
    (pod.priority(), Reverse(pod.pod.status.start_time.unwrap_or(client::Timestamp::MAX)))
}

impl PostFilter for DefaultPreemption {
    fn post_filter(
        &self,
        context: &mut PostFilterContext<'_>,
        state: &mut CycleState,
        pod: &Arc<PodInfo>,
        diagnosis: &Diagnosis,
    ) -> (Option<PostFilterResult>, Verdict) {
        let refuse = |message: String| Err(Status::unschedulable(format!("preemption: {message}")));
        if let Err(message) = eligible(context, pod, diagnosis) {
            return (None, refuse(message.to_owned()));
        }
        let potential: Vec<Slot> = diagnosis
            .nodes
            .iter()
            .filter(|(_, status)| status.code == Code::Unschedulable)
            .map(|(slot, _)| *slot)
            .collect();
        let (candidates, statuses) = self.dry_run(context, state, pod, &potential);
        if candidates.is_empty() {
            let all = Diagnosis {
                nodes: statuses,
                absent: Some(Status::unresolvable("Preemption is not helpful for scheduling")),
                ..Diagnosis::default()
            };
            let message = all.message(context.snapshot.known_order().len());
            let clear = PostFilterResult { nominated_node: Some(String::new()), victims: Vec::new() };
            return (Some(clear), refuse(message));
        }
        let Some(best) = candidates.into_iter().max_by_key(gentleness) else {
            return (None, refuse("no candidate node for preemption".to_owned()));
        };
        let node = context.snapshot.name(best.slot).to_owned();
        (Some(PostFilterResult { nominated_node: Some(node), victims: best.victims }), Ok(()))
    }
}

/// Whether the pod may preempt at all right now.
fn eligible(context: &PostFilterContext<'_>, pod: &PodInfo, diagnosis: &Diagnosis) -> Result<(), &'static str> {
    if pod.pod.spec.preemption_policy.as_deref() == Some("Never") {
        return Err("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = &pod.pod.status.nominated_node_name;
    let Some(slot) = context.snapshot.slot(nominated) else { return Ok(()) };
    let hopeless =
        diagnosis.nodes.iter().any(|(s, status)| *s == slot && status.code == Code::UnschedulableAndUnresolvable);
    let still_leaving = context
        .snapshot
        .node(slot)
        .pods
        .iter()
        .any(|other| other.priority() < pod.priority() && other.is_terminating() && preempted_by_scheduler(other));
    // Victims of an earlier round are on their way out: wait for them.
    if !hopeless && still_leaving {
        return Err("not eligible due to a terminating pod on the nominated node.");
    }
    Ok(())
}

fn preempted_by_scheduler(pod: &PodInfo) -> bool {
    pod.pod.status.conditions.iter().any(|condition| {
        condition.type_ == "DisruptionTarget"
            && condition.status == "True"
            && condition.reason == "PreemptionByScheduler"
    })
}

/// The larger, the less a candidate hurts: fewer broken budgets, a less important most important
/// victim, a smaller sum of priorities, fewer victims, younger ones.
fn gentleness(
    candidate: &Candidate,
) -> (Reverse<usize>, Reverse<i32>, Reverse<i64>, Reverse<usize>, client::Timestamp) {
    let highest = candidate.victims.iter().map(|v| v.priority()).max().unwrap_or(i32::MIN);
    // Shifted, so that many victims of negative priority do not look better than few.
    let sum = candidate.victims.iter().map(|v| i64::from(v.priority()) + (i64::from(i32::MAX) + 1)).sum();
    let oldest_important = candidate
        .victims
        .iter()
        .filter(|v| v.priority() == highest)
        .map(|v| v.pod.status.start_time.unwrap_or(client::Timestamp::MAX))
        .min()
        .unwrap_or(client::Timestamp::MIN);
    (Reverse(candidate.violations), Reverse(highest), Reverse(sum), Reverse(candidate.victims.len()), oldest_important)
}

impl DefaultPreemption {
    fn dry_run(
        &self,
        context: &mut PostFilterContext<'_>,
        state: &mut CycleState,
        pod: &Arc<PodInfo>,
        potential: &[Slot],
    ) -> (Vec<Candidate>, Vec<(Slot, Status)>) {
        let (mut candidates, mut statuses) = (Vec::new(), Vec::new());
        if potential.is_empty() {
            return (candidates, statuses);
        }
        let wanted = (potential.len() * self.args.min_candidate_nodes_percentage / 100)
            .max(self.args.min_candidate_nodes_absolute)
            .min(potential.len());
        // Started at random, so that large clusters do not always look at the same nodes.
        let offset = rand::random_range(0..potential.len());
        for i in 0..potential.len() {
            let slot = potential[(offset + i) % potential.len()];
            match self.select_victims(context, state, pod, slot) {
                Ok(candidate) => candidates.push(candidate),
                Err(status) => statuses.push((slot, status)),
            }
            if candidates.len() >= wanted && candidates.iter().any(|c| c.violations == 0) {
                break;
            }
        }
        (candidates, statuses)
    }

    /// The least that must go from a node; leaves the snapshot and the state as they were.
    fn select_victims(
        &self,
        context: &mut PostFilterContext<'_>,
        state: &mut CycleState,
        pod: &Arc<PodInfo>,
        slot: Slot,
    ) -> Result<Candidate, Status> {
        let mut lesser: Vec<Arc<PodInfo>> = context
            .snapshot
            .node(slot)
            .pods
            .iter()
            .filter(|other| other.priority() < pod.priority())
            .cloned()
            .collect();
        if lesser.is_empty() {
            return Err(Status::unresolvable("No preemption victims found for incoming pod"));
        }
        lesser.sort_by_key(|victim| Reverse(importance(victim)));
        for victim in &lesser {
            remove(context, state, pod, victim, slot);
        }
        if let Err(status) = fits(context, state, pod, slot) {
            for victim in &lesser {
                add(context, state, pod, victim, slot);
            }
            return Err(status);
        }
        // Those whose budget would be broken are spared first, then the most important.
        let (violating, other) = self.by_budget(lesser);
        let mut victims = Vec::new();
        let mut violations = 0;
        for (list, counts) in [(violating, true), (other, false)] {
            for victim in list {
                add(context, state, pod, &victim, slot);
                if fits(context, state, pod, slot).is_err() {
                    remove(context, state, pod, &victim, slot);
                    violations += usize::from(counts);
                    victims.push(victim);
                }
            }
        }
        for victim in &victims {
            add(context, state, pod, victim, slot);
        }
        if victims.is_empty() {
            return Err(Status::error("expected at least one victim pod"));
        }
        victims.sort_by_key(|victim| Reverse(importance(victim)));
        Ok(Candidate { slot, victims, violations })
    }

    /// Splits pods into those whose removal breaks a budget, and others.
    fn by_budget(&self, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
        let mut budgets: BTreeMap<String, Vec<(Arc<PodDisruptionBudget>, Selector, i32)>> = BTreeMap::new();
        pods.into_iter().partition(|pod| {
            let known = budgets.entry(pod.namespace().to_owned()).or_insert_with(|| {
                self.listers
                    .disruption_budgets(pod.namespace())
                    .into_iter()
                    .filter_map(|budget| {
                        let selector = Selector::from_label_selector(budget.spec.selector.as_ref()).ok()?;
                        let allowed = budget.status.disruptions_allowed;
                        (!selector.is_empty()).then_some((budget, selector, allowed))
                    })
                    .collect()
            });
            let mut broken = false;
            for (budget, selector, allowed) in known {
                let counted_already = budget.status.disrupted_pods.contains_key(pod.name());
                if !pod.pod.metadata.labels.is_empty() && selector.matches(&pod.pod.metadata.labels) && !counted_already
                {
                    *allowed -= 1;
                    broken |= *allowed < 0;
                }
            }
            broken
        })
    }
}

fn remove(context: &mut PostFilterContext<'_>, state: &mut CycleState, pod: &PodInfo, other: &PodInfo, slot: Slot) {
    context.snapshot.unplace(other.uid(), slot);
    context.profile.run_remove_pod(state, pod, other, slot, context.snapshot);
}

fn add(context: &mut PostFilterContext<'_>, state: &mut CycleState, pod: &PodInfo, other: &Arc<PodInfo>, slot: Slot) {
    context.snapshot.place(other.clone(), slot);
    context.profile.run_add_pod(state, pod, other, slot, context.snapshot);
}

fn fits(context: &mut PostFilterContext<'_>, state: &mut CycleState, pod: &Arc<PodInfo>, slot: Slot) -> Verdict {
    context.profile.run_filter_with_nominated(state, pod, slot, context.snapshot, context.nominated)
}

/// Builds it.
pub fn new(args: &Value, handle: &Handle) -> Result<Plugin, String> {
    let args: Args = parse_args(args)?;
    if args.min_candidate_nodes_percentage > 100 {
        return Err("minCandidateNodesPercentage: not in valid range [0, 100]".to_owned());
    }
    if args.min_candidate_nodes_percentage == 0 && args.min_candidate_nodes_absolute == 0 {
        return Err("minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be zero".to_owned());
    }
    let plugin = Arc::new(DefaultPreemption { args, listers: handle.listers.clone() });
    Ok(Plugin { name: NAME, post_filter: Some(plugin), ..Plugin::default() })
}

#[cfg(test)]
mod tests;
