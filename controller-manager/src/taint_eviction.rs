//! Deletes pods from nodes whose `NoExecute` taints they do not tolerate, or no longer.
//!
//! Reads nodes and pods; writes `pods/status` (condition DisruptionTarget) and deletes pods.
//! Upstream: `pkg/controller/tainteviction`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::events::{Recorder, Reference};
use client::informer::{Event, Store};
use client::resources::{NODES, PODS};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, ObjectKey, Patch, Timestamp};
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::context::Context;
use crate::node_lifecycle::taints::NO_EXECUTE;
use crate::node_lifecycle::{BY_NODE, index_by_node};
use crate::types::{Node, Pod, Taint, Toleration, whole_seconds};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "taint-eviction-controller";

struct TaintEvictionController {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    nodes: Store<Node>,
    pods: Store<Pod>,
    /// Since when each waiting pod waits.
    waiting: Mutex<HashMap<ObjectKey, Timestamp>>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let nodes = context.informers.of::<Node>(&NODES);
    let pods = context.informers.of::<Pod>(&PODS);
    index_by_node(&pods);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        let pods = pods.store();
        nodes.on_event(move |event| {
            let node = event.object();
            let matters = match event {
                Event::Added(node) => no_execute(node).next().is_some(),
                Event::Modified { old, new } => !no_execute(old).eq(no_execute(new)),
                Event::Deleted(_) => false,
            };
            if matters {
                for pod in pods.by_index(BY_NODE, &node.metadata.name) {
                    queue.add(pod.metadata.key());
                }
            }
        });
    }
    {
        let queue = queue.clone();
        pods.on_event(move |event| {
            let matters = match event {
                Event::Added(pod) => !pod.spec.node_name.is_empty(),
                Event::Modified { old, new } => {
                    old.spec.node_name != new.spec.node_name || old.spec.tolerations != new.spec.tolerations
                }
                Event::Deleted(_) => true,
            };
            if matters {
                queue.add(event.object().metadata.key());
            }
        });
    }
    let controller = Arc::new(TaintEvictionController {
        client: context.client("node-controller"),
        clock: context.clock.clone(),
        recorder: context.recorder(NAME),
        nodes: nodes.store(),
        pods: pods.store(),
        waiting: Mutex::default(),
    });
    let followed = [nodes.synced(), pods.synced()];
    worker::start(NAME, queue, 8, &context.shutdown, followed, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(&key).await }
    })
}

fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.taints.iter().filter(|taint| taint.effect == NO_EXECUTE)
}

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !toleration.effect.is_empty() && toleration.effect != taint.effect {
        return false;
    }
    if !toleration.key.is_empty() && toleration.key != taint.key {
        return false;
    }
    match toleration.operator.as_str() {
        "" | "Equal" => toleration.value == taint.value,
        "Exists" => true,
        _ => false,
    }
}

/// What a pod's tolerations come to.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Nothing drives it out.
    Stay,
    /// Tolerated for this long.
    Within(Duration),
    Evict,
}

/// Pure: the shortest toleration that is needed counts; without a limit it is for ever.
fn decide<'a>(tolerations: &[Toleration], taints: impl Iterator<Item = &'a Taint>) -> Decision {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Decision::Evict;
        };
        if let Some(seconds) = toleration.toleration_seconds {
            shortest = Some(shortest.map_or(seconds, |known| known.min(seconds)));
        }
    }
    match shortest {
        None => Decision::Stay,
        Some(seconds) if seconds <= 0 => Decision::Evict,
        Some(seconds) => Decision::Within(Duration::from_secs(seconds as u64)),
    }
}

impl TaintEvictionController {
    async fn reconcile(&self, key: &ObjectKey) -> worker::Result {
        let pod = self.pods.get(key).filter(|pod| !pod.spec.node_name.is_empty() && !pod.metadata.is_deleting());
        let node = pod.as_ref().and_then(|pod| self.nodes.get(&ObjectKey::cluster(pod.spec.node_name.clone())));
        let (Some(pod), Some(node)) = (pod, node) else {
            self.waiting.lock().remove(key);
            return Ok(Requeue::Never);
        };
        match decide(&pod.spec.tolerations, no_execute(&node)) {
            Decision::Stay => {
                if self.waiting.lock().remove(key).is_some() {
                    self.event(&pod, &format!("Cancelling deletion of Pod {key}"));
                }
                Ok(Requeue::Never)
            }
            Decision::Within(allowed) => {
                let now = self.clock.now();
                let since = *self.waiting.lock().entry(key.clone()).or_insert(now);
                let due = since + allowed;
                if now < due {
                    let left = Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO);
                    return Ok(Requeue::After(left));
                }
                self.evict(&pod).await
            }
            Decision::Evict => self.evict(&pod).await,
        }
    }

    async fn evict(&self, pod: &Pod) -> worker::Result {
        let key = pod.metadata.key();
        tracing::info!(controller = NAME, pod = %key, "Deleting pod");
        self.event(pod, &format!("Marking for deletion Pod {key}"));
        let patch = Patch::Strategic(json!({
            "metadata": { "uid": pod.metadata.uid },
            "status": { "conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastTransitionTime": whole_seconds(self.clock.now()),
            }] },
        }));
        let namespace = Some(key.namespace.as_str());
        let marked: client::Result<IgnoredAny> =
            self.client.patch(&PODS, namespace, &key.name, Some("status"), &patch).await;
        let deleted = match marked {
            Ok(_) => self.client.delete(&PODS, namespace, &key.name, &DeleteOptions::uid(&pod.metadata.uid)).await,
            Err(error) => Err(error),
        };
        match deleted {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(Error::Api(error)),
            _ => {
                self.waiting.lock().remove(&key);
                Ok(Requeue::Never)
            }
        }
    }

    fn event(&self, pod: &Pod, note: &str) {
        let regarding = Reference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Reference::default()
        };
        self.recorder.event(&regarding, "Normal", "TaintManagerEviction", note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str) -> Taint {
        Taint { key: key.into(), effect: NO_EXECUTE.into(), ..Taint::default() }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: key.into(),
            operator: "Exists".into(),
            effect: NO_EXECUTE.into(),
            toleration_seconds: seconds,
            ..Toleration::default()
        }
    }

    #[test]
    fn the_shortest_needed_toleration_counts() {
        let (a, b) = (taint("a"), taint("b"));
        for (tolerations, taints, expected) in [
            (vec![], vec![], Decision::Stay),
            (vec![], vec![&a], Decision::Evict),
            (vec![toleration("a", None)], vec![&a], Decision::Stay),
            (vec![toleration("a", Some(300))], vec![&a], Decision::Within(Duration::from_secs(300))),
            (vec![toleration("a", Some(300))], vec![&a, &b], Decision::Evict),
            (
                vec![toleration("a", Some(300)), toleration("b", Some(30))],
                vec![&a, &b],
                Decision::Within(Duration::from_secs(30)),
            ),
            (
                vec![toleration("a", Some(300)), toleration("b", None)],
                vec![&a, &b],
                Decision::Within(Duration::from_secs(300)),
            ),
            (vec![toleration("a", Some(0))], vec![&a], Decision::Evict),
            (vec![toleration("", None)], vec![&a, &b], Decision::Stay),
        ] {
            assert_eq!(decide(&tolerations, taints.iter().copied()), expected, "{tolerations:?}");
        }
        let equal = Toleration { key: "a".into(), value: "v".into(), ..Toleration::default() };
        assert!(!tolerates(&equal, &a));
        assert!(tolerates(&equal, &Taint { value: "v".into(), ..a }));
    }
}
