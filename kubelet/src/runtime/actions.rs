//! What to do next for a pod, from its spec and what the runtime holds: the heart of the kubelet.
//!
//! Pure. The rules are upstream's (`computePodActions`): sandbox first, then init containers from the
//! last one that ran, then regular ones; a pod with nothing left to keep or start is killed.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container as Spec, Pod, ResourceRequirements};
use proto::cri::{NamespaceMode, PodSandboxState};

use super::state::{Container, PodState, State};
use crate::pod::{PodExt, container_hash, is_sidecar, should_restart_after, should_restart_on_failure};
use crate::resources::Amounts;

/// What probes have found, by container id: `true` passes.
#[derive(Clone, Debug, Default)]
pub struct ProbeResults {
    pub liveness: HashMap<String, bool>,
    pub startup: HashMap<String, bool>,
}

/// Why a container is stopped; decides which grace period applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// The spec changed, or the pod ends.
    Other,
    LivenessProbe,
    StartupProbe,
}

/// A container to stop before anything is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    /// What the event says.
    pub message: String,
    pub reason: KillReason,
}

/// A running container that is to get other amounts of CPU or memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    pub id: String,
    pub name: String,
    pub current: Amounts,
    pub desired: Amounts,
}

/// What running containers, and the pod as a whole, were last set to.
#[derive(Clone, Debug, Default)]
pub struct Actuated {
    pub containers: BTreeMap<String, ResourceRequirements>,
    pub pod: Option<ResourceRequirements>,
}

/// The decision. Indexes point into the lists of the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Stop everything that runs, sandbox included.
    pub kill_pod: bool,
    pub create_sandbox: bool,
    /// The sandbox to start containers in, or the one being replaced; empty when there is none.
    pub sandbox_id: String,
    /// Attempt number for a new sandbox.
    pub attempt: u32,
    pub kill: Vec<Kill>,
    pub start_ephemeral: Vec<usize>,
    pub start_init: Vec<usize>,
    pub start: Vec<usize>,
    /// Containers that change their size while they run.
    pub resize: Vec<Resize>,
    /// The pod's own cgroup changes, whatever its containers do.
    pub resize_pod: bool,
}

/// Whether the pod needs a new sandbox, with the attempt and the id of the present one.
pub fn sandbox_changed(pod: &Pod, state: &PodState) -> (bool, u32, String) {
    let Some(newest) = state.sandboxes.first() else { return (true, 0, String::new()) };
    let attempt = newest.metadata.as_ref().map_or(0, |m| m.attempt);
    let ready = state.sandboxes.iter().filter(|s| s.state() == PodSandboxState::SandboxReady).count();
    if ready > 1 || newest.state() != PodSandboxState::SandboxReady {
        return (true, attempt + 1, newest.id.clone());
    }
    let network =
        newest.linux.as_ref().and_then(|l| Some(l.namespaces.as_ref()?.options.as_ref()?.network)).unwrap_or_default();
    let wanted = if pod.host_network() { NamespaceMode::Node } else { NamespaceMode::Pod };
    if network != wanted as i32 {
        return (true, attempt + 1, String::new());
    }
    if !pod.host_network() && newest.network.as_ref().is_some_and(|n| n.ip.is_empty()) {
        return (true, attempt + 1, newest.id.clone());
    }
    (false, attempt, newest.id.clone())
}

/// Whether a container that does not run is to be started.
pub fn should_start(container: &Spec, pod: &Pod, state: &PodState) -> bool {
    if pod.is_deleted() {
        return false;
    }
    match state.find(&container.name) {
        None => true,
        Some(found) => match found.state {
            State::Running => false,
            State::Created | State::Unknown => true,
            State::Exited => should_restart_after(container, pod, found.exit_code),
        },
    }
}

fn succeeded(container: &Spec, state: &PodState) -> bool {
    state.find(&container.name).is_some_and(|c| c.state == State::Exited && c.exit_code == 0)
}

/// Whether any regular container was ever made: then initialization has been passed.
pub fn any_regular_created(pod: &Pod, state: &PodState) -> bool {
    pod.pod_spec().containers.iter().any(|c| {
        state.find(&c.name).is_some_and(|s| matches!(s.state, State::Created | State::Running | State::Exited))
    })
}

