//! What workload controllers share about pods: finding them, ranking them for deletion, making them
//! in growing batches.

use std::cmp::Ordering;
use std::sync::Arc;

use client::informer::{Informer, Store};
use client::{ObjectMeta, OwnerReference, Timestamp};
use serde_json::{Value, json};

use crate::types::Pod;

/// Pods by the uid of their controller; orphans under [`orphans_of`] their namespace.
pub const BY_CONTROLLER: &str = "controller";

/// The index value under which a namespace's pods without a controller are found.
pub fn orphans_of(namespace: &str) -> String {
    format!("_orphans/{namespace}")
}

/// Adds the index [`BY_CONTROLLER`].
pub fn index_by_controller(pods: &Informer<Pod>) {
    pods.add_index(BY_CONTROLLER, |pod| {
        vec![match pod.metadata.controller() {
            Some(owner) => owner.uid.clone(),
            None => orphans_of(&pod.metadata.namespace),
        }]
    });
}

/// The pods a controller owns, and the orphans it might adopt.
pub fn owned_and_orphans(pods: &Store<Pod>, owner: &ObjectMeta) -> Vec<Arc<Pod>> {
    let mut found = pods.by_index(BY_CONTROLLER, &owner.uid);
    found.extend(pods.by_index(BY_CONTROLLER, &orphans_of(&owner.namespace)));
    found
}

/// The pod of a template, ready to be created as often as wanted.
pub fn from_template(template: &Value, prefix: &str, owner: &OwnerReference) -> Value {
    let meta = &template["metadata"];
    let mut metadata = json!({
        "generateName": prefix,
        "ownerReferences": [owner],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if !meta[field].is_null() {
            metadata[field] = meta[field].clone();
        }
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] })
}

/// The prefix of generated pod names.
pub fn name_prefix(controller: &str) -> String {
    let prefix = format!("{controller}-");
    // The dash goes where the name would be no valid prefix with it.
    if apimachinery::names::dns1123_subdomain(apimachinery::names::mask_trailing_dash(&prefix).as_ref()).is_empty() {
        prefix
    } else {
        controller.to_string()
    }
}

/// Sizes of the batches in which `count` objects are created: 1, 2, 4, … so that a failure that
/// would meet all of them, such as a quota, costs few requests.
pub fn slow_start(count: usize) -> impl Iterator<Item = usize> {
    let mut remaining = count;
    let mut size = 1;
    std::iter::from_fn(move || {
        let batch = size.min(remaining);
        remaining -= batch;
        size = batch * 2;
        (batch > 0).then_some(batch)
    })
}

fn phase_rank(phase: &str) -> u8 {
    match phase {
        "Pending" => 0,
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i64 {
    pod.metadata
        .annotation("controller.kubernetes.io/pod-deletion-cost")
        .and_then(|text| text.parse::<i32>().ok())
        .unwrap_or(0)
        .into()
}

/// Ages are compared by magnitude, so that pods of about the same age are chosen at random and not
/// all from the node that was filled last (KEP-2185). An unknown time counts as the youngest.
fn magnitude(time: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    let nanos = now.as_nanosecond() - time?.as_nanosecond();
    Some(if nanos > 0 { nanos.ilog2().into() } else { -1 })
}

fn max_restarts(pod: &Pod) -> i64 {
    let all = pod.status.container_statuses.iter();
    let sidecars = pod.status.init_container_statuses.iter().filter(|status| {
        pod.spec
            .init_containers
            .iter()
            .any(|container| container.name == status.name && container.restart_policy.as_deref() == Some("Always"))
    });
    all.chain(sidecars).map(|status| status.restart_count).max().unwrap_or(0)
}

/// Orders pods so that those to delete first come first. `colocated` is the number of ready pods of
/// related controllers on the pod's node.
pub fn deletion_order(a: (&Pod, usize), b: (&Pod, usize), now: Timestamp) -> Ordering {
    let (left, right) = (a.0, b.0);
    let assigned = |pod: &Pod| !pod.spec.node_name.is_empty();
    let ready = (left.is_ready(), right.is_ready());
    assigned(left)
        .cmp(&assigned(right))
        .then_with(|| phase_rank(&left.status.phase).cmp(&phase_rank(&right.status.phase)))
        .then_with(|| ready.0.cmp(&ready.1))
        .then_with(|| deletion_cost(left).cmp(&deletion_cost(right)))
        .then_with(|| b.1.cmp(&a.1))
        // Upstream asks for exact times before it falls back to the uid, which is no total order; a
        // sort must have one, so magnitudes alone count and the uid settles what is left.
        .then_with(|| magnitude(left.ready_since(), now).cmp(&magnitude(right.ready_since(), now)))
        .then_with(|| max_restarts(right).cmp(&max_restarts(left)))
        .then_with(|| {
            let created = |pod: &Pod| magnitude(pod.metadata.creation_timestamp, now);
            created(left).cmp(&created(right))
        })
        .then_with(|| left.metadata.uid.cmp(&right.metadata.uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn batches_double() {
        assert_eq!(slow_start(10).collect::<Vec<_>>(), [1, 2, 4, 3]);
        assert_eq!(slow_start(0).count(), 0);
        assert_eq!(slow_start(500).sum::<usize>(), 500);
    }

    #[test]
    fn deletion_prefers_what_costs_least() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let ready = |name: &str, since: i64| pod(name).node("n").running().ready(since).build();
        // Each left pod must go before the right one.
        for (left, right) in [
            (pod("a").build(), pod("b").node("n").build()),
            (pod("a").node("n").build(), pod("b").node("n").running().build()),
            (pod("a").node("n").running().build(), ready("b", 10)),
            (
                pod("a")
                    .node("n")
                    .running()
                    .ready(10)
                    .annotation("controller.kubernetes.io/pod-deletion-cost", "-1")
                    .build(),
                ready("b", 999_999),
            ),
            (ready("a", 999_000), ready("b", 10)),
            (
                pod("a").node("n").running().ready(10).restarts(3).build(),
                pod("b").node("n").running().ready(10).restarts(1).build(),
            ),
            (pod("a").node("n").running().created(999_000).build(), pod("b").node("n").running().created(1).build()),
        ] {
            assert_eq!(
                deletion_order((&left, 0), (&right, 0), now),
                Ordering::Less,
                "{} {}",
                left.metadata.name,
                right.metadata.name
            );
            assert_eq!(deletion_order((&right, 0), (&left, 0), now), Ordering::Greater);
        }
        let (a, b) = (ready("b", 10), ready("a", 10));
        assert_eq!(deletion_order((&a, 2), (&b, 1), now), Ordering::Less, "the more crowded node gives first");
    }

    #[test]
    fn the_order_is_total() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        // Times that are equal, of one magnitude, and unknown, in uids that run against them.
        let mut pods: Vec<Pod> = (0..300)
            .map(|n| {
                let mut pod =
                    pod(&format!("{:03}", (n * 7919) % 300)).node("n").running().created(999_000 + n % 5).build();
                if n % 7 == 0 {
                    pod.metadata.creation_timestamp = None;
                }
                pod
            })
            .collect();
        // A comparison that contradicts itself makes the sort panic.
        pods.sort_by(|a, b| deletion_order((a, 0), (b, 0), now));
        assert!(pods[0].metadata.creation_timestamp.is_none());
    }
}
