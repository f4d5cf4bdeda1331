//! CRI over a unix socket.
//!
//! The channel is lazy and reconnects by itself: a runtime that restarts is simply there again at the
//! next call. Every call has a deadline except those that wait for something to happen in a container.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use proto::cri;
use proto::cri::image_service_client::ImageServiceClient;
use proto::cri::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{Error, ImageService, Result, RuntimeService};

/// The largest answer accepted: a node with a thousand containers lists in less.
const MAX_MESSAGE: usize = 16 << 20;

/// A runtime behind a unix socket.
#[derive(Clone)]
pub struct Grpc {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    /// To the runtime, for what it serves besides CRI.
    channel: Channel,
    timeout: Duration,
}

impl Grpc {
    /// Prepares to talk to two endpoints (usually one), paths or `unix://` addresses; connects at the
    /// first call. `timeout` is for every call that should be short.
    pub fn new(runtime: &str, images: &str, timeout: Duration) -> Self {
        let channel_of = channel;
        let channel = channel_of(runtime);
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel_of(images)).max_decoding_message_size(MAX_MESSAGE),
            channel,
            timeout,
        }
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout);
        request
    }
}

/// Lets a call finish even if nobody waits for it any more: one that is cut off half way leaves a
/// container behind that "failed to start".
async fn to_the_end<T: Send + 'static>(
    call: impl Future<Output = std::result::Result<T, tonic::Status>> + Send + 'static,
) -> std::result::Result<T, tonic::Status> {
    tokio::spawn(call).await.unwrap_or_else(|error| Err(tonic::Status::internal(error.to_string())))
}

/// The socket path in `endpoint`.
pub fn socket_path(endpoint: &str) -> &str {
    endpoint.strip_prefix("unix://").unwrap_or(endpoint)
}

fn channel(endpoint: &str) -> Channel {
    let path = socket_path(endpoint).to_owned();
    Endpoint::from_static("http://runtime").connect_timeout(Duration::from_secs(5)).connect_with_connector_lazy(
        tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        }),
    )
}

#[async_trait]
impl RuntimeService for Grpc {
    async fn version(&self) -> Result<cri::VersionResponse> {
        let request = self.request(cri::VersionRequest { version: "0.1.0".into() });
        Ok(self.runtime.clone().version(request).await?.into_inner())
    }

    async fn status(&self) -> Result<cri::StatusResponse> {
        let request = self.request(cri::StatusRequest { verbose: false });
        Ok(self.runtime.clone().status(request).await?.into_inner())
    }

    async fn runtime_config(&self) -> Result<cri::RuntimeConfigResponse> {
        let request = self.request(cri::RuntimeConfigRequest {});
        Ok(self.runtime.clone().runtime_config(request).await?.into_inner())
    }

