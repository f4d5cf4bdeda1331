//! The one writer: group commit, and everything that must happen in commit order.
//!
//! Requests queue up; the writer takes all that wait, decides each against the index (and against
//! those before it in the same batch), and commits them with one fsync. Then, still in order: the
//! index moves, the sinks (the watch cache) see the changes, and only then the requests are
//! answered. So what is acknowledged is durable, and visible to every read that begins afterwards.
//!
//! Where only one request writes there is nothing to group: it commits on its own thread, which spares it
//! the way to the writer's and back. Whoever commits holds [`Shared::commits`], so there is still one order.
//!
//! Between batches the same thread deletes expired keys and drops history that is too old, in small
//! steps, so that neither ever holds up writes for long.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use fjall::{PersistMode, UserValue};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::index::Version;
use super::record::Record;
use super::{COMPACTED, REVISION, Shared};
use crate::storage::{Attachment, Change, Durability, Error, Result, Revision};

/// Most operations and bytes in one commit: bounds how long the first of them waits.
const BATCH_OPERATIONS: usize = 4096;
const BATCH_BYTES: usize = 8 << 20;

/// Superseded revisions dropped in one step.
const COMPACT_STEP: usize = 512;

/// Deleted history that may stay whatever the size of the store.
const GARBAGE: u64 = 64 << 20;

/// From how many writers on, and how long at most, a commit waits for more of them.
const GATHER_FROM: usize = 4;
const LONGEST_GATHER: Duration = Duration::from_millis(1);

/// How long, and for how many writes, relaxed ones may stay unsynced.
const RELAXED_FOR: Duration = Duration::from_millis(500);
pub(super) const RELAXED_WRITES: u64 = 1000;

/// The bytes of a write, and the copy of them that the tree keeps until it has written its tables.
///
/// The copy is made by whoever asks for the write. Made by whoever commits, it would lie among what the cache keeps for
/// good, and leave holes there when it goes; and others would wait for it.
pub(super) struct Value {
    bytes: Bytes,
    copy: UserValue,
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Value {
        Value { copy: UserValue::from(&bytes[..]), bytes }
    }
}

/// What a request wants done to a key.
pub(super) enum Action {
    Create { value: Value, ttl: Option<Duration> },
    Update { expected: Revision, value: Value, ttl: Option<Duration> },
    Delete { expected: Revision },
}

pub(super) struct Operation {
    pub key: Arc<str>,
    pub action: Action,
    pub durability: Durability,
    pub attachment: Option<Attachment>,
    /// `None` for deletes of expired keys.
    pub reply: Option<oneshot::Sender<Result<Revision>>>,
}

impl Operation {
    fn size(&self) -> usize {
        match &self.action {
            Action::Create { value, .. } | Action::Update { value, .. } => value.bytes.len() + 128,
            Action::Delete { .. } => 128,
        }
    }
}

/// What waits for the writer.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    filled: Condvar,
}

#[derive(Default)]
struct QueueState {
    operations: VecDeque<Operation>,
    compactions: Vec<(Revision, oneshot::Sender<()>)>,
    /// Look at the clock now.
    ticks: Vec<oneshot::Sender<()>>,
    closed: bool,
}

impl Queue {
    pub fn push(&self, operation: Operation) -> Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        state.operations.push_back(operation);
        self.filled.notify_one();
        Ok(())
    }

    pub fn compact(&self, revision: Revision) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        // After the writer has ended nobody would answer: the dropped sender does.
        if !state.closed {
            state.compactions.push((revision, sender));
            self.filled.notify_one();
        }
        receiver
    }

    pub fn tick(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if !state.closed {
            state.ticks.push(sender);
            self.filled.notify_one();
        }
        receiver
    }

    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    /// Whether nothing waits, and something still may.
    fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.operations.is_empty() && !state.closed
    }

    /// Refuses what comes and drops what waits, which tells those who wait.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        *state = QueueState { closed: true, ..QueueState::default() };
    }
}

