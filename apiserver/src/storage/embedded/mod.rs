//! The embedded engine: fjall in this process, one writer, history kept by age.
//!
//! On disk there is a log of what happened, by revision ([`record`]); in memory an index over keys
//! and their revisions ([`index`]), rebuilt from the log at a start. One thread writes ([`writer`]).
//! Readers take what they need from the index under a short lock and read values without any.
//!
//! History reaches back a window of time (five minutes, as upstream's etcd compaction, unless
//! configured otherwise) and is dropped online behind it. There is no quota to run into: the store
//! takes what the disk takes.

use std::any::Any;
use std::fs::{File, OpenOptions, TryLockError};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use super::delivered::Delivered;
use super::sinks::Sinks;
use super::{
    Attachment, Change, Durability, Error, History, KeyValue, Range, RangeRequest, Result, Revision, Sink, Storage,
    Watch, WriteOptions,
};

mod company;
mod index;
mod journal;
mod record;
mod replayed;
mod writer;

use company::Company;
use index::{Index, Version};
use record::{Record, number};
use replayed::ReplayedSink;
use writer::{Action, Commits, Operation, Queue, RELAXED_WRITES, Writer};

/// Keys of the `meta` keyspace.
const COMPACTED: &str = "compacted";
const REVISION: &str = "revision";
const CLEAN: &str = "clean";

/// The largest value taken: as etcd's default request limit.
const LARGEST_VALUE: usize = 3 * 1024 * 1024 / 2;

/// The first revision of an empty store, as etcd's.
const FIRST_REVISION: Revision = 1;

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// Directory of the store; made if it is not there.
    pub path: PathBuf,
    /// How far history reaches back.
    pub history: Duration,
    /// Whether acknowledged writes are synced. Tests that care for speed only turn it off.
    pub sync: bool,
    /// The clock that ttl and history go by.
    pub clock: Clock,
    /// Bytes of block cache. Small: the watch cache answers nearly every read.
    pub block_cache: u64,
}

impl Options {
    /// The defaults for a store in `path`.
    pub fn new(path: impl Into<PathBuf>) -> Options {
        Options {
            path: path.into(),
            history: Duration::from_secs(300),
            sync: true,
            clock: Arc::new(|| u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()),
            block_cache: 4 << 20,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("path", &self.path)
            .field("history", &self.history)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}

/// The embedded engine. Dropping the last handle closes the store.
pub struct Embedded {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Embedded").field(&self.shared.options).finish()
    }
}

/// What the writer and the readers share.
struct Shared {
    options: Options,
    window_ms: AtomicU64,
    db: Database,
    log: Keyspace,
    values: Keyspace,
    meta: Keyspace,
    index: RwLock<Index>,
    delivered: Delivered,
    queue: Queue,
    commits: Mutex<Commits>,
    company: Company,
    sinks: Sinks,
    /// Bytes of tables after the last full compaction, or at the start.
    settled: AtomicU64,
    /// Set when the disk failed; from then on nothing is written.
    failure: Mutex<Option<Error>>,
    /// True once the writer has ended.
    closed: tokio::sync::watch::Sender<bool>,
    /// Held until everything above is closed.
    _lock: File,
}

fn disk(error: fjall::Error) -> Error {
    match error {
        fjall::Error::Io(e) => Error::Unavailable(format!("disk: {e}")),
        fjall::Error::Poisoned => Error::Unavailable("disk: an earlier write failed".to_owned()),
        other => Error::Corrupt(other.to_string()),
    }
}

impl Embedded {
    /// Opens the store, making it if it is not there, and recovers what a crash left.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open, [`Error::Corrupt`] if it makes no sense.
    pub fn open(options: Options) -> Result<Embedded> {
        std::fs::create_dir_all(&options.path)
            .map_err(|e| Error::Unavailable(format!("{}: {e}", options.path.display())))?;
        let lock = lock(&options.path)?;
        let db = open_database(&options)?;
        let keyspace = |name: &str, memtable: u64| {
            let create = || KeyspaceCreateOptions::default().max_memtable_size(memtable);
            db.keyspace(name, create).map_err(disk)
        };
        // Memtables hold what was written lately a second time, besides the cache: kept small.
        let log = keyspace("log", 2 << 20)?;
        let values = keyspace("values", 8 << 20)?;
        let meta = keyspace("meta", 1 << 20)?;
        let stored =
            |key: &str| -> Result<Option<u64>> { Ok(meta.get(key).map_err(disk)?.and_then(|bytes| number(&bytes))) };
        let compacted = stored(COMPACTED)?.unwrap_or(0);
        let mut index = Index::new(0, compacted);
        let mut empty = true;
        for item in log.iter() {
            let (key, value) = item.into_inner().map_err(disk)?;
            let revision = number(&key).ok_or_else(|| Error::Corrupt("a log key is not a revision".to_owned()))?;
            let record = Record::decode(&value)?;
            let version = match record.tombstone {
                true => Version::deleted(revision),
                false => Version::put(revision, record.create_revision),
            };
            index.insert(record.key.into(), version, record.written_at, record.expires_at);
            empty = false;
        }
        index.current = index.current.max(stored(REVISION)?.unwrap_or(FIRST_REVISION));
        let clean = stored(CLEAN)?.is_some();
        if !clean && !empty {
            // Relaxed writes at the end may be lost, though clients have seen their revisions. Those
            // must never come to mean something else: skip them.
            index.current += RELAXED_WRITES;
        }
        meta.remove(CLEAN).map_err(disk)?;
        db.persist(PersistMode::SyncData).map_err(disk)?;
        let shared = Arc::new(Shared {
            window_ms: AtomicU64::new(options.history.as_millis() as u64),
            delivered: Delivered::new(index.current),
            index: RwLock::new(index),
            options,
            db,
            log,
            values,
            meta,
            queue: Queue::default(),
            commits: Mutex::default(),
            company: Company::default(),
            sinks: Sinks::default(),
            settled: AtomicU64::new(0),
            failure: Mutex::new(None),
            closed: tokio::sync::watch::Sender::new(false),
            _lock: lock,
        });
        shared.settled.store(shared.table_bytes(), Ordering::Relaxed);
        let writer = Writer::new(shared.clone());
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(writer))
            .map_err(|e| Error::Unavailable(format!("the writer thread: {e}")))?;
        Ok(Embedded { shared, thread: Some(thread) })
    }

