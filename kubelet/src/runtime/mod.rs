//! Drives the container runtime: from a pod's spec and what the runtime holds to the calls that bring
//! the two together.
//!
//! Decisions are pure and live in [`actions`] and [`spec`]; this folder's other files carry them out.
//! Nothing is remembered here that the runtime or the disk does not know as well, apart from back-off
//! and the reasons of the last failures.

pub mod actions;
pub mod backoff;
pub mod gc;
mod hooks;
mod kill;
pub mod labels;
pub mod logs;
mod mounts;
pub mod resize;
pub mod spec;
mod start;
pub mod state;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::clock::SharedClock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use proto::cri;

use crate::allocation::Allocations;
use crate::api::{Api, Events, pod_reference};
use crate::cgroup::Cgroups;
use crate::cri::Runtime;
use crate::images::Images;
use crate::pod::{Kind, PodExt, Uid, ephemeral_as_container};
use crate::settings::Settings;
use crate::volume::Mounts;
use actions::{Actions, Actuated, ProbeResults, compute_actions};
use backoff::Backoff;
use state::PodState;

/// A step that failed: the waiting reason and the message users see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Failure {
    pub reason: String,
    pub message: String,
}

/// What came of one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Something was started or stopped: what the runtime holds has changed.
    pub changed: bool,
    /// What did not work.
    pub failures: Vec<Failure>,
    /// When the earliest back-off ends.
    pub retry_at: Option<Timestamp>,
    /// Why a granted resize could not be carried out.
    pub resize_error: Option<String>,
}

/// Why containers wait, by pod and name, until their next successful start.
#[derive(Default)]
pub struct Reasons(Mutex<HashMap<(Uid, String), Failure>>);

impl Reasons {
    /// The last failure of a container.
    pub fn get(&self, uid: &str, container: &str) -> Option<Failure> {
        self.0.lock().get(&(uid.to_owned(), container.to_owned())).cloned()
    }

    fn set(&self, uid: &str, container: &str, failure: Option<Failure>) {
        let key = (uid.to_owned(), container.to_owned());
        match failure {
            Some(failure) => self.0.lock().insert(key, failure),
            None => self.0.lock().remove(&key),
        };
    }

    fn forget(&self, uid: &str) {
        self.0.lock().retain(|(owner, _), _| owner != uid);
    }
}

/// The runtime manager. Shared by all pod workers; calls for different pods run side by side.
pub struct Manager {
    pub cri: Arc<dyn Runtime>,
    /// The runtime's name: the scheme of container ids.
    pub name: String,
    pub settings: Arc<Settings>,
    pub api: Arc<dyn Api>,
    pub events: Arc<dyn Events>,
    pub clock: SharedClock,
    pub images: Images,
    pub cgroups: Arc<dyn Cgroups>,
    pub reasons: Reasons,
    pub allocations: Arc<Allocations>,
    crash: Backoff,
}

impl Manager {
    /// A manager over `cri`, whose name is asked for by the caller.
    #[expect(clippy::too_many_arguments, reason = "its parts, each told by its type")]
    pub fn new(
        cri: Arc<dyn Runtime>,
        name: String,
        settings: Arc<Settings>,
        api: Arc<dyn Api>,
        events: Arc<dyn Events>,
        clock: SharedClock,
        cgroups: Arc<dyn Cgroups>,
        allocations: Arc<Allocations>,
    ) -> Self {
        let images = Images::new(cri.clone(), events.clone(), clock.clone());
        let crash = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        Self {
            cri,
            name,
            settings,
            api,
            events,
            clock,
            images,
            cgroups,
            reasons: Reasons::default(),
            allocations,
            crash,
        }
    }

    /// What the runtime holds of a pod.
    pub async fn state(&self, uid: &str) -> crate::cri::Result<PodState> {
        state::read(&self.cri, uid).await
    }