/// The decision for a pod that is to run.
pub fn compute_actions(pod: &Pod, state: &PodState, probes: &ProbeResults, actuated: &Actuated) -> Actions {
    let (create, attempt, sandbox_id) = sandbox_changed(pod, state);
    let mut actions = Actions { kill_pod: create, create_sandbox: create, sandbox_id, attempt, ..Default::default() };
    if create {
        new_sandbox(pod, state, &mut actions);
        return actions;
    }
    for (index, container) in pod.ephemeral_containers().iter().enumerate() {
        if state.find(&container.name).is_none() {
            actions.start_ephemeral.push(index);
        }
    }
    let level = pod.pod_spec().resources.as_ref();
    actions.resize_pod = actuated.pod.is_some() && Amounts::of(level, None) != Amounts::of(actuated.pod.as_ref(), None);
    let initialized = init_actions(pod, state, probes, actuated, &mut actions);
    if actions.kill_pod || !initialized {
        return actions;
    }
    let mut kept = 0;
    for (index, container) in pod.pod_spec().containers.iter().enumerate() {
        let status = state.find(&container.name);
        let Some(running) = status.filter(|s| s.state == State::Running) else {
            if should_start(container, pod, state) {
                actions.start.push(index);
                if let Some(unknown) = status.filter(|s| s.state == State::Unknown) {
                    actions.kill.push(unknown_kill(unknown, "Container"));
                }
            }
            continue;
        };
        let mut restart = match container.restart_policy.as_deref() {
            Some(policy) => policy != "Never",
            None => should_restart_on_failure(pod),
        };
        let name = &container.name;
        let (mut message, reason) = if running.hash != container_hash(container) {
            // A changed spec is followed whatever the restart policy says.
            restart = true;
            (format!("Container {name} definition changed"), KillReason::Other)
        } else if probes.liveness.get(&running.id) == Some(&false) {
            (format!("Container {name} failed liveness probe"), KillReason::LivenessProbe)
        } else if probes.startup.get(&running.id) == Some(&false) {
            (format!("Container {name} failed startup probe"), KillReason::StartupProbe)
        } else if resized(pod, container, running, actuated, &mut actions) {
            restart = false;
            actions.start.push(index);
            (format!("Container {name} resize requires restart"), KillReason::Other)
        } else {
            kept += 1;
            continue;
        };
        if restart {
            message.push_str(", will be restarted");
            actions.start.push(index);
        }
        actions.kill.push(Kill { id: running.id.clone(), name: name.clone(), message, reason });
    }
    if kept == 0 && actions.start.is_empty() {
        actions.kill_pod = true;
        // Sidecars must not keep a finished pod alive.
        actions.start_init.clear();
    }
    actions
}

/// Whether a running container has to be restarted to get the size it was granted. If it has not, and
/// the size is another one, the container is noted for an update.
fn resized(pod: &Pod, container: &Spec, running: &Container, actuated: &Actuated, actions: &mut Actions) -> bool {
    // Without a record the container is taken to be what it should be: it was made from its spec.
    let Some(set) = actuated.containers.get(&container.name) else { return false };
    let desired = Amounts::of(container.resources.as_ref(), pod.pod_spec().resources.as_ref());
    let current = Amounts::of(Some(set), actuated.pod.as_ref());
    if desired == current {
        return false;
    }
    let restarts = |name: &str| {
        let policies = container.resize_policy.iter().flatten();
        policies.into_iter().any(|policy| policy.resource_name == name && policy.restart_policy == "RestartContainer")
    };
    let cpu = (desired.cpu_limit, desired.cpu_request) != (current.cpu_limit, current.cpu_request);
    let memory = (desired.memory_limit, desired.memory_request) != (current.memory_limit, current.memory_request);
    if (cpu && restarts("cpu")) || (memory && restarts("memory")) {
        actions.resize_pod = true;
        return true;
    }
    actions.resize.push(Resize { id: running.id.clone(), name: container.name.clone(), current, desired });
    false
}

fn new_sandbox(pod: &Pod, state: &PodState, actions: &mut Actions) {
    if !should_restart_on_failure(pod) && actions.attempt != 0 && !state.containers.is_empty() {
        actions.create_sandbox = false;
        return;
    }
    let start: Vec<usize> = pod
        .pod_spec()
        .containers
        .iter()
        .enumerate()
        .filter(|(_, c)| {
            let policy = c.restart_policy.as_deref().unwrap_or_else(|| pod.restart_policy());
            !(policy == "OnFailure" && succeeded(c, state))
        })
        .map(|(index, _)| index)
        .collect();
    if start.is_empty() && any_regular_created(pod, state) {
        actions.create_sandbox = false;
    } else if !pod.init_containers().is_empty() {
        actions.start_init = vec![0];
    } else {
        actions.start = start;
    }
}