/// The right to commit, and what is known from the commits before.
///
/// This lock is held across I/O, on purpose: it is the order of writes. Readers never take it.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// Since when, and how many, relaxed writes are not synced.
    unsynced: Option<(Instant, u64)>,
    /// How long a sync takes, smoothed.
    sync_time: Duration,
    /// How many writers there are, going by the last batch and those who queued meanwhile.
    in_flight: usize,
}

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    compacting: Vec<(Revision, oneshot::Sender<()>)>,
    /// Milliseconds since 1970 when history is looked at next.
    next_compaction: u64,
    /// The thread that gives space back, while there is one.
    reclaiming: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>) -> Writer {
        Writer { shared, compacting: Vec::new(), next_compaction: 0, reclaiming: None }
    }

    /// Runs until the queue is closed and empty.
    pub fn run(mut self) {
        loop {
            let (operations, compactions, ticks, closed) = self.wait();
            for (revision, done) in compactions {
                self.shared.index.write().compact(revision);
                self.compacting.push((revision, done));
            }
            if !operations.is_empty() {
                self.shared.commit(&mut self.shared.commits.lock(), operations);
            } else if closed {
                break;
            }
            let ticked = !ticks.is_empty();
            self.expire();
            self.compact(ticked);
            self.shared.sync_relaxed(&mut self.shared.commits.lock());
            for tick in ticks {
                let _ = tick.send(());
            }
        }
        {
            // Whoever commits alone has finished then, and nobody begins any more: the queue is closed.
            let _last = self.shared.commits.lock();
            self.shared.close();
        }
        self.shared.closed.send_replace(true);
        // A process that ends does not wait for this; one that opens the store again must.
        if let Some(reclaiming) = self.reclaiming.take() {
            let _ = reclaiming.join();
        }
    }

    /// Has space given back once more than half of it is deleted history.
    ///
    /// Left to itself the tree keeps deleted values until its levels overflow, because revisions only
    /// grow and so nothing ever overlaps: ten times what is alive, and more.
    fn reclaim(&mut self) {
        if self.reclaiming.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let settled = self.shared.settled.load(Ordering::Relaxed);
        if self.shared.table_bytes() < settled * 2 + GARBAGE {
            return;
        }
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name("store-reclaim".to_owned());
        match thread.spawn(move || shared.reclaim()) {
            Ok(thread) => self.reclaiming = Some(thread),
            Err(error) => tracing::warn!(%error, "space could not be given back"),
        }
    }

    #[allow(clippy::type_complexity)]
    fn wait(&self) -> (Vec<Operation>, Vec<(Revision, oneshot::Sender<()>)>, Vec<oneshot::Sender<()>>, bool) {
        let (timeout, expected) = {
            let commits = self.shared.commits.lock();
            (self.next_deadline(&commits), (commits.in_flight, commits.sync_time))
        };
        let queue = &self.shared.queue;
        let mut state = queue.state.lock();
        let nothing =
            |s: &QueueState| s.operations.is_empty() && s.compactions.is_empty() && s.ticks.is_empty() && !s.closed;
        if nothing(&state) && !timeout.is_zero() {
            queue.filled.wait_for(&mut state, timeout);
        }
        let (in_flight, sync_time) = expected;
        self.gather(&mut state, in_flight, sync_time);
        let mut bytes = 0;
        let mut count = 0;
        while count < state.operations.len() && count < BATCH_OPERATIONS && bytes < BATCH_BYTES {
            bytes += state.operations[count].size();
            count += 1;
        }
        let operations = state.operations.drain(..count).collect();
        (operations, std::mem::take(&mut state.compactions), std::mem::take(&mut state.ticks), state.closed)
    }

    /// Gives those whose writes were just acknowledged a moment to come back with their next ones.
    ///
    /// Clients that write in a loop otherwise split into two halves, one waiting for the sync of the
    /// other, and every sync carries half of what it could. The moment is a fraction of a sync, so it
    /// costs little where they do not come back, and a lone writer never waits.
    fn gather(&self, state: &mut parking_lot::MutexGuard<'_, QueueState>, in_flight: usize, sync_time: Duration) {
        if in_flight < GATHER_FROM || state.operations.is_empty() {
            return;
        }
        let until = Instant::now() + (sync_time / 4).min(LONGEST_GATHER);
        let queue = &self.shared.queue;
        while state.operations.len() < in_flight && !state.closed {
            if queue.filled.wait_until(state, until).timed_out() {
                return;
            }
        }
    }

    /// How long there is nothing to do unless a request comes.
    fn next_deadline(&self, commits: &Commits) -> Duration {
        if !self.compacting.is_empty() {
            return Duration::ZERO;
        }
        let now = (self.shared.options.clock)();
        let mut at = self.next_compaction;
        if let Some(expiry) = self.shared.index.read().next_expiry() {
            at = at.min(expiry);
        }
        let mut timeout = Duration::from_millis(at.saturating_sub(now));
        if let Some((since, _)) = commits.unsynced {
            timeout = timeout.min(RELAXED_FOR.saturating_sub(since.elapsed()));
        }
        timeout
    }

    fn expire(&mut self) {
        let now = (self.shared.options.clock)();
        let mut due = Vec::new();
        {
            let mut index = self.shared.index.write();
            while due.len() < BATCH_OPERATIONS {
                let Some((key, revision)) = index.take_expired(now) else { break };
                due.push(Operation {
                    key,
                    action: Action::Delete { expected: revision },
                    durability: Durability::Relaxed,
                    attachment: None,
                    reply: None,
                });
            }
        }
        if !due.is_empty() {
            self.shared.commit(&mut self.shared.commits.lock(), due);
        }
    }

    /// Moves the compacted revision by age when it is time (or `now`), and drops a step of what is
    /// superfluous.
    fn compact(&mut self, now: bool) {
        let shared = self.shared.clone();
        let time = (shared.options.clock)();
        if time >= self.next_compaction || now {
            let window = shared.window_ms.load(Ordering::Relaxed);
            self.next_compaction = time + (window / 10).clamp(100, 60_000);
            let mut index = shared.index.write();
            if let Some(revision) = index.revision_before(time.saturating_sub(window)) {
                index.compact(revision);
            }
        }
        let mut dropped = false;
        loop {
            let (gone, compacted, current) = {
                let mut index = shared.index.write();
                (index.take_obsolete(COMPACT_STEP), index.compacted, index.current)
            };
            if gone.is_empty() {
                if dropped {
                    self.reclaim();
                }
                for (_, done) in self.compacting.drain(..) {
                    let _ = done.send(());
                }
                return;
            }
            dropped = true;
            let mut batch = shared.db.batch();
            for revision in gone {
                batch.remove(&shared.log, revision.to_be_bytes());
                batch.remove(&shared.values, revision.to_be_bytes());
            }
            batch.insert(&shared.meta, COMPACTED, compacted.to_be_bytes());
            // The log may lose its newest record (a delete); the sequence must not go back.
            batch.insert(&shared.meta, REVISION, current.to_be_bytes());
            // Not synced: were it lost, its deletes would be lost with it, and would be redone.
            if let Err(error) = shared.persist(&mut shared.commits.lock(), batch, false, 0) {
                tracing::warn!(%error, "history cannot be compacted");
                return;
            }
            // Requests go first; a tick is a test's, which wants it finished.
            if !now && !shared.queue.state.lock().operations.is_empty() {
                return;
            }
        }
    }
}

