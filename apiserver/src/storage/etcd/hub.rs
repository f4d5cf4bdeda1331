//! Following etcd: one watch for everything.
//!
//! With one watch per resource, nobody knows how far "the cache" has got without asking each. With
//! one watch over all keys the answer is a number: a change of revision R arriving means that every
//! earlier change has arrived. A consistent read then asks etcd for its current revision and waits
//! for that number, usually for less than a millisecond.
//!
//! etcd can also report progress on request, which would allow watching our prefix only. But before
//! 3.4.25 and 3.5.8 that report may run ahead of the events (etcd issue 15220), and upstream trusts
//! it from 3.4.31 and 3.5.13 on only. So older servers are watched whole: then every revision brings
//! an event, and no report is needed.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Client, EventType, GetOptions, KvClient, WatchClient, WatchOptions, WatchResponse};
use futures::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::pending::Pending;
use super::{Options, translate};
use crate::storage::delivered::Delivered;
use crate::storage::sinks::Sinks;
use crate::storage::{Change, Error, Result, Revision, Sink, Watch};

/// First pause before connecting again; doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often somebody who waits asks for progress; as upstream.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Hub {
    sinks: Sinks,
    /// Our own writes on their way back.
    pub pending: Pending,
    delivered: Delivered,
    /// Whether progress may be asked for.
    reports_progress: bool,
    progress_wanted: Notify,
}

impl Hub {
    /// Starts following from now on.
    pub async fn start(
        client: &Client,
        mut kv: KvClient,
        options: &Options,
        stop: CancellationToken,
    ) -> Result<Arc<Hub>> {
        let version = async {
            let status = client.maintenance_client().status().await?;
            Ok::<_, etcd_client::Error>(status.version().to_owned())
        };
        let version = tokio::time::timeout(options.timeout, version)
            .await
            .map_err(|_| Error::Unavailable("etcd does not answer".to_owned()))?
            .map_err(|e| translate(&e, 0))?;
        let reports_progress = trusts_progress(&version);
        let from = current(&mut kv).await?;
        let hub = Arc::new(Hub {
            sinks: Sinks::default(),
            pending: Pending::default(),
            delivered: Delivered::new(from),
            reports_progress,
            progress_wanted: Notify::new(),
        });
        let prefix = if reports_progress { options.prefix.clone() } else { String::new() };
        tracing::info!(%version, reports_progress, from, "following etcd");
        tokio::spawn(hub.clone().follow(client.watch_client(), kv, prefix, from, stop));
        Ok(hub)
    }

    pub fn delivered(&self) -> Revision {
        self.delivered.get()
    }

    pub async fn wait_delivered(&self, revision: Revision) {
        let wait = self.delivered.wait(revision);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => return,
                () = tokio::time::sleep(PROGRESS_EVERY), if self.reports_progress => {
                    self.progress_wanted.notify_one();
                }
            }
        }
    }

    pub fn attach(&self, prefix: &str, sink: Arc<dyn Sink>) -> Watch {
        let attached = self.sinks.attach(prefix, 0, sink);
        let guard: Box<dyn Any + Send + Sync> = Box::new(attached);
        Watch { revision: self.delivered.get(), guard }
    }

    async fn follow(
        self: Arc<Hub>,
        client: WatchClient,
        mut kv: KvClient,
        prefix: String,
        mut from: Revision,
        stop: CancellationToken,
    ) {
        loop {
            let follower = Follower {
                client: client.clone(),
                prefix: &prefix,
                progress: self.reports_progress.then_some(&self.progress_wanted),
                pending: Some(&self.pending),
            };
            let run = follower.run(from, |changes, reached| {
                if !changes.is_empty() {
                    self.sinks.deliver(changes);
                }
                self.delivered.advance(reached);
            });
            // A sink that panics must not silence all others for ever: everybody starts over.
            let run = AssertUnwindSafe(run).catch_unwind();
            let error = tokio::select! {
                error = run => error.unwrap_or_else(|_| Error::Unavailable("a sink panicked".to_owned())),
                () = stop.cancelled() => return,
            };
            // What happened in between is compacted away. First learn where to go on, then tell the
            // sinks: whoever attaches after that reads the store at that revision or a later one,
            // so nothing falls between its read and our next event.
            let mut pause = FIRST_PAUSE;
            from = loop {
                match current(&mut kv).await {
                    Ok(revision) => break revision,
                    Err(why) => tracing::warn!(%why, "etcd's revision cannot be read"),
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    () = stop.cancelled() => return,
                }
            };
            self.pending.clear();
            self.sinks.break_all(&error);
            self.delivered.advance(from);
        }
    }
}

