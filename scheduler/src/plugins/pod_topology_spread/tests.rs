//! The expectations are upstream's (`podtopologyspread/filtering_test.go`, `scoring_test.go`).

use super::*;
use crate::plugins::NoListers;
use crate::testing::{NodeBuilder, PodBuilder, node, pod};

fn plugin() -> Plugin {
    new(&Value::Null, &Handle::new(Arc::new(NoListers), None)).unwrap()
}

fn cluster(nodes: &[NodeBuilder], pods: &[(&str, PodBuilder)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(node.clone().done());
    }
    for (i, (node, pod)) in pods.iter().enumerate() {
        snapshot.add_pod(pod.clone().uid(&format!("existing-{i}")).info(), node);
    }
    snapshot.order();
    snapshot
}

fn zones() -> Vec<NodeBuilder> {
    [("a", "z1"), ("b", "z1"), ("x", "z2"), ("y", "z2")]
        .iter()
        .map(|(name, zone)| node(name).label("zone", zone).label("node", name))
        .collect()
}

fn foo(on: &'static str) -> (&'static str, PodBuilder) {
    (on, pod("p").label("app", "foo"))
}

#[track_caller]
fn fits(incoming: PodBuilder, snapshot: &Snapshot, expected: &[(&str, bool)]) {
    let plugin = plugin();
    let incoming = incoming.info();
    let mut state = CycleState::default();
    let pre = plugin.pre_filter.unwrap().pre_filter(&mut state, &incoming, snapshot);
    let filter = plugin.filter.unwrap();
    for (name, ok) in expected {
        let slot = snapshot.slot(name).unwrap();
        let verdict = if pre.is_ok() { filter.filter(&state, &incoming, slot, snapshot) } else { Ok(()) };
        assert_eq!(verdict.is_ok(), *ok, "{name}: {verdict:?}");
    }
}

#[test]
fn zones_even_out() {
    let incoming = || pod("p").label("app", "foo").spread(1, "zone", DO_NOT_SCHEDULE, "foo");
    // no pods: everywhere
    fits(incoming(), &cluster(&zones(), &[]), &[("a", true), ("b", true), ("x", true), ("y", true)]);
    // 1/0: only the empty zone
    fits(incoming(), &cluster(&zones(), &[foo("a")]), &[("a", false), ("b", false), ("x", true), ("y", true)]);
    // 2/1: the smaller zone
    let snapshot = cluster(&zones(), &[foo("a"), foo("b"), foo("x")]);
    fits(incoming(), &snapshot, &[("a", false), ("b", false), ("x", true), ("y", true)]);
    // 1/1: both
    fits(incoming(), &cluster(&zones(), &[foo("a"), foo("x")]), &[("a", true), ("x", true)]);
    // pods of other namespaces, terminating pods and other labels do not count
    let others = [
        ("a", pod("o").label("app", "foo").namespace("other")),
        ("a", pod("t").label("app", "foo").terminating()),
        ("a", pod("l").label("app", "bar")),
    ];
    fits(incoming(), &cluster(&zones(), &others), &[("a", true), ("x", true)]);
}

#[test]
fn a_pod_that_does_not_match_itself() {
    // the incoming pod does not count, so even 1/0 fits everywhere
    let incoming = pod("p").label("app", "bar").spread(1, "zone", DO_NOT_SCHEDULE, "foo");
    fits(incoming, &cluster(&zones(), &[foo("a")]), &[("a", true), ("x", true)]);
}

#[test]
fn nodes_without_the_label() {
    let mut nodes = zones();
    nodes[1] = node("b").label("node", "b");
    let snapshot = cluster(&nodes, &[foo("a"), foo("x")]);
    let incoming = pod("p").label("app", "foo").spread(1, "zone", DO_NOT_SCHEDULE, "foo").info();
    let plugin = plugin();
    let mut state = CycleState::default();
    plugin.pre_filter.unwrap().pre_filter(&mut state, &incoming, &snapshot).unwrap();
    let verdict = plugin.filter.unwrap().filter(&state, &incoming, snapshot.slot("b").unwrap(), &snapshot);
    assert_eq!(verdict, Err(Status::unresolvable(REASON_LABEL)));
}

