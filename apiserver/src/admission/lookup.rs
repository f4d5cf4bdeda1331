//! Objects that plugins look at: read from the cache, without waiting for anything.

use std::sync::Arc;

use ahash::AHashMap;
use apimachinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::{Entry, Freshness};
use crate::server::Server;

/// Decoded objects that are kept: those that every pod of a namespace, or of the cluster, is measured by.
const KEPT: usize = 512;

/// A tree, and the revision it is of.
type Dated = (u64, Arc<Value>);

/// Trees of objects that are looked at again and again, each as of one revision.
#[derive(Default)]
pub struct Decoded(Mutex<AHashMap<Arc<str>, Dated>>);

impl Decoded {
    /// The tree of an entry.
    pub fn tree(&self, entry: &Entry) -> Arc<Value> {
        if let Some((revision, tree)) = self.0.lock().get(entry.key())
            && *revision == entry.revision()
        {
            return tree.clone();
        }
        let tree = Arc::new(entry.tree());
        let mut kept = self.0.lock();
        if kept.len() >= KEPT {
            // Whatever is still looked at is back soon.
            kept.clear();
        }
        kept.insert(entry.key().clone(), (entry.revision(), tree.clone()));
        tree
    }
}

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
    if snapshot.is_empty() {
        return Ok(Vec::new());
    }
    Ok(snapshot.range(namespace, None).map(|entry| entry.tree()).collect())
}
