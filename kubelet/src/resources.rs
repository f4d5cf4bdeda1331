//! Compute resources of pods: sums, QoS class, cgroup settings and OOM scores (KEP-2837 included).
//!
//! Pure arithmetic over quantities, in milli-CPUs and bytes.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::{PodExt, is_sidecar};

/// The cgroup period in microseconds.
pub const QUOTA_PERIOD: i64 = 100_000;
/// The least quota the kernel takes, in microseconds.
const MIN_QUOTA: i64 = 1_000;
const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qos {
    /// Limits equal requests for CPU and memory in every container.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl Qos {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// One amount, or nothing when it is missing or unreadable (the API server validated it).
fn amount(list: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<Amount> {
    Amount::parse(&list?.get(name)?.0).ok()
}

/// CPU in milli-CPUs; zero when absent.
pub fn milli_cpu(list: Option<&BTreeMap<String, Quantity>>) -> i64 {
    amount(list, "cpu").map_or(0, |q| q.milli_value())
}

/// Memory in bytes; zero when absent.
pub fn memory(list: Option<&BTreeMap<String, Quantity>>) -> i64 {
    amount(list, "memory").map_or(0, |q| q.value())
}

/// A quantity's value rounded up to a whole number, zero if unreadable.
pub fn whole(quantity: &Quantity) -> i64 {
    Amount::parse(&quantity.0).map_or(0, |q| q.value())
}

fn requests(container: &Container) -> Option<&BTreeMap<String, Quantity>> {
    container.resources.as_ref()?.requests.as_ref()
}

fn limits(container: &Container) -> Option<&BTreeMap<String, Quantity>> {
    container.resources.as_ref()?.limits.as_ref()
}

/// The class that decides the cgroup parent and the OOM score.
pub fn qos_class(pod: &Pod) -> Qos {
    let mut request_totals: BTreeMap<&str, i128> = BTreeMap::new();
    let mut limit_totals: BTreeMap<&str, i128> = BTreeMap::new();
    let mut guaranteed = true;
    let mut add = |resources: Option<&ResourceRequirements>| {
        let lists = resources.map(|r| (r.requests.as_ref(), r.limits.as_ref())).unwrap_or_default();
        let mut limited = 0;
        for name in ["cpu", "memory"] {
            if let Some(q) = amount(lists.0, name).filter(|q| q.sign() > 0) {
                *request_totals.entry(name).or_default() += i128::from(q.milli_value());
            }
            if let Some(q) = amount(lists.1, name).filter(|q| q.sign() > 0) {
                *limit_totals.entry(name).or_default() += i128::from(q.milli_value());
                limited += 1;
            }
        }
        limited == 2
    };
    if let Some(resources) = &pod.pod_spec().resources {
        guaranteed &= add(Some(resources));
    } else {
        for container in pod.pod_spec().containers.iter().chain(pod.init_containers()) {
            guaranteed &= add(container.resources.as_ref());
        }
    }
    if request_totals.is_empty() && limit_totals.is_empty() {
        Qos::BestEffort
    } else if guaranteed && request_totals == limit_totals {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// What a pod needs as a whole: regular containers and sidecars together, or the widest moment of
/// initialization if that is more; overhead on top; pod-level values in place of the sums.
pub fn pod_total(
    pod: &Pod,
    of: impl Fn(&Container) -> i64,
    pod_level: impl Fn(&ResourceRequirements) -> Option<i64>,
    overhead: i64,
) -> i64 {
    let running: i64 = pod.pod_spec().containers.iter().map(&of).sum();
    let mut sidecars = 0;
    let mut widest = 0;
    for init in pod.init_containers() {
        if is_sidecar(init) {
            sidecars += of(init);
            widest = widest.max(sidecars);
        } else {
            widest = widest.max(sidecars + of(init));
        }
    }
    let sum = (running + sidecars).max(widest);
    pod.pod_spec().resources.as_ref().and_then(pod_level).unwrap_or(sum) + overhead
}

fn overhead(pod: &Pod) -> Option<&BTreeMap<String, Quantity>> {
    pod.pod_spec().overhead.as_ref()
}

/// CPU requests of the pod in milli-CPUs.
pub fn pod_cpu_request(pod: &Pod) -> i64 {
    pod_total(
        pod,
        |c| milli_cpu(requests(c)),
        |r| amount(r.requests.as_ref(), "cpu").map(|q| q.milli_value()),
        milli_cpu(overhead(pod)),
    )
}

/// Memory requests of the pod in bytes.
pub fn pod_memory_request(pod: &Pod) -> i64 {
    pod_total(
        pod,
        |c| memory(requests(c)),
        |r| amount(r.requests.as_ref(), "memory").map(|q| q.value()),
        memory(overhead(pod)),
    )
}

/// Requests of local storage of the pod in bytes.
pub fn pod_storage_request(pod: &Pod) -> i64 {
    let of = |list: Option<&BTreeMap<String, Quantity>>| amount(list, "ephemeral-storage").map_or(0, |q| q.value());
    pod_total(pod, |c| of(requests(c)), |_| None, of(overhead(pod)))
}

/// What the pod asks for and may use as a whole, of every resource that some part of it names; pod-level
/// values win for those that can have one.
pub fn pod_resources(pod: &Pod) -> ResourceRequirements {
    let total = |of: &dyn Fn(&ResourceRequirements) -> Option<&BTreeMap<String, Quantity>>| {
        let mut names: Vec<&String> = Vec::new();
        let own = |r: &'_ Option<ResourceRequirements>| r.as_ref().and_then(of).cloned().unwrap_or_default();
        let containers = || pod.pod_spec().containers.iter().chain(pod.init_containers());
        names.extend(containers().filter_map(|c| of(c.resources.as_ref()?)).flat_map(BTreeMap::keys));
        names.extend(pod.pod_spec().resources.as_ref().and_then(of).into_iter().flat_map(BTreeMap::keys));
        let mut out = BTreeMap::new();
        for name in names {
            let at = |list: &BTreeMap<String, Quantity>| list.get(name).and_then(|q| Amount::parse(&q.0).ok());
            let add = |sum: &mut Option<Amount>, more: Option<Amount>| match (sum.as_mut(), more) {
                (Some(sum), Some(more)) => sum.add(&more),
                (None, Some(more)) => *sum = Some(more),
                _ => {}
            };
            let wider = |a: Option<Amount>, b: Option<Amount>| match (a, b) {
                (Some(a), Some(b)) => {
                    let mut difference = a.clone();
                    difference.sub(&b);
                    Some(if difference.sign() < 0 { b } else { a })
                }
                (a, b) => a.or(b),
            };
            let (mut running, mut sidecars, mut widest) = (None, None, None);
            for container in &pod.pod_spec().containers {
                add(&mut running, at(&own(&container.resources)));
            }
            for init in pod.init_containers() {
                let mut moment = sidecars.clone();
                add(&mut moment, at(&own(&init.resources)));
                if is_sidecar(init) {
                    sidecars = moment.clone();
                }
                widest = wider(widest, moment);
            }
            add(&mut running, sidecars);
            let mut sum = wider(running, widest);
            if let Some(level) = at(&own(&pod.pod_spec().resources)) {
                sum = Some(level);
            }
            let extra = overhead(pod).and_then(at);
            if sum.as_ref().is_some_and(|sum| !sum.is_zero()) {
                add(&mut sum, extra);
            }
            if let Some(sum) = sum {
                out.insert(name.clone(), Quantity(sum.to_string()));
            }
        }
        (!out.is_empty()).then_some(out)
    };
    ResourceRequirements {
        requests: total(&|r| r.requests.as_ref()),
        limits: total(&|r| r.limits.as_ref()),
        claims: None,
    }
}

fn pod_cpu_limit(pod: &Pod, with_overhead: bool) -> i64 {
    pod_total(
        pod,
        |c| milli_cpu(limits(c)),
        |r| amount(r.limits.as_ref(), "cpu").map(|q| q.milli_value()),
        if with_overhead { milli_cpu(overhead(pod)) } else { 0 },
    )
}

fn pod_memory_limit(pod: &Pod, with_overhead: bool) -> i64 {
    pod_total(
        pod,
        |c| memory(limits(c)),
        |r| amount(r.limits.as_ref(), "memory").map(|q| q.value()),
        if with_overhead { memory(overhead(pod)) } else { 0 },
    )
}

/// CPU in milli-CPUs and memory in bytes; zero where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu_request: i64,
    pub cpu_limit: i64,
    pub memory_request: i64,
    pub memory_limit: i64,
}

impl Amounts {
    /// Of a container; limits that it does not have are the pod's.
    pub fn of(container: Option<&ResourceRequirements>, pod: Option<&ResourceRequirements>) -> Self {
        let requests = container.and_then(|r| r.requests.as_ref());
        let limits = |of: fn(Option<&BTreeMap<String, Quantity>>) -> i64| {
            let own = of(container.and_then(|r| r.limits.as_ref()));
            if own == 0 { of(pod.and_then(|r| r.limits.as_ref())) } else { own }
        };
        Self {
            cpu_request: milli_cpu(requests),
            cpu_limit: limits(milli_cpu),
            memory_request: memory(requests),
            memory_limit: limits(memory),
        }
    }
}

/// cgroup v1 shares for a CPU request.
pub fn shares(milli: i64) -> u64 {
    (u64::try_from(milli).unwrap_or(0) * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// The CPU request, in milli-CPUs, that shares stand for.
pub fn milli_of_shares(shares: u64) -> i64 {
    if shares < MIN_SHARES { 0 } else { i64::try_from((shares * 1000).div_ceil(1024)).unwrap_or(i64::MAX) }
}

/// CFS quota for a CPU limit; zero means no limit.
pub fn quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli * QUOTA_PERIOD / 1000).max(MIN_QUOTA) }
}

/// Settings of a pod's own cgroup; `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupConfig {
    /// `cpu.shares`, or `cpu.weight` after conversion.
    pub cpu_shares: Option<u64>,
    /// Microseconds per [`QUOTA_PERIOD`]; -1 for unlimited.
    pub cpu_quota: Option<i64>,
    /// Bytes.
    pub memory: Option<i64>,
    /// Tasks.
    pub pids: Option<i64>,
}

/// The limits of the cgroup that holds all of a pod's containers.
pub fn pod_cgroup(pod: &Pod, enforce_cpu_limits: bool, pids: Option<i64>) -> CgroupConfig {
    let class = qos_class(pod);
    if class == Qos::BestEffort {
        return CgroupConfig { cpu_shares: Some(MIN_SHARES), pids, ..Default::default() };
    }
    let all = || pod.pod_spec().containers.iter().chain(pod.init_containers());
    let pod_level = pod.pod_spec().resources.as_ref().and_then(|r| r.limits.as_ref());
    let cpu_declared =
        class == Qos::Guaranteed || milli_cpu(pod_level) != 0 || all().all(|c| milli_cpu(limits(c)) != 0);
    let memory_declared = class == Qos::Guaranteed || memory(pod_level) != 0 || all().all(|c| memory(limits(c)) != 0);
    let cpu_quota = if enforce_cpu_limits { quota(pod_cpu_limit(pod, true)) } else { -1 };
    CgroupConfig {
        cpu_shares: Some(shares(pod_cpu_request(pod))),
        cpu_quota: cpu_declared.then_some(cpu_quota),
        memory: memory_declared.then(|| pod_memory_limit(pod, true)),
        pids,
    }
}

/// Settings of one container, in CRI's terms.
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    memory_capacity: i64,
    cfs_quota: bool,
) -> proto::cri::LinuxContainerResources {
    let pod_level = pod.pod_spec().resources.as_ref().and_then(|r| r.limits.as_ref());
    let or_pod = |own: i64, pod: i64| if own == 0 { pod } else { own };
    let cpu_limit = or_pod(milli_cpu(limits(container)), milli_cpu(pod_level));
    let memory_limit = or_pod(memory(limits(container)), memory(pod_level));
    let cpu_request = amount(requests(container), "cpu").map_or(cpu_limit, |q| q.milli_value());
    proto::cri::LinuxContainerResources {
        cpu_shares: i64::try_from(shares(cpu_request)).unwrap_or(1024),
        cpu_quota: if cfs_quota { quota(cpu_limit) } else { 0 },
        cpu_period: if cfs_quota { QUOTA_PERIOD } else { 0 },
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score_adj(pod, container, memory_capacity),
        ..Default::default()
    }
}

