//! The container runtime as the kubelet sees it: two small traits, their gRPC implementation, and a
//! fake for tests.
//!
//! The traits say what CRI v1 says, with the request and response envelopes taken off.

mod containerd;
pub mod fake;
mod grpc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use proto::cri;

pub use grpc::Grpc;

/// An answer of the runtime that is not success. Whoever gets one retries, except where
/// [`Error::is_not_found`] says that the thing is gone already.
#[derive(Clone, Debug, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {message}")]
pub struct Error {
    /// gRPC's code.
    pub code: tonic::Code,
    /// The runtime's own words, which users see in pod statuses and events.
    pub message: String,
}

impl Error {
    /// The sandbox, container or image does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code == tonic::Code::NotFound
    }

    /// The runtime does not know the call.
    pub fn is_unimplemented(&self) -> bool {
        self.code == tonic::Code::Unimplemented
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self { code: status.code(), message: status.message().to_owned() }
    }
}

/// The result of every call.
pub type Result<T> = std::result::Result<T, Error>;

/// Sandboxes, containers and streams.
#[async_trait]
pub trait RuntimeService: Send + Sync {
    /// Name and version.
    async fn version(&self) -> Result<cri::VersionResponse>;
    /// Conditions and features.
    async fn status(&self) -> Result<cri::StatusResponse>;
    /// The cgroup driver, where the runtime says.
    async fn runtime_config(&self) -> Result<cri::RuntimeConfigResponse>;
    /// Makes the namespaces and network of a pod; returns the sandbox id.
    async fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, handler: &str) -> Result<String>;
    /// Stops every process and tears the network down; idempotent.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Forgets a stopped sandbox and its containers; idempotent.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    /// State, addresses and namespaces of one sandbox.
    async fn pod_sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus>;
    /// Sandboxes that match, all when no filter is given.
    async fn list_pod_sandbox(&self, filter: Option<cri::PodSandboxFilter>) -> Result<Vec<cri::PodSandbox>>;
    /// Prepares a container; returns its id.
    async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String>;
    /// Starts a created container.
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Signals, waits `timeout` seconds, kills; idempotent.
    async fn stop_container(&self, id: &str, timeout: i64) -> Result<()>;
    /// Changes the limits of a container that runs.
    async fn update_container_resources(&self, id: &str, resources: cri::LinuxContainerResources) -> Result<()>;
    /// Forgets a container, killing it if it runs.
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// Containers that match, all when no filter is given.
    async fn list_containers(&self, filter: Option<cri::ContainerFilter>) -> Result<Vec<cri::Container>>;
    /// Everything about one container.
    async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus>;
    /// Makes the runtime open the log file anew, after a rotation.
    async fn reopen_container_log(&self, id: &str) -> Result<()>;
    /// Runs a command to its end; `timeout` in seconds, zero for none.
    async fn exec_sync(&self, id: &str, command: &[String], timeout: i64) -> Result<cri::ExecSyncResponse>;
    /// Address of a streaming session for a command.
    async fn exec(&self, request: cri::ExecRequest) -> Result<String>;
    /// Address of a streaming session with the main process.
    async fn attach(&self, request: cri::AttachRequest) -> Result<String>;
    /// Address of a streaming session into the network namespace.
    async fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String>;
    /// Usage of every container that matches.
    async fn list_container_stats(&self, filter: Option<cri::ContainerStatsFilter>)
    -> Result<Vec<cri::ContainerStats>>;
    /// Life cycle events as they happen; ends when the runtime goes away.
    async fn container_events(&self) -> Result<BoxStream<'static, Result<cri::ContainerEventResponse>>>;
}

/// Images on the node.
#[async_trait]
pub trait ImageService: Send + Sync {
    /// All images.
    async fn list_images(&self) -> Result<Vec<cri::Image>>;
    /// One image by any of its names; `None` when it is not there.
    async fn image_status(&self, image: cri::ImageSpec) -> Result<Option<cri::Image>>;
    /// Fetches an image; returns its reference.
    async fn pull_image(
        &self,
        image: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
        sandbox: Option<cri::PodSandboxConfig>,
    ) -> Result<String>;
    /// Usage of the file system that holds images.
    async fn image_fs_info(&self) -> Result<cri::ImageFsInfoResponse>;
}

/// A runtime that answers both services, as all do.
pub trait Runtime: RuntimeService + ImageService {}
impl<T: RuntimeService + ImageService> Runtime for T {}
