//! The scheduling framework (KEP-624): extension points, the verdicts plugins give, and the state
//! of one scheduling cycle.
//!
//! Differences from upstream are of form only. The snapshot is columns and slots instead of a copy
//! per cycle, so plugins are handed a slot number; a cycle's state has one typed place per plugin
//! instead of a map; and a plugin says when placing a pod changes its verdict about *other* nodes,
//! which is what allows a batch of equal pods to share one filtered and scored set of nodes.

use std::any::Any;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use smallvec::SmallVec;

pub mod events;
pub mod pod_info;
pub mod profile;
pub mod resource;
pub mod selector;
pub mod snapshot;

use events::Interest;
use pod_info::PodInfo;
use snapshot::Snapshot;

/// The best score a node can have after normalisation.
pub const MAX_NODE_SCORE: i64 = 100;

/// A node's place in the [`Snapshot`]; stable while the node exists.
pub type Slot = usize;

/// What kind of verdict a [`Status`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something went wrong inside; the pod is tried again after a back-off.
    Error,
    /// The pod does not fit, but might if other pods went away.
    Unschedulable,
    /// The pod does not fit, and no preemption would help.
    UnschedulableAndUnresolvable,
    /// The plugin has nothing to do in this cycle.
    Skip,
    /// Permit: the pod must wait.
    Wait,
    /// The pod waits for something outside the scheduler.
    Pending,
}

/// A verdict other than success, with reasons that users read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The kind.
    pub code: Code,
    /// Who gave it; filled in by the framework.
    pub plugin: &'static str,
    /// Why.
    pub reasons: SmallVec<[Cow<'static, str>; 1]>,
}

impl Status {
    /// A verdict with one reason.
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, plugin: "", reasons: SmallVec::from_buf([reason.into()]) }
    }

    /// Does not fit now.
    pub fn unschedulable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unschedulable, reason)
    }

    /// Does not fit, whatever is preempted.
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::UnschedulableAndUnresolvable, reason)
    }

    /// An internal failure.
    pub fn error(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Error, reason)
    }

    /// Nothing to do.
    pub fn skip() -> Self {
        Self { code: Code::Skip, plugin: "", reasons: SmallVec::new() }
    }

    /// Whether the pod was refused, rather than something having failed.
    pub fn is_rejected(&self) -> bool {
        matches!(self.code, Code::Unschedulable | Code::UnschedulableAndUnresolvable | Code::Pending)
    }

    /// All reasons in one line.
    pub fn message(&self) -> String {
        self.reasons.join(", ")
    }

    pub(crate) fn by(mut self, plugin: &'static str) -> Self {
        self.plugin = plugin;
        self
    }
}

/// `Ok` is success.
pub type Verdict = Result<(), Status>;

/// The state of one scheduling cycle: one place per plugin and phase.
#[derive(Default)]
pub struct CycleState {
    places: Vec<Option<Box<dyn Any + Send>>>,
    /// Plugins whose PreFilter said there is nothing to filter.
    skip_filter: u64,
    /// Plugins whose PreScore said there is nothing to score.
    skip_score: u64,
}

impl std::fmt::Debug for CycleState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CycleState").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

/// Where a plugin keeps its state: given to it when it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub(crate) usize);

impl CycleState {
    /// Keeps `value`.
    pub fn write<T: Any + Send>(&mut self, place: Place, value: T) {
        if self.places.len() <= place.0 {
            self.places.resize_with(place.0 + 1, || None);
        }
        self.places[place.0] = Some(Box::new(value));
    }

    /// What was kept.
    pub fn read<T: Any>(&self, place: Place) -> Option<&T> {
        self.places.get(place.0)?.as_ref()?.downcast_ref()
    }

    /// What was kept, to be changed.
    pub fn read_mut<T: Any>(&mut self, place: Place) -> Option<&mut T> {
        self.places.get_mut(place.0)?.as_mut()?.downcast_mut()
    }
}

/// Orders the queue.
pub trait QueueSort: Send + Sync {
    /// `Less` is scheduled first. `since` is when the pod entered the queue.
    fn compare(&self, a: (&PodInfo, std::time::Duration), b: (&PodInfo, std::time::Duration)) -> Ordering;
}

/// Keeps pods out of the active queue.
pub trait PreEnqueue: Send + Sync {
    /// Refuses a pod that must not be tried yet.
    fn pre_enqueue(&self, pod: &PodInfo) -> Verdict;
}

/// Which nodes need to be looked at; `None` means all.
pub type NodeNames = Option<BTreeSet<String>>;

