//! Keeps one pod of each DaemonSet on every node that it fits.
//!
//! Reads daemonsets, nodes, pods and controllerrevisions; creates and deletes pods and revisions;
//! writes `daemonsets/status`. Upstream: `pkg/controller/daemon`. `placement` says where pods belong,
//! `plan` what to do about it.

mod placement;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::Selector;
use client::events::{Recorder, Reference};
use client::informer::{Event, Informer, Store};
use client::resources::{CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, ObjectKey, OwnerReference};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use self::plan::{HASH, Place};
use crate::context::Context;
use crate::expectations::Expectations;
use crate::history::History;
use crate::ownership::{Claimer, controller_reference};
use crate::pod_control;
use crate::types::{ControllerRevision, DaemonSet, DaemonSetStatus, Node, Pod};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "daemonset-controller";

const BY_NAMESPACE: &str = "namespace";
/// Pods made or deleted in one reconcile.
const BURST: usize = 250;
/// The label of old under which the generation of the template was kept.
const TEMPLATE_GENERATION: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
/// Between removals of pods that end again and again on one node: from, to.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15 * 60));

struct DaemonSetController {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    sets: Store<DaemonSet>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    revisions: Store<ControllerRevision>,
    expectations: Arc<Expectations>,
    /// When a set last removed an ended pod from a node, and the wait before the next time.
    backoff: Mutex<HashMap<(String, String), (Duration, Duration)>>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let sets = context.informers.of::<DaemonSet>(&DAEMON_SETS);
    let pods = context.informers.of::<Pod>(&PODS);
    let nodes = context.informers.of::<Node>(&NODES);
    let revisions = context.informers.of::<ControllerRevision>(&CONTROLLER_REVISIONS);
    pod_control::index_by_controller(&pods);
    sets.add_index(BY_NAMESPACE, |set| vec![set.metadata.namespace.clone()]);
    revisions.add_index(BY_NAMESPACE, |revision| vec![revision.metadata.namespace.clone()]);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    let expectations = Arc::new(Expectations::new(context.clock.clone()));
    {
        let queue = queue.clone();
        let expectations = expectations.clone();
        sets.on_event(move |event| {
            if let Event::Deleted(set) = event {
                expectations.delete(&set.metadata.key());
            }
            queue.add(event.object().metadata.key());
        });
    }
    {
        let queue = queue.clone();
        let sets = sets.store();
        nodes.on_event(move |event| {
            let matters = match event {
                Event::Modified { old, new } => {
                    old.metadata.labels != new.metadata.labels || old.spec.taints != new.spec.taints
                }
                _ => true,
            };
            if matters {
                sets.keys().into_iter().for_each(|key| queue.add(key));
            }
        });
    }
    watch_pods(&pods, sets.store(), &queue, &expectations);
    let controller = Arc::new(DaemonSetController {
        client: context.client("daemon-set-controller"),
        clock: context.clock.clone(),
        recorder: context.recorder(NAME),
        sets: sets.store(),
        pods: pods.store(),
        nodes: nodes.store(),
        revisions: revisions.store(),
        expectations,
        backoff: Mutex::default(),
    });
    let workers = context.config.concurrent_daemonset_syncs;
    let followed = [sets.synced(), pods.synced(), nodes.synced(), revisions.synced()];
    worker::start(NAME, queue, workers, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

fn resolve(sets: &Store<DaemonSet>, namespace: &str, owner: &OwnerReference) -> Option<Arc<DaemonSet>> {
    if owner.kind != "DaemonSet" {
        return None;
    }
    sets.get_named(namespace, &owner.name).filter(|set| set.metadata.uid == owner.uid)
}

fn watch_pods(
    pods: &Informer<Pod>,
    sets: Store<DaemonSet>,
    queue: &WorkQueue<ObjectKey>,
    expectations: &Arc<Expectations>,
) {
    let queue = queue.clone();
    let expectations = expectations.clone();
    let owner_key = {
        let sets = sets.clone();
        move |pod: &Pod| {
            let owner = pod.metadata.controller()?;
            resolve(&sets, &pod.metadata.namespace, owner).map(|set| set.metadata.key())
        }
    };
    pods.on_event(move |event| {
        let pod = event.object();
        match event {
            Event::Added(pod) if !pod.metadata.is_deleting() => {
                if let Some(key) = owner_key(pod) {
                    expectations.creation_observed(&key);
                    queue.add(key);
                    return;
                }
            }
            Event::Modified { old, new } => {
                if old.metadata.controller() != new.metadata.controller()
                    && let Some(key) = owner_key(old)
                {
                    queue.add(key);
                }
                if let Some(key) = owner_key(new) {
                    if new.metadata.is_deleting() && !old.metadata.is_deleting() {
                        expectations.deletion_observed(&key, &new.metadata.uid);
                    }
                    queue.add(key);
                    return;
                }
                if old.metadata.labels == new.metadata.labels && old.metadata.controller() == new.metadata.controller()
                {
                    return;
                }
            }
            Event::Deleted(pod) | Event::Added(pod) => {
                if let Some(key) = owner_key(pod) {
                    expectations.deletion_observed(&key, &pod.metadata.uid);
                    queue.add(key);
                }
                return;
            }
        }
        // An orphan now: whoever selects it may adopt it.
        for set in sets.by_index(BY_NAMESPACE, &pod.metadata.namespace) {
            let selects = Selector::from_label_selector(Some(&set.spec.selector))
                .is_ok_and(|selector| !selector.is_empty() && selector.matches(&pod.metadata.labels));
            if selects && pod.metadata.controller().is_none() {
                queue.add(set.metadata.key());
            }
        }
    });
}

impl DaemonSetController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let Some(set) = self.sets.get(key) else {
            self.expectations.delete(key);
            return Ok(Requeue::Never);
        };
        let selector = match Selector::from_label_selector(Some(&set.spec.selector)) {
            Ok(selector) if selector.is_empty() => {
                let regarding = Reference::of(&DAEMON_SETS, &set.metadata);
                let note = "This daemon set is selecting all pods. A non-empty selector is required.";
                self.recorder.event(&regarding, "Warning", "SelectingAll", note);
                return Ok(Requeue::Never);
            }
            Ok(selector) => selector,
            Err(error) => {
                tracing::error!(controller = NAME, key = %key, %error, "invalid selector; it cannot be reconciled");
                return Ok(Requeue::Never);
            }
        };
        if set.metadata.is_deleting() {
            return Ok(Requeue::Never);
        }
        // Asked before anything is read: what arrives in between only delays.
        let satisfied = self.expectations.satisfied(key);
        let mut revisions = self.own_revisions(&set, &selector).await?;
        let history = History { client: &self.client, resource: &DAEMON_SETS, owner: &set.metadata, label: HASH };
        history.label_all(&mut revisions).await?;
        let collisions = set.status.collision_count.unwrap_or(0);
        let (newest, collisions) = history.settle(&mut revisions, &set.spec.template, collisions).await?;
        let hash = newest.metadata.label(HASH).unwrap_or_default().to_string();
        let pods = self.own_pods(&set, &selector).await?;
        let mut spec = set.spec.template["spec"].clone();
        placement::with_tolerations(&mut spec);
        let mut nodes = self.nodes.list();
        nodes.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let verdicts = nodes.iter().map(|node| (node.metadata.name.clone(), placement::judge(&spec, node))).collect();
        let (places, lost) = plan::places(verdicts, &pods);
        let now = self.clock.now();
        let mut wait = None;
        let mut outcome = Ok(());
        if satisfied {
            let mut work = plan::manage(&set, &places, &hash, now);
            work.delete.extend(lost);
            let (ended, later) = self.due(&set, std::mem::take(&mut work.ended));
            wait = later;
            work.delete.extend(ended);
            // Updates wait until the set is otherwise in order.
            if work.create.is_empty() && work.delete.is_empty() {
                work = plan::update(&set, &places, &hash, now);
            }
            outcome = self.act(&set, &hash, work).await;
        }
        self.write_status(&set, plan::status(&set, &places, &hash, collisions, now)).await?;
        outcome?;
        self.truncate(&history, &set, &revisions, &newest, &places).await?;
        if set.spec.min_ready_seconds > 0
            && wait.is_none()
            && places.iter().any(|place| {
                place.pods.iter().any(|pod| {
                    pod.is_ready() && !pod.is_available(Duration::from_secs(set.spec.min_ready_seconds as u64), now)
                })
            })
        {
            wait = Some(Duration::from_secs(set.spec.min_ready_seconds as u64));
        }
        Ok(wait.map_or(Requeue::Never, Requeue::After))
    }

