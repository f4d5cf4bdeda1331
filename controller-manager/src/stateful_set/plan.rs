//! Pure: the next steps of a StatefulSet.
//!
//! With the policy `OrderedReady` one thing happens at a time: pods come in order, each after its
//! predecessors are available, and go in the opposite order. With `Parallel` all of it happens at
//! once; only rolling updates stay one by one.

use std::sync::Arc;
use std::time::Duration;

use client::Timestamp;

use crate::types::{Pod, StatefulSet, StatefulSetStatus};

pub(super) const REVISION: &str = "controller-revision-hash";
pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
pub(super) const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The names of the revision the set comes from and of the one it goes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Revisions<'a> {
    pub current: &'a str,
    pub update: &'a str,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Make the pod of this ordinal, at the older revision when so marked.
    Create {
        ordinal: i64,
        at_current: bool,
    },
    /// The pod waits: its claims may be missing.
    Claims(Arc<Pod>),
    /// The pod's labels do not say who it is.
    Identity(Arc<Pod>),
    /// Owners of the pod's claims must follow the retention policy.
    Retention(Arc<Pod>),
    Delete(Arc<Pod>),
}

/// The set's name and the ordinal in a pod's name.
pub(super) fn parent_and_ordinal(name: &str) -> Option<(&str, i64)> {
    let (parent, ordinal) = name.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return None;
    }
    ordinal.parse::<i32>().ok().map(|ordinal| (parent, ordinal.into()))
}

pub(super) fn ordinal(pod: &Pod) -> i64 {
    parent_and_ordinal(&pod.metadata.name).map_or(-1, |(_, ordinal)| ordinal)
}

pub(super) fn revision(pod: &Pod) -> &str {
    pod.metadata.label(REVISION).unwrap_or_default()
}

fn min_ready(set: &StatefulSet) -> Duration {
    Duration::from_secs(set.spec.min_ready_seconds.max(0) as u64)
}

fn identity_matches(pod: &Pod) -> bool {
    pod.metadata.label(POD_NAME) == Some(&pod.metadata.name)
}

/// A pod of a fresh ordinal is made at the current revision below the partition, or, without one,
/// as long as it replaces a pod of the current revision.
fn is_at_current(set: &StatefulSet, ordinal: i64) -> bool {
    if set.spec.update_strategy.kind != "RollingUpdate" {
        return false;
    }
    let kept = match &set.spec.update_strategy.rolling_update {
        Some(rolling) => rolling.partition,
        None => set.status.current_replicas,
    };
    ordinal < set.start() + kept
}

/// The steps that may be taken now, in order.
pub(super) fn plan(set: &StatefulSet, pods: &[Arc<Pod>], revisions: Revisions<'_>, now: Timestamp) -> Vec<Step> {
    if set.metadata.is_deleting() {
        return Vec::new();
    }
    let ordered = set.spec.pod_management_policy != "Parallel";
    let available = |pod: &Pod| pod.is_available(min_ready(set), now);
    let healthy = |pod: &Pod| available(pod) && !pod.metadata.is_deleting();
    let running = |pod: &Pod| pod.status.phase == "Running" && pod.is_ready();
    let replicas: Vec<(i64, Option<&Arc<Pod>>)> =
        set.ordinals().map(|wanted| (wanted, pods.iter().find(|pod| ordinal(pod) == wanted))).collect();
    let mut condemned: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| ordinal(pod) >= 0 && !set.ordinals().contains(&ordinal(pod))).collect();
    condemned.sort_by_key(|pod| std::cmp::Reverse(ordinal(pod)));
    let mut steps = Vec::new();
    for (wanted, pod) in &replicas {
        let Some(pod) = pod else {
            steps.push(Step::Create { ordinal: *wanted, at_current: is_at_current(set, *wanted) });
            if ordered {
                return steps;
            }
            continue;
        };
        if pod.is_finished() {
            if !pod.metadata.is_deleting() {
                steps.push(Step::Delete((*pod).clone()));
            }
            // The next one is made when this one is gone.
            if ordered {
                return steps;
            }
            continue;
        }
        if pod.status.phase == "Pending" {
            steps.push(Step::Claims((*pod).clone()));
        }
        if ordered && (pod.metadata.is_deleting() || !running(pod) || !available(pod)) {
            return steps;
        }
        if !identity_matches(pod) {
            steps.push(Step::Identity((*pod).clone()));
        }
        steps.push(Step::Retention((*pod).clone()));
    }
    for pod in &condemned {
        steps.push(Step::Retention((*pod).clone()));
    }
    // Where nothing else holds, the first pod that is not healthy may go: it is the one that blocks.
    let first_unhealthy = replicas
        .iter()
        .filter_map(|(_, pod)| *pod)
        .find(|pod| !healthy(pod))
        .or_else(|| condemned.iter().rev().find(|pod| !healthy(pod)).copied());
    for pod in &condemned {
        if pod.metadata.is_deleting() {
            if ordered {
                return steps;
            }
            continue;
        }
        let blocks = first_unhealthy.is_some_and(|first| first.metadata.uid == pod.metadata.uid);
        if ordered && !blocks && (!running(pod) || !available(pod)) {
            return steps;
        }
        steps.push(Step::Delete((*pod).clone()));
        if ordered {
            return steps;
        }
    }
    steps.extend(update(set, &replicas, revisions, &healthy));
    steps
}

