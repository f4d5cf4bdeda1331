//! Pod statuses: generated from what the runtime holds (`containers`, `phase`, `conditions`), kept and
//! sent to the API by the manager.

mod conditions;
mod containers;
mod manager;
mod patch;
mod phase;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use apimachinery::quantity::{Format, Quantity as Amount};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::PodExt;
use crate::probe;
use crate::resources::{self, CgroupConfig};
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
    /// What running containers were last set to, by name.
    pub actuated: &'a BTreeMap<String, ResourceRequirements>,
    /// What the pod's own cgroup is set to, where it has one.
    pub cgroup: Option<&'a CgroupConfig>,
    /// Conditions that speak of a resize.
    pub resize: &'a [PodCondition],
    pub now: Timestamp,
}

/// Shares that every cgroup has, as a number of milli-CPUs.
const LEAST_SHARES: i64 = 2;
/// Milli-CPUs of the least quota that the kernel takes.
const LEAST_LIMIT: i64 = 10;

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
    let granted = resources::pod_resources(pod);
    status.resources = Some(match inputs.cgroup.filter(|_| pod.phase() == "Running") {
        Some(cgroup) => in_effect(&granted, pod, cgroup),
        None => granted.clone(),
    });
    status.allocated_resources = granted.requests;
    inputs.probes.fill_readiness(pod, &mut status);
    conditions::fill(pod, inputs, &mut status);
    set_host_ips(pod, &mut status, inputs.host_ips);
    status
}

/// The pod's resources as its cgroup has them. What the cgroup does not tell is as it was granted.
fn in_effect(granted: &ResourceRequirements, pod: &Pod, cgroup: &CgroupConfig) -> ResourceRequirements {
    let level = pod.pod_spec().resources.clone().unwrap_or_default();
    let (mut requests, mut limits) = (level.requests.unwrap_or_default(), level.limits.unwrap_or_default());
    let milli = |value: i64| Quantity(Amount::from_milli(value, Format::DecimalSI).to_string());
    // At the least the kernel takes, the smaller amount that was granted is shown instead.
    let request = resources::milli_of_shares(cgroup.cpu_shares.unwrap_or(0));
    if request > LEAST_SHARES || resources::milli_cpu(Some(&requests)) > LEAST_SHARES {
        requests.insert("cpu".into(), milli(request));
    }
    if let Some(memory) = granted.requests.as_ref().and_then(|list| list.get("memory")) {
        requests.entry("memory".into()).or_insert_with(|| memory.clone());
    }
    let limit = cgroup.cpu_quota.filter(|quota| *quota > 0).map(|quota| quota * 1000 / resources::QUOTA_PERIOD);
    if let Some(limit) = limit.filter(|l| *l > LEAST_LIMIT || resources::milli_cpu(Some(&limits)) > LEAST_LIMIT) {
        limits.insert("cpu".into(), milli(limit));
    }
    if let Some(bytes) = cgroup.memory {
        limits.insert("memory".into(), Quantity(Amount::new(bytes, Format::BinarySI).to_string()));
    }
    let some = |list: BTreeMap<String, Quantity>| (!list.is_empty()).then_some(list);
    ResourceRequirements { requests: some(requests), limits: some(limits), claims: None }
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
