//! Pure: how sick each zone is, and how fast its nodes may be tainted.
//!
//! When much of a zone falls silent at once, the network is a likelier cause than the nodes; then
//! evicting would do harm. When every zone is silent, it is us, and nothing is evicted at all.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::types::Node;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZoneState {
    Normal,
    /// More than the threshold of it, and more than two nodes, are not ready.
    PartialDisruption,
    /// Nothing in it is ready.
    FullDisruption,
}

pub(super) fn zone_of(node: &Node) -> String {
    let label = |keys: [&str; 2]| keys.iter().find_map(|key| node.metadata.label(key)).unwrap_or_default();
    let region = label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]);
    let zone = label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]);
    format!("{region}:\u{0}:{zone}")
}

/// The state of a zone with these numbers of nodes.
pub(super) fn state(ready: usize, not_ready: usize, threshold: f64) -> ZoneState {
    if ready == 0 && not_ready > 0 {
        ZoneState::FullDisruption
    } else if not_ready > 2 && not_ready as f64 / (ready + not_ready) as f64 >= threshold {
        ZoneState::PartialDisruption
    } else {
        ZoneState::Normal
    }
}

/// The state and size of each zone.
pub(super) fn states<'a>(
    nodes: impl IntoIterator<Item = (&'a Node, bool)>,
    threshold: f64,
) -> BTreeMap<String, (ZoneState, usize)> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (node, ready) in nodes {
        // Some nodes come and go by their nature and say nothing about their zone.
        if node.metadata.labels.contains_key("node.kubernetes.io/exclude-disruption") {
            continue;
        }
        let count = counts.entry(zone_of(node)).or_default();
        *if ready { &mut count.0 } else { &mut count.1 } += 1;
    }
    counts
        .into_iter()
        .map(|(zone, (ready, not_ready))| (zone, (state(ready, not_ready, threshold), ready + not_ready)))
        .collect()
}

/// Nodes a second that may be tainted in a zone.
pub(super) fn rate(state: ZoneState, size: usize, config: &Config) -> f64 {
    match state {
        ZoneState::Normal | ZoneState::FullDisruption => config.node_eviction_rate,
        ZoneState::PartialDisruption if size > config.large_cluster_size_threshold => {
            config.secondary_node_eviction_rate
        }
        ZoneState::PartialDisruption => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones() {
        for (ready, not_ready, expected) in [
            (3, 0, ZoneState::Normal),
            (0, 1, ZoneState::FullDisruption),
            (1, 2, ZoneState::Normal),
            (2, 3, ZoneState::PartialDisruption),
            (4, 3, ZoneState::Normal),
        ] {
            assert_eq!(state(ready, not_ready, 0.55), expected, "{ready} {not_ready}");
        }
        let config = Config::default();
        assert_eq!(rate(ZoneState::PartialDisruption, 10, &config), 0.0);
        assert_eq!(rate(ZoneState::PartialDisruption, 100, &config), 0.01);
        assert_eq!(rate(ZoneState::Normal, 10, &config), 0.1);
    }
}
