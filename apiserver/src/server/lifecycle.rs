//! How a server ends, with no request failing because of it (`--shutdown-*`).
//!
//! ```text
//! initiated   a signal came: /readyz fails, everything else is served as before
//!   │         --shutdown-delay-duration, and the server has taken itself out of the endpoints
//! closing     no new connections (with --shutdown-send-retry-after: no new requests, 429 instead)
//!   │         what is in flight finishes; watches end, spread over their grace period
//! drained     connections are closed, loops stop, the store is let go of
//! ```
//!
//! Upstream: `apiserver/pkg/server/genericapiserver.go`, `RunWithContext`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::Config;

/// Watches ended in a second at least.
const SLOWEST: f64 = 200.0;

/// Where a server is on its way to the end.
pub struct Lifecycle {
    /// It was told to stop.
    pub initiated: CancellationToken,
    /// It takes nothing new.
    pub closing: CancellationToken,
    /// Nothing is in flight any more, or took too long.
    pub drained: CancellationToken,
    /// What must be done through the API before closing is done.
    pub farewell: CancellationToken,
    requests: TaskTracker,
    watches: TaskTracker,
    ended: AtomicU32,
    delay: Duration,
    grace: Duration,
    patience: Duration,
    /// New requests are refused with 429 while old ones finish, and the sockets stay open that long.
    pub send_retry_after: bool,
}

impl Lifecycle {
    /// A server that ends when `initiated` is cancelled.
    pub fn new(config: &Config, initiated: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            initiated,
            closing: CancellationToken::new(),
            drained: CancellationToken::new(),
            farewell: CancellationToken::new(),
            requests: TaskTracker::new(),
            watches: TaskTracker::new(),
            ended: AtomicU32::new(0),
            delay: config.shutdown_delay,
            grace: config.shutdown_watch_grace,
            patience: config.request_timeout,
            send_retry_after: config.shutdown_send_retry_after,
        })
    }

    /// When the sockets stop listening.
    pub fn deaf(&self) -> CancellationToken {
        if self.send_retry_after { self.drained.clone() } else { self.closing.clone() }
    }

    /// Counts a request that ends by itself; as long as the token is held, the server does not end.
    pub fn request(&self) -> TaskTrackerToken {
        self.requests.token()
    }

    /// Completes when a watch has to end, and keeps count of it until then.
    pub async fn watch(self: Arc<Self>) {
        let _counted = self.watches.token();
        self.closing.cancelled().await;
        if self.grace.is_zero() {
            return;
        }
        // Not all at once: their clients come back elsewhere.
        let rate = (self.watches.len() as f64 / self.grace.as_secs_f64()).max(SLOWEST);
        let place = f64::from(self.ended.fetch_add(1, Ordering::Relaxed));
        tokio::time::sleep(Duration::from_secs_f64(place / rate).min(self.grace)).await;
    }

    /// Goes through the stages. `farewell` is waited for when `says_farewell`.
    pub async fn run(self: Arc<Self>, says_farewell: bool) {
        self.initiated.cancelled().await;
        tracing::info!("[graceful-termination] shutdown event name=ShutdownInitiated");
        tokio::time::sleep(self.delay).await;
        if says_farewell {
            // A store that does not answer must not keep the server for ever.
            let _ = tokio::time::timeout(self.patience, self.farewell.cancelled()).await;
        }
        self.closing.cancel();
        tracing::info!("[graceful-termination] shutdown event name=NotAcceptingNewRequest");
        self.requests.close();
        self.watches.close();
        let watches = async {
            if !self.grace.is_zero() {
                let _ = tokio::time::timeout(self.grace, self.watches.wait()).await;
            }
        };
        let all = async { tokio::join!(self.requests.wait(), watches) };
        if tokio::time::timeout(self.patience.max(self.grace), all).await.is_err() {
            tracing::warn!(left = self.requests.len(), "[graceful-termination] requests were still in flight");
        }
        tracing::info!("[graceful-termination] shutdown event name=InFlightRequestsDrained");
        self.drained.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stages_follow_each_other() {
        let config = Config {
            shutdown_delay: Duration::from_secs(10),
            shutdown_watch_grace: Duration::from_secs(2),
            ..Config::default()
        };
        let stop = CancellationToken::new();
        let life = Lifecycle::new(&config, stop.clone());
        let running = tokio::spawn(life.clone().run(true));
        let request = life.request();
        let watches: Vec<_> = (0..500).map(|_| tokio::spawn(life.clone().watch())).collect();
        tokio::task::yield_now().await;
        stop.cancel();
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(!life.closing.is_cancelled(), "the delay is not over");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!life.closing.is_cancelled(), "farewell was not said");
        life.farewell.cancel();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(life.closing.is_cancelled());
        let open = watches.iter().filter(|watch| !watch.is_finished()).count();
        assert!((200..300).contains(&open), "{open} of 500 watches are open at half time");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(watches.iter().all(tokio::task::JoinHandle::is_finished));
        assert!(!life.drained.is_cancelled(), "a request is in flight");
        drop(request);
        running.await.unwrap();
        assert!(life.drained.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_keeps_it_for_ever() {
        let stop = CancellationToken::new();
        let life = Lifecycle::new(&Config::default(), stop.clone());
        let _request = life.request();
        stop.cancel();
        life.clone().run(true).await;
        assert!(life.drained.is_cancelled());
    }
}
