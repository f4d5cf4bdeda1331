//! Compute resources as integers, and what a pod asks of them.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;

use crate::objects::{Container, Pod, ResourceList};

/// A container without a CPU request counts as this much (milli) when nodes are scored, so that
/// pods without requests do not pile up on one node.
pub const DEFAULT_MILLI_CPU_REQUEST: i64 = 100;
/// The same for memory (bytes).
pub const DEFAULT_MEMORY_REQUEST: i64 = 200 * 1024 * 1024;

/// An amount of every resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resource {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// How many pods; only of nodes.
    pub pods: i64,
    /// Extended resources, huge pages and the like.
    pub scalar: BTreeMap<String, i64>,
}

impl Resource {
    /// Reads a list of quantities. Text that is no quantity cannot pass the API's validation and
    /// counts as zero.
    pub fn from_list(list: &ResourceList) -> Self {
        let mut out = Self::default();
        for (name, text) in list {
            let Ok(quantity) = Quantity::parse(&text.0) else { continue };
            match name.as_str() {
                "cpu" => out.milli_cpu = quantity.milli_value(),
                "memory" => out.memory = quantity.value(),
                "ephemeral-storage" => out.ephemeral_storage = quantity.value(),
                "pods" => out.pods = quantity.value(),
                other => {
                    out.scalar.insert(other.to_owned(), quantity.value());
                }
            }
        }
        out
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    /// Takes `other` away.
    pub fn sub(&mut self, other: &Self) {
        self.combine(other, |a, b| a.saturating_sub(b));
    }

    /// The larger of both, resource by resource.
    pub fn max(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let entry = self.scalar.entry(name.clone()).or_default();
            *entry = with(*entry, *amount);
        }
    }

    /// By the API's name.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            other => self.scalar.get(other).copied().unwrap_or(0),
        }
    }

    /// Whether nothing is asked for.
    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0 && self.memory == 0 && self.ephemeral_storage == 0 && self.scalar.values().all(|v| *v == 0)
    }
}

/// What the pod asks for: containers run together, init containers one after another before them,
/// restartable init containers (sidecars) beside everything that starts after them.
pub fn pod_requests(pod: &Pod) -> Resource {
    requests_of(pod, |container| Resource::from_list(&container.resources.requests))
}

/// The same, counting [`DEFAULT_MILLI_CPU_REQUEST`] and [`DEFAULT_MEMORY_REQUEST`] for containers
/// that do not say.
pub fn pod_requests_non_zero(pod: &Pod) -> Resource {
    requests_of(pod, |container| {
        let mut requests = Resource::from_list(&container.resources.requests);
        if !container.resources.requests.contains_key("cpu") {
            requests.milli_cpu = DEFAULT_MILLI_CPU_REQUEST;
        }
        if !container.resources.requests.contains_key("memory") {
            requests.memory = DEFAULT_MEMORY_REQUEST;
        }
        requests
    })
}

fn requests_of(pod: &Pod, of: impl Fn(&Container) -> Resource) -> Resource {
    let mut total = Resource::default();
    for container in &pod.spec.containers {
        total.add(&of(container));
    }
    let mut sidecars = Resource::default();
    let mut init = Resource::default();
    for container in &pod.spec.init_containers {
        let mut requests = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&requests);
            sidecars.add(&requests);
            requests = sidecars.clone();
        } else {
            // Sidecars started before it are still running.
            requests.add(&sidecars);
        }
        init.max(&requests);
    }
    total.max(&init);
    // Requests of the pod as a whole replace those of its containers (KEP-2837).
    if let Some(resources) = &pod.spec.resources {
        let whole = Resource::from_list(&resources.requests);
        for name in resources.requests.keys() {
            match name.as_str() {
                "cpu" => total.milli_cpu = whole.milli_cpu,
                "memory" => total.memory = whole.memory,
                other if other.starts_with("hugepages-") => {
                    total.scalar.insert(other.to_owned(), whole.get(other));
                }
                _ => {}
            }
        }
    }
    total.add(&Resource::from_list(&pod.spec.overhead));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: serde_json::Value, cpu: i64, memory: i64) {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let requests = pod_requests(&pod);
        assert_eq!((requests.milli_cpu, requests.memory), (cpu, memory), "{spec}");
    }

    #[test]
    fn requests_of_pods() {
        let c = |cpu: &str, memory: &str| json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}});
        let side = |cpu: &str, memory: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu, "memory": memory}}});
        check(json!({"containers": [c("1", "1Gi"), c("500m", "1G")]}), 1500, (1 << 30) + 1_000_000_000);
        check(json!({"containers": [c("1", "1")], "initContainers": [c("3", "0"), c("2", "5")]}), 3000, 5);
        check(json!({"containers": [c("1", "1")], "initContainers": [side("1", "1"), c("3", "1")]}), 4000, 2);
        check(json!({"containers": [c("1", "1")], "initContainers": [c("3", "1"), side("1", "1")]}), 3000, 2);
        check(json!({"containers": [c("1", "1")], "overhead": {"cpu": "250m", "memory": "9"}}), 1250, 10);
        check(json!({"containers": [c("1", "1")], "resources": {"requests": {"cpu": "5"}}}), 5000, 1);
        check(json!({"containers": [{}]}), 0, 0);
    }

    #[test]
    fn containers_that_do_not_say_count_as_something() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{}, {"resources": {"requests": {"cpu": "0"}}}]}}))
        .unwrap();
        let requests = pod_requests_non_zero(&pod);
        assert_eq!((requests.milli_cpu, requests.memory), (100, 400 * 1024 * 1024));
    }
}
