//! What the queue promises.

use super::*;
use crate::config::build_profiles;
use crate::plugins::{Handle, NoListers, node_resources_fit, taint_toleration};
use crate::testing::{node, pod};

fn queue() -> SchedulingQueue {
    let handle = Handle::new(Arc::new(NoListers), None);
    let profiles = build_profiles(&crate::config::Config::default(), &handle).expect("the defaults are valid");
    SchedulingQueue::new(&profiles, BackOff::default())
}

const S: fn(u64) -> Duration = Duration::from_secs;

fn refused_by(plugin: &'static str) -> Diagnosis {
    Diagnosis { unschedulable_plugins: BTreeSet::from([plugin]), ..Diagnosis::default() }
}

fn names(batch: &[QueuedPod]) -> Vec<&str> {
    batch.iter().map(|pod| pod.info.name()).collect()
}

#[test]
fn priority_first_then_age_and_equal_pods_together() {
    let mut q = queue();
    q.add_or_update(None, pod("a").info(), S(1));
    q.add_or_update(None, pod("b").info(), S(2));
    q.add_or_update(None, pod("other").label("x", "y").info(), S(3));
    q.add_or_update(None, pod("c").info(), S(4));
    q.add_or_update(None, pod("high").priority(5).info(), S(5));
    assert_eq!(names(&q.pop_batch(10, S(6))), ["high"]);
    // strictly in order: `c` does not overtake `other`
    assert_eq!(names(&q.pop_batch(10, S(6))), ["a", "b"]);
    assert_eq!(names(&q.pop_batch(10, S(6))), ["other"]);
    assert_eq!(names(&q.pop_batch(10, S(6))), ["c"]);
    assert!(q.pop_batch(10, S(6)).is_empty());
}

#[test]
fn removal_from_every_place() {
    let mut q = queue();
    for name in ["active", "unschedulable", "backing-off"] {
        q.add_or_update(None, pod(name).label("n", name).info(), S(1));
    }
    q.add_or_update(None, pod("gated").gate("g").info(), S(1));
    let _active = q.pop_batch(1, S(1));
    let unschedulable = q.pop_batch(1, S(1)).remove(0);
    let backing_off = q.pop_batch(1, S(1)).remove(0);
    q.add_unschedulable(unschedulable, &refused_by(node_resources_fit::NAME), S(1));
    q.retry_after_error(backing_off, S(1));
    q.add_or_update(None, pod("active").info(), S(1));
    assert_eq!(q.lengths(), Lengths { active: 1, backoff: 1, unschedulable: 1, gated: 1 });
    for name in ["active", "unschedulable", "backing-off", "gated", "unknown"] {
        q.remove(name);
    }
    assert_eq!(q.lengths(), Lengths::default());
    assert!(q.places.is_empty());
}

#[test]
fn only_a_change_that_helps_wakes_a_pod() {
    let mut q = queue();
    q.add_or_update(None, pod("p").requests("4", "1Gi").info(), S(0));
    let p = q.pop_batch(1, S(0)).remove(0);
    q.add_unschedulable(p, &refused_by(node_resources_fit::NAME), S(0));
    let add = |cpu: &str| ClusterEvent::node(EventKind::NodeAdd, None, Some(node("n").allocatable(cpu, "8Gi").done()));
    q.on_event(&add("2"), S(20));
    assert_eq!(q.lengths().unschedulable, 1, "the node is too small");
    q.on_event(&ClusterEvent::of(EventKind::NamespaceUpdate), S(20));
    assert_eq!(q.lengths().unschedulable, 1);
    q.on_event(&add("4"), S(20));
    assert_eq!(q.lengths().active, 1);
}

#[test]
fn back_off_doubles_and_is_kept_after_a_change() {
    let mut q = queue();
    q.add_or_update(None, pod("p").info(), S(0));
    let deleted = ClusterEvent::pod(EventKind::AssignedPodDelete, Some(pod("x").node("n").info()), None);
    let mut now = S(0);
    for expected in [1, 2, 4, 8, 10, 10] {
        let p = q.pop_batch(1, now).remove(0);
        q.add_unschedulable(p, &refused_by(node_resources_fit::NAME), now);
        q.on_event(&deleted, now);
        assert_eq!(q.next_wake_up(), Some(now + S(expected)));
        now += S(expected);
        q.flush(now);
        assert_eq!(q.lengths().active, 1);
    }
}

#[test]
fn an_idle_scheduler_does_not_wait_for_back_off_but_for_errors() {
    let mut q = queue();
    q.add_or_update(None, pod("p").info(), S(0));
    let p = q.pop_batch(1, S(0)).remove(0);
    q.add_unschedulable(p, &refused_by(node_resources_fit::NAME), S(0));
    q.on_event(&ClusterEvent::of(EventKind::WildCard), S(0));
    assert_eq!(q.lengths().backoff, 1);
    let p = q.pop_batch(1, S(0)).remove(0);
    q.retry_after_error(p, S(0));
    assert!(!q.has_work(S(0)));
    assert!(q.has_work(S(2)));
}

#[test]
fn nothing_waits_for_ever() {
    let mut q = queue();
    q.add_or_update(None, pod("p").info(), S(0));
    let p = q.pop_batch(1, S(0)).remove(0);
    q.add_unschedulable(p, &refused_by(taint_toleration::NAME), S(0));
    assert_eq!(q.next_wake_up(), Some(MAX_IN_UNSCHEDULABLE));
    q.flush(MAX_IN_UNSCHEDULABLE);
    assert_eq!(q.lengths().active, 1);
}

#[test]
fn gates_open() {
    let mut q = queue();
    let gated = pod("p").gate("g").info();
    q.add_or_update(None, gated.clone(), S(0));
    assert!(!q.has_work(S(100)));
    q.add_or_update(Some(gated), pod("p").info(), S(1));
    assert_eq!(q.lengths(), Lengths { active: 1, ..Lengths::default() });
}

#[test]
fn a_status_update_does_not_wake_a_pod_but_a_toleration_does() {
    let mut q = queue();
    let before = pod("p").info();
    q.add_or_update(None, before.clone(), S(0));
    let p = q.pop_batch(1, S(0)).remove(0);
    q.add_unschedulable(p, &refused_by(taint_toleration::NAME), S(0));
    q.add_or_update(Some(before.clone()), pod("p").nominated("n").info(), S(20));
    assert_eq!(q.lengths().unschedulable, 1);
    q.add_or_update(Some(before), pod("p").toleration("k", "v", "").info(), S(20));
    assert_eq!(q.lengths().active, 1);
}
