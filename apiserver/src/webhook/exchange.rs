//! One request and its answer over a connection of its own, and what Go has to say when there is none.

use std::sync::Arc;

use axum::body::Body;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::place::Hop;

/// No answer may be larger: the objects of a conversion, with room.
const LIMIT: usize = 32 << 20;

/// Sends a request to a place that is dialled at host and port.
///
/// # Errors
/// In Go's words.
pub async fn exchange(
    hop: &Hop,
    dial: &(String, u16),
    tls: &Arc<ClientConfig>,
    method: Method,
    body: &[u8],
) -> Result<(StatusCode, HeaderMap, Vec<u8>), String> {
    let stream = TcpStream::connect((dial.0.as_str(), dial.1)).await.map_err(|error| unreachable(dial, &error))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let ends = Ends::of(&stream);
    let (path, host) = hop.target();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Body::from(body.to_vec()))
        .map_err(|error| error.to_string())?;
    match hop.url.scheme() {
        "http" => send(stream, &ends, request).await,
        "https" => {
            let name = ServerName::try_from(hop.host()).map_err(|error| error.to_string())?;
            let stream =
                TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(|error| refused(&error))?;
            send(stream, &ends, request).await
        }
        scheme => Err(format!("unsupported protocol scheme {scheme:?}")),
    }
}

/// Where a connection goes from and to, as Go's messages show it.
struct Ends(String);

impl Ends {
    fn of(stream: &TcpStream) -> Self {
        let text = |end: std::io::Result<std::net::SocketAddr>| end.map(|end| end.to_string()).unwrap_or_default();
        Ends(format!("{}->{}", text(stream.local_addr()), text(stream.peer_addr())))
    }

    /// Why a connection that stood carried no answer.
    fn broken(&self, error: &(dyn std::error::Error + 'static)) -> String {
        use std::io::ErrorKind;
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
                return "EOF".to_string();
            }
            match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                Some(ErrorKind::UnexpectedEof) => return "unexpected EOF".to_string(),
                Some(ErrorKind::ConnectionReset) => {
                    return format!("read tcp {}: read: connection reset by peer", self.0);
                }
                Some(ErrorKind::BrokenPipe) => return format!("write tcp {}: write: broken pipe", self.0),
                Some(ErrorKind::TimedOut) => return format!("read tcp {}: read: connection timed out", self.0),
                _ => cause = error.source(),
            }
        }
        error.to_string()
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ends: &Ends,
    request: Request<Body>,
) -> Result<(StatusCode, HeaderMap, Vec<u8>), String> {
    let text = |error: hyper::Error| ends.broken(&error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    // Ends with the sender, so a call that is given up leaves nothing behind.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a webhook ended");
        }
    });
    let (parts, body) = sender.send_request(request).await.map_err(text)?.into_parts();
    let body =
        http_body_util::Limited::new(body, LIMIT).collect().await.map_err(|error| ends.broken(error.as_ref()))?;
    Ok((parts.status, parts.headers, body.to_bytes().to_vec()))
}

fn unreachable((host, port): &(String, u16), error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let why = match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_string(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_string(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_string(),
        ErrorKind::TimedOut => "i/o timeout".to_string(),
        _ if error.to_string().starts_with("failed to lookup address") => {
            return format!("dial tcp: lookup {host}: no such host");
        }
        _ => error.to_string(),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    format!("dial tcp {host}:{port}: {why}")
}

/// Why a server is not who it should be.
fn refused(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return "EOF".to_string();
    }
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            format!("tls: failed to verify certificate: x509: {}", certificate(reason))
        }
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            "http: server gave HTTP response to HTTPS client".to_string()
        }
        _ => format!("tls: {error}"),
    }
}

fn certificate(reason: &CertificateError) -> String {
    let time = |time: &UnixTime| {
        let at = i64::try_from(time.as_secs()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        at.map(|at| at.to_string()).unwrap_or_default()
    };
    match reason {
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".to_string(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            // Names come as `DnsName("a")` and `IpAddress(1.2.3.4)`.
            let name = |text: &String| {
                let inner = text.split_once('(').map_or(text.as_str(), |(_, rest)| rest.trim_end_matches(')'));
                inner.trim_matches('"').to_string()
            };
            let names: Vec<String> = presented.iter().map(name).collect();
            format!("certificate is valid for {}, not {}", names.join(", "), expected.to_str())
        }
        CertificateError::ExpiredContext { time: now, not_after } => format!(
            "certificate has expired or is not yet valid: current time {} is after {}",
            time(now),
            time(not_after)
        ),
        CertificateError::NotValidYetContext { time: now, not_before } => format!(
            "certificate has expired or is not yet valid: current time {} is before {}",
            time(now),
            time(not_before)
        ),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Asks a server that answers with `bytes`, having read the request or only its first byte, and goes away.
    async fn ask(reads_all: bool, bytes: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let server = tokio::spawn(async move {
            let (mut stream, client) = listener.accept().await.expect("a client");
            let mut request = vec![0; if reads_all { 64 << 10 } else { 1 }];
            let mut length = 0;
            while length == 0 || reads_all && !request[..length].ends_with(b"{}") {
                length += stream.read(&mut request[length..]).await.expect("a request");
            }
            stream.write_all(bytes).await.expect("written");
            client
        });
        let hop = Hop::first(&json!({"url": format!("http://127.0.0.1:{port}/x")}), 5).expect("a place");
        let tls = component_base::tls::insecure_client_config(None).expect("a configuration");
        let answer = exchange(&hop, &("127.0.0.1".into(), port), &tls, Method::POST, b"{}").await;
        let client = server.await.expect("served");
        answer.expect_err("no answer").replace(&format!("{client}->127.0.0.1:{port}"), "HERE->THERE")
    }

    #[tokio::test]
    async fn connections_that_break_are_told_in_go_s_words() {
        assert_eq!(ask(true, b"").await, "EOF");
        assert_eq!(ask(true, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await, "unexpected EOF");
        // What is left unread makes the kernel reset the connection.
        assert_eq!(ask(false, b"").await, "read tcp HERE->THERE: read: connection reset by peer");
    }
}
