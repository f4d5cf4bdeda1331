//! Requests to the API: paths, headers, bodies, streams, and failures turned into [`Error`].

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::mapper::Mapping;
use crate::streams::Output;

/// The largest object or list page that is read into memory.
const MAX_BODY: usize = 512 << 20;

/// A connection to one API server.
pub struct Rest {
    client: kube::Client,
    /// `host:port`, for messages.
    pub host: String,
    /// The whole base URL.
    pub server: String,
    timeout: Option<Duration>,
    warnings: Output,
    warned: Mutex<HashSet<String>>,
    verbosity: i64,
}

/// One request before it is sent.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    accept: Option<String>,
    content_type: Option<&'static str>,
    body: Vec<u8>,
}

impl Call {
    /// A call of `method` on an absolute path (which may carry a query).
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Call { method, path: path.into(), query: Vec::new(), accept: None, content_type: None, body: Vec::new() }
    }

    /// GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Adds a query parameter; empty values are left out.
    #[must_use]
    pub fn query(mut self, key: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.query.push((key.to_owned(), value));
        }
        self
    }

    /// The media types wanted.
    #[must_use]
    pub fn accept(mut self, accept: impl Into<String>) -> Self {
        self.accept = Some(accept.into());
        self
    }

    /// A JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", serde_json::to_vec(body).expect("a tree always encodes"))
    }

    /// A body of some media type.
    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: Vec<u8>) -> Self {
        self.content_type = Some(content_type);
        self.body = body;
        self
    }

    /// Path and query as sent.
    pub fn uri(&self) -> String {
        if self.query.is_empty() {
            return self.path.clone();
        }
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
        let separator = if self.path.contains('?') { '&' } else { '?' };
        format!("{}{separator}{query}", self.path)
    }
}

/// The path of a resource's collection, object or subresource.
pub fn path(mapping: &Mapping, namespace: &str, name: &str, subresource: &str) -> String {
    let mut path = if mapping.group.is_empty() {
        format!("/api/{}", mapping.version)
    } else {
        format!("/apis/{}/{}", mapping.group, mapping.version)
    };
    if mapping.namespaced && !namespace.is_empty() {
        path = format!("{path}/namespaces/{}", encode(namespace));
    }
    for part in [mapping.resource.as_str(), name, subresource] {
        if !part.is_empty() {
            path = format!("{path}/{}", encode(part));
        }
    }
    path
}

