//! Says of each PodDisruptionBudget how many of its pods may go.
//!
//! Reads budgets, pods and the pods' controllers; writes `poddisruptionbudgets/status`, which evictions go by, and
//! takes back the `DisruptionTarget` condition of pods that did not end. `plan` decides, `scale` knows how many
//! pods there should be. Upstream: `pkg/controller/disruption`.

mod plan;
mod scale;

use std::sync::Arc;

use apimachinery::labels::Selector;
use client::events::{Recorder, Reference};
use client::informer::{Event, Informer, Store};
use client::resources::{
    DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS,
};
use client::workqueue::WorkQueue;
use client::{Client, ObjectKey, Patch};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;

use self::scale::{Expected, Scales};
use crate::context::{Context, synced};
use crate::types::{
    Deployment, Pod, PodDisruptionBudget, PodDisruptionBudgetStatus, ReplicaSet, StatefulSet, whole_seconds,
};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "disruption-controller";

const BY_NAMESPACE: &str = "namespace";

struct DisruptionController {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    budgets: Store<PodDisruptionBudget>,
    pods: Store<Pod>,
    scales: Scales,
}

/// The selector of a budget. None matches no pod, an empty one matches all.
fn selector(budget: &PodDisruptionBudget) -> Result<Selector, Error> {
    if budget.spec.selector.is_null() {
        return Ok(Selector::nothing());
    }
    Selector::from_label_selector(Some(&budget.spec.selector)).map_err(|error| Error::Other(error.to_string()))
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let budgets = context.informers.of::<PodDisruptionBudget>(&POD_DISRUPTION_BUDGETS);
    let pods = context.informers.of::<Pod>(&PODS);
    let replica_sets = context.informers.of::<ReplicaSet>(&REPLICA_SETS);
    let replication_controllers = context.informers.of::<ReplicaSet>(&REPLICATION_CONTROLLERS);
    let deployments = context.informers.of::<Deployment>(&DEPLOYMENTS);
    let stateful_sets = context.informers.of::<StatefulSet>(&STATEFUL_SETS);
    budgets.add_index(BY_NAMESPACE, |budget| vec![budget.metadata.namespace.clone()]);
    pods.add_index(BY_NAMESPACE, |pod| vec![pod.metadata.namespace.clone()]);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    let targets: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        budgets.on_event(move |event| queue.add(event.object().metadata.key()));
    }
    let recorder = context.recorder("controllermanager");
    watch_pods(&pods, budgets.store(), &queue, &targets, recorder.clone(), context.clock.clone());
    let client = context.client(NAME);
    let controller = Arc::new(DisruptionController {
        scales: Scales {
            client: client.clone(),
            clock: context.clock.clone(),
            replica_sets: replica_sets.store(),
            replication_controllers: replication_controllers.store(),
            deployments: deployments.store(),
            stateful_sets: stateful_sets.store(),
            discovered: Mutex::default(),
        },
        client,
        clock: context.clock.clone(),
        recorder,
        budgets: budgets.store(),
        pods: pods.store(),
    });
    let shutdown = context.shutdown.clone();
    Box::pin(async move {
        let informers = async {
            budgets.wait_synced().await;
            pods.wait_synced().await;
            replica_sets.wait_synced().await;
            replication_controllers.wait_synced().await;
            deployments.wait_synced().await;
            stateful_sets.wait_synced().await;
        };
        if !synced(&shutdown, informers).await {
            return;
        }
        let cleaner = controller.clone();
        let clean = worker::run(NAME, targets, 1, shutdown.clone(), move |key| {
            let controller = cleaner.clone();
            async move { controller.clear_target(&key).await }
        });
        let reconcile = worker::run(NAME, queue, 1, shutdown, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        });
        futures::join!(reconcile, clean);
    })
}

fn watch_pods(
    pods: &Informer<Pod>,
    budgets: Store<PodDisruptionBudget>,
    queue: &WorkQueue<ObjectKey>,
    targets: &WorkQueue<ObjectKey>,
    recorder: Recorder,
    clock: SharedClock,
) {
    let (queue, targets) = (queue.clone(), targets.clone());
    pods.on_event(move |event| {
        let pod = event.object();
        let mut covered = budgets.by_index(BY_NAMESPACE, &pod.metadata.namespace);
        covered.retain(|budget| selector(budget).is_ok_and(|selector| selector.matches(&pod.metadata.labels)));
        if let [first, _, ..] = covered.as_slice() {
            let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
            let note = format!(
                "Pod {namespace:?}/{name:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
                first.metadata.name
            );
            recorder.event(&Reference::of(&PODS, &pod.metadata), "Warning", "MultiplePodDisruptionBudgets", &note);
        }
        for budget in covered {
            queue.add(budget.metadata.key());
        }
        if !matches!(event, Event::Deleted(_))
            && let Some(wait) = plan::stale_target(pod, clock.now())
        {
            targets.add_after(pod.metadata.key(), wait);
        }
    });
}

