//! Requests about resources: which handler, and what all handlers share.

pub mod component_statuses;
pub mod connect;
pub mod create;
pub mod delete;
pub mod errors;
pub mod eviction;
pub mod get;
pub mod list;
pub mod managers;
pub mod owner_references;
pub mod patch;
pub mod reviews;
pub mod scale;
pub mod selection;
pub mod store;
pub mod subresources;
pub mod token;
pub mod unsafe_delete;
pub mod update;
pub mod watch;

use std::pin::Pin;
use std::sync::Arc;

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use axum::body::Body;
use http::{Method, StatusCode};

use crate::registry::{Served, checks};
use crate::request::Layer;
use crate::request::accept::{self, Allowed, Format, Route};
use crate::response::table;
use crate::response::{self, Response};
use crate::server::walk::Context;

/// Nobody serves this resource.
pub fn unknown_resource() -> Status {
    Status::generic(404, "", &GroupResource::default(), "", "")
}

/// The resource is there, the method is not.
pub fn method_not_allowed() -> Status {
    Status::generic(405, "", &GroupResource::default(), "", "")
}

/// The shape of the answer, checked as upstream's router and handlers do.
///
/// # Errors
/// 406.
pub fn format(cx: &Context, route: Route, allowed: Allowed) -> Result<Format, Status> {
    accept::route_produces(&cx.headers, &route.types(cx.cbor()))?;
    let own_server = matches!(cx.info.group.as_str(), "apiextensions.k8s.io" | "apiregistration.k8s.io");
    // The status of these kinds has no columns.
    let allowed = match allowed {
        Allowed::Transforms if own_server && cx.info.subresource == "status" => Allowed::Metadata,
        other => other,
    };
    accept::negotiate(&cx.headers, &cx.query, allowed, cx.cbor())
}

/// How Tables are made for this request.
///
/// # Errors
/// 400 for a bad `includeObject`, where a Table was asked for.
pub fn table_options(cx: &Context) -> Result<table::Options, Status> {
    let accept = cx.headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.contains("as=Table") {
        return table::Options::parse(&crate::request::Query::default(), cx.server.clock.now());
    }
    table::Options::parse(&cx.query, cx.server.clock.now())
}

/// A tree as the answer.
///
/// # Errors
/// When it has no form that the client takes.
pub fn object_answer(
    cx: &Context,
    served: &Served,
    code: StatusCode,
    object: &serde_json::Value,
    format: Format,
) -> Result<Response, Status> {
    let table = table_options(cx)?;
    let write = || response::encode::tree(served, object, format, &table);
    let (content_type, body) = cx.latencies.track(Layer::Serialization, write)?;
    Ok(response::bytes(code, content_type, body))
}

/// An entry as the answer.
///
/// # Errors
/// As [`object_answer`].
pub async fn entry_answer(
    cx: &Context,
    served: &Served,
    code: StatusCode,
    entry: &Arc<crate::cache::Entry>,
    format: Format,
) -> Result<Response, Status> {
    served.prepare(std::slice::from_ref(entry)).await?;
    let table = table_options(cx)?;
    let write = || response::encode::entry(served, entry, format, &table);
    let (content_type, body) = cx.latencies.track(Layer::Serialization, write)?;
    Ok(response::bytes(code, content_type, body))
}

