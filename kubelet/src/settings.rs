//! What every part that handles pods needs to know of the node, and where things lie on its disk.
//!
//! The layout is upstream's: a takeover in either direction finds what the other left.

use std::path::{Path, PathBuf};

use crate::env::NodeFacts;
use crate::network::DnsSettings;

/// Fixed for the life of the process.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node_name: String,
    /// `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// `/var/log/containers`; symbolic links for log collectors.
    pub container_logs_dir: PathBuf,
    pub dns: DnsSettings,
    pub facts: NodeFacts,
    /// Bytes of memory of the machine.
    pub memory_capacity: i64,
    /// Enforce CPU limits.
    pub cfs_quota: bool,
    /// Containers that say nothing get the runtime's profile rather than none.
    pub seccomp_default: bool,
    /// Tasks a pod may have; `None` for as many as the node.
    pub pod_pids_limit: Option<i64>,
    /// Lives above every pod's cgroup, `/` usually.
    pub cgroup_root: String,
    /// Give each pod a cgroup under its QoS class.
    pub cgroups_per_qos: bool,
}

impl Settings {
    /// `<root>/pods/<uid>`.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// Where termination messages of a container are written.
    pub fn container_dir(&self, uid: &str, container: &str) -> PathBuf {
        self.pod_dir(uid).join("containers").join(container)
    }

    /// `<pod>/volumes`.
    pub fn volumes_dir(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("volumes")
    }

    /// A volume of a pod; `plugin` is written with `~` for `/`.
    pub fn volume_dir(&self, uid: &str, plugin: &str, volume: &str) -> PathBuf {
        self.volumes_dir(uid).join(plugin.replace('/', "~")).join(volume)
    }

    /// `/var/log/pods/<namespace>_<name>_<uid>`.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}

/// The path of a container's log below its pod's directory.
pub fn container_log_path(container: &str, restart_count: u32) -> String {
    format!("{container}/{restart_count}.log")
}

/// The restart count that the logs on disk imply: one more than the newest. Used when the runtime has
/// forgotten the container, so that no log is written over.
pub fn restart_count_from_logs(directory: &Path) -> u32 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.split('.').next()?.parse::<u32>().ok())
        .max()
        .map_or(0, |newest| newest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_counts_continue_after_the_logs() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(restart_count_from_logs(&directory.path().join("none")), 0);
        assert_eq!(restart_count_from_logs(directory.path()), 0);
        for name in ["0.log", "3.log", "3.log.20261006-001709", "x.log"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(restart_count_from_logs(directory.path()), 4);
    }
}
