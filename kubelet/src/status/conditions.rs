//! The conditions that the kubelet owns. Pure; reasons and messages are upstream's.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Inputs;
use crate::allocation;
use crate::pod::{PodExt, is_sidecar};
use crate::runtime::actions::sandbox_changed;

const READY_TO_START: &str = "PodReadyToStartContainers";
const INITIALIZED: &str = "Initialized";
const READY: &str = "Ready";
const CONTAINERS_READY: &str = "ContainersReady";
const SCHEDULED: &str = "PodScheduled";

/// The conditions that nobody else may write.
pub const KUBELET_CONDITIONS: &[&str] =
    &[READY_TO_START, INITIALIZED, READY, CONTAINERS_READY, SCHEDULED, allocation::PENDING, allocation::IN_PROGRESS];

/// Status, reason, message.
struct Verdict(bool, Option<&'static str>, Option<String>);

/// Puts foreign conditions first, then the kubelet's, with transition times carried over.
pub fn fill(pod: &Pod, inputs: &Inputs<'_>, status: &mut PodStatus) {
    let statuses: Vec<ContainerStatus> = [&status.init_container_statuses, &status.container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .cloned()
        .collect();
    let phase = status.phase.clone().unwrap_or_default();
    let present = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let mut out: Vec<PodCondition> =
        present.into_iter().filter(|c| !KUBELET_CONDITIONS.contains(&c.type_.as_str())).collect();
    if !inputs.terminal {
        out.extend(inputs.resize.iter().cloned());
    }
    let containers_ready = containers_ready(pod, &statuses, &phase);
    let verdicts = [
        (READY_TO_START, Verdict(!sandbox_changed(pod, inputs.state).0, None, None)),
        (INITIALIZED, initialized(pod, inputs.old, &statuses, &phase)),
        (READY, ready(pod, &out, &containers_ready)),
        (CONTAINERS_READY, containers_ready),
        (SCHEDULED, Verdict(true, None, None)),
    ];
    for (kind, Verdict(yes, reason, message)) in verdicts {
        let word = if yes { "True" } else { "False" };
        let before = inputs.old.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == word);
        let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(inputs.now));
        out.push(PodCondition {
            type_: kind.into(),
            status: word.into(),
            reason: reason.map(str::to_owned),
            message,
            observed_generation: pod.metadata.generation,
            last_transition_time: Some(since),
            last_probe_time: None,
        });
    }
    status.conditions = Some(out);
}

/// As Go prints a list of strings.
fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn unready_message(unknown: &[&str], rest: &[&str], word: &str) -> Option<String> {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", list(unknown)));
    }
    if !rest.is_empty() {
        parts.push(format!("containers with {word} status: {}", list(rest)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn containers_ready(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> Verdict {
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for container in pod.init_containers().iter().filter(|c| is_sidecar(c)).chain(&pod.pod_spec().containers) {
        match statuses.iter().find(|s| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match phase {
        "Succeeded" if unknown.is_empty() => Verdict(false, Some("PodCompleted"), None),
        "Failed" => Verdict(false, Some("PodFailed"), None),
        _ => match unready_message(&unknown, &unready, "unready") {
            Some(message) => Verdict(false, Some("ContainersNotReady"), Some(message)),
            None => Verdict(true, None, None),
        },
    }
}

fn ready(pod: &Pod, conditions: &[PodCondition], containers: &Verdict) -> Verdict {
    if !containers.0 {
        return Verdict(false, containers.1, containers.2.clone());
    }
    let mut messages = Vec::new();
    for gate in pod.pod_spec().readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match conditions.iter().find(|c| c.type_ == *kind) {
            None => messages.push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(c) if c.status != "True" => {
                messages.push(format!("the status of pod readiness gate {kind:?} is not \"True\", but {}", c.status));
            }
            Some(_) => {}
        }
    }
    match messages.is_empty() {
        true => Verdict(true, None, None),
        false => Verdict(false, Some("ReadinessGatesNotReady"), Some(messages.join(", "))),
    }
}

fn initialized(pod: &Pod, old: &PodStatus, statuses: &[ContainerStatus], phase: &str) -> Verdict {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in pod.init_containers() {
        match statuses.iter().find(|s| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) => {
                let done = if is_sidecar(container) { status.started == Some(true) } else { status.ready };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return Verdict(true, Some("PodCompleted"), None);
    }
    let ran = |status: &ContainerStatus| {
        let state = |s: &Option<k8s_openapi::api::core::v1::ContainerState>| {
            s.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
        };
        state(&status.state) || state(&status.last_state)
    };
    let regular_ran = pod.pod_spec().containers.iter().any(|c| statuses.iter().any(|s| s.name == c.name && ran(s)));
    if regular_ran {
        return Verdict(true, None, None);
    }
    match unready_message(&unknown, &incomplete, "incomplete") {
        // Once initialized, a pod stays so: containers may have been collected since.
        Some(_) if old.conditions.iter().flatten().any(|c| c.type_ == INITIALIZED && c.status == "True") => {
            Verdict(true, None, None)
        }
        Some(message) => Verdict(false, Some("ContainersNotInitialized"), Some(message)),
        None => Verdict(true, None, None),
    }
}
