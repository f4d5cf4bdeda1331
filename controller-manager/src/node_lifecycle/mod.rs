//! Notices nodes that fell silent, and taints nodes by their conditions.
//!
//! Reads nodes, their Leases and pods; writes `nodes/status` (conditions become Unknown), node
//! taints, and `pods/status` (Ready becomes False on a node that is not ready). Upstream:
//! `pkg/controller/nodelifecycle`. `health`, `taints` and `zones` decide.

mod health;
pub(crate) mod taints;
mod zones;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::events::{Recorder, Reference};
use client::informer::{Event, InformerParams, Store};
use client::resources::{LEASES, NODES, PODS};
use client::workqueue::WorkQueue;
use client::{Client, ObjectKey, Patch};
use component_base::clock::SharedClock;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;

use self::health::{Grace, Health, READY};
use self::taints::Eviction;
use self::zones::ZoneState;
use crate::config::Config;
use crate::context::{Context, synced};
use crate::types::{Condition, Lease, Node, Pod, condition, whole_seconds};
use crate::worker::{self, Error, Requeue};

pub const NAME: &str = "node-lifecycle-controller";

/// Pods by the node they are on.
pub(crate) const BY_NODE: &str = "node";
const LEASE_NAMESPACE: &str = "kube-node-lease";
const PARALLEL: usize = 8;

/// Adds the index [`BY_NODE`].
pub(crate) fn index_by_node(pods: &client::informer::Informer<Pod>) {
    pods.add_index(BY_NODE, |pod| {
        Some(pod.spec.node_name.clone()).filter(|node| !node.is_empty()).into_iter().collect()
    });
}

struct NodeLifecycleController {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    config: Config,
    nodes: Store<Node>,
    leases: Store<Lease>,
    pods: Store<Pod>,
    queue: WorkQueue<ObjectKey>,
    health: Mutex<HashMap<String, Option<Health>>>,
    zones: Mutex<Zones>,
    known: Mutex<HashMap<String, String>>,
    /// Nodes whose pods could not all be marked.
    unmarked: Mutex<HashSet<String>>,
}

/// What the last look said about the zones.
#[derive(Default)]
struct Zones {
    states: BTreeMap<String, (ZoneState, usize)>,
    /// When the next node of a zone may be tainted, by the monotonic clock.
    next: HashMap<String, Duration>,
    all_disrupted: bool,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let nodes = context.informers.of::<Node>(&NODES);
    let leases = context.informers.informer::<Lease>(&LEASES, InformerParams::namespace(LEASE_NAMESPACE));
    let pods = context.informers.of::<Pod>(&PODS);
    index_by_node(&pods);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        nodes.on_event(move |event| match event {
            Event::Modified { old, new } if old.status.conditions == new.status.conditions && old.spec == new.spec => {}
            Event::Deleted(_) => {}
            _ => queue.add(event.object().metadata.key()),
        });
    }
    let controller = Arc::new(NodeLifecycleController {
        client: context.client("node-controller"),
        clock: context.clock.clone(),
        recorder: context.recorder("node-controller"),
        config: context.config.clone(),
        nodes: nodes.store(),
        leases: leases.store(),
        pods: pods.store(),
        queue: queue.clone(),
        health: Mutex::default(),
        zones: Mutex::default(),
        known: Mutex::default(),
        unmarked: Mutex::default(),
    });
    let shutdown = context.shutdown.clone();
    Box::pin(async move {
        let informers = async {
            nodes.wait_synced().await;
            leases.wait_synced().await;
            pods.wait_synced().await;
        };
        if !synced(&shutdown, informers).await {
            return;
        }
        // The zones must be known before the first node is tainted.
        controller.monitor().await;
        let monitoring = {
            let controller = controller.clone();
            let shutdown = shutdown.clone();
            async move {
                let period = controller.config.node_monitor_period;
                loop {
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = controller.clock.sleep(period) => controller.monitor().await,
                    }
                }
            }
        };
        let taint = controller.clone();
        tokio::join!(
            monitoring,
            worker::run(NAME, queue, PARALLEL, shutdown.clone(), move |key| {
                let controller = taint.clone();
                async move { controller.taint(&key).await }
            }),
        );
    })
}

