//! Serving an axum router, or a service of another kind, over TLS: accept loop, HTTP/1.1 and HTTP/2, peer certificates,
//! draining.
//!
//! Each request carries [`Peer`] in its extensions. Upgrades (WebSocket, SPDY) work on HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::response::Response;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use http::{HeaderMap, Method, Request, Uri};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Who is at the other end of a connection; in each request's extensions.
#[derive(Debug, Clone)]
pub struct Peer(Arc<PeerInfo>);

#[derive(Debug)]
struct PeerInfo {
    address: SocketAddr,
    certificates: Vec<CertificateDer<'static>>,
    tls: bool,
    leave: CancellationToken,
}

impl Peer {
    /// A peer made by hand, for in-process requests and tests.
    pub fn new(address: SocketAddr, certificates: Vec<CertificateDer<'static>>) -> Self {
        Self(Arc::new(PeerInfo { address, certificates, tls: true, leave: CancellationToken::new() }))
    }

    /// The remote address.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The client's certificate chain, leaf first, not yet judged; empty when it showed none.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0.certificates
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.0.tls
    }

    /// Lets the connection end once what runs on it has: GOAWAY on HTTP/2.
    pub fn leave(&self) {
        self.0.leave.cancel();
    }

    /// One value for each connection, so that a judgement may be kept per connection.
    pub fn connection(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

/// How a server listens.
#[derive(Debug, Clone)]
pub struct Options {
    /// Streams an HTTP/2 connection may have open; upstream's default is 100.
    pub http2_max_streams: u32,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a peer may take to send a request's headers.
    pub header_timeout: Duration,
    /// How long open requests may run after shutdown began, or after `drained`.
    pub drain: Duration,
    /// Somebody who knows better than the connections when all that matters is done.
    pub drained: Option<CancellationToken>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            http2_max_streams: 100,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(32),
            drain: Duration::from_secs(10),
            drained: None,
        }
    }
}

/// Bytes of a request's head at most; Go's default, with the room that it allows beyond. The buffer may hold more at the
/// moment when a head is complete: who needs it exactly looks at [`head_length`].
pub const MAX_HEAD: usize = (1 << 20) + 4096;
/// Go's for HTTP/2, where every header costs a little more than its bytes.
const MAX_HEADER_LIST: u32 = (1 << 20) + 320;
/// Headers of a request at most over HTTP/1.1. Go counts none; here each parse sets a table aside for as many, and a map
/// of headers cannot hold more than some 24,000. This is enough for somebody in a thousand groups.
const MAX_HEADERS: usize = 1024;

/// About how long a request's head was: its line and its headers as they are usually written.
pub fn head_length(method: &Method, uri: &Uri, headers: &HeaderMap) -> usize {
    let line = method.as_str().len() + uri.path_and_query().map_or(0, |uri| uri.as_str().len());
    let headers = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + "  HTTP/1.1\r\n\r\n".len() + headers.sum::<usize>()
}

/// How long a connection that is asked to go may still bring a request: one that was sent before its
/// client heard of it.
const LINGER: Duration = Duration::from_millis(250);

/// How connections are encrypted.
#[derive(Clone)]
pub enum Encrypted {
    /// Not at all.
    Plain,
    /// Always the same way.
    Fixed(Arc<ServerConfig>),
    /// In the way that stands here when a connection comes.
    Live(Arc<ArcSwap<ServerConfig>>),
}

impl From<Option<Arc<ServerConfig>>> for Encrypted {
    fn from(tls: Option<Arc<ServerConfig>>) -> Self {
        tls.map_or(Self::Plain, Self::Fixed)
    }
}

impl From<Arc<ArcSwap<ServerConfig>>> for Encrypted {
    fn from(tls: Arc<ArcSwap<ServerConfig>>) -> Self {
        Self::Live(tls)
    }
}

impl Encrypted {
    fn acceptor(&self) -> Option<TlsAcceptor> {
        match self {
            Self::Plain => None,
            Self::Fixed(config) => Some(config.clone().into()),
            Self::Live(config) => Some(config.load_full().into()),
        }
    }
}

/// What every connection is served with.
struct Serving<S> {
    builder: auto::Builder<TokioExecutor>,
    tls: Encrypted,
    service: S,
    handshake_timeout: Duration,
    /// Connections finish what they are at and close.
    leaving: CancellationToken,
    /// Connections close whatever they are at.
    over: CancellationToken,
}

/// What answers requests. An axum router is one; one that is made of fewer layers costs less for each request.
pub trait Answers:
    tower::Service<Request<Body>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Answers for S where
    S: tower::Service<Request<Body>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Serves `service` on `listener` until `shutdown`, then drains.