/// Finds the resource and hands the request to its handler.
///
/// # Errors
/// 404 and 405 as upstream's routes give them, and what handlers answer.
pub async fn dispatch(cx: &mut Context, body: Body) -> Result<Response, Status> {
    let info = cx.info.clone();
    let Some(served) = cx.server.registry.find(&info.group, &info.version, &info.resource) else {
        if info.prefix == "apis" && !cx.server.registry.serves_group(&info.group) {
            return Ok(response::page_not_found());
        }
        return Err(unknown_resource());
    };
    cx.served = Some(served.clone());
    let resource = served.resource.clone();
    // What is no subresource is told first: there is no route on which a name could be wrong.
    let routed = info.subresource.is_empty() || resource.subresource(&info.subresource).is_some();
    if served.cache.is_some() && routed {
        segments(&served, &info)?;
    }
    if let Some(custom) = served.custom() {
        cx.warnings.extend(custom.version().deprecation.clone());
        // Upstream hands such requests on to whoever else may serve them, which is nobody.
        let in_namespace = !info.namespace.is_empty();
        let everywhere = matches!(info.verb.as_str(), "list" | "watch");
        if (in_namespace && !resource.namespaced) || (!in_namespace && resource.namespaced && !everywhere) {
            return Ok(response::page_not_found());
        }
    }
    // `namespaces/x` sets both namespace and name; elsewhere a namespace needs a namespaced resource.
    let is_namespace = info.group.is_empty() && info.resource == "namespaces";
    let in_namespace = !info.namespace.is_empty() && !is_namespace;
    if in_namespace && !resource.namespaced {
        return Err(unknown_resource());
    }
    if resource.namespaced && !in_namespace && (!info.name.is_empty() && info.parts.len() > 1) {
        return Err(unknown_resource());
    }
    let deprecation = |cx: &mut Context| cx.warnings.extend(checks::deprecation(&resource).map(str::to_string));
    if !info.subresource.is_empty() {
        if resource.subresource(&info.subresource).is_some() {
            deprecation(cx);
        }
        return Box::pin(subresources::dispatch(cx, &served, body)).await;
    }
    // What is only created has no place for single objects.
    let named = info.parts.len() > 1;
    if named && !resource.custom && !["get", "update", "patch", "delete"].iter().any(|verb| resource.has_verb(verb)) {
        return Err(unknown_resource());
    }
    let verb = match (&cx.method, named) {
        (&Method::GET, _) if info.verb == "watch" => "watch",
        (&Method::GET, true) => "get",
        (&Method::GET, false) => "list",
        (&Method::POST, false) => "create",
        (&Method::PUT, true) => "update",
        (&Method::PATCH, true) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        _ => return Err(method_not_allowed()),
    };
    let everywhere = resource.namespaced && !in_namespace;
    // While a definition goes, discovery hides verbs that are still served.
    if !(resource.custom || resource.has_verb(verb)) || everywhere && matches!(verb, "create" | "deletecollection") {
        return Err(method_not_allowed());
    }
    // Of what leads nowhere nobody is warned.
    deprecation(cx);
    match verb {
        "watch" => Box::pin(watch::handle(cx, &served)).await,
        "get" => Box::pin(get::handle(cx, &served)).await,
        "list" => Box::pin(list::handle(cx, &served)).await,
        "create" if served.cache.is_none() => Box::pin(reviews::handle(cx, &served, body)).await,
        "create" => bounded(cx.timeout, Box::pin(create::handle(cx, &served, body))).await,
        "update" => bounded(cx.timeout, Box::pin(update::handle(cx, &served, body))).await,
        "patch" => bounded(cx.timeout, Box::pin(patch::handle(cx, &served, body))).await,
        "delete" => bounded(cx.timeout, Box::pin(delete::handle(cx, &served, body))).await,
        _ => Box::pin(delete::collection(cx, &served, body)).await,
    }
}

/// Refuses names that would lead elsewhere in the store.
fn segments(served: &Served, info: &crate::request::RequestInfo) -> Result<(), Status> {
    let wrong: Vec<String> = match info.name.as_str() {
        name @ ("." | "..") => vec![format!("may not be '{name}'")],
        name => ["/", "%"].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect(),
    };
    if !wrong.is_empty() {
        return Err(Status::bad_request(format!("Name parameter invalid: {:?}: {}", info.name, wrong.join(";"))));
    }
    if served.resource.namespaced && matches!(info.namespace.as_str(), "." | "..") {
        let mut key = format!("/{}/{}", served.resource.storage_prefix, info.namespace);
        if !info.name.is_empty() {
            key = format!("{key}/{}", info.name);
        }
        let mut status = Status::internal("");
        status.message = format!("invalid key: {key:?}");
        return Err(status);
    }
    Ok(())
}

/// Upstream's bound on the work of one write.
const WRITE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(34);

/// `work` is on the heap: as part of this and of all that waits for this it would be on the stack several times.
async fn bounded(
    wanted: Option<std::time::Duration>,
    work: Pin<Box<impl Future<Output = Result<Response, Status>>>>,
) -> Result<Response, Status> {
    crate::server::walk::within(wanted.map_or(WRITE_TIMEOUT, |wanted| wanted.min(WRITE_TIMEOUT)), work).await
}

/// The namespace of a request, checked against the resource's scope.
pub fn namespace(served: &Arc<Served>, cx: &Context) -> String {
    if served.resource.namespaced { cx.info.namespace.clone() } else { String::new() }
}
