//! Fills Secrets of the type `kubernetes.io/service-account-token`, and deletes those whose account is gone.
//!
//! Reads secrets and serviceaccounts; updates and deletes secrets. Upstream:
//! `pkg/controller/serviceaccount/tokens_controller.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::informer::{Event, InformerParams};
use client::resources::{SECRETS, SERVICE_ACCOUNTS};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, ObjectKey};
use component_base::jwt::PrivateKey;
use futures::future::BoxFuture;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::context::Context;
use crate::types::{MetadataOnly, Secret};
use crate::worker::{self, Requeue};

pub const NAME: &str = "serviceaccount-token-controller";

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// What a secret lacks.
fn additions(
    secret: &Secret,
    uid: &str,
    ca: Option<&str>,
    signer: &PrivateKey,
) -> Result<BTreeMap<&'static str, String>, component_base::jwt::Error> {
    let mut additions = BTreeMap::new();
    let metadata = &secret.metadata;
    let held = |key: &str| secret.data.get(key).map(String::as_str).unwrap_or_default();
    let namespace = STANDARD.encode(&metadata.namespace);
    if held("namespace").is_empty() {
        additions.insert("namespace", namespace);
    }
    if let Some(ca) = ca.map(|ca| STANDARD.encode(ca)).filter(|ca| held("ca.crt") != ca) {
        additions.insert("ca.crt", ca);
    }
    if held("token").is_empty() {
        let account = metadata.annotation(ACCOUNT).unwrap_or_default();
        let token = signer.sign(&json!({
            "iss": "kubernetes/serviceaccount",
            "sub": format!("system:serviceaccount:{}:{account}", metadata.namespace),
            "kubernetes.io/serviceaccount/namespace": metadata.namespace,
            "kubernetes.io/serviceaccount/secret.name": metadata.name,
            "kubernetes.io/serviceaccount/service-account.name": account,
            "kubernetes.io/serviceaccount/service-account.uid": uid,
        }))?;
        additions.insert("token", STANDARD.encode(token));
    }
    Ok(additions)
}

/// One pass over a secret.
async fn sync(client: &Client, secret: &Secret, ca: Option<&str>, signer: &PrivateKey) -> worker::Result<()> {
    let metadata = &secret.metadata;
    let (namespace, name) = (metadata.namespace.as_str(), metadata.name.as_str());
    let account = metadata.annotation(ACCOUNT).unwrap_or_default();
    // The account itself, not what is remembered of it: a secret is lost by a mistake.
    let found = match client.get::<MetadataOnly>(&SERVICE_ACCOUNTS, Some(namespace), account).await {
        Ok(found) => Some(found),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let bound = metadata.annotation(ACCOUNT_UID).filter(|uid| !uid.is_empty());
    let Some(found) = found.filter(|found| bound.is_none_or(|uid| uid == found.metadata.uid)) else {
        tracing::info!(namespace, name, account, "the token's account is gone");
        let options = DeleteOptions::uid(&metadata.uid);
        return match client.delete(&SECRETS, Some(namespace), name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        };
    };
    let additions =
        additions(secret, &found.metadata.uid, ca, signer).map_err(|error| worker::Error::Other(error.to_string()))?;
    if additions.is_empty() && bound.is_some() {
        return Ok(());
    }
    let mut live: Value = match client.get(&SECRETS, Some(namespace), name).await {
        Ok(live) => live,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if live["metadata"]["uid"] != metadata.uid.as_str() {
        return Ok(());
    }
    live["metadata"]["annotations"][ACCOUNT_UID] = found.metadata.uid.clone().into();
    for (key, value) in additions {
        live["data"][key] = value.into();
    }
    match client.update::<IgnoredAny>(&SECRETS, Some(namespace), name, &live).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let Some(path) = &context.config.service_account_private_key_file else {
        tracing::info!(controller = NAME, "no key to sign tokens with");
        return Box::pin(std::future::ready(()));
    };
    let signer = std::fs::read(path).map_err(|error| error.to_string());
    let signer = match signer.and_then(|pem| PrivateKey::from_pem(&pem).map_err(|error| error.to_string())) {
        Ok(signer) => Arc::new(signer),
        Err(error) => {
            tracing::error!(controller = NAME, error, path = %path.display(), "the key cannot be read");
            return Box::pin(std::future::ready(()));
        }
    };
    // Upstream's runs as the component, too: its rights go beyond any one controller's.
    let client = context.component();
    let ca = context.config.root_ca.clone().or_else(|| client.root_ca().map(String::from));
    let secrets = context.informers.informer::<Secret>(&SECRETS, InformerParams::fields(&format!("type={TYPE}")));
    let accounts = context.informers.informer::<MetadataOnly>(&SERVICE_ACCOUNTS, InformerParams::metadata_only());
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    {
        let queue = queue.clone();
        secrets.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                queue.add(event.object().metadata.key());
            }
        });
    }
    {
        let (queue, secrets) = (queue.clone(), secrets.store());
        accounts.on_event(move |event| {
            if let Event::Deleted(account) = event {
                let of = |secret: &Secret| {
                    secret.metadata.namespace == account.metadata.namespace
                        && secret.metadata.annotation(ACCOUNT) == Some(account.metadata.name.as_str())
                };
                for secret in secrets.list().iter().filter(|secret| of(secret)) {
                    queue.add(secret.metadata.key());
                }
            }
        });
    }
    let followed = [secrets.synced(), accounts.synced()];
    let secrets = secrets.store();
    worker::start(NAME, queue, 1, &context.shutdown, followed, move |key| {
        let (client, secrets, ca, signer) = (client.clone(), secrets.clone(), ca.clone(), signer.clone());
        async move {
            if let Some(secret) = secrets.get(&key).filter(|secret| !secret.metadata.is_deleting()) {
                sync(&client, &secret, ca.as_deref(), &signer).await?;
            }
            Ok(Requeue::Never)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let keys = component_base::pki::self_signed(&component_base::pki::Profile::server("k", &["k"])).unwrap();
        let signer = PrivateKey::from_pem(keys.key_pem.as_bytes()).unwrap();
        let mut secret = Secret::default();
        secret.metadata.namespace = "a".into();
        secret.metadata.annotations.insert(ACCOUNT.into(), "sa".into());
        let first = additions(&secret, "u", Some("ca"), &signer).unwrap();
        assert_eq!(first.keys().copied().collect::<Vec<_>>(), ["ca.crt", "namespace", "token"]);
        let token = STANDARD.decode(&first["token"]).unwrap();
        let claims = component_base::jwt::verify(std::str::from_utf8(&token).unwrap(), &[signer.public()]).unwrap();
        assert_eq!(claims["sub"], "system:serviceaccount:a:sa");
        secret.data = first.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        assert!(additions(&secret, "u", Some("ca"), &signer).unwrap().is_empty());
        assert_eq!(additions(&secret, "u", Some("new"), &signer).unwrap().len(), 1, "a new authority");
    }
}
