//! Pod statuses: generated from what the runtime holds (`containers`, `phase`, `conditions`), kept and
//! sent to the API by the manager.

mod conditions;
mod containers;
mod manager;
mod patch;
mod phase;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::PodExt;
use crate::probe;
use crate::resources;
use crate::runtime::Reasons;
use crate::runtime::state::PodState;

pub use conditions::KUBELET_CONDITIONS;
pub use manager::Manager;
pub use patch::patch;

/// What a status is generated from, besides the pod.
pub struct Inputs<'a> {
    pub state: &'a PodState,
    /// The status last generated, or the API's when there is none.
    pub old: &'a PodStatus,
    pub reasons: &'a Reasons,
    pub probes: &'a probe::Manager,
    /// Scheme of container ids.
    pub runtime_name: &'a str,
    pub host_ips: &'a [String],
    /// No container will be started any more: the phase has to be a final one.
    pub terminal: bool,
    /// A final phase that the kubelet itself decided on, with its reason and message.
    pub failed: Option<(&'a str, &'a str)>,
    pub now: Timestamp,
}

/// Whether a phase is final.
pub fn is_terminal_phase(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// The API's view of a pod.
pub fn generate(pod: &Pod, inputs: &Inputs<'_>) -> PodStatus {
    let old = inputs.old;
    let mut status = PodStatus {
        qos_class: Some(resources::qos_class(pod).as_str().into()),
        observed_generation: pod.metadata.generation,
        start_time: old.start_time.clone().or(Some(Time(inputs.now))),
        ..Default::default()
    };
    let kept: Vec<String> = old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    // A pod that has ended keeps showing the addresses it had.
    set_pod_ips(&mut status, if inputs.state.ready_sandbox().is_some() { &inputs.state.ips } else { &kept });
    containers::fill(pod, inputs, &mut status);
    let all: Vec<ContainerStatus> = [&status.container_statuses, &status.init_container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .cloned()
        .collect();
    let mut phase = phase::phase(pod, &all, inputs.terminal, phase::any_regular_started(pod, inputs.state));
    let old_phase = old.phase.as_deref().unwrap_or_default();
    for settled in [old_phase, pod.phase()] {
        if !is_terminal_phase(phase) && is_terminal_phase(settled) {
            phase = if settled == "Failed" { "Failed" } else { "Succeeded" };
        }
    }
    if phase == old_phase {
        let own = pod.status.as_ref();
        status.reason = old.reason.clone().or_else(|| own?.reason.clone());
        status.message = old.message.clone().or_else(|| own?.message.clone());
    }
    if let Some((reason, message)) = inputs.failed {
        phase = "Failed";
        status.reason = Some(reason.into());
        status.message = Some(message.into());
    }
    // A final phase that the API has is never left.
    if is_terminal_phase(pod.phase()) {
        phase = if pod.phase() == "Failed" { "Failed" } else { "Succeeded" };
    }
    status.phase = Some(phase.into());
    inputs.probes.fill_readiness(pod, &mut status);
    conditions::fill(pod, inputs, &mut status);
    set_host_ips(pod, &mut status, inputs.host_ips);
    status
}

fn set_pod_ips(status: &mut PodStatus, ips: &[String]) {
    // At most one of each family.
    let mut picked: Vec<String> = Vec::new();
    for v6 in [false, true] {
        picked.extend(ips.iter().find(|ip| ip.contains(':') == v6).cloned());
    }
    status.pod_ip = picked.first().cloned();
    status.pod_ips = (!picked.is_empty()).then(|| picked.into_iter().map(|ip| PodIP { ip }).collect());
}

fn set_host_ips(pod: &Pod, status: &mut PodStatus, host_ips: &[String]) {
    let Some(first) = host_ips.first() else { return };
    status.host_ip = Some(first.clone());
    status.host_ips = Some(host_ips.iter().take(2).map(|ip| HostIP { ip: ip.clone() }).collect());
    if pod.host_network() && status.pod_ip.is_none() {
        status.pod_ip = Some(first.clone());
        status.pod_ips = Some(host_ips.iter().take(2).map(|ip| PodIP { ip: ip.clone() }).collect());
    }
}
