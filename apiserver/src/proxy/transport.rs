//! Connections to kubelets and pods: HTTP/1.1, over TLS where asked for, one for each request so
//! that it can be upgraded.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::Status;
use arc_swap::ArcSwap;
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
    kubelet: Arc<ArcSwap<ClientConfig>>,
    identity: Option<ClientCert>,
    authority: Option<Arc<Path>>,
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

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.display().to_string(), source })
}

fn to_kubelets(authority: Option<&Path>, identity: Option<&ClientCert>) -> Result<Arc<ClientConfig>, Error> {
    let authority = authority.map(read).transpose()?;
    Ok(tls::live_client_config(authority.as_deref().map(str::as_bytes), identity)?)
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
        let authority = config.certificate_authority.as_deref().map(Arc::from);
        let kubelet = Arc::new(ArcSwap::new(to_kubelets(authority.as_deref(), identity.as_ref())?));
        let plain = tls::insecure_client_config(None)?;
        let timeout = if config.timeout.is_zero() { Duration::from_secs(5) } else { config.timeout };
        Ok(Self { kubelet, identity, authority, plain, timeout })
    }

    /// Reads the client certificate and the authorities again.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn reload(&self) -> Result<(), Error> {
        self.identity.as_ref().map_or(Ok(()), ClientCert::reload)?;
        self.kubelet.store(to_kubelets(self.authority.as_deref(), self.identity.as_ref())?);
        Ok(())
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
        let config = if target.kubelet { self.kubelet.load_full() } else { self.plain.clone() };
        let name = ServerName::try_from(target.host.clone()).map_err(|error| unreachable(&error))?;
        let handshake = TlsConnector::from(config).connect(name, stream);
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

#[cfg(test)]
mod tests {
    use component_base::pki::{Ca, Profile};
    use component_base::serving;
    use component_base::tls::{ClientAuth, ServingCert};
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn another_authority_of_kubelets_is_taken_over() {
        let (old, new) = (Ca::new("old").unwrap(), Ca::new("new").unwrap());
        let pair = new.issue(&Profile::server("node", &["127.0.0.1"])).unwrap();
        let cert = ServingCert::from_pair(&pair).unwrap();
        let tls = tls::server_config(cert, ClientAuth::None).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new().fallback(|| async { "a kubelet" });
        let stop = CancellationToken::new();
        tokio::spawn(serving::serve(listener, Some(tls), router, serving::Options::default(), stop.clone()));

        let directory = tempfile::tempdir().unwrap();
        let authority = directory.path().join("ca.crt");
        std::fs::write(&authority, old.cert_pem()).unwrap();
        let config = config::KubeletClient {
            certificate_authority: Some(authority.clone()),
            ..config::Config::default().kubelet
        };
        let client = KubeletClient::new(&config).unwrap();
        let target = Target { host: "127.0.0.1".to_owned(), port, tls: true, kubelet: true };
        let ask =
            || async { client.send(&target, Request::get("/").header("host", "n").body(Body::empty()).unwrap()).await };
        assert!(ask().await.is_err(), "a stranger");
        std::fs::write(&authority, "nonsense").unwrap();
        assert!(client.reload().is_err());
        assert!(ask().await.is_err(), "still the old one");
        std::fs::write(&authority, new.cert_pem()).unwrap();
        client.reload().unwrap();
        assert_eq!(ask().await.unwrap().status(), 200);
        stop.cancel();
    }
}
