//! Gives every node its part of the pod address ranges (`spec.podCIDRs`), from the lowest free one up.
//!
//! Reads and writes nodes. What is allocated is known from the nodes themselves, so a restart finds it
//! again, and what a deleted node had becomes free. Runs only with `--allocate-node-cidrs`.
//! Upstream: `pkg/controller/nodeipam`, the range allocator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::events::{Recorder, Reference};
use client::informer::{Event, Store};
use client::resources::NODES;
use client::workqueue::WorkQueue;
use client::{Client, ObjectKey, Patch};
use futures::future::BoxFuture;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::types::Node;
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "node-ipam-controller";

/// Upstream's default sizes of a node's part.
const DEFAULT_MASK_V4: u8 = 24;
const DEFAULT_MASK_V6: u8 = 64;
/// Upstream's bound: a range is cut into at most this many bits' worth of parts.
const MAX_BITS: u8 = 16;

/// One cluster range, cut into parts of one size.
#[derive(Debug)]
struct Range {
    range: IpNet,
    mask: u8,
    /// Part number → the node that has it.
    taken: BTreeMap<u32, String>,
}

/// Why a range cannot be used; the text goes to the log.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum RangeError {
    #[error("{0:?} is not a CIDR")]
    Parse(String),
    #[error("node mask size {mask} does not fit into cluster range {range}")]
    Mask { range: IpNet, mask: u8 },
}

impl Range {
    fn new(range: &str, mask_v4: u8, mask_v6: u8) -> Result<Range, RangeError> {
        let range: IpNet = range.trim().parse().map_err(|_| RangeError::Parse(range.to_owned()))?;
        let (size, default) = match range {
            IpNet::V4(_) => (mask_v4, DEFAULT_MASK_V4),
            IpNet::V6(_) => (mask_v6, DEFAULT_MASK_V6),
        };
        let mask = if size == 0 { default } else { size };
        if mask < range.prefix_len() || mask > range.max_prefix_len() || mask - range.prefix_len() > MAX_BITS {
            return Err(RangeError::Mask { range, mask });
        }
        Ok(Range { range: range.trunc(), mask, taken: BTreeMap::new() })
    }

    fn parts(&self) -> u32 {
        1 << (self.mask - self.range.prefix_len())
    }

    fn part(&self, number: u32) -> IpNet {
        match self.range {
            IpNet::V4(range) => {
                let address = u32::from(range.network()) + (number << (32 - self.mask));
                Ipv4Net::new(address.into(), self.mask).expect("the mask was checked").into()
            }
            IpNet::V6(range) => {
                let address = u128::from(range.network()) + (u128::from(number) << (128 - self.mask));
                Ipv6Net::new(address.into(), self.mask).expect("the mask was checked").into()
            }
        }
    }

    /// The parts that a node's CIDR lies on; none when it is elsewhere.
    fn numbers(&self, cidr: &IpNet) -> std::ops::RangeInclusive<u32> {
        #[expect(clippy::reversed_empty_ranges, reason = "the empty range of parts")]
        const NONE: std::ops::RangeInclusive<u32> = 1..=0;
        let (first, last) = match (self.range, cidr) {
            (IpNet::V4(range), IpNet::V4(cidr)) => {
                let base = u128::from(u32::from(range.network()));
                let shift = 32 - self.mask;
                let number =
                    |address: std::net::Ipv4Addr| u128::from(u32::from(address)).checked_sub(base).map(|n| n >> shift);
                (number(cidr.network()), number(cidr.broadcast()))
            }
            (IpNet::V6(range), IpNet::V6(cidr)) => {
                let base = u128::from(range.network());
                let shift = 128 - self.mask;
                let number = |address: std::net::Ipv6Addr| u128::from(address).checked_sub(base).map(|n| n >> shift);
                (number(cidr.network()), number(cidr.broadcast()))
            }
            _ => return NONE,
        };
        let Some(last) = last else { return NONE };
        let most = u128::from(self.parts() - 1);
        let first = first.unwrap_or(0);
        if first > most {
            return NONE;
        }
        let number = |part: u128| u32::try_from(part.min(most)).expect("bounded by the number of parts");
        number(first)..=number(last)
    }

    fn occupy(&mut self, cidr: &IpNet, node: &str) {
        for number in self.numbers(cidr) {
            self.taken.insert(number, node.to_owned());
        }
    }

    fn allocate(&mut self, node: &str) -> Option<IpNet> {
        let number = (0..self.parts()).find(|number| !self.taken.contains_key(number))?;
        self.taken.insert(number, node.to_owned());
        Some(self.part(number))
    }

    fn release(&mut self, node: &str) {
        self.taken.retain(|_, owner| owner != node);
    }
}

