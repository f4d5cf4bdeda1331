//! How many pods the controllers of given pods ask for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::discovery::Discovered;
use client::informer::Store;
use client::{Client, OwnerReference};
use component_base::clock::SharedClock;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::types::{Deployment, Pod, ReplicaSet, StatefulSet};
use crate::worker::Error;

/// What is served is asked for again after this long, for controllers of kinds that come and go.
const DISCOVERY_TTL: Duration = Duration::from_secs(30);

/// Knows the controllers of pods.
pub struct Scales {
    pub client: Client,
    pub clock: SharedClock,
    pub replica_sets: Store<ReplicaSet>,
    pub replication_controllers: Store<ReplicaSet>,
    pub deployments: Store<Deployment>,
    pub stateful_sets: Store<StatefulSet>,
    pub discovered: Mutex<Option<(Duration, Arc<Discovered>)>>,
}

/// How many pods there should be, and which pods belong to nobody.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub count: i64,
    pub unmanaged: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Scale {
    metadata: client::ObjectMeta,
    spec: ScaleSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ScaleSpec {
    replicas: i64,
}

fn group_of(owner: &OwnerReference) -> &str {
    owner.api_version.split_once('/').map_or("", |(group, _)| group)
}

impl Scales {
    /// Adds up what the controllers of these pods ask for, each counted once.
    pub async fn expected(&self, pods: &[Arc<Pod>]) -> Result<Expected, Error> {
        let mut expected = Expected::default();
        let mut counts: HashMap<String, i64> = HashMap::new();
        for pod in pods {
            let Some(owner) = pod.metadata.controller() else {
                expected.unmanaged.push(pod.metadata.name.clone());
                continue;
            };
            if counts.contains_key(&owner.uid) {
                continue;
            }
            let found = match self.cached(owner, &pod.metadata.namespace) {
                Some(found) => Some(found),
                None => self.by_scale(owner, &pod.metadata.namespace).await?,
            };
            let Some((uid, replicas)) = found else {
                return Err(Error::Other(format!("found no controllers for pod {:?}", pod.metadata.name)));
            };
            counts.insert(uid, replicas);
        }
        expected.count = counts.values().sum();
        Ok(expected)
    }

    /// A controller of a kind that is followed here anyway.
    fn cached(&self, owner: &OwnerReference, namespace: &str) -> Option<(String, i64)> {
        match (group_of(owner), owner.kind.as_str()) {
            ("", "ReplicationController") => {
                let found = self.replication_controllers.get_named(namespace, &owner.name)?;
                (found.metadata.uid == owner.uid).then(|| (found.metadata.uid.clone(), found.spec.replicas))
            }
            ("apps" | "extensions", "ReplicaSet") => {
                let set = self.replica_sets.get_named(namespace, &owner.name)?;
                if set.metadata.uid != owner.uid {
                    return None;
                }
                let own = Some((set.metadata.uid.clone(), set.spec.replicas));
                let Some(above) = set.metadata.controller().filter(|above| above.kind == "Deployment") else {
                    return own;
                };
                // While it rolls out, a Deployment has several sets; only it knows how many pods there should be.
                let deployment = self.deployments.get_named(namespace, &above.name)?;
                (deployment.metadata.uid == above.uid)
                    .then(|| (deployment.metadata.uid.clone(), deployment.spec.replicas))
            }
            ("apps", "StatefulSet") => {
                let set = self.stateful_sets.get_named(namespace, &owner.name)?;
                (set.metadata.uid == owner.uid).then(|| (set.metadata.uid.clone(), set.spec.replicas))
            }
            _ => None,
        }
    }

    /// A controller of any kind that can be scaled.
    async fn by_scale(&self, owner: &OwnerReference, namespace: &str) -> Result<Option<(String, i64)>, Error> {
        let discovered = self.discover().await?;
        let served = discovered.resources.iter().find(|served| {
            let resource = &served.resource;
            resource.api_version() == owner.api_version && resource.kind == owner.kind
        });
        let Some(served) = served else {
            let error = format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version);
            return Err(Error::Other(error));
        };
        if !served.subresources.iter().any(|subresource| subresource == "scale") {
            return Err(Error::Other(format!("{} does not implement the scale subresource", served.resource)));
        }
        match self.client.get_sub::<Scale>(&served.resource, Some(namespace), &owner.name, "scale").await {
            Ok(scale) if scale.metadata.uid == owner.uid => Ok(Some((scale.metadata.uid, scale.spec.replicas))),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn discover(&self) -> Result<Arc<Discovered>, Error> {
        let now = self.clock.monotonic();
        if let Some((at, known)) = &*self.discovered.lock()
            && now.saturating_sub(*at) < DISCOVERY_TTL
        {
            return Ok(known.clone());
        }
        let fresh = Arc::new(self.client.discover().await?);
        *self.discovered.lock() = Some((now, fresh.clone()));
        Ok(fresh)
    }
}
