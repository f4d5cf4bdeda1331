//! Deletes bootstrap tokens when their time is over. Off unless asked for, as upstream
//! (`--controllers=*,token-cleaner-controller`).
//!
//! Reads and deletes secrets of kube-system. Upstream: `pkg/controller/bootstrap/tokencleaner.go`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::informer::{Event, InformerParams};
use client::meta::null_default;
use client::resources::SECRETS;
use client::workqueue::WorkQueue;
use client::{DeleteOptions, ObjectKey, ObjectMeta};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::Deserialize;

use crate::context::Context;
use crate::worker::{self, Requeue};

pub const NAME: &str = "token-cleaner-controller";

const ACCOUNT: &str = "token-cleaner";
const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Secret {
    metadata: ObjectMeta,
    #[serde(deserialize_with = "null_default")]
    data: BTreeMap<String, String>,
}

client::impl_meta!(Secret);

/// Pure: how long a token may stay; `None` is for ever. What cannot be read is over.
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let encoded = secret.data.get("expiration").filter(|text| !text.is_empty())?;
    let end = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let end = end.and_then(|text| text.parse::<Timestamp>().ok());
    let rest = end.map(|end| end.duration_since(now));
    Some(rest.and_then(|rest| Duration::try_from(rest).ok()).unwrap_or_default())
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let client = context.client(ACCOUNT);
    let params = InformerParams { namespace: NAMESPACE.to_string(), ..InformerParams::fields(&format!("type={TYPE}")) };
    let secrets = context.informers.informer::<Secret>(&SECRETS, params);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        secrets.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                queue.add(event.object().metadata.key());
            }
        });
    }
    let clock = context.clock.clone();
    let followed = [secrets.synced()];
    let store = secrets.store();
    worker::start(NAME, queue, 1, &context.shutdown, followed, move |key| {
        let (client, store, now) = (client.clone(), store.clone(), clock.now());
        async move {
            let Some(secret) = store.get(&key) else { return Ok(Requeue::Never) };
            match left(&secret, now) {
                None => Ok(Requeue::Never),
                Some(left) if left.is_zero() => {
                    tracing::info!(secret = key.name, "Deleting expired secret");
                    let options = DeleteOptions::uid(&secret.metadata.uid);
                    match client.delete(&SECRETS, Some(NAMESPACE), &key.name, &options).await {
                        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
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

    #[test]
    fn tokens_end_when_they_say() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        for (expiration, want) in [
            (None, None),
            (Some(""), None),
            (Some("2026-01-01T00:01:00Z"), Some(60)),
            (Some("2026-01-01T01:01:00+01:00"), Some(60)),
            (Some("2025-12-31T23:59:59Z"), Some(0)),
            (Some("soon"), Some(0)),
        ] {
            let mut secret = Secret::default();
            if let Some(text) = expiration {
                secret.data.insert("expiration".into(), STANDARD.encode(text));
            }
            assert_eq!(left(&secret, now), want.map(Duration::from_secs), "{expiration:?}");
        }
    }
}
