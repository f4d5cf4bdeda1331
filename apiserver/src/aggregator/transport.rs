//! Connections to extension servers: HTTPS with the front-proxy certificate, HTTP/2 where the server
//! speaks it, kept open between requests; one HTTP/1.1 connection for each upgrade.
//!
//! The address dialled is that of the Service or one of its endpoints; the name in the certificate is
//! always `<service>.<namespace>.svc`.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use component_base::tls::{self, ClientCert};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::routes::ServiceReference;

/// How long a connection may take to come about; upstream's dialler has the same patience.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Where Linux systems keep the authorities they trust: for APIServices without a bundle of their own.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A way to one extension server. Clones share connections.
#[derive(Clone)]
pub struct Link {
    client: legacy::Client<Connector, Body>,
    /// For upgrades, which HTTP/2 does not have.
    plain: Connector,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("name", &self.plain.name).finish_non_exhaustive()
    }
}

impl Link {
    /// A link that trusts `bundle` (the system's authorities when empty), or anybody when `insecure`.
    ///
    /// # Errors
    /// What clients are told instead of an answer: a bundle or certificate that cannot be read.
    pub fn new(
        service: &ServiceReference,
        insecure: bool,
        bundle: &[u8],
        identity: Option<&ClientCert>,
    ) -> Result<Self, String> {
        let name = format!("{}.{}.svc", service.name, service.namespace);
        let config = if insecure {
            tls::live_client_config(None, identity)
        } else if bundle.is_empty() {
            tls::live_client_config(Some(&system_bundle()?), identity)
        } else {
            tls::live_client_config(Some(bundle), identity)
        };
        let config = config.map_err(|error| format!("unable to load root certificates: {error}"))?;
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let with_alpn = |protocols: &[&[u8]]| {
            let mut config = ClientConfig::clone(&config);
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Connector { config: Arc::new(config), name: name.clone() }
        };
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(with_alpn(&[b"h2", b"http/1.1"]));
        Ok(Self { client, plain: with_alpn(&[b"http/1.1"]) })
    }

    /// Sends a request whose URI names the address.
    ///
    /// # Errors
    /// A text in upstream's words.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, String> {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        self.client.request(request).await.map_err(|error| described(&error, &authority))
    }

    /// Sends a request that asks for another protocol, over a connection of its own.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub async fn upgrade(&self, mut request: Request<Body>) -> Result<Response<Incoming>, String> {
        let uri = request.uri().clone();
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let stream = dial(self.plain.clone(), uri.clone())
            .await
            .map_err(|error| format!("error dialing backend: {}", described(&error, &authority)))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .map_err(|error| format!("error dialing backend: {error}"))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to an extension server ended");
            }
        });
        if let Ok(host) = http::HeaderValue::from_str(&authority) {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        sender.send_request(request).await.map_err(|error| format!("error sending request: {error}"))
    }
}

fn system_bundle() -> Result<Vec<u8>, String> {
    SYSTEM_BUNDLES
        .iter()
        .find_map(|path| std::fs::read(Path::new(path)).ok())
        .ok_or_else(|| "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_string())
}

/// An error and what caused it, as Go's network package words the common ones.
fn described(error: &(dyn std::error::Error + 'static), authority: &str) -> String {
    let mut deepest = error;
    loop {
        if let Some(io) = deepest.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionRefused => {
                    return format!("dial tcp {authority}: connect: connection refused");
                }
                io::ErrorKind::TimedOut => return format!("dial tcp {authority}: i/o timeout"),
                io::ErrorKind::HostUnreachable => return format!("dial tcp {authority}: connect: no route to host"),
                io::ErrorKind::NetworkUnreachable => {
                    return format!("dial tcp {authority}: connect: network is unreachable");
                }
                _ => {}
            }
            if let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return certificate(tls);
            }
        }
        match deepest.source() {
            Some(source) => deepest = source,
            None => return deepest.to_string(),
        }
    }
}

fn certificate(error: &rustls::Error) -> String {
    use rustls::CertificateError as Certificate;
    let rustls::Error::InvalidCertificate(reason) = error else { return format!("tls: {error}") };
    let text = match reason {
        Certificate::UnknownIssuer | Certificate::BadSignature => "certificate signed by unknown authority".to_string(),
        Certificate::Expired | Certificate::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".to_string()
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {text}")
}

/// Opens connections: TCP to the address of the URI, TLS to the name of the Service.
#[derive(Clone)]
struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(dial(self.clone(), uri))
    }
}

async fn dial(connector: Connector, uri: Uri) -> io::Result<Stream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
    let port = uri.port_u16().unwrap_or(443);
    let opened = async {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        // Watches and interactive streams are made of small writes.
        stream.set_nodelay(true)?;
        TlsConnector::from(connector.config).connect(connector.name, stream).await
    };
    match tokio::time::timeout(DIAL_TIMEOUT, opened).await {
        Ok(stream) => stream.map(|stream| Stream(TokioIo::new(stream))),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A TLS connection that tells the client whether it speaks HTTP/2.
struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let (_, session) = self.0.inner().get_ref();
        if session.alpn_protocol() == Some(b"h2") { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
