//! Mode `batch`: a bounded queue, and batches of what is in it. Upstream: `plugin/pkg/audit/buffered`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::metrics::Metrics;
use super::super::options::{Batch, Throttle};
use super::{Sent, Sink};

const NAME: &str = "buffered";

/// Takes events without waiting.
pub struct Queue(mpsc::Sender<Sent>);

impl Queue {
    /// Starts the task that delivers. `concurrent`: a batch does not wait for the one before.
    pub fn start(
        sink: Arc<dyn Sink>,
        batch: Batch,
        concurrent: bool,
        metrics: Metrics,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(usize::try_from(batch.buffer_size).unwrap_or(1).max(1));
        let worker = Worker {
            sink,
            batch,
            concurrent,
            metrics,
            tasks: tasks.clone(),
            throttle: batch.throttle.map(Tokens::new),
        };
        tasks.spawn(worker.run(receiver, shutdown));
        Self(sender)
    }

    /// Queues an event; a full queue loses it.
    pub fn put(&self, sent: Sent, metrics: &Metrics) {
        if let Err(error) = self.0.try_send(sent) {
            let why = match error {
                mpsc::error::TrySendError::Full(_) => "audit buffer queue blocked",
                mpsc::error::TrySendError::Closed(_) => "audit backend shut down",
            };
            metrics.lost(NAME, 1, why);
        }
    }
}

/// A bucket of tokens, one for each batch.
struct Tokens {
    throttle: Throttle,
    left: f64,
    since: Instant,
}

impl Tokens {
    fn new(throttle: Throttle) -> Self {
        Self { throttle, left: throttle.burst as f64, since: Instant::now() }
    }

    /// When the next batch may go; takes its token.
    fn next(&mut self) -> Instant {
        let now = Instant::now();
        let gained = (now - self.since).as_secs_f64() * self.throttle.qps;
        self.left = (self.left + gained).min(self.throttle.burst as f64) - 1.0;
        self.since = now;
        let short = (-self.left).max(0.0) / self.throttle.qps;
        now + Duration::from_secs_f64(short)
    }
}

struct Worker {
    sink: Arc<dyn Sink>,
    batch: Batch,
    concurrent: bool,
    metrics: Metrics,
    tasks: TaskTracker,
    throttle: Option<Tokens>,
}

impl Worker {
    async fn run(mut self, mut receiver: mpsc::Receiver<Sent>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let batch = self.collect(&mut receiver, &shutdown).await;
            self.deliver(batch).await;
        }
        // Nothing new is taken; what is there goes out.
        receiver.close();
        loop {
            let batch = self.collect(&mut receiver, &CancellationToken::new()).await;
            if batch.is_empty() {
                return;
            }
            self.deliver(batch).await;
        }
    }

    /// Events until there are enough, the first of them waited long enough, or nothing more comes.
    async fn collect(&self, receiver: &mut mpsc::Receiver<Sent>, shutdown: &CancellationToken) -> Vec<Sent> {
        let most = usize::try_from(self.batch.max_size).unwrap_or(1).max(1);
        let deadline = Instant::now() + self.batch.max_wait;
        let mut batch = Vec::new();
        while batch.len() < most {
            tokio::select! {
                biased;
                event = receiver.recv() => match event {
                    Some(event) => batch.push(event),
                    None => break,
                },
                () = sleep_until(deadline), if most > 1 => break,
                () = shutdown.cancelled() => break,
            }
        }
        batch
    }

    async fn deliver(&mut self, batch: Vec<Sent>) {
        if batch.is_empty() {
            return;
        }
        if let Some(tokens) = &mut self.throttle {
            sleep_until(tokens.next()).await;
        }
        let (sink, metrics) = (self.sink.clone(), self.metrics.clone());
        let work = async move {
            if let Err(lost) = sink.deliver(&batch).await {
                metrics.lost(sink.name(), lost.events, &lost.why);
            }
        };
        if self.concurrent {
            self.tasks.spawn(work);
        } else {
            work.await;
        }
    }
}