struct NodeIpam {
    client: Client,
    recorder: Recorder,
    nodes: Store<Node>,
    ranges: Mutex<Vec<Range>>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let config = &context.config;
    if !config.allocate_node_cidrs {
        return Box::pin(async {});
    }
    let own = |size: u8| if size == 0 { config.node_cidr_mask_size } else { size };
    let (v4, v6) = (own(config.node_cidr_mask_size_ipv4), own(config.node_cidr_mask_size_ipv6));
    let ranges: Result<Vec<Range>, RangeError> =
        config.cluster_cidr.iter().map(|range| Range::new(range, v4, v6)).collect();
    let ranges = match ranges {
        Ok(ranges) if !ranges.is_empty() => ranges,
        Ok(_) => {
            tracing::error!(controller = NAME, "--allocate-node-cidrs needs --cluster-cidr");
            return Box::pin(async {});
        }
        Err(error) => {
            tracing::error!(controller = NAME, %error, "no node gets a pod range");
            return Box::pin(async {});
        }
    };
    let nodes = context.informers.of::<Node>(&NODES);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    nodes.on_event({
        let queue = queue.clone();
        move |event: &Event<Node>| {
            if !matches!(event, Event::Modified { new, .. } if !new.spec.pod_cidrs.is_empty()) {
                queue.add(event.object().metadata.key());
            }
        }
    });
    let controller = Arc::new(NodeIpam {
        client: context.client(NAME),
        recorder: context.recorder("cidrAllocator"),
        nodes: nodes.store(),
        ranges: Mutex::new(ranges),
    });
    let shutdown = context.shutdown.clone();
    Box::pin(async move {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = nodes.wait_synced() => {}
        }
        // Before anything is given away, everything that was given before is taken note of.
        for node in controller.nodes.list() {
            controller.note(&node);
        }
        worker::run(NAME, queue, 1, shutdown, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        })
        .await;
    })
}

impl NodeIpam {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let Some(node) = self.nodes.get(key) else {
            self.ranges.lock().iter_mut().for_each(|range| range.release(&key.name));
            return Ok(Requeue::Never);
        };
        if !node.spec.pod_cidrs.is_empty() {
            self.note(&node);
            return Ok(Requeue::Never);
        }
        let Some(cidrs) = self.allocate(&key.name) else {
            let about = Reference::of(&NODES, &node.metadata);
            let note = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.recorder.event(&about, "Normal", "CIDRNotAvailable", &note);
            return Err(Error::Other("no part of a cluster range is free".to_owned()));
        };
        let cidrs: Vec<String> = cidrs.iter().map(IpNet::to_string).collect();
        let patch = Patch::Strategic(json!({"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}}));
        match self.client.patch::<serde::de::IgnoredAny>(&NODES, None, &key.name, None, &patch).await {
            Ok(_) => Ok(Requeue::Never),
            Err(error) => {
                // Whether it was written is not known after a timeout: the cache will tell, and what was
                // not written is free again.
                self.ranges.lock().iter_mut().for_each(|range| range.release(&key.name));
                if error.is_not_found() { Ok(Requeue::Never) } else { Err(error.into()) }
            }
        }
    }

    /// One part of every range, or none at all.
    fn allocate(&self, node: &str) -> Option<Vec<IpNet>> {
        let mut ranges = self.ranges.lock();
        let parts: Vec<IpNet> = ranges.iter_mut().map_while(|range| range.allocate(node)).collect();
        if parts.len() == ranges.len() {
            return Some(parts);
        }
        ranges.iter_mut().for_each(|range| range.release(node));
        None
    }

    fn note(&self, node: &Node) {
        let cidrs: BTreeSet<IpNet> = node.spec.pod_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
        for range in self.ranges.lock().iter_mut() {
            cidrs.iter().for_each(|cidr| range.occupy(cidr, &node.metadata.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(cidr: &str, mask: u8) -> Range {
        Range::new(cidr, mask, mask).expect("a good range")
    }

    fn net(cidr: &str) -> IpNet {
        cidr.parse().expect("a CIDR")
    }

    #[test]
    fn parts_are_given_from_the_lowest_free_one() {
        let mut range = range("10.244.0.0/16", 24);
        range.occupy(&net("10.244.1.0/24"), "b");
        assert_eq!(range.allocate("a"), Some(net("10.244.0.0/24")));
        assert_eq!(range.allocate("c"), Some(net("10.244.2.0/24")));
        range.release("b");
        assert_eq!(range.allocate("d"), Some(net("10.244.1.0/24")));
    }

    #[test]
    fn a_range_runs_out() {
        let mut range = range("10.0.0.0/23", 24);
        assert!(range.allocate("a").is_some() && range.allocate("b").is_some());
        assert_eq!(range.allocate("c"), None);
    }

    #[test]
    fn wider_and_foreign_parts_are_occupied_rightly() {
        let mut range = range("10.244.0.0/16", 24);
        range.occupy(&net("10.244.0.0/22"), "wide");
        range.occupy(&net("192.168.0.0/24"), "foreign");
        range.occupy(&net("10.245.0.0/24"), "next door");
        assert_eq!(range.taken.len(), 4);
        assert_eq!(range.allocate("a"), Some(net("10.244.4.0/24")));
    }

    #[test]
    fn ipv6_and_masks() {
        let mut v6 = Range::new("fd00::/56", 0, 0).expect("a good range");
        assert_eq!(v6.allocate("a"), Some(net("fd00::/64")));
        assert_eq!(v6.allocate("b"), Some(net("fd00:0:0:1::/64")));
        assert!(matches!(Range::new("10.0.0.0/24", 16, 0), Err(RangeError::Mask { .. })));
        assert!(matches!(Range::new("fd00::/32", 0, 64), Err(RangeError::Mask { .. })));
        assert!(matches!(Range::new("pods", 0, 0), Err(RangeError::Parse(_))));
    }
}
