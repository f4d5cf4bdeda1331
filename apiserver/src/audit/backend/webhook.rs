//! The webhook: lists of events, sent again with growing pauses. Upstream: `plugin/pkg/audit/webhook`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Lost, Sent, Sink};
use crate::remote::{Backoff, Remote};

const NAME: &str = "webhook";

/// A server that takes events.
pub struct Webhook {
    remote: Arc<dyn Remote>,
    backoff: Backoff,
}

impl Webhook {
    pub fn new(remote: Arc<dyn Remote>, initial_backoff: Duration) -> Self {
        Self { remote, backoff: Backoff::webhook(initial_backoff) }
    }
}

fn list(events: &[Sent]) -> Bytes {
    let mut text = String::from(r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#);
    for (at, sent) in events.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&sent.item);
    }
    text.push_str("]}\n");
    text.into()
}

#[async_trait]
impl Sink for Webhook {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn deliver(&self, events: &[Sent]) -> Result<(), Lost> {
        let body = list(events);
        // Whatever is wrong may be over at the next attempt, and an event is not repeated by anybody else.
        let sent = self.backoff.run(|_| true, || self.remote.send(body.clone())).await;
        sent.map(|_| ()).map_err(|error| Lost { events: events.len(), why: error.message })
    }
}
