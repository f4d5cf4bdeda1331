//! Reads services, owners, namespaces and disruption budgets from informers, for plugins.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::informer::{Informer, InformerParams, SharedInformerFactory, Store};
use client::{Meta, resources};

use crate::objects::{Namespace, PodDisruptionBudget, Selecting};
use crate::plugins::Listers;

const BY_NAMESPACE: &str = "namespace";

/// Listers over informers.
#[derive(Clone)]
pub struct InformerListers {
    services: Store<Selecting>,
    replication_controllers: Store<Selecting>,
    replica_sets: Store<Selecting>,
    stateful_sets: Store<Selecting>,
    namespaces: Store<Namespace>,
    budgets: Store<PodDisruptionBudget>,
}

impl std::fmt::Debug for InformerListers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InformerListers").finish_non_exhaustive()
    }
}

fn by_namespace<T: Meta + serde::de::DeserializeOwned>(informer: &Arc<Informer<T>>) -> Store<T> {
    informer.add_index(BY_NAMESPACE, |object| vec![object.namespace().to_owned()]);
    informer.store()
}

impl InformerListers {
    /// Makes the informers; the factory must be started afterwards.
    pub fn new(factory: &SharedInformerFactory) -> Self {
        let all = InformerParams::default;
        Self {
            services: by_namespace(&factory.informer(&resources::SERVICES, all())),
            replication_controllers: factory.informer(&resources::REPLICATION_CONTROLLERS, all()).store(),
            replica_sets: factory.informer(&resources::REPLICA_SETS, all()).store(),
            stateful_sets: factory.informer(&resources::STATEFUL_SETS, all()).store(),
            namespaces: factory.informer(&resources::NAMESPACES, all()).store(),
            budgets: by_namespace(&factory.informer(&resources::POD_DISRUPTION_BUDGETS, all())),
        }
    }
}

impl Listers for InformerListers {
    fn services(&self, namespace: &str) -> Vec<Arc<Selecting>> {
        self.services.by_index(BY_NAMESPACE, namespace)
    }

    fn owner(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Selecting>> {
        match kind {
            "ReplicationController" => &self.replication_controllers,
            "ReplicaSet" => &self.replica_sets,
            "StatefulSet" => &self.stateful_sets,
            _ => return None,
        }
        .get_named(namespace, name)
    }

    fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>> {
        Some(BTreeMap::clone(&self.namespaces.get_named("", name)?.metadata.labels))
    }

    fn disruption_budgets(&self, namespace: &str) -> Vec<Arc<PodDisruptionBudget>> {
        self.budgets.by_index(BY_NAMESPACE, namespace)
    }
}
