//! Calls to webhooks that objects of the API name by `clientConfig`: of admission and of conversion.
//!
//! One POST over TLS, to a URL or to a Service, bounded in time and size. Redirects are followed and `Retry-After` is
//! heeded as upstream's client does, and errors are in its words.

mod exchange;
mod place;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::gvk::GroupResource;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};
use rustls::ClientConfig;
use serde_json::Value;

use crate::server::Server;
use exchange::exchange;
use place::Hop;

/// The system's authorities, for webhooks without a `caBundle`.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How often a redirect is followed, and how often a server may ask to be asked later.
const REDIRECTS: usize = 10;
const RETRIES: usize = 10;

/// An error's text is cut here.
const LONGEST_TEXT: usize = 2048;

/// How one webhook is reached.
#[derive(Debug)]
pub struct Client {
    config: Value,
    tls: Result<Arc<ClientConfig>, String>,
}

/// What a webhook answered with a code that is no error.
#[derive(Debug)]
pub struct Answer {
    pub code: StatusCode,
    pub content_type: String,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no telling how to reach the webhook.
    #[error("{0}")]
    Client(String),
    /// It was not reached, or answered with an error: words, and a code for metrics.
    #[error("{message}")]
    Call { message: String, code: u16 },
}

impl Error {
    fn unreached(message: impl Into<String>) -> Self {
        Error::Call { message: message.into(), code: 503 }
    }

    /// The code that metrics show.
    pub fn code(&self) -> u16 {
        match self {
            Error::Client(_) => 500,
            Error::Call { code, .. } => *code,
        }
    }
}

impl Client {
    /// Reads a `clientConfig`.
    pub fn new(config: &Value) -> Self {
        Client { config: config.clone(), tls: tls(config) }
    }

    /// Sends a review.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn post(&self, server: &Server, body: &[u8], timeout: Duration) -> Result<Answer, Error> {
        let tls = self.tls.as_ref().map_err(|error| Error::Client(error.clone()))?;
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let hop = Hop::first(&self.config, seconds).map_err(Error::Client)?;
        let url = hop.shown.clone();
        match tokio::time::timeout(timeout, attempts(server, tls, &hop, body)).await {
            Err(_) => Err(Error::unreached(format!("Post {url:?}: context deadline exceeded"))),
            Ok(answer) => answer,
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

/// Sends a request as often as the other side asks for it.
async fn attempts(server: &Server, tls: &Arc<ClientConfig>, first: &Hop, body: &[u8]) -> Result<Answer, Error> {
    let mut attempt = 0;
    loop {
        let (code, headers, answer) = follow(server, tls, first, body).await?;
        let later = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let again = code == StatusCode::TOO_MANY_REQUESTS || code.is_server_error();
        match later.filter(|_| again && attempt < RETRIES) {
            Some(seconds) => {
                attempt += 1;
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            None => return judge(code, &headers, answer),
        }
    }
}

/// Sends a request, and again to wherever the answer points.
async fn follow(
    server: &Server,
    tls: &Arc<ClientConfig>,
    first: &Hop,
    body: &[u8],
) -> Result<(StatusCode, HeaderMap, Vec<u8>), Error> {
    let (mut hop, mut method, mut content) = (first.clone(), Method::POST, body);
    for count in 0.. {
        let verb = if method == Method::POST { "Post" } else { "Get" };
        let failed = |why: String| Error::unreached(format!("{verb} {:?}: {why}", hop.shown));
        if count > REDIRECTS {
            break;
        }
        let dial = hop.dial(server).map_err(failed)?;
        let (code, headers, answer) = exchange(&hop, &dial, tls, method.clone(), content).await.map_err(failed)?;
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).filter(|_| code.is_redirection());
        let Some(location) = location else { return Ok((code, headers, answer)) };
        if count == REDIRECTS - 1 {
            let verb = if matches!(code.as_u16(), 307 | 308) { verb } else { "Get" };
            return Err(Error::unreached(format!("{verb} {location:?}: stopped after {REDIRECTS} redirects")));
        }
        match code.as_u16() {
            307 | 308 => {}
            301..=303 => (method, content) = (Method::GET, &[]),
            _ => return Ok((code, headers, answer)),
        }
        hop = hop.next(location).map_err(failed)?;
    }
    Err(Error::unreached("too many redirects"))
}

/// An answer, or the error that it is.
fn judge(code: StatusCode, headers: &HeaderMap, body: Vec<u8>) -> Result<Answer, Error> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_string();
    if (200..=206).contains(&code.as_u16()) {
        return Ok(Answer { code, content_type, body });
    }
    if let Ok(tree) = apimachinery::json::parse(&body)
        && tree.kind() == "Status"
        && tree.str_at(&["status"]) != Some("Success")
    {
        let message = tree.str_at(&["message"]).unwrap_or_default().to_string();
        let own = tree.i64_at(&["code"]).and_then(|own| u16::try_from(own).ok());
        return Err(Error::Call { message, code: own.unwrap_or(code.as_u16()) });
    }
    let is_text = content_type.is_empty() || content_type.starts_with("text/");
    let text = if is_text {
        let cut = &body[..body.len().min(LONGEST_TEXT)];
        String::from_utf8_lossy(cut).trim().to_string()
    } else {
        "unknown".to_string()
    };
    let status = Status::generic(code.as_u16(), "POST", &GroupResource::default(), "", &text);
    Err(Error::Call { message: status.message, code: code.as_u16() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As upstream's client was seen to word it.
    #[test]
    fn answers_that_are_errors() {
        let check = |code: u16, kind: Option<&str>, body: &str| {
            let mut headers = HeaderMap::new();
            if let Some(kind) = kind {
                headers.insert(CONTENT_TYPE, kind.parse().expect("a media type"));
            }
            let code = StatusCode::from_u16(code).expect("a code");
            judge(code, &headers, body.as_bytes().to_vec()).err().map_or_else(String::new, |error| error.to_string())
        };
        let text = Some("text/plain");
        assert_eq!(check(201, text, ""), "");
        assert_eq!(check(404, text, "not here"), "the server could not find the requested resource");
        assert_eq!(
            check(500, text, "boom"),
            "an error on the server (\"boom\") has prevented the request from succeeding"
        );
        let json = Some("application/json");
        assert_eq!(
            check(500, json, "{}"),
            "an error on the server (\"unknown\") has prevented the request from succeeding"
        );
        assert_eq!(check(503, None, ""), "the server is currently unable to handle the request");
        assert_eq!(check(400, text, "bad"), "the server rejected our request for an unknown reason");
        assert_eq!(check(403, text, "no"), "no");
        let status = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"my words","code":500}"#;
        assert_eq!(check(500, json, status), "my words");
    }
}
