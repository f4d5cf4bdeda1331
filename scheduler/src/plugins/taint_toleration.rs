//! Keeps pods off nodes whose taints they do not tolerate, and prefers nodes with fewer taints of
//! effect PreferNoSchedule.

use std::sync::Arc;

use serde_json::Value;

use super::{Handle, default_normalize};
use crate::framework::events::{EventKind, interests};
use crate::framework::pod_info::PodInfo;
use crate::framework::selector::{tolerated, untolerated};
use crate::framework::snapshot::Snapshot;
use crate::framework::{CycleState, Filter, Plugin, Score, Slot, Status, Verdict};
use crate::objects::{Node, Taint};

/// The plugin's name.
pub const NAME: &str = "TaintToleration";

const REASON: &str = "node(s) had untolerated taint(s)";

struct TaintToleration;

fn taints(snapshot: &Snapshot, slot: Slot) -> &[Taint] {
    snapshot.node(slot).node.as_ref().map_or(&[], |node| &node.spec.taints)
}

impl Filter for TaintToleration {
    fn filter(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> Verdict {
        match untolerated(taints(snapshot, slot), pod.tolerations()) {
            None => Ok(()),
            Some(_) => Err(Status::unresolvable(REASON)),
        }
    }
}

impl Score for TaintToleration {
    fn score(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> i64 {
        let intolerable = taints(snapshot, slot)
            .iter()
            .filter(|taint| taint.effect == "PreferNoSchedule" && !tolerated(pod.tolerations(), taint))
            .count();
        i64::try_from(intolerable).unwrap_or(i64::MAX)
    }

    fn normalize(&self, _: &CycleState, _: &PodInfo, _: &[Slot], scores: &mut [i64], _: &Snapshot) {
        default_normalize(scores, true);
    }
}

/// Builds it.
pub fn new(_: &Value, _: &Handle) -> Result<Plugin, String> {
    let plugin = Arc::new(TaintToleration);
    let mut waits = interests(&[EventKind::NodeAdd, EventKind::NodeUpdateTaint], |pod, event| {
        let (old, new) = &event.node;
        let fits = |node: &Node| untolerated(&node.spec.taints, pod.tolerations()).is_none();
        new.as_deref().is_some_and(fits) && !old.as_deref().is_some_and(fits)
    });
    waits.extend(interests(&[EventKind::UnscheduledPodUpdate], |pod, event| {
        matches!(&event.pod, (Some(old), Some(new)) if new.uid() == pod.uid() && old.tolerations() != new.tolerations())
    }));
    Ok(Plugin { name: NAME, filter: Some(plugin.clone()), score: Some(plugin), interests: waits, ..Plugin::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn filtering() {
        let refused = Err(Status::unresolvable(REASON));
        let tainted = || node("n").taint("dedicated", "user1", "NoSchedule");
        for (pod, node, expected) in [
            (pod("p"), tainted(), refused.clone()),
            (pod("p").toleration("dedicated", "user1", "NoSchedule"), tainted(), Ok(())),
            (pod("p").toleration("dedicated", "user2", "NoSchedule"), tainted(), refused),
            (pod("p"), node("n").taint("dedicated", "user1", "PreferNoSchedule"), Ok(())),
        ] {
            let mut snapshot = Snapshot::default();
            snapshot.set_node(node.done());
            assert_eq!(TaintToleration.filter(&CycleState::default(), &pod.info(), 0, &snapshot), expected);
        }
    }

    #[test]
    fn fewer_intolerable_taints_score_higher() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("a").done());
        snapshot.set_node(node("b").taint("cpu", "x", "PreferNoSchedule").done());
        snapshot
            .set_node(node("c").taint("cpu", "x", "PreferNoSchedule").taint("disk", "y", "PreferNoSchedule").done());
        let pod = pod("p").info();
        let state = CycleState::default();
        let mut scores: Vec<i64> = (0..3).map(|slot| TaintToleration.score(&state, &pod, slot, &snapshot)).collect();
        TaintToleration.normalize(&state, &pod, &[0, 1, 2], &mut scores, &snapshot);
        assert_eq!(scores, [100, 50, 0]);
    }
}
