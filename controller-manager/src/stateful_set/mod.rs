//! Keeps the pods of each StatefulSet: each with a name, a host name and claims of its own.
//!
//! Reads statefulsets, pods, controllerrevisions and persistentvolumeclaims; creates and deletes
//! pods, claims and revisions; writes `statefulsets/status`. Upstream:
//! `pkg/controller/statefulset`. `plan` decides, `claims` knows the volumes.

mod claims;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::labels::Selector;
use client::events::{Recorder, Reference};
use client::informer::{Event, Informer, Store};
use client::resources::{CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, ObjectKey, OwnerReference, Patch};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use self::plan::{POD_INDEX, POD_NAME, REVISION, Revisions, Step};
use crate::context::Context;
use crate::history::{self, History};
use crate::ownership::{Claimer, controller_reference};
use crate::pod_control;
use crate::types::{ControllerRevision, MetadataOnly, Pod, StatefulSet, StatefulSetStatus};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "statefulset-controller";

const BY_NAMESPACE: &str = "namespace";
/// Where revisions have their hash; pods have the revision's name, under another label.
const HASH: &str = "controller.kubernetes.io/hash";

struct StatefulSetController {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    sets: Store<StatefulSet>,
    pods: Store<Pod>,
    revisions: Store<ControllerRevision>,
    claims: Store<MetadataOnly>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let sets = context.informers.of::<StatefulSet>(&STATEFUL_SETS);
    let pods = context.informers.of::<Pod>(&PODS);
    let revisions = context.informers.of::<ControllerRevision>(&CONTROLLER_REVISIONS);
    let claims = context
        .informers
        .informer::<MetadataOnly>(&PERSISTENT_VOLUME_CLAIMS, client::informer::InformerParams::metadata_only());
    pod_control::index_by_controller(&pods);
    sets.add_index(BY_NAMESPACE, |set| vec![set.metadata.namespace.clone()]);
    revisions.add_index(BY_NAMESPACE, |revision| vec![revision.metadata.namespace.clone()]);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        sets.on_event(move |event| queue.add(event.object().metadata.key()));
    }
    watch_pods(&pods, sets.store(), &queue);
    let controller = Arc::new(StatefulSetController {
        client: context.client(NAME),
        clock: context.clock.clone(),
        recorder: context.recorder(NAME),
        sets: sets.store(),
        pods: pods.store(),
        revisions: revisions.store(),
        claims: claims.store(),
    });
    let workers = context.config.concurrent_statefulset_syncs;
    let followed = [sets.synced(), pods.synced(), revisions.synced(), claims.synced()];
    worker::start(NAME, queue, workers, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

fn resolve(sets: &Store<StatefulSet>, namespace: &str, owner: &OwnerReference) -> Option<Arc<StatefulSet>> {
    if owner.kind != "StatefulSet" {
        return None;
    }
    sets.get_named(namespace, &owner.name).filter(|set| set.metadata.uid == owner.uid)
}

fn watch_pods(pods: &Informer<Pod>, sets: Store<StatefulSet>, queue: &WorkQueue<ObjectKey>) {
    let queue = queue.clone();
    let enqueue = move |pod: &Pod, orphan: bool| match pod.metadata.controller() {
        Some(owner) => {
            if let Some(set) = resolve(&sets, &pod.metadata.namespace, owner) {
                queue.add(set.metadata.key());
            }
        }
        None if orphan => {
            // Only the set the pod's name belongs to could adopt it.
            if let Some((parent, _)) = plan::parent_and_ordinal(&pod.metadata.name)
                && let Some(set) = sets.get_named(&pod.metadata.namespace, parent)
            {
                queue.add(set.metadata.key());
            }
        }
        None => {}
    };
    pods.on_event(move |event| match event {
        Event::Added(pod) => enqueue(pod, true),
        Event::Deleted(pod) => enqueue(pod, false),
        Event::Modified { old, new } => {
            let changed_hands = old.metadata.controller() != new.metadata.controller();
            if changed_hands {
                enqueue(old, false);
            }
            enqueue(new, changed_hands || old.metadata.labels != new.metadata.labels);
        }
    });
}

impl StatefulSetController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let Some(set) = self.sets.get(key) else { return Ok(Requeue::Never) };
        let selector = match Selector::from_label_selector(Some(&set.spec.selector)) {
            Ok(selector) => selector,
            Err(error) => {
                tracing::error!(controller = NAME, key = %key, %error, "invalid selector; it cannot be reconciled");
                return Ok(Requeue::Never);
            }
        };
        let mut revisions = self.own_revisions(&set, &selector).await?;
        let pods = self.own_pods(&set, &selector).await?;
        let history = History { client: &self.client, resource: &STATEFUL_SETS, owner: &set.metadata, label: HASH };
        let collisions = set.status.collision_count.unwrap_or(0);
        let (update, collisions) = history.settle(&mut revisions, &set.spec.template, collisions).await?;
        let current = revisions
            .iter()
            .find(|revision| revision.metadata.name == set.status.current_revision)
            .unwrap_or(&update)
            .clone();
        let names = Revisions { current: &current.metadata.name, update: &update.metadata.name };
        let now = self.clock.now();
        let steps = plan::plan(&set, &pods, names, now);
        let mut outcome = Ok(());
        for step in steps {
            outcome = self.act(&set, &current, &update, step).await;
            if outcome.is_err() {
                break;
            }
        }
        self.write_status(&set, plan::status(&set, &pods, names, collisions, now)).await?;
        outcome?;
        let mut live = vec![names.current, names.update];
        live.extend(pods.iter().map(|pod| plan::revision(pod)));
        if let Some(limit) = set.spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()) {
            history.truncate(&revisions, &live, limit).await?;
        }
        Ok(plan::next_availability(&set, &pods, now).map_or(Requeue::Never, Requeue::After))
    }

    /// The set's revisions by number, orphans adopted.
    async fn own_revisions(&self, set: &StatefulSet, selector: &Selector) -> Result<Vec<ControllerRevision>, Error> {
        let mut claimer = Claimer::new(&self.client, &STATEFUL_SETS, &set.metadata, &CONTROLLER_REVISIONS);
        let mut owned = Vec::new();
        for revision in self.revisions.by_index(BY_NAMESPACE, &set.metadata.namespace) {
            let ours = match revision.metadata.controller() {
                Some(owner) => owner.uid == set.metadata.uid,
                None => selector.matches(&revision.metadata.labels) && claimer.settle(&revision.metadata, true).await?,
            };
            if ours {
                owned.push((*revision).clone());
            }
        }
        owned.sort_by(|a, b| (a.revision, &a.metadata.name).cmp(&(b.revision, &b.metadata.name)));
        Ok(owned)
    }

    /// The set's pods after adoption and release, by ordinal.
    async fn own_pods(&self, set: &StatefulSet, selector: &Selector) -> Result<Vec<Arc<Pod>>, Error> {
        let mut claimer = Claimer::new(&self.client, &STATEFUL_SETS, &set.metadata, &PODS);
        let mut owned = Vec::new();
        for pod in pod_control::owned_and_orphans(&self.pods, &set.metadata) {
            let is_member =
                plan::parent_and_ordinal(&pod.metadata.name).is_some_and(|(parent, _)| parent == set.metadata.name);
            if is_member && claimer.settle(&pod.metadata, selector.matches(&pod.metadata.labels)).await? {
                owned.push(pod);
            }
        }
        owned.sort_by_key(|pod| plan::ordinal(pod));
        Ok(owned)
    }

    async fn act(
        &self,
        set: &StatefulSet,
        current: &ControllerRevision,
        update: &ControllerRevision,
        step: Step,
    ) -> Result<(), Error> {
        match step {
            Step::Create { ordinal, at_current } => {
                let revision = if at_current { current } else { update };
                self.create_claims(set, ordinal).await?;
                let pod = new_pod(set, revision, ordinal);
                let result: client::Result<IgnoredAny> =
                    self.client.create(&PODS, Some(&set.metadata.namespace), &pod).await;
                match result {
                    Err(error) if error.is_already_exists() => Ok(()),
                    result => self.report(set, "create", &set.pod_name(ordinal), result),
                }
            }
            Step::Claims(pod) => self.create_claims(set, plan::ordinal(&pod)).await,
            Step::Identity(pod) => {
                let patch = Patch::Merge(json!({ "metadata": {
                    "uid": pod.metadata.uid,
                    "labels": { POD_NAME: pod.metadata.name, POD_INDEX: plan::ordinal(&pod).to_string() },
                } }));
                let result: client::Result<IgnoredAny> =
                    self.client.patch(&PODS, Some(&pod.metadata.namespace), &pod.metadata.name, None, &patch).await;
                self.report(set, "update", &pod.metadata.name, result)
            }
            Step::Retention(pod) => self.keep_claim_owners(set, &pod).await,
            Step::Delete(pod) => {
                let meta = &pod.metadata;
                let result =
                    self.client.delete(&PODS, Some(&meta.namespace), &meta.name, &DeleteOptions::uid(&meta.uid)).await;
                match result {
                    Err(error) if error.is_not_found() => Ok(()),
                    result => self.report(set, "delete", &meta.name, result),
                }
            }
        }
    }

    fn report<T>(&self, set: &StatefulSet, verb: &str, pod: &str, result: client::Result<T>) -> Result<(), Error> {
        let regarding = Reference::of(&STATEFUL_SETS, &set.metadata);
        let name = &set.metadata.name;
        let title = format!("{}{}", verb[..1].to_uppercase(), &verb[1..]);
        match result {
            Ok(_) => {
                let note = format!("{verb} Pod {pod} in StatefulSet {name} successful");
                self.recorder.event(&regarding, "Normal", &format!("Successful{title}"), &note);
                Ok(())
            }
            Err(error) => {
                let note = format!("{verb} Pod {pod} in StatefulSet {name} failed error: {error}");
                self.recorder.event(&regarding, "Warning", &format!("Failed{title}"), &note);
                Err(error.into())
            }
        }
    }

    /// Creates the claims of an ordinal that do not exist.
    async fn create_claims(&self, set: &StatefulSet, ordinal: i64) -> Result<(), Error> {
        let namespace = set.metadata.namespace.as_str();
        for template in &set.spec.volume_claim_templates {
            let name = claims::claim_name(template, set, ordinal);
            if let Some(known) = self.claims.get_named(namespace, &name) {
                if known.metadata.is_deleting() {
                    return Err(Error::Other(format!("pvc {name} is being deleted")));
                }
                continue;
            }
            let claim = claims::claim(template, set, ordinal);
            let result: client::Result<IgnoredAny> =
                self.client.create(&PERSISTENT_VOLUME_CLAIMS, Some(namespace), &claim).await;
            let pod = set.pod_name(ordinal);
            let regarding = Reference::of(&STATEFUL_SETS, &set.metadata);
            match result {
                Ok(_) => {
                    let note = format!("create Claim {name} Pod {pod} in StatefulSet {} success", set.metadata.name);
                    self.recorder.event(&regarding, "Normal", "SuccessfulCreate", &note);
                }
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    let note = format!(
                        "create Claim {name} for Pod {pod} in StatefulSet {} failed error: {error}",
                        set.metadata.name
                    );
                    self.recorder.event(&regarding, "Warning", "FailedCreate", &note);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    async fn keep_claim_owners(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        for template in &set.spec.volume_claim_templates {
            let name = claims::claim_name(template, set, plan::ordinal(pod));
            let Some(claim) = self.claims.get_named(&set.metadata.namespace, &name) else { continue };
            let Some(owners) = claims::owners(&claim.metadata, set, pod) else { continue };
            // A whole update: the controller's role allows no patch of claims.
            let namespace = Some(set.metadata.namespace.as_str());
            let mut current: Value = self.client.get(&PERSISTENT_VOLUME_CLAIMS, namespace, &name).await?;
            if current["metadata"]["uid"] != claim.metadata.uid {
                continue;
            }
            current["metadata"]["resourceVersion"] = json!(claim.metadata.resource_version);
            current["metadata"]["ownerReferences"] = json!(owners);
            self.client.update::<IgnoredAny>(&PERSISTENT_VOLUME_CLAIMS, namespace, &name, &current).await?;
        }
        Ok(())
    }

    async fn write_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), Error> {
        if status == set.status {
            return Ok(());
        }
        let mut desired = set.clone().typed();
        desired.status = status;
        let meta = &set.metadata;
        let result: client::Result<IgnoredAny> =
            self.client.update_status(&STATEFUL_SETS, Some(&meta.namespace), &meta.name, &desired).await;
        match result {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }
}

/// The pod of one ordinal at one revision.
fn new_pod(set: &StatefulSet, revision: &ControllerRevision, ordinal: i64) -> Value {
    let owner = controller_reference(&STATEFUL_SETS, &set.metadata);
    let mut pod = pod_control::from_template(&history::template(revision), "", &owner);
    let name = set.pod_name(ordinal);
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("generateName");
    }
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(set.metadata.namespace);
    pod["metadata"]["labels"][POD_NAME] = json!(name);
    pod["metadata"]["labels"][POD_INDEX] = json!(ordinal.to_string());
    pod["metadata"]["labels"][REVISION] = json!(revision.metadata.name);
    pod["spec"]["hostname"] = json!(name);
    if !set.spec.service_name.is_empty() {
        pod["spec"]["subdomain"] = json!(set.spec.service_name);
    }
    claims::mount(&mut pod, set, ordinal);
    pod
}
