//! Gives each node its range of pod addresses out of the cluster's.
//!
//! Reads nodes; writes `spec.podCIDR` and `spec.podCIDRs`. Upstream: `pkg/controller/nodeipam`
//! (RangeAllocator). What is taken is read from the nodes at start, so nothing else is stored.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use client::events::{Recorder, Reference};
use client::informer::{Event, Store};
use client::resources::NODES;
use client::workqueue::WorkQueue;
use client::{Client, ObjectKey, Patch};
use futures::future::BoxFuture;
use ipnet::IpNet;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::config::Config;
use crate::context::Context;
use crate::types::Node;
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "node-ipam-controller";

/// The ranges of one family: the cluster's range cut into equal parts.
#[derive(Debug)]
struct CidrSet {
    cluster: IpNet,
    mask: u8,
    used: HashSet<u128>,
    /// Where to look next, so that a range just given up is not given out at once.
    next: u128,
}

impl CidrSet {
    fn new(cluster: IpNet, mask: u8) -> Result<Self, String> {
        let cluster = cluster.trunc();
        if mask < cluster.prefix_len() || mask > cluster.max_prefix_len() {
            return Err(format!("node CIDR mask size {mask} does not fit the cluster CIDR {cluster}"));
        }
        if mask - cluster.prefix_len() > 32 {
            return Err(format!("the node mask size {mask} of {cluster} makes more ranges than can be kept"));
        }
        Ok(Self { cluster, mask, used: HashSet::new(), next: 0 })
    }

    fn count(&self) -> u128 {
        1 << (self.mask - self.cluster.prefix_len())
    }

    fn shift(&self) -> u8 {
        self.cluster.max_prefix_len() - self.mask
    }

    fn base(&self) -> u128 {
        number(self.cluster.network())
    }

    fn range(&self, index: u128) -> IpNet {
        let value = self.base() + (index << self.shift());
        let address = match self.cluster {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(value as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(value)),
        };
        IpNet::new(address, self.mask).expect("the mask was checked")
    }

    /// The parts that a range touches.
    fn indexes(&self, range: &IpNet) -> std::ops::RangeInclusive<u128> {
        #[expect(clippy::reversed_empty_ranges, reason = "nothing is touched")]
        let none = 1..=0;
        let same_family = range.max_prefix_len() == self.cluster.max_prefix_len();
        let disjoint = !self.cluster.contains(&range.network()) && !range.contains(&self.cluster.network());
        if !same_family || disjoint {
            return none;
        }
        let index = |address: IpAddr| number(address).saturating_sub(self.base()) >> self.shift();
        index(range.network())..=index(range.broadcast()).min(self.count() - 1)
    }

    fn occupy(&mut self, range: &IpNet) {
        // A range that covers a huge part is remembered part by part; parts are few (see `new`).
        self.used.extend(self.indexes(range));
    }

    fn release(&mut self, range: &IpNet) {
        for index in self.indexes(range) {
            self.used.remove(&index);
        }
    }

