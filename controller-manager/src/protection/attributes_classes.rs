//! VolumeAttributesClasses stay while a claim or a volume has them. Reads claims and volumes; writes
//! volumeattributesclasses. Upstream: `pkg/controller/volume/vacprotection`.

use std::sync::Arc;

use client::informer::{Event, Store};
use client::resources::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, VOLUME_ATTRIBUTES_CLASSES};
use client::workqueue::WorkQueue;
use client::{Client, ObjectKey};
use futures::future::BoxFuture;

use super::{Decision, decide, set_finalizer};
use crate::context::Context;
use crate::types::{MetadataOnly, PersistentVolume, PersistentVolumeClaim};
use crate::worker::{self, Requeue};

pub const NAME: &str = "volumeattributesclass-protection-controller";

const FINALIZER: &str = "kubernetes.io/vac-protection";
/// Claims and volumes by their classes.
const BY_CLASS: &str = "attributes-class";

struct Stores {
    classes: Store<MetadataOnly>,
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let classes = context.informers.of::<MetadataOnly>(&VOLUME_ATTRIBUTES_CLASSES);
    let claims = context.informers.of::<PersistentVolumeClaim>(&PERSISTENT_VOLUME_CLAIMS);
    let volumes = context.informers.of::<PersistentVolume>(&PERSISTENT_VOLUMES);
    claims.add_index(BY_CLASS, |claim| claim.attributes_classes().map(String::from).collect());
    volumes.add_index(BY_CLASS, |volume| volume.spec.volume_attributes_class_name.clone().into_iter().collect());
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        classes.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) && decide(&event.object().metadata, FINALIZER) != Decision::Nothing {
                queue.add(event.object().metadata.key());
            }
        });
    }
    {
        // Whoever has another class than before may have been the last to have that one.
        let queue = queue.clone();
        claims.on_event(move |event| {
            let before = match event {
                Event::Added(_) => return,
                Event::Modified { old, new } if old.attributes_classes().eq(new.attributes_classes()) => return,
                Event::Modified { old, .. } | Event::Deleted(old) => old,
            };
            before.attributes_classes().for_each(|name| queue.add(ObjectKey::cluster(name)));
        });
    }
    {
        let queue = queue.clone();
        volumes.on_event(move |event| {
            let before = match event {
                Event::Added(_) => return,
                Event::Modified { old, new } if old.spec == new.spec => return,
                Event::Modified { old, .. } | Event::Deleted(old) => old,
            };
            if let Some(name) = &before.spec.volume_attributes_class_name {
                queue.add(ObjectKey::cluster(name.clone()));
            }
        });
    }
    let client = context.client(NAME);
    let stores = Arc::new(Stores { classes: classes.store(), claims: claims.store(), volumes: volumes.store() });
    let followed = [classes.synced(), claims.synced(), volumes.synced()];
    worker::start(NAME, queue, 1, &context.shutdown, followed, move |key| {
        let (client, stores) = (client.clone(), stores.clone());
        async move { reconcile(&client, &stores, &key).await }
    })
}

async fn reconcile(client: &Client, stores: &Stores, key: &ObjectKey) -> worker::Result {
    let Some(class) = stores.classes.get(key) else { return Ok(Requeue::Never) };
    let used =
        || stores.claims.count_index(BY_CLASS, &key.name) > 0 || stores.volumes.count_index(BY_CLASS, &key.name) > 0;
    let protect = match decide(&class.metadata, FINALIZER) {
        Decision::Protect => true,
        Decision::ReleaseIfUnused if !used() => false,
        _ => return Ok(Requeue::Never),
    };
    set_finalizer(client, &VOLUME_ATTRIBUTES_CLASSES, &class.metadata, FINALIZER, protect).await?;
    Ok(Requeue::Never)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_of_a_claim() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "spec": {"volumeAttributesClassName": "new"},
            "status": {
                "currentVolumeAttributesClassName": "old",
                "modifyVolumeStatus": {"targetVolumeAttributesClassName": "new", "status": "Pending"},
            },
        }))
        .unwrap();
        assert_eq!(claim.attributes_classes().collect::<Vec<_>>(), ["new", "old", "new"]);
        assert_eq!(PersistentVolumeClaim::default().attributes_classes().count(), 0);
    }
}
