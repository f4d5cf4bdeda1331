//! Volumes stay while they are bound to a claim. Reads and writes persistentvolumes. Upstream:
//! `pkg/controller/volume/pvprotection`.

use std::sync::Arc;

use client::ObjectKey;
use client::informer::Event;
use client::resources::PERSISTENT_VOLUMES;
use client::workqueue::WorkQueue;
use futures::future::BoxFuture;

use super::{Decision, decide, set_finalizer};
use crate::context::Context;
use crate::types::PersistentVolume;
use crate::worker::{self, Requeue};

pub const NAME: &str = "persistentvolume-protection-controller";

const FINALIZER: &str = "kubernetes.io/pv-protection";

/// Pure: whether the finalizer is to go on (`true`) or off; `None` when it is as it should be.
fn wanted(volume: &PersistentVolume) -> Option<bool> {
    match decide(&volume.metadata, FINALIZER) {
        Decision::Protect => Some(true),
        Decision::ReleaseIfUnused if volume.status.phase != "Bound" => Some(false),
        _ => None,
    }
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let volumes = context.informers.of::<PersistentVolume>(&PERSISTENT_VOLUMES);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        volumes.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) && wanted(event.object()).is_some() {
                queue.add(event.object().metadata.key());
            }
        });
    }
    let client = context.client("pv-protection-controller");
    let followed = [volumes.synced()];
    let store = volumes.store();
    worker::start(NAME, queue, 1, &context.shutdown, followed, move |key| {
        let (client, store) = (client.clone(), store.clone());
        async move {
            if let Some(volume) = store.get(&key)
                && let Some(on) = wanted(&volume)
            {
                set_finalizer(&client, &PERSISTENT_VOLUMES, &volume.metadata, FINALIZER, on).await?;
            }
            Ok(Requeue::Never)
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bound_volume_stays() {
        let volume = |phase: &str, deleting: bool, finalizers: &[&str]| -> PersistentVolume {
            let deleted = deleting.then_some("2024-01-01T00:00:00Z");
            serde_json::from_value(json!({
                "metadata": {"deletionTimestamp": deleted, "finalizers": finalizers}, "status": {"phase": phase},
            }))
            .unwrap()
        };
        for (volume, expected) in [
            (volume("Bound", true, &[FINALIZER]), None),
            (volume("Released", true, &[FINALIZER]), Some(false)),
            (volume("Available", false, &[FINALIZER]), None),
            (volume("Available", false, &[]), Some(true)),
        ] {
            assert_eq!(wanted(&volume), expected);
        }
    }
}
