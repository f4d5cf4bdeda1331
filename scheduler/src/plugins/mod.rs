//! The plugins: one file each, one line each in [`REGISTRY`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::framework::{MAX_NODE_SCORE, Place, Plugin};
use crate::objects::{PodDisruptionBudget, Selecting};

pub mod default_binder;
pub mod default_preemption;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced_allocation;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod pod_topology_spread;
pub mod priority_sort;
pub mod scheduling_gates;
pub mod taint_toleration;

/// Reads other kinds of objects, as they are known right now.
pub trait Listers: Send + Sync {
    /// Services of a namespace.
    fn services(&self, namespace: &str) -> Vec<Arc<Selecting>>;
    /// A ReplicationController, ReplicaSet or StatefulSet.
    fn owner(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Selecting>>;
    /// The labels of a namespace.
    fn namespace_labels(&self, name: &str) -> Option<BTreeMap<String, String>>;
    /// Disruption budgets of a namespace.
    fn disruption_budgets(&self, namespace: &str) -> Vec<Arc<PodDisruptionBudget>>;
}

/// Knows nothing: for the scheduling core by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoListers;

impl Listers for NoListers {
    fn services(&self, _: &str) -> Vec<Arc<Selecting>> {
        Vec::new()
    }
    fn owner(&self, _: &str, _: &str, _: &str) -> Option<Arc<Selecting>> {
        None
    }
    fn namespace_labels(&self, _: &str) -> Option<BTreeMap<String, String>> {
        None
    }
    fn disruption_budgets(&self, _: &str) -> Vec<Arc<PodDisruptionBudget>> {
        Vec::new()
    }
}

/// What plugins are built with.
#[derive(Clone)]
pub struct Handle {
    /// Other objects.
    pub listers: Arc<dyn Listers>,
    /// The API; without it nothing can be bound.
    pub client: Option<client::Client>,
    next_place: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Handle {
    /// A handle for the plugins of one profile.
    pub fn new(listers: Arc<dyn Listers>, client: Option<client::Client>) -> Self {
        Self { listers, client, next_place: Arc::default() }
    }

    /// A place of its own in the cycle state.
    pub fn place(&self) -> Place {
        Place(self.next_place.fetch_add(1, Ordering::Relaxed))
    }
}

/// Builds a plugin from its `args` (as in `pluginConfig`; `null` for the defaults).
pub type Factory = fn(&Value, &Handle) -> Result<Plugin, String>;

/// Every plugin there is.
pub const REGISTRY: &[(&str, Factory)] = &[
    (default_binder::NAME, default_binder::new),
    (default_preemption::NAME, default_preemption::new),
    (image_locality::NAME, image_locality::new),
    (inter_pod_affinity::NAME, inter_pod_affinity::new),
    (node_affinity::NAME, node_affinity::new),
    (node_name::NAME, node_name::new),
    (node_ports::NAME, node_ports::new),
    (node_resources_balanced_allocation::NAME, node_resources_balanced_allocation::new),
    (node_resources_fit::NAME, node_resources_fit::new),
    (node_unschedulable::NAME, node_unschedulable::new),
    (pod_topology_spread::NAME, pod_topology_spread::new),
    (priority_sort::NAME, priority_sort::new),
    (scheduling_gates::NAME, scheduling_gates::new),
    (taint_toleration::NAME, taint_toleration::new),
];

/// The plugins of the default profile, in upstream's order, with their weights. Those of upstream's
/// that are not in [`REGISTRY`] yet are left out.
pub const DEFAULT: &[(&str, i64)] = &[
    (scheduling_gates::NAME, 0),
    (priority_sort::NAME, 0),
    (node_unschedulable::NAME, 0),
    (node_name::NAME, 0),
    (taint_toleration::NAME, 3),
    (node_affinity::NAME, 2),
    (node_ports::NAME, 0),
    (node_resources_fit::NAME, 1),
    (pod_topology_spread::NAME, 2),
    (inter_pod_affinity::NAME, 2),
    (default_preemption::NAME, 0),
    (node_resources_balanced_allocation::NAME, 1),
    (image_locality::NAME, 1),
    (default_binder::NAME, 0),
];

/// Scales scores so that the best is [`MAX_NODE_SCORE`]; `reverse` makes the lowest the best.
pub fn default_normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    if max == 0 {
        if reverse {
            scores.fill(MAX_NODE_SCORE);
        }
        return;
    }
    for score in scores {
        let scaled = MAX_NODE_SCORE * *score / max;
        *score = if reverse { MAX_NODE_SCORE - scaled } else { scaled };
    }
}

/// Reads `args`, `null` meaning the defaults.
fn parse_args<T: Default + serde::de::DeserializeOwned>(args: &Value) -> Result<T, String> {
    if args.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(args.clone()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_defaults_exist() {
        let mut names: Vec<&str> = REGISTRY.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for (name, _) in DEFAULT {
            assert!(names.contains(name), "{name}");
        }
        let handle = Handle::new(Arc::new(NoListers), None);
        for (name, factory) in REGISTRY {
            assert_eq!(factory(&Value::Null, &handle).expect("defaults work").name, *name);
        }
    }

    #[test]
    fn normalizing() {
        let check = |mut scores: Vec<i64>, reverse, expected: &[i64]| {
            default_normalize(&mut scores, reverse);
            assert_eq!(scores, expected);
        };
        check(vec![1, 2, 3, 4], false, &[25, 50, 75, 100]);
        check(vec![1, 2, 3, 4], true, &[75, 50, 25, 0]);
        check(vec![0, 0], true, &[100, 100]);
        check(vec![0, 0], false, &[0, 0]);
        check(vec![1000, 10, 20, 30], false, &[100, 1, 2, 3]);
    }
}
