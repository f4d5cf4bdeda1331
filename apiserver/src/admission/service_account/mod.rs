//! ServiceAccount: pods run as a service account that exists, with a token mounted.

mod secrets;

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::random;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Name, Operation, Plugin};
use crate::authorization::node::references;
use crate::cache::Freshness;
use crate::server::Server;

pub const NAME: &str = "ServiceAccount";

/// Prefix of the volume; upstream generates its suffix.
const VOLUME: &str = "kube-api-access-";
/// Where containers find their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds a projected token lives; 3607 marks tokens whose clients may not reload them.
const EXPIRATION: i64 = 3607;
/// The annotation of pods that are copies of files on a node.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    fn resources(&self) -> &'static [Name] {
        &[("", "pods")]
    }

    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        if attributes.operation != Operation::Create || !attributes.is_core("pods") {
            return Ok(());
        }
        if object.annotation(MIRROR).is_some() {
            return mirror(attributes, object);
        }
        if object.str_at(&["spec", "serviceAccountName"]).unwrap_or_default().is_empty() {
            object.set_at(&["spec", "serviceAccountName"], "default".into());
        }
        let name = object.str_at(&["spec", "serviceAccountName"]).unwrap_or_default().to_string();
        object.set_at(&["spec", "serviceAccount"], name.clone().into());
        let account = looked_up(server, attributes, &name).await?;
        let mounts = object
            .bool_at(&["spec", "automountServiceAccountToken"])
            .or_else(|| account.bool_at(&["automountServiceAccountToken"]))
            .unwrap_or(true);
        if mounts {
            mount(object);
        }
        if object.list_at(&["spec", "imagePullSecrets"]).is_empty() {
            let secrets = account.list_at(&["imagePullSecrets"]);
            if !secrets.is_empty() {
                object.set_at(&["spec", "imagePullSecrets"], secrets.to_vec().into());
            }
        }
        self.validate(server, attributes, object, None).await
    }

    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &attributes.served.resource;
        let pods = resource.group.is_empty() && resource.plural == "pods";
        let created = match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") if pods => true,
            (Operation::Update, "ephemeralcontainers") if pods => false,
            _ => return Ok(()),
        };
        if created && object.annotation(MIRROR).is_some() {
            return mirror(attributes, object);
        }
        let namespace = &attributes.namespace;
        let name = object.str_at(&["spec", "serviceAccountName"]).unwrap_or_default();
        if name.is_empty() {
            let text = format!("no service account specified for pod {namespace}/{}", object.name());
            return Err(attributes.forbidden(text));
        }
        let account = looked_up(server, attributes, name).await?;
        if !secrets::enforced(&account) {
            return Ok(());
        }
        let checked = if created { secrets::of_pod(&account, object) } else { secrets::of_ephemeral(&account, object) };
        checked.map_err(|text| attributes.forbidden(text))
    }
}

/// The account that a pod runs as.
async fn looked_up(server: &Arc<Server>, attributes: &Attributes<'_>, name: &str) -> Result<Arc<Value>, Status> {
    account(server, &attributes.namespace, name).await?.ok_or_else(|| {
        attributes.forbidden(format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found",
            attributes.namespace
        ))
    })
}

/// Mirror pods bring what they need with them and must not use the API's secrets.
fn mirror(attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
    if !object.str_at(&["spec", "serviceAccountName"]).unwrap_or_default().is_empty() {
        return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
    }
    if references::names_secrets(object) {
        return Err(attributes.forbidden("a mirror pod may not reference secrets"));
    }
    for volume in object.list_at(&["spec", "volumes"]) {
        for source in volume.list_at(&["projected", "sources"]) {
            if source.get("serviceAccountToken").is_some() {
                return Err(attributes.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
            }
        }
    }
    Ok(())
}

async fn account(server: &Arc<Server>, namespace: &str, name: &str) -> Result<Option<Arc<Value>>, Status> {
    let Some(served) = server.registry.any_version("", "serviceaccounts") else { return Ok(None) };
    let cache = served.cache.as_ref().expect("service accounts are stored");
    let key = served.key(namespace, name);
    let read = async |freshness| cache.get(&key, freshness).await.map_err(crate::handlers::errors::of_read);
    // An account made a moment ago by another server may not be cached yet.
    let entry = match read(Freshness::Any).await? {
        Some(entry) => Some(entry),
        None => read(Freshness::Consistent).await?,
    };
    Ok(entry.map(|entry| server.decoded.tree(&entry)))
}

/// Adds the token volume, and a mount of it to every container that has nothing there.
fn mount(object: &mut Value) {
    let existing = object
        .list_at(&["spec", "volumes"])
        .iter()
        .filter_map(|volume| volume.str_at(&["name"]))
        .find(|name| name.starts_with(VOLUME))
        .map(str::to_string);
    let name = existing.clone().unwrap_or_else(|| random::generate_name(VOLUME));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = object.at_mut_or_create(&["spec"]).get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            let taken = container
                .list_at(&["volumeMounts"])
                .iter()
                .any(|mount| mount.str_at(&["mountPath"]) == Some(MOUNT_PATH));
            if taken {
                continue;
            }
            let mut mounts = container.list_at(&["volumeMounts"]).to_vec();
            mounts.push(json!({"mountPath": MOUNT_PATH, "name": name, "readOnly": true}));
            container["volumeMounts"] = mounts.into();
            mounted = true;
        }
    }
    if !mounted || existing.is_some() {
        return;
    }
    let mut volumes = object.list_at(&["spec", "volumes"]).to_vec();
    volumes.push(json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": EXPIRATION, "path": "token"}},
                {"configMap": {
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    "name": "kube-root-ca.crt",
                }},
                {"downwardAPI": {"items": [{
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    "path": "namespace",
                }]}},
            ],
        },
    }));
    object.set_at(&["spec", "volumes"], volumes.into());
}
