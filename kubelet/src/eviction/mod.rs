//! Keeps the node working when something runs out: raises pressure conditions, frees what nobody needs,
//! and at last evicts pods, one at a time (upstream's eviction manager).

mod rank;
mod thresholds;
mod usage;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use component_base::clock::SharedClock;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::allocation::Allocations;
use crate::api::{Events, pod_reference};
use crate::config::File;
use crate::cri::Runtime;
use crate::image_gc::ImageGc;
use crate::node::facts::Usage;
use crate::pod::{PodExt, Uid};
use crate::runtime;
use crate::settings::Settings;
use crate::workers::Workers;
use rank::PodUsage;
use thresholds::{Observation, Shortage, Signal, Watcher};

/// The reason that pods and events show.
pub const REASON: &str = "Evicted";
/// Between two looks.
const PERIOD: Duration = Duration::from_secs(10);
/// Seconds that a pod gets when there is no time to lose.
const AT_ONCE: i64 = 1;

/// Why and how a pod is to go.
#[derive(Clone, Debug, PartialEq)]
pub struct Eviction {
    pub message: String,
    /// Seconds.
    pub grace: i64,
    /// The pod did nothing wrong by itself: what it belongs to may replace it.
    pub disrupted: Option<PodCondition>,
}

/// Pods that are to go, by uid.
#[derive(Default)]
pub struct Evictions(Mutex<HashMap<Uid, Eviction>>);

