//! The decisions, case by case, and rounds over the fake runtime.

use std::sync::Arc;
use std::time::Duration;

use component_base::clock::FakeClock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use proto::cri;
use serde_json::{Value, json};

use super::actions::{Actions, Actuated, Kill, KillReason, ProbeResults, compute_actions};
use super::state::{Container, PodState, State};
use super::*;
use crate::api::NoEvents;
use crate::cgroup::Unmanaged;
use crate::cri::fake::FakeRuntime;
use crate::pod::container_hash;
use crate::workers::testing::{FakeApi, settings};

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
}

fn two(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}))
}

fn with_init(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy,
        "initContainers": [{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]}))
}

fn with_sidecar() -> Pod {
    pod(json!({"restartPolicy": "Always",
        "initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"}, {"name": "i2", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]}))
}

fn sandbox(ready: bool, attempt: u32) -> cri::PodSandboxStatus {
    let state = if ready { cri::PodSandboxState::SandboxReady } else { cri::PodSandboxState::SandboxNotready };
    cri::PodSandboxStatus {
        id: format!("s{attempt}"),
        metadata: Some(cri::PodSandboxMetadata { attempt, ..Default::default() }),
        state: state.into(),
        created_at: i64::from(attempt),
        network: Some(cri::PodSandboxNetworkStatus { ip: "10.0.0.1".into(), ..Default::default() }),
        ..Default::default()
    }
}

fn container(pod: &Pod, name: &str, state: State, exit_code: i32) -> Container {
    let hash = pod.container(name).map_or(0, |(_, c)| container_hash(&c));
    Container {
        id: format!("id-{name}"),
        sandbox: "s0".into(),
        name: name.into(),
        state,
        created_at: 1,
        started_at: 1,
        finished_at: 2,
        exit_code,
        image: "i".into(),
        image_ref: "i".into(),
        reason: String::new(),
        message: String::new(),
        hash,
        restart_count: 0,
        log_path: String::new(),
        user: None,
        stop_signal: None,
    }
}

fn state(pod: &Pod, ready: bool, containers: &[(&str, State, i32)]) -> PodState {
    PodState {
        sandboxes: vec![sandbox(ready, 0)],
        containers: containers.iter().map(|(name, state, code)| container(pod, name, *state, *code)).collect(),
        ips: vec!["10.0.0.1".into()],
    }
}

fn check(pod: &Pod, state: &PodState, expected: Actions) {
    check_probed(pod, state, &ProbeResults::default(), expected);
}

fn check_probed(pod: &Pod, state: &PodState, probes: &ProbeResults, expected: Actions) {
    assert_eq!(compute_actions(pod, state, probes, &Actuated::default()), expected);
}

fn keep() -> Actions {
    Actions { sandbox_id: "s0".into(), ..Default::default() }
}

#[test]
fn a_new_pod_starts_everything() {
    let new = Actions { kill_pod: true, create_sandbox: true, start: vec![0, 1], ..Default::default() };
    check(&two("Always"), &PodState::default(), new);
    let new = Actions { kill_pod: true, create_sandbox: true, start_init: vec![0], ..Default::default() };
    check(&with_init("Always"), &PodState::default(), new);
}

#[test]
fn a_healthy_pod_is_left_alone() {
    let pod = two("Always");
    check(&pod, &state(&pod, true, &[("a", State::Running, 0), ("b", State::Running, 0)]), keep());
}

#[test]
fn dead_containers_follow_the_restart_policy() {
    for (policy, code, start) in [
        ("Always", 0, vec![1]),
        ("Always", 1, vec![1]),
        ("OnFailure", 0, vec![]),
        ("OnFailure", 1, vec![1]),
        ("Never", 1, vec![]),
    ] {
        let pod = two(policy);
        let state = state(&pod, true, &[("a", State::Running, 0), ("b", State::Exited, code)]);
        check(&pod, &state, Actions { start, ..keep() });
    }
}

#[test]
fn a_finished_pod_is_killed() {
    let pod = two("Never");
    let done = state(&pod, true, &[("a", State::Exited, 0), ("b", State::Exited, 1)]);
    check(&pod, &done, Actions { kill_pod: true, ..keep() });
    let gone = state(&pod, false, &[("a", State::Exited, 0), ("b", State::Exited, 1)]);
    check(&pod, &gone, Actions { kill_pod: true, attempt: 1, ..keep() });
}

#[test]
fn a_lost_sandbox_is_made_anew() {
    let pod = two("Always");
    let lost = state(&pod, false, &[("a", State::Exited, 0), ("b", State::Exited, 0)]);
    check(&pod, &lost, Actions { kill_pod: true, create_sandbox: true, attempt: 1, start: vec![0, 1], ..keep() });
    let pod = two("OnFailure");
    let lost = state(&pod, false, &[("a", State::Exited, 0), ("b", State::Exited, 1)]);
    check(&pod, &lost, Actions { kill_pod: true, create_sandbox: true, attempt: 1, start: vec![1], ..keep() });
    let lost = state(&pod, false, &[("a", State::Exited, 0), ("b", State::Exited, 0)]);
    check(&pod, &lost, Actions { kill_pod: true, attempt: 1, ..keep() });
}

