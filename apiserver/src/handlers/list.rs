//! LIST: a snapshot, a walk over it, and bytes put together.

use std::sync::Arc;

use apimachinery::status::Status;
use http::StatusCode;
use serde_json::Value;

use super::selection::Selection;
use super::{component_statuses, errors, format, get, namespace, table_options};
use crate::cache::{ContinueToken, Entry, Freshness, ResourceCache, Snapshot};
use crate::registry::Served;
use crate::request::Layer;
use crate::request::accept::{Allowed, Route};
use crate::request::options::{ListOptions, VersionMatch};
use crate::response::compress::{Large, THRESHOLD};
use crate::response::list::{self, ListMeta};
use crate::response::{self, Response};
use crate::server::walk::Context;

/// Lists a collection.
///
/// # Errors
/// Bad options and selectors, versions outside of the history.
pub async fn handle(cx: &Context, served: &Arc<Served>) -> Result<Response, Status> {
    let format = format(cx, Route::List, Allowed::Transforms)?;
    let options = ListOptions::parse(&cx.query, false)?;
    let selection = Selection::new(served, &options, &namespace(served, cx), "")?;
    let found = match served.cache {
        Some(_) => collect(served, &options, &selection).await,
        None => Ok((component_statuses::list(&cx.server, served, &selection).await, ListMeta::default())),
    };
    let (entries, meta) = match found {
        Ok(found) => found,
        Err(status) => {
            let prefix = served.cache.as_ref().map(|cache| cache.spec().namespace_prefix(Some(&selection.namespace)));
            return match prefix.and_then(|prefix| resumed(&status, &options.continue_token, &prefix)) {
                Some(value) => Ok(response::status_value(StatusCode::GONE, &value, cx.plain_format())),
                None => Err(status),
            };
        }
    };
    measure(cx, served, &selection, entries.len());
    let large = entries.iter().map(|entry| entry.json().len()).sum::<usize>() > THRESHOLD;
    served.prepare(&entries).await?;
    let table = table_options(cx)?;
    let write = || list::body(served, entries, &meta, format, &table);
    let (content_type, body) = cx.latencies.track(Layer::Serialization, write)?;
    let mut answer = response::bytes(StatusCode::OK, content_type, bytes::Bytes::new());
    *answer.body_mut() = body;
    if large {
        answer.extensions_mut().insert(Large);
    }
    Ok(answer)
}

/// A Status that says that a page's history is gone, with the token by which the rest can be had as it is now.
fn resumed(status: &Status, token: &str, prefix: &str) -> Option<Value> {
    let token = ContinueToken::decode(token, prefix).ok().filter(|token| status.code == 410 && token.revision > 0)?;
    let again = ContinueToken { revision: -1, start: token.start };
    let mut value = status.to_value();
    value["metadata"]["continue"] = again.encode(prefix).into();
    Some(value)
}

fn measure(cx: &Context, served: &Served, selection: &Selection, returned: usize) {
    let Some(cache) = &served.cache else { return };
    let (group, resource) = (served.storage.group.as_ref(), served.storage.plural.as_ref());
    let index = selection.indexed(served).map(|(label, _)| label).unwrap_or_default();
    let fetched = if index.is_empty() { cache.size().0 } else { returned };
    let metrics = &cx.server.metrics;
    metrics.list_total.inc(&[group, &index, resource]);
    metrics.list_fetched.with(&[group, &index, resource]).inc_by(fetched as u64);
    metrics.list_returned.with(&[group, resource]).inc_by(returned as u64);
}

