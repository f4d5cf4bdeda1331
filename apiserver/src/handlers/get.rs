//! GET of one object.

use std::sync::Arc;

use apimachinery::status::{Status, reason};
use http::StatusCode;

use super::{component_statuses, entry_answer, errors, format, namespace, unsafe_delete};
use crate::cache::{Entry, Freshness};
use crate::registry::Served;
use crate::request::accept::{Allowed, Route};
use crate::response::Response;
use crate::server::walk::Context;

/// Reads one object as fresh as `resourceVersion` asks.
///
/// # Errors
/// 404, and what reading may answer.
pub async fn handle(cx: &Context, served: &Arc<Served>) -> Result<Response, Status> {
    let format = format(cx, Route::Object, Allowed::Transforms)?;
    if cx.query.has("export") && cx.query.flag("export") {
        return Err(Status::bad_request("the export parameter, deprecated since v1.14, is no longer supported"));
    }
    if served.cache.is_none() {
        let entry = Box::pin(component_statuses::get(&cx.server, served, &cx.info.name)).await?;
        return entry_answer(cx, served, StatusCode::OK, &entry, format).await;
    }
    let entry = match read(cx, served, &namespace(served, cx), &cx.info.name).await {
        Ok(entry) => entry,
        Err(status) => return Err(Box::pin(explain(cx, served, status)).await),
    };
    entry_answer(cx, served, StatusCode::OK, &entry, format).await
}

/// One entry, or 404.
///
/// # Errors
/// As [`handle`].
pub async fn read(cx: &Context, served: &Served, namespace: &str, name: &str) -> Result<Arc<Entry>, Status> {
    let freshness = match cx.query.get("resourceVersion").unwrap_or_default() {
        "" => Freshness::Consistent,
        "0" => Freshness::Any,
        text => Freshness::AtLeast(parse_version(text).map_err(of_store)?),
    };
    read_at(served, namespace, name, freshness).await
}

/// One entry as fresh as asked, or 404.
///
/// # Errors
/// As [`handle`].
pub async fn read_at(served: &Served, namespace: &str, name: &str, freshness: Freshness) -> Result<Arc<Entry>, Status> {
    let resource = served.group_resource();
    let cache = served.cache.as_ref().ok_or_else(super::method_not_allowed)?;
    cache
        .get(&served.key(namespace, name), freshness)
        .await
        .map_err(|error| errors::of_object(error, &resource, name))?
        .ok_or_else(|| Status::not_found(&resource, name))
}

/// With the gate that lets unreadable objects be deleted, reading one says what is wrong with it.
async fn explain(cx: &Context, served: &Served, status: Status) -> Status {
    if !unsafe_delete::is_enabled(cx) || !(status.is_not_found() || status.code == 500) {
        return status;
    }
    let Some(cache) = &served.cache else { return status };
    let namespace = if served.resource.namespaced { cx.info.namespace.as_str() } else { "" };
    let key = served.key(namespace, &cx.info.name);
    match cache.corruption(&key).await {
        Ok(Some(found)) => unsafe_delete::unreadable(&key, &found),
        Ok(None) | Err(_) => status,
    }
}

/// A bad resource version where upstream's store finds it: it knows of no code for that.
pub fn of_store(status: Status) -> Status {
    Status::failure(500, reason::UNKNOWN, status.message)
}

/// A resource version out of a query.
///
/// # Errors
/// 400 in upstream's words.
pub fn parse_version(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let why = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            "value out of range"
        } else {
            "invalid syntax"
        };
        Status::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {why}"
        ))
    })
}
