//! Recounts what a namespace's quotas have used.
//!
//! Admission charges quotas as objects are created; this gives back what was charged for objects that
//! are gone, and makes the first count of a new quota. Reads quotas, and what they count in their
//! namespaces; writes the quotas' status. Upstream: `pkg/controller/resourcequota`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::amounts::{self, ResourceList};
use api::quota::{self, Devices, Evaluator};
use client::informer::{Event, Informer, InformerParams, Store};
use client::resources::{DEVICE_CLASSES, PERSISTENT_VOLUME_CLAIMS, PODS, RESOURCE_CLAIMS, RESOURCE_QUOTAS, SERVICES};
use client::workqueue::WorkQueue;
use client::{Client, ListParams, ObjectKey, ObjectMeta, Resource};
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, synced};
use crate::types::{ContainerStatus, MetadataOnly, Pod};
use crate::worker::{self, Error, Requeue};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Quota {
    metadata: ObjectMeta,
    spec: Value,
    status: Value,
}

client::impl_meta!(Quota);

pub const NAME: &str = "resourcequota-controller";

/// How often everything is counted again, for changes that nobody saw; upstream's period.
const RESYNC: Duration = Duration::from_secs(300);
const WORKERS: usize = 5;

/// What a quota's status should be; `None` when it is that already. Pure.
fn decide(quota: &Value, counted: &[(Evaluator, Vec<Value>)], now: Timestamp) -> Option<Value> {
    let hard = amounts::list(quota, &["spec", "hard"]);
    let mut used: ResourceList = amounts::list(quota, &["status", "used"]);
    let mut recounted = ResourceList::new();
    // Two kinds may count under one name: pods and claims of devices do.
    for (evaluator, objects) in counted {
        amounts::add(&mut recounted, &quota::recount(evaluator, quota, &hard, objects.iter(), now));
    }
    used.extend(recounted);
    let used = quota::mask(&used, hard.keys());
    let same = hard == amounts::list(quota, &["status", "hard"]) && used == amounts::list(quota, &["status", "used"]);
    let shown = |list: &ResourceList| -> Value {
        list.iter().map(|(name, amount)| (name.clone(), json!(amount.to_string()))).collect()
    };
    (!same).then(|| json!({ "hard": shown(&hard), "used": shown(&used) }))
}

/// The resources that quotas count by number, by the name quotas give them.
struct Counted {
    client: Client,
    queue: WorkQueue<ObjectKey>,
    quotas: Store<Quota>,
    shutdown: CancellationToken,
    /// Followed so far. A resource that no quota mentions costs nothing.
    known: Mutex<HashMap<String, Resource>>,
}

impl Counted {
    /// The resource that a name such as `count/deployments.apps` or `secrets` means, followed from now on.
    async fn find(&self, name: &str) -> Result<Option<Resource>, Error> {
        if let Some(resource) = self.known.lock().get(name) {
            return Ok(Some(resource.clone()));
        }
        let discovered = self.client.discover().await?;
        let means = |resource: &Resource| match Evaluator::of(&resource.group, &resource.plural) {
            Some(Evaluator::Count { name: own, alias }) => own == name || alias.is_some_and(|alias| alias == name),
            _ => false,
        };
        let found = discovered
            .resources
            .into_iter()
            .find(|served| served.resource.namespaced && means(&served.resource))
            .map(|served| served.resource);
        let Some(resource) = found else { return Ok(None) };
        let new = self.known.lock().insert(name.to_string(), resource.clone()).is_none();
        if new {
            let informer =
                Informer::<MetadataOnly>::new(self.client.clone(), resource.clone(), InformerParams::metadata_only());
            let (queue, quotas) = (self.queue.clone(), self.quotas.clone());
            informer.on_event(move |event| {
                if let Event::Deleted(object) = event {
                    requeue(&queue, &quotas, &object.metadata.namespace);
                }
            });
            tokio::spawn(informer.run(self.shutdown.clone()));
        }
        Ok(Some(resource))
    }
}

