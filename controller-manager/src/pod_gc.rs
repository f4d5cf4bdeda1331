//! Deletes pods that nobody else will: those bound to nodes that are gone, those being deleted before they
//! were bound, those on nodes that are out of service, and finished ones above a threshold, oldest first.
//!
//! Reads pods and nodes; deletes pods. Time itself makes pods garbage (a node must be gone for a while), so
//! it looks around every 20 seconds, as upstream does. Upstream: `pkg/controller/podgc`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::informer::Store;
use client::resources::{NODES, PODS};
use client::{Client, DeleteOptions, Patch, Timestamp};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::types::{Node, Pod, whole_seconds};

pub const NAME: &str = "pod-garbage-collector-controller";

/// Upstream's period.
const PERIOD: Duration = Duration::from_secs(20);
/// Upstream's quarantine: a node must be missing for this long before its pods are taken for orphans, so
/// that a cache that is behind costs no pod.
const QUARANTINE: Duration = Duration::from_secs(40);
/// The taint with which an administrator says that a node is shut down for good.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

struct PodGc {
    client: Client,
    clock: SharedClock,
    pods: Store<Pod>,
    nodes: Store<Node>,
    threshold: i64,
    /// Nodes that pods name and the cache has not, with the time of the first look.
    missing: Mutex<HashMap<String, Timestamp>>,
}

/// Why a pod is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Garbage {
    Orphaned,
    Unscheduled,
    OutOfService,
    Terminated,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let pods = context.informers.of::<Pod>(&PODS);
    let nodes = context.informers.of::<Node>(&NODES);
    let controller = PodGc {
        client: context.client(NAME),
        clock: context.clock.clone(),
        pods: pods.store(),
        nodes: nodes.store(),
        threshold: context.config.terminated_pod_gc_threshold,
        missing: Mutex::new(HashMap::new()),
    };
    let shutdown = context.shutdown.clone();
    Box::pin(async move {
        let informers = async {
            pods.wait_synced().await;
            nodes.wait_synced().await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = informers => {}
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = controller.clock.sleep(PERIOD) => controller.collect().await,
            }
        }
    })
}

impl PodGc {
    async fn collect(&self) {
        let (pods, nodes) = (self.pods.list(), self.nodes.list());
        let gone = self.gone(&pods, &nodes).await;
        for (pod, why) in garbage(&pods, &nodes, &gone, self.threshold) {
            if let Err(error) = self.delete(&pod, why).await {
                tracing::error!(controller = NAME, pod = %pod.metadata.key(), error = error.chain(), "cannot delete a pod");
            }
        }
    }

