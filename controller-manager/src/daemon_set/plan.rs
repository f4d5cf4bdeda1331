//! Pure: what a DaemonSet does on its nodes, its rolling update and its status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::intstr::IntOrString;
use client::Timestamp;

use super::placement::{Verdict, target};
use crate::types::{DaemonSet, DaemonSetStatus, Pod};

/// Where revisions, and the pods of each, have its hash.
pub(super) const HASH: &str = "controller-revision-hash";

/// A node with its verdict and the set's pods that are on it or meant for it.
pub(super) struct Place {
    pub node: String,
    pub verdict: Verdict,
    pub pods: Vec<Arc<Pod>>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// Pods that ended, with the node: they are removed with back-off.
    pub ended: Vec<(String, Arc<Pod>)>,
}

/// Spreads the pods over the nodes; those of nodes that do not exist come second.
pub(super) fn places(verdicts: Vec<(String, Verdict)>, pods: &[Arc<Pod>]) -> (Vec<Place>, Vec<Arc<Pod>>) {
    let mut by_node: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
    let mut lost = Vec::new();
    for pod in pods {
        match target(pod) {
            Some(node) => by_node.entry(node).or_default().push(pod.clone()),
            None => lost.push(pod.clone()),
        }
    }
    let places = verdicts
        .into_iter()
        .map(|(node, verdict)| {
            let mut pods = by_node.remove(node.as_str()).unwrap_or_default();
            // The oldest first; a bound pod before one that still waits.
            pods.sort_by_key(|pod| {
                (pod.spec.node_name.is_empty(), pod.metadata.creation_timestamp, pod.metadata.name.clone())
            });
            Place { node, verdict, pods }
        })
        .collect();
    // A pod that waits for a node that is gone would wait for ever; a bound one is the pod garbage
    // collector's.
    lost.extend(by_node.into_values().flatten().filter(|pod| pod.spec.node_name.is_empty()));
    (places, lost)
}

fn min_ready(set: &DaemonSet) -> Duration {
    Duration::from_secs(set.spec.min_ready_seconds.max(0) as u64)
}

fn is_updated(pod: &Pod, hash: &str) -> bool {
    pod.metadata.label(HASH) == Some(hash)
}

/// How many nodes may be without an available pod, and how many may have two, during an update.
pub(super) fn limits(set: &DaemonSet, desired: i64) -> (i64, i64) {
    let rolling = match &set.spec.update_strategy.rolling_update {
        Some(rolling) if set.spec.update_strategy.kind == "RollingUpdate" => rolling,
        _ => return (0, 0),
    };
    let scaled = |value: &serde_json::Value| {
        IntOrString::from_value(value).and_then(|value| value.scaled(desired, true).ok()).unwrap_or(0)
    };
    let surge = scaled(&rolling.max_surge);
    let unavailable =
        if rolling.max_unavailable.is_null() && surge == 0 { 1 } else { scaled(&rolling.max_unavailable) };
    // Neither would never move.
    (if surge == 0 { unavailable.max(1) } else { unavailable }, surge)
}

/// What each node lacks or has too much of.
pub(super) fn manage(set: &DaemonSet, places: &[Place], hash: &str, now: Timestamp) -> Plan {
    let desired = places.iter().filter(|place| place.verdict.run).count() as i64;
    let surge = limits(set, desired).1;
    let mut plan = Plan::default();
    for place in places {
        if place.verdict.run && place.pods.is_empty() {
            plan.create.push(place.node.clone());
        } else if place.verdict.stay {
            let (ended, alive): (Vec<_>, Vec<_>) =
                place.pods.iter().filter(|pod| !pod.metadata.is_deleting()).partition(|pod| pod.is_finished());
            plan.ended.extend(ended.into_iter().map(|pod| (place.node.clone(), pod.clone())));
            plan.delete.extend(surplus(set, &alive, surge > 0, hash, now));
        } else {
            plan.delete.extend(place.pods.iter().filter(|pod| !pod.metadata.is_deleting()).cloned());
        }
    }
    plan
}

