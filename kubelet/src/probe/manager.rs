//! Runs a worker for each probe of each container and keeps what they find.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use component_base::clock::SharedClock;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::worker;
use crate::api::Events;
use crate::cri::Runtime;
use crate::pod::{PodExt, Uid, is_sidecar};
use crate::runtime::actions::ProbeResults;
use crate::status;

/// The three uses of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Liveness,
    Readiness,
    Startup,
}

impl Kind {
    /// As events write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }

    /// The probe of this kind in a container's spec.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Startup => container.startup_probe.as_ref(),
        }
    }
}

type Key = (Uid, String, Kind);

struct Running {
    wake: Arc<Notify>,
    stop: CancellationToken,
}

/// Told the uid of the pod whose result changed.
type OnResult = Box<dyn Fn(&str) + Send + Sync>;

/// What the workers need.
pub(super) struct Shared {
    pub runtime: Arc<dyn Runtime>,
    pub statuses: status::Manager,
    pub events: Arc<dyn Events>,
    pub clock: SharedClock,
    results: Mutex<HashMap<(Kind, String), bool>>,
    on_result: OnceLock<OnResult>,
}

impl Shared {
    /// Records what a probe found about a container id; tells the pod's worker if that is news.
    pub fn set(&self, uid: &str, kind: Kind, id: &str, passes: bool) {
        let before = self.results.lock().insert((kind, id.to_owned()), passes);
        if before != Some(passes)
            && let Some(tell) = self.on_result.get()
        {
            tell(uid);
        }
    }

    pub fn get(&self, kind: Kind, id: &str) -> Option<bool> {
        self.results.lock().get(&(kind, id.to_owned())).copied()
    }

    pub fn clear(&self, kind: Kind, id: &str) {
        self.results.lock().remove(&(kind, id.to_owned()));
    }
}

/// All probes of the node.
pub struct Manager {
    shared: Arc<Shared>,
    workers: Mutex<HashMap<Key, Running>>,
}

impl Manager {
    pub fn new(
        runtime: Arc<dyn Runtime>,
        statuses: status::Manager,
        events: Arc<dyn Events>,
        clock: SharedClock,
    ) -> Self {
        let shared = Shared { runtime, statuses, events, clock, results: Mutex::default(), on_result: OnceLock::new() };
        Self { shared: Arc::new(shared), workers: Mutex::default() }
    }

    /// Sets who is told, by pod uid, when a result changes. Once.
    pub fn on_result(&self, tell: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.shared.on_result.set(Box::new(tell));
    }

    /// Starts workers for the probes of a pod that have none yet.
    pub fn add_pod(&self, pod: &Arc<Pod>) {
        let sidecars = pod.init_containers().iter().filter(|c| is_sidecar(c));
        for container in pod.pod_spec().containers.iter().chain(sidecars) {
            for kind in [Kind::Startup, Kind::Readiness, Kind::Liveness] {
                if kind.of(container).is_none() {
                    continue;
                }
                let key = (pod.uid().to_owned(), container.name.clone(), kind);
                self.workers.lock().entry(key).or_insert_with(|| {
                    let running = Running { wake: Arc::default(), stop: CancellationToken::new() };
                    let work = worker::run(
                        self.shared.clone(),
                        pod.clone(),
                        container.clone(),
                        kind,
                        running.wake.clone(),
                        running.stop.clone(),
                    );
                    tokio::spawn(work);
                    running
                });
            }
        }
    }

    /// Ends the probes that could restart a container: the pod is being stopped.
    pub fn stop_liveness_and_startup(&self, uid: &str) {
        self.remove(|key| key.0 == uid && key.2 != Kind::Readiness);
    }

    /// Ends all probes of a pod.
    pub fn remove_pod(&self, uid: &str) {
        self.remove(|key| key.0 == uid);
    }

    fn remove(&self, which: impl Fn(&Key) -> bool) {
        self.workers.lock().retain(|key, running| {
            let end = which(key);
            if end {
                running.stop.cancel();
            }
            !end
        });
    }

    /// Drops results of containers that are gone.
    pub fn retain_results(&self, alive: impl Fn(&str) -> bool) {
        self.shared.results.lock().retain(|(_, id), _| alive(id));
    }

    /// What decides about restarts.
    pub fn results(&self) -> ProbeResults {
        let mut out = ProbeResults::default();
        for ((kind, id), passes) in self.shared.results.lock().iter() {
            match kind {
                Kind::Liveness => out.liveness.insert(id.clone(), *passes),
                Kind::Startup => out.startup.insert(id.clone(), *passes),
                Kind::Readiness => None,
            };
        }
        out
    }

    /// Sets `started` and `ready` of every container status.
    pub fn fill_readiness(&self, pod: &Pod, status: &mut PodStatus) {
        let old = self.shared.statuses.get(pod.uid()).or_else(|| pod.status.clone()).unwrap_or_default();
        let before =
            |list: &Option<Vec<ContainerStatus>>, name: &str| list.iter().flatten().find(|s| s.name == name).cloned();
        for container in &pod.pod_spec().containers {
            let own = status.container_statuses.iter_mut().flatten().find(|s| s.name == container.name);
            if let Some(own) = own {
                self.fill_one(pod, container, own, before(&old.container_statuses, &container.name));
            }
        }
        for container in pod.init_containers() {
            let own = status.init_container_statuses.iter_mut().flatten().find(|s| s.name == container.name);
            let Some(own) = own else { continue };
            if is_sidecar(container) {
                self.fill_one(pod, container, own, before(&old.init_container_statuses, &container.name));
            } else {
                let state = own.state.as_ref();
                own.started = Some(state.is_some_and(|s| s.running.is_some()));
                own.ready = state.and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0);
            }
        }
        for own in status.ephemeral_container_statuses.iter_mut().flatten() {
            own.started = None;
            own.ready = false;
        }
    }

    fn fill_one(&self, pod: &Pod, container: &Container, own: &mut ContainerStatus, old: Option<ContainerStatus>) {
        let running = own.state.as_ref().is_some_and(|s| s.running.is_some());
        let id = bare_id(own).to_owned();
        // What was said of this very container before this kubelet started holds until a probe says
        // otherwise: a restart of the kubelet is no news about the pod.
        let same = old.filter(|o| o.container_id == own.container_id);
        let started = running
            && match (container.startup_probe.is_some(), self.shared.get(Kind::Startup, &id)) {
                (false, _) => true,
                (true, Some(passes)) => passes,
                (true, None) => same.as_ref().is_some_and(|o| o.started == Some(true)),
            };
        own.started = Some(started);
        own.ready = started
            && match (container.readiness_probe.is_some(), self.shared.get(Kind::Readiness, &id)) {
                (false, _) => true,
                (true, Some(passes)) => passes,
                (true, None) => same.as_ref().is_some_and(|o| o.ready),
            };
        if running && !own.ready {
            for kind in [Kind::Startup, Kind::Readiness] {
                let key = (pod.uid().to_owned(), container.name.clone(), kind);
                if self.shared.get(kind, &id).is_none()
                    && let Some(worker) = self.workers.lock().get(&key)
                {
                    worker.wake.notify_one();
                }
            }
        }
    }
}

/// A container id without the runtime's scheme; empty when there is none.
pub(super) fn bare_id(status: &ContainerStatus) -> &str {
    let id = status.container_id.as_deref().unwrap_or_default();
    id.split_once("://").map_or(id, |(_, bare)| bare)
}
