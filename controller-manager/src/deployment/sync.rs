//! Revisions, scaling, clean-up and status: what every kind of rollout shares.

use client::resources::REPLICA_SETS;
use client::{DeleteOptions, ObjectMeta, Timestamp};
use serde_json::json;

use super::replica_sets as sets;
use super::{DeploymentController, Requeue};
use crate::ownership::controller_reference;
use crate::types::{Condition, Deployment, DeploymentStatus, ReplicaSet, condition, whole_seconds};
use crate::worker::{self, Error};

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";

pub(super) const FAILED_CREATE: &str = "ReplicaSetCreateError";
pub(super) const NEW_REPLICA_SET: &str = "NewReplicaSetCreated";
pub(super) const FOUND_NEW: &str = "FoundNewReplicaSet";
pub(super) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
pub(super) const PAUSED: &str = "DeploymentPaused";
pub(super) const RESUMED: &str = "DeploymentResumed";

pub(super) fn new_condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        kind: kind.into(),
        status: status.into(),
        last_update_time: Some(whole_seconds(now)),
        last_transition_time: Some(whole_seconds(now)),
        reason: reason.into(),
        message: message.into(),
        ..Condition::default()
    }
}

/// Puts a condition in; one of the same status and reason stays as it is, and the time of transition
/// is kept while the status stays the same.
pub(super) fn set_condition(status: &mut DeploymentStatus, mut new: Condition) {
    if let Some(current) = condition(&status.conditions, &new.kind) {
        if current.status == new.status && current.reason == new.reason {
            return;
        }
        if current.status == new.status {
            new.last_transition_time = current.last_transition_time;
        }
    }
    remove_condition(status, &new.kind.clone());
    status.conditions.push(new);
}

pub(super) fn remove_condition(status: &mut DeploymentStatus, kind: &str) {
    status.conditions.retain(|condition| condition.kind != kind);
}

/// A deployment's sets: the one with its template, when it exists, and the others by age.
pub(super) struct Split {
    pub new: Option<ReplicaSet>,
    pub old: Vec<ReplicaSet>,
}

impl Split {
    pub fn of(deployment: &Deployment, mut all: Vec<ReplicaSet>) -> Self {
        let new = sets::find_new(deployment, &all).map(|place| all.remove(place));
        Self { new, old: all }
    }

    pub fn all(&self) -> impl Iterator<Item = &ReplicaSet> + Clone {
        self.old.iter().chain(&self.new)
    }
}

impl DeploymentController {
    pub(super) async fn sync_status_only(&self, deployment: &mut Deployment, all: &[ReplicaSet]) -> worker::Result {
        let split = self.split(deployment, all.to_vec(), false).await?;
        self.sync_status(deployment, &split).await
    }

    /// Scaling events and paused deployments: keeps proportions, rolls nothing.
    pub(super) async fn sync(&self, deployment: &mut Deployment, all: Vec<ReplicaSet>) -> worker::Result {
        let mut split = self.split(deployment, all, false).await?;
        self.scale_all(deployment, &mut split).await?;
        if deployment.spec.paused && super::rollback::rollback_to(deployment).is_none() {
            self.clean_up(deployment, &split.old).await?;
        }
        self.sync_status(deployment, &split).await
    }

    pub(super) async fn check_paused_conditions(&self, deployment: &mut Deployment) -> Result<(), Error> {
        if sets::progress_deadline(deployment).is_none() {
            return Ok(());
        }
        let reason = condition(&deployment.status.conditions, PROGRESSING).map(|condition| condition.reason.as_str());
        if reason == Some(TIMED_OUT) {
            // A reported lack of progress is not hidden behind a pause.
            return Ok(());
        }
        let was_paused = reason == Some(PAUSED);
        let (reason, message) = match (deployment.spec.paused, was_paused) {
            (true, false) => (PAUSED, "Deployment is paused"),
            (false, true) => (RESUMED, "Deployment is resumed"),
            _ => return Ok(()),
        };
        let condition = new_condition(PROGRESSING, "Unknown", reason, message, self.clock.now());
        set_condition(&mut deployment.status, condition);
        self.write_status(deployment).await
    }

