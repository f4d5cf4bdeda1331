//! Sends `ConversionReview`s: over TLS to a URL or to a Service.

use std::sync::{Arc, Weak};
use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use async_trait::async_trait;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::registry::custom::{Definition, Reviewer};
use crate::server::Server;

/// Upstream's bound on one call.
const TIMEOUT: Duration = Duration::from_secs(30);

/// More than this is no answer.
const LIMIT: usize = 32 << 20;

/// Sends reviews from this server.
pub fn reviewer(server: &Arc<Server>) -> Arc<dyn Reviewer> {
    Arc::new(Http(Arc::downgrade(server)))
}

struct Http(Weak<Server>);

/// Where a webhook is.
struct Place {
    /// Where to connect.
    host: String,
    port: u16,
    /// Whom the certificate must name.
    name: String,
    path: String,
    /// As messages name it.
    url: String,
}

#[async_trait]
impl Reviewer for Http {
    async fn review(&self, definition: &Definition, review: &Value) -> Result<Value, String> {
        let config = definition.webhook.as_ref().map(|webhook| &webhook.client_config).ok_or("there is no webhook")?;
        let server = self.0.upgrade().ok_or("the server is stopping")?;
        let place = place(&server, config)?;
        let failed = |why: String| format!("Post {:?}: {why}", format!("{}?timeout=30s", place.url));
        match tokio::time::timeout(TIMEOUT, send(&place, config, review)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed("context deadline exceeded".to_string())),
        }
    }
}

fn place(server: &Server, config: &Value) -> Result<Place, String> {
    if let Some(text) = config.str_at(&["url"]) {
        let url = url::Url::parse(text).map_err(|error| error.to_string())?;
        let host = url.host_str().ok_or("the URL has no host")?.trim_matches(['[', ']']).to_string();
        let port = url.port_or_known_default().unwrap_or(443);
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_string(),
        };
        return Ok(Place { name: host.clone(), host, port, path, url: text.to_string() });
    }
    let service = config.get("service").ok_or("webhook configuration must have either service or URL")?;
    let text = |name: &str| service.str_at(&[name]).unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let port = service.i64_at(&["port"]).and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
    let host = crate::services::resolve(server, namespace, name, port)?;
    let path = match text("path") {
        "" => "/".to_string(),
        path if path.starts_with('/') => path.to_string(),
        path => format!("/{path}"),
    };
    let dns = format!("{name}.{namespace}.svc");
    let url = format!("https://{dns}:{port}{path}");
    Ok(Place { host: host.0, port: host.1, name: dns, path, url })
}

async fn send(place: &Place, config: &Value, review: &Value) -> Result<Value, String> {
    let authority = match config.str_at(&["caBundle"]) {
        Some(bundle) if !bundle.trim().is_empty() => STANDARD.decode(bundle).map_err(|error| error.to_string())?,
        // The system's authorities, as upstream falls back to.
        _ => std::fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default(),
    };
    let tls = component_base::tls::client_config(&authority, None).map_err(|error| error.to_string())?;
    let stream = TcpStream::connect((place.host.as_str(), place.port))
        .await
        .map_err(|error| format!("dial tcp {}:{}: connect: {error}", place.host, place.port))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(place.name.clone()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(tls)
        .connect(name, stream)
        .await
        .map_err(|error| format!("tls: failed to verify certificate: {error}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a webhook ended");
        }
    });
    let separator = if place.path.contains('?') { '&' } else { '?' };
    let request = Request::post(format!("{}{separator}timeout=30s", place.path))
        .header(HOST, format!("{}:{}", place.name, place.port))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Body::from(review.to_string()))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let code = answer.status();
    let body = http_body_util::Limited::new(answer.into_body(), LIMIT)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    if !code.is_success() {
        let reason = code.canonical_reason().unwrap_or_default();
        return Err(match code.as_u16() {
            404 => "the server could not find the requested resource".to_string(),
            code => format!("an error on the server ({reason:?}) has prevented the request from succeeding ({code})"),
        });
    }
    apimachinery::json::parse(&body).map_err(|error| error.to_string())
}
