//! Tables over placement, plan and status.

use std::sync::Arc;

use client::Timestamp;
use serde_json::{Value, json};

use super::placement::{Verdict, judge, target, tie_to_node, with_tolerations};
use super::plan::{HASH, Place, limits, manage, places, status, update};
use crate::testing::pod;
use crate::types::{DaemonSet, Node, Pod, RollingUpdate, Taint};

fn node(name: &str, labels: &[(&str, &str)], taints: &[(&str, &str)]) -> Node {
    let mut node = Node::default();
    node.metadata.name = name.into();
    node.metadata.labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    node.spec.taints = taints
        .iter()
        .map(|(key, effect)| Taint { key: key.to_string(), effect: effect.to_string(), ..Taint::default() })
        .collect();
    node
}

fn verdict(mut spec: Value, node: &Node) -> (bool, bool) {
    with_tolerations(&mut spec);
    let Verdict { run, stay } = judge(&spec, node);
    (run, stay)
}

#[test]
fn daemons_go_where_they_fit() {
    let plain = node("n1", &[("disk", "ssd"), ("cpus", "8")], &[]);
    let affinity = |requirement: Value| {
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [requirement] }] } } } })
    };
    for (spec, node, expected) in [
        (json!({}), &plain, (true, true)),
        (json!({ "nodeName": "other" }), &plain, (false, false)),
        (json!({ "nodeSelector": { "disk": "ssd" } }), &plain, (true, true)),
        (json!({ "nodeSelector": { "disk": "hdd" } }), &plain, (false, false)),
        (affinity(json!({ "key": "disk", "operator": "In", "values": ["ssd", "nvme"] })), &plain, (true, true)),
        (affinity(json!({ "key": "disk", "operator": "NotIn", "values": ["ssd"] })), &plain, (false, false)),
        (affinity(json!({ "key": "cpus", "operator": "Gt", "values": ["4"] })), &plain, (true, true)),
        (affinity(json!({ "key": "gpu", "operator": "DoesNotExist" })), &plain, (true, true)),
        (
            json!({}),
            &node(
                "n",
                &[],
                &[("node.kubernetes.io/not-ready", "NoExecute"), ("node.kubernetes.io/unschedulable", "NoSchedule")],
            ),
            (true, true),
        ),
        (json!({}), &node("n", &[], &[("mine", "NoSchedule")]), (false, true)),
        (json!({}), &node("n", &[], &[("mine", "NoExecute")]), (false, false)),
        (json!({ "tolerations": [{ "operator": "Exists" }] }), &node("n", &[], &[("mine", "NoExecute")]), (true, true)),
    ] {
        assert_eq!(verdict(spec.clone(), node), expected, "{spec}");
    }
}

#[test]
fn pods_are_tied_to_their_node() {
    let mut spec = json!({});
    tie_to_node(&mut spec, "n1");
    let tied: Pod = serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap();
    assert_eq!(target(&tied), Some("n1"));
    let mut selective = json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "a", "operator": "Exists" }] }] } } } });
    tie_to_node(&mut selective, "n2");
    let term = &selective["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        [0];
    assert_eq!(term["matchExpressions"][0]["key"], "a");
    assert_eq!(term["matchFields"][0]["values"][0], "n2");
    assert_eq!(target(&pod("p").node("n3").build()), Some("n3"));
}

fn set(unavailable: Value, surge: Value) -> DaemonSet {
    let mut set = DaemonSet::default();
    set.spec.update_strategy.kind = "RollingUpdate".into();
    set.spec.update_strategy.rolling_update = Some(RollingUpdate { max_unavailable: unavailable, max_surge: surge });
    set
}

fn on(node: &str, name: &str, hash: &str, ready: bool) -> Arc<Pod> {
    let mut builder = pod(name).node(node).label(HASH, hash).running();
    if ready {
        builder = builder.ready(1);
    }
    Arc::new(builder.build())
}

fn place(node: &str, run: bool, stay: bool, pods: &[Arc<Pod>]) -> Place {
    Place { node: node.into(), verdict: Verdict { run, stay }, pods: pods.to_vec() }
}

fn now() -> Timestamp {
    Timestamp::from_second(100).unwrap()
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| pod.metadata.name.as_str()).collect()
}

