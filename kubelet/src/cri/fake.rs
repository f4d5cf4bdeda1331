//! A runtime in memory that records what it is asked and fails when told to.
//!
//! Containers run until [`FakeRuntime::exit`] ends them. Time is a counter, so that creation order is
//! always visible. A restart of the kubelet is a new kubelet over the same fake.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use proto::cri;
use tokio::sync::broadcast;

use super::{Error, ImageService, Result, RuntimeService};

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, (cri::PodSandboxConfig, cri::PodSandboxStatus)>,
    containers: BTreeMap<String, (String, cri::ContainerConfig, cri::ContainerStatus)>,
    images: Vec<cri::Image>,
    calls: Vec<String>,
    failures: HashMap<String, Vec<Error>>,
    down: bool,
    exec_exit_code: i32,
}

/// The fake; clones share their state.
#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    clock: Arc<AtomicI64>,
    events: broadcast::Sender<cri::ContainerEventResponse>,
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            clock: Arc::new(AtomicI64::new(1_000_000_000)),
            events: broadcast::channel(1024).0,
        }
    }
}

impl FakeRuntime {
    /// A runtime that has these images.
    pub fn with_images(names: &[&str]) -> Self {
        let fake = Self::default();
        fake.state.lock().images = names
            .iter()
            .map(|name| cri::Image {
                id: format!("sha256:{name}"),
                repo_tags: vec![(*name).to_owned()],
                size: 1000,
                ..Default::default()
            })
            .collect();
        fake
    }

    /// The calls that changed something, in order: `CreateContainer c`, `StopContainer c 30`.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// Forgets the recorded calls.
    pub fn clear_calls(&self) {
        self.state.lock().calls.clear();
    }

    /// The next call of this name fails with this message; may be queued several times.
    pub fn fail_next(&self, call: &str, message: &str) {
        let error = Error { code: tonic::Code::Unknown, message: message.into() };
        self.state.lock().failures.entry(call.into()).or_default().push(error);
    }

    /// Makes every call fail as if the socket were gone, or work again.
    pub fn set_down(&self, down: bool) {
        self.state.lock().down = down;
    }

    /// What commands run by `exec_sync` exit with.
    pub fn set_exec_exit_code(&self, code: i32) {
        self.state.lock().exec_exit_code = code;
    }

    /// Ends the running container of this name.
    pub fn exit(&self, container: &str, exit_code: i32) {
        let now = self.tick();
        let mut state = self.state.lock();
        let found = state.containers.values_mut().find(|(_, config, status)| {
            config.metadata.as_ref().is_some_and(|m| m.name == container)
                && status.state() == cri::ContainerState::ContainerRunning
        });
        let (sandbox, _, status) = found.expect("a running container of that name");
        finish(status, exit_code, now);
        let event = event(sandbox, status, cri::ContainerEventType::ContainerStoppedEvent);
        drop(state);
        let _ = self.events.send(event);
    }

    /// Names of running containers.
    pub fn running(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut names: Vec<String> = state
            .containers
            .values()
            .filter(|(_, _, s)| s.state() == cri::ContainerState::ContainerRunning)
            .filter_map(|(_, c, _)| Some(c.metadata.as_ref()?.name.clone()))
            .collect();
        names.sort();
        names
    }

    /// Number of sandboxes the runtime still knows, and how many of them are ready.
    pub fn sandboxes(&self) -> (usize, usize) {
        let state = self.state.lock();
        let ready = state.sandboxes.values().filter(|(_, s)| s.state() == cri::PodSandboxState::SandboxReady).count();
        (state.sandboxes.len(), ready)
    }

    /// The configuration a container was created with, the newest of that name.
    pub fn config_of(&self, container: &str) -> Option<cri::ContainerConfig> {
        let state = self.state.lock();
        state
            .containers
            .values()
            .filter(|(_, c, _)| c.metadata.as_ref().is_some_and(|m| m.name == container))
            .max_by_key(|(_, _, s)| s.created_at)
            .map(|(_, c, _)| c.clone())
    }

    /// Sets the time, in seconds since the epoch; every later act is a second after the one before.
    pub fn set_time(&self, seconds: i64) {
        self.clock.store(seconds * 1_000_000_000, Ordering::Relaxed);
    }

    fn tick(&self) -> i64 {
        self.clock.fetch_add(1_000_000_000, Ordering::Relaxed)
    }

    fn enter(&self, call: &str, detail: &str) -> Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if state.down {
            return Err(Error { code: tonic::Code::Unavailable, message: "connection refused".into() });
        }
        if !detail.is_empty() {
            state.calls.push(format!("{call} {detail}"));
        }
        if let Some(queue) = state.failures.get_mut(call)
            && !queue.is_empty()
        {
            return Err(queue.remove(0));
        }
        Ok(state)
    }
}

fn finish(status: &mut cri::ContainerStatus, exit_code: i32, now: i64) {
    status.set_state(cri::ContainerState::ContainerExited);
    status.exit_code = exit_code;
    status.finished_at = now;
    status.reason = if exit_code == 0 { "Completed" } else { "Error" }.into();
}

