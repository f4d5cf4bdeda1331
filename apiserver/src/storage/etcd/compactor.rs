//! Compaction of etcd's history, agreed upon with every other apiserver.
//!
//! Upstream's protocol: the *version* of the key `compact_rev_key` is a logical clock. Whoever finds
//! it unchanged since the last round advances it and compacts to the revision of the last round;
//! whoever finds it moved only remembers where it is. So with any number of apiservers, of both
//! kinds, history is kept for at least one interval.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, KvClient, Txn, TxnOp, TxnOpResponse};
use tokio_util::sync::CancellationToken;

const KEY: &str = "compact_rev_key";

/// Compacts every `interval` until `stop`. `compacted` follows what this and other servers have compacted.
pub(super) async fn run(mut kv: KvClient, interval: Duration, compacted: Arc<AtomicU64>, stop: CancellationToken) {
    let mut clock = 0;
    let mut revision = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stop.cancelled() => return,
        }
        match round(&mut kv, clock, revision, &compacted).await {
            Ok((next_clock, next_revision)) => (clock, revision) = (next_clock, next_revision),
            Err(error) => tracing::warn!(%error, "etcd could not be compacted"),
        }
    }
}

/// One round: answers the clock and the revision for the next.
async fn round(
    kv: &mut KvClient,
    clock: i64,
    revision: i64,
    compacted: &AtomicU64,
) -> Result<(i64, i64), etcd_client::Error> {
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, clock)])
        .and_then([TxnOp::put(KEY, revision.to_string(), None)])
        .or_else([TxnOp::get(KEY, None)]);
    let answer = kv.txn(txn).await?;
    let current = answer.header().map_or(0, |h| h.revision());
    if !answer.succeeded() {
        let found = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| (kv.version(), kv.value().to_vec())),
            _ => None,
        });
        let (version, value) = found.unwrap_or_default();
        // The value is the revision to which whoever advanced the clock has compacted.
        if let Some(revision) = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()) {
            compacted.fetch_max(revision, Ordering::Relaxed);
        }
        return Ok((version, current));
    }
    if revision != 0 {
        kv.compact(revision, None).await?;
        compacted.fetch_max(revision.unsigned_abs(), Ordering::Relaxed);
        tracing::info!(revision, "compacted etcd");
    }
    Ok((clock + 1, current))
}
