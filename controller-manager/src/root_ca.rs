//! Publishes the cluster's root certificate to every namespace as ConfigMap `kube-root-ca.crt`,
//! where pods' projected service-account volumes find it.
//!
//! Reads namespaces and those ConfigMaps; creates and corrects ConfigMaps. Upstream:
//! `pkg/controller/certificates/rootcacertpublisher`.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::informer::{Event, InformerParams};
use client::meta::null_default;
use client::resources::{CONFIG_MAPS, NAMESPACES};
use client::workqueue::WorkQueue;
use client::{ObjectKey, ObjectMeta};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::context::Context;
use crate::types::Namespace;
use crate::worker::{self, Requeue};

pub const NAME: &str = "root-ca-certificate-publisher-controller";

const CONFIG_MAP: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// Users read this in every namespace; upstream's words.
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ConfigMap {
    metadata: ObjectMeta,
    #[serde(deserialize_with = "null_default")]
    data: BTreeMap<String, String>,
}

client::impl_meta!(ConfigMap);

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Nothing,
    Create,
    Correct,
}

/// Pure: what a namespace needs.
fn decide(namespace: &Namespace, known: Option<&ConfigMap>, ca: &str) -> Decision {
    if namespace.metadata.is_deleting() || namespace.status.phase == "Terminating" {
        return Decision::Nothing;
    }
    match known {
        None => Decision::Create,
        Some(map)
            if map.data.len() == 1
                && map.data.get("ca.crt").is_some_and(|held| held == ca)
                && map.metadata.annotation(DESCRIPTION).is_some() =>
        {
            Decision::Nothing
        }
        Some(_) => Decision::Correct,
    }
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let client = context.client("root-ca-cert-publisher");
    let Some(ca) = context.config.root_ca.clone().or_else(|| client.root_ca().map(String::from)) else {
        tracing::info!(controller = NAME, "no root certificate to publish");
        return Box::pin(std::future::ready(()));
    };
    let namespaces = context.informers.of::<Namespace>(&NAMESPACES);
    let maps = context
        .informers
        .informer::<ConfigMap>(&CONFIG_MAPS, InformerParams::fields(&format!("metadata.name={CONFIG_MAP}")));
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        namespaces.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                queue.add(event.object().metadata.key());
            }
        });
    }
    {
        let queue = queue.clone();
        maps.on_event(move |event| queue.add(ObjectKey::cluster(event.object().metadata.namespace.clone())));
    }
    let followed = [namespaces.synced(), maps.synced()];
    let (namespaces, maps) = (namespaces.store(), maps.store());
    worker::start(NAME, queue, 1, &context.shutdown, followed, move |key| {
        let (client, namespaces, maps, ca) = (client.clone(), namespaces.clone(), maps.clone(), ca.clone());
        async move {
            let Some(namespace) = namespaces.get(&key) else { return Ok(Requeue::Never) };
            let known = maps.get_named(&key.name, CONFIG_MAP);
            let annotations = json!({ DESCRIPTION: DESCRIPTION_TEXT });
            let result = match decide(&namespace, known.as_deref(), &ca) {
                Decision::Nothing => return Ok(Requeue::Never),
                Decision::Create => {
                    let map = json!({
                        "apiVersion": "v1", "kind": "ConfigMap",
                        "metadata": { "name": CONFIG_MAP, "namespace": key.name, "annotations": annotations },
                        "data": { "ca.crt": ca },
                    });
                    client.create::<IgnoredAny>(&CONFIG_MAPS, Some(&key.name), &map).await
                }
                Decision::Correct => {
                    // A whole update: the controller's role allows no patch of config maps.
                    let mut metadata = known.as_deref().map(|known| known.metadata.clone()).unwrap_or_default();
                    metadata.annotations.insert(DESCRIPTION.into(), DESCRIPTION_TEXT.into());
                    let map = json!({
                        "apiVersion": "v1", "kind": "ConfigMap",
                        "metadata": metadata, "data": { "ca.crt": ca },
                    });
                    client.update::<IgnoredAny>(&CONFIG_MAPS, Some(&key.name), CONFIG_MAP, &map).await
                }
            };
            match result {
                Err(error)
                    if !error.is_already_exists() && !error.is_namespace_terminating() && !error.is_not_found() =>
                {
                    Err(error.into())
                }
                _ => Ok(Requeue::Never),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions() {
        let mut namespace = Namespace::default();
        let mut map = ConfigMap::default();
        map.data.insert("ca.crt".into(), "pem".into());
        assert_eq!(decide(&namespace, None, "pem"), Decision::Create);
        assert_eq!(decide(&namespace, Some(&map), "pem"), Decision::Correct, "the description is missing");
        map.metadata.annotations.insert(DESCRIPTION.into(), "any".into());
        assert_eq!(decide(&namespace, Some(&map), "pem"), Decision::Nothing);
        assert_eq!(decide(&namespace, Some(&map), "other"), Decision::Correct);
        namespace.status.phase = "Terminating".into();
        assert_eq!(decide(&namespace, None, "pem"), Decision::Nothing);
    }
}
