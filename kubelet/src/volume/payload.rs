//! What the files of config map, secret, downward API and projected volumes contain.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, SecretVolumeSource,
};

use super::Error;
use super::atomic::{File, Payload};
use super::certificate::Certificates;
use super::token::Tokens;
use crate::api::{self, Api};
use crate::env::{self, NodeFacts};
use crate::pod::PodExt;

/// What payloads are made from.
pub struct Sources {
    pub api: Arc<dyn Api>,
    pub tokens: Tokens,
    pub certificates: Certificates,
    pub facts: NodeFacts,
}

const DEFAULT_MODE: i32 = 0o644;

fn file(data: Vec<u8>, mode: i32) -> File {
    File { data, mode: mode as u32 & 0o777, uid: None }
}

/// Picks the wanted keys of a map; all of them when none are listed.
fn select(
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
    out: &mut Payload,
) -> Result<(), Error> {
    match items.filter(|items| !items.is_empty()) {
        None => out.extend(data.iter().map(|(key, value)| (key.clone(), file(value.clone(), mode)))),
        Some(items) => {
            for item in items {
                match data.get(&item.key) {
                    Some(value) => {
                        out.insert(item.path.clone(), file(value.clone(), item.mode.unwrap_or(mode)));
                    }
                    None if optional => {}
                    None => return Err(Error::SetUp(format!("references non-existent config key: {}", item.key))),
                }
            }
        }
    }
    Ok(())
}

fn or_absent<T>(result: api::Result<T>, optional: bool) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() && optional => Ok(None),
        Err(error) => Err(Error::SetUp(error.to_string())),
    }
}

impl Sources {
    async fn config_map(
        &self,
        pod: &Pod,
        name: &str,
        items: Option<&Vec<KeyToPath>>,
        mode: i32,
        optional: bool,
        out: &mut Payload,
    ) -> Result<(), Error> {
        let found = or_absent(self.api.config_map(pod.pod_namespace(), name).await, optional)?;
        let Some(map) = found else { return Ok(()) };
        let mut data: BTreeMap<String, Vec<u8>> =
            map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes())).collect();
        data.extend(map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())));
        select(&data, items, mode, optional, out)
    }

    async fn secret(
        &self,
        pod: &Pod,
        name: &str,
        items: Option<&Vec<KeyToPath>>,
        mode: i32,
        optional: bool,
        out: &mut Payload,
    ) -> Result<(), Error> {
        let found = or_absent(self.api.secret(pod.pod_namespace(), name).await, optional)?;
        let Some(secret) = found else { return Ok(()) };
        let data = secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect();
        select(&data, items, mode, optional, out)
            .map_err(|_| Error::SetUp("references non-existent secret key: ".to_owned() + &missing_key(&data, items)))
    }

    /// A config map volume.
    pub async fn config_map_volume(&self, pod: &Pod, source: &ConfigMapVolumeSource) -> Result<Payload, Error> {
        let mut out = Payload::new();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let optional = source.optional.unwrap_or(false);
        self.config_map(pod, &source.name, source.items.as_ref(), mode, optional, &mut out).await?;
        Ok(out)
    }

    /// A secret volume.
    pub async fn secret_volume(&self, pod: &Pod, source: &SecretVolumeSource) -> Result<Payload, Error> {
        let mut out = Payload::new();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let optional = source.optional.unwrap_or(false);
        self.secret(pod, name, source.items.as_ref(), mode, optional, &mut out).await?;
        Ok(out)
    }

    /// A downward API volume, or the part of a projected one.
    pub fn downward(
        &self,
        pod: &Pod,
        items: Option<&Vec<DownwardAPIVolumeFile>>,
        mode: Option<i32>,
    ) -> Result<Payload, Error> {
        let mut out = Payload::new();
        let mode = mode.unwrap_or(DEFAULT_MODE);
        for item in items.into_iter().flatten() {
            let text = if let Some(field) = &item.field_ref {
                env::field_value(field, pod, &[], &self.facts)
            } else if let Some(resource) = &item.resource_field_ref {
                env::resource_value(resource, pod, None, &self.facts)
            } else {
                continue;
            };
            let text = text.map_err(|e| Error::SetUp(e.to_string()))?;
            out.insert(item.path.clone(), file(text.into_bytes(), item.mode.unwrap_or(mode)));
        }
        Ok(out)
    }

    /// A projected volume.
    pub async fn projected(&self, pod: &Pod, volume: &str, source: &ProjectedVolumeSource) -> Result<Payload, Error> {
        let mut out = Payload::new();
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for (index, part) in source.sources.iter().flatten().enumerate() {
            if let Some(map) = &part.config_map {
                let optional = map.optional.unwrap_or(false);
                self.config_map(pod, &map.name, map.items.as_ref(), mode, optional, &mut out).await?;
            }
            if let Some(secret) = &part.secret {
                let optional = secret.optional.unwrap_or(false);
                self.secret(pod, &secret.name, secret.items.as_ref(), mode, optional, &mut out).await?;
            }
            if let Some(downward) = &part.downward_api {
                out.extend(self.downward(pod, downward.items.as_ref(), Some(mode))?);
            }
            if let Some(token) = &part.service_account_token {
                let text =
                    self.tokens.get(self.api.as_ref(), pod, token).await.map_err(|e| Error::SetUp(e.to_string()))?;
                out.insert(token.path.clone(), private(pod, text.into_bytes(), mode));
            }
            if let Some(bundle) = &part.cluster_trust_bundle {
                let anchors = super::trust::anchors(self.api.as_ref(), bundle).await?;
                out.insert(bundle.path.clone(), private(pod, anchors, mode));
            }
            if let Some(certificate) = &part.pod_certificate {
                let found = self.certificates.get(self.api.as_ref(), pod, (volume, index), certificate).await?;
                for (path, data) in [
                    (&certificate.credential_bundle_path, found.key.clone() + &found.chain),
                    (&certificate.key_path, found.key.clone()),
                    (&certificate.certificate_chain_path, found.chain.clone()),
                ] {
                    if let Some(path) = path.as_ref().filter(|path| !path.is_empty()) {
                        out.insert(path.clone(), private(pod, data.into_bytes(), mode));
                    }
                }
            }
        }
        Ok(out)
    }
}

fn missing_key(data: &BTreeMap<String, Vec<u8>>, items: Option<&Vec<KeyToPath>>) -> String {
    let missing = items.into_iter().flatten().find(|item| !data.contains_key(&item.key));
    missing.map(|item| item.key.clone()).unwrap_or_default()
}

/// A file that only the pod's user or group may read, where there is a single one.
fn private(pod: &Pod, data: Vec<u8>, mode: i32) -> File {
    let uid = common_user(pod);
    let fs_group = pod.pod_spec().security_context.as_ref().and_then(|c| c.fs_group);
    let mode = if uid.is_some() || fs_group.is_some() { 0o600 } else { mode };
    File { uid, ..file(data, mode) }
}

/// The user that every container of the pod runs as, if there is one.
fn common_user(pod: &Pod) -> Option<u32> {
    let mut users = pod.pod_spec().containers.iter().chain(pod.init_containers()).map(|c| {
        let own = c.security_context.as_ref().and_then(|s| s.run_as_user);
        own.or_else(|| pod.pod_spec().security_context.as_ref().and_then(|s| s.run_as_user))
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}
