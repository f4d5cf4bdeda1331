//! Deletes requests for certificates of pods (KEP-4317) a quarter of an hour after they were made: by then they have
//! led to something, or never will. Runs where the gate is on.
//!
//! Reads PodCertificateRequests and deletes them. Upstream: `pkg/controller/certificates/cleaner/pcrcleaner.go`, which
//! looks every five minutes; here each request has its own time.

use std::sync::Arc;
use std::time::Duration;

use client::informer::Event;
use client::resources::POD_CERTIFICATE_REQUESTS;
use client::workqueue::WorkQueue;
use client::{DeleteOptions, ObjectKey, ObjectMeta};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::Deserialize;

use crate::context::Context;
use crate::worker::{self, Requeue};

pub const NAME: &str = "podcertificaterequest-cleaner-controller";
/// The gate.
pub const GATE: &str = "PodCertificateRequest";

const ACCOUNT: &str = "podcertificaterequestcleaner";
const LIFE: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Request {
    metadata: ObjectMeta,
}

client::impl_meta!(Request);

/// Pure: how long the request may stay.
fn left(request: &Request, now: Timestamp) -> Duration {
    let age = request
        .metadata
        .creation_timestamp
        .map_or(Duration::ZERO, |made| Duration::try_from(now.duration_since(made)).unwrap_or_default());
    LIFE.saturating_sub(age)
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    if !context.config.gates.contains(GATE) {
        return Box::pin(std::future::ready(()));
    }
    let client = context.client(ACCOUNT);
    let requests = context.informers.of::<Request>(&POD_CERTIFICATE_REQUESTS);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        requests.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                queue.add(event.object().metadata.key());
            }
        });
    }
    let (store, clock) = (requests.store(), context.clock.clone());
    worker::start(NAME, queue, 1, &context.shutdown, [requests.synced()], move |key| {
        let (client, store, now) = (client.clone(), store.clone(), clock.now());
        async move {
            let Some(request) = store.get(&key) else { return Ok(Requeue::Never) };
            let left = left(&request, now);
            if !left.is_zero() {
                return Ok(Requeue::After(left));
            }
            let options = DeleteOptions::uid(&request.metadata.uid);
            match client.delete(&POD_CERTIFICATE_REQUESTS, Some(&key.namespace), &key.name, &options).await {
                Err(error) if !error.is_not_found() => Err(error.into()),
                _ => Ok(Requeue::Never),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_stay_for_a_quarter_of_an_hour() {
        let made = "2026-01-01T00:00:00Z";
        let request: Request =
            serde_json::from_value(json!({"metadata": {"name": "r", "creationTimestamp": made}})).expect("a request");
        let after = |seconds: i64| {
            let made: Timestamp = made.parse().expect("a time");
            left(&request, made + jiff::SignedDuration::from_secs(seconds))
        };
        assert_eq!(after(0), LIFE);
        assert_eq!(after(600), Duration::from_secs(300));
        assert_eq!(after(900), Duration::ZERO);
        assert_eq!(after(-5), LIFE, "another clock");
    }
}