fn event(sandbox: &str, status: &cri::ContainerStatus, kind: cri::ContainerEventType) -> cri::ContainerEventResponse {
    let uid = status.labels.get("io.kubernetes.pod.uid").cloned().unwrap_or_default();
    cri::ContainerEventResponse {
        container_id: status.id.clone(),
        container_event_type: kind.into(),
        pod_sandbox_status: Some(cri::PodSandboxStatus {
            id: sandbox.to_owned(),
            metadata: Some(cri::PodSandboxMetadata { uid, ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn not_found(id: &str) -> Error {
    Error { code: tonic::Code::NotFound, message: format!("{id}: not found") }
}

fn name_of(config: &cri::ContainerConfig) -> String {
    config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default()
}

fn matches(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    async fn version(&self) -> Result<cri::VersionResponse> {
        drop(self.enter("Version", "")?);
        Ok(cri::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "v1".into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self) -> Result<cri::StatusResponse> {
        drop(self.enter("Status", "")?);
        let condition = |kind: &str| cri::RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        Ok(cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] }),
            ..Default::default()
        })
    }

    async fn runtime_config(&self) -> Result<cri::RuntimeConfigResponse> {
        Err(Error { code: tonic::Code::Unimplemented, message: "unknown method".into() })
    }

    async fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, _handler: &str) -> Result<String> {
        let metadata = config.metadata.clone().unwrap_or_default();
        let mut state = self.enter("RunPodSandbox", &metadata.name)?;
        let now = self.tick();
        let id = format!("sandbox-{now}");
        let options = config
            .linux
            .as_ref()
            .and_then(|l| l.security_context.as_ref()?.namespace_options.clone())
            .unwrap_or_default();
        let network = cri::PodSandboxNetworkStatus { ip: "10.0.0.2".into(), ..Default::default() };
        let host = options.network == cri::NamespaceMode::Node as i32;
        let status = cri::PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: cri::PodSandboxState::SandboxReady.into(),
            created_at: now,
            network: Some(if host { Default::default() } else { network }),
            linux: Some(cri::LinuxPodSandboxStatus { namespaces: Some(cri::Namespace { options: Some(options) }) }),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), (config, status));
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let now = self.tick();
        let mut state = self.enter("StopPodSandbox", "sandbox")?;
        for (sandbox, _, status) in state.containers.values_mut() {
            if sandbox == id && status.state() == cri::ContainerState::ContainerRunning {
                finish(status, 137, now);
            }
        }
        if let Some((_, status)) = state.sandboxes.get_mut(id) {
            status.set_state(cri::PodSandboxState::SandboxNotready);
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let mut state = self.enter("RemovePodSandbox", "sandbox")?;
        state.containers.retain(|_, (sandbox, _, _)| sandbox != id);
        state.sandboxes.remove(id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus> {
        let state = self.enter("PodSandboxStatus", "")?;
        state.sandboxes.get(id).map(|(_, s)| s.clone()).ok_or_else(|| not_found(id))
    }

    async fn list_pod_sandbox(&self, filter: Option<cri::PodSandboxFilter>) -> Result<Vec<cri::PodSandbox>> {
        let state = self.enter("ListPodSandbox", "")?;
        let selector = filter.map(|f| f.label_selector).unwrap_or_default();
        Ok(state
            .sandboxes
            .values()
            .filter(|(c, _)| matches(&c.labels, &selector))
            .map(|(_, s)| cri::PodSandbox {
                id: s.id.clone(),
                metadata: s.metadata.clone(),
                state: s.state,
                created_at: s.created_at,
                labels: s.labels.clone(),
                ..Default::default()
            })
            .collect())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        _sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let mut state = self.enter("CreateContainer", &name_of(&config))?;
        let (sandbox_config, _) = state.sandboxes.get(sandbox).ok_or_else(|| not_found(sandbox))?;
        let log_path = format!("{}/{}", sandbox_config.log_directory, config.log_path);
        let now = self.tick();
        let id = format!("container-{now}");
        let status = cri::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: cri::ContainerState::ContainerCreated.into(),
            created_at: now,
            image: config.image.clone(),
            image_ref: config.image.as_ref().map(|i| i.image.clone()).unwrap_or_default(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path,
            ..Default::default()
        };
        state.containers.insert(id.clone(), (sandbox.into(), config, status));
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let now = self.tick();
        let name = self.state.lock().containers.get(id).map(|(_, c, _)| name_of(c)).unwrap_or_default();
        let mut state = self.enter("StartContainer", &name)?;
        let (sandbox, _, status) = state.containers.get_mut(id).ok_or_else(|| not_found(id))?;
        status.set_state(cri::ContainerState::ContainerRunning);
        status.started_at = now;
        let event = event(sandbox, status, cri::ContainerEventType::ContainerStartedEvent);
        drop(state);
        let _ = self.events.send(event);
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout: i64) -> Result<()> {
        let now = self.tick();
        let name = self.state.lock().containers.get(id).map(|(_, c, _)| name_of(c)).unwrap_or_default();
        let mut state = self.enter("StopContainer", &format!("{name} {timeout}"))?;
        let Some((sandbox, _, status)) = state.containers.get_mut(id) else { return Ok(()) };
        if status.state() == cri::ContainerState::ContainerRunning {
            finish(status, 137, now);
            let event = event(sandbox, status, cri::ContainerEventType::ContainerStoppedEvent);
            drop(state);
            let _ = self.events.send(event);
        }
        Ok(())
    }

    async fn update_container_resources(&self, id: &str, resources: cri::LinuxContainerResources) -> Result<()> {
        let name = self.state.lock().containers.get(id).map(|(_, c, _)| name_of(c)).unwrap_or_default();
        let (quota, memory) = (resources.cpu_quota, resources.memory_limit_in_bytes);
        let detail = format!("{name} shares={} quota={quota} memory={memory}", resources.cpu_shares);
        let state = self.enter("UpdateContainerResources", &detail)?;
        state.containers.get(id).map(|_| ()).ok_or_else(|| not_found(id))
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let name = self.state.lock().containers.get(id).map(|(_, c, _)| name_of(c)).unwrap_or_default();
        self.enter("RemoveContainer", &name)?.containers.remove(id);
        Ok(())
    }

    async fn list_containers(&self, filter: Option<cri::ContainerFilter>) -> Result<Vec<cri::Container>> {
        let state = self.enter("ListContainers", "")?;
        let selector = filter.map(|f| f.label_selector).unwrap_or_default();
        Ok(state
            .containers
            .values()
            .filter(|(_, c, _)| matches(&c.labels, &selector))
            .map(|(sandbox, _, s)| cri::Container {
                id: s.id.clone(),
                pod_sandbox_id: sandbox.clone(),
                metadata: s.metadata.clone(),
                image: s.image.clone(),
                state: s.state,
                created_at: s.created_at,
                labels: s.labels.clone(),
                annotations: s.annotations.clone(),
                ..Default::default()
            })
            .collect())
    }

    async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus> {
        let state = self.enter("ContainerStatus", "")?;
        state.containers.get(id).map(|(_, _, s)| s.clone()).ok_or_else(|| not_found(id))
    }

    async fn reopen_container_log(&self, _id: &str) -> Result<()> {
        drop(self.enter("ReopenContainerLog", "container")?);
        Ok(())
    }

    async fn exec_sync(&self, _id: &str, command: &[String], _timeout: i64) -> Result<cri::ExecSyncResponse> {
        let state = self.enter("ExecSync", &command.join(" "))?;
        Ok(cri::ExecSyncResponse { exit_code: state.exec_exit_code, ..Default::default() })
    }

    async fn exec(&self, _request: cri::ExecRequest) -> Result<String> {
        drop(self.enter("Exec", "")?);
        Ok("http://127.0.0.1:1/exec/fake".into())
    }

    async fn attach(&self, _request: cri::AttachRequest) -> Result<String> {
        drop(self.enter("Attach", "")?);
        Ok("http://127.0.0.1:1/attach/fake".into())
    }

    async fn port_forward(&self, _request: cri::PortForwardRequest) -> Result<String> {
        drop(self.enter("PortForward", "")?);
        Ok("http://127.0.0.1:1/portforward/fake".into())
    }

    async fn list_container_stats(
        &self,
        _filter: Option<cri::ContainerStatsFilter>,
    ) -> Result<Vec<cri::ContainerStats>> {
        drop(self.enter("ListContainerStats", "")?);
        Ok(Vec::new())
    }

    async fn container_events(&self) -> Result<BoxStream<'static, Result<cri::ContainerEventResponse>>> {
        drop(self.enter("GetContainerEvents", "")?);
        let stream = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        Ok(stream.filter_map(|event| async move { event.ok().map(Ok) }).boxed())
    }
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn list_images(&self) -> Result<Vec<cri::Image>> {
        Ok(self.enter("ListImages", "")?.images.clone())
    }

    async fn image_status(&self, image: cri::ImageSpec) -> Result<Option<cri::Image>> {
        let state = self.enter("ImageStatus", "")?;
        let wanted = &image.image;
        Ok(state.images.iter().find(|i| i.id == *wanted || i.repo_tags.contains(wanted)).cloned())
    }

    async fn pull_image(
        &self,
        image: cri::ImageSpec,
        _auth: Option<cri::AuthConfig>,
        _sandbox: Option<cri::PodSandboxConfig>,
    ) -> Result<String> {
        let state = self.enter("PullImage", &image.image)?;
        match state.images.iter().find(|i| i.repo_tags.contains(&image.image)) {
            Some(found) => Ok(found.id.clone()),
            None => Err(not_found(&image.image)),
        }
    }

    async fn image_fs_info(&self) -> Result<cri::ImageFsInfoResponse> {
        drop(self.enter("ImageFsInfo", "")?);
        Ok(Default::default())
    }
}