    /// Changes how far history reaches back, at once.
    pub fn set_history(&self, history: Duration) {
        self.shared.window_ms.store(history.as_millis() as u64, Ordering::Relaxed);
    }

    /// Looks at the clock now: deletes what has expired, drops history that is too old. The writer
    /// does so by itself; with an injected clock somebody has to say that time has moved.
    pub async fn tick(&self) {
        // The receiver fails only when the store is closing, and then there is nothing to wait for.
        let _ = self.shared.queue.tick().await;
    }

    /// Keys in the index, and bytes on disk.
    pub fn size(&self) -> (usize, u64) {
        let disk = self.shared.db.disk_space().unwrap_or_default();
        (self.shared.index.read().len(), disk)
    }

    async fn write(
        &self,
        key: &str,
        action: Action,
        durability: Durability,
        attachment: Option<Attachment>,
    ) -> Result<Revision> {
        let (reply, answer) = oneshot::channel();
        let key: Arc<str> = key.into();
        let mut operation = Some(Operation { key, action, durability, attachment, reply: Some(reply) });
        let _under_way = self.shared.company.enter();
        if may_block() && self.shared.company.is_missing().await {
            operation = operation.and_then(|operation| self.shared.commit_alone(operation));
        }
        if let Some(operation) = operation {
            self.shared.queue.push(operation)?;
        }
        answer.await.unwrap_or(Err(Error::Closed))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

/// Runs the writer.
fn run(writer: Writer) {
    let shared = writer.shared.clone();
    if std::panic::catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
        shared.fail_after_panic();
        shared.closed.send_replace(true);
    }
}

/// Whether the runtime that this is called in goes on while one of its threads waits for the disk.
fn may_block() -> bool {
    use tokio::runtime::{Handle, RuntimeFlavor};
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// Takes the directory for this process. fjall has a lock as well, but takes it only after its
/// journal may have been mended.
fn lock(path: &Path) -> Result<File> {
    let unavailable = |e: std::io::Error| Error::Unavailable(format!("{}: {e}", path.display()));
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("LOCK"));
    let file = open.map_err(unavailable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(path.display().to_string())),
        Err(TryLockError::Error(e)) => Err(unavailable(e)),
    }
}

/// Opens the database; if the crash tore its last write so that fjall refuses it, without that.
fn open_database(options: &Options) -> Result<Database> {
    let open = || {
        Database::builder(&options.path)
            .cache_size(options.block_cache)
            .worker_threads(1)
            .max_journaling_size(64 << 20)
            .open()
    };
    journal::trim(&options.path)?;
    let result = match open() {
        Err(fjall::Error::JournalRecovery(why)) => {
            if !journal::drop_torn_batch(&options.path)? {
                return Err(Error::Corrupt(format!("journal: {why:?}")));
            }
            tracing::warn!(?why, "a write that was torn by a crash was dropped");
            open()
        }
        opened => opened,
    };
    result.map_err(|error| match error {
        fjall::Error::Locked => Error::Locked(options.path.display().to_string()),
        other => disk(other),
    })
}

