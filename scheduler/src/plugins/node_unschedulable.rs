//! Keeps pods off cordoned nodes, unless they tolerate the taint that cordoning stands for.

use std::sync::Arc;

use serde_json::Value;

use super::Handle;
use crate::framework::events::{EventKind, interests};
use crate::framework::pod_info::PodInfo;
use crate::framework::selector::tolerated;
use crate::framework::snapshot::Snapshot;
use crate::framework::{CycleState, Filter, Plugin, Slot, Status, Verdict};
use crate::objects::Taint;

/// The plugin's name.
pub const NAME: &str = "NodeUnschedulable";

const REASON: &str = "node(s) were unschedulable";
const TAINT: &str = "node.kubernetes.io/unschedulable";

struct NodeUnschedulable {
    taint: Taint,
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> Verdict {
        let unschedulable = snapshot.node(slot).node.as_ref().is_some_and(|node| node.spec.unschedulable);
        if unschedulable && !tolerated(pod.tolerations(), &self.taint) {
            return Err(Status::unresolvable(REASON));
        }
        Ok(())
    }
}

/// Builds it.
pub fn new(_: &Value, _: &Handle) -> Result<Plugin, String> {
    let taint = Taint { key: TAINT.to_owned(), value: String::new(), effect: "NoSchedule".to_owned() };
    Ok(Plugin {
        name: NAME,
        filter: Some(Arc::new(NodeUnschedulable { taint })),
        interests: interests(&[EventKind::NodeAdd, EventKind::NodeUpdateTaint], |_, event| {
            event.node.1.as_ref().is_some_and(|node| !node.spec.unschedulable)
        }),
        ..Plugin::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::NoListers;
    use crate::testing::{node, pod};

    #[test]
    fn cordoned_nodes() {
        let plugin = new(&Value::Null, &Handle::new(Arc::new(NoListers), None)).unwrap().filter.unwrap();
        let refused = Err(Status::unresolvable(REASON));
        for (pod, node, expected) in [
            (pod("p").info(), node("n").unschedulable(), refused),
            (pod("p").info(), node("n"), Ok(())),
            (pod("p").toleration(TAINT, "", "NoSchedule").info(), node("n").unschedulable(), Ok(())),
        ] {
            let mut snapshot = Snapshot::default();
            snapshot.set_node(node.done());
            assert_eq!(plugin.filter(&CycleState::default(), &pod, 0, &snapshot), expected);
        }
    }
}
