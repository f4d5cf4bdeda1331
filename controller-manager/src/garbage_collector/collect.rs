//! Decides about one object and acts: delete it, cut it loose from owners that are gone, finish its
//! foreground deletion, or orphan its dependents.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, OwnerReference, Patch, Preconditions, Propagation, Resource};
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;

use super::graph::{FOREGROUND, Graph, Node, ORPHAN, Object};
use super::{Kinds, NAME};
use crate::worker::{self, Error, Requeue};

/// Owners known to be gone, so that a thousand dependents ask once. Uids are never used again.
#[derive(Default)]
struct Absent {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Absent {
    const MAX: usize = 500;

    fn insert(&mut self, uid: &str) {
        if self.known.insert(uid.to_string()) {
            self.order.push_back(uid.to_string());
            if self.order.len() > Self::MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

/// What the owners of an object come to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Owners {
    /// They exist and stay.
    solid: usize,
    /// They do not exist.
    dangling: Vec<String>,
    /// They wait for this object to go.
    waiting: Vec<String>,
}

/// What to do about an object that has owners.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Keep,
    /// Take these owners off.
    Detach(Vec<String>),
    /// Its owner waits for it, and it has dependents of its own.
    DeleteForeground,
    Delete,
}

/// Pure: an object stays while one owner stays.
fn decide(owners: &Owners, has_dependents: bool) -> Decision {
    if owners.solid > 0 {
        if owners.dangling.is_empty() && owners.waiting.is_empty() {
            return Decision::Keep;
        }
        return Decision::Detach(owners.dangling.iter().chain(&owners.waiting).cloned().collect());
    }
    if !owners.waiting.is_empty() && has_dependents {
        return Decision::DeleteForeground;
    }
    Decision::Delete
}

pub(super) struct Collector {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    kinds: Arc<Kinds>,
    delete: WorkQueue<String>,
    absent: Mutex<Absent>,
}

impl Collector {
    pub fn new(client: Client, graph: Arc<Mutex<Graph>>, kinds: Arc<Kinds>, delete: WorkQueue<String>) -> Self {
        Self { client, graph, kinds, delete, absent: Mutex::default() }
    }

    pub async fn attempt_to_delete(&self, uid: &str) -> worker::Result {
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(Requeue::Never) };
        if node.deleting() && !node.waits_for_dependents() {
            return Ok(Requeue::Never);
        }
        let Some(latest) = self.read(&node, uid).await? else {
            // Gone already; its deletion will be seen.
            return Ok(Requeue::Never);
        };
        if latest.waits_for_dependents() {
            return self.finish_foreground(uid, &node, &latest).await;
        }
        if latest.is_deleting() || latest.metadata.owner_references.is_empty() {
            return Ok(Requeue::Never);
        }
        let owners = self.classify(&node, &latest.metadata.owner_references).await?;
        let has_dependents = !self.graph.lock().dependents(uid).is_empty();
        match decide(&owners, has_dependents) {
            Decision::Keep => {}
            Decision::Detach(gone) => self.detach(&node, &latest, &gone).await?,
            Decision::DeleteForeground => {
                self.break_circles(uid).await?;
                self.delete(&node, &latest, Propagation::Foreground).await?;
            }
            Decision::Delete => {
                let policy = if latest.has_finalizer(ORPHAN) {
                    Propagation::Orphan
                } else if latest.has_finalizer(FOREGROUND) {
                    Propagation::Foreground
                } else {
                    Propagation::Background
                };
                self.delete(&node, &latest, policy).await?;
            }
        }
        Ok(Requeue::Never)
    }

