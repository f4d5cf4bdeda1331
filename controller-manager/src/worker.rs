//! The loop around every controller: keys in, reconcile, back off on failure.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use client::informer::Synced;
use client::workqueue::WorkQueue;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::context;

/// When a key should come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// When something changes.
    Never,
    After(Duration),
    /// With the key's growing back-off, although nothing failed.
    RateLimited,
}

/// Why a reconcile failed; the key comes again with its back-off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub fn api(&self) -> Option<&client::Error> {
        match self {
            Error::Api(error) => Some(error),
            Error::Other(_) => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Error::Api(error) => error.chain(),
            Error::Other(text) => text.clone(),
        }
    }
}

pub type Result<T = Requeue> = std::result::Result<T, Error>;

/// The end of a controller's start: once all that it reads has been received, `workers` workers reconcile the keys of
/// its queue until `shutdown`.
pub fn start<K, F, Fut, const N: usize>(
    controller: &'static str,
    queue: WorkQueue<K>,
    workers: usize,
    shutdown: &CancellationToken,
    followed: [Synced; N],
    reconcile: F,
) -> BoxFuture<'static, ()>
where
    K: Hash + Eq + Clone + Display + Send + Sync + 'static,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result> + Send,
{
    let shutdown = shutdown.clone();
    Box::pin(async move {
        let informers = async {
            for mut synced in followed {
                if synced.wait_for(|synced| *synced).await.is_err() {
                    // The informer is gone, and with it the component: only its shutdown is still to come.
                    return std::future::pending().await;
                }
            }
        };
        if context::synced(&shutdown, informers).await {
            run(controller, queue, workers, shutdown, reconcile).await;
        }
    })
}

/// Runs `workers` workers over a queue until `shutdown`, then lets them finish what they have.
pub async fn run<K, F, Fut>(
    controller: &'static str,
    queue: WorkQueue<K>,
    workers: usize,
    shutdown: CancellationToken,
    reconcile: F,
) where
    K: Hash + Eq + Clone + Display + Send + Sync + 'static,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result> + Send,
{
    let reconcile = Arc::new(reconcile);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers.max(1) {
        let queue = queue.clone();
        let reconcile = reconcile.clone();
        tasks.spawn(async move {
            while let Some(key) = queue.get().await {
                // A panic over one object must not end the work on all others.
                let outcome = std::panic::AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await;
                let outcome = outcome.unwrap_or_else(|_| Err(Error::Other("reconcile panicked".into())));
                match outcome {
                    Ok(requeue) => match requeue {
                        Requeue::Never => queue.forget(&key),
                        Requeue::After(delay) => {
                            queue.forget(&key);
                            queue.add_after(key.clone(), delay);
                        }
                        Requeue::RateLimited => queue.add_rate_limited(key.clone()),
                    },
                    Err(error) => {
                        let behind = error.api().is_some_and(|error| error.is_conflict() || error.is_not_found());
                        if behind {
                            // The cache was behind: ordinary, and cured by trying again.
                            tracing::debug!(controller, key = %key, error = error.text(), "reconcile lost a race");
                        } else {
                            tracing::error!(controller, key = %key, error = error.text(), "reconcile failed");
                        }
                        queue.add_rate_limited(key.clone());
                    }
                }
                queue.done(&key);
            }
        });
    }
    shutdown.cancelled().await;
    queue.close();
    while let Some(joined) = tasks.join_next().await {
        if let Err(error) = joined {
            tracing::error!(controller, %error, "a worker panicked");
        }
    }
}