    /// The nodes that have been missing for long enough and that the API itself does not know either.
    async fn gone(&self, pods: &[Arc<Pod>], nodes: &[Arc<Node>]) -> HashSet<String> {
        let old = {
            let mut missing = self.missing.lock();
            quarantine(&mut missing, pods, nodes, self.clock.now())
        };
        let mut gone = HashSet::new();
        for node in old {
            match self.client.get::<Node>(&NODES, None, &node).await {
                Err(error) if error.is_not_found() => {
                    gone.insert(node);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(controller = NAME, node, error = error.chain(), "cannot look for a node"),
            }
        }
        gone
    }

    async fn delete(&self, pod: &Pod, why: Garbage) -> client::Result<()> {
        let (namespace, name) = (Some(pod.metadata.namespace.as_str()), pod.metadata.name.as_str());
        if why != Garbage::Terminated && !pod.is_finished() {
            let patch = Patch::Strategic(failed_status(pod, why, whole_seconds(self.clock.now())));
            match self.client.patch::<serde::de::IgnoredAny>(&PODS, namespace, name, Some("status"), &patch).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        match self.client.delete(&PODS, namespace, name, &DeleteOptions::uid(&pod.metadata.uid).grace(0)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

/// What a pod that will never report again is made to say.
fn failed_status(pod: &Pod, why: Garbage, now: Timestamp) -> serde_json::Value {
    let mut status = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed"}});
    if why == Garbage::Orphaned {
        status["status"]["conditions"] = json!([{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
            "lastTransitionTime": now,
        }]);
    } else if why == Garbage::OutOfService {
        status["status"]["conditions"] = json!([{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "PodGC: node is out of service",
            "lastTransitionTime": now,
        }]);
    }
    status
}

/// Keeps note of missing nodes and gives those whose quarantine is over.
fn quarantine(
    missing: &mut HashMap<String, Timestamp>,
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    now: Timestamp,
) -> Vec<String> {
    let known: HashSet<&str> = nodes.iter().map(|node| node.metadata.name.as_str()).collect();
    let named: HashSet<&str> =
        pods.iter().map(|pod| pod.spec.node_name.as_str()).filter(|name| !name.is_empty()).collect();
    missing.retain(|node, _| named.contains(node.as_str()) && !known.contains(node.as_str()));
    for node in named.difference(&known) {
        missing.entry((*node).to_owned()).or_insert(now);
    }
    let over = |since: &Timestamp| now.duration_since(*since).unsigned_abs() >= QUARANTINE;
    missing.iter().filter(|(_, since)| over(since)).map(|(node, _)| node.clone()).collect()
}

/// Every pod to delete, with the reason.
fn garbage(pods: &[Arc<Pod>], nodes: &[Arc<Node>], gone: &HashSet<String>, threshold: i64) -> Vec<(Arc<Pod>, Garbage)> {
    let out_of_service: HashSet<&str> = nodes
        .iter()
        .filter(|node| !is_ready(node) && node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE))
        .map(|node| node.metadata.name.as_str())
        .collect();
    let mut found: Vec<(Arc<Pod>, Garbage)> = Vec::new();
    for pod in pods {
        let why = if gone.contains(&pod.spec.node_name) {
            Garbage::Orphaned
        } else if pod.metadata.is_deleting() && pod.spec.node_name.is_empty() {
            Garbage::Unscheduled
        } else if pod.metadata.is_deleting() && out_of_service.contains(pod.spec.node_name.as_str()) {
            Garbage::OutOfService
        } else {
            continue;
        };
        found.push((pod.clone(), why));
    }
    if threshold > 0 {
        let mut finished: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pod.is_finished()).collect();
        finished.sort_by_key(|pod| (pod.metadata.creation_timestamp, pod.metadata.name.clone()));
        let above = finished.len().saturating_sub(usize::try_from(threshold).unwrap_or(usize::MAX));
        found.extend(finished.into_iter().take(above).map(|pod| (pod.clone(), Garbage::Terminated)));
    }
    found
}

fn is_ready(node: &Node) -> bool {
    node.status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.is_true())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use crate::types::Taint;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn node(name: &str, taints: &[&str]) -> Arc<Node> {
        let mut node = Node::default();
        node.metadata.name = name.into();
        node.spec.taints = taints
            .iter()
            .map(|key| Taint { key: (*key).into(), effect: "NoExecute".into(), ..Taint::default() })
            .collect();
        Arc::new(node)
    }

    fn check(pods: Vec<Pod>, nodes: &[Arc<Node>], gone: &[&str], threshold: i64) -> Vec<(String, Garbage)> {
        let pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
        let gone = gone.iter().map(|name| (*name).to_owned()).collect();
        garbage(&pods, nodes, &gone, threshold).into_iter().map(|(pod, why)| (pod.metadata.name.clone(), why)).collect()
    }

    fn deleting(mut pod: Pod) -> Pod {
        pod.metadata.deletion_timestamp = Some(at(5));
        pod
    }

    #[test]
    fn pods_of_lost_nodes_and_deleted_unbound_ones_go() {
        let pods = vec![
            pod("lost").node("gone").build(),
            pod("fine").node("n1").build(),
            deleting(pod("unbound").build()),
            deleting(pod("ending").node("n1").build()),
        ];
        let found = check(pods, &[node("n1", &[])], &["gone"], 0);
        assert_eq!(found, [("lost".to_owned(), Garbage::Orphaned), ("unbound".to_owned(), Garbage::Unscheduled)]);
    }

    #[test]
    fn out_of_service_takes_only_pods_that_are_being_deleted() {
        let pods = vec![deleting(pod("stuck").node("n1").build()), pod("stays").node("n1").build()];
        let found = check(pods, &[node("n1", &[OUT_OF_SERVICE])], &[], 0);
        assert_eq!(found, [("stuck".to_owned(), Garbage::OutOfService)]);
    }

    #[test]
    fn the_oldest_finished_pods_above_the_threshold_go() {
        let finished = |name: &str, created| pod(name).node("n1").phase("Succeeded").created(created).build();
        let pods =
            vec![finished("new", 30), finished("oldest", 10), finished("old", 20), pod("runs").running().build()];
        let names = |threshold| check(pods.clone(), &[], &[], threshold);
        assert_eq!(names(1), [("oldest".to_owned(), Garbage::Terminated), ("old".to_owned(), Garbage::Terminated)]);
        assert_eq!(names(3), []);
        assert_eq!(names(0), []);
    }

    #[test]
    fn a_node_is_gone_only_after_its_quarantine() {
        let mut missing = HashMap::new();
        let pods = [Arc::new(pod("p").node("n1").build())];
        assert!(quarantine(&mut missing, &pods, &[], at(100)).is_empty());
        assert!(quarantine(&mut missing, &pods, &[], at(139)).is_empty());
        assert_eq!(quarantine(&mut missing, &pods, &[], at(140)), ["n1"]);
        assert!(quarantine(&mut missing, &pods, &[node("n1", &[])], at(150)).is_empty());
        assert!(quarantine(&mut missing, &pods, &[], at(160)).is_empty(), "it was back: its time starts anew");
    }
}
