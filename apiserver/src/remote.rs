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

/// Takes a document and answers with one.
#[async_trait]
pub trait Remote: Send + Sync {
    /// Sends a document.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn ask(&self, document: &Value) -> Result<Value, String>;
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

#[async_trait]
impl Remote for Kubeconfig {
    async fn ask(&self, document: &Value) -> Result<Value, String> {
        let client = self.client.get_or_try_init(|| self.client()).await.map_err(|error| error.chain())?;
        // A URI without a path: the one of the kubeconfig's server is taken.
        let request = http::Request::post("webhook")
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .body(Bytes::from(document.to_string()))
            .map_err(|error| error.to_string())?;
        let answer = client.send_ok(request).await.map_err(|error| error.chain())?;
        let bytes = answer.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok(serde_json::from_slice(&bytes.to_bytes()).unwrap_or_default())
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