impl Shared {
    /// A commit panicked: nobody must wait for it or after it. The store fails, and says so.
    fn fail_after_panic(&self) {
        let error = Error::Unavailable("the writer panicked".to_owned());
        tracing::error!(%error, "the store stops");
        *self.failure.lock() = Some(error);
        self.queue.abandon();
    }

    fn value(&self, revision: Revision) -> Result<Bytes> {
        match self.values.get(revision.to_be_bytes()).map_err(disk)? {
            Some(value) => Ok(Bytes::copy_from_slice(&value)),
            // Dropped between the look at the index and this read.
            None => {
                let compacted = self.index.read().compacted;
                Err(Error::Compacted { requested: revision, compacted })
            }
        }
    }

    /// Bytes of tables, without the journal.
    fn table_bytes(&self) -> u64 {
        self.values.disk_space() + self.log.disk_space()
    }

    /// Rewrites the tables without what was deleted. Takes as long as copying what is left; reads and
    /// writes go on meanwhile.
    fn reclaim(&self) {
        for keyspace in [&self.values, &self.log] {
            // The newest deletes are still in memory.
            let done = keyspace.rotate_memtable_and_wait().and_then(|()| keyspace.major_compact());
            if let Err(error) = done {
                tracing::warn!(%error, "space could not be given back");
            }
        }
        self.settled.store(self.table_bytes(), Ordering::Relaxed);
    }

    /// The last thing the writer does: all is synced, and the next start may know so.
    fn close(&self) {
        if self.failure.lock().is_some() {
            return;
        }
        let (current, compacted) = {
            let index = self.index.read();
            (index.current, index.compacted)
        };
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.meta, REVISION, current.to_be_bytes());
        batch.insert(&self.meta, COMPACTED, compacted.to_be_bytes());
        batch.insert(&self.meta, CLEAN, 1u64.to_be_bytes());
        if let Err(error) = batch.commit() {
            tracing::error!(%error, "the store could not be closed cleanly");
        }
    }

    /// Every change of `prefix` after `after`, from the log.
    fn replay(&self, prefix: &str, after: Revision) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for item in self.log.range((after + 1).to_be_bytes()..) {
            let (key, value) = item.into_inner().map_err(disk)?;
            let record = Record::decode(&value)?;
            if !record.key.starts_with(prefix) {
                continue;
            }
            let revision = number(&key).ok_or_else(|| Error::Corrupt("a log key is not a revision".to_owned()))?;
            let value = match record.tombstone {
                true => None,
                false => Some(self.value(revision)?),
            };
            changes.push(Change {
                revision,
                key: record.key.into(),
                create_revision: record.create_revision,
                value,
                attachment: None,
            });
        }
        Ok(changes)
    }
}

#[async_trait]
impl Storage for Embedded {
    async fn current_revision(&self) -> Result<Revision> {
        Ok(self.shared.index.read().current)
    }

    fn delivers_before_acknowledging(&self) -> bool {
        true
    }

    fn delivered(&self) -> Revision {
        self.shared.delivered.get()
    }

    async fn wait_delivered(&self, revision: Revision) {
        self.shared.delivered.wait(revision).await;
    }

    async fn get(&self, key: &str, revision: Option<Revision>) -> Result<Option<KeyValue>> {
        // Twice: the value can only be missing because it was compacted in between, and for a read
        // of now there is then a newer one.
        for _ in 0..16 {
            let (key, version) = {
                let index = self.shared.index.read();
                let at = index.check(revision)?;
                match (index.at(key, at), index.shared_key(key)) {
                    (Some(version), Some(key)) => (key, version),
                    _ => return Ok(None),
                }
            };
            match self.shared.value(version.revision) {
                Err(Error::Compacted { .. }) if revision.is_none() => continue,
                value => return Ok(Some(key_value(key, version, value?))),
            }
        }
        Err(Error::Unavailable(format!("{key} changes faster than it can be read")))
    }