/// Settings that the runtime may want for a whole sandbox, overhead apart.
pub fn sandbox_resources(pod: &Pod) -> proto::cri::LinuxContainerResources {
    let cpu_request = pod_cpu_request(pod) - milli_cpu(overhead(pod));
    linux_resources(cpu_request, pod_cpu_limit(pod, false), pod_memory_limit(pod, false))
}

/// The runtime class' overhead.
pub fn overhead_resources(pod: &Pod) -> proto::cri::LinuxContainerResources {
    match overhead(pod) {
        None => Default::default(),
        Some(list) => linux_resources(milli_cpu(Some(list)), milli_cpu(Some(list)), memory(Some(list))),
    }
}

fn linux_resources(cpu_request: i64, cpu_limit: i64, memory_limit: i64) -> proto::cri::LinuxContainerResources {
    let request = if cpu_request == 0 { cpu_limit } else { cpu_request };
    proto::cri::LinuxContainerResources {
        cpu_shares: i64::try_from(shares(request)).unwrap_or(1024),
        cpu_quota: quota(cpu_limit),
        cpu_period: QUOTA_PERIOD,
        memory_limit_in_bytes: memory_limit,
        ..Default::default()
    }
}

/// How eagerly the kernel kills the container when memory runs out: guaranteed last, best effort first,
/// burstable by the share of the node's memory that it asked for.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    // system-node-critical's priority value.
    if pod.pod_spec().priority == Some(2_000_001_000) {
        return GUARANTEED;
    }
    match qos_class(pod) {
        Qos::Guaranteed => return GUARANTEED,
        Qos::BestEffort => return BEST_EFFORT,
        Qos::Burstable => {}
    }
    let capacity = memory_capacity.max(1);
    let spec = pod.pod_spec();
    let score = |bytes: i64| 1000 - 1000 * bytes / capacity;
    let everyone = || spec.containers.iter().chain(pod.init_containers());
    let pod_request = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let extra = match pod_request {
        Some(list) if memory(Some(list)) > 0 => {
            let used: i64 = everyone().map(|c| memory(requests(c))).sum();
            let count = i64::try_from(everyone().count()).unwrap_or(1).max(1);
            (memory(Some(list)) - used).max(0) / count
        }
        _ => 0,
    };
    let mut adjust = score(memory(requests(container)) + extra);
    if pod.init_containers().iter().any(|c| is_sidecar(c) && c.name == container.name) {
        // A sidecar must not die before the containers it serves.
        let least = spec.containers.iter().map(|c| memory(requests(c))).min().unwrap_or(0);
        adjust = adjust.min(score(least + extra));
    }
    if adjust < 1000 + GUARANTEED {
        1000 + GUARANTEED
    } else if adjust == BEST_EFFORT {
        BEST_EFFORT - 1
    } else {
        adjust
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn with(resources: serde_json::Value) -> Pod {
        pod(json!({"containers": [{"name": "a", "resources": resources}]}))
    }

    #[test]
    fn classes() {
        assert_eq!(qos_class(&with(json!({}))), Qos::BestEffort);
        assert_eq!(qos_class(&with(json!({"requests": {"cpu": "1"}}))), Qos::Burstable);
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos_class(&with(json!({"requests": both, "limits": both}))), Qos::Guaranteed);
        assert_eq!(
            qos_class(&with(json!({"requests": both, "limits": {"cpu": "2", "memory": "1Gi"}}))),
            Qos::Burstable
        );
        assert_eq!(qos_class(&with(json!({"requests": {"cpu": "0"}}))), Qos::BestEffort);
        assert_eq!(
            qos_class(&pod(json!({"containers": [{"name": "a"}], "resources": {"requests": both, "limits": both}}))),
            Qos::Guaranteed
        );
    }

    #[test]
    fn cgroups_of_pods() {
        let burstable = pod(json!({"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m", "memory": "64Mi"}}},
            {"name": "b", "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}}]}));
        let config = pod_cgroup(&burstable, true, Some(10));
        assert_eq!(
            config,
            CgroupConfig { cpu_shares: Some(204), cpu_quota: None, memory: Some(128 << 20), pids: Some(10) }
        );
        assert_eq!(pod_cgroup(&with(json!({})), true, None).cpu_shares, Some(2));
    }

    #[test]
    fn init_containers_count_at_their_widest() {
        let pod = pod(json!({
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "1"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}]}));
        assert_eq!(pod_cpu_request(&pod), 1100);
    }

    #[test]
    fn oom_scores() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let guaranteed = with(json!({"requests": both, "limits": both}));
        let capacity = 10i64 << 30;
        let of = |p: &Pod| oom_score_adj(p, &p.pod_spec().containers[0], capacity);
        assert_eq!(of(&guaranteed), -997);
        assert_eq!(of(&with(json!({}))), 1000);
        assert_eq!(of(&with(json!({"requests": {"memory": "1Gi"}}))), 900);
        assert_eq!(of(&with(json!({"requests": {"cpu": "1"}}))), 999);
        assert_eq!(of(&with(json!({"requests": {"memory": "10Gi"}}))), 3);
    }

    #[test]
    fn container_settings_fall_back_from_request_to_limit() {
        let p = with(json!({"limits": {"cpu": "500m", "memory": "32Mi"}}));
        let r = container_resources(&p, &p.pod_spec().containers[0], 1 << 30, true);
        assert_eq!(
            (r.cpu_shares, r.cpu_quota, r.cpu_period, r.memory_limit_in_bytes),
            (512, 50_000, 100_000, 32 << 20)
        );
    }
}
