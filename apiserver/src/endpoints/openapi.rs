//! OpenAPI v2 and v3 (KEP-2896), from the table by way of `api::openapi`.

use std::sync::OnceLock;

use api::openapi::OpenApi;
use apimachinery::status::Status;
use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, LOCATION, VARY};
use http::{HeaderValue, StatusCode};

use super::{cached, gnostic, produces};
use crate::request::accept;
use crate::response::{self, Response};
use crate::server::walk::Context;

/// The documents, made on first use.
#[derive(Default)]
pub struct Documents {
    openapi: OnceLock<OpenApi>,
    /// The Swagger document as protobuf.
    swagger: OnceLock<Bytes>,
}

fn openapi(cx: &Context) -> &OpenApi {
    cx.server.documents.openapi.openapi.get_or_init(|| {
        let rows = cx.server.registry.all().iter().map(|served| served.resource.clone()).collect();
        OpenApi::new(rows, Vec::new())
    })
}

/// The media type of the Swagger document as protobuf, in the two spellings that are in use.
const V2_PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];

/// `/openapi/v2`.
///
/// # Errors
/// 406 for everything but JSON and protobuf.
pub fn v2(cx: &mut Context) -> Result<Response, Status> {
    accept::route_produces(&cx.headers, &["application/json", V2_PROTOBUF[0], V2_PROTOBUF[1]])?;
    let accepts = cx.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let protobuf = accepts
        .split(',')
        .map(accept::media_type)
        .find(|media| media == "application/json" || media == "*/*" || V2_PROTOBUF.contains(&media.as_str()))
        .is_some_and(|media| V2_PROTOBUF.contains(&media.as_str()));
    let document = openapi(cx).v2();
    let etag = document.etag.trim_matches('"').to_string();
    let mut answer = if protobuf {
        let body = cx.server.documents.openapi.swagger.get_or_init(|| {
            // The document was just made out of a tree; reading it back happens once per process.
            let tree = serde_json::from_slice(&document.json).expect("the document is JSON");
            Bytes::from(gnostic::encode(&tree))
        });
        cached(cx, V2_PROTOBUF[0], body.clone(), &etag)
    } else {
        cached(cx, "application/json", document.json.clone(), &etag)
    };
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