fn unknown_kill(container: &Container, kind: &str) -> Kill {
    Kill {
        id: container.id.clone(),
        name: container.name.clone(),
        message: format!("{kind} is in {:?} state, try killing it before restart", container.state.as_str()),
        reason: KillReason::Other,
    }
}

/// Decides about init containers; says whether the regular ones may start.
///
/// Walks backwards to the last one that ran: completed ones may have been collected, and must not run
/// again. From there on forward, sidecars that died are restarted.
fn init_actions(
    pod: &Pod,
    state: &PodState,
    probes: &ProbeResults,
    actuated: &Actuated,
    actions: &mut Actions,
) -> bool {
    let containers = pod.init_containers();
    if containers.is_empty() {
        return true;
    }
    let mut initialized = pod
        .pod_spec()
        .containers
        .iter()
        .any(|c| state.find(&c.name).is_some_and(|s| matches!(s.state, State::Created | State::Running)));
    let mut passed = initialized;
    for (index, container) in containers.iter().enumerate().rev() {
        let sidecar = is_sidecar(container);
        let Some(status) = state.find(&container.name) else {
            if passed && sidecar {
                actions.start_init.push(index);
            }
            continue;
        };
        if passed && !sidecar {
            continue;
        }
        let last = index == containers.len() - 1;
        match status.state {
            State::Created => actions.start_init.push(index),
            State::Running if !sidecar => {}
            State::Running => {
                running_sidecar(index, last, passed, container, status, probes, actions, &mut initialized);
                let kept = !actions.kill.iter().any(|kill| kill.id == status.id);
                if kept && resized(pod, container, status, actuated, actions) {
                    let message = format!("Container {} resize requires restart", container.name);
                    let (id, name) = (status.id.clone(), container.name.clone());
                    actions.kill.push(Kill { id, name, message, reason: KillReason::Other });
                    actions.start_init.push(index);
                }
            }
            State::Exited if sidecar => actions.start_init.push(index),
            State::Exited if status.exit_code != 0 => {
                if !should_start(container, pod, state) {
                    actions.kill_pod = true;
                    actions.start_init.clear();
                    return false;
                }
                actions.start_init.push(index);
            }
            State::Exited if last => initialized = true,
            State::Exited => actions.start_init.push(index + 1),
            State::Unknown => {
                let restart = sidecar
                    || match container.restart_policy.as_deref() {
                        Some(policy) => policy != "Never",
                        None => should_restart_on_failure(pod),
                    };
                if !restart {
                    actions.kill_pod = true;
                    actions.start_init.clear();
                    return false;
                }
                actions.kill.push(unknown_kill(status, "Init container"));
                actions.start_init.push(index);
            }
        }
        passed = true;
    }
    if !passed {
        actions.start_init.push(0);
    }
    actions.start_init.reverse();
    initialized
}

#[allow(clippy::too_many_arguments)]
fn running_sidecar(
    index: usize,
    last: bool,
    passed: bool,
    container: &Spec,
    status: &Container,
    probes: &ProbeResults,
    actions: &mut Actions,
    initialized: &mut bool,
) {
    let name = &container.name;
    let mut kill = |message: String, reason| {
        actions.kill.push(Kill { id: status.id.clone(), name: name.clone(), message, reason });
        actions.start_init.push(index);
    };
    if container.startup_probe.is_some() {
        match probes.startup.get(&status.id) {
            Some(true) => {}
            Some(false) => {
                return kill(format!("Init container {name} failed startup probe"), KillReason::StartupProbe);
            }
            None => return,
        }
    }
    if last {
        *initialized = true;
    } else if !passed {
        actions.start_init.push(index + 1);
    }
    let mut kill = |message: String, reason| {
        actions.kill.push(Kill { id: status.id.clone(), name: name.clone(), message, reason });
        actions.start_init.push(index);
    };
    if status.hash != container_hash(container) {
        kill(format!("Init container {name} definition changed"), KillReason::Other);
    } else if container.liveness_probe.is_some() && probes.liveness.get(&status.id) == Some(&false) {
        kill(format!("Init container {name} failed liveness probe"), KillReason::LivenessProbe);
    }
}
