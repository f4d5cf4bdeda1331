//! Whole lives of pods over the fake runtime, with the kubelet restarted and the runtime failing at
//! every step.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use component_base::clock::RealClock;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::testing::{FakeApi, allocations, settings};
use super::*;
use crate::api::NoEvents;
use crate::cgroup::Unmanaged;
use crate::cri::Runtime;
use crate::cri::fake::FakeRuntime;

struct Rig {
    fake: FakeRuntime,
    api: Arc<FakeApi>,
    directory: tempfile::TempDir,
    workers: Workers,
    shutdown: CancellationToken,
}

fn kubelet(fake: &FakeRuntime, api: &Arc<FakeApi>, directory: &std::path::Path) -> (Workers, CancellationToken) {
    // Tokio's clock stands still in these tests and jumps to the next timer when all wait.
    let clock = RealClock::shared();
    let cri: Arc<dyn Runtime> = Arc::new(fake.clone());
    let settings = Arc::new(settings(directory));
    let statuses = status::Manager::new(api.clone(), clock.clone());
    let events = Arc::new(NoEvents);
    let probes = Arc::new(probe::Manager::new(cri.clone(), statuses.clone(), events.clone(), clock.clone()));
    let cgroups = Arc::new(Unmanaged);
    let allocations = Arc::new(allocations(directory));
    let manager = runtime::Manager::new(
        cri,
        "fake".into(),
        settings.clone(),
        api.clone(),
        events.clone(),
        clock.clone(),
        cgroups.clone(),
        allocations.clone(),
    );
    let parts = Parts {
        volumes: Arc::new(volume::Volumes::new(settings.clone(), api.clone(), events.clone(), clock.clone())),
        settings,
        runtime: Arc::new(manager),
        statuses,
        probes,
        cgroups,
        allocations,
        api: api.clone(),
        events,
        clock,
        network_ready: AtomicBool::new(true),
        sources_changed: Default::default(),
    };
    let shutdown = CancellationToken::new();
    (Workers::new(Arc::new(parts), shutdown.clone()), shutdown)
}

impl Rig {
    fn new() -> Self {
        let fake = FakeRuntime::with_images(&["i:latest"]);
        let api = Arc::new(FakeApi::default());
        let directory = tempfile::tempdir().unwrap();
        let (workers, shutdown) = kubelet(&fake, &api, directory.path());
        Self { fake, api, directory, workers, shutdown }
    }

    /// Stops the kubelet without a word and starts another one over the same runtime, disk and API.
    fn restart(&mut self, pod: Option<&Pod>) {
        self.shutdown.cancel();
        (self.workers, self.shutdown) = kubelet(&self.fake, &self.api, self.directory.path());
        if let Some(pod) = pod {
            self.workers.update(Arc::new(self.shown(pod)), None);
        }
    }

    /// The pod with the status that the API has by now.
    fn shown(&self, pod: &Pod) -> Pod {
        let mut value = serde_json::to_value(pod).unwrap();
        for patch in self.api.patches.lock().iter() {
            for (field, new) in patch["status"].as_object().unwrap() {
                if !field.starts_with('$') && field != "conditions" {
                    value["status"][field] = new.clone();
                }
            }
        }
        serde_json::from_value(value).unwrap()
    }

    /// Waits until something holds.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(600), waiting).await;
        assert!(waited.is_ok(), "{what}: calls {:?}, patches {:?}", self.fake.calls(), self.api.patches.lock().last());
    }

    fn phase(&self) -> String {
        let patches = self.api.patches.lock();
        let last = patches.iter().rev().find_map(|p| p["status"]["phase"].as_str());
        last.unwrap_or_default().to_owned()
    }
}

