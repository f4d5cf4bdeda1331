//! What the runtime holds of one pod, in the shape the decisions need.
//!
//! Built from CRI alone, newest first, so that a kubelet that has just started sees exactly what one
//! that has run for a month sees.

use std::sync::Arc;

use proto::cri;

use super::labels;
use super::logs;
use crate::cri::{Result, Runtime};

/// The longest termination message read from a file, in bytes.
const MAX_TERMINATION_MESSAGE: u64 = 4096;
/// The longest message taken from the log instead.
const MAX_LOG_MESSAGE: usize = 2048;
/// And in lines.
const MAX_LOG_LINES: usize = 80;

/// Whether a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Prepared and not started; starting it failed, or is about to happen.
    Created,
    Running,
    Exited,
    /// The runtime cannot say.
    Unknown,
}

impl State {
    /// The word that upstream's messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Unknown => "unknown",
        }
    }
}

/// One container, alive or dead. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// The runtime's id, without the scheme.
    pub id: String,
    pub sandbox: String,
    pub name: String,
    pub state: State,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub image: String,
    pub image_ref: String,
    pub reason: String,
    pub message: String,
    /// Of the spec it was made from; zero when the runtime lost it.
    pub hash: u64,
    pub restart_count: u32,
    pub log_path: String,
    pub user: Option<cri::LinuxContainerUser>,
    pub stop_signal: Option<String>,
}

/// Everything of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodState {
    /// Newest first.
    pub sandboxes: Vec<cri::PodSandboxStatus>,
    /// Newest first, of every sandbox.
    pub containers: Vec<Container>,
    /// Addresses of the newest sandbox, if it is ready.
    pub ips: Vec<String>,
}

impl PodState {
    /// The newest container of this name.
    pub fn find(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// Containers that run.
    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|c| c.state == State::Running)
    }

    /// Whether nothing of the pod is alive any more.
    pub fn is_dead(&self) -> bool {
        self.running().next().is_none()
            && self.containers.iter().all(|c| c.state != State::Unknown)
            && self.sandboxes.iter().all(|s| s.state() != cri::PodSandboxState::SandboxReady)
    }

    /// The newest sandbox, if ready.
    pub fn ready_sandbox(&self) -> Option<&cri::PodSandboxStatus> {
        self.sandboxes.first().filter(|s| s.state() == cri::PodSandboxState::SandboxReady)
    }
}

/// Asks the runtime about one pod. Things that vanish while being asked about are left out.
pub async fn read(runtime: &Arc<dyn Runtime>, uid: &str) -> Result<PodState> {
    let selector = std::collections::HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
    let (sandboxes, containers) = futures::try_join!(
        runtime
            .list_pod_sandbox(Some(cri::PodSandboxFilter { label_selector: selector.clone(), ..Default::default() })),
        runtime.list_containers(Some(cri::ContainerFilter { label_selector: selector, ..Default::default() })),
    )?;
    let sandboxes = futures::future::try_join_all(
        sandboxes.iter().map(|s| async move { present(runtime.pod_sandbox_status(&s.id).await) }),
    );
    let containers = futures::future::try_join_all(containers.iter().map(|c| async move {
        let status = present(runtime.container_status(&c.id).await)?;
        Ok(status.map(|status| convert(&c.pod_sandbox_id, status)))
    }));
    let (sandboxes, containers) = futures::try_join!(sandboxes, containers)?;
    let mut sandboxes: Vec<_> = sandboxes.into_iter().flatten().collect();
    sandboxes.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| b.id.cmp(&a.id)));
    let mut containers: Vec<_> = containers.into_iter().flatten().collect();
    containers.sort_by_key(|c: &Container| std::cmp::Reverse(c.created_at));
    let ips = sandboxes
        .first()
        .filter(|s| s.state() == cri::PodSandboxState::SandboxReady)
        .map(addresses)
        .unwrap_or_default();
    Ok(PodState { sandboxes, containers, ips })
}

fn present<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The addresses a sandbox has, the primary one first.
pub fn addresses(sandbox: &cri::PodSandboxStatus) -> Vec<String> {
    let Some(network) = &sandbox.network else { return Vec::new() };
    std::iter::once(&network.ip)
        .chain(network.additional_ips.iter().map(|ip| &ip.ip))
        .filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
        .cloned()
        .collect()
}

/// Reads CRI's view of a container, its termination message included.
fn convert(sandbox: &str, status: cri::ContainerStatus) -> Container {
    let annotation = |name: &str| status.annotations.get(name).map(String::as_str).unwrap_or_default();
    let state = match status.state() {
        cri::ContainerState::ContainerCreated => State::Created,
        cri::ContainerState::ContainerRunning => State::Running,
        cri::ContainerState::ContainerExited => State::Exited,
        cri::ContainerState::ContainerUnknown => State::Unknown,
    };
    let exited = state == State::Exited;
    let stop_signal = match status.stop_signal() {
        cri::Signal::RuntimeDefault => None,
        signal => Some(signal.as_str_name().replace("PLUS", "+").replace("RTMAXMINUS", "RTMAX-")),
    };
    Container {
        sandbox: sandbox.to_owned(),
        name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default(),
        state,
        created_at: status.created_at,
        started_at: if state == State::Created { 0 } else { status.started_at },
        finished_at: if exited { status.finished_at } else { 0 },
        exit_code: if exited { status.exit_code } else { 0 },
        image: status.image.as_ref().map(|i| i.image.clone()).unwrap_or_default(),
        image_ref: status.image_ref.clone(),
        reason: if exited { status.reason.clone() } else { String::new() },
        message: if exited { termination_message(&status) } else { String::new() },
        hash: u64::from_str_radix(annotation(labels::HASH), 16).unwrap_or(0),
        restart_count: annotation(labels::RESTART_COUNT).parse().unwrap_or(0),
        log_path: status.log_path.clone(),
        user: status.user.as_ref().and_then(|u| u.linux.clone()),
        stop_signal,
        id: status.id,
    }
}

/// The runtime's message, and what the container wrote to its termination file, or the end of its log
/// when it failed and asked for that.
fn termination_message(status: &cri::ContainerStatus) -> String {
    let annotation = |name: &str| status.annotations.get(name).map(String::as_str).unwrap_or_default();
    let mut use_log = annotation(labels::TERMINATION_POLICY) == "FallbackToLogsOnError"
        && status.exit_code != 0
        && status.reason != "ContainerCannotRun";
    let path = annotation(labels::TERMINATION_PATH);
    let mut written = String::new();
    if let Some(mount) = status.mounts.iter().find(|m| !path.is_empty() && m.container_path == path) {
        match read_tail(&mount.host_path) {
            Ok(text) => {
                use_log &= text.is_empty();
                written = text;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                use_log = false;
                written = format!("Error on reading termination log {}: {error}", mount.host_path);
            }
        }
    }
    if use_log {
        written = logs::last_lines(&status.log_path, MAX_LOG_LINES, MAX_LOG_MESSAGE);
    }
    match (status.message.is_empty(), written.is_empty()) {
        (_, true) => status.message.clone(),
        (true, false) => written,
        (false, false) => format!("{}: {written}", status.message),
    }
}

fn read_tail(path: &str) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_TERMINATION_MESSAGE)))?;
    let mut bytes = Vec::new();
    file.take(MAX_TERMINATION_MESSAGE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
