//! One worker per pod: takes what is wanted, looks at what is, acts, reports; until the pod is gone.
//!
//! A worker is told that something may have changed, never what: it reads everything anew. So an event
//! that is lost costs time only, and a kubelet that starts over starts right.

#[cfg(test)]
pub(crate) mod testing;
mod worker;

pub(crate) use worker::marks;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use component_base::clock::SharedClock;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::allocation::Allocations;
use crate::api::{Api, Events};
use crate::cgroup::Cgroups;
use crate::pod::{PodExt, Uid};
use crate::references::References;
use crate::settings::Settings;
use crate::{probe, runtime, status, volume};

/// What workers work with.
pub struct Parts {
    pub settings: Arc<Settings>,
    pub runtime: Arc<runtime::Manager>,
    pub statuses: status::Manager,
    pub probes: Arc<probe::Manager>,
    pub volumes: Arc<volume::Volumes>,
    pub cgroups: Arc<dyn Cgroups>,
    pub allocations: Arc<Allocations>,
    pub api: Arc<dyn Api>,
    pub events: Arc<dyn Events>,
    pub clock: SharedClock,
    /// Whether the runtime says that its network works.
    pub network_ready: AtomicBool,
    /// Counts changes of config maps and secrets in use: volumes made before the last are due.
    pub sources_changed: AtomicU64,
}

/// What is wanted of one pod.
#[derive(Clone)]
pub struct Desired {
    /// The spec; `None` when only the runtime knows of the pod.
    pub pod: Option<Arc<Pod>>,
    /// For a static pod: its mirror in the API.
    pub mirror: Option<Arc<Pod>>,
    /// The pod is gone from where it came from.
    pub removed: bool,
}

struct Handle {
    desired: watch::Sender<Desired>,
    poke: Arc<Notify>,
    /// Set once no container of the pod runs or will run.
    finished: Arc<AtomicBool>,
}

/// All workers.
pub struct Workers {
    parts: Arc<Parts>,
    handles: Arc<Mutex<HashMap<Uid, Handle>>>,
    shutdown: CancellationToken,
}

impl Workers {
    /// Workers stop, leaving pods as they are, when `shutdown` is cancelled.
    pub fn new(parts: Arc<Parts>, shutdown: CancellationToken) -> Self {
        Self { parts, handles: Arc::default(), shutdown }
    }

    /// A pod is new or has changed. Starts its worker if need be.
    pub fn update(&self, pod: Arc<Pod>, mirror: Option<Arc<Pod>>) {
        self.set(pod.uid().to_owned(), Desired { pod: Some(pod), mirror, removed: false });
    }

    /// A pod is gone. Its worker cleans up and ends.
    pub fn remove(&self, uid: &str) {
        if let Some(handle) = self.handles.lock().get(uid) {
            handle.desired.send_modify(|desired| desired.removed = true);
        }
    }

    /// The runtime or the disk holds something of a pod that nobody wants.
    pub fn adopt_orphan(&self, uid: &str) {
        if !self.knows(uid) {
            self.set(uid.to_owned(), Desired { pod: None, mirror: None, removed: true });
        }
    }

    /// Something about a pod may have changed.
    pub fn poke(&self, uid: &str) {
        if let Some(handle) = self.handles.lock().get(uid) {
            handle.poke.notify_one();
        }
    }

    /// Makes every worker look again.
    pub fn poke_all(&self) {
        self.handles.lock().values().for_each(|handle| handle.poke.notify_one());
    }

    /// Makes those workers look again whose pod is chosen.
    pub fn poke_where(&self, chosen: impl Fn(&Pod) -> bool) {
        for handle in self.handles.lock().values() {
            let wanted = handle.desired.borrow().pod.as_ref().is_some_and(|pod| chosen(pod));
            if wanted {
                handle.poke.notify_one();
            }
        }
    }

    /// Whether a worker exists.
    pub fn knows(&self, uid: &str) -> bool {
        self.handles.lock().contains_key(uid)
    }

    /// The pods at hand, those that end included.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.handles.lock().values().filter_map(|h| h.desired.borrow().pod.clone()).collect()
    }

    /// The pods that run or will.
    pub fn active_pods(&self) -> Vec<Arc<Pod>> {
        let handles = self.handles.lock();
        let active = handles.values().filter(|h| !h.finished.load(Ordering::Acquire));
        active.filter_map(|h| h.desired.borrow().pod.clone()).collect()
    }

    /// A pod by namespace and name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods().into_iter().find(|p| p.pod_namespace() == namespace && p.pod_name() == name)
    }

    fn set(&self, uid: Uid, wanted: Desired) {
        let mut handles = self.handles.lock();
        if let Some(handle) = handles.get(&uid) {
            if let (Some(pod), Some(target)) = (&wanted.pod, wanted.mirror.as_ref().or(wanted.pod.as_ref())) {
                self.parts.statuses.observe(pod.uid(), target);
            }
            handle.desired.send_if_modified(|present| {
                // Once gone, a pod of this uid does not come back.
                let removed = present.removed;
                let news = differs(present.pod.as_deref(), wanted.pod.as_deref())
                    || present.mirror.as_ref().map(|m| m.uid()) != wanted.mirror.as_ref().map(|m| m.uid());
                *present = Desired { removed, ..wanted };
                news
            });
            return;
        }
        let poke = Arc::new(Notify::new());
        let finished = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = watch::channel(wanted);
        let worker = worker::Worker::new(self.parts.clone(), uid.clone(), receiver, poke.clone(), finished.clone());
        handles.insert(uid.clone(), Handle { desired: sender, poke, finished });
        drop(handles);
        let (all, api) = (self.handles.clone(), self.parts.api.clone());
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = worker.run() => {
                    release(&uid, &mut all.lock(), api.as_ref());
                }
                () = shutdown.cancelled() => {}
            }
        });
    }
}

/// Forgets a pod that is gone, and what only it used of the API: the server shows a node no more than its pods use, so a
/// watch that outlived them would be refused for ever.
fn release(uid: &str, handles: &mut HashMap<Uid, Handle>, api: &dyn Api) {
    let Some(pod) = handles.remove(uid).and_then(|handle| handle.desired.borrow().pod.clone()) else { return };
    let mut references = References::default();
    for handle in handles.values() {
        let other = handle.desired.borrow();
        if let Some(other) = other.pod.as_ref().filter(|other| other.pod_namespace() == pod.pod_namespace()) {
            references.add(other);
        }
    }
    // With the handles locked: a pod that comes meanwhile would lose its watches.
    api.keep_only(pod.pod_namespace(), &references);
}

/// Whether a change of a pod is news to its worker. Most are the echo of the worker's own status.
fn differs(old: Option<&Pod>, new: Option<&Pod>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old.is_some() != new.is_some() };
    let metadata = |pod: &Pod| {
        let m = &pod.metadata;
        (
            m.generation,
            m.deletion_timestamp.clone(),
            m.deletion_grace_period_seconds,
            m.labels.clone(),
            m.annotations.clone(),
        )
    };
    let foreign = |pod: &Pod| -> Vec<_> {
        let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions
            .filter(|c| !status::KUBELET_CONDITIONS.contains(&c.type_.as_str()))
            .map(|c| (c.type_.clone(), c.status.clone()))
            .collect()
    };
    let ended = |pod: &Pod| status::is_terminal_phase(pod.phase());
    metadata(old) != metadata(new) || old.spec != new.spec || foreign(old) != foreign(new) || ended(old) != ended(new)
}
