//! Rolling back to an older revision on request of the annotation that replaced
//! `spec.rollbackTo`; kubectl rolls back by itself, older clients leave it to us.

use client::resources::DEPLOYMENTS;
use serde_json::Value;

use super::DeploymentController;
use super::replica_sets as sets;
use crate::types::{Deployment, ReplicaSet};
use crate::worker::{self, Error, Requeue};

/// The revision asked for; 0 means the last one.
pub(super) fn rollback_to(deployment: &Deployment) -> Option<i64> {
    deployment.metadata.annotation(sets::ROLLBACK_TO)?.parse().ok()
}

impl DeploymentController {
    pub(super) async fn rollback(&self, deployment: &mut Deployment, all: Vec<ReplicaSet>) -> worker::Result {
        let split = self.split(deployment, all, true).await?;
        let all: Vec<ReplicaSet> = split.all().cloned().collect();
        let mut revision = rollback_to(deployment).unwrap_or(0);
        if revision == 0 {
            revision = sets::last_revision(&all);
        }
        let regarding = deployment.reference();
        let target = all.iter().find(|set| revision > 0 && sets::revision(set) == Some(revision));
        match target {
            None => {
                let text = if revision == 0 {
                    "Unable to find last revision."
                } else {
                    "Unable to find the revision to rollback to."
                };
                self.recorder.event(&regarding, "Warning", "DeploymentRollbackRevisionNotFound", text);
            }
            Some(set) if sets::equal_ignoring_hash(&deployment.spec.template, &set.spec.template) => {
                let text = format!(
                    "The rollback revision contains the same template as current deployment {:?}",
                    deployment.metadata.name
                );
                self.recorder.event(&regarding, "Warning", "DeploymentRollbackTemplateUnchanged", &text);
            }
            Some(set) => {
                apply_template(deployment, set);
                let text = format!("Rolled back deployment {:?} to revision {revision}", deployment.metadata.name);
                self.recorder.event(&regarding, "Normal", "DeploymentRollback", &text);
            }
        }
        deployment.metadata.annotations.remove(sets::ROLLBACK_TO);
        let meta = &deployment.metadata;
        self.client
            .update::<serde::de::IgnoredAny>(&DEPLOYMENTS, Some(&meta.namespace), &meta.name, deployment)
            .await
            .map_err(Error::from)?;
        Ok(Requeue::Never)
    }
}

fn apply_template(deployment: &mut Deployment, set: &ReplicaSet) {
    deployment.spec.template = set.spec.template.clone();
    if let Some(labels) = deployment.spec.template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(sets::POD_TEMPLATE_HASH);
    }
    // The deployment keeps the annotations that are its own and takes the revision's others.
    deployment.metadata.annotations.retain(|key, _| sets::NOT_COPIED.contains(&key.as_str()));
    for (key, value) in &set.metadata.annotations {
        if !sets::NOT_COPIED.contains(&key.as_str()) {
            deployment.metadata.annotations.insert(key.clone(), value.clone());
        }
    }
}