#[test]
fn a_sandbox_in_the_wrong_network_or_without_address_is_replaced() {
    let pod = two("Always");
    let mut wrong = state(&pod, true, &[]);
    wrong.sandboxes[0].network = Some(cri::PodSandboxNetworkStatus::default());
    let actions = compute_actions(&pod, &wrong, &ProbeResults::default(), &Actuated::default());
    assert!(actions.create_sandbox && actions.attempt == 1);
    let mut wrong = state(&pod, true, &[]);
    let options = cri::NamespaceOption { network: cri::NamespaceMode::Node.into(), ..Default::default() };
    wrong.sandboxes[0].linux =
        Some(cri::LinuxPodSandboxStatus { namespaces: Some(cri::Namespace { options: Some(options) }) });
    assert!(compute_actions(&pod, &wrong, &ProbeResults::default(), &Actuated::default()).create_sandbox);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let pod = with_init("Always");
    for (containers, start_init, start) in [
        (vec![], vec![0], vec![]),
        (vec![("i1", State::Running, 0)], vec![], vec![]),
        (vec![("i1", State::Created, 0)], vec![0], vec![]),
        (vec![("i1", State::Exited, 0)], vec![1], vec![]),
        (vec![("i1", State::Exited, 1)], vec![0], vec![]),
        (vec![("i2", State::Exited, 0), ("i1", State::Exited, 0)], vec![], vec![0]),
        // The first one was collected: what matters is the last that ran.
        (vec![("i2", State::Exited, 0)], vec![], vec![0]),
        (vec![("i2", State::Exited, 1), ("i1", State::Exited, 0)], vec![1], vec![]),
        (vec![("a", State::Running, 0)], vec![], vec![]),
        (vec![("a", State::Exited, 1), ("i2", State::Exited, 0)], vec![], vec![0]),
    ] {
        check(&pod, &state(&pod, true, &containers), Actions { start_init, start, ..keep() });
    }
    let never = with_init("Never");
    check(&never, &state(&never, true, &[("i1", State::Exited, 1)]), Actions { kill_pod: true, ..keep() });
}

#[test]
fn sidecars_start_in_turn_and_restart_alone() {
    let pod = with_sidecar();
    for (containers, start_init, start) in [
        (vec![("s", State::Running, 0)], vec![1], vec![]),
        (vec![("i2", State::Exited, 0), ("s", State::Running, 0)], vec![], vec![0]),
        (vec![("a", State::Running, 0), ("i2", State::Exited, 0), ("s", State::Exited, 1)], vec![0], vec![]),
        (vec![("a", State::Running, 0), ("i2", State::Exited, 0)], vec![0], vec![]),
    ] {
        check(&pod, &state(&pod, true, &containers), Actions { start_init, start, ..keep() });
    }
}

#[test]
fn failed_probes_and_changed_specs_restart_containers() {
    let pod = two("Always");
    let running = state(&pod, true, &[("a", State::Running, 0), ("b", State::Running, 0)]);
    let failed = |reason| ProbeResults {
        liveness: if reason == KillReason::LivenessProbe {
            [("id-a".to_owned(), false)].into()
        } else {
            Default::default()
        },
        startup: if reason == KillReason::StartupProbe {
            [("id-a".to_owned(), false)].into()
        } else {
            Default::default()
        },
    };
    for (reason, word) in [(KillReason::LivenessProbe, "liveness"), (KillReason::StartupProbe, "startup")] {
        let message = format!("Container a failed {word} probe, will be restarted");
        let kill = vec![Kill { id: "id-a".into(), name: "a".into(), message, reason }];
        check_probed(&pod, &running, &failed(reason), Actions { kill, start: vec![0], ..keep() });
    }
    let never = two("Never");
    let message = "Container a failed liveness probe".to_owned();
    let kill = vec![Kill { id: "id-a".into(), name: "a".into(), message, reason: KillReason::LivenessProbe }];
    check_probed(&never, &running, &failed(KillReason::LivenessProbe), Actions { kill, ..keep() });
    let mut changed = running;
    changed.containers[1].hash = 1;
    let message = "Container b definition changed, will be restarted".to_owned();
    let kill = vec![Kill { id: "id-b".into(), name: "b".into(), message, reason: KillReason::Other }];
    check(&never, &changed, Actions { kill, start: vec![1], ..keep() });
}