#[test]
fn each_node_has_one() {
    let failed = Arc::new(pod("failed").node("n4").phase("Failed").build());
    let plan = manage(
        &set(json!(1), Value::Null),
        &[
            place("n1", true, true, &[]),
            place("n2", true, true, &[on("n2", "a", "h", true), on("n2", "b", "h", true)]),
            place("n3", false, false, &[on("n3", "c", "h", true)]),
            place("n4", true, true, &[failed]),
            place("n5", false, true, &[on("n5", "d", "h", true)]),
            place("n6", false, false, &[]),
        ],
        "h",
        now(),
    );
    assert_eq!(plan.create, ["n1"]);
    assert_eq!(names(&plan.delete), ["b", "c"]);
    assert_eq!(plan.ended[0].0, "n4");
}

#[test]
fn pods_that_wait_for_a_lost_node_are_found() {
    let mut waiting = pod("waiting").build();
    let mut spec = json!({});
    tie_to_node(&mut spec, "gone");
    waiting.spec = serde_json::from_value(spec).unwrap();
    let verdicts = vec![("n1".to_string(), Verdict { run: true, stay: true })];
    let (places, lost) =
        places(verdicts, &[Arc::new(waiting), on("n1", "a", "h", true), on("gone", "bound", "h", true)]);
    assert_eq!(places[0].pods.len(), 1);
    assert_eq!(names(&lost), ["waiting"]);
}

#[test]
fn updates_respect_availability() {
    let old = |node: &str, ready: bool| place(node, true, true, &[on(node, &format!("old-{node}"), "old", ready)]);
    let new = |node: &str, ready: bool| place(node, true, true, &[on(node, &format!("new-{node}"), "new", ready)]);
    let run = |unavailable: i64, places: &[Place]| {
        update(&set(json!(unavailable), Value::Null), places, "new", now())
            .delete
            .iter()
            .map(|pod| pod.metadata.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1, &[old("a", true), old("b", true)]), ["old-a"]);
    assert_eq!(run(2, &[old("a", true), old("b", true), old("c", true)]), ["old-a", "old-b"]);
    assert!(run(1, &[new("a", false), old("b", true)]).is_empty(), "the new one is not available yet");
    assert_eq!(run(1, &[old("a", false), old("b", true)]), ["old-a"], "what does not work costs nothing");
    assert!(run(1, &[place("a", true, true, &[]), old("b", true)]).is_empty());
    let mut on_delete = set(json!(1), Value::Null);
    on_delete.spec.update_strategy.kind = "OnDelete".into();
    assert!(update(&on_delete, &[old("a", true)], "new", now()).delete.is_empty());
}

#[test]
fn surge_starts_the_new_before_the_old_goes() {
    let surge = set(json!(0), json!(1));
    assert_eq!(limits(&surge, 10), (0, 1));
    let old = |node: &str| place(node, true, true, &[on(node, &format!("old-{node}"), "old", true)]);
    let plan = update(&surge, &[old("a"), old("b")], "new", now());
    assert_eq!((plan.create, plan.delete.len()), (vec!["a".to_string()], 0));
    let both = |ready: bool| place("a", true, true, &[on("a", "o", "old", true), on("a", "n", "new", ready)]);
    assert!(manage(&surge, &[both(false)], "new", now()).delete.is_empty());
    assert_eq!(names(&manage(&surge, &[both(true)], "new", now()).delete), ["o"]);
    assert!(update(&surge, &[both(false), old("b")], "new", now()).create.is_empty(), "one at a time");
    assert_eq!(limits(&set(json!("10%"), Value::Null), 25), (3, 0));
}

#[test]
fn the_status_counts_nodes() {
    let status = status(
        &set(json!(1), Value::Null),
        &[
            place("a", true, true, &[on("a", "a", "new", true)]),
            place("b", true, true, &[on("b", "b", "old", false)]),
            place("c", true, true, &[]),
            place("d", false, true, &[on("d", "d", "old", true)]),
        ],
        "new",
        0,
        now(),
    );
    assert_eq!(
        (status.desired_number_scheduled, status.current_number_scheduled, status.number_misscheduled),
        (3, 2, 1)
    );
    assert_eq!((status.number_ready, status.number_available, status.number_unavailable), (1, 1, 2));
    assert_eq!(status.updated_number_scheduled, 1);
}
