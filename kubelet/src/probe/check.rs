//! One look at a container: HTTP, TCP, gRPC or a command. Also runs the HTTP form of lifecycle hooks.
//!
//! Answers are upstream's: HTTP 200 to 399 is success, a redirect to another host is a warning that
//! counts as success, anything that is not an answer within the time is failure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::grpc_health;
use crate::cri::Runtime;

/// The most of an answer that is read.
const MAX_BODY: usize = 10 << 10;
/// Redirects followed on the same host.
const MAX_REDIRECTS: usize = 10;

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Healthy; the text is what was said.
    Success(String),
    /// Healthy, with a remark for an event.
    Warning(String),
    /// Not healthy; the text says why.
    Failure(String),
    /// The look itself went wrong; nothing is concluded from it.
    Unknown(String),
}

/// The number of a port that may be given by name.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            match named {
                Some(port) => i64::from(port.container_port),
                None => name.parse().map_err(|_| format!("couldn't find port: {name}"))?,
            }
        }
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

/// Runs a command in a container; exit code zero is success.
pub async fn exec(runtime: &Arc<dyn Runtime>, id: &str, command: &[String], timeout: Duration) -> Outcome {
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX).max(1);
    match runtime.exec_sync(id, command, seconds).await {
        Ok(response) => {
            let mut text = String::from_utf8_lossy(&response.stdout).into_owned();
            text.push_str(&String::from_utf8_lossy(&response.stderr));
            text.truncate(text.floor_char_boundary(MAX_BODY));
            if response.exit_code == 0 { Outcome::Success(text) } else { Outcome::Failure(text) }
        }
        Err(error) if error.code == tonic::Code::DeadlineExceeded => {
            Outcome::Failure(format!("command timed out: {:?} timed out after {}s", command.join(" "), seconds))
        }
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

/// Opens and closes a connection.
pub async fn tcp(host: &str, port: u16, timeout: Duration) -> Outcome {
    match connect(host, port, timeout).await {
        Ok(_) => Outcome::Success(String::new()),
        Err(text) => Outcome::Failure(text),
    }
}

async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let address = join(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {address}: {}", dial_text(&error))),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

/// The words that dashboards know for a refused connection.
fn dial_text(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        _ => error.to_string(),
    }
}

fn join(host: &str, port: u16) -> String {
    match host.parse::<std::net::IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

/// Asks by HTTP. `host` is the pod's address unless the action names another.
pub async fn http(
    action: &HTTPGetAction,
    container: &Container,
    host: &str,
    timeout: Duration,
    agent: &str,
) -> Outcome {
    let port = match port(&action.port, container) {
        Ok(port) => port,
        Err(text) => return Outcome::Unknown(text),
    };
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(host);
    let tls = action.scheme.as_deref() == Some("HTTPS");
    let mut path = action.path.clone().unwrap_or_default();
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    let scheme = if tls { "https" } else { "http" };
    let url = format!("{scheme}://{}{path}", join(host, port));
    let asked = follow(action, host, port, tls, path, agent, timeout);
    match tokio::time::timeout(timeout, asked).await {
        Ok(Ok((status, body))) if (200..300).contains(&status) => Outcome::Success(body),
        Ok(Ok((status, body))) if (300..400).contains(&status) => {
            Outcome::Warning(format!("Probe terminated redirects, Response body: {body}"))
        }
        Ok(Ok((status, _))) => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Err(text)) => Outcome::Failure(format!("Get {url:?}: {text}")),
        Err(_) => Outcome::Failure(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

/// Follows redirects that stay on the host; one that leaves it is the answer.
async fn follow(
    action: &HTTPGetAction,
    host: &str,
    port: u16,
    tls: bool,
    mut path: String,
    agent: &str,
    timeout: Duration,
) -> Result<(u16, String), String> {
    for _ in 0..=MAX_REDIRECTS {
        let stream = connect(host, port, timeout).await?;
        let (status, location, body) = if tls {
            let stream = insecure_tls(stream, host).await?;
            request(stream, action, host, port, &path, agent).await?
        } else {
            request(stream, action, host, port, &path, agent).await?
        };
        let Some(location) = location.filter(|_| (300..400).contains(&status)) else { return Ok((status, body)) };
        let authority = join(host, port);
        let same =
            ["http://", "https://"].iter().find_map(|scheme| location.strip_prefix(scheme)?.strip_prefix(&authority));
        match same {
            Some(rest) => path = if rest.is_empty() { "/".into() } else { rest.to_owned() },
            None if location.starts_with('/') && !location.starts_with("//") => path = location,
            None => return Ok((status, body)),
        }
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

type Answer = (u16, Option<String>, String);

async fn request<S>(
    stream: S,
    action: &HTTPGetAction,
    host: &str,
    port: u16,
    path: &str,
    agent: &str,
) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let mut builder = http::Request::get(path);
    let wanted = action.http_headers.as_deref().unwrap_or_default();
    for header in wanted {
        // An empty Accept or User-Agent asks for none to be sent.
        if !header.value.is_empty() {
            builder = builder.header(&header.name, &header.value);
        }
    }
    let given = |name: &str| wanted.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    if !given("Host") {
        builder = builder.header("Host", join(host, port));
    }
    if !given("User-Agent") {
        builder = builder.header("User-Agent", agent);
    }
    if !given("Accept") {
        builder = builder.header("Accept", "*/*");
    }
    builder = builder.header("Connection", "close");
    let request = builder.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status().as_u16();
    let location = response.headers().get("Location").and_then(|l| l.to_str().ok()).map(str::to_owned);
    // A body that is too long is cut, not an error.
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    driver.abort();
    Ok((status, location, String::from_utf8_lossy(&body).into_owned()))
}

/// Probes do not verify certificates: the address is the pod's, which no certificate names.
async fn insecure_tls(stream: TcpStream, host: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| e.to_string())
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Asks gRPC's health service.
pub async fn grpc(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = join(host, port);
    match tokio::time::timeout(timeout, grpc_health::check(&address, service)).await {
        Ok(Ok(status)) if status == grpc_health::SERVING => Outcome::Success("service healthy".into()),
        Ok(Ok(status)) => {
            Outcome::Failure(format!("service unhealthy (responded with {:?})", grpc_health::name(status)))
        }
        Ok(Err(text)) => Outcome::Failure(text),
        Err(_) => Outcome::Failure(format!(
            "timeout: failed to connect service {address:?} within {timeout:?}: context deadline exceeded"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn container() -> Container {
        serde_json::from_value(serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
            .unwrap()
    }

    #[test]
    fn ports_by_name_and_number() {
        let of = |p: IntOrString| port(&p, &container());
        assert_eq!(of(IntOrString::Int(80)), Ok(80));
        assert_eq!(of(IntOrString::String("web".into())), Ok(8080));
        assert_eq!(of(IntOrString::String("81".into())), Ok(81));
        assert_eq!(of(IntOrString::String("x".into())), Err("couldn't find port: x".into()));
        assert_eq!(of(IntOrString::Int(0)), Err("invalid port number: 0".into()));
    }

    async fn answer(response: &'static str) -> Outcome {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let number = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = socket.read(&mut buffer).await;
            socket.write_all(response.as_bytes()).await.unwrap();
        });
        let action =
            HTTPGetAction { port: IntOrString::Int(i32::from(number)), path: Some("/x".into()), ..Default::default() };
        http(&action, &container(), "127.0.0.1", Duration::from_secs(5), "kube-probe/1.36").await
    }

    #[tokio::test]
    async fn http_answers() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(answer(ok).await, Outcome::Success("hi".into()));
        let bad = "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answer(bad).await, Outcome::Failure("HTTP probe failed with statuscode: 500".into()));
        let away = "HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n";
        assert!(matches!(answer(away).await, Outcome::Warning(_)));
    }

    #[tokio::test]
    async fn tcp_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let number = listener.local_addr().unwrap().port();
        assert_eq!(tcp("127.0.0.1", number, Duration::from_secs(5)).await, Outcome::Success(String::new()));
        drop(listener);
        assert_eq!(
            tcp("127.0.0.1", number, Duration::from_secs(5)).await,
            Outcome::Failure(format!("dial tcp 127.0.0.1:{number}: connect: connection refused"))
        );
    }
}
