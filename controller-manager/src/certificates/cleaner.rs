//! Deletes requests that nobody needs any more: settled ones after an hour, others after a day, and
//! those whose certificate has expired.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::DeleteOptions;
use client::resources::CERTIFICATE_SIGNING_REQUESTS;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use super::{ACCOUNT, SigningRequest, follow};
use crate::context::Context;
use crate::worker::{self, Requeue};

pub const NAME: &str = "certificatesigningrequest-cleaner-controller";

const SETTLED: Duration = Duration::from_secs(3600);
const PENDING: Duration = Duration::from_secs(24 * 3600);

/// Pure: how long until the request can go; `None` when nothing is known that would end it.
fn decide(request: &SigningRequest, now: Timestamp) -> Option<Duration> {
    let left = |since: Option<Timestamp>, wait: Duration| {
        let age = now.duration_since(since?);
        let age = Duration::try_from(age).unwrap_or_default();
        Some(wait.saturating_sub(age))
    };
    let updated = |condition: &Value| condition["lastUpdateTime"].as_str().and_then(|time| time.parse().ok());
    let issued = !request.status.certificate.is_empty();
    if request.status.conditions.is_empty() {
        return left(request.metadata.creation_timestamp, PENDING);
    }
    let by_condition = request.status.conditions.iter().filter_map(|condition| {
        let wait = match condition["type"].as_str()? {
            "Denied" | "Failed" => SETTLED,
            "Approved" if issued => SETTLED,
            "Approved" => PENDING,
            _ => return None,
        };
        left(updated(condition), wait)
    });
    let by_certificate = issued
        .then(|| expiry(&request.status.certificate))
        .flatten()
        .map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default());
    by_condition.chain(by_certificate).min()
}

fn expiry(certificate: &str) -> Option<Timestamp> {
    let pem = STANDARD.decode(certificate).ok()?;
    component_base::pki::not_after(&pem)
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let client = context.client(ACCOUNT);
    let (requests, queue) = follow(context);
    let clock = context.clock.clone();
    let followed = [requests.synced()];
    let store = requests.store();
    worker::start(NAME, queue, 1, &context.shutdown, followed, move |key| {
        let (client, store, now) = (client.clone(), store.clone(), clock.now());
        async move {
            let Some(request) = store.get(&key) else { return Ok(Requeue::Never) };
            match decide(&request, now) {
                None => Ok(Requeue::Never),
                Some(left) if left.is_zero() => {
                    let options = DeleteOptions::uid(&request.metadata.uid);
                    match client.delete(&CERTIFICATE_SIGNING_REQUESTS, None, &key.name, &options).await {
                        Err(error) if !error.is_not_found() => Err(error.into()),
                        _ => Ok(Requeue::Never),
                    }
                }
                Some(left) => Ok(Requeue::After(left)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_go_when_their_time_is_over() {
        let start = Timestamp::from_second(1_700_000_000).expect("a time");
        let stamp = apimachinery::time::format(start);
        let request = |status: Value| -> SigningRequest {
            serde_json::from_value(json!({"metadata": {"creationTimestamp": stamp}, "status": status}))
                .expect("a request")
        };
        let condition = |kind: &str| json!([{"type": kind, "lastUpdateTime": stamp}]);
        for (status, after, want) in [
            (json!({}), 3600, Some(PENDING - Duration::from_secs(3600))),
            (json!({}), 25 * 3600, Some(Duration::ZERO)),
            (json!({"conditions": condition("Denied")}), 1800, Some(Duration::from_secs(1800))),
            (json!({"conditions": condition("Failed")}), 3601, Some(Duration::ZERO)),
            (json!({"conditions": condition("Approved")}), 3601, Some(PENDING - Duration::from_secs(3601))),
            (json!({"conditions": condition("Approved"), "certificate": "eA=="}), 3601, Some(Duration::ZERO)),
            (json!({"conditions": condition("Other")}), 3601, None),
        ] {
            let now = start + jiff::SignedDuration::from_secs(after);
            assert_eq!(decide(&request(status.clone()), now), want, "{status} after {after}");
        }
    }
}
