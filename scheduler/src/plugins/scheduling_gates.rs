//! Keeps pods with scheduling gates out of the queue (KEP-3521).

use std::sync::Arc;

use serde_json::Value;

use super::Handle;
use crate::framework::events::{EventKind, interests};
use crate::framework::pod_info::PodInfo;
use crate::framework::{Plugin, PreEnqueue, Status, Verdict};

/// The plugin's name.
pub const NAME: &str = "SchedulingGates";

struct SchedulingGates;

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Verdict {
        let gates: Vec<&str> = pod.pod.spec.scheduling_gates.iter().map(|gate| gate.name.as_str()).collect();
        if gates.is_empty() {
            return Ok(());
        }
        Err(Status::unresolvable(format!("waiting for scheduling gates: [{}]", gates.join(" "))))
    }
}

/// Builds it.
pub fn new(_: &Value, _: &Handle) -> Result<Plugin, String> {
    Ok(Plugin {
        name: NAME,
        pre_enqueue: Some(Arc::new(SchedulingGates)),
        interests: interests(&[EventKind::UnscheduledPodUpdate], |pod, event| {
            event.pod.1.as_ref().is_some_and(|new| new.uid() == pod.uid() && new.pod.spec.scheduling_gates.is_empty())
        }),
        ..Plugin::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn gated_pods_wait() {
        assert!(SchedulingGates.pre_enqueue(&pod("p").info()).is_ok());
        let refused = SchedulingGates.pre_enqueue(&pod("p").gate("foo").gate("bar").info()).unwrap_err();
        assert_eq!(refused.message(), "waiting for scheduling gates: [foo bar]");
    }
}
