//! The watch cache: what request handlers read from and write through.
//!
//! Reads outnumber writes by orders of magnitude, so an object is encoded once, when it is written,
//! and served as bytes from then on. Per resource there is one [`ResourceCache`]:
//!
//! - an ordered, persistent map from storage key to [`Entry`], so that a LIST is an O(1)
//!   [`Snapshot`] and a walk over it;
//! - a ring of recent [`Event`]s shared by all watchers, so that a [`Watch`] is a cursor, and from
//!   which the map of any recent revision can be restored for exact reads and later pages;
//! - indexes by chosen fields (`spec.nodeName`) and by owner.
//!
//! With the embedded engine the cache is part of the commit: a write is here before it is
//! acknowledged. With etcd it follows etcd's watch, and consistent reads wait until it has caught
//! up. Handlers see no difference.
//!
//! ```text
//! handler ── get, list, watch ──▶ ResourceCache ◀── changes, in order ── Storage (embedded, etcd)
//!    └────── create, update, delete ──▶ ResourceCache ── guarded writes ──▶ ┘
//! ```

use std::sync::{Arc, Weak};
use std::time::Duration;

use ahash::AHashMap;
use futures::StreamExt;
use parking_lot::RwLock;

mod continue_token;
mod corrupt;
mod entry;
mod error;
mod event;
mod follow;
mod metrics;
pub mod raw;
mod resource;
mod scope;
mod snapshot;
mod spec;
mod splice;
mod state;
mod watch;
mod write;

pub use continue_token::{ContinueToken, TokenError};
pub use corrupt::Corruption;
pub use entry::{Encodings, Entry, Facts, Labels};
pub use error::{Error, Result};
pub use event::{Event, EventType, Matcher, json_frame};
pub use follow::Follower;
pub use metrics::{CacheMetrics, Operation};
pub use resource::{Freshness, ResourceCache};
pub use scope::Scope;
pub use snapshot::Snapshot;
pub use spec::{CreateOptions, Decode, Extract, PROTOBUF_PREFIX, Read, ResourceSpec, SelectableField};
pub use splice::set_resource_version;
pub use state::RingLimits;
pub use watch::{Item, Start, Watch, WatchRequest};

use crate::encryption::Encryption;
use crate::storage::Storage;
use resource::Below;
use scope::Waker;

/// How often idle resources are looked at for history to drop.
const SWEEP: Duration = Duration::from_secs(30);

/// All resource caches over one store.
pub struct Cache {
    storage: Arc<dyn Storage>,
    limits: RingLimits,
    waker: Waker,
    metrics: Option<Arc<CacheMetrics>>,
    encryption: Option<Arc<Encryption>>,
    resources: RwLock<AHashMap<(String, String), Arc<ResourceCache>>>,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("resources", &self.resources.read().len()).finish()
    }
}

impl Cache {
    /// A cache over `storage`. Must be called inside a tokio runtime.
    pub fn new(storage: Arc<dyn Storage>, limits: RingLimits) -> Arc<Cache> {
        Self::build(storage, limits, None, None)
    }

    /// A cache that is measured, over a store that is encrypted where `encryption` says so. Must be called
    /// inside a tokio runtime.
    pub fn complete(
        storage: Arc<dyn Storage>,
        limits: RingLimits,
        metrics: Arc<CacheMetrics>,
        encryption: Option<Arc<Encryption>>,
    ) -> Arc<Cache> {
        Self::build(storage, limits, Some(metrics), encryption)
    }

    fn build(
        storage: Arc<dyn Storage>,
        limits: RingLimits,
        metrics: Option<Arc<CacheMetrics>>,
        encryption: Option<Arc<Encryption>>,
    ) -> Arc<Cache> {
        let (waker, resources) = (Waker::start(), RwLock::default());
        let cache = Arc::new(Cache { storage, limits, waker, metrics, encryption, resources });
        tokio::spawn(sweep(Arc::downgrade(&cache)));
        cache
    }

    /// The store below.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Adds a resource; costs a few hundred bytes until it is first used. A resource that is there
    /// already is answered as it is, whatever `spec` says: remove it first to change it.
    pub fn register(&self, spec: ResourceSpec) -> Arc<ResourceCache> {
        let key = (spec.group.clone(), spec.resource.clone());
        self.resources
            .write()
            .entry(key)
            .or_insert_with(|| {
                let stored = self.encryption.as_ref();
                let stored = stored.map(|by| by.resource(&spec.group, &spec.resource)).unwrap_or_default();
                let below = Below { storage: self.storage.clone(), stored };
                ResourceCache::new(spec, below, self.limits, self.waker.clone(), self.metrics.clone())
            })
            .clone()
    }

    /// Forgets a resource (not its stored objects). Its watches end with the last handle.
    pub fn remove(&self, group: &str, resource: &str) -> Option<Arc<ResourceCache>> {
        self.resources.write().remove(&(group.to_owned(), resource.to_owned()))
    }

    /// A registered resource.
    pub fn resource(&self, group: &str, resource: &str) -> Option<Arc<ResourceCache>> {
        self.resources.read().get(&(group.to_owned(), resource.to_owned())).cloned()
    }

    /// Loads every registered resource, some at a time. Resources load themselves on first use; but
    /// only what is loaded remembers events, so a server that wants to answer watches from any
    /// resource version of its own lifetime loads all at its start, as upstream does.
    ///
    /// # Errors
    /// The first error; the others load all the same.
    pub async fn load_all(&self) -> Result<()> {
        futures::stream::iter(self.resources())
            .map(|resource| async move { resource.load().await })
            .buffer_unordered(8)
            .fold(Ok(()), |first, loaded| async move { first.and(loaded) })
            .await
    }

    /// Every registered resource, in no particular order.
    pub fn resources(&self) -> Vec<Arc<ResourceCache>> {
        self.resources.read().values().cloned().collect()
    }
}

async fn sweep(cache: Weak<Cache>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(cache) = cache.upgrade() else { return };
        for resource in cache.resources() {
            resource.sweep();
        }
    }
}
