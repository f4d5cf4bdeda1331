//! Cgroups of pods, by file: `kubepods`, one below it for each QoS class that is not Guaranteed, and one
//! per pod; versions 1 and 2.
//!
//! Containers' own cgroups are the runtime's. Nothing is remembered: the tree is made when missing and a
//! pod's part is removed when the pod has ended.

mod files;

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::PodExt;
use crate::resources::{self, CgroupConfig, Qos};

/// A cgroup could not be made or changed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub struct Error {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// What the rest of the kubelet needs of cgroups.
pub trait Cgroups: Send + Sync {
    /// The parent for a pod's containers, as the runtime wants it; empty to leave it to the runtime.
    fn parent_of(&self, pod: &Pod) -> String;
    /// Makes a pod's cgroup with its limits; one that is there keeps those it has.
    fn ensure(&self, pod: &Pod) -> Result<(), Error>;
    /// What a pod should have: the limits that its spec comes to.
    fn wanted(&self, pod: &Pod) -> CgroupConfig;
    /// What a pod's cgroup is set to now.
    fn current(&self, pod: &Pod) -> Result<CgroupConfig, Error>;
    /// Changes the settings that are given, of a pod's cgroup that is there.
    fn set(&self, pod: &Pod, config: &CgroupConfig) -> Result<(), Error>;
    /// Bytes that a pod's processes use, caches included; `None` where the kernel does not say.
    fn memory_usage(&self, pod: &Pod) -> Option<i64>;
    /// Removes a pod's cgroup, of whatever class; processes that are left are killed.
    fn remove(&self, uid: &str) -> Result<(), Error>;
    /// Sets the weight of the burstable class from what its pods ask for in total, in milli-CPUs.
    fn set_burstable_request(&self, milli_cpu: i64);
}

/// Leaves cgroups to the runtime: `cgroupsPerQOS: false`, and tests.
pub struct Unmanaged;

impl Cgroups for Unmanaged {
    fn parent_of(&self, _: &Pod) -> String {
        String::new()
    }
    fn ensure(&self, _: &Pod) -> Result<(), Error> {
        Ok(())
    }
    fn wanted(&self, pod: &Pod) -> CgroupConfig {
        resources::pod_cgroup(pod, true, None)
    }
    fn current(&self, _: &Pod) -> Result<CgroupConfig, Error> {
        Ok(CgroupConfig::default())
    }
    fn set(&self, _: &Pod, _: &CgroupConfig) -> Result<(), Error> {
        Ok(())
    }
    fn memory_usage(&self, _: &Pod) -> Option<i64> {
        None
    }
    fn remove(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }
    fn set_burstable_request(&self, _: i64) {}
}

/// The tree below one root.
pub struct Tree {
    hierarchies: files::Hierarchies,
    /// `/kubepods`, or below another root.
    top: String,
    pids: Option<i64>,
    enforce_cpu: bool,
}

impl Tree {
    /// Makes `kubepods` and its classes below `root`. `allocatable` limits all pods together.
    pub fn new(root: &str, allocatable: CgroupConfig, pids: Option<i64>, enforce_cpu: bool) -> Result<Self, Error> {
        Self::with_hierarchies(files::Hierarchies::detect(), root, allocatable, pids, enforce_cpu)
    }

    fn with_hierarchies(
        hierarchies: files::Hierarchies,
        root: &str,
        allocatable: CgroupConfig,
        pids: Option<i64>,
        enforce_cpu: bool,
    ) -> Result<Self, Error> {
        let top = format!("{}/kubepods", root.trim_end_matches('/'));
        let tree = Self { hierarchies, top, pids, enforce_cpu };
        tree.hierarchies.ensure(&tree.top, &allocatable)?;
        let minimum = CgroupConfig { cpu_shares: Some(2), ..Default::default() };
        tree.hierarchies.ensure(&tree.class(Qos::Burstable), &minimum)?;
        tree.hierarchies.ensure(&tree.class(Qos::BestEffort), &minimum)?;
        Ok(tree)
    }

    fn class(&self, class: Qos) -> String {
        match class {
            Qos::Guaranteed => self.top.clone(),
            Qos::Burstable => format!("{}/burstable", self.top),
            Qos::BestEffort => format!("{}/besteffort", self.top),
        }
    }

    fn pod(&self, class: Qos, uid: &str) -> String {
        format!("{}/pod{uid}", self.class(class))
    }
}

impl Cgroups for Tree {
    fn parent_of(&self, pod: &Pod) -> String {
        self.pod(resources::qos_class(pod), pod.uid())
    }

    fn ensure(&self, pod: &Pod) -> Result<(), Error> {
        let name = self.parent_of(pod);
        if self.hierarchies.exists(&name) {
            return Ok(());
        }
        self.hierarchies.ensure(&name, &self.wanted(pod))
    }

    fn wanted(&self, pod: &Pod) -> CgroupConfig {
        resources::pod_cgroup(pod, self.enforce_cpu, self.pids)
    }

    fn current(&self, pod: &Pod) -> Result<CgroupConfig, Error> {
        self.hierarchies.read(&self.parent_of(pod))
    }

    fn set(&self, pod: &Pod, config: &CgroupConfig) -> Result<(), Error> {
        self.hierarchies.ensure(&self.parent_of(pod), config)
    }