#[test]
fn a_container_in_unknown_state_is_killed_first() {
    let pod = two("Always");
    let unknown = state(&pod, true, &[("a", State::Unknown, 0), ("b", State::Running, 0)]);
    let message = "Container is in \"unknown\" state, try killing it before restart".to_owned();
    let kill = vec![Kill { id: "id-a".into(), name: "a".into(), message, reason: KillReason::Other }];
    check(&pod, &unknown, Actions { kill, start: vec![0], ..keep() });
}

#[test]
fn ephemeral_containers_start_once() {
    let mut pod = two("Always");
    let ephemeral = serde_json::from_value(json!([{"name": "d", "image": "i"}])).unwrap();
    pod.spec.as_mut().unwrap().ephemeral_containers = Some(ephemeral);
    let running = [("a", State::Running, 0), ("b", State::Running, 0)];
    check(&pod, &state(&pod, true, &running), Actions { start_ephemeral: vec![0], ..keep() });
    let exited = [("a", State::Running, 0), ("b", State::Running, 0), ("d", State::Exited, 1)];
    check(&pod, &state(&pod, true, &exited), keep());
}

struct Rig {
    fake: FakeRuntime,
    clock: Arc<FakeClock>,
    manager: Manager,
    _directory: tempfile::TempDir,
}

fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let fake = FakeRuntime::with_images(&["i:latest"]);
    let clock = Arc::new(FakeClock::new(Timestamp::from_second(1_000).unwrap()));
    let manager = Manager::new(
        Arc::new(fake.clone()),
        "fake".into(),
        Arc::new(settings(directory.path())),
        Arc::new(FakeApi::default()),
        Arc::new(NoEvents),
        clock.clone(),
        Arc::new(Unmanaged),
        Arc::new(crate::workers::testing::allocations(directory.path())),
    );
    Rig { fake, clock, manager, _directory: directory }
}