    /// The object as the server has it; `None` when it, with this uid, is gone.
    async fn read(&self, node: &Node, uid: &str) -> Result<Option<Object>, Error> {
        match self.client.get_metadata::<Object>(&node.resource, Some(node.namespace()), node.name()).await {
            Ok(object) if object.metadata.uid == uid => Ok(Some(object)),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn classify(&self, node: &Node, references: &[OwnerReference]) -> Result<Owners, Error> {
        let mut owners = Owners::default();
        for reference in references {
            if self.absent.lock().known.contains(&reference.uid) {
                owners.dangling.push(reference.uid.clone());
                continue;
            }
            let known = self.graph.lock().get(&reference.uid).cloned();
            if let Some(owner) = known.filter(|owner| is_same(owner, reference, node.namespace())) {
                if owner.waits_for_dependents() {
                    owners.waiting.push(reference.uid.clone());
                } else {
                    owners.solid += 1;
                }
                continue;
            }
            match self.ask_for_owner(node, reference).await? {
                Some(owner) if owner.waits_for_dependents() => owners.waiting.push(reference.uid.clone()),
                Some(_) => owners.solid += 1,
                None => {
                    self.absent.lock().insert(&reference.uid);
                    owners.dangling.push(reference.uid.clone());
                }
            }
        }
        Ok(owners)
    }

    async fn ask_for_owner(&self, node: &Node, reference: &OwnerReference) -> Result<Option<Object>, Error> {
        let Some(resource) = self.kinds.get(&reference.api_version, &reference.kind) else {
            return Err(Error::Other(format!(
                "unable to get REST mapping for {}/{}",
                reference.api_version, reference.kind
            )));
        };
        if resource.namespaced && node.namespace().is_empty() {
            // A cluster-scoped object cannot be owned by a namespaced one: nobody can tell whose.
            return Err(Error::Other(format!(
                "namespaced owner {} {} of the cluster-scoped object {}",
                reference.kind,
                reference.name,
                node.name()
            )));
        }
        let namespace = Some(node.namespace()).filter(|_| resource.namespaced);
        match self.client.get_metadata::<Object>(&resource, namespace, &reference.name).await {
            Ok(owner) if owner.metadata.uid == reference.uid => Ok(Some(owner)),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete(&self, node: &Node, latest: &Object, policy: Propagation) -> Result<(), Error> {
        tracing::debug!(controller = NAME, resource = %node.resource, namespace = node.namespace(), name = node.name(), ?policy, "deleting a dependent");
        let options = DeleteOptions {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: Some(latest.metadata.uid.clone()),
                // It must not have got a new owner since it was read.
                resource_version: Some(latest.metadata.resource_version.clone()),
            }),
            ..DeleteOptions::default()
        };
        match self.client.delete(&node.resource, Some(node.namespace()), node.name(), &options).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn patch(&self, node: &Node, metadata: serde_json::Value) -> Result<(), Error> {
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let result: client::Result<IgnoredAny> =
            self.client.patch(&node.resource, Some(node.namespace()), node.name(), None, &patch).await;
        match result {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes owners off. The resource version in the patch makes a concurrent change a conflict.
    async fn detach(&self, node: &Node, latest: &Object, gone: &[String]) -> Result<(), Error> {
        let kept: Vec<&OwnerReference> =
            latest.metadata.owner_references.iter().filter(|owner| !gone.contains(&owner.uid)).collect();
        let references = if kept.is_empty() { serde_json::Value::Null } else { json!(kept) };
        self.patch(
            node,
            json!({
                "resourceVersion": latest.metadata.resource_version,
                "uid": latest.metadata.uid,
                "ownerReferences": references,
            }),
        )
        .await
    }

    async fn remove_finalizer(&self, node: &Node, latest: &Object, finalizer: &str) -> Result<(), Error> {
        let kept: Vec<&String> = latest.metadata.finalizers.iter().filter(|known| *known != finalizer).collect();
        self.patch(
            node,
            json!({
                "resourceVersion": latest.metadata.resource_version,
                "uid": latest.metadata.uid,
                "finalizers": kept,
            }),
        )
        .await
    }

    /// Lets go of an object in foreground deletion once nothing blocks it.
    async fn finish_foreground(&self, uid: &str, node: &Node, latest: &Object) -> worker::Result {
        let blocking = self.graph.lock().blocking(uid);
        if blocking.is_empty() {
            self.remove_finalizer(node, latest, FOREGROUND).await?;
            return Ok(Requeue::Never);
        }
        for (dependent, node) in blocking {
            if !node.deleting() {
                self.delete.add(dependent);
            }
        }
        Ok(Requeue::Never)
    }

    /// Two objects that own each other and both wait for their dependents would wait for ever: the
    /// dependents that wait stop blocking.
    async fn break_circles(&self, uid: &str) -> Result<(), Error> {
        let dependents = self.graph.lock().dependents(uid);
        if !dependents.iter().any(|(_, dependent)| dependent.waits_for_dependents()) {
            return Ok(());
        }
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(()) };
        let Some(latest) = self.read(&node, uid).await? else { return Ok(()) };
        let unblocked: Vec<OwnerReference> = latest
            .metadata
            .owner_references
            .iter()
            .map(|owner| OwnerReference {
                block_owner_deletion: owner.block_owner_deletion.map(|_| false),
                ..owner.clone()
            })
            .collect();
        self.patch(&node, json!({ "uid": uid, "ownerReferences": unblocked })).await
    }

    pub async fn attempt_to_orphan(&self, uid: &str) -> worker::Result {
        let Some(owner) = self.graph.lock().get(uid).cloned() else { return Ok(Requeue::Never) };
        let Some(latest) = self.read(&owner, uid).await? else { return Ok(Requeue::Never) };
        if !latest.orphans_dependents() {
            return Ok(Requeue::Never);
        }
        let dependents = self.graph.lock().dependents(uid);
        for (dependent_uid, node) in dependents {
            let Some(dependent) = self.read(&node, &dependent_uid).await? else { continue };
            let refers = dependent.metadata.owner_references.iter().any(|owner| owner.uid == uid);
            if refers {
                self.detach(&node, &dependent, &[uid.to_string()]).await?;
            }
        }
        self.remove_finalizer(&owner, &latest, ORPHAN).await?;
        Ok(Requeue::Never)
    }
}

/// Whether the graph's node is what the reference names, seen from an object in `namespace`.
fn is_same(owner: &Node, reference: &OwnerReference, namespace: &str) -> bool {
    let kind_matches =
        owner.resource.kind == reference.kind && group_of(&owner.resource) == group_of_reference(reference);
    kind_matches && owner.name() == reference.name && (owner.namespace().is_empty() || owner.namespace() == namespace)
}

fn group_of(resource: &Resource) -> &str {
    &resource.group
}

fn group_of_reference(reference: &OwnerReference) -> &str {
    reference.api_version.split_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stays_while_one_owner_stays() {
        let owners = |solid: usize, dangling: &[&str], waiting: &[&str]| Owners {
            solid,
            dangling: dangling.iter().map(|uid| uid.to_string()).collect(),
            waiting: waiting.iter().map(|uid| uid.to_string()).collect(),
        };
        for (owners, has_dependents, expected) in [
            (owners(1, &[], &[]), false, Decision::Keep),
            (owners(1, &["a"], &["b"]), true, Decision::Detach(vec!["a".into(), "b".into()])),
            (owners(0, &["a"], &[]), true, Decision::Delete),
            (owners(0, &[], &["b"]), false, Decision::Delete),
            (owners(0, &["a"], &["b"]), true, Decision::DeleteForeground),
        ] {
            assert_eq!(decide(&owners, has_dependents), expected, "{owners:?}");
        }
    }

    #[test]
    fn absence_is_remembered_within_bounds() {
        let mut absent = Absent::default();
        for number in 0..=Absent::MAX {
            absent.insert(&number.to_string());
        }
        assert!(!absent.known.contains("0"));
        assert_eq!(absent.known.len(), Absent::MAX);
    }
}