fn pod(policy: &str, more: Value) -> Pod {
    let mut value = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 30, "containers": [{"name": "a", "image": "i"}]}});
    for (key, field) in more.as_object().unwrap() {
        value["spec"][key] = field.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn deleted(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    pod.metadata.deletion_grace_period_seconds = Some(5);
    pod
}

#[tokio::test(start_paused = true)]
async fn a_pod_lives_and_is_deleted() {
    let rig = Rig::new();
    let pod = pod("Always", json!({"initContainers": [{"name": "i", "image": "i"}]}));
    rig.workers.update(Arc::new(pod.clone()), None);
    rig.until("init container runs", |r| r.fake.running() == ["i"]).await;
    rig.fake.exit("i", 0);
    rig.workers.poke("u");
    rig.until("the pod runs", |r| r.fake.running() == ["a"] && r.phase() == "Running").await;
    rig.fake.clear_calls();
    rig.workers.update(Arc::new(deleted(&pod)), None);
    rig.until("the API object is deleted", |r| *r.api.deleted.lock() == ["p"]).await;
    assert!(rig.fake.calls().contains(&"StopContainer a 5".to_owned()));
    assert_eq!(rig.phase(), "Failed");
    rig.workers.remove("u");
    rig.until("nothing is left", |r| r.fake.sandboxes() == (0, 0) && !r.workers.knows("u")).await;
    assert!(!rig.directory.path().join("kubelet/pods/u").exists());
}

#[tokio::test(start_paused = true)]
async fn a_finished_pod_is_reported_once_it_has_stopped() {
    let rig = Rig::new();
    rig.workers.update(Arc::new(pod("Never", json!({}))), None);
    rig.until("the pod runs", |r| r.phase() == "Running").await;
    rig.fake.exit("a", 0);
    rig.workers.poke("u");
    rig.until("the pod succeeded", |r| r.phase() == "Succeeded").await;
    assert_eq!(rig.fake.sandboxes(), (1, 0));
    assert!(rig.api.deleted.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restarted_kubelet_disturbs_nothing() {
    let mut rig = Rig::new();
    let pod = pod("Always", json!({}));
    rig.workers.update(Arc::new(pod.clone()), None);
    rig.until("the pod runs", |r| r.phase() == "Running").await;
    rig.fake.clear_calls();
    rig.restart(Some(&pod));
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert_eq!(rig.fake.calls(), Vec::<String>::new());
    assert_eq!(rig.fake.running(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_restarted_after_any_step_ends_in_the_same_state() {
    let steps = ["RunPodSandbox", "CreateContainer", "StartContainer"];
    for step in steps {
        let mut rig = Rig::new();
        let pod = pod("Always", json!({}));
        // The step fails for as long as the first kubelet lives.
        for _ in 0..50 {
            rig.fake.fail_next(step, "not now");
        }
        rig.workers.update(Arc::new(pod.clone()), None);
        rig.until(step, |r| r.fake.calls().iter().any(|call| call.starts_with(step))).await;
        rig.restart(Some(&pod));
        rig.until("the pod runs", |r| r.phase() == "Running").await;
        assert_eq!(rig.fake.running(), ["a"], "{step}");
        assert_eq!(rig.fake.sandboxes().1, 1, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_restarted_while_stopping_finishes_the_stop() {
    let mut rig = Rig::new();
    let pod = pod("Always", json!({}));
    rig.workers.update(Arc::new(pod.clone()), None);
    rig.until("the pod runs", |r| r.phase() == "Running").await;
    for _ in 0..20 {
        rig.fake.fail_next("StopContainer", "not now");
    }
    rig.workers.update(Arc::new(deleted(&pod)), None);
    rig.until("a stop was tried", |r| r.fake.calls().iter().any(|c| c.starts_with("StopContainer"))).await;
    rig.restart(Some(&deleted(&pod)));
    rig.until("the API object is deleted", |r| *r.api.deleted.lock() == ["p"]).await;
    assert_eq!(rig.fake.running(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn pods_that_nobody_wants_are_removed() {
    let mut rig = Rig::new();
    rig.workers.update(Arc::new(pod("Always", json!({}))), None);
    rig.until("the pod runs", |r| r.phase() == "Running").await;
    rig.restart(None);
    rig.workers.adopt_orphan("u");
    rig.until("nothing is left", |r| r.fake.sandboxes() == (0, 0) && !r.workers.knows("u")).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_slow_to_start_has_all_of_its_periods() {
    let rig = Rig::new();
    rig.fake.set_exec_exit_code(1);
    let probe = json!({"exec": {"command": ["up"]}, "periodSeconds": 10, "failureThreshold": 3});
    let container = json!([{"name": "a", "image": "i", "startupProbe": probe}]);
    let began = tokio::time::Instant::now();
    rig.workers.update(Arc::new(pod("Always", json!({"containers": container}))), None);
    let looks = |r: &Rig| r.fake.calls().iter().filter(|call| call.as_str() == "ExecSync up").count();
    rig.until("the first look", |r| looks(r) > 0).await;
    // Whatever happens to the pod meanwhile is no reason to look again.
    while began.elapsed() < Duration::from_secs(19) {
        rig.workers.poke("u");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(looks(&rig) <= 2, "{} looks", looks(&rig));
    assert_eq!(rig.fake.running(), ["a"]);
    rig.until("the container is stopped", |r| r.fake.calls().iter().any(|c| c.starts_with("StopContainer a"))).await;
    assert!(began.elapsed() >= Duration::from_secs(20));
    let calls = rig.fake.calls();
    let before = calls.iter().take_while(|call| !call.starts_with("StopContainer a"));
    assert_eq!(before.filter(|call| call.as_str() == "ExecSync up").count(), 3);
    // The next one is looked at as soon as it runs, whenever the next period begins.
    rig.fake.set_exec_exit_code(0);
    rig.until("the pod is ready", |r| {
        let patches = r.api.patches.lock();
        patches.iter().any(|patch| patch["status"]["containerStatuses"][0]["started"] == true)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_releases_what_only_it_used() {
    let rig = Rig::new();
    let using = |uid: &str, namespace: &str, secrets: Value| {
        let mut pod = pod("Always", json!({"imagePullSecrets": secrets}));
        pod.metadata.uid = Some(uid.into());
        pod.metadata.name = Some(uid.into());
        pod.metadata.namespace = Some(namespace.into());
        Arc::new(pod)
    };
    rig.workers.update(using("first", "n", json!([{"name": "own"}, {"name": "shared"}])), None);
    rig.workers.update(using("second", "n", json!([{"name": "shared"}])), None);
    rig.workers.update(using("third", "elsewhere", json!([{"name": "own"}])), None);
    rig.until("the pods run", |r| r.fake.running().len() == 3).await;
    rig.workers.remove("first");
    rig.until("the pod is gone", |r| !r.workers.knows("first")).await;
    let secrets = std::collections::BTreeSet::from(["shared".to_owned()]);
    let left = References { secrets, ..References::default() };
    assert_eq!(*rig.api.kept.lock(), [("n".to_owned(), left)]);
    rig.workers.remove("second");
    rig.until("the other is gone", |r| !r.workers.knows("second")).await;
    assert_eq!(rig.api.kept.lock().last(), Some(&("n".to_owned(), References::default())));
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_down_is_waited_for() {
    let rig = Rig::new();
    rig.fake.set_down(true);
    rig.workers.update(Arc::new(pod("Always", json!({}))), None);
    tokio::time::sleep(Duration::from_secs(30)).await;
    rig.fake.set_down(false);
    rig.until("the pod runs", |r| r.phase() == "Running").await;
    // Down and up again: the pod is what it was.
    rig.fake.clear_calls();
    rig.fake.set_down(true);
    rig.workers.poke("u");
    tokio::time::sleep(Duration::from_secs(30)).await;
    rig.fake.set_down(false);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.fake.calls(), Vec::<String>::new());
    assert_eq!(rig.phase(), "Running");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_down_gets_the_last_status() {
    let rig = Rig::new();
    *rig.api.failures.lock() = 5;
    rig.workers.update(Arc::new(pod("Always", json!({}))), None);
    rig.until("the status arrived", |r| r.phase() == "Running").await;
}

#[tokio::test(start_paused = true)]
async fn volumes_hold_a_pod_back_until_their_sources_exist() {
    let rig = Rig::new();
    let pod = pod(
        "Always",
        json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}],
            "containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
    );
    rig.workers.update(Arc::new(pod), None);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(rig.fake.calls(), Vec::<String>::new());
    let map = serde_json::from_value(json!({"data": {"key": "one"}})).unwrap();
    rig.api.config_maps.lock().insert("n/c".into(), map);
    rig.until("the pod runs", |r| r.phase() == "Running").await;
    let path = rig.directory.path().join("kubelet/pods/u/volumes/kubernetes.io~configmap/v/key");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
    let mount = rig.fake.config_of("a").unwrap().mounts.into_iter().find(|m| m.container_path == "/v").unwrap();
    assert!(mount.readonly);
}