/// The entries of a list, and what the list says about itself.
///
/// # Errors
/// As [`handle`].
pub async fn collect(
    served: &Arc<Served>,
    options: &ListOptions,
    selection: &Selection,
) -> Result<(Vec<Arc<Entry>>, ListMeta), Status> {
    let cache = served.cache.as_ref().ok_or_else(super::method_not_allowed)?;
    // Whatever there is at hand comes whole.
    // Events are in no cache upstream, whose lists know no limit.
    let cached = served.resource.plural != "events";
    let limited = !cached || options.resource_version != "0" || !options.continue_token.is_empty();
    let limit = if limited { usize::try_from(options.limit).unwrap_or_default() } else { 0 };
    if options.continue_token.is_empty() && limit == 0 && options.version_match != Some(VersionMatch::Exact) {
        let freshness = freshness(options)?;
        if let Some(found) = by_index(served, cache, selection, freshness).await? {
            return Ok(found);
        }
    }
    let prefix = cache.spec().namespace_prefix(Some(selection.namespace.as_str()));
    let (snapshot, start) = snapshot(cache, options, &prefix).await?;
    let namespace = Some(selection.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let mut meta = ListMeta { resource_version: snapshot.revision().to_string(), ..ListMeta::default() };
    if let Some(name) = &selection.name
        && (namespace.is_some() || !served.resource.namespaced)
    {
        let found = snapshot.get(&served.key(&selection.namespace, name));
        if let Some(found) = found.filter(|_| selection.needs_conversion()) {
            served.prepare(std::slice::from_ref(found)).await?;
        }
        let entries = found.filter(|entry| selection.matches(entry)).cloned().into_iter().collect();
        return Ok((entries, meta));
    }
    if selection.needs_conversion() {
        let candidates = snapshot.range(namespace, start.as_deref()).filter(|entry| selection.could_match(entry));
        let candidates: Vec<Arc<Entry>> = candidates.cloned().collect();
        served.prepare(&candidates).await?;
    }
    let everything = selection.is_everything();
    let mut entries = Vec::new();
    let mut walk = snapshot.range(namespace, start.as_deref());
    let mut next = None;
    for entry in walk.by_ref() {
        if !everything && !selection.matches(entry) {
            continue;
        }
        if limit > 0 && entries.len() == limit {
            next = Some(entry.key().clone());
            break;
        }
        entries.push(entry.clone());
    }
    if next.is_some() {
        let last = entries.last().expect("a page that is full is not empty");
        let token = ContinueToken {
            revision: i64::try_from(snapshot.revision()).unwrap_or(i64::MAX),
            // The first key that can follow the last one of this page.
            start: format!("{}\0", last.key()),
        };
        meta.continue_token = token.encode(&prefix);
        if everything {
            // The one that ended the loop is among the remaining.
            meta.remaining = i64::try_from(walk.count() + 1).ok();
        }
        cache.keep_for_paging(&snapshot);
    }
    Ok((entries, meta))
}

fn freshness(options: &ListOptions) -> Result<Freshness, Status> {
    Ok(match options.resource_version.as_str() {
        "" => Freshness::Consistent,
        "0" => Freshness::Any,
        text => Freshness::AtLeast(version(text)?),
    })
}

fn version(text: &str) -> Result<u64, Status> {
    get::parse_version(text)
        .map_err(|status| Status { message: format!("invalid resource version: {}", status.message), ..status })
}

type Found = (Vec<Arc<Entry>>, ListMeta);

async fn by_index(
    served: &Served,
    cache: &Arc<ResourceCache>,
    selection: &Selection,
    freshness: Freshness,
) -> Result<Option<Found>, Status> {
    let Some((label, value)) = selection.indexed(served) else { return Ok(None) };
    let Some((entries, revision)) = cache.by_field(&label, &value, freshness).await.map_err(errors::of_read)? else {
        return Ok(None);
    };
    let entries = entries.into_iter().filter(|entry| selection.matches(entry)).collect();
    let meta = ListMeta { resource_version: revision.to_string(), ..ListMeta::default() };
    Ok(Some((entries, meta)))
}

async fn snapshot(
    cache: &Arc<ResourceCache>,
    options: &ListOptions,
    prefix: &str,
) -> Result<(Snapshot, Option<String>), Status> {
    if !options.continue_token.is_empty() {
        let token = ContinueToken::decode(&options.continue_token, prefix)
            .map_err(|error| Status::bad_request(format!("invalid continue token: {error}")))?;
        if !options.resource_version.is_empty() && options.resource_version != "0" {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let snapshot = match u64::try_from(token.revision) {
            Ok(revision) => cache.snapshot_at(revision).await.map_err(|error| match error {
                crate::cache::Error::TooOld { .. } => errors::continue_expired(),
                other => errors::of_read(other),
            })?,
            Err(_) => cache.snapshot(Freshness::Consistent).await.map_err(errors::of_read)?,
        };
        return Ok((snapshot, Some(token.start)));
    }
    if options.version_match == Some(VersionMatch::Exact) {
        let revision = version(&options.resource_version)?;
        return Ok((exact(cache, revision).await?, None));
    }
    // A limited list of a given version without a match is exact, upstream's legacy rule.
    if options.limit > 0 && options.version_match.is_none() && !matches!(options.resource_version.as_str(), "" | "0") {
        let revision = version(&options.resource_version)?;
        return Ok((exact(cache, revision).await?, None));
    }
    let snapshot = cache.snapshot(freshness(options)?).await.map_err(errors::of_read)?;
    Ok((snapshot, None))
}

async fn exact(cache: &Arc<ResourceCache>, revision: u64) -> Result<Snapshot, Status> {
    cache.snapshot_at(revision).await.map_err(|error| match error {
        crate::cache::Error::TooOld { .. } => errors::list_expired(),
        other => errors::of_read(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_whose_history_is_gone_can_be_resumed() {
        let prefix = "/registry/configmaps/ns/";
        let token = |revision| ContinueToken { revision, start: format!("{prefix}b\0") }.encode(prefix);
        let expired = errors::continue_expired();
        let value = resumed(&expired, &token(7), prefix).expect("it goes on");
        assert_eq!((&value["code"], &value["reason"]), (&410.into(), &"Expired".into()));
        assert_eq!(value["metadata"]["continue"], token(-1));
        assert_eq!(resumed(&expired, &token(-1), prefix), None, "that is not bound to any history");
        assert_eq!(resumed(&expired, "", prefix), None);
        assert_eq!(resumed(&Status::bad_request("no"), &token(7), prefix), None);
    }
}
