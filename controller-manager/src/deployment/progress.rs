//! Whether a rollout gets on: the `Progressing` condition and its deadline.

use std::time::Duration;

use client::Timestamp;

use super::replica_sets as sets;
use super::sync::{
    PROGRESSING, REPLICA_FAILURE, Split, TIMED_OUT, calculate_status, new_condition, remove_condition, set_condition,
};
use super::{DeploymentController, requeue_after};
use crate::types::{Condition, Deployment, DeploymentStatus, condition};
use crate::worker;

const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const UPDATED: &str = "ReplicaSetUpdated";

impl DeploymentController {
    pub(super) async fn sync_rollout_status(&self, deployment: &mut Deployment, split: &Split) -> worker::Result {
        let now = self.clock.now();
        let status = rollout_status(deployment, split, now);
        if status == deployment.status {
            return Ok(requeue_after(until_deadline(deployment, &status, now)));
        }
        deployment.status = status;
        self.write_status(deployment).await?;
        Ok(worker::Requeue::Never)
    }
}

/// Pure: the status during a rollout.
pub(super) fn rollout_status(deployment: &Deployment, split: &Split, now: Timestamp) -> DeploymentStatus {
    let mut status = calculate_status(deployment, split, now);
    let deadline = sets::progress_deadline(deployment);
    if deadline.is_none() {
        remove_condition(&mut status, PROGRESSING);
    }
    let current = condition(&deployment.status.conditions, PROGRESSING).cloned();
    let finished_before = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|current| current.reason == NEW_AVAILABLE);
    if let Some(deadline) = deadline.filter(|_| !finished_before) {
        let subject = match &split.new {
            Some(new) => format!("ReplicaSet {:?}", new.metadata.name),
            None => format!("Deployment {:?}", deployment.metadata.name),
        };
        if sets::is_complete(deployment, &status) {
            let message = format!("{subject} has successfully progressed.");
            set_condition(&mut status, new_condition(PROGRESSING, "True", NEW_AVAILABLE, &message, now));
        } else if is_progressing(deployment, &status) {
            let message = format!("{subject} is progressing.");
            let mut progressing = new_condition(PROGRESSING, "True", UPDATED, &message, now);
            // Each step of progress moves the time of update, even where the reason stays.
            if let Some(current) = &current {
                if current.is_true() {
                    progressing.last_transition_time = current.last_transition_time;
                }
                remove_condition(&mut status, PROGRESSING);
            }
            set_condition(&mut status, progressing);
        } else if has_timed_out(&status, deadline, now) {
            let message = format!("{subject} has timed out progressing.");
            set_condition(&mut status, new_condition(PROGRESSING, "False", TIMED_OUT, &message, now));
        }
    }
    match replica_failure(split) {
        Some(failure) => set_condition(&mut status, failure),
        None => remove_condition(&mut status, REPLICA_FAILURE),
    }
    status
}

fn is_progressing(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let old = &deployment.status;
    new.updated_replicas > old.updated_replicas
        || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn has_timed_out(status: &DeploymentStatus, deadline: i64, now: Timestamp) -> bool {
    let Some(progressing) = condition(&status.conditions, PROGRESSING) else { return false };
    match progressing.reason.as_str() {
        NEW_AVAILABLE => false,
        TIMED_OUT => true,
        _ => progressing
            .last_update_time
            .is_some_and(|updated| updated + Duration::from_secs(deadline.max(0) as u64) < now),
    }
}

/// How long until the rollout is late; `None` when there is no deadline to wait for.
pub(super) fn until_deadline(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let deadline = sets::progress_deadline(deployment)?;
    let current = condition(&deployment.status.conditions, PROGRESSING)?;
    if sets::is_complete(deployment, status) || current.reason == TIMED_OUT {
        return None;
    }
    let late = current.last_update_time? + Duration::from_secs(deadline.max(0) as u64);
    Some(Duration::try_from(late.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// The failure of the new set, or of any.
fn replica_failure(split: &Split) -> Option<Condition> {
    let failure =
        split.new.iter().chain(&split.old).find_map(|set| condition(&set.status.conditions, REPLICA_FAILURE))?;
    Some(Condition { last_update_time: failure.last_transition_time, ..failure.clone() })
}