/// Looks at the pod once, before nodes are filtered.
pub trait PreFilter: Send + Sync {
    /// Computes what [`Filter`] needs; may refuse the pod, or restrict the nodes.
    fn pre_filter(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot) -> Result<NodeNames, Status>;

    /// `other` was placed on `slot` since [`PreFilter::pre_filter`].
    fn add_pod(&self, _state: &mut CycleState, _pod: &PodInfo, _other: &PodInfo, _slot: Slot, _snapshot: &Snapshot) {}

    /// `other` went away from `slot`.
    fn remove_pod(&self, _state: &mut CycleState, _pod: &PodInfo, _other: &PodInfo, _slot: Slot, _snapshot: &Snapshot) {
    }
}

/// Decides whether a pod can run on a node.
pub trait Filter: Send + Sync {
    /// Refuses the node, or not.
    fn filter(&self, state: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> Verdict;

    /// Whether placing `pod` changes the verdict about other nodes, for the next equal pod.
    fn depends_on_other_nodes(&self, _pod: &PodInfo) -> bool {
        false
    }
}

/// What [`PostFilter`] achieved.
#[derive(Clone, Debug, Default)]
pub struct PostFilterResult {
    /// The node the pod is expected to fit on soon; `Some("")` clears an earlier one.
    pub nominated_node: Option<String>,
    /// Pods to delete first.
    pub victims: Vec<Arc<PodInfo>>,
}

/// Why each node was refused, and by whom.
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    /// Nodes looked at.
    pub nodes: Vec<(Slot, Status)>,
    /// For all other nodes, when PreFilter refused them.
    pub absent: Option<Status>,
    /// Plugins that refused the pod somewhere.
    pub unschedulable_plugins: BTreeSet<&'static str>,
    /// Plugins that wait for something outside.
    pub pending_plugins: BTreeSet<&'static str>,
    /// PreFilter's refusal of the pod as a whole.
    pub pre_filter_message: String,
    /// What PostFilter said.
    pub post_filter_message: String,
}

impl Diagnosis {
    /// Remembers who refused.
    pub fn add_plugin(&mut self, status: &Status) {
        if status.plugin.is_empty() {
            return;
        }
        if status.is_rejected() {
            self.unschedulable_plugins.insert(status.plugin);
        }
        if status.code == Code::Pending {
            self.pending_plugins.insert(status.plugin);
        }
    }

    /// The message users know: `0/3 nodes are available: …`.
    pub fn message(&self, nodes_total: usize) -> String {
        let mut text = format!("0/{nodes_total} nodes are available:");
        if self.pre_filter_message.is_empty() {
            let mut reasons: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
            for (_, status) in &self.nodes {
                for reason in &status.reasons {
                    *reasons.entry(reason).or_default() += 1;
                }
            }
            let absent = nodes_total.saturating_sub(self.nodes.len());
            if absent > 0 {
                for reason in self.absent.iter().flat_map(|status| &status.reasons) {
                    *reasons.entry(reason).or_default() += absent;
                }
            }
            let mut lines: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            lines.sort();
            if !lines.is_empty() {
                text.push_str(&format!(" {}.", lines.join(", ")));
            }
        } else {
            text.push_str(&format!(" {}.", self.pre_filter_message));
        }
        if !self.post_filter_message.is_empty() {
            text.push_str(&format!(" {}", self.post_filter_message));
        }
        text
    }
}

/// A mutable view for PostFilter, which tries what would be if pods went away.
pub struct PostFilterContext<'a> {
    /// The nodes; every change must be undone.
    pub snapshot: &'a mut Snapshot,
    /// Runs the filters of the pod's profile.
    pub profile: &'a profile::Profile,
    /// Pods expected on nodes soon.
    pub nominated: &'a dyn Nominated,
}

/// Pods that are expected on a node because others are being removed for them.
pub trait Nominated {
    /// Those of one node.
    fn on(&self, node: &str) -> Vec<Arc<PodInfo>>;
}

/// Tries to make a pod schedulable that fits nowhere.
pub trait PostFilter: Send + Sync {
    /// The verdict says whether it helped; a result without help withdraws an earlier nomination.
    fn post_filter(
        &self,
        context: &mut PostFilterContext<'_>,
        state: &mut CycleState,
        pod: &Arc<PodInfo>,
        diagnosis: &Diagnosis,
    ) -> (Option<PostFilterResult>, Verdict);
}

