//! The storage engines below the watch cache.
//!
//! Kubernetes needs very little of a store: writes that compare a modification revision, ranges,
//! watches, compaction, and expiry for Events. [`Storage`] is that contract and nothing more. It
//! has two engines: [`embedded`] (fjall, in this process) and [`etcd`] (a real etcd). Both keep
//! values under upstream's `/registry/…` keys, and both number every write of every key from one
//! sequence, which is what Kubernetes calls a resource version.
//!
//! Only [`crate::cache`] calls this module; request handlers talk to the cache.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

mod delivered;
pub mod embedded;
mod error;
pub mod etcd;
mod sinks;

pub use error::{Error, Result};

/// A position in the store's single history. Zero means "before anything was written".
pub type Revision = u64;

/// Something the writer of a change hands over to the sinks that see it, so that what was computed
/// from the object's tree before the write is not computed again from its bytes after it. An
/// engine that cannot carry it (etcd) delivers changes without.
pub type Attachment = Arc<dyn Any + Send + Sync>;

/// One stored key as of some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Full key, such as `/registry/pods/default/web`.
    pub key: Arc<str>,
    /// The stored bytes.
    pub value: Bytes,
    /// Revision of the write that created the key.
    pub create_revision: Revision,
    /// Revision of the write that produced this value.
    pub mod_revision: Revision,
}

/// What a write leaves behind, in revision order.
#[derive(Clone)]
pub struct Change {
    /// Revision of this change. Each revision carries at most one change.
    pub revision: Revision,
    /// The key written or deleted.
    pub key: Arc<str>,
    /// Revision that created the key (of the deleted object, for a delete).
    pub create_revision: Revision,
    /// New value; `None` for a delete.
    pub value: Option<Bytes>,
    /// What the writer attached, where the engine can carry it.
    pub attachment: Option<Attachment>,
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change")
            .field("revision", &self.revision)
            .field("key", &self.key)
            .field("create_revision", &self.create_revision)
            .field("value", &self.value.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// Receives changes of one key prefix. Calls come from one thread or task at a time, in revision
/// order, and must return quickly: with the embedded engine they run inside the commit.
pub trait Sink: Send + Sync + 'static {
    /// Changes, oldest first; never empty.
    fn apply(&self, changes: &[Change]);

    /// Delivery stopped and cannot resume where it was (history was compacted away meanwhile). The
    /// receiver must read its prefix again and attach anew. No call follows.
    fn broken(&self, error: Error);
}

/// Keeps a [`Sink`] attached; dropping it detaches.
pub struct Watch {
    /// Changes after this revision are delivered.
    pub revision: Revision,
    /// Dropped with the watch; what it is depends on the engine.
    pub guard: Box<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// How hard an acknowledged write must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// On disk before it is acknowledged.
    #[default]
    Synced,
    /// May be lost if the machine (not the process) fails within a second. Order still holds: no
    /// later write survives a lost earlier one. For Leases and Events.
    Relaxed,
}

/// Options of a write.
#[derive(Clone, Default)]
pub struct WriteOptions {
    /// Time to live; the key deletes itself afterwards. `None` keeps it.
    pub ttl: Option<Duration>,
    /// How hard the write must hold. etcd ignores it: everything is synced there.
    pub durability: Durability,
    /// Passed on to the sinks that see the change.
    pub attachment: Option<Attachment>,
}

impl std::fmt::Debug for WriteOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteOptions")
            .field("ttl", &self.ttl)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// What to read in a range.
#[derive(Clone, Debug, Default)]
pub struct RangeRequest {
    /// Keys beginning with this.
    pub prefix: String,
    /// Only keys at or after this one; empty means from the start of the prefix.
    pub start: String,
    /// At most this many keys; zero means all.
    pub limit: usize,
    /// As of this revision; `None` means now, linearizable.
    pub revision: Option<Revision>,
}

/// The answer to a range.
#[derive(Clone, Debug)]
pub struct Range {
    /// The revision the answer is of: the requested one, else the store's current one.
    pub revision: Revision,
    /// Keys in byte order.
    pub items: Vec<KeyValue>,
    /// Whether the limit cut the answer off.
    pub more: bool,
}

/// Recent changes of a prefix.
#[derive(Clone, Debug)]
pub struct History {
    /// What the changes build upon: a revision that can still be read.
    pub base: Revision,
    /// Every change with `base < revision <= until`, in order.
    pub changes: Vec<Change>,
    /// The store's revision when this was read.
    pub until: Revision,
}

/// A store of Kubernetes objects. Cheap to share as `Arc<dyn Storage>`.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// The newest revision of the store, linearizable: every write acknowledged before the call
    /// has a revision at or below it.
    async fn current_revision(&self) -> Result<Revision>;

