//! Phases, conditions and container statuses, case by case.

use std::sync::Arc;

use component_base::clock::RealClock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use proto::cri;
use serde_json::{Value, json};

use super::*;
use crate::api::NoEvents;
use crate::cri::fake::FakeRuntime;
use crate::runtime::state::{Container, State};
use crate::workers::testing::FakeApi;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 3}, "spec": spec}),
    )
    .unwrap()
}

fn statuses(list: Value) -> Vec<ContainerStatus> {
    let base = json!({"image": "", "imageID": "", "ready": false, "restartCount": 0});
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let mut value = base.clone();
            value.as_object_mut().unwrap().extend(item.as_object().unwrap().clone());
            serde_json::from_value(value).unwrap()
        })
        .collect()
}

#[test]
fn phases() {
    let running = || json!({"running": {}});
    let exited = |code: i32| json!({"terminated": {"exitCode": code}});
    let waiting = || json!({"waiting": {}});
    let one = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
    let init = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
    let sidecar = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
    let s = |name: &str, state: Value| json!({"name": name, "state": state});
    let again = |name: &str, code: i32| json!({"name": name, "state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": code}}});
    for (spec, list, terminal, expected) in [
        (one("Always"), json!([]), false, "Pending"),
        (one("Always"), json!([s("a", waiting())]), false, "Pending"),
        (one("Always"), json!([s("a", running())]), false, "Running"),
        (one("Always"), json!([s("a", exited(0))]), false, "Running"),
        (one("Always"), json!([again("a", 1)]), false, "Running"),
        (one("Always"), json!([s("a", exited(0))]), true, "Succeeded"),
        (one("Always"), json!([s("a", exited(1))]), true, "Failed"),
        (one("OnFailure"), json!([s("a", exited(0))]), false, "Succeeded"),
        (one("OnFailure"), json!([s("a", exited(1))]), false, "Running"),
        (one("Never"), json!([s("a", exited(0))]), false, "Succeeded"),
        (one("Never"), json!([s("a", exited(1))]), false, "Failed"),
        (init("Always"), json!([s("i", running()), s("a", waiting())]), false, "Pending"),
        (init("Always"), json!([s("i", exited(1)), s("a", waiting())]), false, "Pending"),
        (init("Never"), json!([s("i", exited(1)), s("a", waiting())]), false, "Failed"),
        (init("Always"), json!([s("i", exited(0)), s("a", running())]), false, "Running"),
        (
            sidecar.clone(),
            json!([{"name": "s", "state": running(), "started": false}, s("a", waiting())]),
            false,
            "Pending",
        ),
        (
            sidecar.clone(),
            json!([{"name": "s", "state": running(), "started": true}, s("a", running())]),
            false,
            "Running",
        ),
        (sidecar, json!([s("s", exited(0)), s("a", exited(0))]), true, "Succeeded"),
    ] {
        assert_eq!(
            phase::phase(&pod(spec.clone()), &statuses(list.clone()), terminal, false),
            expected,
            "{spec} {list}"
        );
    }
}

struct Rig {
    probes: probe::Manager,
    reasons: Reasons,
}

fn rig() -> Rig {
    let clock = RealClock::shared();
    let statuses = Manager::new(Arc::new(FakeApi::default()), clock.clone());
    let probes = probe::Manager::new(Arc::new(FakeRuntime::default()), statuses, Arc::new(NoEvents), clock);
    Rig { probes, reasons: Reasons::default() }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn sandbox() -> cri::PodSandboxStatus {
    cri::PodSandboxStatus {
        id: "s".into(),
        network: Some(cri::PodSandboxNetworkStatus { ip: "10.0.0.5".into(), ..Default::default() }),
        ..Default::default()
    }
}

fn container(name: &str, state: State, exit_code: i32, created_at: i64) -> Container {
    Container {
        id: format!("{name}{created_at}"),
        sandbox: "s".into(),
        name: name.into(),
        state,
        created_at,
        started_at: 100_000_000_000,
        finished_at: 200_000_000_000,
        exit_code,
        image: "img".into(),
        image_ref: "sha256:x".into(),
        reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
        hash: 0,
        restart_count: u32::try_from(created_at - 1).unwrap(),
        log_path: String::new(),
        user: None,
        stop_signal: None,
    }
}

fn generate_at(pod: &Pod, containers: Vec<Container>, old: &PodStatus, terminal: bool, now: i64) -> Value {
    let rig = rig();
    let state = PodState { sandboxes: vec![sandbox()], containers, ips: vec!["10.0.0.5".into()] };
    let inputs = Inputs {
        state: &state,
        old,
        reasons: &rig.reasons,
        probes: &rig.probes,
        runtime_name: "containerd",
        host_ips: &["1.2.3.4".into()],
        terminal,
        failed: None,
        actuated: &Default::default(),
        cgroup: None,
        resize: &[],
        now: at(now),
    };
    serde_json::to_value(generate(pod, &inputs)).unwrap()
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap()
}

#[test]
fn a_running_pod_reads_as_upstreams() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "img"}]}));
    let status = generate_at(&pod, vec![container("a", State::Running, 0, 1)], &PodStatus::default(), false, 300);
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.0.0.5");
    assert_eq!(status["hostIPs"], json!([{"ip": "1.2.3.4"}]));
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["observedGeneration"], 3);
    assert_eq!(status["startTime"], "1970-01-01T00:05:00Z");
    assert_eq!(
        status["containerStatuses"],
        json!([{"name": "a", "image": "img", "imageID": "sha256:x", "containerID": "containerd://a1", "ready": true,
            "started": true, "restartCount": 0, "lastState": {}, "resources": {},
            "state": {"running": {"startedAt": "1970-01-01T00:01:40Z"}}}])
    );
    let kinds: Vec<&str> =
        status["conditions"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]);
    assert!(status["conditions"].as_array().unwrap().iter().all(|c| c["status"] == "True"));
}

