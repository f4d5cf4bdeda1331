//! The way of an event to where it is kept: truncated if it is too large, then delivered at once
//! (`blocking`) or by a queue (`batch`). Upstream: `apiserver/plugin/pkg/audit`.

mod log;
mod queue;
mod rotate;
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::Event;
use super::metrics::Metrics;
use super::options::{Delivery, LogOptions, Mode, Truncate, WebhookOptions};
use super::policy::Level;
use crate::remote::Remote;
use queue::Queue;

const TRUNCATED: &str = "audit.k8s.io/truncated";

/// An event and its text. Clones share it.
#[derive(Clone)]
struct Sent {
    event: Arc<Event>,
    item: Arc<str>,
}

impl Sent {
    fn new(event: Event) -> Self {
        let item = event.item().into();
        Self { event: Arc::new(event), item }
    }
}

/// Where events end.
#[async_trait]
trait Sink: Send + Sync + 'static {
    /// What metrics call it.
    fn name(&self) -> &'static str;

    /// Delivers events in their order.
    async fn deliver(&self, events: &[Sent]) -> Result<(), Lost>;
}

/// How many events were lost, and why.
struct Lost {
    events: usize,
    why: String,
}

enum Way {
    Queue(Queue),
    Direct { sink: Arc<dyn Sink>, strict: bool },
}

struct Lane {
    truncate: Truncate,
    way: Way,
}

/// The backends of a server.
pub struct Backend {
    lanes: Vec<Lane>,
    metrics: Metrics,
    tasks: TaskTracker,
}

impl Backend {
    /// Opens the backends. Queues deliver what is in them after `shutdown`; see [`Backend::finish`].
    ///
    /// # Errors
    /// A log that cannot be opened.
    pub fn start(
        log: Option<&LogOptions>,
        webhook: Option<(&WebhookOptions, Arc<dyn Remote>)>,
        metrics: &Metrics,
        shutdown: &CancellationToken,
    ) -> Result<Self, String> {
        let mut backend = Self { lanes: Vec::new(), metrics: metrics.clone(), tasks: TaskTracker::new() };
        if let Some(options) = log {
            // A log's lines would only fight for the file.
            backend.add(Arc::new(log::Log::open(options)?), &options.delivery, false, shutdown);
        }
        if let Some((options, remote)) = webhook {
            let sink = webhook::Webhook::new(remote, options.initial_backoff);
            backend.add(Arc::new(sink), &options.delivery, true, shutdown);
        }
        Ok(backend)
    }

    fn add(&mut self, sink: Arc<dyn Sink>, delivery: &Delivery, concurrent: bool, shutdown: &CancellationToken) {
        let way = match delivery.mode {
            Mode::Batch => Way::Queue(Queue::start(
                sink,
                delivery.batch,
                concurrent,
                self.metrics.clone(),
                &self.tasks,
                shutdown.clone(),
            )),
            mode => Way::Direct { sink, strict: mode == Mode::BlockingStrict },
        };
        self.lanes.push(Lane { truncate: delivery.truncate, way });
    }

    /// Delivers an event; whether the request it is about may go on.
    pub async fn process(&self, event: Event) -> bool {
        let sent = Sent::new(event);
        let mut good = true;
        for lane in &self.lanes {
            let Some(sent) = self.bounded(&lane.truncate, &sent) else { continue };
            match &lane.way {
                Way::Queue(queue) => queue.put(sent, &self.metrics),
                Way::Direct { sink, strict } => {
                    if let Err(lost) = sink.deliver(&[sent]).await {
                        self.metrics.lost(sink.name(), lost.events, &lost.why);
                        good &= !strict;
                    }
                }
            }
        }
        good
    }

    /// The event, without its objects if it is too large with them; `None` when it is too large without.
    fn bounded(&self, truncate: &Truncate, sent: &Sent) -> Option<Sent> {
        // As upstream measures: with kind, version and the end of the line.
        let large = |sent: &Sent| (log::PREFIX.len() + sent.item.len()) as i64 > truncate.max_event_size;
        if !truncate.enabled || !large(sent) {
            return Some(sent.clone());
        }
        let mut cut = sent.clone();
        if sent.event.level >= Level::Request {
            let mut event = Event { request_object: None, response_object: None, ..(*sent.event).clone() };
            event.annotations.insert(TRUNCATED.to_string(), "true".to_string());
            cut = Sent::new(event);
        }
        if large(&cut) {
            self.metrics.lost("truncate", 1, "event is too large even after truncating");
            return None;
        }
        Some(cut)
    }

    /// Completes when everything that was queued before shutdown is delivered or given up.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests;
