//! Prefers nodes that have the pod's images already, large and widely spread ones most.

use std::sync::Arc;

use serde_json::Value;

use super::Handle;
use crate::framework::pod_info::PodInfo;
use crate::framework::snapshot::Snapshot;
use crate::framework::{CycleState, MAX_NODE_SCORE, Plugin, Score, Slot};

/// The plugin's name.
pub const NAME: &str = "ImageLocality";

/// Less than this (bytes, all images together) does not matter.
const MIN_THRESHOLD: i64 = 23 * 1024 * 1024;
/// More than this per container does not matter more.
const MAX_CONTAINER_THRESHOLD: i64 = 1000 * 1024 * 1024;

struct ImageLocality;

impl Score for ImageLocality {
    fn score(&self, _: &CycleState, pod: &PodInfo, slot: Slot, snapshot: &Snapshot) -> i64 {
        let images = &snapshot.node(slot).images;
        if images.is_empty() {
            return 0;
        }
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // as upstream computes it
        let sum: i64 = pod
            .images
            .iter()
            .filter_map(|image| {
                let size = images.get(image)?;
                // An image on few nodes counts little, or those nodes would attract everything.
                let spread = snapshot.image_nodes(image) as f64 / snapshot.known_order().len().max(1) as f64;
                Some((*size as f64 * spread) as i64)
            })
            .sum();
        priority(sum, i64::try_from(pod.images.len()).unwrap_or(1))
    }
}

fn priority(sum: i64, containers: i64) -> i64 {
    let max = MAX_CONTAINER_THRESHOLD * containers.max(1);
    MAX_NODE_SCORE * (sum.clamp(MIN_THRESHOLD, max) - MIN_THRESHOLD) / (max - MIN_THRESHOLD)
}

/// Builds it.
pub fn new(_: &Value, _: &Handle) -> Result<Plugin, String> {
    Ok(Plugin { name: NAME, score: Some(Arc::new(ImageLocality)), ..Plugin::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod};

    const MB: i64 = 1024 * 1024;

    #[test]
    fn large_images_attract() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("a").image("img-40:latest", 40 * MB).image("img-300:latest", 300 * MB).done());
        snapshot.set_node(node("b").image("img-250:latest", 250 * MB).image("img-10:latest", 10 * MB).done());
        snapshot.order();
        let check = |image: &str, expected: [i64; 2]| {
            let pod = pod("p").image(image).info();
            let scores = [0, 1].map(|slot| ImageLocality.score(&CycleState::default(), &pod, slot, &snapshot));
            assert_eq!(scores, expected, "{image}");
        };
        // 40 MB on one of two nodes is 20 MB, below the threshold
        check("img-40", [0, 0]);
        // 100 × (150 − 23) / (1000 − 23)
        check("img-300", [12, 0]);
        check("img-250", [0, 10]);
        check("elsewhere", [0, 0]);
    }
}
