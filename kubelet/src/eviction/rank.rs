//! Which pod goes first when something runs out. Pure; upstream's orders.

use std::cmp::Ordering;

use apimachinery::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::Pod;

use super::thresholds::{Shortage, Signal};
use crate::pod::PodExt;
use crate::resources;

/// What one container uses, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    pub name: String,
    pub memory: i64,
    /// Of its writable layer and its logs.
    pub disk: i64,
}

/// What one pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    pub containers: Vec<ContainerUsage>,
    /// Bytes of each emptyDir on disk, by volume name.
    pub empty_dirs: Vec<(String, i64)>,
    pub inodes: i64,
    pub processes: i64,
}

impl PodUsage {
    /// Bytes of working sets.
    pub fn memory(&self) -> i64 {
        self.containers.iter().map(|c| c.memory).sum()
    }

    /// Bytes of layers, logs and emptyDirs.
    pub fn disk(&self) -> i64 {
        self.containers.iter().map(|c| c.disk).sum::<i64>()
            + self.empty_dirs.iter().map(|(_, bytes)| bytes).sum::<i64>()
    }
}

/// Orders pods, the first to be evicted first.
pub fn rank<'a>(pods: &mut [(&'a Pod, Option<PodUsage>)], signal: Signal) {
    pods.sort_by(|(a, a_usage), (b, b_usage)| {
        let (Some(x), Some(y)) = (a_usage, b_usage) else {
            // What nobody knows anything about goes first.
            return a_usage.is_some().cmp(&b_usage.is_some());
        };
        let priority = |pod: &Pod| pod.pod_spec().priority.unwrap_or(0);
        let by_priority = priority(a).cmp(&priority(b));
        let by_excess = |a: (i64, i64), b: (i64, i64)| -> Ordering {
            let exceeds = (b.0 > b.1).cmp(&(a.0 > a.1));
            exceeds.then(by_priority).then((b.0 - b.1).cmp(&(a.0 - a.1)))
        };
        match signal {
            Signal::MemoryAvailable => by_excess(
                (x.memory(), resources::pod_memory_request(a)),
                (y.memory(), resources::pod_memory_request(b)),
            ),
            Signal::NodefsAvailable | Signal::ImagefsAvailable => {
                by_excess((x.disk(), resources::pod_storage_request(a)), (y.disk(), resources::pod_storage_request(b)))
            }
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => by_excess((x.inodes, 0), (y.inodes, 0)),
            Signal::PidAvailable => by_priority.then(y.processes.cmp(&x.processes)),
        }
    });
}

/// What the pod's status and event say.
pub fn message(pod: &Pod, usage: Option<&PodUsage>, shortage: &Shortage) -> String {
    let resource = shortage.threshold.signal.resource();
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        shortage.quantity, shortage.available
    );
    let containers = || pod.pod_spec().containers.iter().chain(pod.init_containers());
    for used in usage.into_iter().flat_map(|u| &u.containers) {
        let Some(container) = containers().find(|c| c.name == used.name) else { continue };
        let amount = match resource {
            "memory" => used.memory,
            "ephemeral-storage" => used.disk,
            _ => continue,
        };
        let request = container.resources.as_ref().and_then(|r| r.requests.as_ref()?.get(resource));
        if amount > request.map_or(0, resources::whole) {
            text.push_str(&format!(
                "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
                used.name,
                Quantity::new(amount, Format::BinarySI),
                request.map_or("0", |quantity| quantity.0.as_str()),
            ));
        }
    }
    text
}

