//! The life of one pod on this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use tokio::sync::{Notify, watch};

use super::{Desired, Parts};
use crate::allocation::{Marks, Rejection};
use crate::api::pod_reference;
use crate::pod::{PodExt, Uid};
use crate::runtime::backoff::since;
use crate::runtime::resize::is_behind;
use crate::runtime::state::PodState;
use crate::status::{self, is_terminal_phase};
use crate::volume::{Mounts, Volumes};

/// How often a pod is looked at when nothing happens; also how soon volumes follow their sources.
const RESYNC: Duration = Duration::from_secs(60);
/// Pauses after failures.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// After a start the runtime is asked again at growing intervals: containers that end at once, init
/// containers above all, are seen without waiting for a relist.
const HURRY: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(320),
    Duration::from_millis(640),
];

/// Why the kubelet itself ends a pod: reason and message of the status.
type Failed = Option<(&'static str, String)>;

/// What a round leaves to do.
enum Next {
    /// Look again after this long, or when told to.
    Wait(Duration),
    /// Something was started: look again soon, and again.
    Hurry(Duration),
    /// The pod has ended: stop what is left.
    End(Failed),
}

pub(super) struct Worker {
    parts: Arc<Parts>,
    uid: Uid,
    desired: watch::Receiver<Desired>,
    poke: Arc<Notify>,
    finished: Arc<AtomicBool>,
    /// The volumes, when they were made, and the count of source changes at that time.
    mounts: Option<(Mounts, Duration, u64)>,
    failures: u32,
    prepared: bool,
}

impl Worker {
    pub fn new(
        parts: Arc<Parts>,
        uid: Uid,
        desired: watch::Receiver<Desired>,
        poke: Arc<Notify>,
        finished: Arc<AtomicBool>,
    ) -> Self {
        Self { parts, uid, desired, poke, finished, mounts: None, failures: 0, prepared: false }
    }

    /// Runs until nothing of the pod is left.
    pub async fn run(mut self) {
        match self.admit().await {
            Ok(()) => {
                let failed = self.live().await;
                self.terminate(&failed).await;
            }
            Err(rejection) => self.reject(&rejection),
        }
        self.finished.store(true, Ordering::Release);
        self.parts.allocations.release(&self.uid);
        self.await_removal().await;
        self.clean_up().await;
    }

    /// Whether the pod is to be stopped rather than kept.
    fn ending(desired: &Desired) -> bool {
        desired.removed || desired.pod.as_ref().is_none_or(|pod| pod.is_deleted() || is_terminal_phase(pod.phase()))
    }

    /// Whether the node takes the pod. One that is to end anyway is not weighed, but what it still holds
    /// counts.
    async fn admit(&mut self) -> Result<(), Rejection> {
        let desired = self.desired.borrow().clone();
        let Some(pod) = desired.pod.as_ref().filter(|_| !desired.removed) else { return Ok(()) };
        let parts = self.parts.clone();
        let mut answer = parts.allocations.admit(pod);
        if answer.as_ref().is_err_and(|rejection| rejection.reason == "NodeAffinity") {
            // The scheduler may have seen labels that have not come here yet: ask once more.
            if let Ok(node) = parts.api.node(&parts.settings.node_name).await {
                parts.allocations.mark(marks(&node));
                answer = parts.allocations.admit(pod);
            }
        }
        if Self::ending(&desired) { Ok(()) } else { answer }
    }

    /// Says that the pod will never run.
    fn reject(&self, rejection: &Rejection) {
        let desired = self.desired.borrow().clone();
        let Some(pod) = desired.pod.as_ref() else { return };
        self.parts.events.event(&pod_reference(pod, None), "Warning", &rejection.reason, &rejection.message);
        let status = PodStatus {
            phase: Some("Failed".into()),
            reason: Some(rejection.reason.clone()),
            message: Some(format!("Pod was rejected: {}", rejection.message)),
            qos_class: Some(crate::resources::qos_class(pod).as_str().into()),
            observed_generation: pod.metadata.generation,
            start_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.parts.clock.now())),
            conditions: pod.status.as_ref().and_then(|s| s.conditions.clone()),
            ..Default::default()
        };
        self.parts.statuses.set(pod, target(pod, &desired), status);
    }

    /// Keeps the pod running; returns when it is to end.
    async fn live(&mut self) -> Failed {
        let mut hurry = HURRY.len();
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let pod = desired.pod.clone().filter(|_| !Self::ending(&desired))?;
            let mut updates = self.desired.clone();
            let next = {
                let round = self.round(&pod, &desired);
                tokio::pin!(round);
                loop {
                    tokio::select! {
                        next = &mut round => break Some(next),
                        changed = updates.changed() => {
                            // A pod that is to end does not wait for an image to be pulled.
                            if changed.is_err() || Self::ending(&updates.borrow()) {
                                break None;
                            }
                        }
                    }
                }
            };
            let wait = match next {
                None => return None,
                Some(Next::End(failed)) => return failed,
                Some(Next::Hurry(longest)) => {
                    hurry = 0;
                    longest
                }
                Some(Next::Wait(longest)) => longest,
            };
            let wait = match HURRY.get(hurry) {
                Some(pause) => wait.min(*pause),
                None => wait,
            };
            hurry = (hurry + 1).min(HURRY.len());
            tokio::select! {
                () = self.parts.clock.sleep(wait) => {}
                () = self.poke.notified() => {}
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
            }
        }
    }

    /// One look and what follows from it.
    async fn round(&mut self, pod: &Arc<Pod>, desired: &Desired) -> Next {
        let parts = self.parts.clone();
        let pod = &parts.allocations.resolve(pod);
        let state = match parts.runtime.state(&self.uid).await {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!(pod = %pod.described(), %error, "the runtime does not answer");
                return self.retry();
            }
        };
        let failed = self.deadline(pod);
        self.progressed(pod, &state);
        let status = self.generate(pod, &state, false, &failed);
        if is_terminal_phase(status.phase.as_deref().unwrap_or_default()) {
            // Reported only once everything has stopped: others may reuse what the pod holds.
            return Next::End(failed);
        }
        parts.statuses.set(pod, target(pod, desired), status);
        let reference = pod_reference(pod, None);
        if !pod.host_network() && !parts.network_ready.load(Ordering::Acquire) && state.sandboxes.is_empty() {
            let text = "network is not ready: container runtime network not ready: NetworkReady=false";
            parts.events.event(&reference, "Warning", "NetworkNotReady", text);
            return self.retry();
        }
        if !self.prepared {
            let made = parts.cgroups.ensure(pod).map_err(|e| e.to_string()).and_then(|()| self.make_directories());
            if let Err(text) = made {
                parts.events.event(
                    &reference,
                    "Warning",
                    "FailedCreatePodContainer",
                    &format!("unable to ensure pod container exists: {text}"),
                );
                return self.retry();
            }
            if parts.allocations.actuated_pod(&self.uid).is_none() {
                parts.allocations.set_actuated_pod(&self.uid, pod.pod_spec().resources.clone());
            }
            self.prepared = true;
        }
        let mounts = match self.mounts(pod).await {
            Ok(mounts) => mounts,
            Err(text) => {
                parts.events.event(&reference, "Warning", "FailedMount", &text);
                return self.retry();
            }
        };
        parts.probes.add_pod(pod);
        let outcome = parts.runtime.sync_pod(pod, &state, &parts.probes.results(), &mounts).await;
        if (outcome.changed || !outcome.failures.is_empty())
            && let Ok(state) = parts.runtime.state(&self.uid).await
        {
            let failed = self.deadline(pod);
            match &outcome.resize_error {
                Some(error) => parts.allocations.failed(pod, error),
                None => self.progressed(pod, &state),
            }
            let status = self.generate(pod, &state, false, &failed);
            if !is_terminal_phase(status.phase.as_deref().unwrap_or_default()) {
                parts.statuses.set(pod, target(pod, desired), status);
            }
        }
        let mut wait = self.until_deadline(pod).unwrap_or(RESYNC).min(RESYNC);
        if let Some(at) = outcome.retry_at {
            // A little late rather than a little early: early would only find the back-off still on.
            wait = wait.min(since(parts.clock.now(), at) + Duration::from_millis(5));
        } else if !outcome.failures.is_empty() || outcome.resize_error.is_some() {
            let Next::Wait(pause) = self.retry() else { return Next::Wait(RETRY_MAX) };
            return Next::Wait(pause.min(wait));
        }
        self.failures = 0;
        if outcome.changed { Next::Hurry(wait) } else { Next::Wait(wait) }
    }

    fn progressed(&self, pod: &Arc<Pod>, state: &PodState) {
        let allocations = &self.parts.allocations;
        let actuated = allocations.actuated(&self.uid);
        let level = allocations.actuated_pod(&self.uid);
        allocations.progressed(pod, is_behind(pod, state, &actuated, level.as_ref()));
    }

    fn retry(&mut self) -> Next {
        let pause = RETRY_FIRST * 2u32.saturating_pow(self.failures.min(10));
        self.failures += 1;
        Next::Wait(pause.min(RETRY_MAX))
    }

    fn make_directories(&self) -> Result<(), String> {
        let directory = self.parts.settings.pod_dir(&self.uid);
        for part in ["volumes", "plugins", "containers"] {
            std::fs::create_dir_all(directory.join(part)).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// The pod's volumes; made anew from their sources once a resync period, or when the pod changed.
    async fn mounts(&mut self, pod: &Pod) -> Result<Mounts, String> {
        let now = self.parts.clock.monotonic();
        let changes = self.parts.sources_changed.load(Ordering::Acquire);
        if let Some((mounts, made, seen)) = &self.mounts {
            let old = *seen != changes || now.saturating_sub(*made) >= RESYNC / 2;
            let due = Volumes::needs_refresh(pod) && old;
            if !due {
                return Ok(mounts.clone());
            }
        }
        match self.parts.volumes.mount(pod).await {
            Ok(mounts) => {
                self.mounts = Some((mounts.clone(), now, changes));
                Ok(mounts)
            }
            Err((volume, error)) => match &self.mounts {
                // What is mounted stays useful while its source cannot be read.
                Some((mounts, _, _)) => {
                    tracing::warn!(pod = %pod.described(), %volume, %error, "failed to refresh volume");
                    Ok(mounts.clone())
                }
                None => Err(format!("MountVolume.SetUp failed for volume {volume:?} : {error}")),
            },
        }
    }

    fn started(&self, pod: &Pod) -> Option<Timestamp> {
        let known = self.parts.statuses.get(&self.uid).or_else(|| pod.status.clone())?;
        Some(known.start_time?.0)
    }

    fn until_deadline(&self, pod: &Pod) -> Option<Duration> {
        let seconds = u64::try_from(pod.pod_spec().active_deadline_seconds?).ok()?;
        let age = since(self.started(pod)?, self.parts.clock.now());
        Some(Duration::from_secs(seconds).saturating_sub(age))
    }

    /// Whether the pod has been active for longer than it may.
    fn deadline(&self, pod: &Pod) -> Failed {
        let over = self.until_deadline(pod).is_some_and(|left| left.is_zero());
        over.then(|| ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline".to_owned()))
    }

    fn generate(&self, pod: &Pod, state: &PodState, terminal: bool, failed: &Failed) -> PodStatus {
        let parts = &self.parts;
        let old = parts.statuses.get(&self.uid).or_else(|| pod.status.clone()).unwrap_or_default();
        let cgroup = parts.cgroups.current(pod).ok();
        let inputs = status::Inputs {
            state,
            old: &old,
            reasons: &parts.runtime.reasons,
            probes: &parts.probes,
            runtime_name: &parts.runtime.name,
            host_ips: &parts.settings.facts.host_ips,
            terminal,
            failed: failed.as_ref().map(|(reason, message)| (*reason, message.as_str())),
            actuated: &parts.allocations.actuated(&self.uid),
            cgroup: cgroup.as_ref(),
            resize: &parts.allocations.conditions(&self.uid),
            now: parts.clock.now(),
        };
        status::generate(pod, &inputs)
    }

    /// Stops every container and the sandbox; returns when nothing runs.
    async fn terminate(&mut self, failed: &Failed) {
        self.parts.probes.stop_liveness_and_startup(&self.uid);
        let mut pause = RETRY_FIRST;
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let grace = grace_of(&desired);
            let mut updates = self.desired.clone();
            let stopped = {
                let stopping = self.stop_once(&desired);
                tokio::pin!(stopping);
                loop {
                    tokio::select! {
                        done = &mut stopping => break done,
                        changed = updates.changed() => {
                            // A second deletion may shorten the grace period; never lengthen it.
                            if changed.is_ok() && grace_of(&updates.borrow()) < grace {
                                break Err("the grace period was shortened".to_owned());
                            }
                            if changed.is_err() {
                                std::future::pending::<()>().await;
                            }
                        }
                    }
                }
            };
            match stopped {
                Ok(()) => break,
                Err(text) => tracing::debug!(uid = %self.uid, error = %text, "pod is not stopped yet"),
            }
            if grace_of(&self.desired.borrow()) < grace {
                continue;
            }
            tokio::select! {
                () = self.parts.clock.sleep(pause) => {}
                () = self.poke.notified() => {}
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
        self.parts.probes.remove_pod(&self.uid);
        self.report_end(failed).await;
        self.release().await;
    }

    async fn stop_once(&self, desired: &Desired) -> Result<(), String> {
        let parts = &self.parts;
        let state = parts.runtime.state(&self.uid).await.map_err(|e| e.to_string())?;
        if state.is_dead() {
            return Ok(());
        }
        if let Some(pod) = desired.pod.as_ref().filter(|pod| pod.is_deleted() && !desired.removed) {
            let status = self.generate(pod, &state, false, &None);
            if !is_terminal_phase(status.phase.as_deref().unwrap_or_default()) {
                parts.statuses.set(pod, target(pod, desired), status);
            }
        }
        // Removed by force, or unknown: the spec's grace period still holds for the processes.
        parts.runtime.kill_pod(desired.pod.as_deref(), &state, None).await.map_err(|e| e.to_string())?;
        let state = parts.runtime.state(&self.uid).await.map_err(|e| e.to_string())?;
        if state.is_dead() { Ok(()) } else { Err("containers are still running".into()) }
    }

    /// The last status: final phase, every container terminated.
    async fn report_end(&self, failed: &Failed) {
        let desired = self.desired.borrow().clone();
        let Some(pod) = desired.pod.as_ref().filter(|_| !desired.removed) else { return };
        let state = loop {
            match self.parts.runtime.state(&self.uid).await {
                Ok(state) => break state,
                Err(_) => self.parts.clock.sleep(RETRY_FIRST).await,
            }
        };
        let mut status = self.generate(pod, &state, true, failed);
        if !is_terminal_phase(status.phase.as_deref().unwrap_or_default()) && !pod.is_static() {
            // Ended before it ever ran.
            status.phase = Some("Failed".into());
            let old = self.parts.statuses.get(&self.uid).or_else(|| pod.status.clone()).unwrap_or_default();
            for condition in status
                .conditions
                .iter_mut()
                .flatten()
                .filter(|c| ["Ready", "ContainersReady"].contains(&c.type_.as_str()))
            {
                condition.status = "False".into();
                condition.reason = Some("PodFailed".into());
                condition.message = None;
                let before =
                    old.conditions.iter().flatten().find(|c| c.type_ == condition.type_ && c.status == "False");
                if let Some(before) = before {
                    condition.last_transition_time = before.last_transition_time.clone();
                }
            }
        }
        self.parts.statuses.set(pod, target(pod, &desired), status);
    }

    /// Gives back what the pod held on the node.
    async fn release(&mut self) {
        self.mounts = None;
        let mut pause = RETRY_FIRST;
        loop {
            let volumes = self.parts.volumes.unmount(&self.uid).map_err(|e| e.to_string());
            let cgroups = self.parts.cgroups.remove(&self.uid).map_err(|e| e.to_string());
            match volumes.and(cgroups) {
                Ok(()) => return,
                Err(error) => tracing::warn!(uid = %self.uid, %error, "failed to release what the pod held"),
            }
            self.parts.clock.sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Waits for the pod to leave the API; deletes it there once that was asked for.
    async fn await_removal(&mut self) {
        let mut pause = RETRY_FIRST;
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let Some(pod) = desired.pod.as_ref().filter(|_| !desired.removed) else { return };
            let mut wait = RESYNC;
            if pod.is_deleted() && !pod.is_static() {
                self.parts.statuses.flush(&self.uid).await;
                match self.parts.api.delete_pod(pod.pod_namespace(), pod.pod_name(), &self.uid).await {
                    Ok(()) => {}
                    Err(error) if error.is_not_found() => {}
                    Err(error) => {
                        tracing::warn!(pod = %pod.described(), %error, "failed to delete pod");
                        wait = pause;
                        pause = (pause * 2).min(RETRY_MAX);
                    }
                }
            }
            tokio::select! {
                () = self.parts.clock.sleep(wait) => {}
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Removes the last traces: dead containers, logs, directories.
    async fn clean_up(&self) {
        let parts = &self.parts;
        let mut pause = RETRY_FIRST;
        while let Err(error) = parts.runtime.remove_pod(&self.uid).await {
            tracing::debug!(uid = %self.uid, %error, "failed to remove the pod's containers");
            parts.clock.sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
        match std::fs::remove_dir_all(parts.settings.pod_dir(&self.uid)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(uid = %self.uid, %error, "failed to remove the pod's directory");
            }
            _ => {}
        }
        parts.statuses.remove(&self.uid);
        parts.runtime.forget(&self.uid);
    }
}

/// What is written on the node's object.
pub(crate) fn marks(node: &Node) -> Marks {
    Marks {
        labels: node.metadata.labels.clone().unwrap_or_default(),
        taints: node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default(),
    }
}

/// Where the status of a pod is written.
fn target<'a>(pod: &'a Pod, desired: &'a Desired) -> Option<&'a Pod> {
    if pod.is_static() { desired.mirror.as_deref() } else { Some(pod) }
}

/// The grace period that deletion gave; the longest there is when it gave none.
fn grace_of(desired: &Desired) -> i64 {
    desired.pod.as_ref().and_then(|p| p.metadata.deletion_grace_period_seconds).unwrap_or(i64::MAX)
}
