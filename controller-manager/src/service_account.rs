//! Gives every active namespace the service account `default`.
//!
//! Reads namespaces and serviceaccounts; creates serviceaccounts. Upstream:
//! `pkg/controller/serviceaccount/serviceaccounts_controller.go`.

use std::sync::Arc;

use client::ObjectKey;
use client::informer::Event;
use client::resources::{NAMESPACES, SERVICE_ACCOUNTS};
use client::workqueue::WorkQueue;
use futures::future::BoxFuture;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::context::Context;
use crate::types::{MetadataOnly, Namespace};
use crate::worker::{self, Requeue};

pub const NAME: &str = "serviceaccount-controller";

const DEFAULT: &str = "default";

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let namespaces = context.informers.of::<Namespace>(&NAMESPACES);
    let accounts = context
        .informers
        .informer::<MetadataOnly>(&SERVICE_ACCOUNTS, client::informer::InformerParams::metadata_only());
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        namespaces.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                queue.add(event.object().metadata.key());
            }
        });
    }
    {
        let queue = queue.clone();
        accounts.on_event(move |event| {
            if let Event::Deleted(account) = event
                && account.metadata.name == DEFAULT
            {
                queue.add(ObjectKey::cluster(account.metadata.namespace.clone()));
            }
        });
    }
    let client = context.client("service-account-controller");
    let workers = 1;
    let followed = [namespaces.synced(), accounts.synced()];
    let (namespaces, accounts) = (namespaces.store(), accounts.store());
    worker::start(NAME, queue, workers, &context.shutdown, followed, move |key| {
        let (client, namespaces, accounts) = (client.clone(), namespaces.clone(), accounts.clone());
        async move {
            let Some(namespace) = namespaces.get(&key) else { return Ok(Requeue::Never) };
            let known = accounts.get_named(&key.name, DEFAULT).is_some();
            if !is_wanted(&namespace, known) {
                return Ok(Requeue::Never);
            }
            let account = json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": DEFAULT, "namespace": key.name },
            });
            match client.create::<IgnoredAny>(&SERVICE_ACCOUNTS, Some(&key.name), &account).await {
                Err(error)
                    if !error.is_already_exists() && !error.is_namespace_terminating() && !error.is_not_found() =>
                {
                    Err(error.into())
                }
                _ => Ok(Requeue::Never),
            }
        }
    })
}

/// Pure: whether the account is missing and the namespace may still get it.
fn is_wanted(namespace: &Namespace, known: bool) -> bool {
    !known && !namespace.metadata.is_deleting() && namespace.status.phase != "Terminating"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminating_namespaces_get_nothing() {
        let mut namespace = Namespace::default();
        assert!(is_wanted(&namespace, false));
        assert!(!is_wanted(&namespace, true));
        namespace.status.phase = "Terminating".into();
        assert!(!is_wanted(&namespace, false));
    }
}
