//! How long to wait before a failed pod is replaced.

use std::sync::Arc;
use std::time::Duration;

use client::Timestamp;

use crate::types::Pod;

/// The wait after the first failure; it doubles with each. Upstream's number.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// Failures of a Job's pods since one of them last succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub failures: u32,
    pub last: Option<Timestamp>,
}

impl Record {
    /// What it becomes when these pods are seen to have ended.
    pub fn after(&self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let mut failures: Vec<Timestamp> = failed.iter().filter_map(|pod| finished_at(pod)).collect();
        failures.sort_unstable();
        match succeeded.iter().filter_map(|pod| finished_at(pod)).max() {
            None if failures.is_empty() => self.clone(),
            None => Self { failures: self.failures + failures.len() as u32, last: failures.last().copied() },
            Some(success) => {
                failures.retain(|failure| *failure > success);
                Self { failures: failures.len() as u32, last: failures.last().copied() }
            }
        }
    }

    /// How long to wait yet.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        remaining(self.failures, self.last, now)
    }
}

/// How long to wait yet after so many failures.
pub fn remaining(failures: u32, last: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(last) = last.filter(|_| failures > 0) else { return Duration::ZERO };
    let wait = FIRST.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(LONGEST);
    // A clock that went back makes the wait no longer than it is.
    let elapsed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    wait.saturating_sub(elapsed)
}

/// When a pod ended: when the last of its containers did, else when it ceased to be ready, else when it
/// was asked to end, else when it was made.
pub fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let sidecar = |name: &str| {
        pod.spec
            .init_containers
            .iter()
            .any(|container| container.name == name && container.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = pod.status.init_container_statuses.iter().filter(|status| sidecar(&status.name));
    let ends: Option<Vec<Timestamp>> = pod
        .status
        .container_statuses
        .iter()
        .chain(sidecars)
        .map(|status| status.state.terminated.as_ref().and_then(|terminated| terminated.finished_at))
        .collect();
    let unready = || {
        pod.ready_condition()
            .filter(|condition| condition.status == "False")
            .and_then(|condition| condition.last_transition_time)
    };
    let deleted = || {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0);
        pod.metadata.deletion_timestamp.map(|at| at - Duration::from_secs(grace as u64))
    };
    ends.and_then(|ends| ends.into_iter().max()).or_else(unready).or_else(deleted).or(pod.metadata.creation_timestamp)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(second: i64) -> Arc<Pod> {
        let status = json!({"containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 0, "finishedAt": at(second - 5)}}},
            {"name": "b", "state": {"terminated": {"exitCode": 1, "finishedAt": at(second)}}},
        ]});
        Arc::new(serde_json::from_value(json!({ "status": status })).unwrap())
    }

    #[test]
    fn failures_after_the_last_success_count() {
        let record = Record { failures: 2, last: Some(at(10)) };
        assert_eq!(record.after(&[], &[]), record);
        assert_eq!(record.after(&[], &[ended(30), ended(20)]), Record { failures: 4, last: Some(at(30)) });
        assert_eq!(record.after(&[ended(25)], &[]), Record::default());
        assert_eq!(record.after(&[ended(25)], &[ended(20), ended(30)]), Record { failures: 1, last: Some(at(30)) });
    }

    #[test]
    fn waits_double() {
        let now = at(1000);
        for (failures, last, expected) in [
            (0, Some(1000), 0),
            (1, None, 0),
            (1, Some(1000), 10),
            (1, Some(996), 6),
            (2, Some(1000), 20),
            (3, Some(900), 0),
            (7, Some(1000), 600),
            (80, Some(1000), 600),
            (1, Some(2000), 10),
        ] {
            let wait = remaining(failures, last.map(at), now);
            assert_eq!(wait, Duration::from_secs(expected), "{failures} {last:?}");
        }
    }

    #[test]
    fn the_end_of_a_pod() {
        assert_eq!(finished_at(&ended(50)), Some(at(50)));
        let pod = |value| serde_json::from_value::<Pod>(value).unwrap();
        let running = json!([{"name": "a", "state": {"running": {}}}]);
        let unready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": at(40)}]);
        for (value, expected) in [
            (json!({"status": {"containerStatuses": running, "conditions": unready}}), 40),
            (
                json!({
                    "metadata": {"deletionTimestamp": at(60), "deletionGracePeriodSeconds": 30},
                    "status": {"containerStatuses": running},
                }),
                30,
            ),
            (json!({"metadata": {"creationTimestamp": at(7)}, "status": {"containerStatuses": running}}), 7),
        ] {
            assert_eq!(finished_at(&pod(value)), Some(at(expected)));
        }
    }
}
