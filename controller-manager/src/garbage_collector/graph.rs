//! Who owns whom: a graph over all objects, kept by metadata informers. Pure but for its own state.
//!
//! Owners are looked up by uid. Dependents are remembered by their owner's uid even while the owner
//! is not known, so the order in which informers fill the graph does not matter.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ahash::RandomState;
use client::meta::null_default;
use client::{Interned, Meta, OwnerReference, Resource, Timestamp};
use serde::Deserialize;

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// The little of an object that ownership needs; everything else would only take memory.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Object {
    pub metadata: ObjectMetadata,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ObjectMetadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub deletion_timestamp: Option<Timestamp>,
    #[serde(deserialize_with = "null_default")]
    pub owner_references: Interned<Vec<OwnerReference>>,
    #[serde(deserialize_with = "null_default")]
    pub finalizers: Vec<String>,
}

impl Meta for Object {
    fn name(&self) -> &str {
        &self.metadata.name
    }
    fn namespace(&self) -> &str {
        &self.metadata.namespace
    }
    fn uid(&self) -> &str {
        &self.metadata.uid
    }
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Object {
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.metadata.finalizers.iter().any(|known| known == finalizer)
    }

    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// In foreground deletion: waits for its dependents to go.
    pub fn waits_for_dependents(&self) -> bool {
        self.is_deleting() && self.has_finalizer(FOREGROUND)
    }

    /// Is being deleted and leaves its dependents behind.
    pub fn orphans_dependents(&self) -> bool {
        self.is_deleting() && self.has_finalizer(ORPHAN)
    }
}

/// One object in the graph.
///
/// It shares with the informer what that keeps anyway: there is one for every object of the cluster.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub resource: Arc<Resource>,
    pub object: Arc<Object>,
}

impl Node {
    pub fn namespace(&self) -> &str {
        &self.object.metadata.namespace
    }

    pub fn name(&self) -> &str {
        &self.object.metadata.name
    }

    pub fn owners(&self) -> &[OwnerReference] {
        &self.object.metadata.owner_references
    }

    pub fn deleting(&self) -> bool {
        self.object.is_deleting()
    }

    pub fn waits_for_dependents(&self) -> bool {
        self.object.waits_for_dependents()
    }
}

/// What an event makes necessary, as uids.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Objects that may have to be deleted, or whose foreground deletion may be complete.
    pub delete: Vec<String>,
    /// Owners whose dependents must be orphaned.
    pub orphan: Vec<String>,
}

type Uids = HashSet<String, RandomState>;

