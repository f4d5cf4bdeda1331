//! Objects that plugins look at: read from the cache, without waiting for anything.

use std::sync::Arc;

use apimachinery::status::Status;
use serde_json::Value;

use crate::cache::{Entry, Freshness};
use crate::server::Server;

/// One object; an empty namespace for kinds without.
pub fn get(server: &Server, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
    let served = server.registry.any_version(group, plural)?;
    served.cache.as_ref()?.cached(&served.key(namespace, name))
}

/// All objects of a namespace, or of all (`None`).
///
/// # Errors
/// When the store cannot be read.
pub async fn list(server: &Server, group: &str, plural: &str, namespace: Option<&str>) -> Result<Vec<Value>, Status> {
    let Some(cache) = server.registry.any_version(group, plural).and_then(|served| served.cache.clone()) else {
        return Ok(Vec::new());
    };
    let snapshot = cache.snapshot(Freshness::Any).await.map_err(crate::handlers::errors::of_read)?;
    Ok(snapshot.range(namespace, None).map(|entry| entry.tree()).collect())
}
