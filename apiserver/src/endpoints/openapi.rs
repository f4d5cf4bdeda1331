//! OpenAPI v2 and v3 (KEP-2896), from the table by way of `api::openapi`.

use std::sync::OnceLock;

use api::openapi::OpenApi;
use apimachinery::status::Status;
use axum::body::Body;
use http::header::{LOCATION, VARY};
use http::{HeaderValue, StatusCode};

use super::{cached, produces};
use crate::request::accept;
use crate::response::{self, Response};
use crate::server::walk::Context;

/// The documents, made on first use.
#[derive(Default)]
pub struct Documents {
    openapi: OnceLock<OpenApi>,
}

fn openapi(cx: &Context) -> &OpenApi {
    cx.server.documents.openapi.openapi.get_or_init(|| {
        let rows = cx.server.registry.all().iter().map(|served| served.resource.clone()).collect();
        OpenApi::new(rows, Vec::new())
    })
}

/// `/openapi/v2`.
///
/// # Errors
/// 406 for everything but JSON.
pub fn v2(cx: &mut Context) -> Result<Response, Status> {
    accept::route_produces(&cx.headers, &["application/json"])?;
    let document = openapi(cx).v2();
    let mut answer = cached(cx, "application/json", document.json.clone(), document.etag.trim_matches('"'));
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}

/// `/openapi/v3` and below. A document asked for under its hash may be kept forever.
///
/// # Errors
/// 406 for everything but JSON.
pub fn v3(cx: &mut Context, rest: &str) -> Result<Response, Status> {
    if rest.is_empty() {
        produces(cx)?;
        return Ok(response::json(StatusCode::OK, &openapi(cx).v3_index(), false));
    }
    let Some(document) = openapi(cx).v3(rest) else {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NOT_FOUND;
        return Ok(answer);
    };
    let hash = document.etag.trim_matches('"').to_string();
    let asked = cx.query.get("hash").unwrap_or_default().to_string();
    if !asked.is_empty() && asked != hash {
        // Upstream sends readers of an old hash to the new one.
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
        if let Ok(value) = HeaderValue::from_str(&format!("/openapi/v3/{rest}?hash={hash}")) {
            answer.headers_mut().insert(LOCATION, value);
        }
        return Ok(answer);
    }
    let mut answer = cached(cx, "application/json", document.json.clone(), &hash);
    let headers = answer.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if !asked.is_empty() {
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(answer)
}
