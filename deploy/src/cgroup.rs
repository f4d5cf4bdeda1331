//! The control group that holds everything of a local cluster: the supervisor and its children in
//! `keelson/system`, containers under `keelson/node-N` where the kubelets put them. Membership is
//! inherited, so the group names every process that belongs to the cluster, whoever started it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The group's name, at the root of every hierarchy.
pub const GROUP: &str = "keelson";
/// Time between two looks at a group that is being emptied; SIGKILL takes effect within microseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A process that survives SIGKILL for this long hangs in the kernel and will not go.
const PATIENCE: u32 = 1_000;

/// Where control groups are mounted: one folder under v2, one per controller under v1.
pub fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.into()];
    }
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|dir| dir.join("cgroup.procs").exists()).collect()
}

/// The hierarchy by which we keep count. Under v1 any would do; `pids` is in every kernel.
fn counted() -> Option<PathBuf> {
    let hierarchies = hierarchies();
    let pids = hierarchies.iter().find(|dir| dir.ends_with("pids"));
    pids.or(hierarchies.first()).cloned()
}

/// Moves this process, and with it all its children to come, into `keelson/system`.
///
/// # Errors
/// The file system's, when control groups are read-only here.
pub fn join() -> std::io::Result<()> {
    let Some(root) = counted() else { return Ok(()) };
    let group = root.join(GROUP).join("system");
    std::fs::create_dir_all(&group)?;
    std::fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

/// Makes the group that a node's kubelet puts pods into; kubelets expect theirs to exist.
///
/// # Errors
/// The file system's, when control groups are read-only here.
pub fn make(node: &str) -> std::io::Result<()> {
    for root in hierarchies() {
        let mut dir = root;
        for part in [GROUP, node] {
            let parent = dir.clone();
            dir.push(part);
            std::fs::create_dir_all(&dir)?;
            // Under v1 a new cpuset is empty, and nothing can run in it until it gets its parent's share.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (from, to) = (parent.join(file), dir.join(file));
                if !root_is_unified(&parent) && std::fs::read_to_string(&to).is_ok_and(|set| set.trim().is_empty()) {
                    std::fs::write(&to, std::fs::read(&from)?)?;
                }
            }
        }
    }
    Ok(())
}

fn root_is_unified(group: &Path) -> bool {
    group.join("cgroup.controllers").exists()
}

/// Every process of the cluster.
pub fn members() -> Vec<Pid> {
    let mut found = Vec::new();
    if let Some(root) = counted() {
        walk(&root.join(GROUP), &mut |dir| {
            let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw));
        });
    }
    found
}

/// Kills every process of the cluster and waits until the last is gone. Gives how many there were.
pub async fn kill_all() -> usize {
    let mut killed = std::collections::HashSet::new();
    for _ in 0..PATIENCE {
        let members = members();
        if members.is_empty() {
            break;
        }
        for pid in members {
            killed.insert(pid);
            // It may have ended since it was listed: nothing is lost then.
            let _ = kill(pid, Signal::SIGKILL);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    killed.len()
}

/// Removes the empty group from every hierarchy.
pub fn remove() {
    for root in hierarchies() {
        // Children first: a group with groups inside cannot be removed.
        let mut dirs = Vec::new();
        walk(&root.join(GROUP), &mut |dir| dirs.push(dir.to_owned()));
        for dir in dirs.iter().rev() {
            if let Err(error) = std::fs::remove_dir(dir) {
                tracing::warn!(group = %dir.display(), %error, "cannot remove a control group");
            }
        }
    }
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    if !dir.is_dir() {
        return;
    }
    visit(dir);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}