    async fn own_revisions(&self, set: &DaemonSet, selector: &Selector) -> Result<Vec<ControllerRevision>, Error> {
        let mut claimer = Claimer::new(&self.client, &DAEMON_SETS, &set.metadata, &CONTROLLER_REVISIONS);
        let mut owned = Vec::new();
        for revision in self.revisions.by_index(BY_NAMESPACE, &set.metadata.namespace) {
            let matches = selector.matches(&revision.metadata.labels);
            if claimer.settle(&revision.metadata, matches).await? {
                owned.push((*revision).clone());
            }
        }
        owned.sort_by(|a, b| (a.revision, &a.metadata.name).cmp(&(b.revision, &b.metadata.name)));
        Ok(owned)
    }

    async fn own_pods(&self, set: &DaemonSet, selector: &Selector) -> Result<Vec<Arc<Pod>>, Error> {
        let mut claimer = Claimer::new(&self.client, &DAEMON_SETS, &set.metadata, &PODS);
        let mut owned = Vec::new();
        for pod in pod_control::owned_and_orphans(&self.pods, &set.metadata) {
            if claimer.settle(&pod.metadata, selector.matches(&pod.metadata.labels)).await? {
                owned.push(pod);
            }
        }
        Ok(owned)
    }

    /// Which ended pods may be removed now, and how long until the next may.
    fn due(&self, set: &DaemonSet, ended: Vec<(String, Arc<Pod>)>) -> (Vec<Arc<Pod>>, Option<Duration>) {
        let now = self.clock.monotonic();
        let mut backoff = self.backoff.lock();
        backoff.retain(|_, (at, _)| now.saturating_sub(*at) < BACKOFF.1 * 2);
        let (mut pods, mut wait) = (Vec::new(), None);
        let regarding = Reference::of(&DAEMON_SETS, &set.metadata);
        for (node, pod) in ended {
            let id = (set.metadata.uid.clone(), node.clone());
            let left = backoff.get(&id).map_or(Duration::ZERO, |(at, delay)| (*at + *delay).saturating_sub(now));
            if !left.is_zero() {
                wait = Some(wait.map_or(left, |known: Duration| known.min(left)));
                continue;
            }
            let delay = backoff.get(&id).map_or(BACKOFF.0, |(_, delay)| (*delay * 2).min(BACKOFF.1));
            backoff.insert(id, (now, delay));
            let failed = pod.status.phase == "Failed";
            let (kind, reason, what) = if failed {
                ("Warning", "FailedDaemonPod", "failed")
            } else {
                ("Normal", "SucceededDaemonPod", "succeeded")
            };
            let verb = if failed { "kill" } else { "delete" };
            let note = format!("Found {what} daemon pod {} on node {node}, will try to {verb} it", pod.metadata.key());
            self.recorder.event(&regarding, kind, reason, &note);
            pods.push(pod);
        }
        (pods, wait)
    }