#[test]
fn two_constraints_must_both_hold() {
    let incoming = pod("p").label("app", "foo").spread(1, "zone", DO_NOT_SCHEDULE, "foo").spread(
        1,
        "node",
        DO_NOT_SCHEDULE,
        "foo",
    );
    // zones 3/3, nodes 2/1/0/3: only y has less than the fullest, and x is the emptiest
    let pods = [foo("a"), foo("a"), foo("b"), foo("y"), foo("y"), foo("y")];
    fits(incoming, &cluster(&zones(), &pods), &[("a", false), ("b", false), ("x", true), ("y", false)]);
}

#[test]
fn min_domains() {
    let constraint = |min: i32| {
        json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": min,
               "labelSelector": {"matchLabels": {"app": "foo"}}})
    };
    let snapshot = cluster(&zones(), &[foo("a"), foo("x")]);
    // two zones with one pod each: a third domain is missing, so the minimum is 0
    fits(pod("p").label("app", "foo").spread_with(constraint(3)), &snapshot, &[("a", false), ("x", false)]);
    fits(pod("p").label("app", "foo").spread_with(constraint(2)), &snapshot, &[("a", true), ("x", true)]);
}

#[test]
fn inclusion_policies() {
    let constraint = |affinity: &str, taints: &str| {
        json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
               "nodeAffinityPolicy": affinity, "nodeTaintsPolicy": taints,
               "labelSelector": {"matchLabels": {"app": "foo"}}})
    };
    let mut nodes = zones();
    nodes[2] = nodes[2].clone().taint("k", "v", "NoSchedule");
    nodes[3] = nodes[3].clone().taint("k", "v", "NoSchedule");
    let snapshot = cluster(&nodes, &[foo("a")]);
    // zone z2 is empty, but out of reach: it counts only when taints are ignored
    fits(pod("p").label("app", "foo").spread_with(constraint("Honor", "Ignore")), &snapshot, &[("a", false)]);
    fits(pod("p").label("app", "foo").spread_with(constraint("Honor", "Honor")), &snapshot, &[("a", true)]);
    let plain = cluster(&zones(), &[foo("a")]);
    let selecting = || pod("p").label("app", "foo").node_selector("zone", "z1");
    fits(selecting().spread_with(constraint("Honor", "Ignore")), &plain, &[("a", true)]);
    fits(selecting().spread_with(constraint("Ignore", "Ignore")), &plain, &[("a", false)]);
}

#[test]
fn match_label_keys_narrow_the_selector() {
    let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "matchLabelKeys": ["rev"], "labelSelector": {"matchLabels": {"app": "foo"}}});
    let old = ("a", pod("p").label("app", "foo").label("rev", "1"));
    let incoming = pod("p").label("app", "foo").label("rev", "2").spread_with(constraint);
    fits(incoming, &cluster(&zones(), &[old]), &[("a", true), ("x", true)]);
}

#[test]
fn placements_are_followed() {
    let snapshot = cluster(&zones(), &[]);
    let incoming = pod("p").label("app", "foo").spread(1, "zone", DO_NOT_SCHEDULE, "foo").info();
    let plugin = plugin();
    let (pre, filter) = (plugin.pre_filter.unwrap(), plugin.filter.unwrap());
    let mut state = CycleState::default();
    pre.pre_filter(&mut state, &incoming, &snapshot).unwrap();
    let a = snapshot.slot("a").unwrap();
    assert!(filter.filter(&state, &incoming, a, &snapshot).is_ok());
    pre.add_pod(&mut state, &incoming, &incoming, a, &snapshot);
    assert!(filter.filter(&state, &incoming, a, &snapshot).is_err());
    pre.remove_pod(&mut state, &incoming, &incoming, a, &snapshot);
    assert!(filter.filter(&state, &incoming, a, &snapshot).is_ok());
}

