//! Keeps as many pods alive as each ReplicaSet, or ReplicationController, asks for.
//!
//! The two differ in their group and in how a selector is written, which [`Variant`] holds; all else
//! is one code, as upstream's. Reads replicasets and pods; creates, deletes, adopts and releases pods; writes
//! `replicasets/status`. Upstream: `pkg/controller/replicaset`.

mod status;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::{ParseError, Selector};
use bytes::Bytes;
use client::events::{Recorder, Reference};
use client::informer::{Event, Informer, Store};
use client::resources::{PODS, REPLICA_SETS, REPLICATION_CONTROLLERS};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, ObjectKey, ObjectMeta, OwnerReference, Resource, Timestamp};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use http::Method;
use serde_json::Value;

use crate::context::Context;
use crate::expectations::Expectations;
use crate::ownership::{Claimer, controller_reference};
use crate::pod_control;
use crate::types::{Condition, Pod, ReplicaSet, whole_seconds};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "replicaset-controller";
pub const REPLICATION_NAME: &str = "replicationcontroller-controller";

/// What ReplicaSets and ReplicationControllers differ in.
pub(crate) struct Variant {
    name: &'static str,
    /// The name upstream's controller has in Events and as a user.
    component: &'static str,
    resource: &'static Resource,
    /// Whether the status counts pods that are being deleted.
    counts_terminating: bool,
}

static REPLICA_SET: Variant =
    Variant { name: NAME, component: NAME, resource: &REPLICA_SETS, counts_terminating: true };

static REPLICATION_CONTROLLER: Variant = Variant {
    name: REPLICATION_NAME,
    component: "replication-controller",
    resource: &REPLICATION_CONTROLLERS,
    counts_terminating: false,
};

impl Variant {
    /// A ReplicationController's selector is a bare map of labels.
    fn selector(&self, set: &ReplicaSet) -> Result<Selector, ParseError> {
        match &set.spec.selector {
            Value::Object(labels) if self.resource.group.is_empty() => Ok(Selector::from_map(labels)),
            selector => Selector::from_label_selector(Some(selector)),
        }
    }
}

/// How many pods one reconcile creates or deletes at most; the next waits until the cache has seen
/// them. Upstream's number.
const BURST_REPLICAS: usize = 500;

/// ReplicaSets by the uid of their controller.
const BY_CONTROLLER: &str = "controller";
const BY_NAMESPACE: &str = "namespace";

struct ReplicaSetController {
    variant: &'static Variant,
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    pods: Store<Pod>,
    sets: Store<ReplicaSet>,
    expectations: Arc<Expectations>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    start_variant(context, &REPLICA_SET, context.config.concurrent_replicaset_syncs)
}

/// The same for ReplicationControllers.
pub fn start_replication(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    start_variant(context, &REPLICATION_CONTROLLER, context.config.concurrent_rc_syncs)
}