    async fn act(&self, set: &DaemonSet, hash: &str, mut work: plan::Plan) -> Result<(), Error> {
        work.create.truncate(BURST);
        work.delete.truncate(BURST);
        let key = set.metadata.key();
        if work.create.is_empty() && work.delete.is_empty() {
            return Ok(());
        }
        self.expectations.expect(&key, work.create.len(), work.delete.iter().map(|pod| pod.metadata.uid.clone()));
        let created = self.create(set, hash, &work.create).await;
        let deleted = self.delete(set, &work.delete).await;
        created.and(deleted)
    }

    async fn create(&self, set: &DaemonSet, hash: &str, nodes: &[String]) -> Result<(), Error> {
        let key = set.metadata.key();
        let regarding = Reference::of(&DAEMON_SETS, &set.metadata);
        let template = pod_template(set, hash);
        let owner = controller_reference(&DAEMON_SETS, &set.metadata);
        let mut rest = nodes.iter();
        let mut made = 0;
        let mut failure = None;
        for batch in pod_control::slow_start(nodes.len()) {
            let mut requests = tokio::task::JoinSet::new();
            for node in rest.by_ref().take(batch) {
                let mut pod =
                    pod_control::from_template(&template, &pod_control::name_prefix(&set.metadata.name), &owner);
                placement::tie_to_node(&mut pod["spec"], node);
                let (client, namespace) = (self.client.clone(), key.namespace.clone());
                requests.spawn(async move {
                    client.create::<crate::types::MetadataOnly>(&PODS, Some(&namespace), &pod).await
                });
            }
            while let Some(joined) = requests.join_next().await {
                match joined {
                    Ok(Ok(pod)) => {
                        made += 1;
                        self.recorder.event(
                            &regarding,
                            "Normal",
                            "SuccessfulCreate",
                            &format!("Created pod: {}", pod.metadata.name),
                        );
                    }
                    Ok(Err(error)) if error.is_namespace_terminating() => failure = failure.or(Some(None)),
                    Ok(Err(error)) => {
                        self.recorder.event(&regarding, "Warning", "FailedCreate", &format!("Error creating: {error}"));
                        failure = Some(Some(Error::Api(error)));
                    }
                    Err(panicked) => failure = Some(Some(Error::Other(panicked.to_string()))),
                }
            }
            if failure.is_some() {
                break;
            }
        }
        self.expectations.creations_observed(&key, nodes.len() - made);
        failure.flatten().map_or(Ok(()), Err)
    }

