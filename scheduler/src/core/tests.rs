//! Scheduling cycles from pods and nodes to placements, without an API.

use std::collections::BTreeMap;

use super::cycle::nodes_to_find;
use super::*;
use crate::config::{Config, build_profiles};
use crate::plugins::{Handle, NoListers};
use crate::queue::BackOff;
use crate::testing::{NodeBuilder, PodBuilder, node, pod};

const NOW: Duration = Duration::from_secs(100);

fn core() -> Core {
    let handle = Handle::new(Arc::new(NoListers), None);
    let profiles = build_profiles(&Config::default(), &handle).expect("the defaults are valid");
    let queue = SchedulingQueue::new(&profiles, BackOff::default());
    Core::new(profiles, 0, queue)
}

fn with(nodes: impl IntoIterator<Item = NodeBuilder>) -> Core {
    let mut core = core();
    for node in nodes {
        core.on_node(None, &node.done(), NOW);
    }
    core
}

fn add(core: &mut Core, pod: PodBuilder) {
    core.on_pod(None, &pod.done(), NOW);
}

/// Schedules until the queue is empty; where everything went, and why not.
fn run(core: &mut Core) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut placed, mut failed) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let outcomes = core.schedule(NOW);
        if outcomes.is_empty() {
            return (placed, failed);
        }
        for outcome in outcomes {
            match outcome {
                Outcome::Placed { pod, node } => {
                    assert!(placed.insert(pod.info.name().to_owned(), node.to_string()).is_none(), "placed twice");
                }
                Outcome::Failed { pod, failure } => {
                    failed.insert(pod.info.name().to_owned(), failure.message);
                }
            }
        }
    }
}

fn big(name: &str) -> NodeBuilder {
    node(name).allocatable("4", "8Gi")
}

#[test]
fn equal_pods_spread_over_equal_nodes_and_fill_them() {
    let mut core = with((0..10).map(|i| big(&format!("n{i}"))));
    for i in 0..45 {
        add(&mut core, pod(&format!("p{i:02}")).requests("1", "1Gi"));
    }
    let (placed, failed) = run(&mut core);
    assert_eq!((placed.len(), failed.len()), (40, 5));
    let mut per_node: BTreeMap<&str, usize> = BTreeMap::new();
    for node in placed.values() {
        *per_node.entry(node).or_default() += 1;
    }
    assert!(per_node.values().all(|count| *count == 4), "{per_node:?}");
    for message in failed.values() {
        assert!(message.starts_with("0/10 nodes are available: 10 Insufficient cpu."), "{message}");
    }
}

#[test]
fn a_batch_places_like_single_cycles_do() {
    // the emptiest node first; equal scores are broken by chance, so one pod may go either way
    let nodes =
        || [node("a").allocatable("4", "4Gi"), node("b").allocatable("8", "8Gi"), node("c").allocatable("16", "16Gi")];
    let count = |same: bool| {
        let mut core = with(nodes());
        for i in 0..12 {
            let mut p = pod(&format!("p{i:02}")).requests("1", "1Gi");
            if !same {
                p = p.label("i", &i.to_string());
            }
            add(&mut core, p);
        }
        let (placed, failed) = run(&mut core);
        assert!(failed.is_empty());
        let mut per_node: BTreeMap<String, usize> = BTreeMap::new();
        for node in placed.into_values() {
            *per_node.entry(node).or_default() += 1;
        }
        per_node
    };
    let (batch, single) = (count(true), count(false));
    for node in ["a", "b", "c"] {
        assert!(batch[node].abs_diff(single[node]) <= 1, "{batch:?} {single:?}");
    }
}

#[test]
fn hard_spreading_holds_within_a_batch() {
    let zoned = |name: &str, zone: &str| big(name).label("zone", zone);
    let mut core = with([zoned("a", "1"), zoned("b", "1"), zoned("c", "2"), zoned("d", "3")]);
    for i in 0..9 {
        add(
            &mut core,
            pod(&format!("p{i}")).label("app", "x").spread(1, "zone", "DoNotSchedule", "x").requests("100m", "1Mi"),
        );
    }
    let (placed, failed) = run(&mut core);
    assert!(failed.is_empty(), "{failed:?}");
    let zone = |node: &String| match node.as_str() {
        "a" | "b" => 1,
        "c" => 2,
        _ => 3,
    };
    let mut per_zone = BTreeMap::new();
    for node in placed.values() {
        *per_zone.entry(zone(node)).or_insert(0) += 1;
    }
    assert_eq!(per_zone, BTreeMap::from([(1, 3), (2, 3), (3, 3)]));
}

#[test]
fn host_ports_hold_within_a_batch() {
    let mut core = with([big("a"), big("b")]);
    for i in 0..3 {
        add(&mut core, pod(&format!("p{i}")).host_port(80));
    }
    let (placed, failed) = run(&mut core);
    assert_eq!(placed.values().collect::<std::collections::BTreeSet<_>>().len(), 2);
    let message = failed.values().next().expect("the third has no node");
    assert!(message.contains("2 node(s) didn't have free ports for the requested pod ports"), "{message}");
}

