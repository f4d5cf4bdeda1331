//! Pods that are expected on a node because others are being removed for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::framework::Nominated;
use crate::framework::pod_info::PodInfo;

/// Nominations, by pod and by node.
#[derive(Debug, Default)]
pub struct NominatedPods {
    nodes: HashMap<String, String>,
    by_node: HashMap<String, BTreeMap<String, Arc<PodInfo>>>,
}

impl NominatedPods {
    /// Nominates `node`; an empty name withdraws the nomination.
    pub fn set(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.remove(pod.uid());
        if !node.is_empty() {
            self.nodes.insert(pod.uid().to_owned(), node.to_owned());
            self.by_node.entry(node.to_owned()).or_default().insert(pod.uid().to_owned(), pod.clone());
        }
    }

    /// Withdraws a nomination; whether there was one.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(node) = self.nodes.remove(uid) else { return false };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
        true
    }

    /// The node nominated for a pod.
    pub fn node_of(&self, uid: &str) -> Option<String> {
        self.nodes.get(uid).cloned()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl Nominated for NominatedPods {
    fn on(&self, node: &str) -> Vec<Arc<PodInfo>> {
        self.by_node.get(node).map(|pods| pods.values().cloned().collect()).unwrap_or_default()
    }
}