/// The one pod that a rolling update takes next: the highest ordinal that is not up to date, after
/// those above it are healthy.
fn update(
    set: &StatefulSet,
    replicas: &[(i64, Option<&Arc<Pod>>)],
    revisions: Revisions<'_>,
    healthy: &dyn Fn(&Pod) -> bool,
) -> Option<Step> {
    if set.spec.update_strategy.kind == "OnDelete" {
        return None;
    }
    // Upstream counts the partition from the first replica and not from ordinal 0.
    let partition = set.spec.update_strategy.rolling_update.as_ref().map_or(0, |rolling| rolling.partition);
    for (place, (_, pod)) in replicas.iter().enumerate().rev() {
        if (place as i64) < partition {
            return None;
        }
        let Some(pod) = pod else { return None };
        if revision(pod) != revisions.update && !pod.metadata.is_deleting() {
            return Some(Step::Delete((*pod).clone()));
        }
        if !healthy(pod) {
            return None;
        }
    }
    None
}

/// The status that the pods add up to.
pub(super) fn status(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    revisions: Revisions<'_>,
    collisions: i64,
    now: Timestamp,
) -> StatefulSetStatus {
    let mut status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        current_revision: revisions.current.into(),
        update_revision: revisions.update.into(),
        collision_count: Some(collisions),
        conditions: set.status.conditions.clone(),
        ..StatefulSetStatus::default()
    };
    for pod in pods {
        status.replicas += 1;
        if pod.status.phase == "Running" && pod.is_ready() {
            status.ready_replicas += 1;
            status.available_replicas += i64::from(pod.is_available(min_ready(set), now));
        }
        if !pod.metadata.is_deleting() {
            status.current_replicas += i64::from(revision(pod) == revisions.current);
            status.updated_replicas += i64::from(revision(pod) == revisions.update);
        }
    }
    let wanted = set.spec.replicas;
    let complete = status.updated_replicas == wanted && status.ready_replicas == wanted && status.replicas == wanted;
    if set.spec.update_strategy.kind == "RollingUpdate" && complete {
        status.current_replicas = status.updated_replicas;
        status.current_revision = status.update_revision.clone();
    }
    status
}

/// When the next ready pod becomes available.
pub(super) fn next_availability(set: &StatefulSet, pods: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let min_ready = min_ready(set);
    pods.iter()
        .filter_map(|pod| pod.ready_since())
        .map(|since| since + min_ready)
        .filter(|available| *available > now)
        .min()
        .and_then(|available| Duration::try_from(available.duration_since(now)).ok())
}
