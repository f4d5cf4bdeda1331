//! Mirrors Endpoints that somebody else keeps, for services without a selector, as EndpointSlices.
//!
//! Reads services, endpoints and endpointslices; writes endpointslices. `plan` decides. Upstream:
//! `pkg/controller/endpointslicemirroring`.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use client::events::{Recorder, Reference};
use client::informer::{Event, Store};
use client::resources::{ENDPOINT_SLICES, ENDPOINTS, SERVICES};
use client::workqueue::{Limits, WorkQueue};
use client::{Client, DeleteOptions, ObjectKey};
use futures::future::BoxFuture;

use crate::context::Context;
use crate::endpoint_slice::Tracker;
use crate::types::{EndpointSlice, Endpoints, Service};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "endpointslice-mirroring-controller";

/// The value of the label that marks slices as this controller's.
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Leader election of old kept its record in Endpoints that have no service.
const ELECTION_RECORD: &str = "control-plane.alpha.kubernetes.io/leader";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const BY_SERVICE: &str = "mirrored-service";

/// Upstream's: one second doubling to a hundred.
const LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(100));

struct MirroringController {
    client: Client,
    recorder: Recorder,
    services: Store<Service>,
    endpoints: Store<Endpoints>,
    slices: Store<EndpointSlice>,
    tracker: Arc<Tracker>,
    max_per_subset: usize,
}

/// The Endpoints a slice mirrors, if it is one of ours.
fn mirrored(slice: &EndpointSlice) -> Option<ObjectKey> {
    if slice.metadata.label(MANAGED_BY) != Some(MANAGER) {
        return None;
    }
    let name = slice.metadata.label(SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(slice.metadata.namespace.clone(), name))
}

fn should_mirror(endpoints: &Endpoints) -> bool {
    endpoints.metadata.label(SKIP) != Some("true") && endpoints.metadata.annotation(ELECTION_RECORD).is_none()
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let services = context.informers.of::<Service>(&SERVICES);
    let endpoints = context.informers.of::<Endpoints>(&ENDPOINTS);
    let slices = context.informers.of::<EndpointSlice>(&ENDPOINT_SLICES);
    slices.add_index(BY_SERVICE, |slice| mirrored(slice).map(|key| key.to_string()).into_iter().collect());
    let limits = Limits { base: LIMITS.0, max: LIMITS.1, ..Limits::default() };
    let queue: WorkQueue<ObjectKey> = WorkQueue::with(limits, context.clock.clone());
    let tracker = Arc::new(Tracker::new(context.clock.clone()));
    {
        let queue = queue.clone();
        services.on_event(move |event| {
            let bare = |service: &Service| service.spec.selector.is_none();
            let matters = match event {
                Event::Modified { old, new } => bare(old) != bare(new),
                event => bare(event.object()),
            };
            if matters {
                queue.add(event.object().metadata.key());
            }
        });
    }
    {
        let queue = queue.clone();
        endpoints.on_event(move |event| {
            let matters = match event {
                Event::Modified { old, new } => should_mirror(old) || should_mirror(new),
                event => should_mirror(event.object()),
            };
            if matters {
                queue.add(event.object().metadata.key());
            }
        });
    }
    {
        let (queue, tracker) = (queue.clone(), tracker.clone());
        slices.on_event(move |event| {
            if let Event::Modified { old, new } = event
                && mirrored(old) != mirrored(new)
                && let Some(before) = mirrored(old)
            {
                queue.add(before);
            }
            let Some(key) = mirrored(event.object()) else { return };
            // Our own writes need no second look; everybody else's do.
            let expected = match event {
                Event::Deleted(slice) => tracker.observe_deletion(&key, slice),
                event => tracker.is_expected(&key, event.object()),
            };
            if !expected {
                queue.add(key);
            }
        });
    }
    let controller = Arc::new(MirroringController {
        client: context.client("endpointslicemirroring-controller"),
        recorder: context.recorder("endpoint-slice-mirroring-controller"),
        services: services.store(),
        endpoints: endpoints.store(),
        slices: slices.store(),
        tracker,
        max_per_subset: context.config.mirroring_max_endpoints_per_subset,
    });
    let workers = context.config.mirroring_concurrent_service_endpoint_syncs;
    let followed = [services.synced(), endpoints.synced(), slices.synced()];
    worker::start(NAME, queue, workers, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

impl MirroringController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let existing = self.slices.by_index(BY_SERVICE, &key.to_string());
        let service = self.services.get(key).filter(|service| service.spec.selector.is_none());
        let endpoints = self.endpoints.get(key).filter(|endpoints| should_mirror(endpoints));
        let (Some(_), Some(endpoints)) = (service, endpoints) else {
            self.tracker.forget(key);
            for slice in existing {
                self.delete(&slice).await?;
            }
            return Ok(Requeue::Never);
        };
        if self.tracker.is_stale(key, &existing) {
            return Ok(Requeue::RateLimited);
        }
        let existing: Vec<EndpointSlice> =
            existing.iter().filter(|slice| !slice.metadata.is_deleting()).map(|slice| (**slice).clone()).collect();
        let plan = plan::plan(&endpoints, existing, self.max_per_subset);
        self.report(&endpoints, &plan);
        let namespace = Some(key.namespace.as_str());
        for slice in plan.create.iter().filter(|_| !endpoints.metadata.is_deleting()) {
            match self.client.create::<EndpointSlice>(&ENDPOINT_SLICES, namespace, slice).await {
                Ok(created) => self.tracker.update(key, &created),
                Err(error) if error.is_namespace_terminating() => return Ok(Requeue::Never),
                Err(error) => return Err(error.into()),
            }
        }
        for slice in &plan.update {
            let updated: EndpointSlice =
                self.client.update(&ENDPOINT_SLICES, namespace, &slice.metadata.name, slice).await?;
            self.tracker.update(key, &updated);
        }
        for slice in &plan.delete {
            self.delete(slice).await?;
            self.tracker.expect_deletion(key, slice);
        }
        Ok(Requeue::Never)
    }

    fn report(&self, endpoints: &Endpoints, plan: &plan::Plan) {
        let event = |reason: &str, note: &str| {
            self.recorder.event(&Reference::of(&ENDPOINTS, &endpoints.metadata), "Warning", reason, note);
        };
        if plan.invalid > 0 {
            let note = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", plan.invalid);
            event("InvalidIPAddress", &note);
        }
        if plan.skipped > plan.invalid {
            let note = format!(
                "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
                self.max_per_subset, plan.skipped
            );
            event("TooManyAddressesToMirror", &note);
        }
    }

    async fn delete(&self, slice: &EndpointSlice) -> Result<(), Error> {
        let (namespace, name) = (Some(slice.metadata.namespace.as_str()), &slice.metadata.name);
        match self.client.delete(&ENDPOINT_SLICES, namespace, name, &DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