/// Why a pod has to go that uses more of the disk than it may, whatever is left.
pub fn over_limit(pod: &Pod, usage: &PodUsage) -> Option<String> {
    for volume in pod.pod_spec().volumes.iter().flatten() {
        let Some(limit) = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref()) else { continue };
        let used = usage.empty_dirs.iter().find(|(name, _)| *name == volume.name).map_or(0, |(_, bytes)| *bytes);
        if resources::whole(limit) > 0 && used > resources::whole(limit) {
            return Some(format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, limit.0));
        }
    }
    let limits = resources::pod_resources(pod).limits;
    if let Some(limit) = limits.as_ref().and_then(|list| list.get("ephemeral-storage")) {
        if usage.disk() > resources::whole(limit) {
            let text = "Pod ephemeral local storage usage exceeds the total limit of containers";
            return Some(format!("{text} {}. ", limit.0));
        }
    }
    for used in &usage.containers {
        let container = pod.pod_spec().containers.iter().find(|c| c.name == used.name);
        let limit = container.and_then(|c| c.resources.as_ref()?.limits.as_ref()?.get("ephemeral-storage"));
        if let Some(limit) = limit.filter(|limit| resources::whole(limit) > 0 && used.disk > resources::whole(limit)) {
            let text = "exceeded its local ephemeral storage limit";
            return Some(format!("Container {} {text} {:?}. ", used.name, limit.0));
        }
    }
    None
}

/// Whether the disk that a pod uses has to be known even while there is plenty.
pub fn has_disk_limits(pod: &Pod) -> bool {
    let volumes = pod.pod_spec().volumes.iter().flatten();
    let mut volumes = volumes.filter_map(|v| v.empty_dir.as_ref()).filter(|e| e.medium.as_deref() != Some("Memory"));
    let containers = &pod.pod_spec().containers;
    volumes.any(|e| e.size_limit.is_some())
        || containers.iter().any(|c| {
            let limits = c.resources.as_ref().and_then(|r| r.limits.as_ref());
            limits.is_some_and(|list| list.contains_key("ephemeral-storage"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, request: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"memory": request, "ephemeral-storage": request}}}]}}))
        .unwrap()
    }

    fn uses(memory: i64, disk: i64) -> Option<PodUsage> {
        Some(PodUsage { containers: vec![ContainerUsage { name: "c".into(), memory, disk }], ..Default::default() })
    }

    fn order(pods: &[(&Pod, Option<PodUsage>)], signal: Signal) -> Vec<String> {
        let mut pods = pods.to_vec();
        rank(&mut pods, signal);
        pods.iter().map(|(pod, _)| pod.pod_name().to_owned()).collect()
    }

    #[test]
    fn those_above_their_requests_go_first_then_the_least_important_then_the_greediest() {
        let (within, over, big, important) =
            (pod("within", 0, "100"), pod("over", 0, "10"), pod("big", 0, "10"), pod("important", 9, "10"));
        let pods = [(&within, uses(90, 90)), (&important, uses(90, 90)), (&over, uses(20, 90)), (&big, uses(50, 20))];
        assert_eq!(order(&pods, Signal::MemoryAvailable), ["big", "over", "important", "within"]);
        assert_eq!(order(&pods, Signal::NodefsAvailable), ["over", "big", "important", "within"]);
        let unknown = pod("unknown", 9, "1");
        assert_eq!(order(&[(&big, uses(50, 1)), (&unknown, None)], Signal::MemoryAvailable)[0], "unknown");
    }

    #[test]
    fn limits_of_the_disk_hold_without_a_shortage() {
        let limited: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "10"}}],
            "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "100"}}}]}}))
        .unwrap();
        assert!(has_disk_limits(&limited) && !has_disk_limits(&pod("p", 0, "1")));
        let mut usage = uses(0, 50).unwrap();
        assert_eq!(over_limit(&limited, &usage), None);
        usage.empty_dirs.push(("v".into(), 11));
        assert_eq!(over_limit(&limited, &usage).unwrap(), "Usage of EmptyDir volume \"v\" exceeds the limit \"10\". ");
        usage.empty_dirs.clear();
        usage.containers[0].disk = 101;
        assert!(over_limit(&limited, &usage).unwrap().starts_with("Pod ephemeral local storage usage exceeds"));
    }
}