#[test]
fn transition_times_move_only_with_the_status() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "img"}]}));
    let first = generate_at(&pod, vec![], &PodStatus::default(), false, 300);
    assert_eq!(condition(&first, "Ready")["reason"], "ContainersNotReady");
    assert_eq!(condition(&first, "Ready")["message"], "containers with unready status: [a]");
    assert_eq!(first["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    let old = serde_json::from_value(first).unwrap();
    let second = generate_at(&pod, vec![container("a", State::Running, 0, 1)], &old, false, 400);
    assert_eq!(condition(&second, "Ready")["lastTransitionTime"], "1970-01-01T00:06:40Z");
    assert_eq!(condition(&second, "Initialized")["lastTransitionTime"], "1970-01-01T00:05:00Z");
    assert_eq!(second["startTime"], "1970-01-01T00:05:00Z");
}

#[test]
fn restarts_show_the_last_end() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "img"}]}));
    let containers = vec![container("a", State::Running, 0, 2), container("a", State::Exited, 3, 1)];
    let status = generate_at(&pod, containers, &PodStatus::default(), false, 300);
    let own = &status["containerStatuses"][0];
    assert_eq!(own["restartCount"], 1);
    assert_eq!(own["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(own["lastState"]["terminated"]["containerID"], "containerd://a1");
    assert_eq!(own["lastState"]["terminated"]["finishedAt"], "1970-01-01T00:03:20Z");
    // The runtime forgot the first instance: what the last status said of it stays.
    let old = serde_json::from_value(status.clone()).unwrap();
    let later = generate_at(&pod, vec![container("a", State::Running, 0, 2)], &old, false, 300);
    assert_eq!(later["containerStatuses"][0]["lastState"], own["lastState"]);
}

#[test]
fn a_vanished_container_is_not_taken_for_a_new_one() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "img"}]}));
    let before = generate_at(&pod, vec![container("a", State::Running, 0, 1)], &PodStatus::default(), false, 300);
    let old = serde_json::from_value(before).unwrap();
    let status = generate_at(&pod, vec![], &old, false, 400);
    let own = &status["containerStatuses"][0];
    assert_eq!(own["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(own["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!((status["phase"].as_str(), own["restartCount"].as_i64()), (Some("Running"), Some(1)));
}

#[test]
fn finished_pods_are_complete() {
    let pod = pod(
        json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}),
    );
    let ended = |code| {
        vec![
            container("a", State::Exited, code, 3),
            container("b", State::Exited, 0, 2),
            container("i", State::Exited, 0, 1),
        ]
    };
    let good = generate_at(&pod, ended(0), &PodStatus::default(), true, 300);
    assert_eq!(good["phase"], "Succeeded");
    for (kind, word) in [("Ready", "False"), ("ContainersReady", "False"), ("Initialized", "True")] {
        assert_eq!(
            (&condition(&good, kind)["status"], &condition(&good, kind)["reason"]),
            (&json!(word), &json!("PodCompleted"))
        );
    }
    assert_eq!(good["initContainerStatuses"][0]["ready"], true);
    let bad = generate_at(&pod, ended(1), &PodStatus::default(), true, 300);
    assert_eq!(bad["phase"], "Failed");
    assert_eq!(condition(&bad, "Ready")["reason"], "PodFailed");
    // A final phase is never left, whatever the runtime shows.
    let old: PodStatus = serde_json::from_value(good).unwrap();
    let forgotten = generate_at(&pod, vec![], &old, true, 400);
    assert_eq!(forgotten["phase"], "Succeeded");
    assert_eq!(forgotten["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
}

#[test]
fn initialization_is_told() {
    let pod = pod(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]}));
    let status = generate_at(&pod, vec![container("i", State::Exited, 0, 1)], &PodStatus::default(), false, 300);
    let initialized = condition(&status, "Initialized");
    assert_eq!((&initialized["status"], &initialized["reason"]), (&json!("False"), &json!("ContainersNotInitialized")));
    assert_eq!(initialized["message"], "containers with incomplete status: [j]");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(status["phase"], "Pending");
}

#[test]
fn foreign_conditions_stay_and_gates_count() {
    let mut pod = pod(json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "x/y"}]}));
    pod.status = Some(serde_json::from_value(json!({"conditions": [{"type": "z", "status": "True"}]})).unwrap());
    let status = generate_at(&pod, vec![container("a", State::Running, 0, 1)], &PodStatus::default(), false, 300);
    assert_eq!(status["conditions"][0]["type"], "z");
    let ready = condition(&status, "Ready");
    assert_eq!(ready["reason"], "ReadinessGatesNotReady");
    assert_eq!(ready["message"], "corresponding condition of pod readiness gate \"x/y\" does not exist.");
    assert_eq!(condition(&status, "ContainersReady")["status"], "True");
}
