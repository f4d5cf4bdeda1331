//! KMS v2: a plugin keeps the key of keys; values are encrypted here with data keys that it encrypted.
//!
//! One data key (a seed) is used until the plugin names another key of its own. Reads work as long as the
//! key is known; writes stop when the plugin has been unwell for three minutes. KEP-3299; upstream:
//! `apiserver/pkg/storage/value/encrypt/envelope/kmsv2`.

mod seed;
mod service;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use component_base::clock::SharedClock;
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use prost::Message as _;
use proto::kms::{DecryptRequest, EncryptRequest, EncryptedDekSourceType, EncryptedObject, StatusResponse};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::seed::DataKey;
use self::service::{Service, cache_key};
use super::ciphers::random;
use super::configuration;
use super::metrics::{Direction, Metrics, digest};
use super::transformer::{Error, Place, Transformer};

/// How often a plugin that is well is asked.
const WELL: Duration = Duration::from_secs(60);
/// How often one that is not.
const UNWELL: Duration = Duration::from_secs(10);
/// How long a data key may be written with after the plugin was last well.
const WRITABLE: Duration = Duration::from_secs(3 * 60);
/// How long what the plugin said counts for health checks.
const BELIEVED_WELL: Duration = Duration::from_secs(20);
const BELIEVED_UNWELL: Duration = Duration::from_secs(3);
/// How long a data key that nobody uses is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);
const LARGEST_ANNOTATIONS: usize = 32 * 1024;
const LARGEST_ID: usize = 1024;
const LARGEST_SOURCE: usize = 1024;
const SEED: i32 = EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed as i32;

/// The data key that is written with, and its envelope.
struct State {
    key: Arc<DataKey>,
    envelope: EncryptedObject,
    cache_key: Vec<u8>,
    expires: Timestamp,
}

struct Health {
    at: Option<Duration>,
    outcome: Result<(), String>,
    /// The plugin's first answer decides which version it speaks.
    version: String,
}

struct Kept {
    key: Arc<DataKey>,
    used: Duration,
}

/// A plugin and what is known of it.
pub struct Kms {
    name: String,
    service: Service,
    state: ArcSwapOption<State>,
    keys: Mutex<AHashMap<Vec<u8>, Kept>>,
    health: Mutex<Health>,
    /// One probe at a time.
    probing: tokio::sync::Mutex<()>,
    again: Arc<tokio::sync::Notify>,
    _stop: DropGuard,
    clock: SharedClock,
    metrics: Option<Arc<Metrics>>,
}

impl Kms {
    /// The plugin of this configuration. Must be called inside a tokio runtime; its first answer is
    /// waited for with [`Kms::probe`].
    ///
    /// # Errors
    /// When there can be no thread to talk to it.
    pub fn start(
        options: &configuration::Kms,
        clock: SharedClock,
        metrics: Option<Arc<Metrics>>,
    ) -> Result<Arc<Self>, String> {
        let service = Service::start(&options.name, &options.endpoint, options.timeout, metrics.clone());
        let service = service
            .map_err(|error| format!("could not configure KMSv2-Plugin's probe {:?}, error: {error}", options.name))?;
        let (stop, again) = (CancellationToken::new(), Arc::new(tokio::sync::Notify::new()));
        let kms = Arc::new(Self {
            name: options.name.clone(),
            service,
            state: ArcSwapOption::empty(),
            keys: Mutex::default(),
            health: Mutex::new(Health { at: None, outcome: Err("not asked yet".to_string()), version: String::new() }),
            probing: tokio::sync::Mutex::default(),
            again: again.clone(),
            _stop: stop.clone().drop_guard(),
            clock,
            metrics,
        });
        tokio::spawn(follow(Arc::downgrade(&kms), again, stop));
        Ok(kms)
    }

    /// What stored values of this plugin begin with.
    pub fn prefix(&self) -> String {
        format!("k8s:enc:kms:v2:{}:", self.name)
    }

