//! The call itself: TLS, one POST, a bounded answer.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::place::{self, Place};
use crate::server::Server;

/// No answer may be larger: a patch of a request of the largest size, with room.
const LIMIT: usize = 10 << 20;

/// The system's authorities, for webhooks without a `caBundle`.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How one webhook is reached.
#[derive(Debug)]
pub struct Client {
    config: Value,
    tls: Result<Arc<ClientConfig>, String>,
}

impl Client {
    /// Reads a `clientConfig`.
    pub fn new(config: &Value) -> Self {
        Client { config: config.clone(), tls: tls(config) }
    }

    /// Sends a review and answers the body of the answer.
    ///
    /// # Errors
    /// In upstream's words, from `failed to call webhook` on.
    pub async fn post(&self, server: &Server, body: &[u8], timeout: Duration) -> Result<Vec<u8>, String> {
        let failed = |error: String| format!("failed to call webhook: {error}");
        let tls = self.tls.as_ref().map_err(|error| format!("could not get REST client: {error}"))?;
        let place = place::find(server, &self.config).map_err(failed)?;
        let separator = if place.path.contains('?') { '&' } else { '?' };
        let query = format!("{separator}timeout={}s", timeout.as_secs());
        let call = exchange(&place, tls, &query, body);
        let at = |error: String| failed(format!("Post {:?}: {error}", format!("{}{query}", place.url)));
        match tokio::time::timeout(timeout, call).await {
            Err(_) => Err(at("context deadline exceeded".to_string())),
            Ok(Err(error)) => Err(at(error)),
            Ok(Ok((StatusCode::OK, body))) => Ok(body),
            Ok(Ok((code, body))) => Err(failed(http_error(code, &body))),
        }
    }
}

fn tls(config: &Value) -> Result<Arc<ClientConfig>, String> {
    let authority = match config.str_at(&["caBundle"]) {
        Some(bundle) if !bundle.trim().is_empty() => STANDARD.decode(bundle).map_err(|error| error.to_string())?,
        _ => std::fs::read(SYSTEM_AUTHORITIES).unwrap_or_default(),
    };
    component_base::tls::client_config(&authority, None).map_err(|error| error.to_string())
}

async fn exchange(
    place: &Place,
    tls: &Arc<ClientConfig>,
    query: &str,
    body: &[u8],
) -> Result<(StatusCode, Vec<u8>), String> {
    let stream = TcpStream::connect((place.host.as_str(), place.port)).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_string(),
            _ => error.to_string(),
        };
        format!("dial tcp {}:{}: connect: {why}", place.host, place.port)
    })?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(place.name.clone()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(tls.clone())
        .connect(name, stream)
        .await
        .map_err(|error| format!("tls: failed to verify certificate: {error}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the sender, so a call that is given up leaves nothing behind.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a webhook ended");
        }
    });
    let request = Request::post(format!("{}{query}", place.path))
        .header(HOST, format!("{}:{}", place.name, place.port))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Body::from(body.to_vec()))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let code = answer.status();
    let body = http_body_util::Limited::new(answer.into_body(), LIMIT)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    Ok((code, body.to_vec()))
}

/// An answer that is no 200, as upstream's client reads it: a Status if it is one.
fn http_error(code: StatusCode, body: &[u8]) -> String {
    if let Ok(tree) = apimachinery::json::parse(body)
        && tree.kind() == "Status"
        && let Some(message) = tree.str_at(&["message"])
    {
        return message.to_string();
    }
    match code.as_u16() {
        404 => "the server could not find the requested resource".to_string(),
        400 => "the server rejected our request for an unknown reason".to_string(),
        _ => {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(2048).collect();
            let text = if text.is_empty() { "unknown".to_string() } else { text };
            format!("an error on the server ({text:?}) has prevented the request from succeeding")
        }
    }
}
