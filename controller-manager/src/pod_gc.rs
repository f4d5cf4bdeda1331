//! Removes pods nobody else will: finished ones beyond a threshold, those on nodes that no longer
//! exist, those that end without ever having been scheduled, and those stuck on nodes that are out of
//! service.
//!
//! Reads pods and nodes; writes `pods/status` and deletes pods. Upstream: `pkg/controller/podgc`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::informer::Store;
use client::resources::{NODES, PODS};
use client::{Client, DeleteOptions, ObjectKey, Patch};
use component_base::clock::SharedClock;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::context::{Context, synced};
use crate::types::{Condition, MetadataOnly, Node, Pod, condition, whole_seconds};

pub const NAME: &str = "pod-garbage-collector-controller";

const PERIOD: Duration = Duration::from_secs(20);
/// A node that is missing for this long is gone and not only late in the cache.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const PARALLEL: usize = 16;

struct PodGc {
    client: Client,
    clock: SharedClock,
    pods: Store<Pod>,
    nodes: Store<Node>,
    threshold: i64,
    /// Since when each missing node is missed, by the monotonic clock.
    missing: HashMap<String, Duration>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let pods = context.informers.of::<Pod>(&PODS);
    let nodes = context.informers.of::<Node>(&NODES);
    let mut collector = PodGc {
        client: context.client("pod-garbage-collector"),
        clock: context.clock.clone(),
        pods: pods.store(),
        nodes: nodes.store(),
        threshold: context.config.terminated_pod_gc_threshold,
        missing: HashMap::new(),
    };
    let shutdown = context.shutdown.clone();
    Box::pin(async move {
        let informers = async {
            pods.wait_synced().await;
            nodes.wait_synced().await;
        };
        if !synced(&shutdown, informers).await {
            return;
        }
        loop {
            let clock = collector.clock.clone();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = clock.sleep(PERIOD) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = collector.pass() => {}
            }
        }
    })
}

/// Pure: the oldest finished pods beyond the threshold.
fn surplus(pods: &[Arc<Pod>], threshold: i64) -> Vec<Arc<Pod>> {
    if threshold <= 0 {
        return Vec::new();
    }
    let mut finished: Vec<&Arc<Pod>> = pods
        .iter()
        .filter(|pod| !matches!(pod.status.phase.as_str(), "" | "Pending" | "Running" | "Unknown"))
        .collect();
    let excess = finished.len().saturating_sub(threshold as usize);
    // Evicted ones first, then by age.
    finished.sort_by_key(|pod| {
        (pod.status.reason != "Evicted", pod.metadata.creation_timestamp, pod.metadata.name.clone())
    });
    finished.into_iter().take(excess).cloned().collect()
}

/// Pure: pods that end on nodes which are out of service.
fn stuck(pods: &[Arc<Pod>], nodes: &Store<Node>) -> Vec<Arc<Pod>> {
    pods.iter()
        .filter(|pod| pod.metadata.is_deleting())
        .filter(|pod| {
            nodes.get(&ObjectKey::cluster(pod.spec.node_name.clone())).is_some_and(|node| {
                let ready = condition(&node.status.conditions, "Ready").is_some_and(Condition::is_true);
                !ready && node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
            })
        })
        .cloned()
        .collect()
}

/// Pure: pods that end and were never scheduled: no kubelet will take them away.
fn unscheduled(pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    pods.iter().filter(|pod| pod.metadata.is_deleting() && pod.spec.node_name.is_empty()).cloned().collect()
}