    /// One round: brings the runtime a step closer to the spec.
    pub async fn sync_pod(&self, pod: &Pod, state: &PodState, probes: &ProbeResults, volumes: &Mounts) -> Outcome {
        let actuated = Actuated {
            containers: self.allocations.actuated(pod.uid()),
            pod: self.allocations.actuated_pod(pod.uid()),
        };
        let actions = compute_actions(pod, state, probes, &actuated);
        let mut outcome = Outcome::default();
        if actions.kill_pod {
            if actions.create_sandbox && !actions.sandbox_id.is_empty() {
                let reference = pod_reference(pod, None);
                self.events.event(
                    &reference,
                    "Normal",
                    "SandboxChanged",
                    "Pod sandbox changed, it will be killed and re-created.",
                );
            }
            outcome.changed |= !state.sandboxes.is_empty();
            if let Err(failure) = self.kill_pod(Some(pod), state, None).await {
                outcome.failures.push(failure);
                return outcome;
            }
        } else {
            for kill in &actions.kill {
                outcome.changed = true;
                let container = pod.container(&kill.name).map(|(_, c)| c);
                let grace = kill::grace_period(pod, container.as_ref(), kill.reason);
                if let Err(error) =
                    self.kill_container(Some(pod), &kill.id, &kill.name, &kill.message, grace, state).await
                {
                    outcome.failures.push(Failure { reason: "KillContainerError".into(), message: error.message });
                    return outcome;
                }
            }
        }
        self.prune_init_containers(pod, state, &actions).await;
        let (sandbox_id, config, ips) = match self.sandbox_for(pod, state, &actions, &mut outcome).await {
            Some(ready) => ready,
            None => return outcome,
        };
        if !actions.resize.is_empty() || actions.resize_pod {
            outcome.changed = true;
            outcome.resize_error = self.resize(pod, state, &actions).await.err();
        }
        for (kind, index) in order(&actions) {
            let container = match kind {
                Kind::Ephemeral => ephemeral_as_container(&pod.ephemeral_containers()[index]),
                Kind::Init => pod.init_containers()[index].clone(),
                Kind::Regular => pod.pod_spec().containers[index].clone(),
            };
            let target = match kind {
                Kind::Ephemeral => pod.ephemeral_containers()[index].target_container_name.clone(),
                _ => None,
            };
            let place = start::Place { sandbox_id: &sandbox_id, config: &config, ips: &ips, volumes, state };
            let result = match self.crash_backoff(pod, &container, state) {
                Some((failure, until)) => {
                    outcome.retry_at = earliest(outcome.retry_at, Some(until));
                    Err(failure)
                }
                None => {
                    let result = self.start_container(pod, &container, target.as_deref(), &place).await;
                    outcome.changed = true;
                    result
                }
            };
            self.reasons.set(pod.uid(), &container.name, result.as_ref().err().cloned());
            if let Err(failure) = result {
                if failure.reason == "ImagePullBackOff" || failure.reason == "ErrImagePull" {
                    outcome.retry_at = earliest(outcome.retry_at, self.images.retry_at(pod, &container));
                }
                outcome.failures.push(failure);
                if kind == Kind::Init && !crate::pod::is_sidecar(&container) {
                    // What follows an init container waits for it.
                    return outcome;
                }
            }
        }
        outcome
    }

