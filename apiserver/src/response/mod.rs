//! Answers: bodies, headers, and the one place where an error becomes HTTP.

pub mod compress;
pub mod encode;
pub mod indent;
pub mod list;
pub mod members;
pub mod table;
pub mod websocket;

use apimachinery::status::Status;
use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use crate::request::accept::{Encoding, Format};

/// What handlers answer.
pub type Response = http::Response<Body>;

/// Marks an answer that is no object of this server, so that audit events do not show it.
#[derive(Clone, Copy, Debug)]
pub struct Unrecorded;

/// An answer that audit events do not show.
pub fn unrecorded(mut answer: Response) -> Response {
    answer.extensions_mut().insert(Unrecorded);
    answer
}

/// Browsers shall not guess what this is.
pub fn nosniff(mut answer: Response) -> Response {
    answer.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// An answer with this body.
pub fn bytes(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Plain text, as health endpoints and filters answer.
pub fn text(code: StatusCode, body: impl Into<String>) -> Response {
    nosniff(bytes(code, "text/plain; charset=utf-8", body.into()))
}

/// What upstream's mux answers for a path nobody serves.
pub fn page_not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A tree that is no stored object (discovery, reviews, Status) in JSON.
pub fn json(code: StatusCode, value: &Value, pretty: bool) -> Response {
    bytes(code, "application/json", encode::json_bytes(value, pretty))
}

/// A failure (or success) in the client's encoding.
pub fn status(status: &Status, format: Format) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let code = if status.code == 0 { StatusCode::OK } else { code };
    let mut response = status_value(code, &status.to_value(), format);
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// A Status as a tree in the client's encoding; in JSON if it has no such form.
pub fn status_value(code: StatusCode, value: &Value, format: Format) -> Response {
    match encode::value(value, format) {
        Ok((content_type, body)) => bytes(code, content_type, body),
        Err(_) => json(code, value, format.pretty),
    }
}

/// Warnings together may be as long as this, in characters; once they are longer, each is cut.
const WARNINGS_TOTAL: usize = 4 * 1024;
const WARNING_CUT: usize = 256;

/// Adds Warning headers in upstream's form; texts without a valid form are dropped.
pub fn add_warnings(response: &mut Response, warnings: &[String]) {
    let mut once: Vec<&str> = Vec::new();
    for warning in warnings {
        if !warning.is_empty() && !warning.chars().any(char::is_control) && !once.contains(&warning.as_str()) {
            once.push(warning);
        }
    }
    let total: usize = once.iter().map(|warning| warning.chars().count()).sum();
    let most = if total > WARNINGS_TOTAL { WARNING_CUT } else { usize::MAX };
    let mut written = 0;
    for warning in once {
        if total > WARNINGS_TOTAL && written >= WARNINGS_TOTAL {
            break;
        }
        let cut: String = warning.chars().take(most).collect();
        written += cut.chars().count();
        let escaped = cut.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// The Content-Type of an encoding.
pub fn content_type(encoding: Encoding) -> &'static str {
    encoding.media_type()
}
