//! Keeps two pods that want the same port of the host apart.

use std::sync::Arc;

use serde_json::Value;

use super::Handle;
use crate::framework::events::{EventKind, Interest};
use crate::framework::pod_info::PodInfo;
use crate::framework::snapshot::Snapshot;
use crate::framework::{CycleState, Filter, NodeNames, Plugin, PreFilter, Slot, Status, Verdict};

/// The plugin's name.
pub const NAME: &str = "NodePorts";

const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

struct NodePorts;

impl PreFilter for NodePorts {
    fn pre_filter(&self, _: &mut CycleState, pod: &PodInfo, _: &Snapshot) -> Result<NodeNames, Status> {
        if pod.host_ports.is_empty() { Err(Status::skip()) } else { Ok(None) }
    }
}

impl Filter for NodePorts {
    fn filter(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> Verdict {
        let used = &snapshot.node(slot).used_ports;
        if pod.host_ports.iter().any(|wanted| used.iter().any(|port| port.conflicts(wanted))) {
            return Err(Status::unschedulable(REASON));
        }
        Ok(())
    }
}

/// Builds it.
pub fn new(_: &Value, _: &Handle) -> Result<Plugin, String> {
    let plugin = Arc::new(NodePorts);
    Ok(Plugin {
        name: NAME,
        pre_filter: Some(plugin.clone()),
        filter: Some(plugin),
        interests: vec![
            Interest {
                kind: EventKind::AssignedPodDelete,
                hint: Some(Arc::new(|pod, event| {
                    event.pod.0.as_ref().is_some_and(|gone| {
                        gone.host_ports.iter().any(|port| pod.host_ports.iter().any(|wanted| wanted.conflicts(port)))
                    })
                })),
            },
            Interest { kind: EventKind::NodeAdd, hint: None },
        ],
        ..Plugin::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn ports_in_use() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n").done());
        snapshot.add_pod(pod("other").host_port(80).info(), "n");
        let refused = Err(Status::unschedulable(REASON));
        for (port, expected) in [(80, refused), (81, Ok(()))] {
            let pod = pod("p").host_port(port).info();
            assert_eq!(NodePorts.filter(&CycleState::default(), &pod, 0, &snapshot), expected);
        }
        let skipped = NodePorts.pre_filter(&mut CycleState::default(), &pod("p").info(), &snapshot);
        assert_eq!(skipped, Err(Status::skip()));
    }
}
