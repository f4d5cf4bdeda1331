//! The plugin, behind its socket, on a thread of its own.
//!
//! A value that another server wrote may need a key nobody has asked for yet while the store delivers
//! it, which is no place to wait in: whoever must can block on this thread, whatever runtime it runs in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use proto::kms::key_management_service_client::KeyManagementServiceClient;
use proto::kms::{DecryptRequest, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};
use tokio::sync::{mpsc, oneshot};
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::encryption::metrics::Metrics;
use crate::encryption::transformer::Error;

/// How soon a socket that nobody listens on is tried again, within a call's time.
const AGAIN: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce(Client) -> BoxFuture<'static, ()> + Send>;

/// Calls a plugin. The thread ends with the last handle.
#[derive(Clone)]
pub struct Service {
    jobs: mpsc::UnboundedSender<Job>,
}

#[derive(Clone)]
struct Client {
    grpc: KeyManagementServiceClient<Channel>,
    timeout: Duration,
    provider: Arc<str>,
    metrics: Option<Arc<Metrics>>,
}

/// The socket's path in an endpoint; `@…` for the abstract ones.
fn socket(endpoint: &str) -> &str {
    let path = endpoint.strip_prefix("unix:").unwrap_or(endpoint);
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.starts_with("/@") { &path[1..] } else { path }
}

async fn connect(path: String) -> std::io::Result<TokioIo<tokio::net::UnixStream>> {
    use std::os::linux::net::SocketAddrExt as _;
    let Some(name) = path.strip_prefix('@') else {
        return tokio::net::UnixStream::connect(path).await.map(TokioIo::new);
    };
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream).map(TokioIo::new)
}

