//! Configuration objects, compiled once for each change of them.

use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use crate::cache::{Error, ResourceCache};
use crate::server::Server;
use crate::storage::Revision;

/// Something made of all objects of some resources. Reading it costs a comparison of revisions.
#[derive(Debug)]
pub struct Compiled<T> {
    /// Of the resources, in the order asked for: built in, so they stay.
    caches: OnceLock<Vec<Option<Arc<ResourceCache>>>>,
    made: RwLock<Option<(Vec<Revision>, Arc<T>)>>,
    /// Objects that come from files, by resource; they are before all others.
    fixed: RwLock<Vec<Vec<serde_json::Value>>>,
}

impl<T> Default for Compiled<T> {
    fn default() -> Self {
        Compiled { caches: OnceLock::new(), made: RwLock::new(None), fixed: RwLock::default() }
    }
}

impl<T> Compiled<T> {
    /// Other objects from files, in the order of the resources.
    pub fn fix(&self, objects: Vec<Vec<serde_json::Value>>) {
        *self.fixed.write() = objects;
        *self.made.write() = None;
    }

    /// What `make` makes of the present objects of the resources of a group, in their order.
    ///
    /// # Errors
    /// When the resources cannot be read: nobody may pass who would not otherwise.
    pub async fn get(
        &self,
        server: &Server,
        group: &str,
        plurals: &[&str],
        make: impl FnOnce(&[Vec<serde_json::Value>]) -> T,
    ) -> Result<Arc<T>, Error> {
        let caches = self.caches.get_or_init(|| {
            let cache = |plural: &&str| server.registry.any_version(group, plural)?.cache.clone();
            plurals.iter().map(cache).collect()
        });
        for cache in caches.iter().flatten() {
            cache.load().await?;
        }
        let changed = |cache: &Option<Arc<ResourceCache>>| cache.as_ref().map_or(0, |cache| cache.changed_at());
        if let Some((at, made)) = &*self.made.read()
            && caches.iter().map(changed).eq(at.iter().copied())
        {
            return Ok(made.clone());
        }
        let revisions: Vec<Revision> = caches.iter().map(changed).collect();
        // Of two that compile at once the later one is kept; a change in between is seen next time, because the
        // revisions were read first.
        // Held until the end: what is fixed meanwhile must not be overwritten by what is made of less.
        let fixed = self.fixed.read();
        let objects: Vec<Vec<serde_json::Value>> = caches
            .iter()
            .enumerate()
            .map(|(at, cache)| {
                let mut objects = fixed.get(at).cloned().unwrap_or_default();
                objects.extend(cache.iter().flat_map(|cache| cache.present()).map(|entry| entry.tree()));
                objects
            })
            .collect();
        let made = Arc::new(make(&objects));
        *self.made.write() = Some((revisions, made.clone()));
        Ok(made)
    }
}