    fn allocate(&mut self) -> Option<IpNet> {
        let count = self.count();
        if self.used.len() as u128 >= count {
            return None;
        }
        let index = (0..count).map(|step| (self.next + step) % count).find(|index| !self.used.contains(index))?;
        self.used.insert(index);
        self.next = (index + 1) % count;
        Some(self.range(index))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The sets that the configuration asks for.
fn sets(config: &Config) -> Result<Vec<CidrSet>, String> {
    let parse = |text: &String| text.parse::<IpNet>().map_err(|error| format!("invalid CIDR {text:?}: {error}"));
    let services: Vec<IpNet> = config.service_cluster_ip_range.iter().map(parse).collect::<Result<_, _>>()?;
    config
        .cluster_cidr
        .iter()
        .map(|text| {
            let cluster = parse(text)?;
            let (own, default) = match cluster {
                IpNet::V4(_) => (config.node_cidr_mask_size_ipv4, 24),
                IpNet::V6(_) => (config.node_cidr_mask_size_ipv6, 64),
            };
            let mask = [own, config.node_cidr_mask_size].into_iter().find(|size| *size > 0).unwrap_or(default);
            let mut set = CidrSet::new(cluster, mask)?;
            for service in &services {
                set.occupy(service);
            }
            Ok(set)
        })
        .collect()
}

struct NodeIpamController {
    client: Client,
    recorder: Recorder,
    nodes: Store<Node>,
    sets: Mutex<Vec<CidrSet>>,
    /// Ranges given out by us that the cache may not show yet, by node.
    given: Mutex<HashMap<String, Vec<IpNet>>>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    if !context.config.allocate_node_cidrs || context.config.cluster_cidr.is_empty() {
        return Box::pin(std::future::ready(()));
    }
    let sets = match sets(&context.config) {
        Ok(sets) => sets,
        Err(error) => {
            tracing::error!(controller = NAME, error, "cannot allocate node ranges");
            return Box::pin(std::future::ready(()));
        }
    };
    let nodes = context.informers.of::<Node>(&NODES);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    let controller = Arc::new(NodeIpamController {
        client: context.client("node-controller"),
        recorder: context.recorder("cidrAllocator"),
        nodes: nodes.store(),
        sets: Mutex::new(sets),
        given: Mutex::default(),
    });
    {
        let queue = queue.clone();
        let controller = controller.clone();
        nodes.on_event(move |event| match event {
            Event::Deleted(node) => controller.forget(node),
            Event::Added(node) | Event::Modified { new: node, .. } => {
                controller.occupy(node);
                if node.spec.pod_cidrs.is_empty() && node.spec.pod_cidr.is_empty() {
                    queue.add(node.metadata.key());
                }
            }
        });
    }
    let followed = [nodes.synced()];
    // Every range in use must be known before the first is given out.
    worker::start(NAME, queue, 8, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

fn ranges(node: &Node) -> Vec<IpNet> {
    let texts: &[String] =
        if node.spec.pod_cidrs.is_empty() { std::slice::from_ref(&node.spec.pod_cidr) } else { &node.spec.pod_cidrs };
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

impl NodeIpamController {
    fn occupy(&self, node: &Node) {
        let ranges = ranges(node);
        let mut sets = self.sets.lock();
        for range in &ranges {
            sets.iter_mut().for_each(|set| set.occupy(range));
        }
    }

    fn forget(&self, node: &Node) {
        let mut held = ranges(node);
        held.extend(self.given.lock().remove(&node.metadata.name).into_iter().flatten());
        let mut sets = self.sets.lock();
        for range in &held {
            sets.iter_mut().for_each(|set| set.release(range));
        }
    }

    /// Takes one range of each family, or none at all.
    fn take(&self) -> Option<Vec<IpNet>> {
        let mut sets = self.sets.lock();
        let mut taken = Vec::new();
        for place in 0..sets.len() {
            match sets[place].allocate() {
                Some(range) => taken.push(range),
                None => {
                    for (set, range) in sets.iter_mut().zip(&taken) {
                        set.release(range);
                    }
                    return None;
                }
            }
        }
        Some(taken)
    }

    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let Some(node) = self.nodes.get(key) else { return Ok(Requeue::Never) };
        if !ranges(&node).is_empty() {
            return Ok(Requeue::Never);
        }
        // A failed write keeps its ranges: it may have arrived, and a second attempt must ask for
        // the same.
        let known = self.given.lock().get(&key.name).cloned();
        let taken = match known {
            Some(taken) => taken,
            None => {
                let Some(taken) = self.take() else {
                    let regarding = Reference::of(&NODES, &node.metadata);
                    let note = format!("Node {} status is now: CIDRNotAvailable", key.name);
                    self.recorder.event(&regarding, "Normal", "CIDRNotAvailable", &note);
                    return Err(Error::Other(
                        "failed to allocate cidr from cluster cidr: there are no remaining CIDRs left".into(),
                    ));
                };
                self.given.lock().insert(key.name.clone(), taken.clone());
                taken
            }
        };
        let texts: Vec<String> = taken.iter().map(IpNet::to_string).collect();
        let patch = Patch::Strategic(json!({
            "metadata": { "uid": node.metadata.uid },
            "spec": { "podCIDR": texts.first(), "podCIDRs": texts },
        }));
        self.client.patch::<IgnoredAny>(&NODES, None, &key.name, None, &patch).await?;
        tracing::info!(controller = NAME, node = key.name, ranges = texts.join(","), "Set node PodCIDR");
        Ok(Requeue::Never)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cluster: &str, mask: u8) -> CidrSet {
        CidrSet::new(cluster.parse().unwrap(), mask).unwrap()
    }

    fn take(set: &mut CidrSet) -> Option<String> {
        set.allocate().map(|range| range.to_string())
    }

    #[test]
    fn ranges_are_given_out_in_turn() {
        let mut set = set("10.244.0.0/22", 24);
        set.occupy(&"10.244.1.0/24".parse().unwrap());
        assert_eq!(take(&mut set).as_deref(), Some("10.244.0.0/24"));
        assert_eq!(take(&mut set).as_deref(), Some("10.244.2.0/24"));
        set.release(&"10.244.0.0/24".parse().unwrap());
        assert_eq!(take(&mut set).as_deref(), Some("10.244.3.0/24"), "the one just given up waits");
        assert_eq!(take(&mut set).as_deref(), Some("10.244.0.0/24"));
        assert_eq!(take(&mut set), None);
        set.occupy(&"192.168.0.0/16".parse().unwrap());
        set.occupy(&"fd00::/64".parse().unwrap());
    }

    #[test]
    fn overlaps_of_any_size_are_respected() {
        let mut small = set("10.0.0.0/16", 24);
        small.occupy(&"10.0.0.128/25".parse().unwrap());
        small.occupy(&"10.0.1.0/24".parse().unwrap());
        assert_eq!(take(&mut small).as_deref(), Some("10.0.2.0/24"));
        let mut covered = set("10.0.0.0/16", 24);
        covered.occupy(&"10.0.0.0/8".parse().unwrap());
        assert_eq!(take(&mut covered), None);
        let mut v6 = set("fd00:10:244::/56", 64);
        assert_eq!(take(&mut v6).as_deref(), Some("fd00:10:244::/64"));
        assert_eq!(take(&mut v6).as_deref(), Some("fd00:10:244:1::/64"));
    }

    #[test]
    fn settings_are_checked() {
        let config = Config {
            cluster_cidr: vec!["10.244.0.0/16".into(), "fd00::/48".into()],
            service_cluster_ip_range: vec!["10.244.0.0/24".into()],
            ..Config::default()
        };
        let mut made = sets(&config).unwrap();
        assert_eq!(take(&mut made[0]).as_deref(), Some("10.244.1.0/24"));
        assert_eq!(made[1].mask, 64);
        assert!(CidrSet::new("10.0.0.0/24".parse().unwrap(), 16).is_err());
        assert!(CidrSet::new("fd00::/8".parse().unwrap(), 64).is_err());
    }
}
