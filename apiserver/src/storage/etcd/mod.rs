//! The etcd engine: any number of apiservers over one etcd 3.4 or later.
//!
//! Keys, guards, leases and compaction are upstream's, so that apiservers of both kinds can share
//! an etcd, and either can take over the other's. All changes arrive over one watch ([`hub`]) in the
//! order of their revisions, which makes "how far has the cache got" one number.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Client, Compare, CompareOp, GetOptions, KvClient, PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
};

use super::{Attachment, Error, KeyValue, Range, RangeRequest, Result, Revision, Sink, Storage, Watch, WriteOptions};

mod compactor;
mod connect;
mod hub;
mod lease;
mod pending;

use hub::Hub;
use lease::Leases;

/// How to reach etcd; what `--etcd-*` flags say.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--etcd-servers`.
    pub endpoints: Vec<String>,
    /// `--etcd-cafile`.
    pub ca_file: Option<PathBuf>,
    /// `--etcd-certfile`.
    pub cert_file: Option<PathBuf>,
    /// `--etcd-keyfile`.
    pub key_file: Option<PathBuf>,
    /// Under what all keys are, with a slash at its end.
    pub prefix: String,
    /// `--etcd-compaction-interval`; `None` (upstream's 0) never compacts.
    pub compaction: Option<Duration>,
    /// `--lease-reuse-duration-seconds`: expiring keys share leases that long.
    pub lease_bucket: Duration,
    /// How long one request may take.
    pub timeout: Duration,
}

impl Options {
    /// Upstream's defaults for these endpoints.
    pub fn new(endpoints: Vec<String>) -> Options {
        Options {
            endpoints,
            ca_file: None,
            cert_file: None,
            key_file: None,
            prefix: "/registry/".to_owned(),
            compaction: Some(Duration::from_secs(300)),
            lease_bucket: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
        }
    }
}

/// The etcd engine.
pub struct Etcd {
    client: Client,
    kv: KvClient,
    hub: Arc<Hub>,
    leases: Leases,
    /// The last revision that was compacted, as far as is known here.
    compacted: Arc<AtomicU64>,
    timeout: Duration,
    _tasks: tokio_util::sync::DropGuard,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").finish_non_exhaustive()
    }
}

/// A read that failed for want of a server is tried this often: with several endpoints the next
/// attempt usually reaches another one.
const READ_ATTEMPTS: usize = 3;

impl Etcd {
    /// Connects, and begins to follow etcd's changes. Waits for a server for `options.timeout`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no endpoint answers.
    pub async fn connect(options: Options) -> Result<Etcd> {
        let stop = tokio_util::sync::CancellationToken::new();
        let client = connect::connect(&options, &stop).await?;
        // Lists of large objects are longer than gRPC's default of 4 MiB.
        let kv = client.kv_client().max_decoding_message_size(i32::MAX as usize);
        let hub = Hub::start(&client, kv.clone(), &options, stop.clone()).await?;
        let compacted = Arc::new(AtomicU64::new(0));
        if let Some(interval) = options.compaction {
            tokio::spawn(compactor::run(kv.clone(), interval, compacted.clone(), stop.clone()));
        }
        Ok(Etcd {
            leases: Leases::new(client.lease_client(), options.lease_bucket),
            client,
            kv,
            hub,
            compacted,
            timeout: options.timeout,
            _tasks: stop.drop_guard(),
        })
    }

    async fn bounded<T>(
        &self,
        revision: Revision,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer.map_err(|e| translate(&e, revision)),
            Err(_) => Err(Error::Unavailable("etcd did not answer in time".to_owned())),
        }
    }

    async fn read(&self, key: &str, options: GetOptions, at: Revision) -> Result<Read> {
        let mut attempt = 1;
        loop {
            let mut kv = self.kv.clone();
            let call = kv.get(key, Some(options.clone()));
            match self.bounded(at, call).await {
                Err(Error::Unavailable(why)) if attempt < READ_ATTEMPTS => {
                    tracing::debug!(%why, attempt, "an etcd read is tried again");
                    tokio::time::sleep(Duration::from_millis(50 * attempt as u64)).await;
                    attempt += 1;
                }
                Err(Error::Future { requested, .. }) => {
                    let current = self.hub.delivered().min(requested.saturating_sub(1));
                    return Err(Error::Future { requested, current });
                }
                Err(error) => return Err(error),
                Ok(mut answer) => {
                    let revision = answer.header().map_or(0, |h| h.revision() as Revision);
                    let more = answer.more();
                    let items = answer.take_kvs().into_iter().map(key_value).collect::<Result<_>>()?;
                    return Ok(Read { revision, items, more });
                }
            }
        }
    }

    /// A guarded write: `write` if `key` was last modified at `expected` (zero: is not there).
    async fn guarded(&self, key: &str, expected: Revision, write: TxnOp) -> Result<Revision> {
        let guard = Compare::mod_revision(key, CompareOp::Equal, expected as i64);
        let txn = Txn::new().when([guard]).and_then([write]).or_else([TxnOp::get(key, None)]);
        let mut kv = self.kv.clone();
        let answer = self.bounded(expected, kv.txn(txn)).await?;
        if answer.succeeded() {
            return Ok(answer.header().map_or(0, |h| h.revision() as Revision));
        }
        let current = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| kv.mod_revision() as Revision),
            _ => None,
        });
        let key = key.to_owned();
        Err(match current {
            Some(_) if expected == 0 => Error::Exists { key },
            Some(current) => Error::Conflict { key, current },
            None => Error::NotFound { key },
        })
    }

    /// A guarded put; see [`Etcd::guarded`].
    async fn put(&self, key: &str, expected: Revision, value: Bytes, options: WriteOptions) -> Result<Revision> {
        let put = TxnOp::put(key, value.clone(), self.put_options(&options).await?);
        if let Some(attachment) = &options.attachment {
            self.hub.pending.expect(key, &value, attachment);
        }
        let written = self.guarded(key, expected, put).await;
        if written.is_err() {
            self.hub.pending.take(key, &value);
        }
        written
    }

    async fn put_options(&self, options: &WriteOptions) -> Result<Option<PutOptions>> {
        match options.ttl {
            Some(ttl) => {
                let lease = self.bounded(0, self.leases.get(ttl)).await?;
                Ok(Some(PutOptions::new().with_lease(lease)))
            }
            None => Ok(None),
        }
    }
}