pub async fn serve(
    listener: TcpListener,
    tls: impl Into<Encrypted>,
    service: impl Answers,
    options: Options,
    shutdown: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.http2_max_streams)
        .max_header_list_size(MAX_HEADER_LIST)
        // Upstream sizes windows for many concurrent streams over one connection.
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(25 * 1024 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let serving = Arc::new(Serving {
        builder,
        tls: tls.into(),
        service,
        handshake_timeout: options.handshake_timeout,
        leaving: CancellationToken::new(),
        over: CancellationToken::new(),
    });
    let connections = TaskTracker::new();
    loop {
        let (stream, address) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors or a peer that left in the queue: neither ends the server.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        connections.spawn(serving.clone().one(stream, address));
    }
    // Whoever is in the queue already is connected as far as they know.
    while let Some(Ok((stream, address))) = listener.accept().now_or_never() {
        connections.spawn(serving.clone().one(stream, address));
    }
    drop(listener);
    connections.close();
    // Idle connections of HTTP/1.1 close without a word: those in use learn of it by an answer first.
    let _ = tokio::time::timeout(LINGER, connections.wait()).await;
    serving.leaving.cancel();
    if let Some(drained) = &options.drained {
        tokio::select! {
            () = drained.cancelled() => {}
            () = connections.wait() => {}
        }
    }
    if tokio::time::timeout(options.drain, connections.wait()).await.is_err() {
        tracing::debug!("connections were still open when draining ended");
        serving.over.cancel();
    }
}

impl<S: Answers> Serving<S> {
    async fn one(self: Arc<Self>, stream: TcpStream, address: SocketAddr) {
        // Answers are written whole; waiting to fill a segment only costs latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let leave = self.leaving.child_token();
        match self.tls.acceptor() {
            None => {
                let peer = PeerInfo { address, certificates: Vec::new(), tls: false, leave };
                self.connection(TokioIo::new(stream), peer).await;
            }
            Some(acceptor) => {
                let Some(stream) = handshake(acceptor, stream, address, self.handshake_timeout).await else {
                    return;
                };
                let certificates = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
                let peer = PeerInfo { address, certificates, tls: true, leave };
                self.connection(TokioIo::new(stream), peer).await;
            }
        }
    }

    async fn connection<I>(&self, io: I, peer: PeerInfo)
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let peer = Peer(Arc::new(peer));
        // Looked at when it has something to say: a connection is polled for each event of a watch, and the token's lock
        // would be taken for each.
        let mut leave: FuturesUnordered<_> = std::iter::once(peer.0.leave.clone().cancelled_owned()).collect();
        let service = self.service.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            service.clone().call(request.map(Body::new))
        });
        let mut connection = std::pin::pin!(self.builder.serve_connection_with_upgrades(io, service));
        let mut result = tokio::select! {
            biased;
            result = connection.as_mut() => Some(result),
            _ = leave.next() => None,
        };
        if result.is_none() {
            connection.as_mut().graceful_shutdown();
            result = tokio::select! {
                result = connection.as_mut() => Some(result),
                () = self.over.cancelled() => None,
            };
        }
        if let Some(Err(error)) = result {
            tracing::trace!(%error, "connection ended");
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    timeout: Duration,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match tokio::time::timeout(timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!("http: TLS handshake error from {address}: {error}");
            None
        }
        Err(_) => {
            tracing::info!("http: TLS handshake error from {address}: i/o timeout");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Ca, Profile};
    use crate::tls;
    use axum::routing::get;
    use axum::{Extension, Router};
    use http_body_util::{BodyExt as _, Empty};
    use tokio_rustls::TlsConnector;

    async fn whoami(Extension(peer): Extension<Peer>) -> String {
        match peer.certificates().first() {
            None => "nobody".to_string(),
            Some(cert) => tls::identity(cert).unwrap().common_name,
        }
    }

    async fn ask(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> String {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("/").header("host", "localhost").body(Empty::new()).unwrap();
        let body = sender.send_request(request).await.unwrap().into_body();
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn peers_reach_handlers_whoever_signed_them() {
        let ca = Ca::new("kubernetes").unwrap();
        let stranger = Ca::new("stranger").unwrap();
        let serving = tls::ServingCert::from_pair(&ca.issue(&Profile::server("s", &["localhost"])).unwrap()).unwrap();
        let authority = tls::ClientAuthority::from_pem(ca.cert_pem().as_bytes()).unwrap();
        let config =
            tls::server_config(serving.clone(), tls::ClientAuth::Request { hints: authority.hints() }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(
            listener,
            Some(config),
            Router::new().route("/", get(whoami)),
            Options::default(),
            shutdown.clone(),
        ));
        let ca_pem = ca.cert_pem().as_bytes();
        assert_eq!(ask(address, tls::client_config(ca_pem, None).unwrap()).await, "nobody");
        let admin = ca.issue(&Profile::client("admin", &[])).unwrap();
        assert_eq!(ask(address, tls::client_config(ca_pem, Some(&admin)).unwrap()).await, "admin");

        // A replaced certificate serves the next connection.
        let other = stranger.issue(&Profile::server("s", &["localhost"])).unwrap();
        serving.replace(&other).unwrap();
        assert_eq!(ask(address, tls::client_config(stranger.cert_pem().as_bytes(), None).unwrap()).await, "nobody");
        shutdown.cancel();
        server.await.unwrap();
    }
}
