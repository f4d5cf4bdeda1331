//! How many pods a budget lets go. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::intstr::IntOrString;
use client::{ObjectMeta, Timestamp};
use serde_json::Value;

use crate::types::{
    Pod, PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus, StatusCondition, condition,
    whole_seconds,
};

pub const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

/// A pod that was to be evicted is believed to go for this long; upstream's number.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// A pod that was to end and has not by then will not; upstream's number.
const STALE_TARGET: Duration = Duration::from_secs(120);

/// Whether a budget is a share of the pods that there should be, which their controllers know.
pub fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    !spec.max_unavailable.is_null() || spec.min_available.is_string()
}

/// How many pods should be there, and how many of them healthy. `scale` is what their controllers ask for.
pub fn wanted(spec: &PodDisruptionBudgetSpec, pods: i64, scale: i64) -> Result<(i64, i64), String> {
    let scaled = |value: &Value| {
        let value = IntOrString::from_value(value)
            .ok_or_else(|| "invalid value for IntOrString: invalid type: neither int nor percentage".to_string())?;
        value.scaled(scale, true).map_err(|error| format!("invalid value for IntOrString: {error}"))
    };
    if !spec.max_unavailable.is_null() {
        return Ok((scale, (scale - scaled(&spec.max_unavailable)?).max(0)));
    }
    match &spec.min_available {
        Value::Null => Ok((0, 0)),
        Value::String(_) => Ok((scale, scaled(&spec.min_available)?)),
        number => Ok((pods, number.as_i64().unwrap_or(0))),
    }
}

/// Pods that were evicted and are about to go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disrupted {
    pub pods: BTreeMap<String, Timestamp>,
    /// When the first of them should have gone.
    pub recheck: Option<Duration>,
    /// Those that should have gone and have not.
    pub overdue: Vec<ObjectMeta>,
}

pub fn disrupted(known: &BTreeMap<String, Timestamp>, pods: &[Arc<Pod>], now: Timestamp) -> Disrupted {
    let mut found = Disrupted::default();
    for pod in pods.iter().filter(|pod| !pod.metadata.is_deleting()) {
        let Some(since) = known.get(&pod.metadata.name) else { continue };
        let elapsed = Duration::try_from(now.duration_since(*since)).unwrap_or_default();
        if elapsed > DELETION_TIMEOUT {
            found.overdue.push(pod.metadata.clone());
            continue;
        }
        let left = DELETION_TIMEOUT - elapsed;
        found.recheck = Some(found.recheck.map_or(left, |recheck| recheck.min(left)));
        found.pods.insert(pod.metadata.name.clone(), *since);
    }
    found
}

/// Ready pods that nobody has told to go.
pub fn healthy(pods: &[Arc<Pod>], disrupted: &BTreeMap<String, Timestamp>) -> i64 {
    let counts =
        |pod: &&Arc<Pod>| !pod.metadata.is_deleting() && !disrupted.contains_key(&pod.metadata.name) && pod.is_ready();
    pods.iter().filter(counts).count() as i64
}

/// The status of a budget with these counts.
pub fn status(
    budget: &PodDisruptionBudget,
    (expected, desired): (i64, i64),
    healthy: i64,
    disrupted: BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let mut status = PodDisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        disrupted_pods: disrupted,
        disruptions_allowed: allowed,
        current_healthy: healthy,
        desired_healthy: desired,
        expected_pods: expected,
        conditions: budget.status.conditions.clone(),
    };
    let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let upto_date = |condition: &StatusCondition| {
        condition.kind == DISRUPTION_ALLOWED && condition.status == value && condition.reason == reason
    };
    let unchanged = PodDisruptionBudgetStatus { conditions: Vec::new(), ..status.clone() }
        == PodDisruptionBudgetStatus { conditions: Vec::new(), ..budget.status.clone() };
    if !(unchanged && budget.status.conditions.iter().any(upto_date)) {
        set_condition(&mut status.conditions, value, reason, "", budget.metadata.generation, now);
    }
    status
}

/// The status of a budget that cannot be worked out: nothing may go.
pub fn failed(budget: &PodDisruptionBudget, error: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = PodDisruptionBudgetStatus { disruptions_allowed: 0, ..budget.status.clone() };
    let observed = status.observed_generation;
    set_condition(&mut status.conditions, "False", "SyncFailed", error, observed, now);
    status
}