fn start_variant(context: &Arc<Context>, variant: &'static Variant, workers: usize) -> BoxFuture<'static, ()> {
    let pods = context.informers.of::<Pod>(&PODS);
    let sets = context.informers.of::<ReplicaSet>(variant.resource);
    pod_control::index_by_controller(&pods);
    sets.add_index(BY_CONTROLLER, |set| set.metadata.controller().map(|owner| owner.uid.clone()).into_iter().collect());
    sets.add_index(BY_NAMESPACE, |set| vec![set.metadata.namespace.clone()]);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    let expectations = Arc::new(Expectations::new(context.clock.clone()));
    watch_sets(&sets, &queue, &expectations);
    watch_pods(variant, &pods, sets.store(), &queue, &expectations);
    let controller = Arc::new(ReplicaSetController {
        variant,
        client: context.client(variant.component),
        clock: context.clock.clone(),
        recorder: context.recorder(variant.component),
        pods: pods.store(),
        sets: sets.store(),
        expectations,
    });
    let followed = [pods.synced(), sets.synced()];
    worker::start(variant.name, queue, workers, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

fn watch_sets(sets: &Informer<ReplicaSet>, queue: &WorkQueue<ObjectKey>, expectations: &Arc<Expectations>) {
    let queue = queue.clone();
    let expectations = expectations.clone();
    sets.on_event(move |event| {
        let object = event.object();
        match event {
            Event::Deleted(_) => expectations.delete(&object.metadata.key()),
            // The same name, another object: what was expected of the old one will never come.
            Event::Modified { old, new } if old.metadata.uid != new.metadata.uid => {
                expectations.delete(&object.metadata.key());
            }
            _ => {}
        }
        queue.add(object.metadata.key());
    });
}

/// The ReplicaSet a controller reference means, if it is still that one.
fn resolve(
    variant: &Variant,
    sets: &Store<ReplicaSet>,
    namespace: &str,
    owner: &OwnerReference,
) -> Option<Arc<ReplicaSet>> {
    if owner.kind != variant.resource.kind {
        return None;
    }
    sets.get_named(namespace, &owner.name).filter(|set| set.metadata.uid == owner.uid)
}

fn watch_pods(
    variant: &'static Variant,
    pods: &Informer<Pod>,
    sets: Store<ReplicaSet>,
    queue: &WorkQueue<ObjectKey>,
    expectations: &Arc<Expectations>,
) {
    let queue = queue.clone();
    let expectations = expectations.clone();
    let could_adopt = {
        let sets = sets.clone();
        let queue = queue.clone();
        move |pod: &Pod| {
            for set in sets.by_index(BY_NAMESPACE, &pod.metadata.namespace) {
                let selects = variant
                    .selector(&set)
                    .is_ok_and(|selector| !selector.is_empty() && selector.matches(&pod.metadata.labels));
                if selects {
                    queue.add(set.metadata.key());
                }
            }
        }
    };
    let observe_deletion = {
        let sets = sets.clone();
        let queue = queue.clone();
        let expectations = expectations.clone();
        move |pod: &Pod| {
            let Some(owner) = pod.metadata.controller() else { return };
            if let Some(set) = resolve(variant, &sets, &pod.metadata.namespace, owner) {
                let key = set.metadata.key();
                expectations.deletion_observed(&key, &pod.metadata.uid);
                queue.add(key);
            }
        }
    };
    pods.on_event(move |event| match event {
        Event::Added(pod) => {
            if pod.metadata.is_deleting() {
                // After a restart a pod may be seen first while it is being deleted.
                return observe_deletion(pod);
            }
            match pod.metadata.controller() {
                Some(owner) => {
                    if let Some(set) = resolve(variant, &sets, &pod.metadata.namespace, owner) {
                        let key = set.metadata.key();
                        expectations.creation_observed(&key);
                        queue.add(key);
                    }
                }
                None => could_adopt(pod),
            }
        }
        Event::Modified { old, new } => {
            if new.metadata.is_deleting() && !old.metadata.is_deleting() {
                observe_deletion(new);
                return;
            }
            let (before, after) = (old.metadata.controller(), new.metadata.controller());
            if before != after
                && let Some(owner) = before
                && let Some(set) = resolve(variant, &sets, &old.metadata.namespace, owner)
            {
                queue.add(set.metadata.key());
            }
            match after {
                Some(owner) => {
                    let Some(set) = resolve(variant, &sets, &new.metadata.namespace, owner) else { return };
                    queue.add(set.metadata.key());
                    // A pod that has just become ready becomes available only later.
                    if !old.is_ready() && new.is_ready() && set.spec.min_ready_seconds > 0 {
                        let wait = Duration::from_secs(set.spec.min_ready_seconds as u64);
                        queue.add_after(set.metadata.key(), wait);
                    }
                }
                None if before.is_some() || old.metadata.labels != new.metadata.labels => could_adopt(new),
                None => {}
            }
        }
        Event::Deleted(pod) => observe_deletion(pod),
    });
}

/// What a reconcile does to the number of pods.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Nothing,
    Create(usize),
    Delete(usize),
}

/// Pure: how far the pods are from what the set asks for, at most a burst at once.
fn decide(set: &ReplicaSet, active: usize, satisfied: bool) -> Decision {
    if !satisfied || set.metadata.is_deleting() {
        return Decision::Nothing;
    }
    let wanted = set.spec.replicas.max(0) as usize;
    match active.cmp(&wanted) {
        Ordering::Equal => Decision::Nothing,
        Ordering::Less => Decision::Create((wanted - active).min(BURST_REPLICAS)),
        Ordering::Greater => Decision::Delete((active - wanted).min(BURST_REPLICAS)),
    }
}

/// Pure: which pods to delete. `related` are the pods of all sets of the same owner; a node that
/// runs several of them can spare one first.
fn choose(active: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count >= active.len() {
        return active.to_vec();
    }
    let mut crowded: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pod.is_active() && !pod.spec.node_name.is_empty()) {
        *crowded.entry(&pod.spec.node_name).or_default() += 1;
    }
    let rank = |pod: &Pod| crowded.get(pod.spec.node_name.as_str()).copied().unwrap_or(0);
    let mut ranked: Vec<&Arc<Pod>> = active.iter().collect();
    ranked.sort_by(|a, b| pod_control::deletion_order((a, rank(a)), (b, rank(b)), now));
    ranked.into_iter().take(count).cloned().collect()
}

impl ReplicaSetController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let Some(set) = self.sets.get(key) else {
            self.expectations.delete(key);
            return Ok(Requeue::Never);
        };
        // Asked before the pods are read: a pod that arrives in between only delays, never doubles.
        let satisfied = self.expectations.satisfied(key);
        let selector = match self.variant.selector(&set) {
            Ok(selector) => selector,
            Err(error) => {
                tracing::error!(controller = self.variant.name, key = %key, %error, "invalid selector; it cannot be reconciled");
                return Ok(Requeue::Never);
            }
        };
        let (active, terminating) = self.claim(&set, &selector).await?;
        let managed = match decide(&set, active.len(), satisfied) {
            Decision::Nothing => Ok(()),
            Decision::Create(count) => self.create(&set, count).await,
            Decision::Delete(count) => self.delete(&set, &active, count).await,
        };
        let now = self.clock.now();
        let failure = managed.as_ref().err().map(ToString::to_string);
        let terminating = self.variant.counts_terminating.then_some(terminating);
        let status = status::calculate(&set, &active, terminating, failure.as_deref(), now);
        let wait = status::next_availability(&set, &active, now);
        self.write_status(&set, status).await?;
        managed?;
        Ok(wait.map_or(Requeue::Never, Requeue::After))
    }

    /// The set's active pods after adoption and release, and the number of those being deleted.
    async fn claim(&self, set: &ReplicaSet, selector: &Selector) -> Result<(Vec<Arc<Pod>>, usize), Error> {
        let mut claimer = Claimer::new(&self.client, self.variant.resource, &set.metadata, &PODS);
        let mut active = Vec::new();
        let mut terminating = 0;
        for pod in pod_control::owned_and_orphans(&self.pods, &set.metadata) {
            let matches = selector.matches(&pod.metadata.labels);
            if !pod.is_active() {
                let ours = pod.metadata.controller().is_some_and(|owner| owner.uid == set.metadata.uid);
                terminating += usize::from(ours && matches && !pod.is_finished());
                continue;
            }
            if claimer.settle(&pod.metadata, matches).await? {
                active.push(pod);
            }
        }
        Ok((active, terminating))
    }

    async fn create(&self, set: &ReplicaSet, count: usize) -> Result<(), Error> {
        let key = set.metadata.key();
        tracing::debug!(controller = self.variant.name, key = %key, need = set.spec.replicas, creating = count, "Too few replicas");
        self.expectations.expect_creations(&key, count);
        let owner = controller_reference(self.variant.resource, &set.metadata);
        let pod = pod_control::from_template(&set.spec.template, &pod_control::name_prefix(&set.metadata.name), &owner);
        // All pods are the same bytes: the server makes up their names.
        let body = Bytes::from(serde_json::to_vec(&pod).map_err(client::Error::Encode)?);
        let path = PODS.path(Some(&key.namespace), None, None);
        let regarding = Reference::of(self.variant.resource, &set.metadata);
        let mut created = 0;
        let mut failure = None;
        for batch in pod_control::slow_start(count) {
            let mut requests = tokio::task::JoinSet::new();
            for _ in 0..batch {
                let (client, path, body) = (self.client.clone(), path.clone(), body.clone());
                requests.spawn(async move {
                    client.json::<Created>(Method::POST, &path, "application/json", "application/json", body).await
                });
            }
            let mut failed = 0;
            while let Some(joined) = requests.join_next().await {
                match joined {
                    Ok(Ok(pod)) => {
                        created += 1;
                        self.recorder.event(
                            &regarding,
                            "Normal",
                            "SuccessfulCreate",
                            &format!("Created pod: {}", pod.metadata.name),
                        );
                    }
                    // Nothing can be created where the namespace goes; nothing needs to be.
                    Ok(Err(error)) if error.is_namespace_terminating() => failed += 1,
                    Ok(Err(error)) => {
                        failed += 1;
                        self.recorder.event(&regarding, "Warning", "FailedCreate", &format!("Error creating: {error}"));
                        failure = Some(Error::Api(error));
                    }
                    Err(panicked) => {
                        failed += 1;
                        failure = Some(Error::Other(panicked.to_string()));
                    }
                }
            }
            if failed > 0 {
                break;
            }
        }
        self.expectations.creations_observed(&key, count - created);
        failure.map_or(Ok(()), Err)
    }

    async fn delete(&self, set: &ReplicaSet, active: &[Arc<Pod>], count: usize) -> Result<(), Error> {
        let key = set.metadata.key();
        tracing::debug!(controller = self.variant.name, key = %key, need = set.spec.replicas, deleting = count, "Too many replicas");
        let related: Vec<Arc<Pod>> = match set.metadata.controller() {
            None => active.to_vec(),
            Some(owner) => self
                .sets
                .by_index(BY_CONTROLLER, &owner.uid)
                .iter()
                .flat_map(|sibling| self.pods.by_index(pod_control::BY_CONTROLLER, &sibling.metadata.uid))
                .collect(),
        };
        let victims = choose(active, &related, count, self.clock.now());
        self.expectations.expect_deletions(&key, victims.iter().map(|pod| pod.metadata.uid.clone()));
        let regarding = Reference::of(self.variant.resource, &set.metadata);
        let mut requests = tokio::task::JoinSet::new();
        for pod in victims {
            let client = self.client.clone();
            requests.spawn(async move {
                let result = client
                    .delete(&PODS, Some(&pod.metadata.namespace), &pod.metadata.name, &DeleteOptions::default())
                    .await;
                (pod, result)
            });
        }
        let mut failure = None;
        while let Some(joined) = requests.join_next().await {
            match joined {
                Ok((pod, Ok(()))) => {
                    self.recorder.event(
                        &regarding,
                        "Normal",
                        "SuccessfulDelete",
                        &format!("Deleted pod: {}", pod.metadata.name),
                    );
                }
                Ok((pod, Err(error))) => {
                    self.expectations.deletion_observed(&key, &pod.metadata.uid);
                    if !error.is_not_found() {
                        self.recorder.event(&regarding, "Warning", "FailedDelete", &format!("Error deleting: {error}"));
                        failure = Some(Error::Api(error));
                    }
                }
                Err(panicked) => failure = Some(Error::Other(panicked.to_string())),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Writes the status when it changed, reading the set again once when another writer was faster.
    async fn write_status(&self, set: &ReplicaSet, status: crate::types::ReplicaSetStatus) -> Result<(), Error> {
        if status == set.status {
            return Ok(());
        }
        let mut desired = set.clone().typed_as(self.variant.resource);
        desired.status = status;
        let (namespace, name) = (Some(set.metadata.namespace.as_str()), set.metadata.name.as_str());
        let result: client::Result<serde::de::IgnoredAny> =
            self.client.update_status(self.variant.resource, namespace, name, &desired).await;
        let Err(error) = result else { return Ok(()) };
        if error.is_not_found() {
            return Ok(());
        }
        if !error.is_conflict() {
            return Err(error.into());
        }
        let fresh: ReplicaSet = self.client.get(self.variant.resource, namespace, name).await?;
        if fresh.metadata.uid != set.metadata.uid {
            return Ok(());
        }
        desired.metadata = fresh.metadata;
        self.client.update_status::<serde::de::IgnoredAny>(self.variant.resource, namespace, name, &desired).await?;
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Created {
    metadata: ObjectMeta,
}

/// A condition made now.
fn new_condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        kind: kind.into(),
        status: status.into(),
        last_transition_time: Some(whole_seconds(now)),
        reason: reason.into(),
        message: message.into(),
        ..Condition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, replica_set};

    #[test]
    fn decisions() {
        for (wanted, active, satisfied, expected) in [
            (3, 3, true, Decision::Nothing),
            (3, 1, true, Decision::Create(2)),
            (3, 1, false, Decision::Nothing),
            (3000, 0, true, Decision::Create(500)),
            (0, 3, true, Decision::Delete(3)),
            (0, 3000, true, Decision::Delete(500)),
        ] {
            assert_eq!(decide(&replica_set("a", wanted), active, satisfied), expected);
        }
        let mut deleting = replica_set("a", 3);
        deleting.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(decide(&deleting, 0, true), Decision::Nothing);
    }

    #[test]
    fn the_crowded_node_gives_first() {
        let now = Timestamp::from_second(1000).unwrap();
        let ready = |name: &str, node: &str| Arc::new(pod(name).node(node).running().ready(10).build());
        let active = vec![ready("a", "n1"), ready("b", "n2"), ready("c", "n2")];
        let chosen = choose(&active, &active, 1, now);
        assert_eq!(chosen[0].spec.node_name, "n2");
        let pending = vec![ready("a", "n1"), Arc::new(pod("p").build())];
        assert_eq!(choose(&pending, &pending, 1, now)[0].metadata.name, "p");
        assert_eq!(choose(&pending, &pending, 2, now).len(), 2);
    }
}
