//! Rolls Deployments from one ReplicaSet to the next.
//!
//! Reads deployments, replicasets and pods; creates, scales, adopts and deletes replicasets; writes
//! `deployments/status` and the revision annotations. Upstream: `pkg/controller/deployment`.
//! One file per concern: `sync` (revisions, scaling, clean-up, status), `rolling`, `recreate`,
//! `rollback`, `progress`; `replica_sets` holds the pure helpers.

mod progress;
mod recreate;
mod replica_sets;
mod rollback;
mod rolling;
mod sync;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::Selector;
use client::events::Recorder;
use client::informer::{Event, Store};
use client::resources::{DEPLOYMENTS, PODS, REPLICA_SETS};
use client::workqueue::WorkQueue;
use client::{Client, ObjectKey};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use serde_json::json;

use crate::context::Context;
use crate::ownership::Claimer;
use crate::pod_control;
use crate::types::{Deployment, Pod, ReplicaSet};
use crate::worker::{self, Error, Requeue};

pub(crate) use replica_sets::equal_ignoring_hash;

pub const NAME: &str = "deployment-controller";

const BY_NAMESPACE: &str = "namespace";

pub(crate) struct DeploymentController {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    deployments: Store<Deployment>,
    sets: Store<ReplicaSet>,
    pods: Store<Pod>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let deployments = context.informers.of::<Deployment>(&DEPLOYMENTS);
    let sets = context.informers.of::<ReplicaSet>(&REPLICA_SETS);
    let pods = context.informers.of::<Pod>(&PODS);
    pod_control::index_by_controller(&pods);
    deployments.add_index(BY_NAMESPACE, |deployment| vec![deployment.metadata.namespace.clone()]);
    sets.add_index(BY_NAMESPACE, |set| vec![set.metadata.namespace.clone()]);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        deployments.on_event(move |event| queue.add(event.object().metadata.key()));
    }
    {
        let queue = queue.clone();
        let deployments = deployments.store();
        sets.on_event(move |event| on_replica_set(event, &deployments, &queue));
    }
    {
        let queue = queue.clone();
        let deployments = deployments.store();
        let set_store = sets.store();
        let pod_store = pods.store();
        pods.on_event(move |event| {
            // Only a Recreate deployment waits for pods to go.
            let Event::Deleted(pod) = event else { return };
            let Some(owner) = pod.metadata.controller().filter(|owner| owner.kind == "ReplicaSet") else { return };
            let Some(set) = set_store.get_named(&pod.metadata.namespace, &owner.name) else { return };
            let Some(deployment) = owner_of(&set, &deployments) else { return };
            if deployment.spec.strategy.kind == "Recreate"
                && pod_store.by_index(pod_control::BY_CONTROLLER, &owner.uid).is_empty()
            {
                queue.add(deployment.metadata.key());
            }
        });
    }
    let controller = Arc::new(DeploymentController {
        client: context.client(NAME),
        clock: context.clock.clone(),
        recorder: context.recorder(NAME),
        deployments: deployments.store(),
        sets: sets.store(),
        pods: pods.store(),
    });
    let workers = context.config.concurrent_deployment_syncs;
    let followed = [deployments.synced(), sets.synced(), pods.synced()];
    worker::start(NAME, queue, workers, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

fn owner_of(set: &ReplicaSet, deployments: &Store<Deployment>) -> Option<Arc<Deployment>> {
    let owner = set.metadata.controller().filter(|owner| owner.kind == "Deployment")?;
    deployments
        .get_named(&set.metadata.namespace, &owner.name)
        .filter(|deployment| deployment.metadata.uid == owner.uid)
}

fn on_replica_set(event: &Event<ReplicaSet>, deployments: &Store<Deployment>, queue: &WorkQueue<ObjectKey>) {
    let enqueue_owner = |set: &ReplicaSet| {
        if let Some(deployment) = owner_of(set, deployments) {
            queue.add(deployment.metadata.key());
        }
    };
    let enqueue_candidates = |set: &ReplicaSet| {
        for deployment in deployments.by_index(BY_NAMESPACE, &set.metadata.namespace) {
            let selects = Selector::from_label_selector(Some(&deployment.spec.selector))
                .is_ok_and(|selector| !selector.is_empty() && selector.matches(&set.metadata.labels));
            if selects {
                queue.add(deployment.metadata.key());
            }
        }
    };
    match event {
        Event::Added(set) | Event::Deleted(set) if set.metadata.controller().is_some() => enqueue_owner(set),
        Event::Added(set) if !set.metadata.is_deleting() => enqueue_candidates(set),
        Event::Added(_) | Event::Deleted(_) => {}
        Event::Modified { old, new } => {
            let changed_hands = old.metadata.controller() != new.metadata.controller();
            if changed_hands {
                enqueue_owner(old);
            }
            if new.metadata.controller().is_some() {
                enqueue_owner(new);
            } else if changed_hands || old.metadata.labels != new.metadata.labels {
                enqueue_candidates(new);
            }
        }
    }
}

impl DeploymentController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let Some(deployment) = self.deployments.get(key) else {
            return Ok(Requeue::Never);
        };
        let mut deployment = (*deployment).clone().typed();
        if deployment.spec.selector == json!({}) {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&deployment.reference(), "Warning", "SelectingAll", text);
            if deployment.status.observed_generation < deployment.metadata.generation {
                deployment.status.observed_generation = deployment.metadata.generation;
                self.write_status(&mut deployment).await?;
            }
            return Ok(Requeue::Never);
        }
        let selector = match Selector::from_label_selector(Some(&deployment.spec.selector)) {
            Ok(selector) => selector,
            Err(error) => {
                tracing::error!(controller = NAME, key = %key, %error, "invalid selector; it cannot be reconciled");
                return Ok(Requeue::Never);
            }
        };
        let mut sets = self.claim(&deployment, &selector).await?;
        replica_sets::sort_by_creation(&mut sets);
        if deployment.metadata.is_deleting() {
            return self.sync_status_only(&mut deployment, &sets).await;
        }
        self.check_paused_conditions(&mut deployment).await?;
        if deployment.spec.paused {
            return self.sync(&mut deployment, sets).await;
        }
        if rollback::rollback_to(&deployment).is_some() {
            return self.rollback(&mut deployment, sets).await;
        }
        if self.is_scaling_event(&mut deployment, &mut sets).await? {
            return self.sync(&mut deployment, sets).await;
        }
        match deployment.spec.strategy.kind.as_str() {
            "Recreate" => self.rollout_recreate(&mut deployment, sets).await,
            "RollingUpdate" => self.rollout_rolling(&mut deployment, sets).await,
            other => Err(Error::Other(format!("unexpected deployment strategy type: {other}"))),
        }
    }

    /// The deployment's sets after adoption and release.
    async fn claim(&self, deployment: &Deployment, selector: &Selector) -> Result<Vec<ReplicaSet>, Error> {
        let mut claimer = Claimer::new(&self.client, &DEPLOYMENTS, &deployment.metadata, &REPLICA_SETS);
        let mut claimed = Vec::new();
        for set in self.sets.by_index(BY_NAMESPACE, &deployment.metadata.namespace) {
            if claimer.settle(&set.metadata, selector.matches(&set.metadata.labels)).await? {
                claimed.push((*set).clone().typed());
            }
        }
        Ok(claimed)
    }

    /// Writes the status and keeps the new resource version, so that a second write in the same
    /// reconcile does not conflict with the first.
    async fn write_status(&self, deployment: &mut Deployment) -> Result<(), Error> {
        let meta = &deployment.metadata;
        let updated: Deployment =
            self.client.update_status(&DEPLOYMENTS, Some(&meta.namespace), &meta.name, deployment).await?;
        deployment.metadata.resource_version = updated.metadata.resource_version;
        Ok(())
    }
}

/// How long until a deployment must be looked at again for its deadline.
fn requeue_after(wait: Option<Duration>) -> Requeue {
    match wait {
        None => Requeue::Never,
        Some(wait) if wait < Duration::from_secs(1) => Requeue::RateLimited,
        // A second more, so that the look happens after the deadline and not a hair before it.
        Some(wait) => Requeue::After(wait + Duration::from_secs(1)),
    }
}
