//! What the scheduler does to the API: binds, writes conditions, removes victims, records events.
//!
//! Everything runs as tasks of its own, many at a time; the scheduling loop never waits for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use client::events::{Recorder, Reference};
use client::informer::Store;
use client::{Client, DeleteOptions, ObjectKey, Patch, resources};
use component_base::clock::SharedClock;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::scheduling_loop::Change;
use crate::core::Failure;
use crate::framework::pod_info::PodInfo;
use crate::framework::profile::Profile;
use crate::metrics::Metrics;
use crate::objects::Pod;
use crate::queue::QueuedPod;

/// The condition that says whether a pod has a node.
const POD_SCHEDULED: &str = "PodScheduled";

/// Carries decisions out. Clones share everything.
#[derive(Clone)]
pub(super) struct Actions {
    client: Client,
    /// By scheduler name.
    recorders: Arc<HashMap<String, Recorder>>,
    pods: Store<Pod>,
    metrics: Metrics,
    clock: SharedClock,
    changes: Sender<Change>,
    bindings: Arc<Semaphore>,
}

impl Actions {
    pub(super) fn new(
        client: Client,
        recorders: HashMap<String, Recorder>,
        pods: Store<Pod>,
        metrics: Metrics,
        clock: SharedClock,
        changes: Sender<Change>,
        parallel_bindings: usize,
    ) -> Self {
        Self {
            client,
            recorders: Arc::new(recorders),
            pods,
            metrics,
            clock,
            changes,
            bindings: Arc::new(Semaphore::new(parallel_bindings)),
        }
    }

    /// Binds a pod to its node, in the background.
    pub(super) fn bind(&self, profile: Arc<Profile>, pod: QueuedPod, node: &str, started: Duration) {
        let (this, node) = (self.clone(), node.to_owned());
        tokio::spawn(async move {
            let _permit = this.bindings.acquire().await;
            let result = profile.run_binding(&pod.info, &node).await;
            let now = this.clock.monotonic();
            let info = &pod.info;
            match result {
                Ok(()) => {
                    let name = format!("{}/{}", info.namespace(), info.name());
                    tracing::debug!(pod = name, node, "Successfully bound pod to node");
                    let total = now.saturating_sub(pod.first);
                    this.metrics.scheduled(&profile.scheduler_name, now.saturating_sub(started), total, pod.attempts);
                    this.record(
                        info,
                        None,
                        "Normal",
                        "Scheduled",
                        "Binding",
                        &format!("Successfully assigned {name} to {node}"),
                    );
                    this.send(Change::Bound(info.uid().to_owned()));
                }
                Err(status) => {
                    let message = format!("running Bind plugin {:?}: {}", status.plugin, status.message());
                    let failure = Failure::new("SchedulerError", message);
                    this.report(&pod, failure, now.saturating_sub(started));
                    this.send(Change::BindingFailed(Box::new(pod)));
                }
            }
        });
    }

    /// Tells why a pod has no node, and makes room for it if that was decided; in the background.
    pub(super) fn report(&self, pod: &QueuedPod, failure: Failure, took: Duration) {
        let info = pod.info.clone();
        let profile = &info.pod.spec.scheduler_name;
        let result = if failure.reason == "Unschedulable" { "unschedulable" } else { "error" };
        self.metrics.failed(result, profile, took);
        tracing::debug!(
            pod = format!("{}/{}", info.namespace(), info.name()),
            reason = failure.reason,
            message = failure.message,
            "Unable to schedule pod"
        );
        let this = self.clone();
        tokio::spawn(async move {
            // It may be gone, replaced, or have a node by now.
            let key = ObjectKey::new(info.namespace(), info.name());
            let Some(current) = this.pods.get(&key) else { return };
            if current.metadata.uid != info.uid() || !current.spec.node_name.is_empty() {
                return;
            }
            this.record(&info, None, "Warning", "FailedScheduling", "Scheduling", &note(&failure.message));
            let nominated = failure.post_filter.as_ref().and_then(|result| result.nominated_node.clone());
            this.update_status(&current, failure.reason, &failure.message, nominated.as_deref()).await;
            for other in &failure.withdrawn {
                this.patch_status(&other.pod, &json!({"nominatedNodeName": null})).await;
            }
            if let Some(result) = failure.post_filter {
                this.metrics.preempted(result.victims.len());
                let node = result.nominated_node.unwrap_or_default();
                for victim in &result.victims {
                    this.preempt(&info, victim, &node).await;
                }
            }
        });
    }

