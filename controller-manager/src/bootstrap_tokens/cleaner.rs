//! Deletes bootstrap tokens when their time is over. Off unless asked for, as upstream
//! (`--controllers=*,token-cleaner-controller`).
//!
//! Reads and deletes secrets of kube-system. Upstream: `pkg/controller/bootstrap/tokencleaner.go`.

use std::sync::Arc;

use client::informer::Event;
use client::resources::SECRETS;
use client::workqueue::WorkQueue;
use client::{DeleteOptions, ObjectKey};
use futures::future::BoxFuture;

use super::{NAMESPACE, params};
use crate::context::Context;
use crate::types::Secret;
use crate::worker::{self, Requeue};

pub const NAME: &str = "token-cleaner-controller";

const ACCOUNT: &str = "token-cleaner";

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let client = context.client(ACCOUNT);
    let secrets = context.informers.informer::<Secret>(&SECRETS, params());
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
            match secret.left(now) {
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
