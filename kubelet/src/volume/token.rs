//! Service account tokens of projected volumes: fetched once, refreshed before they end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::clock::SharedClock;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use parking_lot::Mutex;

use crate::api::{Api, Result};
use crate::pod::PodExt;

/// Tokens are renewed at this age at the latest, however long they live.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    audience: String,
    seconds: i64,
}

struct Entry {
    token: String,
    /// When to ask for another.
    refresh: Timestamp,
    expires: Timestamp,
}

/// The tokens of this node's pods.
#[derive(Clone)]
pub struct Tokens {
    clock: SharedClock,
    entries: Arc<Mutex<HashMap<Key, Entry>>>,
}

impl Tokens {
    /// An empty cache.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, entries: Arc::default() }
    }

    /// The token for a projection: the kept one while it is fresh, else a new one. If that fails and the
    /// kept one is still valid, the kept one.
    pub async fn get(&self, api: &dyn Api, pod: &Pod, projection: &ServiceAccountTokenProjection) -> Result<String> {
        let seconds = projection.expiration_seconds.unwrap_or(3600);
        let audience = projection.audience.clone().unwrap_or_default();
        let key = Key { uid: pod.uid().into(), audience: audience.clone(), seconds };
        let now = self.clock.now();
        let kept = {
            let entries = self.entries.lock();
            match entries.get(&key) {
                Some(entry) if now < entry.refresh => return Ok(entry.token.clone()),
                Some(entry) if now < entry.expires => Some(entry.token.clone()),
                _ => None,
            }
        };
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience]),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..Default::default()
        };
        let account = pod.pod_spec().service_account_name.as_deref().unwrap_or("default");
        let status = match (api.token(pod.pod_namespace(), account, request).await, kept) {
            (Ok(response), _) => response.status.unwrap_or_default(),
            (Err(_), Some(token)) => return Ok(token),
            (Err(error), None) => return Err(error),
        };
        let token = status.token.unwrap_or_default();
        let expires = status.expiration_timestamp.map_or(now, |time| time.0);
        let life = crate::runtime::backoff::since(now, expires);
        let entry = Entry { token: token.clone(), refresh: now + (life * 8 / 10).min(MAX_AGE), expires };
        self.entries.lock().insert(key, entry);
        Ok(token)
    }

    /// Drops the tokens of a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.entries.lock().retain(|key, _| key.uid != uid);
    }
}