fn encode(segment: &str) -> String {
    // A subresource may hold slashes of its own (`proxy/metrics`); names never do.
    let mut out = String::new();
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b'@' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl Rest {
    /// Wraps a client. Server warnings go to `warnings`, each text once.
    pub fn new(
        client: kube::Client,
        server: &str,
        timeout: Option<Duration>,
        warnings: Output,
        verbosity: i64,
    ) -> Self {
        let host = server.split_once("://").map_or(server, |(_, rest)| rest).trim_end_matches('/');
        Rest {
            client,
            host: host.split('/').next().unwrap_or(host).to_owned(),
            server: server.trim_end_matches('/').to_owned(),
            timeout,
            warnings,
            warned: Mutex::default(),
            verbosity,
        }
    }

    /// The client below, for WebSockets.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    async fn open(&self, call: Call, timeout: Option<Duration>) -> Result<http::Response<Body>> {
        let mut call = call;
        if let Some(timeout) = timeout.filter(|_| !call.query.iter().any(|(key, _)| key == "timeout")) {
            call.query.push(("timeout".into(), format!("{}s", timeout.as_secs().max(1))));
        }
        let mut request = Request::builder().method(call.method.clone()).uri(call.uri());
        request = request
            .header("accept", call.accept.as_deref().unwrap_or("application/json"))
            .header("user-agent", user_agent());
        if let Some(content_type) = call.content_type {
            request = request.header("content-type", content_type);
        }
        let request = request.body(Body::from(call.body.clone())).map_err(|error| Error::message(error.to_string()))?;
        if self.verbosity >= 8 && !call.body.is_empty() {
            self.warnings.line(&format!("Request Body: {}", String::from_utf8_lossy(&call.body)));
        }
        let started = std::time::Instant::now();
        let sent = self.client.send(request);
        let response = match timeout {
            Some(limit) => tokio::time::timeout(limit, sent).await.map_err(|_| {
                let url = format!("{}{}", self.server, call.uri());
                self.transport(format!(
                    "{} {url:?}: net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
                    go_method(&call.method)
                ))
            })?,
            None => sent.await,
        };
        let response = response.map_err(|error| self.failure(&error))?;
        if self.verbosity >= 6 {
            self.warnings.line(&format!(
                "{} {}{} {} in {} milliseconds",
                call.method,
                self.server,
                call.uri(),
                response.status(),
                started.elapsed().as_millis()
            ));
        }
        self.warn(response.headers());
        Ok(response)
    }

    /// Says an error of the transport below.
    pub fn failure(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        let mut texts = Vec::new();
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            texts.push(error.to_string());
            cause = error.source();
        }
        let refused = texts.iter().any(|text| text.to_lowercase().contains("connection refused"));
        Error::Transport { host: self.host.clone(), message: texts.pop().unwrap_or_default(), refused }
    }

    fn transport(&self, message: String) -> Error {
        Error::Transport { host: self.host.clone(), message, refused: false }
    }

    /// Prints `Warning: …` for each warning header not yet shown.
    fn warn(&self, headers: &HeaderMap) {
        for value in headers.get_all("warning") {
            let Ok(text) = value.to_str() else { continue };
            // 299 - "text"
            let Some(quoted) = text.find('"') else { continue };
            let text = unquote(&text[quoted..]);
            if self.warned.lock().expect("never poisoned").insert(text.clone()) {
                self.warnings.line(&format!("Warning: {text}"));
            }
        }
    }

    /// Sends and reads the whole answer, whatever its code.
    ///
    /// # Errors
    /// Only when no answer came.
    pub async fn exchange(&self, call: Call) -> Result<(StatusCode, HeaderMap, Bytes)> {
        let timeout = self.timeout;
        let response = self.open(call, timeout).await?;
        let (parts, body) = response.into_parts();
        let body = http_body_util::Limited::new(body, MAX_BODY);
        let bytes = body.collect().await.map_err(|error| self.transport(error.to_string()))?.to_bytes();
        if self.verbosity >= 8 {
            self.warnings.line(&format!("Response Body: {}", String::from_utf8_lossy(&bytes)));
        }
        Ok((parts.status, parts.headers, bytes))
    }

    /// The body of a successful answer.
    ///
    /// # Errors
    /// What the API or the transport said.
    pub async fn bytes(&self, call: Call) -> Result<Bytes> {
        let (code, _, bytes) = self.exchange(call).await?;
        if code.is_success() { Ok(bytes) } else { Err(Error::api(status(code, &bytes))) }
    }

    /// The tree of a successful answer.
    ///
    /// # Errors
    /// As [`Rest::bytes`], or an answer that is not JSON.
    pub async fn value(&self, call: Call) -> Result<Value> {
        let bytes = self.bytes(call).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::message(format!("unable to decode an answer: {error}")))
    }

    /// The body of a successful answer as it comes; no overall time limit.
    ///
    /// # Errors
    /// As [`Rest::bytes`].
    pub async fn stream(&self, call: Call) -> Result<impl Stream<Item = Result<Bytes>> + use<>> {
        let response = self.open(call, None).await?;
        let code = response.status();
        if !code.is_success() {
            let bytes = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(Error::api(status(code, &bytes)));
        }
        let host = self.host.clone();
        Ok(response.into_body().into_data_stream().map_err(move |error| Error::Transport {
            host: host.clone(),
            message: error.to_string(),
            refused: false,
        }))
    }

    /// The events of a watch, one tree for each line.
    ///
    /// # Errors
    /// As [`Rest::bytes`].
    pub async fn watch(&self, call: Call) -> Result<impl Stream<Item = Result<Value>> + use<>> {
        let stream = self.stream(call.query("watch", "true")).await?;
        let mut pending: Vec<u8> = Vec::new();
        Ok(stream.flat_map(move |chunk| {
            let mut out = Vec::new();
            match chunk {
                Ok(chunk) => {
                    pending.extend_from_slice(&chunk);
                    while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = pending.drain(..=end).collect();
                        out.push(serde_json::from_slice(&line).map_err(|error| {
                            Error::message(format!("unable to decode an event from the watch stream: {error}"))
                        }));
                    }
                }
                Err(error) => out.push(Err(error)),
            }
            futures::stream::iter(out)
        }))
    }
}

fn go_method(method: &Method) -> String {
    let name = method.as_str().to_lowercase();
    name[..1].to_uppercase() + &name[1..]
}

/// How the program names itself to servers.
pub fn user_agent() -> String {
    format!("kubectl/{} ({}/{})", crate::VERSION, std::env::consts::OS, go_arch())
}

/// The architecture in Go's words.
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn unquote(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().skip(1);
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            '"' => break,
            c => out.push(c),
        }
    }
    out
}

/// The Status of a failed answer; one is made up in upstream's words when the body holds none.
pub fn status(code: StatusCode, body: &[u8]) -> Value {
    if let Ok(value) = serde_json::from_slice::<Value>(body)
        && value.get("kind").and_then(Value::as_str) == Some("Status")
    {
        return value;
    }
    let text = String::from_utf8_lossy(body);
    let (reason, message) = match code.as_u16() {
        400 => ("BadRequest", "the server rejected our request for an unknown reason".to_owned()),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".to_owned()),
        403 => ("Forbidden", text.trim().to_owned()),
        404 => ("NotFound", "the server could not find the requested resource".to_owned()),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource".to_owned()),
        409 => ("Conflict", "the server reported a conflict".to_owned()),
        415 => ("UnsupportedMediaType", text.trim().to_owned()),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later".to_owned(),
        ),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
        code if code >= 500 => (
            "InternalError",
            format!("an error on the server ({:?}) has prevented the request from succeeding", text.trim()),
        ),
        code => ("", format!("the server responded with the status code {code} but did not return more information")),
    };
    json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": message})
}