impl Evictions {
    /// Why this pod is to go, if it is.
    pub fn get(&self, uid: &str) -> Option<Eviction> {
        self.0.lock().get(uid).cloned()
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// The conditions that hold now; whoever shows the node's status reads them.
#[derive(Default)]
pub struct Pressure(Mutex<BTreeSet<&'static str>>);

impl Pressure {
    /// Whether the node is under pressure of this kind, as its condition is called.
    pub fn is(&self, condition: &str) -> bool {
        self.0.lock().contains(condition)
    }
}

/// What the manager works with.
pub struct Manager {
    pub settings: Arc<Settings>,
    pub cri: Arc<dyn Runtime>,
    pub runtime: Arc<runtime::Manager>,
    pub workers: Arc<Workers>,
    pub events: Arc<dyn Events>,
    pub clock: SharedClock,
    pub images: Arc<ImageGc>,
    pub allocations: Arc<Allocations>,
    pub evictions: Arc<Evictions>,
    pub pressure: Arc<Pressure>,
    /// Told when a condition comes or goes.
    pub changed: Arc<Notify>,
}

impl Manager {
    /// Looks, and acts, until dropped.
    pub async fn run(self, file: &File) {
        let mut watcher = Watcher::new(thresholds::configured(file), file.eviction_pressure_transition_period);
        loop {
            self.round(&mut watcher, file.eviction_max_pod_grace_period).await;
            self.clock.sleep(PERIOD).await;
        }
    }

    async fn round(&self, watcher: &mut Watcher, longest_grace: i64) {
        let (conditions, shortages) = watcher.look(&self.observe().await, self.clock.monotonic());
        let before = std::mem::replace(&mut *self.pressure.0.lock(), conditions.clone());
        if before != conditions {
            self.allocations.set_pressure(conditions.iter().map(|c| (*c).to_owned()).collect());
            self.changed.notify_one();
        }
        let pods = self.workers.active_pods();
        if pods.iter().any(|pod| self.evictions.get(pod.uid()).is_some()) {
            // What the last one held may be enough: wait until it is free.
            return;
        }
        if self.enforce_limits(&pods).await {
            return;
        }
        let Some(shortage) = shortages.first() else { return };
        let text = format!("Attempting to reclaim {}", shortage.threshold.signal.resource());
        self.events.event(
            &crate::node::Node::reference(&self.settings.node_name),
            "Warning",
            "EvictionThresholdMet",
            &text,
        );
        if shortage.threshold.signal.condition() == "DiskPressure" && self.reclaim(shortage, watcher).await {
            return;
        }
        self.evict_one(&pods, shortage, longest_grace).await;
    }

    /// What there is of everything that can run out.
    async fn observe(&self) -> HashMap<Signal, Observation> {
        let seen = Usage::read(&self.settings.root_dir);
        let of = |available, capacity| Observation { available, capacity };
        let mut out = HashMap::from([
            (Signal::MemoryAvailable, of(seen.memory_available, self.settings.memory_capacity)),
            (Signal::PidAvailable, of(seen.max_pids - seen.pids, seen.max_pids)),
            (Signal::NodefsAvailable, of(seen.disk_available, seen.disk_capacity)),
            (Signal::NodefsInodesFree, of(seen.inodes_free, seen.inodes)),
        ]);
        if let Some(images) = self.images.usage().await {
            out.insert(Signal::ImagefsAvailable, of(images.disk_available, images.disk_capacity));
            out.insert(Signal::ImagefsInodesFree, of(images.inodes_free, images.inodes));
        }
        // File systems without a fixed number of files say zero.
        out.retain(|_, seen| seen.capacity > 0);
        out
    }

    /// Removes dead containers and unused images; whether that was enough.
    async fn reclaim(&self, shortage: &Shortage, watcher: &mut Watcher) -> bool {
        let known = self.workers.clone();
        if let Err(error) = self.runtime.collect_garbage(|uid| !known.knows(uid)).await {
            tracing::warn!(%error, "failed to remove dead containers");
        }
        if let Err(error) = self.images.remove_all_unused().await {
            tracing::warn!(%error, "failed to remove unused images");
        }
        let (_, left) = watcher.look(&self.observe().await, self.clock.monotonic());
        !left.iter().any(|other| other.threshold.signal == shortage.threshold.signal)
    }

    /// Evicts pods that use more of the disk than they said they would; whether there was one.
    async fn enforce_limits(&self, pods: &[Arc<Pod>]) -> bool {
        if !pods.iter().any(|pod| rank::has_disk_limits(pod)) {
            return false;
        }
        let usages = match usage::read(&self.cri, &self.settings, pods, rank::has_disk_limits).await {
            Ok(usages) => usages,
            Err(error) => {
                tracing::debug!(%error, "failed to read what pods use");
                return false;
            }
        };
        let mut any = false;
        for pod in pods.iter().filter(|pod| rank::has_disk_limits(pod)) {
            let Some(message) = usages.get(pod.uid()).and_then(|usage| rank::over_limit(pod, usage)) else { continue };
            any |= self.evict(pod, AT_ONCE, message, None);
        }
        any
    }

    async fn evict_one(&self, pods: &[Arc<Pod>], shortage: &Shortage, longest_grace: i64) {
        let disk = shortage.threshold.signal.condition() == "DiskPressure";
        let usages = usage::read(&self.cri, &self.settings, pods, |_| disk).await.unwrap_or_default();
        let mut ranked: Vec<(&Pod, Option<PodUsage>)> =
            pods.iter().map(|pod| (pod.as_ref(), usages.get(pod.uid()).cloned())).collect();
        rank::rank(&mut ranked, shortage.threshold.signal);
        for (pod, usage) in ranked {
            let own = pod.pod_spec().termination_grace_period_seconds.unwrap_or(30);
            let grace = if shortage.threshold.is_hard() { AT_ONCE } else { longest_grace.min(own) };
            let message = rank::message(pod, usage.as_ref(), shortage);
            let now = Time(self.clock.now());
            let condition = PodCondition {
                type_: "DisruptionTarget".into(),
                status: "True".into(),
                reason: Some("TerminationByKubelet".into()),
                message: Some(message.clone()),
                observed_generation: pod.metadata.generation,
                last_transition_time: Some(now),
                last_probe_time: None,
            };
            if self.evict(pod, grace, message, Some(condition)) {
                return;
            }
        }
    }

    /// Marks a pod; its worker does the rest. Critical pods stay.
    fn evict(&self, pod: &Pod, grace: i64, message: String, disrupted: Option<PodCondition>) -> bool {
        if is_critical(pod) {
            return false;
        }
        self.events.event(&pod_reference(pod, None), "Warning", REASON, &message);
        tracing::info!(pod = %pod.described(), %message, "evicting pod");
        self.evictions.0.lock().insert(pod.uid().to_owned(), Eviction { message, grace, disrupted });
        self.workers.poke(pod.uid());
        true
    }
}

/// Pods that the node cannot do without: static ones, and those of the two system priorities.
pub fn is_critical(pod: &Pod) -> bool {
    const SYSTEM_CRITICAL: i32 = 2_000_000_000;
    pod.is_static() || pod.is_mirror() || pod.pod_spec().priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL)
}
