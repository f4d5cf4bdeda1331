//! Preemption through whole scheduling cycles; expectations are upstream's behaviour.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config::{Config, build_profiles};
use crate::core::{Core, Failure, Outcome};
use crate::objects::Selecting;
use crate::queue::{BackOff, SchedulingQueue};
use crate::testing::{NodeBuilder, PodBuilder, node, pod};

const NOW: Duration = Duration::from_secs(100);

struct Budgets(Vec<Arc<PodDisruptionBudget>>);

impl Listers for Budgets {
    fn services(&self, _: &str) -> Vec<Arc<Selecting>> {
        Vec::new()
    }
    fn owner(&self, _: &str, _: &str, _: &str) -> Option<Arc<Selecting>> {
        None
    }
    fn namespace_labels(&self, _: &str) -> Option<BTreeMap<String, String>> {
        None
    }
    fn disruption_budgets(&self, _: &str) -> Vec<Arc<PodDisruptionBudget>> {
        self.0.clone()
    }
}

fn core(nodes: &[NodeBuilder], placed: Vec<(&str, PodBuilder)>, budgets: Vec<serde_json::Value>) -> Core {
    let budgets = budgets.into_iter().map(|b| Arc::new(serde_json::from_value(b).unwrap())).collect();
    let handle = Handle::new(Arc::new(Budgets(budgets)), None);
    let profiles = build_profiles(&Config::default(), &handle).expect("the defaults are valid");
    let queue = SchedulingQueue::new(&profiles, BackOff::default());
    let mut core = Core::new(profiles, 0, queue);
    for node in nodes {
        core.on_node(None, &node.clone().done(), NOW);
    }
    for (node, pod) in placed {
        core.on_pod(None, &pod.node(node).done(), NOW);
    }
    core
}

fn preempt(core: &mut Core, pod: PodBuilder) -> (Failure, Vec<String>, String) {
    let before = format!("{:?}", core.snapshot.columns);
    core.on_pod(None, &pod.done(), NOW);
    let outcome = core.schedule(NOW).remove(0);
    let Outcome::Failed { failure, .. } = outcome else { panic!("it should not fit") };
    assert_eq!(before, format!("{:?}", core.snapshot.columns), "trying changed the snapshot");
    let result = failure.post_filter.clone().unwrap_or_default();
    let victims = result.victims.iter().map(|v| v.name().to_owned()).collect();
    (failure, victims, result.nominated_node.unwrap_or_default())
}

fn small(name: &str) -> NodeBuilder {
    node(name).allocatable("2", "8Gi")
}

fn low(name: &str, priority: i32) -> PodBuilder {
    pod(name).priority(priority).requests("1", "1Gi").start_time("2024-01-01T00:00:00Z")
}

fn high() -> PodBuilder {
    pod("high").priority(100).requests("1", "1Gi")
}

#[test]
fn the_least_important_pod_goes() {
    let placed = vec![("a", low("a1", 10)), ("a", low("a2", 5)), ("b", low("b1", 10)), ("b", low("b2", 10))];
    let mut core = core(&[small("a"), small("b")], placed, vec![]);
    let (failure, victims, node) = preempt(&mut core, high());
    assert_eq!((victims, node.as_str()), (vec!["a2".to_owned()], "a"));
    assert_eq!(failure.message, "0/2 nodes are available: 2 Insufficient cpu.");
}

#[test]
fn no_more_go_than_needed_and_the_younger_first() {
    let placed = vec![("a", low("old", 5)), ("a", low("young", 5).start_time("2024-06-01T00:00:00Z"))];
    let mut core = core(&[small("a")], placed, vec![]);
    assert_eq!(preempt(&mut core, high()).1, ["young"]);
}

#[test]
fn equal_priority_is_safe() {
    let placed = vec![("a", low("a1", 100)), ("a", low("a2", 100))];
    let mut core = core(&[small("a"), small("tainted").taint("k", "v", "NoSchedule")], placed, vec![]);
    let (failure, victims, node) = preempt(&mut core, high());
    assert!(victims.is_empty() && node.is_empty());
    assert_eq!(
        failure.message,
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn never_means_never() {
    let mut core = core(&[small("a")], vec![("a", low("a1", 1)), ("a", low("a2", 1))], vec![]);
    let (failure, victims, _) = preempt(&mut core, high().preemption_policy("Never"));
    assert!(victims.is_empty());
    assert!(
        failure.message.ends_with("preemption: not eligible due to preemptionPolicy=Never."),
        "{}",
        failure.message
    );
}

#[test]
fn a_pod_too_large_for_the_node_evicts_nobody() {
    let mut core = core(&[small("a")], vec![("a", low("a1", 1))], vec![]);
    let (failure, victims, _) = preempt(&mut core, high().requests("3", "1Gi"));
    assert!(victims.is_empty());
    assert!(
        failure.message.ends_with("preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
    );
}

#[test]
fn budgets_are_respected_where_possible() {
    let budget = json!({"metadata": {"name": "b", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "x"}}}, "status": {"disruptionsAllowed": 0}});
    let guarded = |name: &str| low(name, 1).label("app", "x");
    // node b holds more important pods, but without a budget
    let placed = vec![("a", guarded("a1")), ("a", guarded("a2")), ("b", low("b1", 50)), ("b", low("b2", 50))];
    let mut two = core(&[small("a"), small("b")], placed, vec![budget.clone()]);
    assert_eq!(preempt(&mut two, high()).2, "b");
    // where there is no other way they go
    let mut one = core(&[small("a")], vec![("a", guarded("a1")), ("a", guarded("a2"))], vec![budget]);
    assert_eq!(preempt(&mut one, high()).1.len(), 1);
}

#[test]
fn room_made_is_kept_for_the_pod() {
    let mut core = core(&[small("a")], vec![("a", low("a1", 1)), ("a", low("a2", 1))], vec![]);
    let (_, victims, node) = preempt(&mut core, high());
    assert_eq!(node, "a");
    let victim = low(&victims[0], 1).node("a").done();
    core.on_pod_deleted(&victim, NOW + Duration::from_secs(20));
    // a pod of lower priority that comes meanwhile does not take the place
    core.on_pod(None, &low("thief", 50).done(), NOW + Duration::from_secs(20));
    let mut placed = Vec::new();
    for _ in 0..2 {
        for outcome in core.schedule(NOW + Duration::from_secs(20)) {
            if let Outcome::Placed { pod, .. } = outcome {
                placed.push(pod.info.name().to_owned());
            }
        }
    }
    assert_eq!(placed, ["high"]);
}