    /// What the plugin last said. A stale answer is returned all the same, and asked for anew.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn health(&self) -> Result<(), String> {
        let health = self.health.lock();
        let believed = if health.outcome.is_ok() { BELIEVED_WELL } else { BELIEVED_UNWELL };
        if health.at.is_none_or(|at| self.clock.monotonic() >= at + believed) {
            self.again.notify_one();
        }
        health.outcome.clone()
    }

    /// Asks the plugin now, and takes over its key if that is another one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn probe(&self) -> Result<(), String> {
        let _one = self.probing.lock().await;
        let outcome = match self.service.status().await {
            Err(error) => Err(format!(
                "failed to perform status section of the healthz check for KMS Provider {}, error: {error}",
                self.name
            )),
            Ok(status) => self.judge(status).await,
        };
        if let Err(error) = &outcome {
            tracing::warn!(name = self.name, error, "kms plugin failed health check probe");
        }
        let mut health = self.health.lock();
        health.at = Some(self.clock.monotonic());
        health.outcome.clone_from(&outcome);
        outcome
    }

    async fn judge(&self, status: StatusResponse) -> Result<(), String> {
        let mut errors = Vec::new();
        if status.healthz != "ok" {
            errors.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        if status.version != "v2" && status.version != "v2beta1" {
            errors.push(format!("expected KMSv2 API version v2, got {}", status.version));
        } else {
            let mut health = self.health.lock();
            if health.version.is_empty() {
                health.version.clone_from(&status.version);
            }
            if health.version != status.version {
                errors.push(format!(
                    "KMSv2 API version should not change after the initial status response version {}, got {}",
                    health.version, status.version
                ));
            }
        }
        if let Err((code, why)) = check_key_id(&status.key_id) {
            if let Some(metrics) = &self.metrics {
                metrics.invalid_key_id(&self.name, code);
            }
            errors.push(format!("got invalid KMSv2 KeyID hash {:?}: {why}", digest(&status.key_id)));
        } else {
            if let Some(metrics) = &self.metrics {
                metrics.status(&self.name, &status.key_id);
            }
            errors.extend(self.rotate(&status.key_id).await.err());
        }
        match errors.len() {
            0 => Ok(()),
            1 => Err(format!("kmsv2 Provider {} is not healthy, error: {}", self.name, errors[0])),
            _ => Err(format!("kmsv2 Provider {} is not healthy, error: [{}]", self.name, errors.join(", "))),
        }
    }

    /// Lets the present data key live on, or makes another when the plugin's key is another.
    async fn rotate(&self, key_id: &str) -> Result<(), String> {
        // Counted from before the plugin is asked, so that it is an upper bound.
        let expires = self.clock.now() + jiff::SignedDuration::try_from(WRITABLE).unwrap_or_default();
        let state = self.state.load_full();
        if let Some(state) = &state
            && state.envelope.key_id == key_id
        {
            let (key, envelope) = (state.key.clone(), state.envelope.clone());
            self.state.store(Some(Arc::new(State { key, envelope, cache_key: state.cache_key.clone(), expires })));
            return Ok(());
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let made = self.generate(&uid, expires).await;
        let got = made.as_ref().map_or("", |state| state.envelope.key_id.as_str()).to_string();
        match made {
            Ok(made) if made.envelope.key_id == key_id => {
                tracing::info!(name = self.name, uid, key = digest(key_id), "successfully rotated DEK");
                self.state.store(Some(Arc::new(made)));
                Ok(())
            }
            made => {
                let failed = made.err().map_or_else(|| "<nil>".to_string(), |error| error.message);
                let before = state.as_ref().map_or("", |state| state.envelope.key_id.as_str());
                let until = state.as_ref().map_or_else(
                    || "0001-01-01T00:00:00Z".to_string(),
                    |state| apimachinery::time::format(state.expires),
                );
                let missing = if state.is_some() { "<nil>" } else { "got unexpected nil transformer" };
                Err(format!(
                    "failed to rotate DEK uid={uid:?}, useSeed=true, errState={missing}, errGen={failed}, statusKeyIDHash={:?}, encryptKeyIDHash={:?}, stateKeyIDHash={:?}, expirationTimestamp={until}",
                    digest(key_id),
                    digest(&got),
                    digest(before)
                ))
            }
        }
    }

    async fn generate(&self, uid: &str, expires: Timestamp) -> Result<State, Error> {
        let seed = random::<{ seed::SIZE }>()?;
        let key = Arc::new(DataKey::new(&seed, true)?);
        let request = EncryptRequest { plaintext: seed.to_vec(), uid: uid.to_string() };
        let answer = self
            .service
            .encrypt(request)
            .await
            .map_err(|error| Error { message: format!("failed to encrypt DEK, error: {}", error.message), ..error })?;
        let mut envelope = EncryptedObject {
            encrypted_data: vec![0],
            key_id: answer.key_id,
            encrypted_dek_source: answer.ciphertext,
            annotations: answer.annotations,
            encrypted_dek_source_type: SEED,
        };
        check(&envelope)?;
        envelope.encrypted_data.clear();
        let cache_key = cache_key(SEED, &envelope.encrypted_dek_source, &envelope.key_id, &envelope.annotations);
        Ok(State { key, envelope, cache_key, expires })
    }

    fn known(&self, cache_key: &[u8]) -> Option<Arc<DataKey>> {
        let now = self.clock.monotonic();
        let mut keys = self.keys.lock();
        let kept = keys.get_mut(cache_key)?;
        kept.used = now;
        Some(kept.key.clone())
    }

    fn keep(&self, cache_key: Vec<u8>, key: Arc<DataKey>) {
        let now = self.clock.monotonic();
        let mut keys = self.keys.lock();
        if !keys.contains_key(&cache_key) {
            keys.retain(|_, kept| now < kept.used + KEPT);
        }
        keys.insert(cache_key, Kept { key, used: now });
        if let Some(metrics) = &self.metrics {
            metrics.sources(&self.name, keys.len());
        }
    }

    fn miss(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.missed();
        }
    }

    fn learn(&self, cache_key: Vec<u8>, answer: Result<Vec<u8>, Error>, kind: i32) -> Result<Arc<DataKey>, Error> {
        let bytes = answer
            .map_err(|error| Error { message: format!("failed to decrypt DEK, error: {}", error.message), ..error })?;
        let key = Arc::new(DataKey::new(&bytes, kind == SEED)?);
        self.keep(cache_key, key.clone());
        Ok(key)
    }
}