fn scores(incoming: PodBuilder, snapshot: &Snapshot, nodes: &[&str]) -> Vec<i64> {
    let plugin = plugin();
    let incoming = incoming.info();
    let mut state = CycleState::default();
    let slots: Vec<Slot> = nodes.iter().map(|n| snapshot.slot(n).unwrap()).collect();
    plugin.pre_score.unwrap().pre_score(&mut state, &incoming, &slots, snapshot).unwrap();
    let score = plugin.score.unwrap();
    let mut scores: Vec<i64> = slots.iter().map(|s| score.score(&state, &incoming, *s, snapshot)).collect();
    score.normalize(&state, &incoming, &slots, &mut scores, snapshot);
    scores
}

#[test]
fn scoring_by_host() {
    let nodes = ["a", "b", "c", "d"].map(node);
    let incoming = || pod("p").label("app", "foo").spread(1, HOSTNAME, SCHEDULE_ANYWAY, "foo");
    // upstream: "one constraint on node, all 4 nodes are candidates", matching pods 2/1/0/3
    let pods = [foo("a"), foo("a"), foo("b"), foo("d"), foo("d"), foo("d")];
    assert_eq!(scores(incoming(), &cluster(&nodes, &pods), &["a", "b", "c", "d"]), [20, 60, 100, 0]);
    // upstream: "no existing pods"
    assert_eq!(scores(incoming(), &cluster(&nodes, &[]), &["a", "b"]), [100, 100]);
}

#[test]
fn scoring_by_zone() {
    // upstream: "one constraint on zone, all 4 nodes are candidates", matching pods 2/4 per zone
    let incoming = pod("p").label("app", "foo").spread(1, "zone", SCHEDULE_ANYWAY, "foo");
    let pods = [foo("a"), foo("b"), foo("x"), foo("x"), foo("y"), foo("y")];
    let got = scores(incoming, &cluster(&zones(), &pods), &["a", "b", "x", "y"]);
    assert_eq!(got[0], got[1]);
    assert_eq!(got[2], got[3]);
    assert!(got[0] == 100 && got[2] < 100, "{got:?}");
}

#[test]
fn nodes_lacking_a_label_score_nothing() {
    let mut nodes = zones();
    nodes[3] = node("y");
    let incoming = pod("p").label("app", "foo").spread(1, "zone", SCHEDULE_ANYWAY, "foo");
    assert_eq!(scores(incoming, &cluster(&nodes, &[]), &["a", "y"]), [100, 0]);
}

struct OneOwner;

impl Listers for OneOwner {
    fn services(&self, _: &str) -> Vec<Arc<crate::objects::Selecting>> {
        vec![Arc::new(serde_json::from_value(json!({"spec": {"selector": {"app": "foo"}}})).unwrap())]
    }
    fn owner(&self, _: &str, _: &str, name: &str) -> Option<Arc<crate::objects::Selecting>> {
        (name == "rs").then(|| {
            Arc::new(serde_json::from_value(json!({"spec": {"selector": {"matchLabels": {"rev": "1"}}}})).unwrap())
        })
    }
    fn namespace_labels(&self, _: &str) -> Option<BTreeMap<String, String>> {
        None
    }
    fn disruption_budgets(&self, _: &str) -> Vec<Arc<crate::objects::PodDisruptionBudget>> {
        Vec::new()
    }
}

#[test]
fn default_constraints_come_from_services_and_owners() {
    let of = |pod: PodBuilder| default_selector(&pod.info(), &OneOwner);
    assert!(of(pod("p").label("app", "bar")).is_empty());
    assert!(!of(pod("p").label("app", "foo")).is_empty());
    let both = of(pod("p").label("app", "foo").label("rev", "1").owner("apps/v1", "ReplicaSet", "rs"));
    let labels =
        |app: &str, rev: &str| BTreeMap::from([("app".to_owned(), app.to_owned()), ("rev".to_owned(), rev.to_owned())]);
    assert!(both.matches(&labels("foo", "1")));
    assert!(!both.matches(&labels("foo", "2")) && !both.matches(&labels("bar", "1")));
    // a pod of nobody gets no default constraints
    let plugin = plugin();
    let verdict =
        plugin.pre_score.unwrap().pre_score(&mut CycleState::default(), &pod("p").info(), &[], &Snapshot::default());
    assert_eq!(verdict, Err(Status::skip()));
}
