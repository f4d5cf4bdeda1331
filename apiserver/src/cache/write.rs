//! Writing through the cache.
//!
//! What the cache needs of the new object (label set, selectable fields, where the resource version
//! goes) is taken from the tree before the write and travels with it. The embedded engine hands it
//! back inside the commit, so a write is in the cache before it is acknowledged and its bytes are
//! never decoded.

use std::borrow::{Borrow, Cow};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use apimachinery::json;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use super::entry::{Entry, Facts};
use super::metrics::Operation;
use super::raw;
use super::resource::{Freshness, ResourceCache};
use super::spec::{CreateOptions, ResourceSpec};
use super::splice::Slot;
use super::{Error, Result};
use crate::storage::{Revision, WriteOptions};

/// An encoded object waiting for its revision.
pub(super) struct Prepared {
    /// Whose facts were taken.
    spec: Arc<ResourceSpec>,
    stored: Bytes,
    slot: Slot,
    facts: Mutex<Option<Facts>>,
    entry: OnceLock<Arc<Entry>>,
}

impl Prepared {
    /// Encodes `object` as it is stored: without a resource version.
    /// `text` is what its member of kept text said before ([`raw`]).
    fn new(
        spec: &Arc<ResourceSpec>,
        key: &str,
        mut object: Cow<'_, Value>,
        text: Option<(&str, &str)>,
    ) -> Result<Arc<Prepared>> {
        let has_version = object.get("metadata").is_some_and(|metadata| metadata.get("resourceVersion").is_some());
        if has_version && let Some(metadata) = object.to_mut().get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
        let facts = Facts::of(spec, &object);
        let mut stored = json::to_vec_stored(&object);
        if let Some((member, text)) = text {
            stored = raw::keep(stored, member, text);
        }
        let stored = Bytes::from(stored);
        let slot = Slot::find(&stored)
            .ok_or_else(|| Error::Corrupt { key: key.to_owned(), why: "the object has no metadata".to_owned() })?;
        let spec = spec.clone();
        Ok(Arc::new(Prepared { spec, stored, slot, facts: Mutex::new(Some(facts)), entry: OnceLock::new() }))
    }

    /// Whether this was prepared for a resource as it is registered.
    pub fn is_of(&self, spec: &Arc<ResourceSpec>) -> bool {
        Arc::ptr_eq(&self.spec, spec)
    }

    /// The entry this became at `revision`; made once, whoever comes first.
    pub fn commit(
        &self,
        spec: &Arc<ResourceSpec>,
        key: &Arc<str>,
        revision: Revision,
        create_revision: Revision,
    ) -> Arc<Entry> {
        let entry = self.entry.get_or_init(|| {
            let facts = self.facts.lock().take().expect("facts are taken once");
            let json = self.slot.fill(&self.stored, revision);
            Entry::assemble(spec, key.clone(), revision, create_revision, json, facts, false)
        });
        if entry.revision() == revision {
            return entry.clone();
        }
        // An engine that matches by bytes may hand the same bytes of another write to this one.
        entry.at_revision(revision, create_revision)
    }
}

impl ResourceCache {
    fn write_options(&self, prepared: &Arc<Prepared>, ttl: Option<Duration>) -> WriteOptions {
        WriteOptions { ttl, durability: self.spec.durability, attachment: Some(prepared.clone()) }
    }

    /// Creates an object under storage key `key`; answers it with its resource version.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Corrupt`] if the object has no metadata.
    pub async fn create(
        &self,
        key: &str,
        object: impl Borrow<Value> + Send,
        options: CreateOptions,
    ) -> Result<Arc<Entry>> {
        self.create_as(key, object, options, None).await
    }

    /// As [`ResourceCache::create`], with the text in which its member of kept text came ([`raw`]).
    ///
    /// # Errors
    /// As [`ResourceCache::create`].
    pub async fn create_as(
        &self,
        key: &str,
        object: impl Borrow<Value> + Send,
        options: CreateOptions,
        text: Option<&str>,
    ) -> Result<Arc<Entry>> {
        // Loaded first, so that the change finds a cache to land in with what travels along.
        self.load().await?;
        let text = raw::member(&self.spec.group, &self.spec.resource).zip(text);
        let prepared = Prepared::new(&self.spec, key, Cow::Borrowed(object.borrow()), text)?;
        let write = self.write_options(&prepared, options.ttl);
        let stored = self.encrypt(key, &prepared)?;
        let begun = Instant::now();
        let revision = self.storage.create(key, stored, write).await;
        self.metrics.store(Operation::Create, begun.elapsed());
        let revision = revision?;
        Ok(prepared.commit(&self.spec, &key.into(), revision, revision))
    }

