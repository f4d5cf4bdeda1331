//! Connections to kubelets and pods: HTTP/1.1, over TLS where asked for, one for each request so
//! that it can be upgraded.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::Status;
use axum::body::Body;
use component_base::tls::{self, ClientCert};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::Target;
use crate::config;

/// How kubelets and proxied endpoints are reached.
#[derive(Clone)]
pub struct KubeletClient {
    /// With the kubelet client certificate.
    kubelet: Arc<ClientConfig>,
    identity: Option<ClientCert>,
    /// Without it: pods must not see who the server is to kubelets.
    plain: Arc<ClientConfig>,
    timeout: Duration,
}

/// Why the client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reading {path}")]
    Read { path: String, source: std::io::Error },
    #[error("kubelet TLS")]
    Tls(#[from] tls::Error),
}

fn read(path: &std::path::Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.display().to_string(), source })
}

impl KubeletClient {
    /// Reads the certificates that the flags name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(config: &config::KubeletClient) -> Result<Self, Error> {
        let identity = match (&config.client_certificate, &config.client_key) {
            (Some(cert), Some(key)) => Some(ClientCert::from_files(cert, key)?),
            _ => None,
        };
        // Kubelets make their own serving certificates unless told otherwise; so does upstream trust them
        // when no authority is configured.
        let authority = config.certificate_authority.as_deref().map(read).transpose()?;
        let kubelet = tls::live_client_config(authority.as_deref().map(str::as_bytes), identity.as_ref())?;
        let plain = tls::insecure_client_config(None)?;
        let timeout = if config.timeout.is_zero() { Duration::from_secs(5) } else { config.timeout };
        Ok(Self { kubelet, identity, plain, timeout })
    }

    /// Reads the client certificate again.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn reload(&self) -> Result<(), tls::Error> {
        self.identity.as_ref().map_or(Ok(()), ClientCert::reload)
    }

    /// Sends a request to its target and answers the head of the response; the body follows.
    ///
    /// # Errors
    /// 500 when a kubelet does not answer, which is a failure of the cluster's own; 503 when anybody else does not.
    pub async fn send(&self, target: &Target, request: Request<Body>) -> Result<Response<Incoming>, Status> {
        self.try_send(target, request).await.map_err(|error| match target.kubelet {
            true => Status::internal(error),
            false => Status::service_unavailable(format!("error trying to reach service: {error}")),
        })
    }

    /// As [`KubeletClient::send`].
    ///
    /// # Errors
    /// `dial tcp <address>: ` and why the target does not answer.
    pub async fn try_send(&self, target: &Target, request: Request<Body>) -> Result<Response<Incoming>, String> {
        let unreachable = |error: &dyn std::fmt::Display| format!("dial tcp {}: {error}", target.authority());
        let connect = TcpStream::connect((target.host.as_str(), target.port));
        let stream = match tokio::time::timeout(self.timeout, connect).await {
            Ok(stream) => stream.map_err(|error| unreachable(&dial_error(&error)))?,
            Err(_) => return Err(unreachable(&"i/o timeout")),
        };
        // Interactive streams are made of small writes.
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        if !target.tls {
            return exchange(TokioIo::new(stream), request).await.map_err(|error| unreachable(&error));
        }
        let config = if target.kubelet { &self.kubelet } else { &self.plain };
        let name = ServerName::try_from(target.host.clone()).map_err(|error| unreachable(&error))?;
        let handshake = TlsConnector::from(config.clone()).connect(name, stream);
        let stream = match tokio::time::timeout(self.timeout, handshake).await {
            Ok(stream) => stream.map_err(|error| unreachable(&error))?,
            Err(_) => return Err(unreachable(&"TLS handshake timeout")),
        };
        exchange(TokioIo::new(stream), request).await.map_err(|error| unreachable(&error))
    }
}

/// A failure to connect in the words that Go has for it.
fn dial_error(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        ErrorKind::HostUnreachable => "connect: no route to host".into(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        ErrorKind::TimedOut => "i/o timeout".into(),
        _ => error.to_string(),
    }
}

async fn exchange<I>(io: I, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    sender.send_request(request).await
}