/// Asks the plugin now and then for as long as somebody has it.
async fn follow(kms: Weak<Kms>, again: Arc<tokio::sync::Notify>, stop: CancellationToken) {
    loop {
        let Some(strong) = kms.upgrade() else { return };
        let pause = strong.clock.sleep(if strong.health.lock().outcome.is_ok() { WELL } else { UNWELL });
        drop(strong);
        tokio::select! {
            () = stop.cancelled() => return,
            () = pause => {}
            () = again.notified() => {}
        }
        let Some(strong) = kms.upgrade() else { return };
        // What it says is kept and logged.
        let _ = strong.probe().await;
    }
}

/// The transformer of a plugin.
pub struct Envelope(pub Arc<Kms>);

impl Transformer for Envelope {
    fn from_storage(&self, data: Bytes, place: Place<'_>) -> Result<(Bytes, bool), Error> {
        let object = decode(&data)?;
        let state = self.0.state.load_full().ok_or_else(|| Error::new("got unexpected nil transformer"))?;
        let kind = object.encrypted_dek_source_type;
        let cache_key = cache_key(kind, &object.encrypted_dek_source, &object.key_id, &object.annotations);
        let key = match self.0.known(&cache_key) {
            Some(key) => key,
            None => {
                self.0.miss();
                let answer = self.0.service.decrypt_blocking(request(&object));
                self.0.learn(cache_key, answer, kind)?
            }
        };
        if let Some(metrics) = &self.0.metrics {
            metrics.used(&self.0.name, Direction::From, &object.key_id);
        }
        let plain = key.open(object.encrypted_data.into(), place)?;
        let stale = object.key_id != state.envelope.key_id || kind != state.envelope.encrypted_dek_source_type;
        Ok((plain, stale))
    }

