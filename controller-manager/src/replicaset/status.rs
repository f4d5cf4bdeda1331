//! The status of a ReplicaSet: pure functions of the set, its pods and the time.

use std::sync::Arc;
use std::time::Duration;

use client::Timestamp;

use super::new_condition;
use crate::types::{Pod, ReplicaSet, ReplicaSetStatus, condition};

const REPLICA_FAILURE: &str = "ReplicaFailure";

fn min_ready(set: &ReplicaSet) -> Duration {
    Duration::from_secs(set.spec.min_ready_seconds.max(0) as u64)
}

/// The status that the pods add up to. `failure` is what went wrong while managing them.
pub(super) fn calculate(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: Option<usize>,
    failure: Option<&str>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let mut status = set.status.clone();
    let template_labels = set.template_labels();
    let fully_labeled = |pod: &&Arc<Pod>| {
        template_labels.is_none_or(|labels| labels.iter().all(|(key, value)| pod.metadata.label(key) == value.as_str()))
    };
    status.replicas = active.len() as i64;
    status.fully_labeled_replicas = active.iter().filter(fully_labeled).count() as i64;
    status.ready_replicas = active.iter().filter(|pod| pod.is_ready()).count() as i64;
    status.available_replicas = active.iter().filter(|pod| pod.is_available(min_ready(set), now)).count() as i64;
    status.terminating_replicas = terminating.map(|count| count as i64);
    status.observed_generation = set.metadata.generation;
    let known = condition(&status.conditions, REPLICA_FAILURE).is_some();
    match failure {
        Some(message) if !known => {
            let reason = match (active.len() as i64).cmp(&set.spec.replicas) {
                std::cmp::Ordering::Less => "FailedCreate",
                std::cmp::Ordering::Greater => "FailedDelete",
                std::cmp::Ordering::Equal => "",
            };
            status.conditions.push(new_condition(REPLICA_FAILURE, "True", reason, message, now));
        }
        None if known => status.conditions.retain(|condition| condition.kind != REPLICA_FAILURE),
        _ => {}
    }
    status
}

/// When the next ready pod becomes available, if one is waiting for that.
pub(super) fn next_availability(set: &ReplicaSet, active: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let min_ready = min_ready(set);
    if min_ready.is_zero() {
        return None;
    }
    active
        .iter()
        .filter_map(|pod| pod.ready_since())
        .map(|since| since + min_ready)
        .filter(|available| *available > now)
        .min()
        .and_then(|available| Duration::try_from(available.duration_since(now)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, replica_set};

    #[test]
    fn counts_and_conditions() {
        let now = Timestamp::from_second(100).unwrap();
        let mut set = replica_set("a", 3);
        set.spec.min_ready_seconds = 10;
        let pods: Vec<Arc<Pod>> = [
            pod("old").label("app", "a").running().ready(10),
            pod("young").label("app", "a").running().ready(95),
            pod("other").running(),
        ]
        .into_iter()
        .map(|builder| Arc::new(builder.build()))
        .collect();
        let status = calculate(&set, &pods, Some(2), Some("no room"), now);
        assert_eq!(
            (status.replicas, status.fully_labeled_replicas, status.ready_replicas, status.available_replicas),
            (3, 2, 2, 1)
        );
        assert_eq!(status.terminating_replicas, Some(2));
        assert_eq!(status.observed_generation, 1);
        assert_eq!(status.conditions[0].message, "no room");
        assert_eq!(next_availability(&set, &pods, now), Some(Duration::from_secs(5)));
        set.status = status;
        assert!(calculate(&set, &pods, Some(0), None, now).conditions.is_empty());
        assert_eq!(
            calculate(&set, &pods[..1], Some(2), Some("again"), now).conditions[0].message,
            "no room",
            "the first failure stays until it is over"
        );
    }
}