impl Service {
    /// Starts the thread; the socket is connected to when it is first needed.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(
        provider: &str,
        endpoint: &str,
        timeout: Duration,
        metrics: Option<Arc<Metrics>>,
    ) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let path = socket(endpoint).to_string();
        let provider: Arc<str> = provider.into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("kms-{provider}")).spawn(move || {
            runtime.block_on(async move {
                let channel = Endpoint::from_static("http://localhost")
                    .connect_with_connector_lazy(tower::service_fn(move |_: Uri| connect(path.clone())));
                let client = Client { grpc: KeyManagementServiceClient::new(channel), timeout, provider, metrics };
                while let Some(job) = queue.recv().await {
                    tokio::spawn(job(client.clone()));
                }
            });
        })?;
        Ok(Self { jobs })
    }

    fn submit(&self, job: impl FnOnce(Client) -> BoxFuture<'static, ()> + Send + 'static) {
        // The thread lives as long as this handle; what it cannot take is dropped, and the waiter notices.
        let _ = self.jobs.send(Box::new(job));
    }

    /// Whether the plugin is well, and its key.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        let (done, answer) = oneshot::channel();
        self.submit(|client| Box::pin(async move { drop(done.send(client.status().await)) }));
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Encrypts a data key.
    ///
    /// # Errors
    /// When the plugin does not.
    pub async fn encrypt(&self, request: EncryptRequest) -> Result<EncryptResponse, Error> {
        let (done, answer) = oneshot::channel();
        self.submit(|client| Box::pin(async move { drop(done.send(client.encrypt(request).await)) }));
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Decrypts a data key.
    ///
    /// # Errors
    /// When the plugin does not.
    pub async fn decrypt(&self, request: DecryptRequest) -> Result<Vec<u8>, Error> {
        let (done, answer) = oneshot::channel();
        self.submit(|client| Box::pin(async move { drop(done.send(client.decrypt(request).await)) }));
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// As [`Service::decrypt`], for callers that cannot await: it blocks, no longer than a call may take.
    ///
    /// # Errors
    /// When the plugin does not.
    pub fn decrypt_blocking(&self, request: DecryptRequest) -> Result<Vec<u8>, Error> {
        let (done, answer) = std::sync::mpsc::channel();
        self.submit(move |client| Box::pin(async move { drop(done.send(client.decrypt(request).await)) }));
        answer.recv().unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> Error {
    Error::new("the plugin's thread has ended")
}

impl Client {
    async fn status(&self) -> Result<StatusResponse, Error> {
        self.call("Status", |mut grpc| async move { grpc.status(StatusRequest {}).await }).await
    }

    async fn encrypt(&self, request: EncryptRequest) -> Result<EncryptResponse, Error> {
        let call = |mut grpc: KeyManagementServiceClient<Channel>| {
            let request = request.clone();
            async move { grpc.encrypt(request).await }
        };
        self.call("Encrypt", call).await
    }

    async fn decrypt(&self, request: DecryptRequest) -> Result<Vec<u8>, Error> {
        let call = |mut grpc: KeyManagementServiceClient<Channel>| {
            let request = request.clone();
            async move { grpc.decrypt(request).await }
        };
        Ok(self.call("Decrypt", call).await?.plaintext)
    }

    /// One call, waiting for the plugin's socket to appear within the call's time.
    async fn call<T, F, Fut>(&self, method: &str, call: F) -> Result<T, Error>
    where
        F: Fn(KeyManagementServiceClient<Channel>) -> Fut + Send + Sync,
        Fut: Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send,
        T: Send,
    {
        let begun = tokio::time::Instant::now();
        let attempts = async {
            loop {
                match call(self.grpc.clone()).await {
                    // What a server says is final; that there is none may change.
                    Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(AGAIN).await,
                    result => return result,
                }
            }
        };
        let result = match tokio::time::timeout(self.timeout, attempts).await {
            Ok(result) => result,
            Err(_) => Err(tonic::Status::deadline_exceeded("context deadline exceeded")),
        };
        let name = result.as_ref().map_or_else(|status| code(status.code()), |_| "OK");
        if let Some(metrics) = &self.metrics {
            let method = format!("/v2.KeyManagementService/{method}");
            metrics.called(&self.provider, &method, name, begun.elapsed().as_secs_f64());
        }
        result.map(tonic::Response::into_inner).map_err(|status| Error {
            message: format!("rpc error: code = {name} desc = {}", status.message()),
            code: name,
        })
    }
}

/// gRPC's own names, as metrics and messages have them.
fn code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// What a key is kept under: everything that says which key it is.
pub fn cache_key(kind: i32, source: &[u8], key_id: &str, annotations: &HashMap<String, Vec<u8>>) -> Vec<u8> {
    let mut key = Vec::with_capacity(16 + source.len() + key_id.len());
    let mut put = |bytes: &[u8]| {
        // Lengths go first, so that no two keys run into each other.
        key.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        key.extend_from_slice(bytes);
    };
    put(&kind.to_be_bytes());
    put(source);
    put(key_id.as_bytes());
    let mut sorted: Vec<_> = annotations.iter().collect();
    sorted.sort();
    for (name, value) in sorted {
        put(name.as_bytes());
        put(value);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_paths() {
        assert_eq!(socket("unix:///run/kms.sock"), "/run/kms.sock");
        assert_eq!(socket("unix:/run/kms.sock"), "/run/kms.sock");
        assert_eq!(socket("unix:///@kms"), "@kms");
    }

    #[test]
    fn keys_do_not_run_into_each_other() {
        let with = |name: &str, value: &[u8]| HashMap::from([(name.to_string(), value.to_vec())]);
        let base = cache_key(1, b"ab", "c", &HashMap::new());
        assert_ne!(base, cache_key(1, b"a", "bc", &HashMap::new()));
        assert_ne!(base, cache_key(0, b"ab", "c", &HashMap::new()));
        assert_ne!(cache_key(1, b"ab", "c", &with("x", b"yz")), cache_key(1, b"ab", "c", &with("xy", b"z")));
    }
}
