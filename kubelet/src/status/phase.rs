//! The phase of a pod from its container statuses. Pure; upstream's `getPhase`.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use crate::pod::{PodExt, is_sidecar, should_restart_after};
use crate::runtime::state::{PodState, State};

/// Whether some regular container was ever started in a sandbox that is still there.
pub fn any_regular_started(pod: &Pod, state: &PodState) -> bool {
    let Some(sandbox) = state.ready_sandbox() else { return false };
    pod.pod_spec().containers.iter().any(|c| {
        state
            .containers
            .iter()
            .any(|s| s.name == c.name && s.sandbox == sandbox.id && matches!(s.state, State::Running | State::Exited))
    })
}

fn exit_code(container: &Container, pod: &Pod, code: i32) -> (bool, bool) {
    (code == 0, should_restart_after(container, pod, code))
}

/// `terminal`: nothing will be started any more. `initialized`: regular containers have run before.
pub fn phase(pod: &Pod, statuses: &[ContainerStatus], terminal: bool, initialized: bool) -> &'static str {
    let find = |name: &str| statuses.iter().find(|s| s.name == name);
    let (mut pending_init, mut pending_sidecars, mut failed_for_good) = (0, 0, 0);
    let (mut unknown, mut running, mut waiting, mut stopped, mut stopped_for_good, mut succeeded) = (0, 0, 0, 0, 0, 0);

    for container in pod.init_containers() {
        let status = find(&container.name);
        let state = status.and_then(|s| s.state.as_ref());
        let last = status.and_then(|s| s.last_state.as_ref()?.terminated.as_ref());
        if is_sidecar(container) {
            match (status, state) {
                (None, _) => unknown += 1,
                (Some(status), Some(state)) if state.running.is_some() => {
                    if status.started != Some(true) {
                        pending_sidecars += 1;
                    }
                    running += 1;
                }
                // A stopped sidecar says nothing about the phase.
                (_, Some(state)) if state.terminated.is_some() => {}
                (_, Some(state)) if state.waiting.is_some() => {
                    if last.is_none() {
                        pending_sidecars += 1;
                        waiting += 1;
                    }
                }
                _ => {
                    pending_sidecars += 1;
                    unknown += 1;
                }
            }
            continue;
        }
        let ended = match state {
            Some(state) if state.terminated.is_some() => state.terminated.as_ref(),
            Some(state) if state.waiting.is_some() => last,
            _ => None,
        };
        match ended {
            Some(ended) => {
                let (ok, again) = exit_code(container, pod, ended.exit_code);
                if !ok && !again {
                    failed_for_good += 1;
                }
            }
            None => pending_init += 1,
        }
    }

    for container in &pod.pod_spec().containers {
        let status = find(&container.name);
        let state = status.and_then(|s| s.state.as_ref());
        let last = status.and_then(|s| s.last_state.as_ref()?.terminated.as_ref());
        match state {
            Some(state) if state.running.is_some() => running += 1,
            Some(state) if state.terminated.is_some() => {
                let code = state.terminated.as_ref().map_or(0, |t| t.exit_code);
                let (ok, again) = exit_code(container, pod, code);
                stopped += 1;
                succeeded += usize::from(ok);
                stopped_for_good += usize::from(!again);
            }
            Some(state) if state.waiting.is_some() => match last {
                Some(ended) => {
                    stopped += 1;
                    stopped_for_good += usize::from(!exit_code(container, pod, ended.exit_code).1);
                }
                None => waiting += 1,
            },
            _ => unknown += 1,
        }
    }

    if failed_for_good > 0 {
        return "Failed";
    }
    if pending_init > 0 || (pending_sidecars > 0 && !initialized) || waiting > 0 {
        return "Pending";
    }
    if running > 0 && unknown == 0 {
        return "Running";
    }
    if running == 0 && stopped > 0 && unknown == 0 {
        let settled = if stopped == succeeded { "Succeeded" } else { "Failed" };
        if terminal && !pod.is_static() {
            return settled;
        }
        return if stopped != stopped_for_good { "Running" } else { settled };
    }
    "Pending"
}
