//! What is counted of encryption, in upstream's names.

use std::collections::VecDeque;

use component_base::clock::SharedClock;
use component_base::metrics::{Counter, CounterVec, GaugeVec, HistogramVec, Registry, Stability, exponential_buckets};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// Key ids with a series of their own at most; the oldest goes.
const KEY_IDS: usize = 100;

/// Which way a value went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    From,
    To,
}

impl Direction {
    fn label(self) -> &'static str {
        match self {
            Self::From => "from_storage",
            Self::To => "to_storage",
        }
    }
}

/// `sha256:…` of an identifier that is not to be shown; empty for an empty one.
pub fn digest(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The families.
pub struct Metrics {
    clock: SharedClock,
    /// The digest of this server's identity.
    server: String,
    operations: CounterVec,
    cache_misses: Counter,
    reloads: CounterVec,
    last_reload: GaugeVec,
    config_info: GaugeVec,
    last_config: Mutex<Option<String>>,
    kms_latency: HistogramVec,
    key_ids: CounterVec,
    key_ids_last: GaugeVec,
    status_last: GaugeVec,
    invalid_key_ids: CounterVec,
    source_cache: GaugeVec,
    shown: Mutex<VecDeque<[String; 3]>>,
}

impl Metrics {
    /// Registers the families for the server of this identity.
    pub fn new(registry: &Registry, clock: SharedClock, identity: &str) -> Self {
        let counter = |name, help, labels| registry.counter_vec(name, help, Stability::Alpha, labels);
        let gauge = |name, help, labels| registry.gauge_vec(name, help, Stability::Alpha, labels);
        let misses = counter(
            "apiserver_storage_envelope_transformation_cache_misses_total",
            "Total number of cache misses while accessing key decryption key(KEK).",
            &[],
        );
        Self {
            clock,
            server: digest(identity),
            operations: counter(
                "apiserver_storage_transformation_operations_total",
                "Total number of transformations. Successful transformation will have a status 'OK' and a varied status string when the transformation fails.",
                &["resource", "status", "transformation_type", "transformer_prefix"],
            ),
            cache_misses: misses.with(&[]),
            reloads: counter(
                "apiserver_encryption_config_controller_automatic_reloads_total",
                "Total number of reload successes and failures of encryption configuration split by apiserver identity.",
                &["apiserver_id_hash", "status"],
            ),
            last_reload: gauge(
                "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds",
                "Timestamp of the last successful or failed automatic reload of encryption configuration split by apiserver identity.",
                &["apiserver_id_hash", "status"],
            ),
            config_info: gauge(
                "apiserver_encryption_config_controller_last_config_info",
                "Information about the last applied encryption configuration with hash as label, split by apiserver identity.",
                &["apiserver_id_hash", "hash"],
            ),
            last_config: Mutex::default(),
            kms_latency: registry.histogram_vec(
                "apiserver_envelope_encryption_kms_operations_latency_seconds",
                "KMS operation duration with gRPC error code status total.",
                Stability::Alpha,
                &["grpc_status_code", "method_name", "provider_name"],
                &exponential_buckets(0.0001, 2.0, 20),
            ),
            key_ids: counter(
                "apiserver_envelope_encryption_key_id_hash_total",
                "Number of times a keyID is used split by transformation type, provider, and apiserver identity.",
                &["apiserver_id_hash", "key_id_hash", "provider_name", "transformation_type"],
            ),
            key_ids_last: gauge(
                "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds",
                "The last time in seconds when a keyID was used.",
                &["apiserver_id_hash", "key_id_hash", "provider_name", "transformation_type"],
            ),
            status_last: gauge(
                "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds",
                "The last time in seconds when a keyID was returned by the Status RPC call.",
                &["apiserver_id_hash", "key_id_hash", "provider_name"],
            ),
            invalid_key_ids: counter(
                "apiserver_envelope_encryption_invalid_key_id_from_status_total",
                "Number of times an invalid keyID is returned by the Status RPC call split by error.",
                &["error", "provider_name"],
            ),
            source_cache: gauge(
                "apiserver_envelope_encryption_dek_source_cache_size",
                "Number of records in data encryption key (DEK) source cache. On a restart, this value is an approximation of the number of decrypt RPC calls the server will make to the KMS plugin.",
                &["provider_name"],
            ),
            shown: Mutex::default(),
        }
    }

    fn now(&self) -> f64 {
        self.clock.now().as_millisecond() as f64 / 1000.0
    }

    /// A value went through the transformer of this prefix; `failed` is the gRPC status.
    pub fn transformed(&self, resource: &str, direction: Direction, prefix: &str, failed: Option<&str>) {
        self.operations.inc(&[resource, failed.unwrap_or("OK"), direction.label(), prefix]);
    }

    /// A data key had to be asked for.
    pub fn missed(&self) {
        self.cache_misses.inc();
    }

    /// The configuration was read again.
    pub fn reloaded(&self, good: bool) {
        let status = if good { "success" } else { "failure" };
        self.reloads.inc(&[&self.server, status]);
        self.last_reload.set(&[&self.server, status], self.now());
    }

    /// The configuration with this digest is in use.
    pub fn in_use(&self, hash: &str) {
        let mut last = self.last_config.lock();
        if let Some(old) = last.replace(hash.to_string()) {
            self.config_info.remove(&[&self.server, &old]);
        }
        self.config_info.set(&[&self.server, hash], 1.0);
    }

    /// A plugin was called.
    pub fn called(&self, provider: &str, method: &str, status: &str, seconds: f64) {
        self.kms_latency.observe(&[status, method, provider], seconds);
    }

    /// A value was read or written with this key.
    pub fn used(&self, provider: &str, direction: Direction, key_id: &str) {
        let hash = digest(key_id);
        let labels = [&self.server, &hash, provider, direction.label()];
        self.key_ids.inc(&labels);
        self.key_ids_last.set(&labels, self.now());
    }

    /// The plugin writes with this key.
    pub fn status(&self, provider: &str, key_id: &str) {
        let hash = digest(key_id);
        self.status_last.set(&[&self.server, &hash, provider], self.now());
        let mut shown = self.shown.lock();
        let series = [self.server.clone(), hash, provider.to_string()];
        shown.retain(|have| *have != series);
        shown.push_back(series);
        if shown.len() > KEY_IDS
            && let Some([server, hash, provider]) = shown.pop_front()
        {
            self.status_last.remove(&[&server, &hash, &provider]);
            for direction in [Direction::From, Direction::To] {
                self.key_ids_last.remove(&[&server, &hash, &provider, direction.label()]);
            }
        }
    }

    /// The plugin named no usable key.
    pub fn invalid_key_id(&self, provider: &str, code: &str) {
        self.invalid_key_ids.inc(&[code, provider]);
    }

    /// So many data keys are kept.
    pub fn sources(&self, provider: &str, count: usize) {
        self.source_cache.set(&[provider], count as f64);
    }
}
