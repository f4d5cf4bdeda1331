//! `keelson down`: removes every process, namespace, mount, rule and file of the local cluster. What is
//! not there is no error, so it also cleans up after an `up` that was cut off anywhere.

use std::path::Path;

use crate::command::{run, undo};
use crate::progress::Progress;
use crate::state::{MAX_NODES, NodeName, State};
use crate::{cgroup, kubeconfig, network, node};

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kubeconfig(#[from] kubeconfig::Error),
    #[error("cannot remove {path}")]
    File { path: String, source: std::io::Error },
}

/// Removes the cluster. Images that were built stay if `keep_images`, so that the next `up` is quick.
pub async fn run_down(state: &State, keep_images: bool, progress: &Progress) -> Result<(), Error> {
    // The supervisor is a member of the group as well, so nothing comes back.
    let killed = progress.step("processes", async { Ok::<_, Error>(cgroup::kill_all().await) }).await?;
    progress
        .step("namespaces, mounts and rules", async {
            for node in nodes_here() {
                network::remove_node(&node).await;
            }
            network::remove_bridge().await;
            node::end_helpers(state);
            node::remove_pins(state).await;
            unmount_below(&[&state.root, &state.run]).await;
            cgroup::remove();
            Ok::<_, Error>(())
        })
        .await?;
    progress
        .step("files", async {
            if let Some(path) = kubeconfig::user_file() {
                kubeconfig::unmerge(&path)?;
            }
            remove_files(state, keep_images)
        })
        .await?;
    progress.total(&format!("cluster gone ({killed} processes)"));
    Ok(())
}

/// The nodes whose namespace or cable is on this machine, whatever the plan says.
fn nodes_here() -> impl Iterator<Item = NodeName> {
    (1..=MAX_NODES).map(NodeName::new).filter(|node| {
        Path::new("/run/netns").join(node.netns()).exists() || Path::new("/sys/class/net").join(node.veth()).exists()
    })
}

/// Mounts of the nodes live in namespaces of their own; what is below our folders here was left by
/// something else, and would keep the folders from being removed.
async fn unmount_below(roots: &[&Path]) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<&str> = node::mount_points(&mounts)
        .filter(|point| roots.iter().any(|root| Path::new(point).starts_with(root)))
        .collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points {
        if run("umount", [point]).await.is_err() {
            undo(&format!("umount --lazy {point}")).await;
        }
    }
}

fn remove_files(state: &State, keep_images: bool) -> Result<(), Error> {
    let failed = |path: &Path, source| Error::File { path: path.display().to_string(), source };
    let entries = match std::fs::read_dir(&state.root) {
        Ok(entries) => entries.flatten().collect(),
        Err(_) => Vec::new(),
    };
    for entry in entries {
        let path = entry.path();
        if keep_images && path == state.images() {
            continue;
        }
        remove(&path).map_err(|source| failed(&path, source))?;
    }
    if !keep_images {
        remove(&state.root).map_err(|source| failed(&state.root, source))?;
    }
    remove(&state.run).map_err(|source| failed(&state.run, source))
}

fn remove(path: &Path) -> std::io::Result<()> {
    let gone = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
