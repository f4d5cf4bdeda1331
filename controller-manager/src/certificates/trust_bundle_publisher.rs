//! Publishes the authority of the API server's serving certificate as a ClusterTrustBundle of the signer
//! `kubernetes.io/kube-apiserver-serving` (KEP-3257). Runs where the gate is on and the API has such objects.
//!
//! Reads the signer's bundles; creates and corrects its own and deletes all others of the signer. Upstream:
//! `pkg/controller/certificates/clustertrustbundlepublisher`.

use std::fmt::Write as _;
use std::sync::Arc;

use client::informer::InformerParams;
use client::resources::Resource;
use client::workqueue::WorkQueue;
use client::{DeleteOptions, ObjectKey, ObjectMeta};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::context::{Context, synced};
use crate::worker::{self, Requeue};

pub const NAME: &str = "kube-apiserver-serving-clustertrustbundle-publisher-controller";
/// The gate.
pub const GATE: &str = "ClusterTrustBundle";

const ACCOUNT: &str = "kube-apiserver-serving-clustertrustbundle-publisher";
const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Bundle {
    metadata: ObjectMeta,
    spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    trust_bundle: String,
}

client::impl_meta!(Bundle);

/// Pure: the name of a signer's bundle, which changes with what is in it.
fn bundle_name(signer: &str, bundle: &str) -> String {
    let digest = Sha256::digest(bundle);
    let mut name = signer.replace('/', ":") + ":";
    for byte in &digest[..12] {
        write!(name, "{byte:02x}").expect("writing to a String");
    }
    name
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Nothing,
    Create,
    Correct,
}

/// Pure: what the bundle of this content needs, and the names of those that must go.
fn decide(bundles: &[Arc<Bundle>], name: &str, content: &str) -> (Decision, Vec<String>) {
    let own = bundles.iter().find(|bundle| bundle.metadata.name == *name);
    let decision = match own {
        None => Decision::Create,
        Some(bundle) if bundle.spec.trust_bundle == content => Decision::Nothing,
        Some(_) => Decision::Correct,
    };
    let others = bundles.iter().map(|bundle| bundle.metadata.name.to_string()).filter(|other| other != name);
    (decision, others.collect())
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let client = context.client(ACCOUNT);
    let ca = context.config.root_ca.clone().or_else(|| client.root_ca().map(String::from));
    let Some(ca) = ca.filter(|_| context.config.gates.contains(GATE)) else {
        return Box::pin(std::future::ready(()));
    };
    let context = context.clone();
    Box::pin(async move {
        let Some(resource) = served(&context).await else {
            tracing::info!(controller = NAME, "no known version of clustertrustbundles is served");
            return;
        };
        let bundles = context
            .informers
            .informer::<Bundle>(&resource, InformerParams::fields(&format!("spec.signerName={SIGNER}")));
        let queue: WorkQueue<ObjectKey> = WorkQueue::new();
        let name = bundle_name(SIGNER, &ca);
        let key = ObjectKey::cluster(name.clone());
        queue.add(key.clone());
        {
            let queue = queue.clone();
            bundles.on_event(move |_| queue.add(key.clone()));
        }
        // It was made later than the others.
        context.informers.start();
        if !synced(&context.shutdown, bundles.wait_synced()).await {
            return;
        }
        let store = bundles.store();
        worker::run(NAME, queue, 1, context.shutdown.clone(), move |key| {
            let (client, store, ca, resource) = (client.clone(), store.clone(), ca.clone(), resource.clone());
            async move {
                let (decision, others) = decide(&store.list(), &key.name, &ca);
                let object = |metadata: ObjectMeta| {
                    json!({
                        "apiVersion": format!("{}/{}", resource.group, resource.version), "kind": "ClusterTrustBundle",
                        "metadata": metadata, "spec": {"signerName": SIGNER, "trustBundle": ca},
                    })
                };
                match decision {
                    Decision::Nothing => {}
                    Decision::Create => {
                        let new = object(ObjectMeta { name: key.name.clone(), ..ObjectMeta::default() });
                        client.create::<IgnoredAny>(&resource, None, &new).await?;
                    }
                    Decision::Correct => {
                        let metadata = store.get(&key).map(|bundle| bundle.metadata.clone()).unwrap_or_default();
                        client.update::<IgnoredAny>(&resource, None, &key.name, &object(metadata)).await?;
                    }
                }
                for other in others {
                    match client.delete(&resource, None, &other, &DeleteOptions::default()).await {
                        Err(error) if !error.is_not_found() => return Err(error.into()),
                        _ => {}
                    }
                }
                Ok(Requeue::Never)
            }
        })
        .await;
    })
}

/// The newest version of bundles that the API has.
async fn served(context: &Context) -> Option<Resource> {
    let found = match context.component().discover().await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(controller = NAME, error = error.chain(), "discovery failed for ClusterTrustBundle");
            return None;
        }
    };
    ["v1beta1", "v1alpha1"].into_iter().find_map(|version| {
        let is = |resource: &Resource| {
            resource.group == "certificates.k8s.io"
                && resource.version == version
                && resource.plural == "clustertrustbundles"
        };
        found.resources.iter().map(|found| &found.resource).find(|resource| is(resource)).cloned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(name: &str, content: &str) -> Arc<Bundle> {
        let mut bundle = Bundle { spec: Spec { trust_bundle: content.into() }, ..Bundle::default() };
        bundle.metadata.name = name.into();
        Arc::new(bundle)
    }

    #[test]
    fn names_change_with_the_content() {
        // The first twelve bytes of the digest of nothing.
        assert_eq!(bundle_name("a.io/b", ""), "a.io:b:e3b0c44298fc1c149afbf4c8");
        assert_ne!(bundle_name(SIGNER, "x"), bundle_name(SIGNER, "y"));
    }

    #[test]
    fn the_signer_has_one_bundle() {
        let mine = bundle_name(SIGNER, "pem");
        assert_eq!(decide(&[], &mine, "pem"), (Decision::Create, vec![]));
        assert_eq!(decide(&[bundle(&mine, "pem")], &mine, "pem"), (Decision::Nothing, vec![]));
        let others = [bundle("old", "before"), bundle(&mine, "changed")];
        assert_eq!(decide(&others, &mine, "pem"), (Decision::Correct, vec!["old".to_string()]));
    }
}