/// Whether a change of a pod gives something back to a quota: the pod has ended, has gone to the quotas of the other
/// scope, or was given other resources.
fn uses_otherwise(old: &Pod, new: &Pod) -> bool {
    let has_deadline = |pod: &Pod| pod.spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    let resized = |old: &[ContainerStatus], new: &[ContainerStatus]| {
        old.iter().any(|old| new.iter().any(|new| old.name == new.name && old.resources != new.resources))
    };
    (new.is_finished() && !old.is_finished())
        || has_deadline(old) != has_deadline(new)
        || resized(&old.status.container_statuses, &new.status.container_statuses)
        || resized(&old.status.init_container_statuses, &new.status.init_container_statuses)
}

/// Has the quotas of a namespace counted again.
fn requeue(queue: &WorkQueue<ObjectKey>, quotas: &Store<Quota>, namespace: &str) {
    for quota in quotas.by_index(BY_NAMESPACE, namespace) {
        queue.add(quota.metadata.key());
    }
}

const BY_NAMESPACE: &str = "namespace";

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let client = context.client(NAME);
    let quotas = context.informers.of::<Quota>(&RESOURCE_QUOTAS);
    quotas.add_index(BY_NAMESPACE, |quota| vec![quota.metadata.namespace.clone()]);
    let pods = context.informers.of::<Pod>(&PODS);
    let claims = context.informers.of::<MetadataOnly>(&PERSISTENT_VOLUME_CLAIMS);
    let services = context.informers.of::<MetadataOnly>(&SERVICES);
    let devices = context.informers.of::<MetadataOnly>(&RESOURCE_CLAIMS);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        quotas.on_event(move |event| match event {
            Event::Added(quota) => queue.add(quota.metadata.key()),
            // Admission writes the status; only another limit needs another count.
            Event::Modified { old, new }
                if old.metadata.generation != new.metadata.generation || old.spec != new.spec =>
            {
                queue.add(new.metadata.key());
            }
            _ => {}
        });
    }
    {
        let (queue, quotas) = (queue.clone(), quotas.store());
        pods.on_event(move |event| match event {
            Event::Deleted(pod) => requeue(&queue, &quotas, &pod.metadata.namespace),
            Event::Modified { old, new } if uses_otherwise(old, new) => {
                requeue(&queue, &quotas, &new.metadata.namespace);
            }
            _ => {}
        });
    }
    for informer in [&claims, &services, &devices] {
        let (queue, quotas) = (queue.clone(), quotas.store());
        informer.on_event(move |event| match event {
            Event::Deleted(object) => requeue(&queue, &quotas, &object.metadata.namespace),
            // Not all of them count their generations.
            Event::Modified { old, new } if old.metadata.resource_version != new.metadata.resource_version => {
                requeue(&queue, &quotas, &new.metadata.namespace);
            }
            _ => {}
        });
    }
    let shutdown = context.shutdown.clone();
    let clock = context.clock.clone();
    let counted = Arc::new(Counted {
        client: client.clone(),
        queue: queue.clone(),
        quotas: quotas.store(),
        shutdown: shutdown.clone(),
        known: Mutex::default(),
    });
    Box::pin(async move {
        if !synced(&shutdown, quotas.wait_synced()).await {
            return;
        }
        worker::run(NAME, queue, WORKERS, shutdown, move |key| {
            let (client, counted, now) = (client.clone(), counted.clone(), clock.now());
            async move { reconcile(&client, &counted, &key, now).await }
        })
        .await;
    })
}

/// What has to be known to count claims of devices; nothing where no limit is about them.
async fn devices(client: &Client, hard: &ResourceList, namespace: &str) -> Result<Devices, Error> {
    let about = |name: &String| name.starts_with("requests.") && name.contains('/');
    if !hard.keys().any(about) {
        return Ok(Devices::default());
    }
    let all = ListParams::default();
    let classes = match client.list_all::<Value>(&DEVICE_CLASSES, None, &all).await {
        Ok(list) => list.items,
        // An API without claims of devices.
        Err(error) if error.is_not_found() => return Ok(Devices::default()),
        Err(error) => return Err(error.into()),
    };
    if classes.is_empty() {
        return Ok(Devices::default());
    }
    let pods = client.list_all::<Value>(&PODS, Some(namespace), &all).await?;
    let claims = client.list_all::<Value>(&RESOURCE_CLAIMS, Some(namespace), &all).await?;
    Ok(Devices::new(&classes, pods.items, &claims.items))
}