    fn to_storage(&self, data: &Bytes, place: Place<'_>) -> Result<Bytes, Error> {
        let state = self.0.state.load_full().ok_or_else(|| Error::new("got unexpected nil transformer"))?;
        let now = self.0.clock.now();
        if now > state.expires {
            return Err(Error::new(format!(
                "encryptedDEKSource with keyID hash {:?} expired at {} (current time is {})",
                digest(&state.envelope.key_id),
                apimachinery::time::format(state.expires),
                apimachinery::time::format(now)
            )));
        }
        // What was just written will be read.
        if self.0.known(&state.cache_key).is_none() {
            self.0.keep(state.cache_key.clone(), state.key.clone());
        }
        let sealed = state.key.seal(data, place)?;
        if let Some(metrics) = &self.0.metrics {
            metrics.used(&self.0.name, Direction::To, &state.envelope.key_id);
        }
        let object = EncryptedObject { encrypted_data: sealed.to_vec(), ..state.envelope.clone() };
        Ok(object.encode_to_vec().into())
    }

    fn prepare(&self, data: &Bytes) -> Option<BoxFuture<'static, ()>> {
        // What cannot be read says so when it is read.
        let object = decode(data).ok()?;
        let kind = object.encrypted_dek_source_type;
        let cache_key = cache_key(kind, &object.encrypted_dek_source, &object.key_id, &object.annotations);
        if self.0.known(&cache_key).is_some() {
            return None;
        }
        let kms = self.0.clone();
        Some(Box::pin(async move {
            kms.miss();
            let answer = kms.service.decrypt(request(&object)).await;
            if let Err(error) = kms.learn(cache_key, answer, kind) {
                tracing::warn!(name = kms.name, %error, "a data key is not to be had");
            }
        }))
    }
}

fn request(object: &EncryptedObject) -> DecryptRequest {
    DecryptRequest {
        ciphertext: object.encrypted_dek_source.clone(),
        uid: uuid::Uuid::new_v4().to_string(),
        key_id: object.key_id.clone(),
        annotations: object.annotations.clone(),
    }
}

fn decode(data: &Bytes) -> Result<EncryptedObject, Error> {
    let object = EncryptedObject::decode(data.clone()).map_err(|error| Error::new(error.to_string()))?;
    check(&object)?;
    Ok(object)
}

fn check_key_id(id: &str) -> Result<(), (&'static str, String)> {
    match id.len() {
        0 => Err(("empty", "keyID is empty".to_string())),
        length if length > LARGEST_ID => {
            Err(("too_long", format!("keyID is {length} bytes, which exceeds the max size of {LARGEST_ID}")))
        }
        _ => Ok(()),
    }
}

fn check(object: &EncryptedObject) -> Result<(), Error> {
    let kind = object.encrypted_dek_source_type;
    if EncryptedDekSourceType::try_from(kind).is_err() {
        return Err(Error::new(format!("unknown encryptedDEKSourceType: {kind}")));
    }
    if object.encrypted_data.is_empty() {
        return Err(Error::new("encrypted data is empty"));
    }
    let source = |why: String| Error::new(format!("failed to validate encrypted DEK source: {why}"));
    match object.encrypted_dek_source.len() {
        0 => return Err(source("encrypted DEK source is empty".to_string())),
        length if length > LARGEST_SOURCE => {
            return Err(source(format!(
                "encrypted DEK source is {length} bytes, which exceeds the max size of {LARGEST_SOURCE}"
            )));
        }
        _ => {}
    }
    check_key_id(&object.key_id).map_err(|(_, why)| Error::new(format!("failed to validate key id: {why}")))?;
    check_annotations(&object.annotations).map_err(|why| Error::new(format!("failed to validate annotations: {why}")))
}

fn check_annotations(annotations: &HashMap<String, Vec<u8>>) -> Result<(), String> {
    let mut errors = Vec::new();
    let mut names: Vec<_> = annotations.keys().collect();
    names.sort();
    for name in names {
        let valid = apimachinery::names::dns1123_subdomain(name);
        if let Some(why) = valid.first() {
            errors.push(format!("annotations: Invalid value: {name:?}: {why}"));
        } else if name.split('.').count() < 2 {
            errors.push(format!(
                "annotations: Invalid value: {name:?}: should be a domain with at least two segments separated by dots"
            ));
        }
    }
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > LARGEST_ANNOTATIONS {
        errors
            .push(format!("total size of annotations is {size}, which exceeds the max size of {LARGEST_ANNOTATIONS}"));
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}