#[test]
fn sizes_change_in_place_or_by_a_restart_as_the_policy_says() {
    let pod = |policy: &str| {
        pod(json!({"restartPolicy": "Always", "containers": [
            {"name": "a", "image": "i", "resources": {"limits": {"cpu": "2", "memory": "64Mi"}},
             "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]}]}))
    };
    let actuated = |cpu: &str, memory: &str| Actuated {
        containers: [(
            "a".to_owned(),
            serde_json::from_value(json!({"limits": {"cpu": cpu, "memory": memory}})).unwrap(),
        )]
        .into(),
        pod: None,
    };
    let running = |pod: &Pod| state(pod, true, &[("a", State::Running, 0)]);
    let decide = |policy: &str, actuated: &Actuated| {
        let pod = pod(policy);
        compute_actions(&pod, &running(&pod), &ProbeResults::default(), actuated)
    };
    assert_eq!(decide("NotRequired", &actuated("2000m", "64Mi")), keep());
    let update = decide("NotRequired", &actuated("1", "64Mi"));
    assert_eq!(
        update.resize.iter().map(|r| (r.current.cpu_limit, r.desired.cpu_limit)).collect::<Vec<_>>(),
        [(1000, 2000)]
    );
    assert!(update.start.is_empty() && update.kill.is_empty());
    let restart = decide("RestartContainer", &actuated("1", "64Mi"));
    assert_eq!(
        (restart.start.as_slice(), restart.kill[0].message.as_str()),
        (&[0][..], "Container a resize requires restart")
    );
    // The policy of another resource does not matter.
    assert_eq!(decide("RestartContainer", &actuated("2", "32Mi")).resize.len(), 1);
}

impl Rig {
    async fn sync(&self, pod: &Pod) -> Outcome {
        let state = self.manager.state("u").await.unwrap();
        self.manager.sync_pod(pod, &state, &ProbeResults::default(), &Mounts::new()).await
    }
}

#[tokio::test]
async fn rounds_start_a_pod_and_then_rest() {
    let rig = rig();
    let pod = two("Always");
    let outcome = rig.sync(&pod).await;
    assert_eq!((outcome.changed, outcome.failures), (true, vec![]));
    assert_eq!(
        rig.fake.calls(),
        ["RunPodSandbox p", "CreateContainer a", "StartContainer a", "CreateContainer b", "StartContainer b"]
    );
    rig.fake.clear_calls();
    let outcome = rig.sync(&pod).await;
    assert_eq!((outcome.changed, rig.fake.calls()), (false, vec![]));
    let config = rig.fake.config_of("a").unwrap();
    assert_eq!(config.log_path, "a/0.log");
    assert_eq!(config.labels[labels::POD_UID], "u");
}

#[tokio::test]
async fn every_step_may_fail_and_is_taken_up_again() {
    for (call, reason) in [
        ("RunPodSandbox", "CreatePodSandboxError"),
        ("CreateContainer", "CreateContainerError"),
        ("StartContainer", "RunContainerError"),
        ("ImageStatus", "ImageInspectError"),
    ] {
        let rig = rig();
        let pod = two("Always");
        rig.fake.fail_next(call, "boom");
        let outcome = rig.sync(&pod).await;
        assert_eq!(outcome.failures.len(), 1, "{call}");
        assert_eq!(outcome.failures[0].reason, reason);
        assert!(outcome.failures[0].message.contains("boom"), "{:?}", outcome.failures);
        let outcome = rig.sync(&pod).await;
        assert_eq!(outcome.failures, [], "{call}");
        assert_eq!(rig.fake.running(), ["a", "b"], "{call}");
        assert_eq!(rig.fake.sandboxes(), (1, 1), "{call}");
        assert_eq!(rig.manager.reasons.get("u", "a"), None, "{call}");
    }
}

#[tokio::test]
async fn images_that_are_missing_have_upstreams_reasons() {
    let rig = rig();
    let mut pod = two("Always");
    let containers = &mut pod.spec.as_mut().unwrap().containers;
    containers[0].image = Some("gone:1".into());
    containers[1].image = Some("gone:2".into());
    containers[1].image_pull_policy = Some("Never".into());
    let reasons = |outcome: Outcome| outcome.failures.into_iter().map(|f| f.reason).collect::<Vec<_>>();
    assert_eq!(reasons(rig.sync(&pod).await), ["ErrImagePull", "ErrImageNeverPull"]);
    let outcome = rig.sync(&pod).await;
    assert_eq!(outcome.failures[0].reason, "ImagePullBackOff");
    assert!(outcome.failures[0].message.starts_with("Back-off pulling image \"gone:1\": ErrImagePull: "));
    assert_eq!(outcome.retry_at, Some(Timestamp::from_second(1_010).unwrap()));
    rig.clock.step(Duration::from_secs(10));
    assert_eq!(reasons(rig.sync(&pod).await), ["ErrImagePull", "ErrImageNeverPull"]);
}

#[tokio::test]
async fn crashing_containers_back_off() {
    let rig = rig();
    let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "i"}]}));
    rig.sync(&pod).await;
    rig.fake.set_time(1_000);
    rig.fake.exit("a", 1);
    // The first restart is immediate.
    assert_eq!(rig.sync(&pod).await.failures, []);
    assert_eq!(rig.fake.running(), ["a"]);
    rig.fake.set_time(1_000);
    rig.fake.exit("a", 1);
    let outcome = rig.sync(&pod).await;
    assert_eq!(outcome.failures[0].reason, "CrashLoopBackOff");
    assert_eq!(outcome.failures[0].message, "back-off 10s restarting failed container=a pod=p_n(u)");
    assert_eq!(outcome.retry_at, Some(Timestamp::from_second(1_010).unwrap()));
    rig.clock.step(Duration::from_secs(10));
    assert_eq!(rig.sync(&pod).await.failures, []);
    assert_eq!(rig.fake.running(), ["a"]);
    assert_eq!(rig.fake.config_of("a").unwrap().log_path, "a/2.log");
}

#[tokio::test]
async fn killing_respects_grace_and_stops_the_sandbox() {
    let rig = rig();
    let mut pod = two("Always");
    rig.sync(&pod).await;
    rig.fake.clear_calls();
    pod.metadata.deletion_grace_period_seconds = Some(7);
    let state = rig.manager.state("u").await.unwrap();
    rig.manager.kill_pod(Some(&pod), &state, None).await.unwrap();
    let mut calls = rig.fake.calls();
    calls.sort();
    assert_eq!(calls, ["StopContainer a 7", "StopContainer b 7", "StopPodSandbox sandbox"]);
    assert!(rig.manager.state("u").await.unwrap().is_dead());
    rig.manager.remove_pod("u").await.unwrap();
    assert_eq!(rig.fake.sandboxes(), (0, 0));
}

#[tokio::test]
async fn hooks_run_and_a_failed_post_start_kills() {
    let rig = rig();
    let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "i", "lifecycle": {
        "postStart": {"exec": {"command": ["hello"]}}, "preStop": {"exec": {"command": ["bye"]}}}}]}));
    rig.sync(&pod).await;
    assert!(rig.fake.calls().contains(&"ExecSync hello".to_owned()));
    rig.fake.clear_calls();
    let state = rig.manager.state("u").await.unwrap();
    rig.manager.kill_pod(Some(&pod), &state, Some(5)).await.unwrap();
    assert_eq!(rig.fake.calls(), ["ExecSync bye", "StopContainer a 5", "StopPodSandbox sandbox"]);
    rig.fake.set_exec_exit_code(1);
    let outcome = rig.sync(&pod).await;
    assert_eq!(outcome.failures[0].reason, "PostStartHookError");
    assert_eq!(rig.fake.running(), Vec::<String>::new());
}
