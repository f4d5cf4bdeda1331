//! Container statuses from the runtime's view, the last status and the reasons of failures. Pure;
//! upstream's `convertToAPIContainerStatuses`.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, LinuxContainerUser, Pod, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Inputs;
use crate::pod::{PodExt, ephemeral_as_container, is_sidecar};
use crate::runtime::actions::{any_regular_created, should_start};
use crate::runtime::state::{Container, State};

/// All termination messages of a pod together may be this long.
const MAX_MESSAGES: usize = 12 * 1024;

/// Fills the three lists.
pub fn fill(pod: &Pod, inputs: &Inputs<'_>, status: &mut PodStatus) {
    let old = inputs.old;
    let none = |list: Vec<ContainerStatus>| (!list.is_empty()).then_some(list);
    let regular = &pod.pod_spec().containers;
    let mut containers = convert(pod, inputs, regular, old.container_statuses.as_deref(), false);
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    let init = convert(pod, inputs, pod.init_containers(), old.init_container_statuses.as_deref(), true);
    let ephemeral: Vec<Spec> = pod.ephemeral_containers().iter().map(ephemeral_as_container).collect();
    let mut ephemeral = convert(pod, inputs, &ephemeral, old.ephemeral_container_statuses.as_deref(), false);
    ephemeral.sort_by(|a, b| a.name.cmp(&b.name));
    let count = containers.len() + init.len() + ephemeral.len();
    status.container_statuses = none(containers);
    status.init_container_statuses = none(init);
    status.ephemeral_container_statuses = none(ephemeral);
    let limit = MAX_MESSAGES / count.max(1);
    for list in
        [&mut status.container_statuses, &mut status.init_container_statuses, &mut status.ephemeral_container_statuses]
    {
        for state in list.iter_mut().flatten().flat_map(|s| [&mut s.state, &mut s.last_state]).flatten() {
            if let Some(message) = state.terminated.as_mut().and_then(|t| t.message.as_mut()) {
                message.truncate(message.floor_char_boundary(limit));
            }
        }
    }
}

fn convert(
    pod: &Pod,
    inputs: &Inputs<'_>,
    specs: &[Spec],
    previous: Option<&[ContainerStatus]>,
    init: bool,
) -> Vec<ContainerStatus> {
    let old: HashMap<&str, &ContainerStatus> =
        previous.unwrap_or_default().iter().map(|s| (s.name.as_str(), s)).collect();
    let default_reason = if pod.init_containers().is_empty() { "ContainerCreating" } else { "PodInitializing" };
    specs
        .iter()
        .map(|spec| {
            let old = old.get(spec.name.as_str()).copied();
            let mut found = inputs.state.containers.iter().filter(|c| c.name == spec.name);
            let mut status = match (found.next(), old) {
                (Some(newest), old) => {
                    let mut status = from_runtime(spec, newest, old, inputs.runtime_name);
                    if newest.state == State::Running
                        && let Some(set) = inputs.actuated.get(&spec.name)
                    {
                        status.resources = status.resources.map(|granted| in_effect(granted, set));
                    }
                    if let Some(before) = found.next() {
                        status.last_state = Some(state_of(before, None, inputs.runtime_name));
                    }
                    status
                }
                (None, old) => vanished(pod, spec, old, default_reason),
            };
            waiting(pod, inputs, spec, init, &mut status);
            status
        })
        .collect()
}

/// A container that the runtime does not have: not made yet, or lost.
fn vanished(pod: &Pod, spec: &Spec, old: Option<&ContainerStatus>, default_reason: &str) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        state: Some(wait_state(default_reason, None)),
        last_state: Some(ContainerState::default()),
        volume_mounts: volume_mounts(spec),
        ..Default::default()
    };
    let Some(old) = old else { return status };
    let old_state = old.state.clone().unwrap_or_default();
    if old_state.terminated.is_some() {
        return old.clone();
    }
    status.restart_count = old.restart_count;
    status.last_state = old.last_state.clone().or(status.last_state);
    let ended_before = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    if old_state.running.is_some() && !ended_before {
        // It ran when last seen: say that it ended, or the pod would seem never to have started.
        status.last_state = Some(terminated(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".into()),
            message: Some(
                "The container could not be located when the pod was deleted.  The container used to be Running".into(),
            ),
            exit_code: 137,
            ..Default::default()
        }));
        if !pod.is_deleted() {
            status.restart_count += 1;
        }
    }
    status
}

