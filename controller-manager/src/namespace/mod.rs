//! Empties namespaces that are being deleted, then lets them go.
//!
//! Reads namespaces and discovery; deletes every object of every namespaced resource, pods first;
//! writes `namespaces/status` and `namespaces/finalize`. Upstream: `pkg/controller/namespace`.

mod conditions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event, Store};
use client::resources::NAMESPACES;
use client::workqueue::{Limits, WorkQueue};
use client::{Client, DeleteOptions, List, ListParams, ObjectKey, Propagation, Resource};
use component_base::clock::SharedClock;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use serde::de::IgnoredAny;

use self::conditions::Findings;
use crate::context::Context;
use crate::types::{MetadataOnly, Namespace};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "namespace-controller";

/// What this controller takes off a namespace when it is empty.
const FINALIZER: &str = "kubernetes";

/// How many resources of one namespace are emptied at once.
const PARALLEL: usize = 16;

/// Objects that finalizers hold back are asked for again after this, halved, as upstream does.
const FINALIZER_ESTIMATE: Duration = Duration::from_secs(15);

struct NamespaceController {
    client: Client,
    namespaces: Store<Namespace>,
    clock: SharedClock,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let namespaces = context.informers.of::<Namespace>(&NAMESPACES);
    // Backs off from 5 ms to a minute: contents may need long to go.
    let limits = Limits { max: Duration::from_secs(60), ..Limits::default() };
    let queue: WorkQueue<ObjectKey> = WorkQueue::with(limits, context.clock.clone());
    {
        let queue = queue.clone();
        namespaces.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) && event.object().metadata.is_deleting() {
                queue.add(event.object().metadata.key());
            }
        });
    }
    namespaces.set_resync(context.config.namespace_sync_period);
    let controller = Arc::new(NamespaceController {
        client: context
            .client(NAME)
            .with_rate_limit(context.config.kube_api_qps * 20.0, context.config.kube_api_burst * 20),
        namespaces: namespaces.store(),
        clock: context.clock.clone(),
    });
    let workers = context.config.concurrent_namespace_syncs;
    let followed = [namespaces.synced()];
    worker::start(NAME, queue, workers, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

/// What is left of one resource after it was asked to go.
#[derive(Debug, Default)]
struct Left {
    count: usize,
    finalizers: BTreeMap<String, usize>,
    /// How long pods may need to end.
    estimate: Duration,
}

impl NamespaceController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        if self.namespaces.get(key).is_none_or(|namespace| !namespace.metadata.is_deleting()) {
            return Ok(Requeue::Never);
        }
        // The server's word, not the cache's: deletion must not act on an old object.
        let mut namespace: Namespace = match self.client.get(&NAMESPACES, None, &key.name).await {
            Ok(namespace) => namespace,
            Err(error) if error.is_not_found() => return Ok(Requeue::Never),
            Err(error) => return Err(error.into()),
        };
        namespace = namespace.typed();
        if !namespace.metadata.is_deleting() || namespace.spec.finalizers.is_empty() {
            return Ok(Requeue::Never);
        }
        if namespace.status.phase != "Terminating" {
            namespace.status.phase = "Terminating".into();
            namespace = self.write_status(&namespace).await?;
        }
        if !namespace.spec.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(Requeue::Never);
        }
        let (findings, wait) = self.empty(&key.name).await?;
        let now = self.clock.now();
        if findings.apply(&mut namespace.status.conditions, now) {
            match self.write_status(&namespace).await {
                Ok(updated) => namespace = updated,
                Err(Error::Api(error)) if error.is_conflict() || error.is_not_found() => {
                    tracing::debug!(controller = NAME, key = %key, "the status changed meanwhile");
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(message) = findings.failure() {
            return Err(Error::Other(message));
        }
        if findings.is_anything_left() {
            // Half of what the slowest may need, so that a quick end is noticed early.
            return Ok(match wait {
                Some(wait) => Requeue::After(wait / 2 + Duration::from_secs(1)),
                None => Requeue::RateLimited,
            });
        }
        self.finalize(namespace).await?;
        Ok(Requeue::Never)
    }

    async fn write_status(&self, namespace: &Namespace) -> Result<Namespace, Error> {
        let updated: Namespace =
            self.client.update_status(&NAMESPACES, None, &namespace.metadata.name, namespace).await?;
        Ok(updated.typed())
    }

    async fn finalize(&self, mut namespace: Namespace) -> Result<(), Error> {
        for _ in 0..3 {
            namespace.spec.finalizers.retain(|finalizer| finalizer != FINALIZER);
            let name = namespace.metadata.name.clone();
            match self.client.update_sub::<IgnoredAny>(&NAMESPACES, None, &name, "finalize", &namespace).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.is_conflict() => {
                    namespace = match self.client.get::<Namespace>(&NAMESPACES, None, &name).await {
                        Ok(fresh) => fresh.typed(),
                        Err(error) if error.is_not_found() => return Ok(()),
                        Err(error) => return Err(error.into()),
                    };
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Other(format!("{} keeps changing", namespace.metadata.name)))
    }

    /// Deletes everything in a namespace: pods first, because other objects may still serve them.
    async fn empty(&self, namespace: &str) -> Result<(Findings, Option<Duration>), Error> {
        let mut findings = Findings::default();
        let mut wait: Option<Duration> = None;
        let discovered = self.client.discover().await?;
        findings.discovery_failed(&discovered.failed);
        let (pods, others): (Vec<_>, Vec<_>) = discovered
            .preferred()
            .into_iter()
            .filter(|found| found.resource.namespaced && found.supports(&["delete"]))
            .map(|found| (found.resource.clone(), found.supports(&["deletecollection"]), found.supports(&["list"])))
            .partition(|(resource, ..)| resource.group.is_empty() && resource.plural == "pods");
        for group in [pods, others] {
            let mut outcomes = futures::stream::iter(group)
                .map(|(resource, collection, list)| async move {
                    let outcome = self.empty_resource(namespace, &resource, collection, list).await;
                    (resource, outcome)
                })
                .buffer_unordered(PARALLEL);
            while let Some((resource, outcome)) = outcomes.next().await {
                match outcome {
                    Ok(left) => {
                        if left.count > 0 {
                            wait = wait.max(Some(left.estimate).filter(|estimate| !estimate.is_zero()));
                        }
                        findings.left(&resource, left.count, left.finalizers);
                    }
                    Err(error) => findings.deletion_failed(error.to_string()),
                }
            }
            if findings.is_anything_left() || findings.failure().is_some() {
                break;
            }
        }
        Ok((findings, wait))
    }

    async fn empty_resource(
        &self,
        namespace: &str,
        resource: &Resource,
        collection: bool,
        list: bool,
    ) -> client::Result<Left> {
        if !list {
            // What cannot be listed cannot be found left over either.
            return Ok(Left::default());
        }
        let options = DeleteOptions::default().propagation(Propagation::Background);
        let params = ListParams::default();
        let mut deleted = false;
        if collection {
            match self.client.delete_collection(resource, Some(namespace), &params, &options).await {
                Ok(()) => deleted = true,
                Err(error) if error.is_method_not_supported() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        if !deleted {
            let found = self.list(resource, namespace).await?;
            for object in found.items {
                match self.client.delete(resource, Some(namespace), &object.metadata.name, &options).await {
                    Err(error) if !error.is_not_found() && !error.is_method_not_supported() => return Err(error),
                    _ => {}
                }
            }
        }
        let found = self.list(resource, namespace).await?;
        let mut left = Left { count: found.items.len(), ..Left::default() };
        for object in &found.items {
            for finalizer in &object.metadata.finalizers {
                *left.finalizers.entry(finalizer.clone()).or_default() += 1;
                left.estimate = left.estimate.max(FINALIZER_ESTIMATE);
            }
            let grace = object.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0) as u64;
            left.estimate = left.estimate.max(Duration::from_secs(grace));
        }
        Ok(left)
    }

    async fn list(&self, resource: &Resource, namespace: &str) -> client::Result<List<MetadataOnly>> {
        let result = self.client.list_all(resource, Some(namespace), &ListParams::default().metadata_only()).await;
        match result {
            Err(error) if error.is_not_found() || error.is_method_not_supported() => {
                Ok(List { metadata: client::ListMeta::default(), items: Vec::new() })
            }
            other => other,
        }
    }
}