    /// Finds the new set, or creates it when wanted, and keeps revisions and annotations in order.
    pub(super) async fn split(
        &self,
        deployment: &mut Deployment,
        all: Vec<ReplicaSet>,
        create: bool,
    ) -> Result<Split, Error> {
        let mut split = Split::of(deployment, all);
        let revision = sets::max_revision(&split.old) + 1;
        if let Some(set) = &mut split.new {
            let changed = sets::set_new_annotations(deployment, set, revision, true);
            if changed || set.spec.min_ready_seconds != deployment.spec.min_ready_seconds {
                set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
                *set = self.update_set(set).await?;
                return Ok(split);
            }
            let mut changed =
                set_revision(&mut deployment.metadata, set.metadata.annotation(sets::REVISION).unwrap_or_default());
            if sets::progress_deadline(deployment).is_some()
                && condition(&deployment.status.conditions, PROGRESSING).is_none()
            {
                let message = format!("Found new replica set {:?}", set.metadata.name);
                set_condition(
                    &mut deployment.status,
                    new_condition(PROGRESSING, "True", FOUND_NEW, &message, self.clock.now()),
                );
                changed = true;
            }
            if changed {
                self.write_status(deployment).await?;
            }
            return Ok(split);
        }
        if create {
            split.new = Some(self.create_new(deployment, &split.old, revision).await?);
        }
        Ok(split)
    }

