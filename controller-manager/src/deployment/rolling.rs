//! RollingUpdate: the new set grows as far as surge allows, the old ones shrink as far as
//! availability allows, in turns.

use super::DeploymentController;
use super::replica_sets as sets;
use super::sync::Split;
use crate::types::{Deployment, ReplicaSet};
use crate::worker::{self, Error};

impl DeploymentController {
    pub(super) async fn rollout_rolling(&self, deployment: &mut Deployment, all: Vec<ReplicaSet>) -> worker::Result {
        let mut split = self.split(deployment, all, true).await?;
        if self.grow_new(deployment, &mut split).await? || self.shrink_old(deployment, &mut split).await? {
            return self.sync_rollout_status(deployment, &split).await;
        }
        if sets::is_complete(deployment, &deployment.status) {
            self.clean_up(deployment, &split.old).await?;
        }
        self.sync_rollout_status(deployment, &split).await
    }

    async fn grow_new(&self, deployment: &Deployment, split: &mut Split) -> Result<bool, Error> {
        let total = sets::replicas(split.all());
        let Some(new) = &mut split.new else { return Ok(false) };
        match new_size(deployment, total, new.spec.replicas) {
            Some(size) => self.scale(deployment, new, size, false).await,
            None => Ok(false),
        }
    }

    async fn shrink_old(&self, deployment: &Deployment, split: &mut Split) -> Result<bool, Error> {
        let Some(new) = &split.new else { return Ok(false) };
        let sizes = old_sizes(deployment, new, &split.old);
        let mut shrunk = false;
        for (set, size) in split.old.iter_mut().zip(sizes) {
            if set.spec.replicas != size {
                shrunk |= self.scale(deployment, set, size, false).await?;
            }
        }
        Ok(shrunk)
    }
}

/// Pure: the size the new set should get now, if another than it has.
pub(super) fn new_size(deployment: &Deployment, total: i64, current: i64) -> Option<i64> {
    let wanted = deployment.spec.replicas;
    let size = match current.cmp(&wanted) {
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Greater => wanted,
        std::cmp::Ordering::Less => sets::new_set_replicas(deployment, total, current),
    };
    (size != current).then_some(size)
}

/// Pure: the sizes of the old sets (ordered by age) after this step. Pods that are not available go
/// first, because they cost no availability and would block the rollout; then available ones, as
/// many as the minimum availability can spare.
pub(super) fn old_sizes(deployment: &Deployment, new: &ReplicaSet, old: &[ReplicaSet]) -> Vec<i64> {
    let mut sizes: Vec<i64> = old.iter().map(|set| set.spec.replicas).collect();
    let total: i64 = sizes.iter().sum::<i64>() + new.spec.replicas;
    if total == new.spec.replicas {
        return sizes;
    }
    let min_available = deployment.spec.replicas - sets::max_unavailable(deployment);
    let new_unavailable = new.spec.replicas - new.status.available_replicas;
    let max_scaled_down = total - min_available - new_unavailable;
    if max_scaled_down <= 0 {
        return sizes;
    }
    let mut cleaned = 0;
    for (set, size) in old.iter().zip(&mut sizes) {
        let unhealthy = *size - set.status.available_replicas;
        let count = unhealthy.min(max_scaled_down - cleaned).max(0);
        *size -= count;
        cleaned += count;
    }
    let available = sets::available(old.iter().chain(Some(new)));
    let mut spare = available - min_available;
    for size in &mut sizes {
        if spare <= 0 {
            break;
        }
        let count = spare.min(*size);
        *size -= count;
        spare -= count;
    }
    sizes
}