/// Of several pods on a node one stays, or with surge one old and one new until the new is available.
fn surplus(set: &DaemonSet, alive: &[&Arc<Pod>], surge: bool, hash: &str, now: Timestamp) -> Vec<Arc<Pod>> {
    if alive.len() < 2 {
        return Vec::new();
    }
    if !surge {
        return alive[1..].iter().map(|pod| (*pod).clone()).collect();
    }
    let (new, old): (Vec<&&Arc<Pod>>, Vec<&&Arc<Pod>>) = alive.iter().partition(|pod| is_updated(pod, hash));
    let new_available = new.first().is_some_and(|pod| pod.is_available(min_ready(set), now));
    let keep_old = usize::from(!new_available);
    new.iter().skip(1).chain(old.iter().skip(keep_old)).map(|pod| (**pod).clone()).collect()
}

/// What a rolling update replaces now.
pub(super) fn update(set: &DaemonSet, places: &[Place], hash: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if set.spec.update_strategy.kind != "RollingUpdate" {
        return plan;
    }
    let running: Vec<&Place> = places.iter().filter(|place| place.verdict.run).collect();
    let (max_unavailable, max_surge) = limits(set, running.len() as i64);
    let available = |pod: &Arc<Pod>| pod.is_available(min_ready(set), now) && !pod.metadata.is_deleting();
    let (mut unavailable, mut surging) = (0, 0);
    let mut broken: Vec<(&Place, Arc<Pod>)> = Vec::new();
    let mut candidates: Vec<(&Place, Arc<Pod>)> = Vec::new();
    for place in running {
        let alive: Vec<&Arc<Pod>> = place.pods.iter().filter(|pod| !pod.metadata.is_deleting()).collect();
        let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = alive.iter().copied().partition(|pod| is_updated(pod, hash));
        match (new.first(), old.first()) {
            (None, Some(old)) if available(old) => candidates.push((place, (*old).clone())),
            (None, Some(old)) => {
                unavailable += 1;
                broken.push((place, (*old).clone()));
            }
            (Some(_), Some(_)) => surging += 1,
            (Some(new), None) if available(new) => {}
            _ => unavailable += 1,
        }
    }
    if max_surge > 0 {
        let room = (max_surge - surging).max(0) as usize;
        // Where nothing works nothing is lost by starting anew.
        plan.create.extend(broken.iter().map(|(place, _)| place.node.clone()));
        plan.create.extend(candidates.iter().take(room).map(|(place, _)| place.node.clone()));
    } else {
        let room = (max_unavailable - unavailable).max(0) as usize;
        plan.delete.extend(broken.into_iter().map(|(_, pod)| pod));
        plan.delete.extend(candidates.into_iter().take(room).map(|(_, pod)| pod));
    }
    plan
}

pub(super) fn status(
    set: &DaemonSet,
    places: &[Place],
    hash: &str,
    collisions: i64,
    now: Timestamp,
) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: Some(collisions).filter(|count| *count > 0).or(set.status.collision_count),
        conditions: set.status.conditions.clone(),
        ..DaemonSetStatus::default()
    };
    for place in places {
        let has_pod = !place.pods.is_empty();
        if !place.verdict.run {
            status.number_misscheduled += i64::from(has_pod);
            continue;
        }
        status.desired_number_scheduled += 1;
        status.current_number_scheduled += i64::from(has_pod);
        let available = |pod: &&Arc<Pod>| pod.is_available(min_ready(set), now);
        status.number_ready += i64::from(place.pods.iter().any(|pod| pod.is_ready()));
        status.number_available += i64::from(place.pods.iter().any(|pod| available(&pod)));
        status.updated_number_scheduled += i64::from(place.pods.iter().any(|pod| is_updated(pod, hash)));
    }
    status.number_unavailable = status.desired_number_scheduled - status.number_available;
    status
}
