//! OpenAPI v2 and v3 (KEP-2896), from the table by way of `api::openapi`, with the documents of
//! extension servers beside this server's own.

use std::io::Write as _;
use std::sync::Arc;

use api::openapi::{Custom, OpenApi};
use apimachinery::status::Status;
use arc_swap::ArcSwapOption;
use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, EXPIRES, LOCATION, VARY};
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;

use super::{cached, gnostic};
use crate::aggregator::forward;
use crate::request::accept;
use crate::response::{self, Response};
use crate::server::walk::Context;

/// The documents, made on first use; those that a change does not touch are kept.
#[derive(Default)]
pub struct Documents {
    current: ArcSwapOption<Current>,
    /// The Swagger document as protobuf, with the tag of the JSON it was made from.
    swagger: Mutex<Option<(String, Bytes)>>,
}

struct Current {
    /// Of what the documents are made from.
    generation: u64,
    openapi: OpenApi,
}

fn current(cx: &Context) -> Arc<Current> {
    let documents = &cx.server.documents.openapi;
    let generation = cx.server.aggregator.generation() + cx.server.registry.generation();
    let before = documents.current.load_full();
    if let Some(current) = before.as_ref().filter(|current| current.generation == generation) {
        return current.clone();
    }
    let custom = custom(cx);
    let routes = cx.server.aggregator.routes();
    let remotes = routes.services.values().filter(|service| service.service.is_some());
    let parts = remotes.filter_map(|service| cx.server.aggregator.documents(&service.name).openapi.swagger.clone());
    let parts = parts.collect();
    let openapi = match before {
        Some(before) => before.openapi.renewed(custom, parts),
        None => {
            let rows = cx.server.registry.all().iter().map(|served| served.resource.as_ref().clone()).collect();
            OpenApi::new(rows, Vec::new()).renewed(custom, parts)
        }
    };
    let current = Arc::new(Current { generation, openapi });
    documents.current.store(Some(current.clone()));
    current
}

/// The served versions of CustomResourceDefinitions.
fn custom(cx: &Context) -> Vec<Custom> {
    let rows = cx.server.registry.rows();
    let customs = rows.iter().filter_map(|served| Some((served, served.custom()?)));
    customs
        .map(|(served, custom)| {
            let (definition, at) = (custom.definition.clone(), custom.at);
            Custom {
                row: served.resource.as_ref().clone(),
                revision: format!("{:016x}", definition.fingerprint),
                selectable_fields: custom.version().selectable_fields.clone(),
                preserve_unknown_fields: definition.preserve_unknown,
                schema: Arc::new(move || definition.schema_json(at)),
            }
        })
        .collect()
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
    let document = current(cx).openapi.v2();
    let etag = document.etag.trim_matches('"').to_string();
    let mut answer = if protobuf {
        cached(cx, V2_PROTOBUF[0], swagger_protobuf(cx, &etag, &document.json), &etag)
    } else {
        cached(cx, "application/json", document.json.clone(), &etag)
    };
    if answer.status() == StatusCode::OK && takes_gzip(cx) {
        answer =
            zipped(answer, if protobuf { swagger_protobuf(cx, &etag, &document.json) } else { document.json.clone() });
    }
    answer.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    answer.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}

fn swagger_protobuf(cx: &Context, etag: &str, json: &Bytes) -> Bytes {
    let mut kept = cx.server.documents.openapi.swagger.lock();
    match kept.as_ref() {
        Some((known, bytes)) if known == etag => bytes.clone(),
        _ => {
            // The document was just made out of a tree; reading it back happens once for each change.
            let tree = serde_json::from_slice(json).expect("the document is JSON");
            let bytes = Bytes::from(gnostic::encode_v2(&tree));
            *kept = Some((etag.to_string(), bytes.clone()));
            bytes
        }
    }
}

/// Whether the client accepts gzip with a weight above zero.
fn takes_gzip(cx: &Context) -> bool {
    let header = cx.headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.split(',').any(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>() == Ok(0.0)));
        (name.eq_ignore_ascii_case("gzip") || name == "*") && !refused
    })
}

fn zipped(answer: Response, body: Bytes) -> Response {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&body).expect("writing to memory does not fail");
    let zipped = encoder.finish().expect("writing to memory does not fail");
    let (mut parts, _) = answer.into_parts();
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Response::from_parts(parts, Body::from(zipped))
}