    /// Whether every acknowledged write has already been delivered to the sinks. Then a cache fed
    /// by them is always consistent and need never ask for the current revision.
    fn delivers_before_acknowledging(&self) -> bool;

    /// The newest revision all of whose changes have been delivered to sinks.
    fn delivered(&self) -> Revision;

    /// Waits until [`Storage::delivered`] reaches `revision`. May wait for ever; callers bound it.
    async fn wait_delivered(&self, revision: Revision);

    /// Reads one key, now (linearizable) or as of a revision.
    ///
    /// # Errors
    /// [`Error::Compacted`] and [`Error::Future`] for revisions outside the history.
    async fn get(&self, key: &str, revision: Option<Revision>) -> Result<Option<KeyValue>>;

    /// Reads keys in order.
    ///
    /// # Errors
    /// As [`Storage::get`].
    async fn range(&self, request: RangeRequest) -> Result<Range>;

    /// Writes a key that must not exist; answers its revision.
    ///
    /// # Errors
    /// [`Error::Exists`].
    async fn create(&self, key: &str, value: Bytes, options: WriteOptions) -> Result<Revision>;

    /// Replaces a key last modified at exactly `expected`; answers the new revision.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Conflict`] when somebody else wrote it meanwhile.
    async fn update(&self, key: &str, expected: Revision, value: Bytes, options: WriteOptions) -> Result<Revision>;

    /// Deletes a key last modified at exactly `expected`; answers the revision of the delete.
    ///
    /// # Errors
    /// As [`Storage::update`].
    async fn delete(&self, key: &str, expected: Revision, attachment: Option<Attachment>) -> Result<Revision>;

    /// Delivers changes of keys beginning with `prefix` to `sink`: those after revision `after`, or,
    /// when `None`, those after the revision the answer names.
    ///
    /// # Errors
    /// [`Error::Compacted`] when history no longer reaches back to `after`.
    async fn watch(&self, prefix: &str, after: Option<Revision>, sink: Arc<dyn Sink>) -> Result<Watch>;

    /// The newest changes of `prefix` that history still holds, at most `limit`, so that a cache
    /// which has just started can serve watches from before. `None` if the engine cannot tell.
    ///
    /// # Errors
    /// [`Error::Compacted`] if history went while it was read.
    async fn history(&self, prefix: &str, limit: usize) -> Result<Option<History>> {
        let _ = (prefix, limit);
        Ok(None)
    }

    /// Forgets history up to `revision`: reads and watches of it answer [`Error::Compacted`].
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// The revision up to which history was forgotten.
    async fn compacted_revision(&self) -> Result<Revision>;

    /// The same as far as this process knows, without asking anybody; 0 if it knows nothing.
    fn known_compacted(&self) -> Revision {
        0
    }

    /// Finishes what was accepted and lets go of the store, so that the next start finds everything
    /// in order. Writes fail with [`Error::Closed`] from then on. Dropping the engine does the same,
    /// but a server that ends may still have handles everywhere.
    async fn close(&self) {}

    /// Whether the engine can serve now, for health endpoints.
    async fn healthy(&self) -> Result<()>;
}
