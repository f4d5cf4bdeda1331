//! Grants, waiting and restarts.

use std::sync::Arc;

use component_base::clock::RealClock;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;
use serde_json::json;

use super::*;

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Events for Heard {
    fn event(&self, object: &ObjectReference, _: &str, reason: &str, message: &str) {
        let name = object.name.clone().unwrap_or_default();
        self.0.lock().push(format!("{name} {reason} {message}"));
    }
}

fn node() -> NodeView {
    NodeView { name: "n".into(), cpu: 1000, memory: 1 << 30, storage: 1 << 30, pods: 10, ..Default::default() }
}

fn allocations(directory: &std::path::Path) -> (Allocations, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    (Allocations::load(directory, node(), heard.clone(), RealClock::shared()), heard)
}

fn pod(uid: &str, generation: i64, cpu: &str, priority: i32) -> Arc<Pod> {
    let value = json!({"metadata": {"name": uid, "uid": uid, "generation": generation}, "spec": {"priority": priority,
        "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn cpu(pod: &Pod) -> i64 {
    resources::pod_cpu_request(pod)
}

fn reasons(allocations: &Allocations, uid: &str) -> Vec<(String, Option<String>)> {
    allocations.conditions(uid).into_iter().map(|c| (c.type_, c.reason)).collect()
}

#[test]
fn a_resize_that_fits_is_granted_and_one_that_does_not_waits() {
    let directory = tempfile::tempdir().unwrap();
    let (allocations, heard) = allocations(directory.path());
    for uid in ["a", "b"] {
        allocations.admit(&pod(uid, 1, "400m", 0)).unwrap();
    }
    assert_eq!(allocations.admit(&pod("c", 1, "400m", 0)).unwrap_err().reason, "OutOfcpu");
    assert_eq!(cpu(&allocations.resolve(&pod("a", 2, "600m", 0))), 600);
    assert_eq!(reasons(&allocations, "a"), [(IN_PROGRESS.to_owned(), None)]);
    assert_eq!(cpu(&allocations.resolve(&pod("b", 2, "500m", 0))), 400);
    assert_eq!(reasons(&allocations, "b"), [(PENDING.to_owned(), Some("Deferred".to_owned()))]);
    // Asking for what one has ends the waiting.
    allocations.resolve(&pod("b", 3, "0.4", 0));
    assert_eq!(reasons(&allocations, "b"), []);
    allocations.progressed(&pod("a", 2, "600m", 0), false);
    let heard = heard.0.lock();
    assert_eq!(
        heard[0],
        r#"a ResizeStarted Pod resize started: {"containers":[{"name":"c","resources":{"requests":{"cpu":"600m"}}}],"generation":2}"#
    );
    assert!(heard[1].starts_with("b ResizeDeferred Pod resize Deferred: "));
    assert!(heard[2].starts_with("a ResizeCompleted Pod resize completed: "));
}

#[test]
fn what_one_gives_back_goes_to_the_highest_priority_first() {
    let directory = tempfile::tempdir().unwrap();
    let (allocations, _) = allocations(directory.path());
    let poked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = poked.clone();
    allocations.on_grant(move |uid| heard.lock().push(uid.to_owned()));
    for (uid, priority) in [("low", 0), ("high", 10), ("big", 0)] {
        allocations.admit(&pod(uid, 1, "300m", priority)).unwrap();
    }
    allocations.resolve(&pod("low", 2, "600m", 0));
    allocations.resolve(&pod("high", 2, "600m", 10));
    allocations.release("big");
    assert_eq!(*poked.lock(), ["high"]);
    assert_eq!(reasons(&allocations, "low").len(), 1);
}

#[test]
fn grants_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (first, _) = allocations(directory.path());
    first.admit(&pod("a", 1, "400m", 0)).unwrap();
    first.admit(&pod("b", 1, "500m", 0)).unwrap();
    let size = serde_json::from_value::<ResourceRequirements>(json!({"requests": {"cpu": "300m"}})).unwrap();
    first.set_actuated("a", "c", size.clone());
    let (second, _) = allocations(directory.path());
    // Twice what there is, had it not been granted before.
    second.admit(&pod("a", 2, "5", 0)).unwrap();
    assert_eq!(cpu(&second.resolve(&pod("a", 2, "5", 0))), 400);
    assert_eq!(second.actuated("a").get("c"), Some(&size));
    second.retain(|_| false);
    second.admit(&pod("c", 1, "600m", 0)).unwrap();
}
