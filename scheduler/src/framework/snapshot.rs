//! What the scheduler believes of the cluster: nodes, and the pods on them.
//!
//! The hot figures are columns, one number per node, so that filtering thousands of nodes by
//! resources runs over plain arrays; everything else of a node is in its slot. It is updated in
//! place as events arrive, never copied: only the scheduling loop touches it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Slot;
use super::pod_info::{HostPort, PodInfo};
use super::resource::Resource;
use crate::objects::Node;

const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";

/// Per-node figures, by slot.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Columns {
    pub allocatable_cpu: Vec<i64>,
    pub allocatable_memory: Vec<i64>,
    pub allocatable_ephemeral: Vec<i64>,
    pub allocatable_pods: Vec<i64>,
    pub requested_cpu: Vec<i64>,
    pub requested_memory: Vec<i64>,
    pub requested_ephemeral: Vec<i64>,
    pub non_zero_cpu: Vec<i64>,
    pub non_zero_memory: Vec<i64>,
    pub pods: Vec<i64>,
}

impl Columns {
    fn grow(&mut self) {
        for column in [
            &mut self.allocatable_cpu,
            &mut self.allocatable_memory,
            &mut self.allocatable_ephemeral,
            &mut self.allocatable_pods,
            &mut self.requested_cpu,
            &mut self.requested_memory,
            &mut self.requested_ephemeral,
            &mut self.non_zero_cpu,
            &mut self.non_zero_memory,
            &mut self.pods,
        ] {
            column.push(0);
        }
    }
}

/// The rest of a node.
#[derive(Debug, Default)]
pub struct NodeInfo {
    /// Its name.
    pub name: Arc<str>,
    /// The object; `None` while only pods of it are known.
    pub node: Option<Arc<Node>>,
    /// Pods on it, including those that are only assumed there.
    pub pods: Vec<Arc<PodInfo>>,
    /// How many of them say anything about other pods.
    pub pods_with_affinity: usize,
    /// How many of them refuse other pods.
    pub pods_with_required_anti_affinity: usize,
    /// Ports of the host in use.
    pub used_ports: Vec<HostPort>,
    /// Allocatable resources other than those in columns.
    pub scalar_allocatable: BTreeMap<String, i64>,
    /// Requested resources other than those in columns.
    pub scalar_requested: BTreeMap<String, i64>,
    /// Images present: name to size.
    pub images: HashMap<String, i64>,
    /// Counts changes of the node object, not of its pods.
    pub generation: u64,
}

impl NodeInfo {
    /// The node's labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        static EMPTY: BTreeMap<String, String> = BTreeMap::new();
        self.node.as_ref().map_or(&EMPTY, |node| &node.metadata.labels)
    }
}

/// The cluster as the scheduler sees it.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Per-node figures.
    pub columns: Columns,
    nodes: Vec<NodeInfo>,
    index: HashMap<Arc<str>, Slot>,
    free: Vec<Slot>,
    /// Slots with a node object, zones interleaved.
    order: Vec<Slot>,
    order_is_stale: bool,
    /// On how many nodes an image is.
    image_nodes: HashMap<String, usize>,
    /// Pods on nodes, by namespace; for selectors, which never cross namespaces unless they say so.
    by_namespace: HashMap<String, HashMap<String, (Slot, Arc<PodInfo>)>>,
    /// Nodes carrying pods that say anything about other pods.
    with_affinity: std::collections::BTreeSet<Slot>,
    with_required_anti_affinity: std::collections::BTreeSet<Slot>,
}

impl Snapshot {
    /// A node's details.
    pub fn node(&self, slot: Slot) -> &NodeInfo {
        &self.nodes[slot]
    }

    /// A node's name.
    pub fn name(&self, slot: Slot) -> &str {
        &self.nodes[slot].name
    }

