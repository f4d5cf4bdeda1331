//! The end of a definition: its instances are deleted, and when the last is gone, so is what holds
//! the definition (upstream's `crd_finalizer.go`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use http::Method;
use serde_json::Value;

use super::{PATH, status};
use crate::cache::{Freshness, Item, ResourceCache, Scope, Start, WatchRequest};
use crate::registry::apiextensions::CLEANUP_FINALIZER;
use crate::server::{Server, in_process};

/// How long to wait after something failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Deletes the instances of a definition, then lets it go.
pub async fn run(server: &Arc<Server>, name: &str) {
    loop {
        match attempt(server, name).await {
            Ok(()) => return,
            Err(error) if error.is_not_found() => return,
            Err(error) => {
                if !error.is_conflict() {
                    tracing::warn!(definition = name, error = %error.message, "instances are not gone yet");
                }
                server.clock.sleep(PAUSE).await;
            }
        }
    }
}

async fn attempt(server: &Arc<Server>, name: &str) -> Result<(), Status> {
    let path = format!("{PATH}/{name}");
    let mut definition = in_process::request(server, Method::GET, &path, None).await?;
    if definition.deletion_timestamp().is_none() || definition.finalizers().all(|held| held != CLEANUP_FINALIZER) {
        return Ok(());
    }
    let mark = |definition: &mut Value, status: &str, reason: &str, message: &str| {
        status::set_condition(definition, "Terminating", status, reason, message, &server.timestamp());
    };
    if status::is_true(&definition, "Established") {
        mark(&mut definition, "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress");
        definition = write(server, name, &definition).await?;
        if let Err(error) = instances(server, name).await {
            let message = format!("could not list instances: {}", error.message);
            mark(&mut definition, "True", "InstanceDeletionFailed", &message);
            write(server, name, &definition).await?;
            return Err(error);
        }
        definition = in_process::request(server, Method::GET, &path, None).await?;
        mark(&mut definition, "False", "InstanceDeletionCompleted", "removed all instances");
    } else {
        mark(&mut definition, "False", "NeverEstablished", "resource was never established");
    }
    let left: Vec<String> =
        definition.finalizers().filter(|held| *held != CLEANUP_FINALIZER).map(str::to_string).collect();
    if left.is_empty() {
        definition.remove_at(&["metadata", "finalizers"]);
    } else {
        definition.set_finalizers(left);
    }
    write(server, name, &definition).await.map(|_| ())
}

async fn write(server: &Arc<Server>, name: &str, definition: &Value) -> Result<Value, Status> {
    in_process::request(server, Method::PUT, &format!("{PATH}/{name}/status"), Some(definition)).await
}

/// Deletes all instances and waits until the last is gone, whatever finalizers hold them.
async fn instances(server: &Arc<Server>, name: &str) -> Result<(), Status> {
    let served = {
        let rows = server.registry.custom();
        let Some(row) = rows.row(name) else { return Ok(()) };
        let Some(served) = row.served.first().cloned() else { return Ok(()) };
        served
    };
    let Some(cache) = served.cache.clone() else { return Ok(()) };
    let snapshot = cache.snapshot(Freshness::Consistent).await.map_err(crate::handlers::errors::of_read)?;
    let namespaces: BTreeSet<String> = snapshot.range(None, None).map(|entry| entry.namespace().to_string()).collect();
    drop(snapshot);
    for namespace in namespaces {
        let place = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
        let path = format!("/apis/{}{place}/{}", served.api_version(), served.resource.plural);
        in_process::request(server, Method::DELETE, &path, None).await?;
    }
    none_left(&cache).await.map_err(crate::handlers::errors::of_read)
}

async fn none_left(cache: &Arc<ResourceCache>) -> Result<(), crate::cache::Error> {
    let request = WatchRequest {
        matcher: None,
        scope: Scope::All,
        start: Start::State(Freshness::Consistent),
        bookmarks: None,
        ends_in: None,
    };
    let mut watch = cache.watch(request).await?;
    let mut left = watch.initial.take().map_or(0, |state| state.len());
    while left > 0 {
        if let Item::Events(_) = watch.next().await? {
            left = cache.snapshot(Freshness::Any).await?.len();
        }
    }
    Ok(())
}