fn set_condition(
    conditions: &mut Vec<StatusCondition>,
    status: &str,
    reason: &str,
    message: &str,
    observed_generation: i64,
    now: Timestamp,
) {
    let mut new = StatusCondition {
        kind: DISRUPTION_ALLOWED.into(),
        status: status.into(),
        observed_generation,
        last_transition_time: Some(whole_seconds(now)),
        reason: reason.into(),
        message: message.into(),
    };
    match conditions.iter_mut().find(|condition| condition.kind == DISRUPTION_ALLOWED) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time;
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// How long until a pod's `DisruptionTarget` condition is untrue, because the pod has not ended; `None` when it has
/// none, or is about to end.
pub fn stale_target(pod: &Pod, now: Timestamp) -> Option<Duration> {
    if pod.metadata.is_deleting() || pod.is_finished() {
        return None;
    }
    let target = condition(&pod.status.conditions, "DisruptionTarget")?;
    if !target.is_true() || target.reason == "TerminationByKubelet" {
        return None;
    }
    let elapsed = target.last_transition_time.map(|since| Duration::try_from(now.duration_since(since)));
    Some(STALE_TARGET.saturating_sub(elapsed.and_then(Result::ok).unwrap_or(STALE_TARGET)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::pod;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn spec(value: Value) -> PodDisruptionBudgetSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn counts_that_are_wanted() {
        for (value, pods, scale, expected) in [
            (json!({"minAvailable": 3}), 5, 0, Ok((5, 3))),
            (json!({"minAvailable": "50%"}), 5, 7, Ok((7, 4))),
            (json!({"maxUnavailable": 2}), 5, 7, Ok((7, 5))),
            (json!({"maxUnavailable": "30%"}), 5, 7, Ok((7, 4))),
            (json!({"maxUnavailable": 9}), 5, 7, Ok((7, 0))),
            (json!({}), 5, 7, Ok((0, 0))),
        ] {
            assert_eq!(wanted(&spec(value.clone()), pods, scale), expected, "{value}");
        }
        assert!(wanted(&spec(json!({"minAvailable": "x"})), 5, 7).is_err());
        assert!(!needs_scale(&spec(json!({"minAvailable": 3}))));
        assert!(needs_scale(&spec(json!({"minAvailable": "3%"}))));
    }

    #[test]
    fn evicted_pods_count_no_more() {
        let ready = |name: &str| Arc::new(pod(name).running().ready(1).build());
        let pods = [ready("a"), ready("b"), ready("c"), Arc::new(pod("d").running().ready(1).deleting().build())];
        let known = BTreeMap::from([("a".into(), at(950)), ("b".into(), at(100)), ("gone".into(), at(950))]);
        let found = disrupted(&known, &pods, at(1000));
        assert_eq!(found.pods, BTreeMap::from([("a".into(), at(950))]));
        assert_eq!(found.recheck, Some(Duration::from_secs(70)));
        assert_eq!(found.overdue.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(healthy(&pods, &found.pods), 2);
    }

    #[test]
    fn statuses() {
        let mut budget = PodDisruptionBudget::default();
        budget.metadata.generation = 2;
        for (counts, healthy, allowed, reason) in [
            ((5, 3), 5, 2, "SufficientPods"),
            ((5, 3), 3, 0, "InsufficientPods"),
            ((5, 3), 1, 0, "InsufficientPods"),
            ((0, 0), 1, 0, "InsufficientPods"),
        ] {
            let status = status(&budget, counts, healthy, BTreeMap::new(), at(100));
            assert_eq!((status.disruptions_allowed, status.conditions[0].reason.as_str()), (allowed, reason));
        }
        budget.status = status(&budget, (5, 3), 5, BTreeMap::new(), at(100));
        assert_eq!(status(&budget, (5, 3), 5, BTreeMap::new(), at(200)), budget.status);
        let failed = failed(&budget, "no controller", at(200));
        assert_eq!((failed.disruptions_allowed, failed.conditions[0].message.as_str()), (0, "no controller"));
        assert_eq!(failed.conditions[0].last_transition_time, Some(at(200)));
    }

    #[test]
    fn targets_that_did_not_end() {
        let target = |status: &str, reason: &str| {
            let mut pod = pod("a").running().build();
            pod.status.conditions = serde_json::from_value(json!([{
                "type": "DisruptionTarget", "status": status, "reason": reason, "lastTransitionTime": at(100),
            }]))
            .unwrap();
            pod
        };
        assert_eq!(stale_target(&target("True", "EvictionByEvictionAPI"), at(160)), Some(Duration::from_secs(60)));
        assert_eq!(stale_target(&target("True", "EvictionByEvictionAPI"), at(260)), Some(Duration::ZERO));
        assert_eq!(stale_target(&target("False", ""), at(260)), None);
        assert_eq!(stale_target(&target("True", "TerminationByKubelet"), at(260)), None);
        assert_eq!(stale_target(&pod("a").running().build(), at(260)), None);
    }
}
