//! Keeps pods that name a node from all others.

use std::sync::Arc;

use serde_json::Value;

use super::Handle;
use crate::framework::events::{EventKind, interests};
use crate::framework::pod_info::PodInfo;
use crate::framework::snapshot::Snapshot;
use crate::framework::{CycleState, Filter, Plugin, Slot, Status, Verdict};

/// The plugin's name.
pub const NAME: &str = "NodeName";

const REASON: &str = "node(s) didn't match the requested node name";

struct NodeName;

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> Verdict {
        let wanted = pod.node_name();
        if wanted.is_empty() || wanted == snapshot.name(slot) { Ok(()) } else { Err(Status::unresolvable(REASON)) }
    }
}

/// Builds it.
pub fn new(_: &Value, _: &Handle) -> Result<Plugin, String> {
    Ok(Plugin {
        name: NAME,
        filter: Some(Arc::new(NodeName)),
        interests: interests(&[EventKind::NodeAdd], |pod, event| {
            event.node.1.as_ref().is_some_and(|node| node.metadata.name == pod.node_name())
        }),
        ..Plugin::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn only_the_named_node() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("foo").done());
        for (pod, expected) in [
            (pod("p").info(), Ok(())),
            (pod("p").node("foo").info(), Ok(())),
            (pod("p").node("bar").info(), Err(Status::unresolvable(REASON))),
        ] {
            assert_eq!(NodeName.filter(&CycleState::default(), &pod, 0, &snapshot), expected);
        }
    }
}