#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node, RandomState>,
    dependents: HashMap<String, Uids, RandomState>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn dependents(&self, uid: &str) -> Vec<(String, Node)> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|dependent| Some((dependent.clone(), self.nodes.get(dependent)?.clone())))
            .collect()
    }

    /// Takes in an object's new state.
    pub fn update(&mut self, resource: &Arc<Resource>, object: &Arc<Object>) -> Work {
        let mut work = Work::default();
        let node = Node { resource: resource.clone(), object: object.clone() };
        let uid = object.metadata.uid.clone();
        let old = self.nodes.insert(uid.clone(), node.clone());
        let old_owners = old.as_ref().map_or(&[][..], Node::owners);
        for owner in old_owners {
            if !node.owners().iter().any(|new| new.uid == owner.uid) {
                self.unlink(&owner.uid, &uid);
            }
            // An owner in foreground deletion may have waited for this one.
            let still_blocks =
                node.owners().iter().any(|new| new.uid == owner.uid && new.block_owner_deletion == Some(true));
            if !still_blocks && owner.block_owner_deletion == Some(true) && self.waits(&owner.uid) {
                work.delete.push(owner.uid.clone());
            }
        }
        let mut must_check = false;
        for owner in node.owners() {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            if !old_owners.iter().any(|old| old.uid == owner.uid) {
                // A new owner that is unknown may never have existed; one that waits for its
                // dependents must see this one go too.
                must_check |= self.nodes.get(&owner.uid).is_none_or(|owner| owner.waits_for_dependents());
            }
        }
        if must_check {
            work.delete.push(uid.clone());
        }
        let began_waiting = node.waits_for_dependents() && old.as_ref().is_none_or(|old| !old.waits_for_dependents());
        if began_waiting {
            work.delete.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
            work.delete.push(uid.clone());
        }
        if object.orphans_dependents() {
            work.orphan.push(uid);
        }
        work
    }

    /// Takes an object out.
    pub fn remove(&mut self, uid: &str) -> Work {
        let mut work = Work::default();
        let Some(node) = self.nodes.remove(uid) else { return work };
        for owner in node.owners() {
            self.unlink(&owner.uid, uid);
            if self.waits(&owner.uid) {
                work.delete.push(owner.uid.clone());
            }
        }
        work.delete.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        work
    }

    fn waits(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.waits_for_dependents())
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// Dependents that a foreground deletion of this object waits for.
    pub fn blocking(&self, uid: &str) -> Vec<(String, Node)> {
        let mut blocking = self.dependents(uid);
        blocking.retain(|(_, node)| {
            node.owners().iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        });
        blocking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::resources::{PODS, REPLICA_SETS};

    fn object(uid: &str, owners: &[(&str, bool)], finalizers: &[&str], deleting: bool) -> Arc<Object> {
        Arc::new(Object {
            metadata: ObjectMetadata {
                name: uid.into(),
                namespace: "ns".into(),
                uid: uid.into(),
                deletion_timestamp: deleting.then_some(Timestamp::UNIX_EPOCH),
                owner_references: owners
                    .iter()
                    .map(|(uid, block)| OwnerReference {
                        uid: uid.to_string(),
                        block_owner_deletion: Some(*block),
                        ..OwnerReference::default()
                    })
                    .collect(),
                finalizers: finalizers.iter().map(|finalizer| finalizer.to_string()).collect(),
                ..ObjectMetadata::default()
            },
        })
    }

    fn pods() -> Arc<Resource> {
        Arc::new(PODS.clone())
    }

    fn replica_sets() -> Arc<Resource> {
        Arc::new(REPLICA_SETS.clone())
    }

    #[test]
    fn dependents_of_a_deleted_owner_are_looked_at() {
        let mut graph = Graph::default();
        assert_eq!(
            graph.update(&pods(), &object("pod", &[("set", true)], &[], false)).delete,
            ["pod"],
            "its owner is unknown"
        );
        assert_eq!(graph.update(&replica_sets(), &object("set", &[], &[], false)), Work::default());
        assert_eq!(graph.update(&pods(), &object("two", &[("set", true)], &[], false)), Work::default());
        let mut work = graph.remove("set");
        work.delete.sort();
        assert_eq!(work.delete, ["pod", "two"]);
        assert_eq!(graph.remove("set"), Work::default());
    }

    #[test]
    fn foreground_deletion_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        graph.update(&replica_sets(), &object("set", &[], &[], false));
        graph.update(&pods(), &object("blocks", &[("set", true)], &[], false));
        graph.update(&pods(), &object("free", &[("set", false)], &[], false));
        let mut work = graph.update(&replica_sets(), &object("set", &[], &[FOREGROUND], true));
        work.delete.sort();
        assert_eq!(work.delete, ["blocks", "free", "set"]);
        assert_eq!(graph.blocking("set").len(), 1);
        assert_eq!(graph.update(&pods(), &object("late", &[("set", true)], &[], false)).delete, ["late"]);
        assert_eq!(
            graph.update(&pods(), &object("late", &[("set", false)], &[], false)).delete,
            ["set"],
            "it no longer blocks"
        );
        assert_eq!(graph.remove("blocks").delete, ["set"]);
        assert!(graph.blocking("set").is_empty());
    }

    #[test]
    fn orphaning_is_asked_for_once_deletion_began() {
        let mut graph = Graph::default();
        assert!(graph.update(&replica_sets(), &object("set", &[], &[ORPHAN], false)).orphan.is_empty());
        assert_eq!(graph.update(&replica_sets(), &object("set", &[], &[ORPHAN], true)).orphan, ["set"]);
    }
}