fn from_runtime(spec: &Spec, container: &Container, old: Option<&ContainerStatus>, runtime: &str) -> ContainerStatus {
    let resources = spec.resources.clone().unwrap_or_default();
    let mut status = ContainerStatus {
        name: spec.name.clone(),
        image: container.image.clone(),
        image_id: container.image_ref.clone(),
        container_id: Some(format!("{runtime}://{}", container.id)),
        restart_count: i32::try_from(container.restart_count).unwrap_or(i32::MAX),
        state: Some(state_of(container, old, runtime)),
        last_state: Some(ContainerState::default()),
        allocated_resources: resources.requests.clone(),
        resources: Some(resources),
        user: container.user.as_ref().map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: (!user.supplemental_groups.is_empty()).then(|| user.supplemental_groups.clone()),
            }),
        }),
        stop_signal: container.stop_signal.clone(),
        volume_mounts: volume_mounts(spec),
        ..Default::default()
    };
    let Some(old) = old else { return status };
    let lost = container.state == State::Unknown && old.state.as_ref().is_some_and(|s| s.running.is_some());
    if lost {
        status.restart_count = old.restart_count + 1;
    }
    status.restart_count = status.restart_count.max(old.restart_count);
    // The previous instance may have been collected: what was known of its end is kept.
    let ended = old.state.as_ref().and_then(|s| s.terminated.clone());
    let ended_before = old.last_state.as_ref().and_then(|s| s.terminated.clone());
    let last = if old.container_id != status.container_id { ended.or(ended_before) } else { ended_before };
    if let Some(last) = last {
        status.last_state = Some(terminated(last));
    }
    status
}

/// What was granted, with the CPU and memory that a running container was last set to.
fn in_effect(mut granted: ResourceRequirements, set: &ResourceRequirements) -> ResourceRequirements {
    for (shown, set) in [(&mut granted.requests, &set.requests), (&mut granted.limits, &set.limits)] {
        for name in ["cpu", "memory"] {
            if let (Some(shown), Some(amount)) = (shown.as_mut(), set.as_ref().and_then(|list| list.get(name))) {
                shown.insert(name.to_owned(), amount.clone());
            }
        }
    }
    granted
}

fn state_of(container: &Container, old: Option<&ContainerStatus>, runtime: &str) -> ContainerState {
    match container.state {
        State::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(container.started_at) }),
            ..Default::default()
        },
        State::Created => ContainerState { waiting: Some(ContainerStateWaiting::default()), ..Default::default() },
        State::Exited => terminated(ContainerStateTerminated {
            container_id: Some(format!("{runtime}://{}", container.id)),
            exit_code: container.exit_code,
            reason: some(&container.reason),
            message: some(&container.message),
            started_at: time(container.started_at),
            finished_at: time(container.finished_at),
            signal: None,
        }),
        State::Unknown if old.and_then(|o| o.state.as_ref()).is_some_and(|s| s.running.is_some()) => {
            terminated(ContainerStateTerminated {
                reason: Some("ContainerStatusUnknown".into()),
                message: Some("The container could not be located when the pod was terminated".into()),
                exit_code: 137,
                ..Default::default()
            })
        }
        State::Unknown => ContainerState { waiting: Some(ContainerStateWaiting::default()), ..Default::default() },
    }
}

/// A container that is to be started and could not be shows why.
fn waiting(pod: &Pod, inputs: &Inputs<'_>, spec: &Spec, init: bool, status: &mut ContainerStatus) {
    let newest = inputs.state.find(&spec.name);
    if init {
        if newest.is_some_and(|c| c.state == State::Exited && c.exit_code == 0) {
            return;
        }
        let is_waiting = status.state.as_ref().is_some_and(|s| s.waiting.is_some());
        if newest.is_none() && !is_sidecar(spec) && is_waiting && any_regular_created(pod, inputs.state) {
            status.state = Some(terminated(ContainerStateTerminated {
                reason: Some("Completed".into()),
                message: Some(
                    "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"
                        .into(),
                ),
                exit_code: 0,
                ..Default::default()
            }));
            return;
        }
    }
    if !should_start(spec, pod, inputs.state) {
        return;
    }
    let Some(failure) = inputs.reasons.get(pod.uid(), &spec.name) else { return };
    if let Some(ended) = status.state.as_mut().and_then(|s| s.terminated.take()) {
        status.last_state = Some(terminated(ended));
    }
    status.state = Some(wait_state(&failure.reason, some(&failure.message)));
}

fn wait_state(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message }),
        ..Default::default()
    }
}

fn terminated(state: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(state), ..Default::default() }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn time(nanoseconds: i64) -> Option<Time> {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok().filter(|_| nanoseconds > 0).map(Time)
}

fn volume_mounts(spec: &Spec) -> Option<Vec<VolumeMountStatus>> {
    let mounts: Vec<VolumeMountStatus> = spec
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only.filter(|r| *r),
            recursive_read_only: mount.read_only.filter(|r| *r).map(|_| "Disabled".into()),
            ..Default::default()
        })
        .collect();
    (!mounts.is_empty()).then_some(mounts)
}