impl DisruptionController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let Some(budget) = self.budgets.get(key) else { return Ok(Requeue::Never) };
        match self.sync(&budget).await {
            Err(error) if error.api().is_none_or(|error| !error.is_conflict()) => {
                // Nobody knows how many may go, so none may.
                tracing::error!(controller = NAME, key = %key, error = error.to_string(), "Failed to sync PDB");
                let status = plan::failed(&budget, &error.to_string(), self.clock.now());
                self.write_status(&budget, status).await?;
                Ok(Requeue::Never)
            }
            other => other,
        }
    }

    async fn sync(&self, budget: &PodDisruptionBudget) -> worker::Result {
        let event = |kind: &str, reason: &str, note: &str| self.recorder.event(&budget.reference(), kind, reason, note);
        let selector = selector(budget).inspect_err(|error| {
            event("Warning", "NoPods", &format!("Failed to get pods: {error}"));
        })?;
        let mut pods = self.pods.by_index(BY_NAMESPACE, &budget.metadata.namespace);
        pods.retain(|pod| selector.matches(&pod.metadata.labels));
        if pods.is_empty() {
            event("Normal", "NoPods", "No matching pods found");
        }
        let wanted = self.wanted(budget, &pods).await.inspect_err(|error| {
            let note = format!("Failed to calculate the number of expected pods: {error}");
            event("Warning", "CalculateExpectedPodCountFailed", &note);
        })?;
        let now = self.clock.now();
        let disrupted = plan::disrupted(&budget.status.disrupted_pods, &pods, now);
        for pod in &disrupted.overdue {
            let note = format!("Pod was expected by PDB {} to be deleted but it wasn't", budget.metadata.key());
            self.recorder.event(&Reference::of(&PODS, pod), "Warning", "NotDeleted", &note);
        }
        let healthy = plan::healthy(&pods, &disrupted.pods);
        let status = plan::status(budget, wanted, healthy, disrupted.pods, now);
        self.write_status(budget, status).await?;
        Ok(disrupted.recheck.map_or(Requeue::Never, Requeue::After))
    }

    /// How many pods there should be, and how many of them healthy.
    async fn wanted(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<(i64, i64), Error> {
        let scale = match plan::needs_scale(&budget.spec) {
            true => self.scales.expected(pods).await?,
            false => Expected::default(),
        };
        if !scale.unmanaged.is_empty() {
            let selector = selector(budget)?;
            let note = format!(
                "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
            );
            self.recorder.event(&budget.reference(), "Warning", "UnmanagedPods", &note);
        }
        plan::wanted(&budget.spec, pods.len() as i64, scale.count).map_err(Error::Other)
    }

    async fn write_status(&self, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<(), Error> {
        if status == budget.status {
            return Ok(());
        }
        let key = budget.metadata.key();
        let desired = PodDisruptionBudget { status, ..budget.clone() }.typed();
        self.client.update_status::<IgnoredAny>(&POD_DISRUPTION_BUDGETS, key.ns(), &key.name, &desired).await?;
        Ok(())
    }

    /// Takes back that a pod is about to end, when it did not.
    async fn clear_target(&self, key: &ObjectKey) -> worker::Result {
        let Some(pod) = self.pods.get(key) else { return Ok(Requeue::Never) };
        let now = self.clock.now();
        match plan::stale_target(&pod, now) {
            None => return Ok(Requeue::Never),
            Some(wait) if !wait.is_zero() => return Ok(Requeue::After(wait)),
            Some(_) => {}
        }
        let patch = json!({
            "metadata": { "uid": pod.metadata.uid },
            "status": { "conditions": [{
                "type": "DisruptionTarget",
                "status": "False",
                "lastTransitionTime": whole_seconds(now),
                "reason": null,
                "message": null,
            }] },
        });
        let result: client::Result<IgnoredAny> =
            self.client.patch(&PODS, key.ns(), &key.name, Some("status"), &Patch::Strategic(patch)).await;
        match result {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Requeue::Never),
        }
    }
}
