//! Pure: the taints a node's conditions call for.

use client::Timestamp;

use super::health::READY;
use crate::types::{Node, Taint, condition, whole_seconds};

const NO_SCHEDULE: &str = "NoSchedule";
pub(crate) const NO_EXECUTE: &str = "NoExecute";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// (condition, status, taint)
const BY_CONDITION: [(&str, &str, &str); 6] = [
    (READY, "False", NOT_READY),
    (READY, "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// How far evictions may go just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eviction {
    /// Take all `NoExecute` taints of ours off: every zone looks dead, so it is more likely us.
    Suspended,
    /// Exchange one taint for the other, but add none.
    Hold,
    /// Taint.
    Go,
}

/// What became of a node's taints.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The new list, when it differs.
    pub taints: Option<Vec<Taint>>,
    /// A `NoExecute` taint is called for and was held back.
    pub held: bool,
}

fn is_ours(taint: &Taint) -> bool {
    match taint.effect.as_str() {
        NO_SCHEDULE => taint.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(.., key)| *key == taint.key),
        NO_EXECUTE => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    }
}

/// Whether the node has a `NoExecute` taint of ours.
pub(super) fn is_evicting(node: &Node) -> bool {
    node.spec.taints.iter().any(|taint| taint.effect == NO_EXECUTE && is_ours(taint))
}

/// Whether the node's state calls for a `NoExecute` taint that it does not have.
pub(super) fn wants_eviction(node: &Node) -> bool {
    condition(&node.status.conditions, READY).is_some_and(|ready| !ready.is_true()) && !is_evicting(node)
}

pub(super) fn decide(node: &Node, eviction: Eviction, now: Timestamp) -> Outcome {
    let taint = |key: &str, effect: &str| Taint {
        key: key.into(),
        effect: effect.into(),
        time_added: Some(whole_seconds(now)),
        ..Taint::default()
    };
    let holds = |kind: &str, status: &str| {
        condition(&node.status.conditions, kind).is_some_and(|condition| condition.status == status)
    };
    let mut wanted: Vec<Taint> = BY_CONDITION
        .iter()
        .filter(|(kind, status, _)| holds(kind, status))
        .map(|(.., key)| taint(key, NO_SCHEDULE))
        .collect();
    if node.spec.unschedulable {
        wanted.push(taint(UNSCHEDULABLE, NO_SCHEDULE));
    }
    let no_execute = if holds(READY, "False") {
        Some(NOT_READY)
    } else if holds(READY, "Unknown") {
        Some(UNREACHABLE)
    } else {
        None
    };
    let mut held = false;
    if let Some(key) = no_execute {
        match eviction {
            Eviction::Suspended => {}
            Eviction::Hold if !is_evicting(node) => held = true,
            Eviction::Hold | Eviction::Go => wanted.push(taint(key, NO_EXECUTE)),
        }
    } else if condition(&node.status.conditions, READY).is_none() {
        // Nothing is known yet: what others put there stays.
        wanted.extend(node.spec.taints.iter().filter(|taint| taint.effect == NO_EXECUTE && is_ours(taint)).cloned());
    }
    let mut taints: Vec<Taint> = node
        .spec
        .taints
        .iter()
        .filter(|known| !is_ours(known) || wanted.iter().any(|wanted| wanted.same(known)))
        .cloned()
        .collect();
    for new in wanted {
        if !taints.iter().any(|known| known.same(&new)) {
            taints.push(new);
        }
    }
    let changed = taints != node.spec.taints;
    Outcome { taints: changed.then_some(taints), held }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Condition;

    fn node(ready: &str, taints: &[(&str, &str)]) -> Node {
        let mut node = Node::default();
        node.status.conditions = vec![Condition { kind: READY.into(), status: ready.into(), ..Condition::default() }];
        node.spec.taints = taints
            .iter()
            .map(|(key, effect)| Taint { key: key.to_string(), effect: effect.to_string(), ..Taint::default() })
            .collect();
        node
    }

    fn run(node: &Node, eviction: Eviction) -> (Option<Vec<String>>, bool) {
        let outcome = decide(node, eviction, Timestamp::UNIX_EPOCH);
        let names =
            outcome.taints.map(|taints| taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect());
        (names, outcome.held)
    }

    fn list(taints: &[&str]) -> Option<Vec<String>> {
        Some(taints.iter().map(|taint| taint.to_string()).collect())
    }

    const NR_S: &str = "node.kubernetes.io/not-ready:NoSchedule";
    const NR_X: &str = "node.kubernetes.io/not-ready:NoExecute";
    const UR_S: &str = "node.kubernetes.io/unreachable:NoSchedule";
    const UR_X: &str = "node.kubernetes.io/unreachable:NoExecute";

    #[test]
    fn taints_follow_conditions() {
        assert_eq!(run(&node("True", &[]), Eviction::Go), (None, false));
        assert_eq!(run(&node("False", &[]), Eviction::Go), (list(&[NR_S, NR_X]), false));
        assert_eq!(run(&node("False", &[]), Eviction::Hold), (list(&[NR_S]), true));
        assert_eq!(
            run(&node("Unknown", &[("mine", "NoExecute")]), Eviction::Go),
            (list(&["mine:NoExecute", UR_S, UR_X]), false)
        );
        let down = node("Unknown", &[(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]);
        assert_eq!(run(&down, Eviction::Hold), (list(&[UR_S, UR_X]), false), "exchanged at once");
        assert_eq!(run(&down, Eviction::Suspended), (list(&[UR_S]), false));
        let back = node("True", &[(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE), ("mine", NO_SCHEDULE)]);
        assert_eq!(run(&back, Eviction::Hold), (list(&["mine:NoSchedule"]), false));
        let mut cordoned = node("True", &[]);
        cordoned.spec.unschedulable = true;
        assert_eq!(run(&cordoned, Eviction::Go), (list(&["node.kubernetes.io/unschedulable:NoSchedule"]), false));
    }
}