impl Shared {
    /// Commits one operation on the caller's thread, if nobody else writes; gives it back otherwise.
    ///
    /// Blocks for a sync. The runtime's other tasks go on meanwhile: on its other threads where syncs are short and it
    /// has others, on one that takes over otherwise.
    pub fn commit_alone(&self, operation: Operation) -> Option<Operation> {
        let ttl = match &operation.action {
            Action::Create { ttl, .. } | Action::Update { ttl, .. } => ttl.is_some(),
            Action::Delete { .. } => false,
        };
        // What is to be synced or to expire later is the writer's to remember.
        if ttl || operation.durability != Durability::Synced {
            return Some(operation);
        }
        let Some(mut commits) = self.commits.try_lock() else { return Some(operation) };
        // The queue is looked at under the lock: once it is closed and empty the writer waits for the lock,
        // and nobody may commit after it.
        if commits.in_flight > 1 || !self.queue.is_idle() {
            return Some(operation);
        }
        let in_place = self.company.syncs_are_short() && Handle::current().metrics().num_workers() > 1;
        let work = AssertUnwindSafe(|| self.commit(&mut commits, vec![operation]));
        let done = match in_place {
            true => std::panic::catch_unwind(work),
            false => std::panic::catch_unwind(|| tokio::task::block_in_place(work)),
        };
        if done.is_err() {
            self.fail_after_panic();
        }
        None
    }

