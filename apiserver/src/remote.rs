//! Servers that are asked or told something: the far side of authorization and audit webhooks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a document may take to arrive, and how long it may be.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_DOCUMENT: usize = 1 << 20;

/// How long one request to a webhook may take, its answer included; upstream's figure.
const REQUEST: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    /// It may be over at the next attempt: the connection was reset, or the server said so.
    pub transient: bool,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, transient: false }
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        message.to_string().into()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Takes a document and answers with one.
#[async_trait]
pub trait Remote: Send + Sync {
    /// Sends a document.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn ask(&self, document: &Value) -> Result<Value, Failure>;

    /// Sends a document that is text already; the answer does not matter.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn send(&self, document: Bytes) -> Result<(), Failure> {
        let document = serde_json::from_slice(&document).map_err(|error| error.to_string())?;
        self.ask(&document).await.map(|_| ())
    }
}

/// Growing pauses between attempts. Upstream: `apiserver/pkg/util/webhook`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    first: Duration,
    factor: f64,
    /// At most so much of a pause is added to it.
    jitter: f64,
    /// Attempts, the first one included.
    steps: u32,
}

impl Backoff {
    /// Upstream's for webhooks.
    pub const fn webhook(first: Duration) -> Self {
        Self { first, factor: 1.5, jitter: 0.2, steps: 5 }
    }

    /// Attempts until one succeeds, fails for good, or there were enough.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn run<T, F>(
        &self,
        retry: impl Fn(&Failure) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut pause = self.first;
        for _ in 1..self.steps {
            match attempt().await {
                Err(error) if retry(&error) => tracing::debug!(%error, "a webhook is asked again"),
                done => return done,
            }
            tokio::time::sleep(pause.mul_f64(1.0 + self.jitter * rand::random::<f64>())).await;
            pause = pause.mul_f64(self.factor);
        }
        attempt().await
    }
}

/// The server that a kubeconfig file names; without a file, the cluster this process runs in.
pub struct Kubeconfig {
    path: Option<PathBuf>,
    client: tokio::sync::OnceCell<client::Client>,
}

impl Kubeconfig {
    /// Checks that the file is there; it is read when something is sent for the first time.
    ///
    /// # Errors
    /// When it is not.
    pub fn new(path: Option<&Path>) -> Result<Self, std::io::Error> {
        if let Some(path) = path {
            std::fs::metadata(path)?;
        }
        Ok(Self { path: path.map(Path::to_owned), client: tokio::sync::OnceCell::new() })
    }

    async fn client(&self) -> client::Result<client::Client> {
        match &self.path {
            Some(path) => client::Client::from_kubeconfig(Some(path), None).await,
            None => client::Client::in_cluster(),
        }
    }
}

impl Kubeconfig {
    async fn post(&self, document: Bytes) -> Result<Bytes, Failure> {
        let client = self.client.get_or_try_init(|| self.client()).await.map_err(|error| failure(&error))?;
        // A URI without a path: the one of the kubeconfig's server is taken.
        let request = http::Request::post("webhook")
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .body(document)
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let answer = client.send_ok(request).await.map_err(|error| failure(&error))?;
            let bytes = answer.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok(bytes.to_bytes())
        };
        tokio::time::timeout(REQUEST, exchange).await.unwrap_or_else(|_| Err("context deadline exceeded".into()))
    }
}

/// Which failures upstream tries again (`DefaultShouldRetry`).
fn failure(error: &client::Error) -> Failure {
    let message = error.chain();
    let transient = match error.status() {
        Some(status) => {
            let later = status.details.as_ref().and_then(|details| details.retry_after_seconds);
            matches!(status.code, 429 | 500 | 504) || later.is_some_and(|seconds| seconds > 0)
        }
        None => reset(error),
    };
    Failure { message, transient }
}

/// Whether the other side cut the connection.
fn reset(error: &client::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if io == Some(std::io::ErrorKind::ConnectionReset) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[async_trait]
impl Remote for Kubeconfig {
    async fn ask(&self, document: &Value) -> Result<Value, Failure> {
        let answer = self.post(Bytes::from(document.to_string())).await?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    async fn send(&self, document: Bytes) -> Result<(), Failure> {
        self.post(document).await.map(|_| ())
    }
}

/// Gets a document over HTTPS.
///
/// # Errors
/// Why there is none.
pub async fn get(url: &str, tls: &Arc<ClientConfig>) -> Result<Value, String> {
    match tokio::time::timeout(PATIENCE, fetch(url, tls)).await {
        Ok(answer) => answer.map_err(|error| format!("{url}: {error}")),
        Err(_) => Err(format!("{url}: no answer in time")),
    }
}

async fn fetch(url: &str, tls: &Arc<ClientConfig>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
    let url = url::Url::parse(url)?;
    let host = url.host_str().filter(|_| url.scheme() == "https").ok_or("it is no HTTPS URL")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_string();
    let port = url.port_or_known_default().unwrap_or(443);
    let stream = TcpStream::connect((bare.as_str(), port)).await?;
    let stream = TlsConnector::from(tls.clone()).connect(ServerName::try_from(bare)?, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(&url[url::Position::BeforePath..url::Position::AfterQuery])
        .header(http::header::HOST, format!("{host}:{port}"))
        .header(http::header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    if !answer.status().is_success() {
        return Err(format!("the answer is {}", answer.status()).into());
    }
    let bytes = Limited::new(answer.into_body(), MAX_DOCUMENT).collect().await?.to_bytes();
    connection.abort();
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_be_over_is_tried_again() {
        let transient = |failure: &Failure| failure.transient;
        for (fails, is_transient, attempts, good) in
            [(0, true, 1, true), (4, true, 5, true), (9, true, 5, false), (9, false, 1, false)]
        {
            let (asked, begun) = (Cell::new(0), tokio::time::Instant::now());
            let attempt = || {
                asked.set(asked.get() + 1);
                let failed = asked.get() <= fails;
                let failure = Failure { message: "no".to_string(), transient: is_transient };
                async move { if failed { Err(failure) } else { Ok(()) } }
            };
            let outcome = Backoff::webhook(Duration::from_secs(10)).run(transient, attempt).await;
            assert_eq!((asked.get(), outcome.is_ok()), (attempts, good), "{fails} {is_transient}");
            if attempts == 5 {
                // 10 + 15 + 22.5 + 33.75 seconds, and up to a fifth more.
                let waited = begun.elapsed().as_secs_f64();
                assert!((81.25..97.6).contains(&waited), "{waited}");
            }
        }
    }
}