impl NodeLifecycleController {
    /// One look at all nodes.
    async fn monitor(&self) {
        let nodes = self.nodes.list();
        self.announce(&nodes);
        let statuses: Vec<(Arc<Node>, bool)> = futures::stream::iter(nodes)
            .map(|node| async move {
                let ready = self.look(&node).await;
                (node, ready)
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        self.judge_zones(&statuses);
    }

    /// Says which nodes came and went.
    fn announce(&self, nodes: &[Arc<Node>]) {
        let mut known = self.known.lock();
        let present: HashSet<&str> = nodes.iter().map(|node| node.metadata.name.as_str()).collect();
        let gone: Vec<String> = known.keys().filter(|name| !present.contains(name.as_str())).cloned().collect();
        for name in gone {
            if let Some(uid) = known.remove(&name) {
                self.recorder.event(
                    &reference(&name, &uid),
                    "Normal",
                    "RemovingNode",
                    &format!("Removing Node {name} from Controller"),
                );
            }
            self.health.lock().remove(&name);
            self.unmarked.lock().remove(&name);
        }
        for node in nodes {
            let name = &node.metadata.name;
            if known.insert(name.clone(), node.metadata.uid.clone()).is_none() {
                self.recorder.event(
                    &reference(name, &node.metadata.uid),
                    "Normal",
                    "RegisteredNode",
                    &format!("Registered Node {name} in Controller"),
                );
            }
        }
    }

    /// Looks at one node; whether it is ready afterwards.
    async fn look(&self, node: &Node) -> bool {
        let name = &node.metadata.name;
        let renewed = self.leases.get_named(LEASE_NAMESPACE, name).and_then(|lease| lease.spec.renew_time);
        let grace =
            Grace { monitor: self.config.node_monitor_grace_period, startup: self.config.node_startup_grace_period };
        let now = self.clock.now();
        let silent = {
            let mut health = self.health.lock();
            health::look(health.entry(name.clone()).or_default(), node, renewed, grace, now)
        };
        let was_ready = condition(&node.status.conditions, READY).is_some_and(Condition::is_true);
        let mut is_ready = was_ready;
        if let Some(conditions) = silent {
            tracing::warn!(controller = NAME, node = name, "node fell silent");
            let patch = Patch::Strategic(json!({ "status": { "conditions": conditions } }));
            let written: client::Result<IgnoredAny> =
                self.client.patch(&NODES, None, name, Some("status"), &patch).await;
            match written {
                Ok(_) => is_ready = false,
                // The next look tries again; nobody is evicted on a state that is not written.
                Err(error) => tracing::error!(
                    controller = NAME,
                    node = name,
                    error = error.chain(),
                    "cannot update the status of a node"
                ),
            }
        }
        let reported_not_ready = condition(&node.status.conditions, READY).is_some() && !is_ready;
        let turned = was_ready && !is_ready;
        if turned {
            self.recorder.event(
                &reference(name, &node.metadata.uid),
                "Normal",
                "NodeNotReady",
                &format!("Node {name} status is now: NodeNotReady"),
            );
        }
        let retry = self.unmarked.lock().contains(name);
        if turned || (reported_not_ready && retry) {
            self.mark_pods(name).await;
        }
        // A taint that was held back may be allowed by now.
        if taints::wants_eviction(node) {
            self.queue.add(node.metadata.key());
        }
        is_ready
    }

    /// Pods of a node that is not ready are not ready either, so that services drop them.
    async fn mark_pods(&self, node: &str) {
        let now = whole_seconds(self.clock.now());
        let mut failed = false;
        for pod in self.pods.by_index(BY_NODE, node) {
            if !pod.is_ready() {
                continue;
            }
            let patch = Patch::Strategic(json!({
                "metadata": { "uid": pod.metadata.uid },
                "status": { "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": now }] },
            }));
            let written: client::Result<IgnoredAny> = self
                .client
                .patch(&PODS, Some(&pod.metadata.namespace), &pod.metadata.name, Some("status"), &patch)
                .await;
            match written {
                Ok(_) => self.recorder.event(
                    &Reference::of(&PODS, &pod.metadata),
                    "Warning",
                    "NodeNotReady",
                    "Node is not ready",
                ),
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => {
                    failed = true;
                    tracing::error!(controller = NAME, node, error = error.chain(), "cannot mark a pod as not ready");
                }
            }
        }
        let mut unmarked = self.unmarked.lock();
        if failed {
            unmarked.insert(node.to_string());
        } else {
            unmarked.remove(node);
        }
    }

