//! Discovery, plain and aggregated (KEP-3352).

use std::sync::OnceLock;

use api::Resource;
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use bytes::Bytes;
use http::header::{ACCEPT, VARY};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use super::{cached, produces};
use crate::request::accept;
use crate::response::{self, Response, encode};
use crate::server::walk::Context;

/// The aggregated documents and their tags.
#[derive(Default)]
pub struct Documents {
    legacy: OnceLock<(Bytes, String)>,
    groups: OnceLock<(Bytes, String)>,
}

fn rows(cx: &Context) -> Vec<&'static Resource> {
    cx.server.registry.all().iter().map(|served| served.resource).collect()
}

/// Whether the client prefers the aggregated form.
fn wants_aggregated(cx: &Context) -> bool {
    let header = cx.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    for clause in header.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let has = |wanted: &str| clause.split(';').any(|part| part.trim() == wanted);
        let aggregated = has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io");
        if aggregated && has("v=v2") && matches!(media, "application/json" | "*/*") {
            return true;
        }
        if !aggregated && matches!(media, "application/json" | "application/yaml" | "*/*" | accept::PROTOBUF) {
            return false;
        }
    }
    false
}

fn plain(cx: &Context, value: &Value) -> Result<Response, Status> {
    produces(cx)?;
    let format = accept::negotiate(&cx.headers, &cx.query, accept::Allowed::Plain)?;
    let (content_type, body) = encode::value(value, format)?;
    let mut answer = response::bytes(StatusCode::OK, content_type, body);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}

fn aggregated(cx: &Context, legacy: bool) -> Response {
    let documents = &cx.server.documents.discovery;
    let slot = if legacy { &documents.legacy } else { &documents.groups };
    let (body, etag) = slot.get_or_init(|| {
        let body = encode::json_bytes(&api::discovery::aggregated(&rows(cx), legacy), false);
        let etag = api::discovery::etag(&body);
        (Bytes::from(body), etag.trim_matches('"').to_string())
    });
    let mut answer = cached(cx, api::discovery::AGGREGATED, body.clone(), etag);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

/// `/api`.
///
/// # Errors
/// 406.
pub fn legacy(cx: &mut Context) -> Result<Response, Status> {
    if wants_aggregated(cx) {
        return Ok(aggregated(cx, true));
    }
    let address = format!("{}:{}", cx.server.advertise_address(), cx.server.advertise_port());
    plain(cx, &api::discovery::api_versions(&address))
}

/// `/apis`.
///
/// # Errors
/// 406.
pub fn groups(cx: &mut Context) -> Result<Response, Status> {
    if wants_aggregated(cx) {
        return Ok(aggregated(cx, false));
    }
    plain(cx, &api::discovery::group_list(&rows(cx)))
}

/// `/apis/<group>`.
///
/// # Errors
/// 406.
pub fn group(cx: &mut Context, name: &str) -> Result<Response, Status> {
    match api::discovery::group(&rows(cx), name) {
        Some(document) => plain(cx, &document),
        None => Ok(response::page_not_found()),
    }
}

/// `/api/v1` and `/apis/<group>/<version>`.
///
/// # Errors
/// 404 and 406.
pub fn resources(cx: &mut Context, group: &str, version: &str) -> Result<Response, Status> {
    match api::discovery::resource_list(&rows(cx), group, version) {
        Some(document) => plain(cx, &document),
        None if group.is_empty() || cx.server.registry.serves_group(group) => {
            Err(Status::generic(404, "", &GroupResource::default(), "", ""))
        }
        None => Ok(response::page_not_found()),
    }
}
