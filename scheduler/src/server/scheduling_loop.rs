//! The one thread that owns the scheduler's state: takes changes in, schedules, hands decisions on.
//!
//! A thread of its own, because the algorithm computes for milliseconds at a time, which tasks that
//! wait for the network should not have to sit out. Nothing else touches the state, so nothing is
//! locked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use component_base::clock::SharedClock;
use tokio_util::sync::CancellationToken;

use super::actions::Actions;
use crate::core::{Core, Outcome};
use crate::framework::events::EventKind;
use crate::metrics::Metrics;
use crate::objects::{Node, Pod};
use crate::queue::QueuedPod;

/// How often the loop looks up when nothing happens.
const IDLE: Duration = Duration::from_secs(1);
/// Changes taken in between two rounds of scheduling, so that a flood of them does not stop it.
const MAX_CHANGES: usize = 20_000;

/// What the loop is told.
#[derive(Debug)]
pub(super) enum Change {
    /// A node appeared or changed.
    Node(Option<Arc<Node>>, Arc<Node>),
    /// A node went away.
    NodeDeleted(Arc<Node>),
    /// A pod appeared or changed.
    Pod(Option<Arc<Pod>>, Arc<Pod>),
    /// A pod went away.
    PodDeleted(Arc<Pod>),
    /// Something else changed.
    Other(EventKind),
    /// A binding was made.
    Bound(String),
    /// A binding was not made.
    BindingFailed(Box<QueuedPod>),
    /// Nothing: only to make the loop look up.
    Wake,
}

/// The loop.
pub(super) struct SchedulingLoop {
    core: Core,
    changes: Receiver<Change>,
    actions: Actions,
    clock: SharedClock,
    metrics: Metrics,
    /// Only the leader schedules; others keep their state warm.
    leading: Arc<AtomicBool>,
}

impl SchedulingLoop {
    pub(super) fn new(
        core: Core,
        changes: Receiver<Change>,
        actions: Actions,
        clock: SharedClock,
        metrics: Metrics,
        leading: Arc<AtomicBool>,
    ) -> Self {
        Self { core, changes, actions, clock, metrics, leading }
    }

    /// Runs on a thread of its own until `stop`. Must be called inside a tokio runtime.
    pub(super) fn spawn(mut self, stop: CancellationToken) -> JoinHandle<()> {
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("scheduling".to_owned())
            .spawn(move || {
                let _inside = runtime.enter();
                while !stop.is_cancelled() {
                    self.round();
                }
            })
            .expect("the system has a thread left for us")
    }

    fn round(&mut self) {
        for _ in 0..MAX_CHANGES {
            match self.changes.try_recv() {
                Ok(change) => self.apply(change),
                Err(_) => break,
            }
        }
        let now = self.clock.monotonic();
        for uid in self.core.expire_assumed(now) {
            tracing::warn!(uid, "forgetting a pod that was bound but never seen on its node");
        }
        if self.leading.load(Ordering::Acquire) && self.core.queue.has_work(now) {
            self.schedule(now);
            return;
        }
        let (nodes, pods, assumed) = self.core.sizes();
        self.metrics.sizes(self.core.queue.lengths(), nodes, pods, assumed);
        let wait = self.core.queue.next_wake_up().map_or(IDLE, |at| at.saturating_sub(now).min(IDLE));
        match self.changes.recv_timeout(wait) {
            Ok(change) => self.apply(change),
            Err(RecvTimeoutError::Timeout) => {}
            // Every sender is gone: the informers have stopped, and we are about to.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
        }
    }

    fn schedule(&mut self, now: Duration) {
        let outcomes = self.core.schedule(now);
        let took = self.clock.monotonic().saturating_sub(now);
        self.metrics.algorithm(took, outcomes.len());
        for outcome in outcomes {
            match outcome {
                Outcome::Placed { pod, node } => {
                    if let Some(profile) = self.core.profile(&pod.info) {
                        self.actions.bind(profile.clone(), pod, &node, now);
                    }
                }
                Outcome::Failed { pod, failure } => self.actions.report(&pod, failure, took),
            }
        }
    }

    fn apply(&mut self, change: Change) {
        let now = self.clock.monotonic();
        match change {
            Change::Node(old, new) => self.core.on_node(old.as_ref(), &new, now),
            Change::NodeDeleted(node) => self.core.on_node_deleted(&node, now),
            Change::Pod(old, new) => self.core.on_pod(old.as_ref(), &new, now),
            Change::PodDeleted(pod) => self.core.on_pod_deleted(&pod, now),
            Change::Other(kind) => self.core.on_event(kind, now),
            Change::Bound(uid) => self.core.bound(&uid, now),
            Change::BindingFailed(pod) => self.core.binding_failed(*pod, now),
            Change::Wake => {}
        }
    }
}