    fn judge_zones(&self, nodes: &[(Arc<Node>, bool)]) {
        let states =
            zones::states(nodes.iter().map(|(node, ready)| (&**node, *ready)), self.config.unhealthy_zone_threshold);
        let all_disrupted = !states.is_empty() && states.values().all(|(state, _)| *state == ZoneState::FullDisruption);
        let changed = {
            let mut zones = self.zones.lock();
            let changed = zones.all_disrupted != all_disrupted;
            zones.states = states;
            zones.all_disrupted = all_disrupted;
            changed
        };
        if !changed {
            return;
        }
        if all_disrupted {
            tracing::warn!(
                controller = NAME,
                "Controller detected that all Nodes are not-Ready. Entering master disruption mode"
            );
        } else {
            tracing::info!(
                controller = NAME,
                "Controller detected that some Nodes are Ready. Exiting master disruption mode"
            );
            // Silence so far may have been ours: everybody's time begins anew.
            let now = self.clock.now();
            for health in self.health.lock().values_mut().flatten() {
                health.probed = now;
            }
        }
        for (node, _) in nodes {
            self.queue.add(node.metadata.key());
        }
    }

    /// Whether a node of this zone may be tainted now; takes the zone's turn when it may.
    fn permission(&self, node: &Node) -> Eviction {
        let mut zones = self.zones.lock();
        if zones.all_disrupted {
            return Eviction::Suspended;
        }
        if !taints::wants_eviction(node) {
            return Eviction::Hold;
        }
        let zone = zones::zone_of(node);
        let (state, size) = zones.states.get(&zone).copied().unwrap_or((ZoneState::Normal, 1));
        let rate = zones::rate(state, size, &self.config);
        let now = self.clock.monotonic();
        if rate <= 0.0 || zones.next.get(&zone).is_some_and(|next| *next > now) {
            return Eviction::Hold;
        }
        zones.next.insert(zone, now + Duration::from_secs_f64(1.0 / rate));
        Eviction::Go
    }

    async fn taint(&self, key: &ObjectKey) -> worker::Result {
        let Some(node) = self.nodes.get(key) else { return Ok(Requeue::Never) };
        let eviction = self.permission(&node);
        let outcome = taints::decide(&node, eviction, self.clock.now());
        if let Some(taints) = outcome.taints {
            // The version makes it a conflict when somebody else changed the taints.
            let patch = Patch::Merge(json!({
                "metadata": { "resourceVersion": node.metadata.resource_version },
                "spec": { "taints": taints },
            }));
            self.client.patch::<IgnoredAny>(&NODES, None, &key.name, None, &patch).await.map_err(Error::from)?;
        }
        // What was held back comes again with the next look.
        Ok(Requeue::Never)
    }
}

fn reference(name: &str, uid: &str) -> Reference {
    Reference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.into(),
        uid: uid.into(),
        ..Reference::default()
    }
}
