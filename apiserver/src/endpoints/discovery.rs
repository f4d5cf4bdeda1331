//! Discovery, plain and aggregated (KEP-3352).

use std::sync::{Arc, OnceLock};

use api::Resource;
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use component_base::accept::{parse, wants_pretty};
use http::header::{ACCEPT, CACHE_CONTROL, VARY};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use super::{cached, order, produces};
use crate::registry::Served;
use crate::request::accept::{self, Encoding, Format};
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
    /// In JSON.
    body: Bytes,
    protobuf: OnceLock<Bytes>,
    etag: String,
}

impl Document {
    /// In a form that was negotiated; what is asked for again and again is made once.
    fn form(&self, format: Format) -> Result<Bytes, Status> {
        if format == Format::default() {
            return Ok(self.body.clone());
        }
        if let Some(kept) = self.protobuf.get().filter(|_| format.encoding == Encoding::Protobuf) {
            return Ok(kept.clone());
        }
        let tree = apimachinery::json::parse(&self.body).map_err(|error| Status::internal(error.to_string()))?;
        let (_, bytes) = encode::value(&tree, format)?;
        if format.encoding == Encoding::Protobuf {
            return Ok(self.protobuf.get_or_init(|| bytes).clone());
        }
        Ok(bytes)
    }
}

/// [`api::discovery::AGGREGATED`] as YAML and as protobuf.
const AGGREGATED_YAML: &str = "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_PROTOBUF: &str =
    "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// What the aggregated documents are written as, in upstream's order.
const AGGREGATED_FORMS: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];

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

/// The form in which the client wants the aggregated document, if it takes that at all.
fn wants_aggregated(cx: &Context) -> Option<Format> {
    let header = cx.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let pretty = wants_pretty(&cx.headers, cx.query.get("pretty"));
    parse(header).iter().find_map(|clause| {
        let said =
            |name: &str| clause.parameters.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let whole = [("g", "apidiscovery.k8s.io"), ("v", "v2"), ("as", "APIGroupDiscoveryList")];
        if whole.iter().any(|(name, value)| said(name) != Some(value)) || said("sv").is_some_and(|sv| !sv.is_empty()) {
            return None;
        }
        let encoding = AGGREGATED_FORMS.into_iter().find(|encoding| clause.fits(encoding.media_type()))?;
        Some(Format { encoding, pretty: pretty || said("pretty") == Some("1"), ..Format::default() })
    })
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

fn aggregated(cx: &Context, format: Format, legacy: bool) -> Result<Response, Status> {
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
        let document = Arc::new(Document { generation, body: Bytes::from(body), protobuf: OnceLock::new(), etag });
        slot.store(Some(document.clone()));
        document
    });
    let format = if format.encoding == Encoding::Protobuf { Format { pretty: false, ..format } } else { format };
    let media_type = match format.encoding {
        Encoding::Protobuf => AGGREGATED_PROTOBUF,
        Encoding::Yaml => AGGREGATED_YAML,
        _ => api::discovery::AGGREGATED,
    };
    let mut answer = cached(cx, media_type, document.form(format)?, &document.etag);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(answer)
}

/// `/api`.
///
/// # Errors
/// 406.
pub fn legacy(cx: &mut Context) -> Result<Response, Status> {
    if let Some(format) = wants_aggregated(cx) {
        return aggregated(cx, format, true);
    }
    let address = format!("{}:{}", cx.server.advertise_address(), cx.server.advertise_port());
    plain(cx, &api::discovery::api_versions(&address))
}

/// `/apis`.
///
/// # Errors
/// 406.
pub fn groups(cx: &mut Context) -> Result<Response, Status> {
    if let Some(format) = wants_aggregated(cx) {
        return aggregated(cx, format, false);
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