/// Looks at the feasible nodes once, before they are scored.
pub trait PreScore: Send + Sync {
    /// Computes what [`Score`] needs.
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, nodes: &[Slot], snapshot: &Snapshot) -> Verdict;

    /// A pod equal to `pod` was placed on `slot` since.
    fn placed(&self, _state: &mut CycleState, _pod: &PodInfo, _slot: Slot, _snapshot: &Snapshot) {}
}

/// Ranks feasible nodes.
pub trait Score: Send + Sync {
    /// Higher is better; any range if [`Score::normalize`] is there, else 0 to [`MAX_NODE_SCORE`].
    fn score(&self, state: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> i64;

    /// Brings the scores of `nodes` to 0..=[`MAX_NODE_SCORE`].
    fn normalize(
        &self,
        _state: &CycleState,
        _pod: &PodInfo,
        _nodes: &[Slot],
        _scores: &mut [i64],
        _snapshot: &Snapshot,
    ) {
    }

    /// Whether placing a pod changes other nodes' scores, for the next equal pod.
    fn depends_on_other_nodes(&self) -> bool {
        false
    }
}

/// Keeps books for placed pods that are not bound yet.
pub trait Reserve: Send + Sync {
    /// Takes what the pod needs on the node.
    fn reserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str) -> Verdict;
    /// Gives it back; must not fail, and must bear being called without a reservation.
    fn unreserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str);
}

/// The last word before binding.
#[async_trait]
pub trait Permit: Send + Sync {
    /// Completes when the pod may be bound, or must not.
    async fn permit(&self, pod: &PodInfo, node: &str) -> Verdict;
}

/// Prepares a node for a pod, outside the scheduling loop.
#[async_trait]
pub trait PreBind: Send + Sync {
    /// Completes when the pod may be bound.
    async fn pre_bind(&self, pod: &PodInfo, node: &str) -> Verdict;
}

/// Binds a pod.
#[async_trait]
pub trait Bind: Send + Sync {
    /// [`Code::Skip`] hands over to the next binder.
    async fn bind(&self, pod: &PodInfo, node: &str) -> Verdict;
}

/// Told of bound pods.
pub trait PostBind: Send + Sync {
    /// The pod is bound.
    fn post_bind(&self, pod: &PodInfo, node: &str);
}

/// A plugin: its name, and what it does at which extension point.
#[derive(Clone, Default)]
#[allow(missing_docs)] // the extension points
pub struct Plugin {
    pub name: &'static str,
    pub queue_sort: Option<Arc<dyn QueueSort>>,
    pub pre_enqueue: Option<Arc<dyn PreEnqueue>>,
    pub pre_filter: Option<Arc<dyn PreFilter>>,
    pub filter: Option<Arc<dyn Filter>>,
    pub post_filter: Option<Arc<dyn PostFilter>>,
    pub pre_score: Option<Arc<dyn PreScore>>,
    pub score: Option<Arc<dyn Score>>,
    pub reserve: Option<Arc<dyn Reserve>>,
    pub permit: Option<Arc<dyn Permit>>,
    pub pre_bind: Option<Arc<dyn PreBind>>,
    pub bind: Option<Arc<dyn Bind>>,
    pub post_bind: Option<Arc<dyn PostBind>>,
    /// Changes that may help a pod this plugin refused.
    pub interests: Vec<Interest>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_equal_upstreams() {
        let mut diagnosis = Diagnosis::default();
        let cpu = Status::unschedulable("Insufficient cpu");
        let taint = Status::unresolvable("node(s) had untolerated taint(s)");
        diagnosis.nodes = vec![(0, taint.clone()), (1, cpu), (2, taint)];
        diagnosis.post_filter_message = "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.".to_owned();
        assert_eq!(
            diagnosis.message(3),
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
        );
        let refused =
            Diagnosis { pre_filter_message: "pod affinity terms conflict".to_owned(), ..Diagnosis::default() };
        assert_eq!(refused.message(2), "0/2 nodes are available: pod affinity terms conflict.");
        let absent = Diagnosis {
            absent: Some(Status::unresolvable("node(s) didn't satisfy plugin(s) [NodeAffinity]")),
            ..Diagnosis::default()
        };
        assert_eq!(absent.message(2), "0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity].");
    }

    #[test]
    fn state_is_typed() {
        let mut state = CycleState::default();
        state.write(Place(3), 7_i64);
        assert_eq!(state.read::<i64>(Place(3)), Some(&7));
        assert_eq!(state.read::<u8>(Place(3)), None);
        assert_eq!(state.read::<i64>(Place(0)), None);
        *state.read_mut::<i64>(Place(3)).unwrap() += 1;
        assert_eq!(state.read::<i64>(Place(3)), Some(&8));
    }
}
