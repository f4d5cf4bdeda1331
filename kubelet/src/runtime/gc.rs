//! Collects what is dead: all but the last instance of each container, replaced sandboxes, and everything
//! of pods that are gone, their logs included.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use proto::cri;

use super::Manager;
use super::labels;

/// What to remove.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    pub containers: Vec<String>,
    pub sandboxes: Vec<String>,
}

/// Decides. `gone` says whether a pod, by uid, needs nothing of its past any more.
pub fn decide(sandboxes: &[cri::PodSandbox], containers: &[cri::Container], gone: impl Fn(&str) -> bool) -> Garbage {
    let uid = |map: &HashMap<String, String>| map.get(labels::POD_UID).cloned().unwrap_or_default();
    let mut garbage = Garbage::default();
    let mut groups: HashMap<(String, String), Vec<&cri::Container>> = HashMap::new();
    let mut occupied: HashSet<&str> = HashSet::new();
    for container in containers {
        let owner = uid(&container.labels);
        let name = container.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default();
        if owner.is_empty() {
            // Not ours: the runtime may serve others.
            continue;
        }
        groups.entry((owner, name)).or_default().push(container);
    }
    for ((owner, _), mut group) in groups {
        group.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        let running = |c: &cri::Container| c.state() == cri::ContainerState::ContainerRunning;
        let mut dead = 0;
        for container in group {
            let keep = running(container) || (!gone(&owner) && dead < 1);
            if !running(container) {
                dead += 1;
            }
            if keep {
                occupied.insert(&container.pod_sandbox_id);
            } else {
                garbage.containers.push(container.id.clone());
            }
        }
    }
    let mut by_pod: HashMap<String, Vec<&cri::PodSandbox>> = HashMap::new();
    for sandbox in sandboxes {
        let owner = uid(&sandbox.labels);
        if !owner.is_empty() {
            by_pod.entry(owner).or_default().push(sandbox);
        }
    }
    for (owner, mut group) in by_pod {
        group.sort_by_key(|s| std::cmp::Reverse(s.created_at));
        let keep = usize::from(!gone(&owner));
        for sandbox in group.into_iter().skip(keep) {
            let ready = sandbox.state() == cri::PodSandboxState::SandboxReady;
            if !ready && !occupied.contains(sandbox.id.as_str()) {
                garbage.sandboxes.push(sandbox.id.clone());
            }
        }
    }
    garbage.containers.sort();
    garbage.sandboxes.sort();
    garbage
}

impl Manager {
    /// One round of collection. What fails is tried again in the next one.
    pub async fn collect_garbage(&self, gone: impl Fn(&str) -> bool) -> crate::cri::Result<()> {
        let (sandboxes, containers) =
            futures::try_join!(self.cri.list_pod_sandbox(None), self.cri.list_containers(None))?;
        let garbage = decide(&sandboxes, &containers, &gone);
        for id in &garbage.containers {
            if let Err(error) = self.remove_container_and_log(id).await {
                tracing::debug!(%id, %error, "failed to remove container");
            }
        }
        for id in &garbage.sandboxes {
            // Stopping again releases the network of a sandbox whose first stop was interrupted.
            let removed = match self.cri.stop_pod_sandbox(id).await {
                Ok(()) => self.cri.remove_pod_sandbox(id).await,
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::debug!(%id, %error, "failed to remove sandbox");
            }
        }
        self.collect_links();
        Ok(())
    }

    /// Removes everything the runtime keeps of a pod that has ended and is gone from the API.
    pub async fn remove_pod(&self, uid: &str) -> crate::cri::Result<()> {
        let state = self.state(uid).await?;
        for container in &state.containers {
            self.remove_container_and_log(&container.id).await?;
        }
        for sandbox in &state.sandboxes {
            self.cri.stop_pod_sandbox(&sandbox.id).await?;
            self.cri.remove_pod_sandbox(&sandbox.id).await?;
        }
        self.remove_logs(uid);
        self.collect_links();
        Ok(())
    }

    async fn remove_container_and_log(&self, id: &str) -> crate::cri::Result<()> {
        let log = self.cri.container_status(id).await.map(|s| s.log_path).unwrap_or_default();
        match self.cri.remove_container(id).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        if !log.is_empty() {
            let log = Path::new(&log);
            let _ = std::fs::remove_file(log);
            for rotated in super::logs::rotate::rotated_files(log).unwrap_or_default() {
                let _ = std::fs::remove_file(rotated);
            }
        }
        Ok(())
    }

    /// The log directory of one pod, found by its uid: its name is not known any more.
    fn remove_logs(&self, uid: &str) {
        for entry in std::fs::read_dir(&self.settings.pod_logs_dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().and_then(|n| n.rsplit_once('_')).is_some_and(|(_, owner)| owner == uid) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Links for log collectors that lead nowhere.
    fn collect_links(&self) {
        for entry in std::fs::read_dir(&self.settings.container_logs_dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let ours = std::fs::read_link(&path).is_ok_and(|target| target.starts_with(&self.settings.pod_logs_dir));
            if ours && !path.exists() {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, uid: &str, name: &str, sandbox: &str, created: i64, running: bool) -> cri::Container {
        let state = if running { cri::ContainerState::ContainerRunning } else { cri::ContainerState::ContainerExited };
        cri::Container {
            id: id.into(),
            pod_sandbox_id: sandbox.into(),
            state: state.into(),
            created_at: created,
            labels: HashMap::from([
                (labels::POD_UID.to_owned(), uid.to_owned()),
                (labels::CONTAINER_NAME.to_owned(), name.to_owned()),
            ]),
            ..Default::default()
        }
    }

    fn sandbox(id: &str, uid: &str, created: i64, ready: bool) -> cri::PodSandbox {
        let state = if ready { cri::PodSandboxState::SandboxReady } else { cri::PodSandboxState::SandboxNotready };
        cri::PodSandbox {
            id: id.into(),
            state: state.into(),
            created_at: created,
            labels: HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]),
            ..Default::default()
        }
    }

    #[test]
    fn live_pods_keep_one_dead_instance_and_gone_pods_nothing() {
        let containers = [
            container("a1", "live", "a", "s1", 1, false),
            container("a2", "live", "a", "s2", 2, false),
            container("a3", "live", "a", "s2", 3, true),
            container("b1", "gone", "b", "s3", 1, false),
            container("b2", "gone", "b", "s4", 2, true),
            container("other", "", "", "s9", 1, false),
        ];
        let sandboxes = [
            sandbox("s1", "live", 1, false),
            sandbox("s2", "live", 2, true),
            sandbox("s3", "gone", 1, false),
            sandbox("s4", "gone", 2, true),
            sandbox("s9", "", 1, false),
        ];
        let garbage = decide(&sandboxes, &containers, |uid| uid == "gone");
        assert_eq!(garbage.containers, ["a1", "b1"]);
        assert_eq!(garbage.sandboxes, ["s1", "s3"]);
    }
}