async fn reconcile(client: &Client, counted: &Counted, key: &ObjectKey, now: Timestamp) -> worker::Result {
    // Read before its objects are: an update from this state fails if anything was charged meanwhile.
    let Some(known) = counted.quotas.get(key) else { return Ok(Requeue::Never) };
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": known.metadata, "spec": known.spec, "status": known.status,
    });
    let hard = amounts::list(&quota, &["spec", "hard"]);
    let devices = devices(client, &hard, &key.namespace).await?;
    let mut resources: BTreeMap<Resource, Evaluator> = BTreeMap::new();
    let specials = [
        (Evaluator::Pods, PODS.clone()),
        (Evaluator::Claims, PERSISTENT_VOLUME_CLAIMS.clone()),
        (Evaluator::Services, SERVICES.clone()),
        (Evaluator::DeviceClaims(Arc::new(devices)), RESOURCE_CLAIMS.clone()),
    ];
    let counts = |evaluator: &Evaluator, name: &str| !evaluator.counted(std::iter::once(name)).is_empty();
    for (evaluator, resource) in &specials {
        if hard.keys().any(|name| counts(evaluator, name)) {
            resources.insert(resource.clone(), evaluator.clone());
        }
    }
    let special = |name: &str| specials.iter().any(|(evaluator, _)| counts(evaluator, name));
    for name in hard.keys().filter(|name| !special(name)) {
        let Some(resource) = counted.find(name).await? else { continue };
        let Some(evaluator) = Evaluator::of(&resource.group, &resource.plural) else { continue };
        resources.entry(resource).or_insert(evaluator);
    }
    let mut objects = Vec::new();
    for (resource, evaluator) in resources {
        let list = client.list_all::<Value>(&resource, Some(&key.namespace), &ListParams::default()).await?;
        objects.push((evaluator, list.items));
    }
    let Some(status) = decide(&quota, &objects, now) else { return Ok(Requeue::After(RESYNC)) };
    let mut updated = quota;
    updated["status"] = status;
    client.update_status::<IgnoredAny>(&RESOURCE_QUOTAS, Some(&key.namespace), &key.name, &updated).await?;
    Ok(Requeue::After(RESYNC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_quotas_counted_again() {
        let pod = |pod: Value| serde_json::from_value::<Pod>(pod).expect("a pod");
        let running = json!({"status": {"phase": "Running", "containerStatuses": [
            {"name": "a", "resources": {"requests": {"cpu": "1"}}},
        ]}});
        let changed = |pointer: &str, value: Value| {
            let mut new = running.clone();
            let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
            if new.pointer(parent).is_none() {
                new[&parent[1..]] = json!({});
            }
            new.pointer_mut(parent).expect("it is there")[member] = value;
            uses_otherwise(&pod(running.clone()), &pod(new))
        };
        assert!(changed("/status/phase", "Succeeded".into()));
        assert!(changed("/spec/activeDeadlineSeconds", 5.into()), "it goes to the quotas of terminating pods");
        assert!(changed("/status/containerStatuses/0/resources", json!({"requests": {"cpu": "500m"}})));
        assert!(!changed("/status/podIP", "10.0.0.1".into()));
        assert!(!changed("/spec/nodeName", "a".into()));
    }

    #[test]
    fn counts_what_is_there() {
        let quota = json!({
            "spec": {"hard": {"pods": "5", "requests.cpu": "2", "count/deployments.apps": "3"}},
            "status": {"used": {"pods": "4"}},
        });
        let pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "500m"}}}]}});
        let deployments = Evaluator::of("apps", "deployments").expect("counted");
        let counted = [(Evaluator::Pods, vec![pod.clone(), pod]), (deployments, vec![json!({})])];
        let status = decide(&quota, &counted, Timestamp::UNIX_EPOCH).expect("it differs");
        assert_eq!(status["hard"], quota["spec"]["hard"]);
        assert_eq!(status["used"], json!({"pods": "2", "requests.cpu": "1", "count/deployments.apps": "1"}));
        let settled = json!({"spec": quota["spec"], "status": status});
        assert_eq!(decide(&settled, &counted, Timestamp::UNIX_EPOCH), None);
    }
}
