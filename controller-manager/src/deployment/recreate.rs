//! Recreate: the old pods are gone before the first new one comes.

use super::DeploymentController;
use super::replica_sets as sets;
use super::sync::Split;
use crate::pod_control;
use crate::types::{Deployment, ReplicaSet};
use crate::worker;

impl DeploymentController {
    pub(super) async fn rollout_recreate(&self, deployment: &mut Deployment, all: Vec<ReplicaSet>) -> worker::Result {
        // The new set is not made yet: that would scale up before scaling down.
        let mut split = self.split(deployment, all, false).await?;
        let mut scaled_down = false;
        for set in split.old.iter_mut().filter(|set| set.spec.replicas > 0) {
            scaled_down |= self.scale(deployment, set, 0, false).await?;
        }
        if scaled_down || self.old_pods_run(&split) {
            return self.sync_rollout_status(deployment, &split).await;
        }
        if split.new.is_none() {
            split = self.split(deployment, split.old, true).await?;
        }
        if let Some(new) = &mut split.new {
            self.scale(deployment, new, deployment.spec.replicas, false).await?;
        }
        if sets::is_complete(deployment, &deployment.status) {
            self.clean_up(deployment, &split.old).await?;
        }
        self.sync_rollout_status(deployment, &split).await
    }

    fn old_pods_run(&self, split: &Split) -> bool {
        sets::actual(&split.old) > 0
            || split.old.iter().any(|set| {
                self.pods.by_index(pod_control::BY_CONTROLLER, &set.metadata.uid).iter().any(|pod| !pod.is_finished())
            })
    }
}