impl PodGc {
    async fn pass(&mut self) {
        let pods = self.pods.list();
        self.remove_all(surplus(&pods, self.threshold), None).await;
        self.remove_all(stuck(&pods, &self.nodes), None).await;
        let orphans = self.orphans(&pods).await;
        let target = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
            "lastTransitionTime": whole_seconds(self.clock.now()),
        });
        self.remove_all(orphans, Some(target)).await;
        self.remove_all(unscheduled(&pods), None).await;
    }

    /// Pods on nodes that have been missing long enough, and that the server does not know either.
    async fn orphans(&mut self, pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let present: HashSet<String> = self.nodes.keys().into_iter().map(|key| key.name).collect();
        let needed: HashSet<&str> = pods
            .iter()
            .map(|pod| pod.spec.node_name.as_str())
            .filter(|node| !node.is_empty() && !present.contains(*node))
            .collect();
        self.missing.retain(|node, _| needed.contains(node.as_str()));
        let now = self.clock.monotonic();
        let mut gone = HashSet::new();
        for node in needed {
            let since = *self.missing.entry(node.to_string()).or_insert(now);
            if now.saturating_sub(since) < QUARANTINE {
                continue;
            }
            let asked: client::Result<MetadataOnly> = self.client.get_metadata(&NODES, None, node).await;
            match asked {
                Err(error) if error.is_not_found() => {
                    gone.insert(node.to_string());
                }
                Err(error) => tracing::error!(controller = NAME, node, error = error.chain(), "cannot look for a node"),
                Ok(_) => {}
            }
        }
        pods.iter().filter(|pod| gone.contains(&pod.spec.node_name)).cloned().collect()
    }

    async fn remove_all(&self, pods: Vec<Arc<Pod>>, target: Option<Value>) {
        let target = &target;
        futures::stream::iter(pods)
            .for_each_concurrent(PARALLEL, |pod| async move {
                if let Err(error) = self.remove(&pod, target.as_ref()).await
                    && !error.is_not_found()
                {
                    tracing::error!(controller = NAME, pod = %pod.metadata.key(), error = error.chain(), "cannot remove a pod");
                }
            })
            .await;
    }

    /// Marks a pod that is not over as failed, so that whoever counts it counts right, and deletes it
    /// without waiting for a kubelet.
    async fn remove(&self, pod: &Pod, target: Option<&Value>) -> client::Result<()> {
        let (namespace, name) = (Some(pod.metadata.namespace.as_str()), pod.metadata.name.as_str());
        tracing::info!(controller = NAME, pod = %pod.metadata.key(), "PodGC is force deleting Pod");
        if !pod.is_finished() {
            let mut status = json!({ "phase": "Failed" });
            if let Some(target) = target {
                status["conditions"] = json!([target]);
            }
            let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.metadata.uid }, "status": status }));
            self.client.patch::<IgnoredAny>(&PODS, namespace, name, Some("status"), &patch).await?;
        }
        self.client.delete(&PODS, namespace, name, &DeleteOptions::uid(&pod.metadata.uid).grace(0)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use crate::types::Taint;

    fn names(pods: Vec<Arc<Pod>>) -> Vec<String> {
        pods.iter().map(|pod| pod.metadata.name.clone()).collect()
    }

    #[test]
    fn the_oldest_finished_go_first() {
        let pods: Vec<Arc<Pod>> = [
            pod("young").phase("Succeeded").created(30),
            pod("old").phase("Failed").created(10),
            pod("middle").phase("Succeeded").created(20),
            pod("running").running().created(1),
        ]
        .into_iter()
        .map(|pod| Arc::new(pod.build()))
        .collect();
        assert_eq!(names(surplus(&pods, 1)), ["old", "middle"]);
        assert!(surplus(&pods, 3).is_empty());
        assert!(surplus(&pods, 0).is_empty());
    }

    #[test]
    fn pods_without_a_kubelet_are_found() {
        let nodes: Store<Node> = Store::default();
        let mut dead = Node::default();
        dead.metadata.name = "dead".into();
        dead.spec.taints = vec![Taint { key: OUT_OF_SERVICE.into(), effect: "NoExecute".into(), ..Taint::default() }];
        nodes.insert(Arc::new(dead));
        let pods: Vec<Arc<Pod>> = [
            pod("ending-nowhere").deleting(),
            pod("ending-dead").node("dead").deleting(),
            pod("ending-alive").node("alive").deleting(),
            pod("waiting"),
        ]
        .into_iter()
        .map(|pod| Arc::new(pod.build()))
        .collect();
        assert_eq!(names(unscheduled(&pods)), ["ending-nowhere"]);
        assert_eq!(names(stuck(&pods, &nodes)), ["ending-dead"]);
    }
}