    fn memory_usage(&self, pod: &Pod) -> Option<i64> {
        self.hierarchies.memory_usage(&self.parent_of(pod))
    }

    fn remove(&self, uid: &str) -> Result<(), Error> {
        for class in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            self.hierarchies.remove(&self.pod(class, uid))?;
        }
        Ok(())
    }

    fn set_burstable_request(&self, milli_cpu: i64) {
        let config = CgroupConfig { cpu_shares: Some(resources::shares(milli_cpu)), ..Default::default() };
        if let Err(error) = self.hierarchies.ensure(&self.class(Qos::Burstable), &config) {
            tracing::warn!(%error, "failed to set the weight of burstable pods");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, resources: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"uid": uid}, "spec": {"containers": [{"name": "c", "resources": resources}]}}),
        )
        .unwrap()
    }

    #[test]
    fn version_1_trees() {
        let directory = tempfile::tempdir().unwrap();
        for controller in ["cpu", "memory", "pids"] {
            std::fs::create_dir(directory.path().join(controller)).unwrap();
        }
        let hierarchies = files::Hierarchies::v1(directory.path(), &["cpu", "memory", "pids"]);
        let allocatable = CgroupConfig { memory: Some(1 << 30), cpu_shares: Some(2048), ..Default::default() };
        let tree = Tree::with_hierarchies(hierarchies, "/node", allocatable, Some(100), true).unwrap();
        let read = |path: &str| std::fs::read_to_string(directory.path().join(path)).unwrap();
        assert_eq!(read("memory/node/kubepods/memory.limit_in_bytes"), "1073741824");
        assert_eq!(read("cpu/node/kubepods/besteffort/cpu.shares"), "2");
        let burstable = pod("u1", json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "64Mi"}}));
        assert_eq!(tree.parent_of(&burstable), "/node/kubepods/burstable/podu1");
        tree.ensure(&burstable).unwrap();
        assert_eq!(read("cpu/node/kubepods/burstable/podu1/cpu.shares"), "512");
        assert_eq!(read("cpu/node/kubepods/burstable/podu1/cpu.cfs_quota_us"), "100000");
        assert_eq!(read("memory/node/kubepods/burstable/podu1/memory.limit_in_bytes"), "67108864");
        assert_eq!(read("pids/node/kubepods/burstable/podu1/pids.max"), "100");
        std::fs::write(directory.path().join("memory/node/kubepods/burstable/podu1/memory.usage_in_bytes"), "4096\n")
            .unwrap();
        assert_eq!(tree.memory_usage(&burstable), Some(4096));
        let now = tree.current(&burstable).unwrap();
        assert_eq!((now.cpu_shares, now.cpu_quota, now.memory), (Some(512), Some(100_000), Some(64 << 20)));
        tree.set(&burstable, &CgroupConfig { cpu_quota: Some(50_000), ..Default::default() }).unwrap();
        // Made again it keeps what it was set to.
        tree.ensure(&burstable).unwrap();
        assert_eq!(tree.current(&burstable).unwrap().cpu_quota, Some(50_000));
        let unlimited = directory.path().join("memory/node/kubepods/burstable/podu1/memory.limit_in_bytes");
        std::fs::write(unlimited, "9223372036854771712\n").unwrap();
        assert_eq!(tree.current(&burstable).unwrap().memory, None);
        assert_eq!(tree.parent_of(&pod("u2", json!({}))), "/node/kubepods/besteffort/podu2");
        let both = json!({"cpu": "1", "memory": "64Mi"});
        assert_eq!(tree.parent_of(&pod("u3", json!({"limits": both, "requests": both}))), "/node/kubepods/podu3");
    }

    #[test]
    fn version_2_trees() {
        let directory = tempfile::tempdir().unwrap();
        let hierarchies = files::Hierarchies::v2(directory.path());
        let tree = Tree::with_hierarchies(hierarchies, "/", CgroupConfig::default(), None, true).unwrap();
        tree.ensure(&pod("u", json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "64Mi"}}))).unwrap();
        let read = |path: &str| std::fs::read_to_string(directory.path().join(path)).unwrap();
        assert_eq!(read("kubepods/burstable/podu/cpu.weight"), "39");
        assert_eq!(read("kubepods/burstable/podu/cpu.max"), "200000 100000");
        assert_eq!(read("kubepods/burstable/podu/memory.max"), "67108864");
        let burstable = pod("u", json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "64Mi"}}));
        let now = tree.current(&burstable).unwrap();
        assert_eq!((now.cpu_shares, now.cpu_quota, now.memory), (Some(998), Some(200_000), Some(64 << 20)));
        std::fs::write(directory.path().join("kubepods/burstable/podu/memory.max"), "max\n").unwrap();
        std::fs::write(directory.path().join("kubepods/burstable/podu/cpu.max"), "max 100000\n").unwrap();
        std::fs::write(directory.path().join("kubepods/burstable/podu/memory.current"), "8192\n").unwrap();
        let now = tree.current(&burstable).unwrap();
        assert_eq!((now.cpu_quota, now.memory, tree.memory_usage(&burstable)), (Some(-1), None, Some(8192)));
    }
}