struct Read {
    revision: Revision,
    items: Vec<KeyValue>,
    more: bool,
}

fn key_value(kv: etcd_client::KeyValue) -> Result<KeyValue> {
    let (create_revision, mod_revision) = (kv.create_revision(), kv.mod_revision());
    let (key, value) = kv.into_key_value();
    let key = String::from_utf8(key).map_err(|_| Error::Corrupt("a key is not UTF-8".to_owned()))?;
    Ok(KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: create_revision as Revision,
        mod_revision: mod_revision as Revision,
    })
}

/// The key after every key with `prefix`.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// etcd's errors by what the caller should do. The texts are those of etcd's `rpctypes`.
fn translate(error: &etcd_client::Error, requested: Revision) -> Error {
    use etcd_client::Error as E;
    match error {
        E::GRpcStatus(status) => {
            let message = status.message();
            if message.contains("required revision has been compacted") {
                // etcd does not say how far; at least this far.
                Error::Compacted { requested, compacted: requested + 1 }
            } else if message.contains("required revision is a future revision") {
                Error::Future { requested, current: 0 }
            } else if message.contains("request is too large")
                || message.contains("message larger than max")
                || message.contains("message length too large")
            {
                Error::TooLarge(message.to_owned())
            } else {
                Error::Unavailable(format!("etcd: {message}"))
            }
        }
        other => Error::Unavailable(format!("etcd: {other}")),
    }
}

#[async_trait]
impl Storage for Etcd {
    async fn current_revision(&self) -> Result<Revision> {
        // Any read that goes through raft tells the revision; this one carries nothing else.
        let options = GetOptions::new().with_count_only();
        Ok(self.read("compact_rev_key", options, 0).await?.revision)
    }

    fn delivers_before_acknowledging(&self) -> bool {
        false
    }

    fn delivered(&self) -> Revision {
        self.hub.delivered()
    }

    async fn wait_delivered(&self, revision: Revision) {
        self.hub.wait_delivered(revision).await;
    }

    async fn get(&self, key: &str, revision: Option<Revision>) -> Result<Option<KeyValue>> {
        let at = revision.unwrap_or(0);
        let options = GetOptions::new().with_revision(at as i64);
        Ok(self.read(key, options, at).await?.items.pop())
    }

    async fn range(&self, request: RangeRequest) -> Result<Range> {
        let at = request.revision.unwrap_or(0);
        let from = if request.start > request.prefix { &request.start } else { &request.prefix };
        let options = GetOptions::new()
            .with_range(prefix_end(&request.prefix))
            .with_limit(request.limit as i64)
            .with_revision(at as i64);
        let read = self.read(from, options, at).await?;
        let revision = request.revision.unwrap_or(read.revision);
        Ok(Range { revision, items: read.items, more: read.more })
    }

    async fn create(&self, key: &str, value: Bytes, options: WriteOptions) -> Result<Revision> {
        self.put(key, 0, value, options).await
    }

    async fn update(&self, key: &str, expected: Revision, value: Bytes, options: WriteOptions) -> Result<Revision> {
        self.put(key, expected, value, options).await
    }

    async fn delete(&self, key: &str, expected: Revision, _attachment: Option<Attachment>) -> Result<Revision> {
        self.guarded(key, expected, TxnOp::delete(key, None)).await
    }

    async fn watch(&self, prefix: &str, after: Option<Revision>, sink: Arc<dyn Sink>) -> Result<Watch> {
        match after {
            None => Ok(self.hub.attach(prefix, sink)),
            Some(after) => Ok(hub::watch_from(&self.client, prefix, after, sink)),
        }
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let mut kv = self.kv.clone();
        let call = kv.compact(revision as i64, None);
        self.bounded(revision, call).await?;
        self.compacted.fetch_max(revision, Ordering::Relaxed);
        Ok(())
    }

    fn known_compacted(&self) -> Revision {
        self.compacted.load(Ordering::Relaxed)
    }

    async fn compacted_revision(&self) -> Result<Revision> {
        let options = GetOptions::new().with_count_only().with_revision(1);
        match self.read("compact_rev_key", options, 1).await {
            Ok(_) => return Ok(0),
            Err(Error::Compacted { .. }) => {}
            Err(error) => return Err(error),
        }
        // etcd tells how far to nobody but a watcher that comes too late.
        let mut client = self.client.watch_client();
        let late = async {
            let options = WatchOptions::new().with_start_revision(1);
            let mut stream = client.watch("compact_rev_key", Some(options)).await?;
            while let Some(answer) = stream.message().await? {
                if answer.canceled() {
                    return Ok(answer.compact_revision() as Revision);
                }
            }
            Ok(0)
        };
        self.bounded(0, late).await
    }

    async fn healthy(&self) -> Result<()> {
        // As upstream's health check: a read of a key under the prefix.
        self.current_revision().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_prefixes() {
        assert_eq!(prefix_end("/registry/"), b"/registry0");
        assert_eq!(prefix_end("a\u{7f}"), [b'a', 0x80]);
    }
}