    /// The sandbox to start containers in, made if need be. `None` ends the round.
    async fn sandbox_for(
        &self,
        pod: &Pod,
        state: &PodState,
        actions: &Actions,
        outcome: &mut Outcome,
    ) -> Option<(String, cri::PodSandboxConfig, Vec<String>)> {
        if actions.kill_pod && !actions.create_sandbox {
            return None;
        }
        let parent = self.cgroups.parent_of(pod);
        let config = spec::sandbox(pod, actions.attempt, &self.settings, parent);
        if !actions.create_sandbox {
            return Some((actions.sandbox_id.clone(), config, state.ips.clone()));
        }
        outcome.changed = true;
        let made = async {
            tokio::fs::create_dir_all(&config.log_directory).await.map_err(|e| e.to_string())?;
            let handler = match pod.pod_spec().runtime_class_name.as_deref() {
                None | Some("") => String::new(),
                Some(class) => self.api.runtime_handler(class).await.map_err(|e| e.to_string())?,
            };
            let id = self.cri.run_pod_sandbox(config.clone(), &handler).await.map_err(|e| e.to_string())?;
            let status = self.cri.pod_sandbox_status(&id).await.map_err(|e| e.to_string())?;
            Ok::<_, String>((id, state::addresses(&status)))
        };
        match made.await {
            Ok((id, ips)) => Some((id, config, ips)),
            Err(text) => {
                let message = format!("Failed to create sandbox for pod {:?}: {text}", pod.described());
                let reference = pod_reference(pod, None);
                let event = format!("Failed to create pod sandbox: {text}");
                self.events.event(&reference, "Warning", "FailedCreatePodSandBox", &event);
                outcome.failures.push(Failure { reason: "CreatePodSandboxError".into(), message });
                None
            }
        }
    }

    /// Whether a container has to wait before its next start; counts the start otherwise.
    fn crash_backoff(&self, pod: &Pod, container: &Container, state: &PodState) -> Option<(Failure, Timestamp)> {
        let dead = state.containers.iter().find(|c| c.name == container.name && c.state == state::State::Exited)?;
        let finished = Timestamp::from_nanosecond(i128::from(dead.finished_at)).ok()?;
        let key = format!("{}_{}_{}", pod.uid(), container.name, crate::pod::container_hash(container));
        let now = self.clock.now();
        if !self.crash.active_since(&key, finished, now) {
            self.crash.next(&key, finished, now);
            return None;
        }
        let delay = self.crash.get(&key);
        let reference = self.container_reference(pod, &container.name);
        let event = format!("Back-off restarting failed container {} in pod {}", container.name, pod.described());
        self.events.event(&reference, "Warning", "BackOff", &event);
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            component_base::duration::format(delay),
            container.name,
            pod.described()
        );
        Some((Failure { reason: "CrashLoopBackOff".into(), message }, finished + delay))
    }

    /// Keeps one dead container per init container: the next start must not find old ones in its way.
    async fn prune_init_containers(&self, pod: &Pod, state: &PodState, actions: &Actions) {
        if actions.create_sandbox {
            for container in pod.init_containers() {
                for dead in state.containers.iter().filter(|c| c.name == container.name) {
                    let _ = self.cri.remove_container(&dead.id).await;
                }
            }
            return;
        }
        for index in &actions.start_init {
            let name = &pod.init_containers()[*index].name;
            let old = state.containers.iter().filter(|c| c.name == *name && c.state == state::State::Exited).skip(1);
            for dead in old {
                let _ = self.cri.remove_container(&dead.id).await;
            }
        }
    }

    pub fn container_reference(&self, pod: &Pod, name: &str) -> k8s_openapi::api::core::v1::ObjectReference {
        let list = match pod.container(name) {
            Some((Kind::Init, _)) => "initContainers",
            Some((Kind::Ephemeral, _)) => "ephemeralContainers",
            _ => "containers",
        };
        pod_reference(pod, Some(format!("spec.{list}{{{name}}}")))
    }

    /// Drops what is remembered of a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.crash.forget(uid);
        self.images.forget(uid);
        self.reasons.forget(uid);
    }
}

fn order(actions: &Actions) -> Vec<(Kind, usize)> {
    let with = |kind, list: &[usize]| list.iter().map(|i| (kind, *i)).collect::<Vec<_>>();
    let mut out = with(Kind::Ephemeral, &actions.start_ephemeral);
    out.extend(with(Kind::Init, &actions.start_init));
    out.extend(with(Kind::Regular, &actions.start));
    out
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
