//! Pure: whether a node still speaks, and the conditions it gets when it does not.
//!
//! A node speaks by its Lease or by a new heartbeat in its `Ready` condition. Both are judged by
//! when *we* saw them change: the node's clock is never compared with ours.

use std::time::Duration;

use client::Timestamp;

use crate::types::{Condition, Node, condition, whole_seconds};

pub(super) const READY: &str = "Ready";

/// Conditions only the kubelet can know.
const FROM_KUBELET: [&str; 4] = [READY, "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What is remembered of a node between looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Health {
    heartbeat: Option<Timestamp>,
    renewed: Option<Timestamp>,
    /// When the node was last seen to speak.
    pub probed: Timestamp,
}

/// Silence that is allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grace {
    /// For a node that has a `Ready` condition.
    pub monitor: Duration,
    /// For one that has none yet.
    pub startup: Duration,
}

/// Takes a look: updates what is remembered, and answers the conditions that must be written because
/// the node is silent.
pub(super) fn look(
    known: &mut Option<Health>,
    node: &Node,
    renewed: Option<Timestamp>,
    grace: Grace,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let created = node.metadata.creation_timestamp.unwrap_or(now);
    let ready = condition(&node.status.conditions, READY);
    let heartbeat = ready.and_then(|ready| ready.last_heartbeat_time);
    let health = match known {
        Some(health) => {
            if health.heartbeat != heartbeat {
                health.heartbeat = heartbeat;
                health.probed = now;
            }
            health
        }
        None => known.insert(Health { heartbeat, renewed: None, probed: if ready.is_some() { now } else { created } }),
    };
    if renewed.is_some() && health.renewed < renewed {
        health.renewed = renewed;
        health.probed = now;
    }
    let allowed = if ready.is_some() { grace.monitor } else { grace.startup };
    if now <= health.probed + allowed || ready.is_some_and(|ready| ready.status == "Unknown") {
        return None;
    }
    Some(FROM_KUBELET.iter().filter_map(|kind| silent(node, kind, created, now)).collect())
}

fn silent(node: &Node, kind: &str, created: Timestamp, now: Timestamp) -> Option<Condition> {
    let now = Some(whole_seconds(now));
    match condition(&node.status.conditions, kind) {
        None => Some(Condition {
            kind: kind.into(),
            status: "Unknown".into(),
            reason: "NodeStatusNeverUpdated".into(),
            message: "Kubelet never posted node status.".into(),
            last_heartbeat_time: Some(created),
            last_transition_time: now,
            ..Condition::default()
        }),
        Some(known) if known.status != "Unknown" => Some(Condition {
            status: "Unknown".into(),
            reason: "NodeStatusUnknown".into(),
            message: "Kubelet stopped posting node status.".into(),
            last_transition_time: now,
            ..known.clone()
        }),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn node(ready: Option<(&str, i64)>) -> Node {
        let mut node = Node::default();
        node.metadata.creation_timestamp = Some(at(0));
        node.status.conditions = ready
            .map(|(status, heartbeat)| Condition {
                kind: READY.into(),
                status: status.into(),
                last_heartbeat_time: Some(at(heartbeat)),
                ..Condition::default()
            })
            .into_iter()
            .collect();
        node
    }

    const GRACE: Grace = Grace { monitor: Duration::from_secs(50), startup: Duration::from_secs(60) };

    #[test]
    fn silence_is_measured_by_our_clock() {
        let mut health = None;
        // The node's clock is an hour ahead; that changes nothing.
        assert_eq!(look(&mut health, &node(Some(("True", 3600))), Some(at(3600)), GRACE, at(100)), None);
        assert_eq!(look(&mut health, &node(Some(("True", 3600))), Some(at(3600)), GRACE, at(150)), None);
        let written = look(&mut health, &node(Some(("True", 3600))), Some(at(3600)), GRACE, at(151)).unwrap();
        assert_eq!(written.len(), 4);
        assert_eq!((written[0].status.as_str(), written[0].reason.as_str()), ("Unknown", "NodeStatusUnknown"));
        assert_eq!(written[0].last_heartbeat_time, Some(at(3600)));
        assert_eq!(written[1].reason, "NodeStatusNeverUpdated");
    }

    #[test]
    fn a_lease_or_a_heartbeat_is_a_sign_of_life() {
        let mut health = None;
        look(&mut health, &node(Some(("True", 1))), Some(at(1)), GRACE, at(0));
        look(&mut health, &node(Some(("True", 1))), Some(at(11)), GRACE, at(40));
        assert_eq!(look(&mut health, &node(Some(("True", 1))), Some(at(11)), GRACE, at(90)), None, "the lease");
        look(&mut health, &node(Some(("True", 2))), Some(at(11)), GRACE, at(90));
        assert_eq!(look(&mut health, &node(Some(("True", 2))), Some(at(11)), GRACE, at(140)), None, "the heartbeat");
        assert!(look(&mut health, &node(Some(("True", 2))), Some(at(11)), GRACE, at(141)).is_some());
        assert_eq!(look(&mut health, &node(Some(("Unknown", 2))), Some(at(11)), GRACE, at(200)), None, "said already");
    }

    #[test]
    fn a_node_that_never_spoke_has_its_start_up_time() {
        let mut health = None;
        assert_eq!(look(&mut health, &node(None), None, GRACE, at(60)), None);
        let written = look(&mut health, &node(None), None, GRACE, at(61)).unwrap();
        assert_eq!(written[0].reason, "NodeStatusNeverUpdated");
        assert_eq!(written[0].last_heartbeat_time, Some(at(0)));
    }
}
