//! Claims stay while a pod uses them. Reads claims and pods; writes claims. Upstream:
//! `pkg/controller/volume/pvcprotection`.

use std::sync::Arc;

use client::informer::{Event, Store};
use client::resources::{PERSISTENT_VOLUME_CLAIMS, PODS};
use client::workqueue::WorkQueue;
use client::{Client, ListParams, ObjectKey};
use futures::future::BoxFuture;

use super::{Decision, decide, set_finalizer};
use crate::context::Context;
use crate::types::{PersistentVolumeClaim, Pod};
use crate::worker::{self, Requeue};

pub const NAME: &str = "persistentvolumeclaim-protection-controller";

const FINALIZER: &str = "kubernetes.io/pvc-protection";
/// Pods by the claims they use.
const BY_CLAIM: &str = "claim";

/// Pure: whether a pod keeps a claim. One that no node has yet does not; and once it has ended, nor does it keep the
/// claims that were made with it.
fn uses(pod: &Pod, claim: &str) -> bool {
    !pod.spec.node_name.is_empty() && pod.claims().any(|(name, own)| name == claim && !(own && pod.is_finished()))
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let claims = context.informers.of::<PersistentVolumeClaim>(&PERSISTENT_VOLUME_CLAIMS);
    let pods = context.informers.of::<Pod>(&PODS);
    pods.add_index(BY_CLAIM, |pod| {
        pod.claims().map(|(name, _)| format!("{}/{name}", pod.metadata.namespace)).collect()
    });
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        claims.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) && decide(&event.object().metadata, FINALIZER) != Decision::Nothing {
                queue.add(event.object().metadata.key());
            }
        });
    }
    {
        let (queue, claims) = (queue.clone(), claims.store());
        pods.on_event(move |event| {
            let pod = event.object();
            let over = matches!(event, Event::Deleted(_)) || pod.is_finished();
            if !over {
                return;
            }
            for (name, _) in pod.claims() {
                let key = ObjectKey::new(pod.metadata.namespace.clone(), name);
                if claims.get(&key).is_some_and(|claim| claim.metadata.is_deleting()) {
                    queue.add(key);
                }
            }
        });
    }
    let client = context.client("pvc-protection-controller");
    let followed = [claims.synced(), pods.synced()];
    let stores = (claims.store(), pods.store());
    worker::start(NAME, queue, 1, &context.shutdown, followed, move |key| {
        let (client, stores) = (client.clone(), stores.clone());
        async move { reconcile(&client, &stores.0, &stores.1, &key).await }
    })
}

async fn reconcile(
    client: &Client,
    claims: &Store<PersistentVolumeClaim>,
    pods: &Store<Pod>,
    key: &ObjectKey,
) -> worker::Result {
    let Some(claim) = claims.get(key) else { return Ok(Requeue::Never) };
    let protect = match decide(&claim.metadata, FINALIZER) {
        Decision::Nothing => return Ok(Requeue::Never),
        Decision::Protect => true,
        Decision::ReleaseIfUnused => {
            if pods.by_index(BY_CLAIM, &key.to_string()).iter().any(|pod| uses(pod, &key.name)) {
                return Ok(Requeue::Never);
            }
            // A claim that is let go while a pod that the cache has not seen uses it would be data lost.
            let live = client.list_all::<Pod>(&PODS, key.ns(), &ListParams::default()).await?;
            if live.items.iter().any(|pod| uses(pod, &key.name)) {
                return Ok(Requeue::RateLimited);
            }
            false
        }
    };
    set_finalizer(client, &PERSISTENT_VOLUME_CLAIMS, &claim.metadata, FINALIZER, protect).await?;
    Ok(Requeue::Never)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_uses_a_claim() {
        let pod = |node: &str, phase: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p"},
                "spec": {"nodeName": node, "volumes": [
                    {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "b", "ephemeral": {"volumeClaimTemplate": {}}},
                    {"name": "c", "emptyDir": {}},
                ]},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        for (pod, claim, expected) in [
            (pod("n", "Running"), "data", true),
            (pod("n", "Succeeded"), "data", true),
            (pod("", "Pending"), "data", false),
            (pod("n", "Running"), "p-b", true),
            (pod("n", "Failed"), "p-b", false),
            (pod("n", "Running"), "p-c", false),
            (pod("n", "Running"), "other", false),
        ] {
            assert_eq!(uses(&pod, claim), expected, "{claim} {}", pod.status.phase);
        }
        let mut pod = pod("n", "Running");
        client::Meta::trim(&mut pod);
        assert_eq!(pod.spec.volumes.len(), 2, "what is no claim is not kept");
    }
}