    async fn create_new(
        &self,
        deployment: &mut Deployment,
        old: &[ReplicaSet],
        revision: i64,
    ) -> Result<ReplicaSet, Error> {
        let hash = sets::template_hash(&deployment.spec.template, deployment.status.collision_count);
        let mut set = ReplicaSet::default().typed();
        set.spec.template = deployment.spec.template.clone();
        set.spec.template["metadata"]["labels"][sets::POD_TEMPLATE_HASH] = json!(hash);
        set.spec.selector = deployment.spec.selector.clone();
        set.spec.selector["matchLabels"][sets::POD_TEMPLATE_HASH] = json!(hash);
        set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
        set.metadata = ObjectMeta {
            name: sets::set_name(&deployment.metadata.name, &hash),
            namespace: deployment.metadata.namespace.clone(),
            owner_references: vec![controller_reference(&client::resources::DEPLOYMENTS, &deployment.metadata)].into(),
            labels: set
                .template_labels()
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_string())))
                .collect(),
            ..ObjectMeta::default()
        };
        let count = sets::new_set_replicas(deployment, sets::replicas(old), 0);
        set.spec.replicas = count;
        sets::set_new_annotations(deployment, &mut set, revision, false);
        let namespace = deployment.metadata.namespace.clone();
        let result: client::Result<ReplicaSet> = self.client.create(&REPLICA_SETS, Some(&namespace), &set).await;
        let (created, existed) = match result {
            Ok(created) => (created.typed(), false),
            Err(error) if error.is_already_exists() => {
                // The cache may be behind: the server knows whose set this is.
                let known: ReplicaSet = self.client.get(&REPLICA_SETS, Some(&namespace), &set.metadata.name).await?;
                let ours = known.metadata.controller().is_some_and(|owner| owner.uid == deployment.metadata.uid);
                if !ours || !sets::equal_ignoring_hash(&known.spec.template, &deployment.spec.template) {
                    deployment.status.collision_count = Some(deployment.status.collision_count.unwrap_or(0) + 1);
                    self.write_status(deployment).await?;
                    return Err(error.into());
                }
                (known.typed(), true)
            }
            Err(error) if error.is_namespace_terminating() => return Err(error.into()),
            Err(error) => {
                let message = format!("Failed to create new replica set {:?}: {error}", set.metadata.name);
                if sets::progress_deadline(deployment).is_some() {
                    let condition = new_condition(PROGRESSING, "False", FAILED_CREATE, &message, self.clock.now());
                    set_condition(&mut deployment.status, condition);
                    // The creation's failure is what counts; the reconcile comes again either way.
                    if let Err(second) = self.write_status(deployment).await {
                        tracing::debug!(error = %second, "cannot write the status of a failed rollout");
                    }
                }
                self.recorder.event(&deployment.reference(), "Warning", FAILED_CREATE, &message);
                return Err(error.into());
            }
        };
        if !existed && count > 0 {
            let message = format!("Scaled up replica set {} from 0 to {count}", created.metadata.name);
            self.recorder.event(&deployment.reference(), "Normal", "ScalingReplicaSet", &message);
        }
        let mut changed = set_revision(&mut deployment.metadata, &revision.to_string());
        if !existed && sets::progress_deadline(deployment).is_some() {
            let message = format!("Created new replica set {:?}", created.metadata.name);
            set_condition(
                &mut deployment.status,
                new_condition(PROGRESSING, "True", NEW_REPLICA_SET, &message, self.clock.now()),
            );
            changed = true;
        }
        if changed {
            self.write_status(deployment).await?;
        }
        Ok(created)
    }

    async fn update_set(&self, set: &ReplicaSet) -> Result<ReplicaSet, Error> {
        let updated: ReplicaSet =
            self.client.update(&REPLICA_SETS, Some(&set.metadata.namespace), &set.metadata.name, set).await?;
        Ok(updated.typed())
    }

    /// Scales without rolling: the only active set takes everything; otherwise all keep their share.
    async fn scale_all(&self, deployment: &Deployment, split: &mut Split) -> Result<(), Error> {
        let wanted = deployment.spec.replicas;
        if let Some(only) = sets::active_or_latest(split.new.as_ref(), &split.old) {
            let uid = only.metadata.uid.clone();
            let only = split.old.iter_mut().chain(&mut split.new).find(|set| set.metadata.uid == uid);
            if let Some(set) = only
                && set.spec.replicas != wanted
            {
                self.scale(deployment, set, wanted, false).await?;
            }
            return Ok(());
        }
        if split.new.as_ref().is_some_and(|new| sets::is_saturated(deployment, new)) {
            for set in split.old.iter_mut().filter(|set| set.spec.replicas > 0) {
                self.scale(deployment, set, 0, false).await?;
            }
            return Ok(());
        }
        if sets::is_rolling(deployment) {
            let mut active: Vec<&mut ReplicaSet> =
                split.old.iter_mut().chain(&mut split.new).filter(|set| set.spec.replicas > 0).collect();
            let sizes = proportional_sizes(deployment, &mut active);
            for (set, size) in active.into_iter().zip(sizes) {
                self.scale(deployment, set, size, true).await?;
            }
        }
        Ok(())
    }

    /// Makes a set this large; true when its size changed. With `force`, stale annotations are
    /// refreshed even where the size stays.
    pub(super) async fn scale(
        &self,
        deployment: &Deployment,
        set: &mut ReplicaSet,
        size: i64,
        force: bool,
    ) -> Result<bool, Error> {
        let before = set.spec.replicas;
        let mut desired = set.clone();
        desired.spec.replicas = size;
        let annotations_changed = sets::set_replicas_annotations(&mut desired, deployment);
        if before == size && !(force && annotations_changed) {
            return Ok(false);
        }
        *set = self.update_set(&desired).await?;
        if before == size {
            return Ok(false);
        }
        let direction = if before < size { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {before} to {size}", set.metadata.name);
        self.recorder.event(&deployment.reference(), "Normal", "ScalingReplicaSet", &message);
        Ok(true)
    }

    /// Deletes the oldest empty sets beyond the history limit.
    pub(super) async fn clean_up(&self, deployment: &Deployment, old: &[ReplicaSet]) -> Result<(), Error> {
        for set in expendable(deployment, old) {
            let result = self
                .client
                .delete(&REPLICA_SETS, Some(&set.metadata.namespace), &set.metadata.name, &DeleteOptions::default())
                .await;
            match result {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) async fn sync_status(&self, deployment: &mut Deployment, split: &Split) -> worker::Result {
        let status = calculate_status(deployment, split, self.clock.now());
        if status != deployment.status {
            deployment.status = status;
            self.write_status(deployment).await?;
        }
        Ok(Requeue::Never)
    }

    /// Whether the deployment's size differs from what its active sets were last told.
    pub(super) async fn is_scaling_event(
        &self,
        deployment: &mut Deployment,
        all: &mut Vec<ReplicaSet>,
    ) -> Result<bool, Error> {
        let split = self.split(deployment, std::mem::take(all), false).await?;
        let scaling = split
            .all()
            .filter(|set| set.spec.replicas > 0)
            .filter_map(sets::desired_replicas)
            .any(|desired| desired != deployment.spec.replicas);
        *all = split.old;
        all.extend(split.new);
        sets::sort_by_creation(all);
        Ok(scaling)
    }
}

fn set_revision(metadata: &mut ObjectMeta, revision: &str) -> bool {
    if metadata.annotation(sets::REVISION) == Some(revision) {
        return false;
    }
    metadata.annotations.insert(sets::REVISION.into(), revision.into());
    true
}

/// Pure: the size each active set gets. Reorders `active`: the largest takes what rounding leaves.
pub(super) fn proportional_sizes(deployment: &Deployment, active: &mut [&mut ReplicaSet]) -> Vec<i64> {
    let allowed = if deployment.spec.replicas > 0 { deployment.spec.replicas + sets::max_surge(deployment) } else { 0 };
    let to_add = allowed - sets::replicas(active.iter().map(|set| &**set));
    if to_add > 0 {
        active.sort_by(|a, b| sets::by_size_newer(a, b));
    } else if to_add < 0 {
        active.sort_by(|a, b| sets::by_size_older(a, b));
    }
    let mut added = 0;
    let mut sizes: Vec<i64> = active
        .iter()
        .map(|set| {
            let share = sets::proportion(set, deployment, to_add, added);
            added += share;
            set.spec.replicas + share
        })
        .collect();
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

/// Pure: which old sets the history limit lets go, oldest revision first.
pub(super) fn expendable<'a>(deployment: &Deployment, old: &'a [ReplicaSet]) -> Vec<&'a ReplicaSet> {
    let Some(limit) = sets::history_limit(deployment) else { return Vec::new() };
    let mut alive: Vec<&ReplicaSet> = old.iter().filter(|set| !set.metadata.is_deleting()).collect();
    let excess = (alive.len() as i64 - limit).max(0) as usize;
    alive.sort_by(|a, b| sets::by_revision(a, b));
    alive
        .into_iter()
        .take(excess)
        .filter(|set| {
            set.status.replicas == 0
                && set.spec.replicas == 0
                && set.metadata.generation <= set.status.observed_generation
        })
        .collect()
}

/// Pure: the status that the sets add up to, conditions of progress left as they are.
pub(super) fn calculate_status(deployment: &Deployment, split: &Split, now: Timestamp) -> DeploymentStatus {
    let available = sets::available(split.all());
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: sets::actual(split.all()),
        updated_replicas: sets::actual(&split.new),
        ready_replicas: sets::ready(split.all()),
        available_replicas: available,
        unavailable_replicas: (sets::replicas(split.all()) - available).max(0),
        terminating_replicas: sets::terminating(split.all()),
        conditions: deployment.status.conditions.clone(),
        collision_count: deployment.status.collision_count,
    };
    let enough = available >= deployment.spec.replicas - sets::max_unavailable(deployment);
    let condition = if enough {
        new_condition(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    } else {
        new_condition(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            now,
        )
    };
    set_condition(&mut status, condition);
    status
}
