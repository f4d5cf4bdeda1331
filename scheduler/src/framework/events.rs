//! Changes of the cluster, as seen by pods that wait for one (queueing hints, KEP-4247).

use std::sync::Arc;

use super::pod_info::PodInfo;
use crate::objects::Node;

/// What happened, as specifically as is known; plugins name the kinds that interest them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum EventKind {
    NodeAdd,
    NodeDelete,
    NodeUpdateAllocatable,
    NodeUpdateLabel,
    NodeUpdateTaint,
    NodeUpdateCondition,
    /// A pod appeared on a node.
    AssignedPodAdd,
    /// A pod on a node changed its labels.
    AssignedPodUpdateLabel,
    /// A pod on a node asks for less.
    AssignedPodScaleDown,
    AssignedPodDelete,
    /// The waiting pod itself changed.
    UnscheduledPodUpdate,
    NamespaceUpdate,
    /// Services or owners, from which default constraints come.
    SelectorChange,
    /// Claims, volumes and classes.
    StorageChange,
    /// Everything is to be tried again.
    WildCard,
}

impl EventKind {
    /// The label upstream gives it in logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NodeAdd => "NodeAdd",
            Self::NodeDelete => "NodeDelete",
            Self::NodeUpdateAllocatable => "NodeAllocatableChange",
            Self::NodeUpdateLabel => "NodeLabelChange",
            Self::NodeUpdateTaint => "NodeTaintChange",
            Self::NodeUpdateCondition => "NodeConditionChange",
            Self::AssignedPodAdd => "AssignedPodAdd",
            Self::AssignedPodUpdateLabel => "AssignedPodUpdatePodLabel",
            Self::AssignedPodScaleDown => "AssignedPodUpdatePodScaleDown",
            Self::AssignedPodDelete => "AssignedPodDelete",
            Self::UnscheduledPodUpdate => "UnschedulablePodUpdate",
            Self::NamespaceUpdate => "NamespaceUpdate",
            Self::SelectorChange => "ServiceUpdate",
            Self::StorageChange => "PersistentVolumeClaimUpdate",
            Self::WildCard => "*",
        }
    }
}

/// A change, with the objects before and after.
#[derive(Clone, Debug)]
pub struct ClusterEvent {
    /// What happened.
    pub kind: EventKind,
    /// The node concerned, before and after.
    pub node: (Option<Arc<Node>>, Option<Arc<Node>>),
    /// The pod concerned, before and after.
    pub pod: (Option<Arc<PodInfo>>, Option<Arc<PodInfo>>),
}

impl ClusterEvent {
    /// Something about a node.
    pub fn node(kind: EventKind, old: Option<Arc<Node>>, new: Option<Arc<Node>>) -> Self {
        Self { kind, node: (old, new), pod: (None, None) }
    }

    /// Something about a pod.
    pub fn pod(kind: EventKind, old: Option<Arc<PodInfo>>, new: Option<Arc<PodInfo>>) -> Self {
        Self { kind, node: (None, None), pod: (old, new) }
    }

    /// Something else.
    pub fn of(kind: EventKind) -> Self {
        Self { kind, node: (None, None), pod: (None, None) }
    }
}

/// Whether a change may make a waiting pod schedulable.
pub type Hint = Arc<dyn Fn(&PodInfo, &ClusterEvent) -> bool + Send + Sync>;

/// A kind of change that may help pods refused by a plugin, and which of them.
#[derive(Clone)]
pub struct Interest {
    /// The kind.
    pub kind: EventKind,
    /// Which pods; `None` means all.
    pub hint: Option<Hint>,
}

impl std::fmt::Debug for Interest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interest").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Interests in `kinds`, all with the same hint.
pub fn interests(
    kinds: &[EventKind],
    hint: impl Fn(&PodInfo, &ClusterEvent) -> bool + Send + Sync + 'static,
) -> Vec<Interest> {
    let hint: Hint = Arc::new(hint);
    kinds.iter().map(|kind| Interest { kind: *kind, hint: Some(hint.clone()) }).collect()
}

/// Which kinds a node's update is.
pub fn node_update_kinds(old: &Node, new: &Node) -> Vec<EventKind> {
    let mut kinds = Vec::new();
    if old.spec.unschedulable != new.spec.unschedulable || old.spec.taints != new.spec.taints {
        kinds.push(EventKind::NodeUpdateTaint);
    }
    if old.status.allocatable != new.status.allocatable {
        kinds.push(EventKind::NodeUpdateAllocatable);
    }
    if old.metadata.labels != new.metadata.labels {
        kinds.push(EventKind::NodeUpdateLabel);
    }
    kinds
}
