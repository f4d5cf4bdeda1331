//! Stops containers and whole pods: hooks first, then the stop signal, then the kill, within the grace
//! period; sidecars after the containers they serve, in reverse order (KEP-753).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::actions::KillReason;
use super::state::{PodState, State};
use super::{Failure, Manager, hooks};
use crate::cri;
use crate::pod::{PodExt, is_sidecar};

/// Containers always get this many seconds, whatever is left of the grace period.
const MINIMUM_GRACE: i64 = 2;

/// Seconds that a container gets: the deletion's, else the failed probe's own, else the pod's.
pub(super) fn grace_period(pod: &Pod, container: Option<&Container>, reason: KillReason) -> i64 {
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        return seconds;
    }
    let probe = container.and_then(|c| match reason {
        KillReason::LivenessProbe => c.liveness_probe.as_ref(),
        KillReason::StartupProbe => c.startup_probe.as_ref(),
        KillReason::Other => None,
    });
    let own = probe.and_then(|p| p.termination_grace_period_seconds);
    own.or(pod.pod_spec().termination_grace_period_seconds).unwrap_or(MINIMUM_GRACE)
}

impl Manager {
    /// Stops one container. `grace` is in seconds; the hook's time is taken off it.
    pub(super) async fn kill_container(
        &self,
        pod: Option<&Pod>,
        id: &str,
        name: &str,
        message: &str,
        grace: i64,
        state: &PodState,
    ) -> cri::Result<()> {
        if let Some(pod) = pod {
            let text = if message.is_empty() { format!("Stopping container {name}") } else { message.to_owned() };
            self.events.event(&self.container_reference(pod, name), "Normal", "Killing", &text);
        }
        let mut grace = grace;
        if let Some((_, container)) = pod.and_then(|p| p.container(name)) {
            let hook = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
            if let Some(hook) = hook.filter(|_| grace > 0) {
                let started = self.clock.monotonic();
                let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
                let ip = state.ips.first().map(String::as_str);
                match tokio::time::timeout(limit, hooks::run(&self.cri, hook, &container, id, ip)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(text)) => {
                        tracing::warn!(container = %name, error = %text, "preStop hook failed");
                        if let Some(pod) = pod {
                            let reference = self.container_reference(pod, name);
                            self.events.event(&reference, "Warning", "FailedPreStopHook", "PreStopHook failed");
                        }
                    }
                    Err(_) => tracing::warn!(container = %name, "preStop hook did not end within the grace period"),
                }
                grace -= i64::try_from((self.clock.monotonic() - started).as_secs()).unwrap_or(grace);
            }
        }
        match self.cri.stop_container(id, grace.max(MINIMUM_GRACE)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Stops everything of a pod: containers side by side, then its sandboxes. Without a spec (the API
    /// forgot the pod while the kubelet was away) what the labels say has to do.
    pub async fn kill_pod(
        &self,
        pod: Option<&Pod>,
        state: &PodState,
        grace_override: Option<i64>,
    ) -> Result<(), Failure> {
        let alive: Vec<_> = state
            .containers
            .iter()
            .filter(|c| matches!(c.state, State::Running | State::Unknown | State::Created))
            .collect();
        let rank = |name: &str| pod.map_or(0, |p| stop_rank(p, name));
        let mut ranks: Vec<usize> = alive.iter().map(|c| rank(&c.name)).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let begun = self.clock.monotonic();
        for turn in ranks {
            let kills = alive.iter().filter(|c| rank(&c.name) == turn).map(|c| {
                let grace = match (grace_override, pod) {
                    (Some(seconds), _) => seconds,
                    (None, Some(pod)) => grace_period(pod, None, KillReason::Other),
                    (None, None) => MINIMUM_GRACE.max(30),
                };
                // Those who wait for their turn have used up what passed meanwhile.
                let waited = i64::try_from((self.clock.monotonic() - begun).as_secs()).unwrap_or(0);
                let left = if grace > 0 { (grace - waited).max(0) } else { grace };
                self.kill_container(pod, &c.id, &c.name, "", left, state)
            });
            for result in futures::future::join_all(kills).await {
                result.map_err(|e| Failure { reason: "KillContainerError".into(), message: e.message })?;
            }
        }
        for sandbox in state.sandboxes.iter().filter(|s| s.state() == proto::cri::PodSandboxState::SandboxReady) {
            match self.cri.stop_pod_sandbox(&sandbox.id).await {
                Err(error) if !error.is_not_found() => {
                    return Err(Failure { reason: "KillPodSandboxError".into(), message: error.message });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// When a container's turn to stop comes: everything but sidecars at once, then sidecars from the last
/// to the first.
fn stop_rank(pod: &Pod, name: &str) -> usize {
    let sidecars: Vec<&str> = pod.init_containers().iter().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
    match sidecars.iter().position(|s| *s == name) {
        None => 0,
        Some(position) => sidecars.len() - position,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn graces() {
        let pod = |metadata: serde_json::Value| -> Pod {
            serde_json::from_value(
                json!({"metadata": metadata, "spec": {"terminationGracePeriodSeconds": 30, "containers": []}}),
            )
            .unwrap()
        };
        let container: Container =
            serde_json::from_value(json!({"name": "c", "livenessProbe": {"terminationGracePeriodSeconds": 5}}))
                .unwrap();
        let live = pod(json!({}));
        assert_eq!(grace_period(&live, Some(&container), KillReason::LivenessProbe), 5);
        assert_eq!(grace_period(&live, Some(&container), KillReason::StartupProbe), 30);
        assert_eq!(grace_period(&live, None, KillReason::Other), 30);
        let deleted = pod(json!({"deletionGracePeriodSeconds": 1}));
        assert_eq!(grace_period(&deleted, Some(&container), KillReason::LivenessProbe), 1);
    }

    #[test]
    fn sidecars_stop_last_and_backwards() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "app"}], "initContainers": [
            {"name": "a", "restartPolicy": "Always"}, {"name": "init"}, {"name": "b", "restartPolicy": "Always"}]}}))
        .unwrap();
        let mut names = ["a", "b", "app"];
        names.sort_by_key(|n| stop_rank(&pod, n));
        assert_eq!(names, ["app", "b", "a"]);
    }
}