/// What documents of v3 are written as; the last is another spelling of the one before.
const V3_TYPES: [&str; 3] = [
    "application/json",
    "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
];

/// `/openapi/v3` and below. A document asked for under its hash may be kept forever.
///
/// # Errors
/// None of its own; extension servers answer for their documents.
pub async fn v3(cx: &mut Context, rest: &str) -> Result<Response, Status> {
    let current = current(cx);
    if rest.is_empty() {
        return Ok(index(cx, &current));
    }
    let converted = converted(cx, rest);
    if converted.is_none()
        && let Some(remote) = remote(cx, &current, rest)
    {
        return Ok(forward::forward(cx, &remote, Body::empty()).await);
    }
    let accepts = cx.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(form) = accept::first_of(accepts, &V3_TYPES) else {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NOT_ACCEPTABLE;
        return Ok(answer);
    };
    let document = converted.or_else(|| {
        let document = current.openapi.v3(rest)?;
        Some((document.json.clone(), document.etag.trim_matches('"').to_string()))
    });
    let Some((json, hash)) = document else {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NOT_FOUND;
        return Ok(answer);
    };
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
    let mut answer = match form {
        0 => cached(cx, "application/json", json, &hash),
        _ => {
            // The document was made out of a tree; few clients ask for this form, and they keep it.
            let tree = serde_json::from_slice(&json).map_err(Status::internal)?;
            cached(cx, V3_TYPES[1], Bytes::from(gnostic::encode_v3(&tree)), &hash)
        }
    };
    let headers = answer.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    if !asked.is_empty() {
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let next_year = cx.server.clock.now() + jiff::SignedDuration::from_hours(365 * 24);
        let expires = next_year.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S UTC").to_string();
        if let Ok(value) = HeaderValue::from_str(&expires) {
            headers.insert(EXPIRES, value);
        }
    }
    Ok(answer)
}

/// The index: this server's documents, and those that only extension servers have. Upstream writes it as
/// a file without a name, whose type its library guesses to be text.
fn index(cx: &Context, current: &Current) -> Response {
    let mut index = current.openapi.v3_index();
    let routes = cx.server.aggregator.routes();
    if let Some(paths) = index["paths"].as_object_mut() {
        for service in routes.services.values().filter(|service| service.service.is_some()) {
            let documents = cx.server.aggregator.documents(&service.name);
            if let Some(converted) = &documents.openapi.converted {
                let name = format!("apis/{}/{}", service.group, service.version);
                let url = format!("/openapi/v3/{name}?hash={}", converted.hash);
                paths.entry(name).or_insert_with(|| serde_json::json!({"serverRelativeURL": url}));
            }
            for (name, item) in documents.openapi.index.iter().flatten() {
                paths.entry(name.clone()).or_insert_with(|| item.clone());
            }
        }
    }
    response::bytes(StatusCode::OK, "text/plain; charset=utf-8", index.to_string())
}

/// The document of an extension server that has no v3 itself, and its hash.
fn converted(cx: &Context, name: &str) -> Option<(Bytes, String)> {
    let routes = cx.server.aggregator.routes();
    if routes.remotes == 0 {
        return None;
    }
    let remote = routes.remote(&format!("/{name}"))?;
    let documents = cx.server.aggregator.documents(&remote.name);
    let converted = documents.openapi.converted.as_ref()?;
    Some((converted.json.clone(), converted.hash.clone()))
}

/// The extension server that has a document which this server does not have.
fn remote(cx: &Context, current: &Current, name: &str) -> Option<Arc<crate::aggregator::routes::ApiService>> {
    let routes = cx.server.aggregator.routes();
    if routes.remotes == 0 {
        return None;
    }
    if let Some(remote) = routes.remote(&format!("/{name}")) {
        return Some(remote.clone());
    }
    if current.openapi.names().iter().any(|known| known == name) {
        return None;
    }
    let mut remotes = routes.services.values().filter(|service| service.service.is_some());
    remotes
        .find(|service| {
            let documents = cx.server.aggregator.documents(&service.name);
            documents.openapi.index.as_ref().is_some_and(|index| index.contains_key(name))
        })
        .cloned()
}