    /// Replaces `current` by `object`, provided nobody else did meanwhile. An object that encodes
    /// to the same bytes is not written, and `current` is answered.
    ///
    /// # Errors
    /// [`Error::Conflict`] or [`Error::NotFound`] if `current` is not current any more.
    pub async fn update(&self, current: &Arc<Entry>, object: Value, options: CreateOptions) -> Result<Arc<Entry>> {
        let kept = raw::member(&self.spec.group, &self.spec.resource)
            .and_then(|member| Some((member, raw::text(current.json(), member)?)));
        let prepared = Prepared::new(&self.spec, current.key(), Cow::Owned(object), kept)?;
        // A copy that the cache has seen replaced goes to the store, to learn of the conflict.
        let newest = |cached: Arc<Entry>| cached.revision() <= current.revision();
        if self.cached(current.key()).is_some_and(newest)
            && self.is_same(current, &prepared)
            && !self.is_stale(current).await?
        {
            return Ok(current.clone());
        }
        let write = self.write_options(&prepared, options.ttl);
        let stored = self.encrypt(current.key(), &prepared)?;
        let begun = Instant::now();
        let revision = self.storage.update(current.key(), current.revision(), stored, write).await;
        self.metrics.store(Operation::Update, begun.elapsed());
        let revision = revision?;
        Ok(prepared.commit(&self.spec, current.key(), revision, current.create_revision()))
    }

    fn encrypt(&self, key: &str, prepared: &Prepared) -> Result<Bytes> {
        self.stored.write(key, &prepared.stored).map_err(|error| Error::Transform(error.message))
    }

    /// Whether the object is stored in another way than it would be now, and so is to be written although
    /// nothing in it changed. Only the store can tell.
    async fn is_stale(&self, current: &Entry) -> Result<bool> {
        if current.is_stale() {
            return Ok(true);
        }
        if !self.stored.is_configured() {
            return Ok(false);
        }
        let Some(stored) = self.storage.get(current.key(), None).await? else { return Ok(true) };
        if stored.mod_revision != current.revision() {
            return Ok(true);
        }
        if let Some(work) = self.stored.prepare(&stored.value) {
            work.await;
        }
        let read = self.stored.read(current.key(), stored.value);
        read.map(|(_, stale)| stale).map_err(|error| Error::Transform(error.message))
    }

    fn is_same(&self, current: &Entry, prepared: &Prepared) -> bool {
        // Lengths differ by the spliced resource version only, some 20 to 40 bytes.
        let longer = current.json().len().wrapping_sub(prepared.stored.len());
        longer < 64 && prepared.slot.fill(&prepared.stored, current.revision()) == current.json()
    }

    /// Deletes `current`, provided nobody wrote it meanwhile; answers the resource version of the delete.
    ///
    /// # Errors
    /// As [`ResourceCache::update`].
    pub async fn delete(&self, current: &Arc<Entry>) -> Result<Revision> {
        let begun = Instant::now();
        let revision = self.storage.delete(current.key(), current.revision(), None).await;
        self.metrics.store(Operation::Delete, begun.elapsed());
        Ok(revision?)
    }

    /// Reads an object, lets `change` decide on its new tree (`None`: leave it), and writes that;
    /// again with a fresh copy as long as somebody else gets in between.
    ///
    /// `change` may see a stale copy first; whatever it decides on one is only believed after it
    /// was confirmed on a fresh one or the guarded write succeeded.
    ///
    /// # Errors
    /// Those of `change` as they are; [`Error::NotFound`] if there is no such object.
    pub async fn guaranteed_update<E, F, Fut>(
        &self,
        key: &str,
        options: CreateOptions,
        mut change: F,
    ) -> Result<Arc<Entry>, E>
    where
        E: From<Error>,
        F: FnMut(Arc<Entry>) -> Fut + Send,
        Fut: Future<Output = Result<Option<Value>, E>> + Send,
    {
        self.load().await?;
        // With an engine that delivers first, the cached copy is the stored one.
        let mut fresh = self.storage.delivers_before_acknowledging();
        let mut current = match self.cached(key) {
            Some(entry) => Some(entry),
            None => {
                fresh = true;
                self.get(key, Freshness::Consistent).await?
            }
        };
        loop {
            let Some(entry) = current else {
                return Err(Error::NotFound { key: key.to_owned() }.into());
            };
            let outcome = match change(entry.clone()).await {
                Ok(Some(object)) => match self.update(&entry, object, options).await {
                    // "Nothing changes" may be untrue of the newest state.
                    Ok(same) if Arc::ptr_eq(&same, &entry) && !fresh => None,
                    Ok(written) => Some(Ok(written)),
                    Err(Error::Conflict { .. } | Error::NotFound { .. }) => None,
                    Err(error) => Some(Err(error.into())),
                },
                Ok(None) if fresh => Some(Ok(entry)),
                Err(error) if fresh => Some(Err(error)),
                Ok(None) | Err(_) => None,
            };
            if let Some(outcome) = outcome {
                return outcome;
            }
            current = self.get(key, Freshness::Consistent).await?;
            fresh = true;
        }
    }
}