    /// Decides and commits a batch, publishes its changes, answers.
    fn commit(&self, commits: &mut Commits, operations: Vec<Operation>) {
        let shared = self;
        let now = (shared.options.clock)();
        let mut batch = shared.db.batch();
        let mut changes: Vec<Change> = Vec::with_capacity(operations.len());
        let mut writes: Vec<(Arc<str>, Version, u64)> = Vec::with_capacity(operations.len());
        let mut replies = Vec::with_capacity(operations.len());
        // What this batch has decided already and the index does not know yet.
        let mut pending: AHashMap<Arc<str>, Version> = AHashMap::new();
        let mut sync = false;
        {
            let index = shared.index.read();
            let mut revision = index.current;
            for operation in operations {
                let latest = match pending.get(&operation.key) {
                    Some(version) => Some(*version).filter(|v| v.created().is_some()),
                    None => index.latest(&operation.key),
                };
                let decided = decide(&operation, latest);
                let decided = decided.map(|()| {
                    revision += 1;
                    revision
                });
                if let Ok(revision) = decided {
                    sync |= operation.durability == Durability::Synced;
                    let key = index.shared_key(&operation.key).unwrap_or(operation.key);
                    let (value, ttl) = match operation.action {
                        Action::Create { value, ttl } | Action::Update { value, ttl, .. } => (Some(value), ttl),
                        Action::Delete { .. } => (None, None),
                    };
                    let created = latest.and_then(|v| v.created()).unwrap_or(revision);
                    let expires_at = ttl.map_or(0, |ttl| now + ttl.as_millis() as u64);
                    let record = Record {
                        key: key.to_string(),
                        tombstone: value.is_none(),
                        create_revision: created,
                        written_at: now,
                        expires_at,
                    };
                    batch.insert(&shared.log, revision.to_be_bytes(), record.encode());
                    let (version, value) = match value {
                        Some(Value { bytes, copy }) => {
                            batch.insert(&shared.values, revision.to_be_bytes(), copy);
                            (Version::put(revision, created), Some(bytes))
                        }
                        None => (Version::deleted(revision), None),
                    };
                    pending.insert(key.clone(), version);
                    writes.push((key.clone(), version, expires_at));
                    changes.push(Change {
                        revision,
                        key,
                        create_revision: created,
                        value,
                        attachment: operation.attachment,
                    });
                }
                if let Some(reply) = operation.reply {
                    replies.push((reply, decided));
                }
            }
        }
        if !changes.is_empty() {
            let persisted = self.persist(commits, batch, sync, changes.len() as u64);
            commits.in_flight = replies.len() + shared.queue.state.lock().operations.len();
            if let Err(error) = persisted {
                for (reply, decided) in replies {
                    // Also what was refused: it was decided on state that never came to be.
                    let _ = reply.send(decided.and(Err(error.clone())));
                }
                return;
            }
            let last = changes[changes.len() - 1].revision;
            {
                let mut index = shared.index.write();
                for (key, version, expires_at) in writes {
                    index.insert(key, version, now, expires_at);
                }
            }
            shared.sinks.deliver(&changes);
            shared.delivered.advance(last);
        }
        for (reply, decided) in replies {
            // A client that went away does not undo its write.
            let _ = reply.send(decided);
        }
    }

    fn persist(&self, commits: &mut Commits, batch: fjall::OwnedWriteBatch, sync: bool, writes: u64) -> Result<()> {
        if let Some(error) = self.failure.lock().clone() {
            return Err(error);
        }
        let sync = sync && self.options.sync;
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let start = Instant::now();
        if let Err(error) = batch.durability(Some(mode)).commit() {
            // Nothing is known about the disk after a failed write or sync: no later write may be
            // acknowledged before a restart has read back what is really there.
            let error = Error::Unavailable(format!("a commit failed: {error}"));
            tracing::error!(%error, "the store stops taking writes");
            *self.failure.lock() = Some(error.clone());
            return Err(error);
        }
        if sync {
            commits.unsynced = None;
            commits.sync_time = (commits.sync_time * 7 + start.elapsed()) / 8;
            self.company.synced(commits.sync_time);
        } else if self.options.sync {
            let (_, count) = commits.unsynced.get_or_insert((Instant::now(), 0));
            *count += writes;
        }
        Ok(())
    }

    fn sync_relaxed(&self, commits: &mut Commits) {
        let Some((since, count)) = commits.unsynced else { return };
        if since.elapsed() < RELAXED_FOR && count < RELAXED_WRITES {
            return;
        }
        commits.unsynced = None;
        if let Err(error) = self.db.persist(PersistMode::SyncData) {
            let error = Error::Unavailable(format!("a sync failed: {error}"));
            tracing::error!(%error, "the store stops taking writes");
            *self.failure.lock() = Some(error);
        }
    }
}

fn decide(operation: &Operation, latest: Option<Version>) -> Result<()> {
    let key = || operation.key.to_string();
    match (&operation.action, latest) {
        (Action::Create { .. }, None) => Ok(()),
        (Action::Create { .. }, Some(_)) => Err(Error::Exists { key: key() }),
        (Action::Update { .. } | Action::Delete { .. }, None) => Err(Error::NotFound { key: key() }),
        (Action::Update { expected, .. } | Action::Delete { expected }, Some(version)) => {
            if version.revision == *expected {
                Ok(())
            } else {
                Err(Error::Conflict { key: key(), current: version.revision })
            }
        }
    }
}