    async fn range(&self, request: RangeRequest) -> Result<Range> {
        for _ in 0..16 {
            let (revision, found, more) = {
                let index = self.shared.index.read();
                let revision = index.check(request.revision)?;
                let (found, more) = index.range(&request.prefix, &request.start, request.limit, revision);
                (revision, found, more)
            };
            let read =
                |(key, version): (Arc<str>, Version)| Ok(key_value(key, version, self.shared.value(version.revision)?));
            match found.into_iter().map(read).collect::<Result<Vec<_>>>() {
                Err(Error::Compacted { .. }) if request.revision.is_none() => continue,
                items => return Ok(Range { revision, items: items?, more }),
            }
        }
        Err(Error::Unavailable(format!("{} changes faster than it can be read", request.prefix)))
    }

    async fn create(&self, key: &str, value: Bytes, options: WriteOptions) -> Result<Revision> {
        check_size(&value)?;
        let action = Action::Create { value: value.into(), ttl: options.ttl };
        self.write(key, action, options.durability, options.attachment).await
    }

    async fn update(&self, key: &str, expected: Revision, value: Bytes, options: WriteOptions) -> Result<Revision> {
        check_size(&value)?;
        let action = Action::Update { expected, value: value.into(), ttl: options.ttl };
        self.write(key, action, options.durability, options.attachment).await
    }

    async fn delete(&self, key: &str, expected: Revision, attachment: Option<Attachment>) -> Result<Revision> {
        self.write(key, Action::Delete { expected }, Durability::Synced, attachment).await
    }

    async fn watch(&self, prefix: &str, after: Option<Revision>, sink: Arc<dyn Sink>) -> Result<Watch> {
        let Some(after) = after else {
            // Attached first: what the sink misses is at or below the revision read afterwards.
            let attached = self.shared.sinks.attach(prefix, 0, sink);
            let revision = self.shared.delivered.get();
            let guard: Box<dyn Any + Send + Sync> = Box::new(attached);
            return Ok(Watch { revision, guard });
        };
        {
            let index = self.shared.index.read();
            if after < index.compacted {
                return Err(Error::Compacted { requested: after, compacted: index.compacted });
            }
        }
        let replayed = Arc::new(ReplayedSink::new(sink));
        let attached = self.shared.sinks.attach(prefix, after, replayed.clone());
        replayed.replay(after, &self.shared.replay(prefix, after)?);
        Ok(Watch { revision: after, guard: Box::new(attached) })
    }

    async fn history(&self, prefix: &str, limit: usize) -> Result<Option<History>> {
        let (base, until, recent) = {
            let index = self.shared.index.read();
            let (base, recent) = index.recent(prefix, limit);
            let created = |(key, version): (Arc<str>, Version)| {
                let created = index.created_before(&key, version);
                (key, version, created)
            };
            (base, index.current, recent.into_iter().map(created).collect::<Vec<_>>())
        };
        let change = |(key, version, create_revision): (Arc<str>, Version, Revision)| {
            let value = match version.created() {
                Some(_) => Some(self.shared.value(version.revision)?),
                None => None,
            };
            let revision = version.revision;
            Ok(Change { revision, key, create_revision, value, attachment: None })
        };
        let changes = recent.into_iter().map(change).collect::<Result<_>>()?;
        Ok(Some(History { base, changes, until }))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        {
            let index = self.shared.index.read();
            if revision > index.current {
                return Err(Error::Future { requested: revision, current: index.current });
            }
            if revision < index.compacted {
                return Err(Error::Compacted { requested: revision, compacted: index.compacted });
            }
        }
        self.shared.queue.compact(revision).await.map_err(|_| Error::Closed)
    }

    async fn compacted_revision(&self) -> Result<Revision> {
        Ok(self.known_compacted())
    }

    fn known_compacted(&self) -> Revision {
        self.shared.index.read().compacted
    }

    async fn close(&self) {
        self.shared.queue.close();
        // The sender lives in `self`, so this ends with the value.
        let _ = self.shared.closed.subscribe().wait_for(|closed| *closed).await;
    }

    async fn healthy(&self) -> Result<()> {
        match self.shared.failure.lock().clone() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn key_value(key: Arc<str>, version: Version, value: Bytes) -> KeyValue {
    let create_revision = version.created().expect("reads answer existing keys only");
    KeyValue { key, value, create_revision, mod_revision: version.revision }
}

fn check_size(value: &Bytes) -> Result<()> {
    if value.len() > LARGEST_VALUE {
        return Err(Error::TooLarge(format!("{} bytes, at most {LARGEST_VALUE}", value.len())));
    }
    Ok(())
}

/// Whether a directory holds a store.
pub fn exists(path: &Path) -> bool {
    path.join("keyspaces").is_dir()
}