    /// Where a node is, if its object is known.
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.index.get(name).copied().filter(|slot| self.nodes[*slot].node.is_some())
    }

    /// Slots of all known nodes; neighbours are in different zones, so that looking at the first
    /// few sees all zones.
    pub fn order(&mut self) -> &[Slot] {
        if std::mem::take(&mut self.order_is_stale) {
            self.order = self.interleaved();
        }
        &self.order
    }

    /// The same, as of the last [`Snapshot::order`].
    pub fn known_order(&self) -> &[Slot] {
        &self.order
    }

    fn interleaved(&self) -> Vec<Slot> {
        let mut zones: BTreeMap<(&str, &str), Vec<Slot>> = BTreeMap::new();
        for (slot, info) in self.nodes.iter().enumerate() {
            if info.node.is_some() {
                let label = |key: &str| info.labels().get(key).map_or("", String::as_str);
                zones.entry((label(REGION), label(ZONE))).or_default().push(slot);
            }
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        (0..longest).flat_map(|i| zones.values().filter_map(move |zone| zone.get(i).copied())).collect()
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.nodes.iter().filter(|n| n.node.is_some()).count()
    }

    /// Whether no node is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.iter().all(|n| n.node.is_none())
    }

    /// On how many nodes an image is.
    pub fn image_nodes(&self, image: &str) -> usize {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// Pods on nodes in one namespace.
    pub fn pods_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = (Slot, &'a Arc<PodInfo>)> {
        self.by_namespace.get(namespace).into_iter().flat_map(|pods| pods.values().map(|(slot, pod)| (*slot, pod)))
    }

    /// Nodes with pods that say anything about other pods.
    pub fn nodes_with_affinity(&self) -> impl Iterator<Item = Slot> + '_ {
        self.with_affinity.iter().copied()
    }

    /// Nodes with pods that refuse other pods.
    pub fn nodes_with_required_anti_affinity(&self) -> impl Iterator<Item = Slot> + '_ {
        self.with_required_anti_affinity.iter().copied()
    }

    /// Adds or replaces a node.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let slot = self.slot_for(&node.metadata.name);
        let allocatable = Resource::from_list(&node.status.allocatable);
        self.columns.allocatable_cpu[slot] = allocatable.milli_cpu;
        self.columns.allocatable_memory[slot] = allocatable.memory;
        self.columns.allocatable_ephemeral[slot] = allocatable.ephemeral_storage;
        self.columns.allocatable_pods[slot] = allocatable.pods;
        self.forget_images(slot);
        let info = &mut self.nodes[slot];
        info.scalar_allocatable = allocatable.scalar;
        for image in &node.status.images {
            for name in &image.names {
                info.images.insert(name.clone(), image.size_bytes);
            }
        }
        for name in info.images.keys() {
            *self.image_nodes.entry(name.clone()).or_default() += 1;
        }
        let zone = |n: &Node| (n.metadata.labels.get(REGION).cloned(), n.metadata.labels.get(ZONE).cloned());
        self.order_is_stale |= info.node.as_deref().is_none_or(|old| zone(old) != zone(&node));
        info.generation += 1;
        info.node = Some(node);
    }

    /// Forgets a node; its pods stay until they are removed themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.slot(name) else { return };
        self.forget_images(slot);
        self.nodes[slot].node = None;
        self.nodes[slot].scalar_allocatable.clear();
        self.order_is_stale = true;
        self.release(slot);
    }

    /// Puts a pod on a node; the node's object may still be unknown.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>, node: &str) -> Slot {
        let slot = self.slot_for(node);
        self.place(pod, slot);
        slot
    }

    /// Puts a pod on the node in `slot`.
    pub fn place(&mut self, pod: Arc<PodInfo>, slot: Slot) {
        let c = &mut self.columns;
        c.requested_cpu[slot] += pod.requests.milli_cpu;
        c.requested_memory[slot] += pod.requests.memory;
        c.requested_ephemeral[slot] += pod.requests.ephemeral_storage;
        c.non_zero_cpu[slot] += pod.non_zero.milli_cpu;
        c.non_zero_memory[slot] += pod.non_zero.memory;
        c.pods[slot] += 1;
        let info = &mut self.nodes[slot];
        for (name, amount) in &pod.requests.scalar {
            *info.scalar_requested.entry(name.clone()).or_default() += amount;
        }
        info.used_ports.extend(pod.host_ports.iter().cloned());
        if pod.has_affinity() {
            info.pods_with_affinity += 1;
            self.with_affinity.insert(slot);
        }
        if !pod.required_anti_affinity.is_empty() {
            info.pods_with_required_anti_affinity += 1;
            self.with_required_anti_affinity.insert(slot);
        }
        self.by_namespace
            .entry(pod.namespace().to_owned())
            .or_default()
            .insert(pod.uid().to_owned(), (slot, pod.clone()));
        info.pods.push(pod);
    }

    /// Takes a pod off the node in `slot`; `None` when it is not there.
    pub fn unplace(&mut self, uid: &str, slot: Slot) -> Option<Arc<PodInfo>> {
        let info = &mut self.nodes[slot];
        let at = info.pods.iter().position(|pod| pod.uid() == uid)?;
        let pod = info.pods.swap_remove(at);
        let c = &mut self.columns;
        c.requested_cpu[slot] -= pod.requests.milli_cpu;
        c.requested_memory[slot] -= pod.requests.memory;
        c.requested_ephemeral[slot] -= pod.requests.ephemeral_storage;
        c.non_zero_cpu[slot] -= pod.non_zero.milli_cpu;
        c.non_zero_memory[slot] -= pod.non_zero.memory;
        c.pods[slot] -= 1;
        for (name, amount) in &pod.requests.scalar {
            if let Some(requested) = info.scalar_requested.get_mut(name) {
                *requested -= amount;
            }
        }
        for port in &pod.host_ports {
            if let Some(at) = info.used_ports.iter().position(|used| used == port) {
                info.used_ports.swap_remove(at);
            }
        }
        if pod.has_affinity() {
            info.pods_with_affinity -= 1;
            if info.pods_with_affinity == 0 {
                self.with_affinity.remove(&slot);
            }
        }
        if !pod.required_anti_affinity.is_empty() {
            info.pods_with_required_anti_affinity -= 1;
            if info.pods_with_required_anti_affinity == 0 {
                self.with_required_anti_affinity.remove(&slot);
            }
        }
        if let Some(pods) = self.by_namespace.get_mut(pod.namespace()) {
            pods.remove(uid);
            if pods.is_empty() {
                self.by_namespace.remove(pod.namespace());
            }
        }
        self.release(slot);
        Some(pod)
    }

    fn slot_for(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.index.get(name) {
            return *slot;
        }
        let name: Arc<str> = name.into();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.columns.grow();
            self.nodes.push(NodeInfo::default());
            self.nodes.len() - 1
        });
        let generation = self.nodes[slot].generation;
        self.nodes[slot] = NodeInfo { name: name.clone(), generation: generation + 1, ..NodeInfo::default() };
        self.index.insert(name, slot);
        slot
    }

    /// Gives a slot back once neither node nor pods are left.
    fn release(&mut self, slot: Slot) {
        let info = &self.nodes[slot];
        if info.node.is_some() || !info.pods.is_empty() {
            return;
        }
        self.index.remove(&info.name);
        for column in [
            &mut self.columns.allocatable_cpu,
            &mut self.columns.allocatable_memory,
            &mut self.columns.allocatable_ephemeral,
            &mut self.columns.allocatable_pods,
        ] {
            column[slot] = 0;
        }
        self.free.push(slot);
    }

    fn forget_images(&mut self, slot: Slot) {
        for name in std::mem::take(&mut self.nodes[slot].images).into_keys() {
            if let Some(count) = self.image_nodes.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.image_nodes.remove(&name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn what_is_added_and_removed_again_leaves_nothing() {
        let mut s = Snapshot::default();
        s.set_node(node("a").allocatable("4", "8Gi").image("img:1", 100).done());
        let p = pod("p").requests("1", "1Gi").host_port(80).scalar("x/y", 2).anti_affinity("app", "x", "zone").info();
        let slot = s.add_pod(p.clone(), "a");
        assert_eq!(s.columns.requested_cpu[slot], 1000);
        assert_eq!(s.node(slot).scalar_requested["x/y"], 2);
        assert_eq!(s.nodes_with_required_anti_affinity().collect::<Vec<_>>(), [slot]);
        assert_eq!(s.pods_in("default").count(), 1);
        assert!(s.unplace(p.uid(), slot).is_some());
        assert!(s.unplace(p.uid(), slot).is_none());
        assert_eq!((s.columns.requested_cpu[slot], s.columns.pods[slot]), (0, 0));
        assert!(s.node(slot).used_ports.is_empty());
        assert_eq!(s.nodes_with_affinity().count(), 0);
        assert_eq!(s.image_nodes("img:1"), 1);
        s.remove_node("a");
        assert!(s.is_empty() && s.slot("a").is_none());
        assert_eq!(s.image_nodes("img:1"), 0);
        // the slot is used again
        s.set_node(node("b").allocatable("1", "1Gi").done());
        assert_eq!(s.slot("b"), Some(slot));
        assert_eq!(s.order(), [slot]);
    }

    #[test]
    fn pods_may_come_before_their_node() {
        let mut s = Snapshot::default();
        let slot = s.add_pod(pod("p").requests("1", "1Gi").info(), "late");
        assert!(s.is_empty());
        s.set_node(node("late").allocatable("4", "8Gi").done());
        assert_eq!(s.slot("late"), Some(slot));
        assert_eq!(s.columns.requested_cpu[slot], 1000);
        // a node that goes keeps its pods until they go
        s.remove_node("late");
        s.set_node(node("late").allocatable("4", "8Gi").done());
        assert_eq!(s.columns.requested_cpu[slot], 1000);
    }

    #[test]
    fn zones_take_turns() {
        let mut s = Snapshot::default();
        for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c")] {
            s.set_node(node(name).label(ZONE, zone).done());
        }
        let names: Vec<String> = s.order().to_vec().iter().map(|slot| s.name(*slot).to_owned()).collect();
        assert_eq!(names, ["a1", "b1", "c1", "a2", "a3"]);
    }
}