#[test]
fn messages_count_reasons() {
    let mut core = with([
        node("small").allocatable("100m", "8Gi"),
        big("tainted").taint("k", "v", "NoSchedule"),
        big("cordoned").unschedulable(),
    ]);
    add(&mut core, pod("p").requests("1", "1Gi"));
    let (_, failed) = run(&mut core);
    assert!(
        failed["p"].starts_with("0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."),
        "{}",
        failed["p"]
    );
}

#[test]
fn no_nodes() {
    let mut core = core();
    add(&mut core, pod("p"));
    let outcomes = core.schedule(NOW);
    let Outcome::Failed { failure, .. } = &outcomes[0] else { panic!("placed on nothing") };
    assert_eq!((failure.reason, failure.message.as_str()), ("Unschedulable", "no nodes available to schedule pods"));
}

#[test]
fn pods_that_name_their_node() {
    let mut core = with([big("a"), big("b")]);
    add(&mut core, pod("p").node_affinity_name("b"));
    add(&mut core, pod("q").node_affinity_name("nope"));
    let (placed, failed) = run(&mut core);
    assert_eq!(placed["p"], "b");
    assert!(
        failed["q"].starts_with("0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."),
        "{}",
        failed["q"]
    );
}

#[test]
fn other_schedulers_pods_are_left_alone() {
    let mut core = with([big("a")]);
    add(&mut core, pod("p").scheduler("other"));
    assert!(core.schedule(NOW).is_empty());
    assert_eq!(core.queue.lengths().active, 0);
}

#[test]
fn assumed_pods_are_confirmed_moved_or_forgotten() {
    let mut core = with([big("a"), big("b")]);
    add(&mut core, pod("p").requests("3", "1Gi"));
    let (placed, _) = run(&mut core);
    let node = placed["p"].clone();
    assert!(core.is_assumed("p"));
    // the watch still shows it without a node: it must not be scheduled again
    add(&mut core, pod("p").requests("3", "1Gi"));
    assert!(core.schedule(NOW).is_empty());
    // the watch shows it on another node after all: the room follows
    let other = if node == "a" { "b" } else { "a" };
    add(&mut core, pod("p").requests("3", "1Gi").node(other));
    assert!(!core.is_assumed("p"));
    let room = |core: &Core, name: &str| core.snapshot.columns.requested_cpu[core.snapshot.slot(name).unwrap()];
    assert_eq!((room(&core, &node), room(&core, other)), (0, 3000));
    core.on_pod_deleted(&pod("p").node(other).done(), NOW);
    assert_eq!(room(&core, other), 0);
}

#[test]
fn a_failed_binding_frees_the_room_and_tries_again() {
    let mut core = with([big("a")]);
    add(&mut core, pod("p").requests("3", "1Gi"));
    let outcome = core.schedule(NOW).remove(0);
    let Outcome::Placed { pod: queued, .. } = outcome else { panic!("it fits") };
    core.binding_failed(queued.clone(), NOW);
    assert_eq!(core.snapshot.columns.requested_cpu[0], 0);
    assert!(core.schedule(NOW).is_empty(), "it backs off first");
    assert_eq!(core.schedule(NOW + Duration::from_secs(2)).len(), 1);
    // a failure reported after the pod was seen bound changes nothing
    add(&mut core, pod("p").requests("3", "1Gi").node("a"));
    core.binding_failed(queued, NOW);
    assert_eq!(core.snapshot.columns.requested_cpu[0], 3000);
    assert_eq!(core.queue.lengths(), crate::queue::Lengths::default());
}

#[test]
fn unconfirmed_pods_expire_only_when_told_to() {
    let mut core = with([big("a")]);
    core.set_assume_ttl(Some(Duration::from_secs(30)));
    add(&mut core, pod("p").requests("3", "1Gi"));
    run(&mut core);
    assert!(core.expire_assumed(NOW + Duration::from_secs(1000)).is_empty(), "binding has not ended");
    core.bound("p", NOW);
    assert!(core.expire_assumed(NOW + Duration::from_secs(29)).is_empty());
    assert_eq!(core.expire_assumed(NOW + Duration::from_secs(30)), ["p"]);
    assert_eq!(core.snapshot.columns.requested_cpu[0], 0);
}

#[test]
fn a_new_node_wakes_pods() {
    let mut core = with([node("small").allocatable("1", "1Gi")]);
    add(&mut core, pod("p").requests("3", "1Gi"));
    let (_, failed) = run(&mut core);
    assert_eq!(failed.len(), 1);
    core.on_node(None, &big("big").done(), NOW + Duration::from_secs(20));
    let outcomes = core.schedule(NOW + Duration::from_secs(20));
    assert!(matches!(&outcomes[0], Outcome::Placed { node, .. } if &**node == "big"));
}

#[test]
fn large_clusters_are_sampled() {
    for (percentage, count, expected) in [
        (0, 10, 10),
        (0, 99, 99),
        (0, 100, 100),
        (0, 1000, 420),
        (0, 5000, 500),
        (0, 6000, 300),
        (40, 1000, 400),
        (100, 1000, 1000),
        (5, 1000, 100),
    ] {
        assert_eq!(nodes_to_find(percentage, count), expected, "{percentage} of {count}");
    }
}
