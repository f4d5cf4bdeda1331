//! The scheduling core by itself, without an API: pods onto nodes per second.
//!
//! The budget (no API): 10,000 plain pods a second, 2,000 with affinity or spreading on 5,000 nodes.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use scheduler::config::{Config, build_profiles};
use scheduler::core::{Core, Outcome};
use scheduler::objects::{Node, Pod};
use scheduler::plugins::{Handle, NoListers};
use scheduler::queue::{BackOff, SchedulingQueue};
use scheduler::testing::{PodBuilder, node, pod};

const NOW: Duration = Duration::from_secs(1);
const ZONE: &str = "topology.kubernetes.io/zone";

fn nodes(count: usize) -> Vec<Arc<Node>> {
    (0..count)
        .map(|i| {
            node(&format!("node-{i:05}")).allocatable("32", "128Gi").label(ZONE, &format!("zone-{}", i % 3)).done()
        })
        .collect()
}

fn pods(count: usize, shape: impl Fn(PodBuilder) -> PodBuilder) -> Vec<Arc<Pod>> {
    (0..count)
        .map(|i| shape(pod(&format!("pod-{i:05}")).label("app", "web").requests("100m", "128Mi")).done())
        .collect()
}

/// A core that knows the nodes and has the pods in its queue.
fn filled(nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Core {
    let handle = Handle::new(Arc::new(NoListers), None);
    let profiles = build_profiles(&Config::default(), &handle).expect("the defaults are valid");
    let queue = SchedulingQueue::new(&profiles, BackOff::default());
    let mut core = Core::new(profiles, 0, queue);
    for node in nodes {
        core.on_node(None, node, NOW);
    }
    for pod in pods {
        core.on_pod(None, pod, NOW);
    }
    core
}

fn schedule_all(core: &mut Core, expected: usize) {
    let mut placed = 0;
    loop {
        let outcomes = core.schedule(NOW);
        if outcomes.is_empty() {
            break;
        }
        placed += outcomes.iter().filter(|o| matches!(o, Outcome::Placed { .. })).count();
    }
    assert_eq!(placed, expected);
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("schedule");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    let mut case = |name: &str, node_count: usize, pods: Vec<Arc<Pod>>| {
        let nodes = nodes(node_count);
        group.throughput(Throughput::Elements(pods.len() as u64));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || filled(&nodes, &pods),
                |core| schedule_all(core, pods.len()),
                BatchSize::PerIteration,
            );
        });
    };
    case("1000 equal pods on 100 nodes", 100, pods(1000, |p| p));
    case("10000 equal pods on 5000 nodes", 5000, pods(10_000, |p| p));
    let mut i = 0;
    let all_different: Vec<_> = pods(2000, |p| p)
        .into_iter()
        .map(|p| {
            i += 1;
            let mut p = (*p).clone();
            p.metadata.labels.insert("i".to_owned(), i.to_string());
            Arc::new(p)
        })
        .collect();
    case("2000 different pods on 5000 nodes", 5000, all_different);
    case(
        "1000 pods spread hard over zones on 5000 nodes",
        5000,
        pods(1000, |p| p.spread(1, ZONE, "DoNotSchedule", "web")),
    );
    case(
        "1000 pods spread softly over hosts on 5000 nodes",
        5000,
        pods(1000, |p| p.spread(1, "kubernetes.io/hostname", "ScheduleAnyway", "web")),
    );
    case(
        "1000 pods with anti-affinity by host on 5000 nodes",
        5000,
        pods(1000, |p| p.anti_affinity("app", "web", "kubernetes.io/hostname")),
    );
    case(
        "1000 pods preferring each other's zone on 5000 nodes",
        5000,
        pods(1000, |p| p.preferred_affinity(10, "app", "web", ZONE)),
    );
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
