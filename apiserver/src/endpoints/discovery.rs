//! Discovery, plain and aggregated (KEP-3352).

use std::sync::Arc;

use api::Resource;
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, VARY};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use super::{cached, order, produces};
use crate::registry::Served;
use crate::request::accept;
use crate::response::{self, Response, encode};
use crate::server::walk::Context;

/// The aggregated documents, made on first use and again when something else is served.
#[derive(Default)]
pub struct Documents {
    legacy: ArcSwapOption<Document>,
    groups: ArcSwapOption<Document>,
}

struct Document {
    /// Of what it was made from.
    generation: u64,
    body: Bytes,
    etag: String,
}

fn rows(cx: &Context) -> Vec<Arc<Served>> {
    cx.server.registry.rows()
}

fn resources_of(rows: &[Arc<Served>]) -> Vec<&Resource> {
    rows.iter().map(|served| served.resource.as_ref()).collect()
}

/// Whether there is anything of a group.
pub fn knows(cx: &Context, group: &str) -> bool {
    cx.server.registry.serves_group(group) || rows(cx).iter().any(|served| *served.resource.group == *group)
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
    negotiated(cx, value)
}

/// As [`plain`], of what no route of upstream's router leads to.
fn negotiated(cx: &Context, value: &Value) -> Result<Response, Status> {
    let format = accept::negotiate(&cx.headers, &cx.query, accept::Allowed::Plain, false)?;
    let (content_type, body) = encode::value(value, format)?;
    Ok(response::bytes(StatusCode::OK, content_type, body))
}

fn aggregated(cx: &Context, legacy: bool) -> Response {
    let documents = &cx.server.documents.discovery;
    let slot = if legacy { &documents.legacy } else { &documents.groups };
    let generation = cx.server.aggregator.generation() + cx.server.registry.generation();
    let document = slot.load_full().filter(|document| document.generation == generation).unwrap_or_else(|| {
        let rows = rows(cx);
        let rows = resources_of(&rows);
        let served = order::Served::new(&cx.server, &rows);
        let remote = |group: &str, version: &str| served.remote(&cx.server, group, version);
        let tree = api::discovery::aggregated(&rows, &served.aggregated(), legacy, remote);
        let body = encode::json_bytes(&tree, false);
        let etag = api::discovery::etag(&body).trim_matches('"').to_string();
        cx.server.aggregator.metrics.discovery_aggregations.inc(&[]);
        let document = Arc::new(Document { generation, body: Bytes::from(body), etag });
        slot.store(Some(document.clone()));
        document
    });
    let mut answer = cached(cx, api::discovery::AGGREGATED, document.body.clone(), &document.etag);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
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
    negotiated(cx, &api::discovery::group_list(&order::Served::new(&cx.server, &resources_of(&rows(cx))).plain()))
}

/// `/apis/<group>`.
///
/// # Errors
/// 406.
pub fn group(cx: &mut Context, name: &str) -> Result<Response, Status> {
    match api::discovery::group(&order::Served::new(&cx.server, &resources_of(&rows(cx))).plain(), name) {
        Some(document) => negotiated(cx, &document),
        None => Ok(response::page_not_found()),
    }
}

/// `/api/v1` and `/apis/<group>/<version>`.
///
/// # Errors
/// 404 and 406.
pub fn resources(cx: &mut Context, group: &str, version: &str) -> Result<Response, Status> {
    match api::discovery::resource_list(&resources_of(&rows(cx)), group, version) {
        Some(document) => plain(cx, &document),
        None if group.is_empty() || cx.server.registry.serves_group(group) => {
            Err(Status::generic(404, "", &GroupResource::default(), "", ""))
        }
        None => Ok(response::page_not_found()),
    }
}
