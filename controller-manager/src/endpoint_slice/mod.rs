//! Keeps the EndpointSlices of each service with a selector.
//!
//! Reads services, pods, nodes and endpointslices; writes endpointslices. Upstream:
//! `pkg/controller/endpointslice` and `k8s.io/endpointslice`. `plan` decides, `tracker` knows what
//! the cache has not seen yet.

mod plan;
#[cfg(test)]
mod tests;
mod tracker;

pub(crate) use tracker::Tracker;

use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event, Store};
use client::resources::{ENDPOINT_SLICES, NODES, PODS, SERVICES};
use client::workqueue::{Limits, WorkQueue};
use client::{Client, DeleteOptions, ObjectKey};
use futures::future::BoxFuture;

use crate::context::Context;
use crate::pod_endpoints as common;
use crate::types::{EndpointSlice, Node, Pod, Service};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "endpointslice-controller";

/// The value of the label that marks slices as this controller's.
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

const BY_SERVICE: &str = "service";

struct EndpointSliceController {
    client: Client,
    services: Store<Service>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    slices: Store<EndpointSlice>,
    tracker: Arc<Tracker>,
    max_per_slice: usize,
}

/// The service a slice belongs to, if it is one of ours.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    if slice.metadata.label(MANAGED_BY) != Some(MANAGER) {
        return None;
    }
    let service = slice.metadata.label(SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(slice.metadata.namespace.clone(), service))
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let services = context.informers.of::<Service>(&SERVICES);
    let pods = context.informers.of::<Pod>(&PODS);
    let nodes = context.informers.of::<Node>(&NODES);
    let slices = context.informers.of::<EndpointSlice>(&ENDPOINT_SLICES);
    common::index(&pods, &services);
    slices.add_index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
    let tracker = Arc::new(Tracker::new(context.clock.clone()));
    // Upstream's: one second doubling to a hundred, because many pods change together.
    let limits = Limits { base: Duration::from_secs(1), max: Duration::from_secs(100), ..Limits::default() };
    let queue: WorkQueue<ObjectKey> = WorkQueue::with(limits, context.clock.clone());
    {
        let queue = queue.clone();
        let tracker = tracker.clone();
        services.on_event(move |event| {
            let key = event.object().metadata.key();
            if let Event::Deleted(_) = event {
                tracker.forget(&key);
            }
            queue.add(key);
        });
    }
    {
        let queue = queue.clone();
        let tracker = tracker.clone();
        slices.on_event(move |event| {
            let slice = event.object();
            let Some(service) = service_of(slice) else { return };
            // Our own writes need no second look; everybody else's do.
            let expected = match event {
                Event::Deleted(slice) => tracker.observe_deletion(&service, slice),
                _ => tracker.is_expected(&service, slice),
            };
            if !expected {
                queue.add(service);
            }
        });
    }
    {
        // A node's zone is part of its pods' endpoints, and a pod of an unknown node is left out.
        let queue = queue.clone();
        let services = services.store();
        nodes.on_event(move |event| {
            let matters = match event {
                Event::Modified { old, new } => old.metadata.label(ZONE) != new.metadata.label(ZONE),
                _ => true,
            };
            if matters {
                services.keys().into_iter().for_each(|key| queue.add(key));
            }
        });
    }
    common::watch_pods(&pods, services.store(), queue.clone(), context.config.endpoint_updates_batch_period);
    let controller = Arc::new(EndpointSliceController {
        client: context.client("endpointslice-controller"),
        services: services.store(),
        pods: pods.store(),
        nodes: nodes.store(),
        slices: slices.store(),
        tracker,
        max_per_slice: context.config.max_endpoints_per_slice,
    });
    let workers = context.config.concurrent_service_endpoint_syncs;
    let followed = [services.synced(), pods.synced(), nodes.synced(), slices.synced()];
    worker::start(NAME, queue, workers, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

impl EndpointSliceController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let Some(service) = self.services.get(key) else {
            // The garbage collector takes the slices with their owner.
            self.tracker.forget(key);
            return Ok(Requeue::Never);
        };
        if service.spec.kind == "ExternalName" || service.spec.selector.is_none() {
            return Ok(Requeue::Never);
        }
        let existing = self.slices.by_index(BY_SERVICE, &key.to_string());
        if self.tracker.is_stale(key, &existing) {
            return Ok(Requeue::RateLimited);
        }
        let existing: Vec<EndpointSlice> =
            existing.iter().filter(|slice| !slice.metadata.is_deleting()).map(|slice| (**slice).clone()).collect();
        let mut pods = common::pods_of(&self.pods, &service);
        pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let zone = |node: &str| {
            self.nodes.get(&ObjectKey::cluster(node)).map(|node| node.metadata.label(ZONE).map(String::from))
        };
        let plan = plan::plan(&service, &pods, existing, &zone, self.max_per_slice);
        self.act(key, &service, &plan).await?;
        if plan.skipped.is_empty() {
            Ok(Requeue::Never)
        } else {
            // Their node will appear, or the pods will go; either is worth another look.
            tracing::debug!(controller = NAME, key = %key, pods = plan.skipped.join(","), "skipping pods of unknown nodes");
            Ok(Requeue::RateLimited)
        }
    }

    async fn act(&self, key: &ObjectKey, service: &Service, plan: &plan::Plan) -> Result<(), Error> {
        let namespace = Some(key.namespace.as_str());
        if !service.metadata.is_deleting() {
            for slice in &plan.create {
                match self.client.create::<EndpointSlice>(&ENDPOINT_SLICES, namespace, slice).await {
                    Ok(created) => self.tracker.update(key, &created),
                    Err(error) if error.is_namespace_terminating() => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        for slice in &plan.update {
            let updated: EndpointSlice =
                self.client.update(&ENDPOINT_SLICES, namespace, &slice.metadata.name, slice).await?;
            self.tracker.update(key, &updated);
        }
        for slice in &plan.delete {
            let result =
                self.client.delete(&ENDPOINT_SLICES, namespace, &slice.metadata.name, &DeleteOptions::default()).await;
            match result {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                Err(_) => {}
                Ok(()) => self.tracker.expect_deletion(key, slice),
            }
        }
        Ok(())
    }
}