    async fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, handler: &str) -> Result<String> {
        // Networks can be slow to come up: upstream allows twice the usual time.
        let message = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.into() };
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout * 2);
        let mut runtime = self.runtime.clone();
        let answer = to_the_end(async move { runtime.run_pod_sandbox(request).await }).await?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = self.request(cri::StopPodSandboxRequest { pod_sandbox_id: id.into() });
        self.runtime.clone().stop_pod_sandbox(request).await?;
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = self.request(cri::RemovePodSandboxRequest { pod_sandbox_id: id.into() });
        self.runtime.clone().remove_pod_sandbox(request).await?;
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus> {
        let request = self.request(cri::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false });
        let response = self.runtime.clone().pod_sandbox_status(request).await?.into_inner();
        response.status.ok_or_else(|| missing("pod sandbox status is nil"))
    }

    async fn list_pod_sandbox(&self, filter: Option<cri::PodSandboxFilter>) -> Result<Vec<cri::PodSandbox>> {
        let request = self.request(cri::ListPodSandboxRequest { filter });
        Ok(self.runtime.clone().list_pod_sandbox(request).await?.into_inner().items)
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = self.request(cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        });
        let mut runtime = self.runtime.clone();
        let answer = to_the_end(async move { runtime.create_container(request).await }).await?;
        Ok(answer.into_inner().container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let request = self.request(cri::StartContainerRequest { container_id: id.into() });
        let mut runtime = self.runtime.clone();
        to_the_end(async move { runtime.start_container(request).await }).await?;
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout: i64) -> Result<()> {
        // The runtime answers after the grace period at the latest: wait for that and the usual time.
        let message = cri::StopContainerRequest { container_id: id.into(), timeout };
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout + Duration::from_secs(u64::try_from(timeout).unwrap_or(0)));
        self.runtime.clone().stop_container(request).await?;
        Ok(())
    }

    async fn update_container_resources(&self, id: &str, resources: cri::LinuxContainerResources) -> Result<()> {
        let request = self.request(cri::UpdateContainerResourcesRequest {
            container_id: id.into(),
            linux: Some(resources),
            ..Default::default()
        });
        self.runtime.clone().update_container_resources(request).await?;
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let request = self.request(cri::RemoveContainerRequest { container_id: id.into() });
        self.runtime.clone().remove_container(request).await?;
        Ok(())
    }

    async fn list_containers(&self, filter: Option<cri::ContainerFilter>) -> Result<Vec<cri::Container>> {
        let request = self.request(cri::ListContainersRequest { filter });
        Ok(self.runtime.clone().list_containers(request).await?.into_inner().containers)
    }

    async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus> {
        let request = self.request(cri::ContainerStatusRequest { container_id: id.into(), verbose: false });
        let response = self.runtime.clone().container_status(request).await?.into_inner();
        response.status.ok_or_else(|| missing("container status is nil"))
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let request = self.request(cri::ReopenContainerLogRequest { container_id: id.into() });
        self.runtime.clone().reopen_container_log(request).await?;
        Ok(())
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: i64) -> Result<cri::ExecSyncResponse> {
        let message = cri::ExecSyncRequest { container_id: id.into(), cmd: command.to_vec(), timeout };
        let mut request = tonic::Request::new(message);
        if timeout > 0 {
            // The runtime enforces the timeout; the deadline only guards against a runtime that hangs.
            request.set_timeout(self.timeout + Duration::from_secs(timeout.unsigned_abs()));
        }
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    async fn exec(&self, request: cri::ExecRequest) -> Result<String> {
        let request = self.request(request);
        Ok(self.runtime.clone().exec(request).await?.into_inner().url)
    }

    async fn attach(&self, request: cri::AttachRequest) -> Result<String> {
        let request = self.request(request);
        Ok(self.runtime.clone().attach(request).await?.into_inner().url)
    }

    async fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String> {
        let request = self.request(request);
        Ok(self.runtime.clone().port_forward(request).await?.into_inner().url)
    }

    async fn list_container_stats(
        &self,
        filter: Option<cri::ContainerStatsFilter>,
    ) -> Result<Vec<cri::ContainerStats>> {
        let request = self.request(cri::ListContainerStatsRequest { filter });
        Ok(self.runtime.clone().list_container_stats(request).await?.into_inner().stats)
    }

    async fn container_events(&self) -> Result<BoxStream<'static, Result<cri::ContainerEventResponse>>> {
        let stream = match self.runtime.clone().get_container_events(cri::GetEventsRequest {}).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                return super::containerd::events(self.channel.clone(), self.clone()).await;
            }
            Err(status) => return Err(status.into()),
        };
        Ok(stream.map(|event| event.map_err(Error::from)).boxed())
    }
}

#[async_trait]
impl ImageService for Grpc {
    async fn list_images(&self) -> Result<Vec<cri::Image>> {
        let request = self.request(cri::ListImagesRequest { filter: None });
        Ok(self.images.clone().list_images(request).await?.into_inner().images)
    }

    async fn image_status(&self, image: cri::ImageSpec) -> Result<Option<cri::Image>> {
        let request = self.request(cri::ImageStatusRequest { image: Some(image), verbose: false });
        Ok(self.images.clone().image_status(request).await?.into_inner().image)
    }

    async fn pull_image(
        &self,
        image: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
        sandbox: Option<cri::PodSandboxConfig>,
    ) -> Result<String> {
        // No deadline: a large image takes as long as it takes, and the runtime gives up on no progress.
        let request = cri::PullImageRequest { image: Some(image), auth, sandbox_config: sandbox };
        Ok(self.images.clone().pull_image(request).await?.into_inner().image_ref)
    }

    async fn image_fs_info(&self) -> Result<cri::ImageFsInfoResponse> {
        let request = self.request(cri::ImageFsInfoRequest {});
        Ok(self.images.clone().image_fs_info(request).await?.into_inner())
    }
}

fn missing(message: &str) -> Error {
    Error { code: tonic::Code::Internal, message: message.into() }
}
