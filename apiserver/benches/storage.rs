//! The store and the cache by themselves, without HTTP: durable writes by number of writers, lists
//! of 10,000 pods, and one change to 1,000 watchers.
//!
//! `cargo bench -p apiserver --bench storage`. The directory of the store is made under `TMPDIR`:
//! on a memory file system the writes measure no disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use apiserver::cache::{
    Cache, CreateOptions, Freshness, Item, ResourceCache, ResourceSpec, RingLimits, Scope, SelectableField, Start,
    WatchRequest,
};
use apiserver::storage::embedded::{Embedded, Options};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn open(sync: bool) -> (TempDir, Arc<ResourceCache>) {
    let directory = TempDir::new().expect("a temporary directory");
    let mut options = Options::new(directory.path());
    options.sync = sync;
    let storage = Arc::new(Embedded::open(options).expect("opens"));
    let mut spec = ResourceSpec::new("", "pods", "/registry/pods", true);
    spec.fields = vec![SelectableField::at_path("spec.nodeName").indexed()];
    (directory, Cache::new(storage, RingLimits::default()).register(spec))
}

/// A pod of about 3 KiB, as a Deployment makes them.
fn pod(name: &str) -> Value {
    let env: Vec<Value> = (0..20).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "x".repeat(40)})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("2b1c9d9e-0000-4000-8000-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                "uid": "7e0f3a52-0000-4000-8000-000000000000", "controller": true}],
        },
        "spec": {
            "nodeName": "node-1", "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "containers": [{"name": "web", "image": "nginx:1.27", "env": env,
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}],
        },
        "status": {"phase": "Running", "podIP": "10.244.1.17"},
    })
}

async fn create(pods: &ResourceCache, name: &str) {
    let key = format!("/registry/pods/default/{name}");
    pods.create(&key, pod(name), CreateOptions::default()).await.expect("creates");
}

fn writes(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("durable_creates");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(3));
    for writers in [1u64, 16, 64] {
        let (_directory, pods) = runtime.block_on(async { open(true) });
        let next = Arc::new(AtomicU64::new(0));
        group.bench_function(BenchmarkId::from_parameter(writers), |bencher| {
            bencher.iter_custom(|iterations| {
                let end = next.load(Ordering::Relaxed) + iterations;
                let start = Instant::now();
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..writers)
                        .map(|_| {
                            let (pods, next) = (pods.clone(), next.clone());
                            tokio::spawn(async move {
                                loop {
                                    let number = next.fetch_add(1, Ordering::Relaxed);
                                    if number >= end {
                                        break;
                                    }
                                    create(&pods, &number.to_string()).await;
                                }
                            })
                        })
                        .collect();
                    for task in tasks {
                        task.await.expect("writes");
                    }
                });
                let elapsed = start.elapsed();
                next.fetch_max(end + writers, Ordering::Relaxed);
                elapsed
            });
        });
    }
    group.finish();
}

fn lists(criterion: &mut Criterion) {
    let runtime = runtime();
    let (_directory, pods) = runtime.block_on(async {
        let (directory, pods) = open(false);
        let tasks: Vec<_> = (0..16)
            .map(|task| {
                let pods = pods.clone();
                tokio::spawn(async move {
                    for number in 0..625 {
                        create(&pods, &format!("{task:02}-{number:04}")).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("writes");
        }
        (directory, pods)
    });
    let concatenate = |snapshot: &apiserver::cache::Snapshot, limit: usize| {
        let mut body = Vec::with_capacity(64 << 10);
        for entry in snapshot.range(Some("default"), None).take(limit) {
            body.extend_from_slice(entry.json());
            body.push(b',');
        }
        body
    };
    let mut group = criterion.benchmark_group("list");
    for limit in [500, 10_000] {
        group.throughput(Throughput::Elements(limit as u64));
        group.bench_function(BenchmarkId::from_parameter(limit), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let snapshot = pods.snapshot(Freshness::Consistent).await.expect("reads");
                concatenate(&snapshot, limit)
            });
        });
    }
    group.bench_function("snapshot", |bencher| {
        bencher.to_async(&runtime).iter(|| pods.snapshot(Freshness::Consistent));
    });
    group.finish();
}

/// How long one change takes until the last of 1,000 watchers has its frame in hand.
fn fan_out(criterion: &mut Criterion) {
    const WATCHERS: u64 = 1000;
    let runtime = runtime();
    let (_directory, pods) = runtime.block_on(async { open(true) });
    let received = Arc::new(AtomicU64::new(0));
    let done = Arc::new(tokio::sync::Notify::new());
    runtime.block_on(async {
        for _ in 0..WATCHERS {
            let request = WatchRequest {
                scope: Scope::All,
                matcher: None,
                start: Start::Now(Freshness::Any),
                bookmarks: None,
                ends_in: None,
            };
            let mut watch = pods.watch(request).await.expect("watches");
            let (received, done) = (received.clone(), done.clone());
            tokio::spawn(async move {
                while let Ok(Item::Events(events)) = watch.next().await {
                    let frames = events.iter().map(|(kind, event)| event.json_frame(*kind));
                    let count = frames.filter(|frame| !frame.is_empty()).count() as u64;
                    let total = received.fetch_add(count, Ordering::AcqRel) + count;
                    if total.is_multiple_of(WATCHERS) {
                        done.notify_one();
                    }
                }
            });
        }
    });
    let next = AtomicU64::new(0);
    let mut group = criterion.benchmark_group("fan_out");
    group.throughput(Throughput::Elements(WATCHERS)).measurement_time(Duration::from_secs(3));
    group.bench_function(BenchmarkId::from_parameter(WATCHERS), |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            create(&pods, &next.fetch_add(1, Ordering::Relaxed).to_string()).await;
            done.notified().await;
        });
    });
    group.finish();
}

criterion_group!(benches, writes, lists, fan_out);
criterion_main!(benches);