/// A watch of its own for one sink, from a revision in the past.
pub(super) fn watch_from(client: &Client, prefix: &str, after: Revision, sink: Arc<dyn Sink>) -> Watch {
    let client = client.watch_client();
    let prefix = prefix.to_owned();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        let follower = Follower { client, prefix: &prefix, progress: None, pending: None };
        let run = follower.run(after, |changes, _| {
            if !changes.is_empty() {
                sink.apply(changes);
            }
        });
        tokio::select! {
            error = run => sink.broken(error),
            () = stopped.cancelled() => {}
        }
    });
    Watch { revision: after, guard: Box::new(stop.drop_guard()) }
}

/// Reads one watch, over as many connections as it takes.
struct Follower<'a> {
    client: WatchClient,
    /// Empty for every key.
    prefix: &'a str,
    progress: Option<&'a Notify>,
    pending: Option<&'a Pending>,
}

impl Follower<'_> {
    /// Calls `deliver` with changes after `from` and the revision reached, until the changes that
    /// come next are compacted away; answers that error.
    async fn run(&self, mut from: Revision, mut deliver: impl FnMut(&[Change], Revision)) -> Error {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.connection(&mut from, &mut pause, &mut deliver).await {
                Ok(()) => tracing::debug!(from, "etcd closed the watch"),
                Err(error @ Error::Compacted { .. }) => return error,
                Err(error) => tracing::warn!(%error, from, "the etcd watch is interrupted"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connection(
        &self,
        from: &mut Revision,
        pause: &mut Duration,
        deliver: &mut impl FnMut(&[Change], Revision),
    ) -> Result<()> {
        let options = WatchOptions::new().with_start_revision(*from as i64 + 1);
        let options = match self.prefix {
            "" => options.with_all_keys(),
            _ => options.with_prefix().with_progress_notify(),
        };
        let mut client = self.client.clone().max_decoding_message_size(i32::MAX as usize);
        let stream = client.watch(self.prefix, Some(options)).await;
        let (mut sender, mut responses) = stream.map_err(|e| translate(&e, *from))?.split();
        loop {
            let answer = tokio::select! {
                answer = responses.message() => answer,
                () = wanted(self.progress) => {
                    sender.request_progress().await.map_err(|e| translate(&e, *from))?;
                    continue;
                }
            };
            let Some(answer) = answer.map_err(|e| translate(&e, *from))? else {
                return Ok(());
            };
            if answer.canceled() {
                if answer.compact_revision() > 0 {
                    let compacted = answer.compact_revision() as Revision;
                    return Err(Error::Compacted { requested: *from, compacted });
                }
                return Err(Error::Unavailable(format!("canceled: {}", answer.cancel_reason())));
            }
            *pause = FIRST_PAUSE;
            let changes = changes(&answer, self.pending);
            match changes.last() {
                Some(last) => *from = last.revision.max(*from),
                // A creation names etcd's revision, not how far this watch has got.
                None if answer.created() => continue,
                None if self.progress.is_some() => {
                    let reported = answer.header().map_or(0, |h| h.revision() as Revision);
                    *from = reported.max(*from);
                }
                None => continue,
            }
            deliver(&changes, *from);
        }
    }
}

async fn wanted(progress: Option<&Notify>) {
    match progress {
        Some(notify) => notify.notified().await,
        None => std::future::pending().await,
    }
}

fn changes(answer: &WatchResponse, pending: Option<&Pending>) -> Vec<Change> {
    let mut changes = Vec::with_capacity(answer.events().len());
    for event in answer.events() {
        let Some(kv) = event.kv() else { continue };
        // Other users of this etcd may have keys that are no text; they are none of ours.
        let Ok(key) = std::str::from_utf8(kv.key()) else { continue };
        let value = (event.event_type() == EventType::Put).then(|| Bytes::copy_from_slice(kv.value()));
        changes.push(Change {
            revision: kv.mod_revision() as Revision,
            key: key.into(),
            create_revision: kv.create_revision() as Revision,
            attachment: pending.zip(value.as_ref()).and_then(|(pending, value)| pending.take(key, value)),
            value,
        });
    }
    changes
}

async fn current(kv: &mut KvClient) -> Result<Revision> {
    let options = GetOptions::new().with_count_only();
    let read = kv.get("compact_rev_key", Some(options)).await;
    let answer = read.map_err(|e| translate(&e, 0))?;
    Ok(answer.header().map_or(0, |h| h.revision() as Revision))
}

/// Whether a server of this version reports progress in step with its events; upstream's bounds.
fn trusts_progress(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|n| n.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = (next(), next(), next());
    match version {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        other => other >= (3, 6, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusts_progress_from_the_versions_upstream_does() {
        for (version, expected) in [
            ("3.4.23", false),
            ("3.4.30", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("", false),
        ] {
            assert_eq!(trusts_progress(version), expected, "{version}");
        }
    }
}