    async fn update_status(&self, pod: &Pod, reason: &str, message: &str, nominated: Option<&str>) {
        let known = pod.status.conditions.iter().find(|condition| condition.type_ == POD_SCHEDULED);
        let same_condition = known.is_some_and(|c| c.status == "False" && c.reason == reason && c.message == message);
        let same_node = nominated.is_none_or(|node| node == pod.status.nominated_node_name);
        if same_condition && same_node {
            return;
        }
        let mut condition = json!({
            "type": POD_SCHEDULED, "status": "False", "reason": reason, "message": message,
            "observedGeneration": pod.metadata.generation,
        });
        // The time tells when the status changed, not the message.
        if known.is_none_or(|c| c.status != "False") {
            condition["lastTransitionTime"] = json!(self.seconds());
        }
        let mut status = json!({"conditions": [condition]});
        if let Some(node) = nominated {
            status["nominatedNodeName"] = if node.is_empty() { Value::Null } else { json!(node) };
        }
        self.patch_status(pod, &status).await;
    }

    async fn patch_status(&self, pod: &Pod, status: &Value) {
        let metadata = &pod.metadata;
        // With the UID, so that a new pod of the same name is left alone.
        let patch = Patch::Strategic(json!({"metadata": {"uid": metadata.uid}, "status": status}));
        let result: Result<Value, _> = self
            .client
            .patch(&resources::PODS, Some(&metadata.namespace), &metadata.name, Some("status"), &patch)
            .await;
        match result {
            Err(error) if !error.is_not_found() && !error.is_conflict() => {
                tracing::error!(pod = format!("{}/{}", metadata.namespace, metadata.name), %error, "Error updating pod");
            }
            _ => {}
        }
    }

    /// Removes a pod so that another, more important one can have its place.
    async fn preempt(&self, preemptor: &PodInfo, victim: &PodInfo, node: &str) {
        if victim.is_terminating() {
            return;
        }
        let message = format!("{}: preempting to accommodate a higher priority pod", preemptor.pod.spec.scheduler_name);
        let condition = json!({"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": message,
            "observedGeneration": victim.pod.metadata.generation, "lastTransitionTime": self.seconds(),
        }]});
        self.patch_status(&victim.pod, &condition).await;
        let result = self
            .client
            .delete(&resources::PODS, Some(victim.namespace()), victim.name(), &DeleteOptions::uid(victim.uid()))
            .await;
        match result {
            Ok(()) => self.record(
                victim,
                Some(preemptor),
                "Normal",
                "Preempted",
                "Preempting",
                &format!("Preempted by pod {} on node {node}", preemptor.uid()),
            ),
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                tracing::error!(victim = victim.name(), %error, "Could not preempt pod");
            }
        }
    }

    /// Records an event about `pod`, in the name of the scheduler that decided.
    fn record(&self, pod: &PodInfo, related: Option<&PodInfo>, kind: &str, reason: &str, action: &str, note: &str) {
        let decided_by = &related.unwrap_or(pod).pod.spec.scheduler_name;
        if let Some(recorder) = self.recorders.get(decided_by) {
            recorder.event_with(&reference(pod), related.map(reference).as_ref(), kind, reason, action, note);
        }
    }

    fn seconds(&self) -> String {
        self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    fn send(&self, change: Change) {
        // The loop ends only when the scheduler does.
        drop(self.changes.send(change));
    }
}

fn reference(pod: &PodInfo) -> Reference {
    Reference::of(&resources::PODS, &pod.pod.metadata)
}

/// An event's note is limited to 1024 bytes.
fn note(message: &str) -> String {
    const MAX: usize = 1024;
    if message.len() <= MAX {
        return message.to_owned();
    }
    let mut end = MAX - 4;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} ...", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded() {
        assert_eq!(note("short"), "short");
        let long = "ä".repeat(1000);
        let cut = note(&long);
        assert!(cut.len() <= 1024 && cut.ends_with(" ..."));
    }
}