    async fn delete(&self, set: &DaemonSet, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let key = set.metadata.key();
        let regarding = Reference::of(&DAEMON_SETS, &set.metadata);
        let mut failure = None;
        for pod in pods {
            let meta = &pod.metadata;
            match self.client.delete(&PODS, Some(&meta.namespace), &meta.name, &DeleteOptions::uid(&meta.uid)).await {
                Ok(()) => self.recorder.event(
                    &regarding,
                    "Normal",
                    "SuccessfulDelete",
                    &format!("Deleted pod: {}", meta.name),
                ),
                Err(error) => {
                    self.expectations.deletion_observed(&key, &meta.uid);
                    if !error.is_not_found() && !error.is_conflict() {
                        self.recorder.event(&regarding, "Warning", "FailedDelete", &format!("Error deleting: {error}"));
                        failure = Some(Error::Api(error));
                    }
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn truncate(
        &self,
        history: &History<'_>,
        set: &DaemonSet,
        revisions: &[ControllerRevision],
        newest: &ControllerRevision,
        places: &[Place],
    ) -> Result<(), Error> {
        let Some(limit) = set.spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()) else {
            return Ok(());
        };
        let hashes: Vec<&str> =
            places.iter().flat_map(|place| &place.pods).filter_map(|pod| pod.metadata.label(HASH)).collect();
        let live: Vec<&str> = revisions
            .iter()
            .filter(|revision| {
                revision.metadata.uid == newest.metadata.uid
                    || revision.metadata.label(HASH).is_some_and(|hash| hashes.contains(&hash))
            })
            .map(|revision| revision.metadata.name.as_str())
            .collect();
        history.truncate(revisions, &live, limit).await
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), Error> {
        if status == set.status {
            return Ok(());
        }
        let mut desired = set.clone().typed();
        desired.status = status;
        let meta = &set.metadata;
        let result: client::Result<IgnoredAny> =
            self.client.update_status(&DAEMON_SETS, Some(&meta.namespace), &meta.name, &desired).await;
        match result {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}

/// The template with the daemons' tolerations and the labels of its revision.
fn pod_template(set: &DaemonSet, hash: &str) -> Value {
    let mut template = set.spec.template.clone();
    placement::with_tolerations(&mut template["spec"]);
    template["metadata"]["labels"][HASH] = json!(hash);
    if let Some(generation) = set.metadata.annotation(GENERATION_ANNOTATION) {
        template["metadata"]["labels"][TEMPLATE_GENERATION] = json!(generation);
    }
    template
}
