//! Encryption at rest, by `--encryption-provider-config`.
//!
//! It sits between the cache, which holds objects in the clear, and the store, which knows bytes only. What
//! is stored is upstream's: `k8s:enc:<provider>:v1:<key>:` and the cipher's bytes; so either kind of server
//! reads what the other wrote. Upstream: `apiserver/pkg/server/options/encryptionconfig`.

mod ciphers;
pub mod configuration;
mod kms;
mod metrics;
mod reload;
mod transformer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use component_base::clock::SharedClock;
use futures::future::BoxFuture;

use self::ciphers::{Cbc, Gcm, Secretbox};
use self::configuration::{Configuration, Keys, Provider};
use self::kms::{Envelope, Kms};
pub use self::metrics::{Metrics, digest};
pub use self::transformer::Error;
use self::transformer::{Identity, Place, Prefixed, Transformer};

/// The name of the health check of all plugins.
pub const HEALTH: &str = "kms-providers";

/// What one reading of the file makes.
struct Table {
    /// By group and plural; `*` is everything.
    rules: AHashMap<(String, String), Arc<dyn Transformer>>,
    plugins: Vec<Arc<Kms>>,
    hash: String,
}

/// How each resource is stored, now.
pub struct Encryption {
    path: PathBuf,
    reload: bool,
    clock: SharedClock,
    metrics: Option<Arc<Metrics>>,
    current: ArcSwap<Table>,
}

impl Encryption {
    /// Reads the file and asks its plugins once. Plugins that are not well yet are asked again later.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub async fn load(
        path: &Path,
        reload: bool,
        clock: SharedClock,
        metrics: Option<Arc<Metrics>>,
    ) -> Result<Arc<Self>, String> {
        let configuration = configuration::load(path, reload)?;
        let table = build(&configuration, &clock, metrics.as_ref())?;
        for plugin in &table.plugins {
            // Not fatal: it is said in the log and by the health check.
            let _ = plugin.probe().await;
        }
        if let Some(metrics) = &metrics {
            metrics.in_use(&table.hash);
        }
        let current = ArcSwap::from_pointee(table);
        Ok(Arc::new(Self { path: path.to_path_buf(), reload, clock, metrics, current }))
    }

    /// How this resource is stored, now and after the file changed.
    pub fn resource(self: &Arc<Self>, group: &str, resource: &str) -> Storage {
        let label = if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") };
        Storage {
            of: Some(Of { encryption: self.clone(), group: group.to_string(), resource: resource.to_string(), label }),
        }
    }

    /// Whether there is anything to say of health: plugins, or a file that may name some later.
    pub fn has_health(&self) -> bool {
        self.reload || !self.current.load().plugins.is_empty()
    }

    /// Whether every plugin is well.
    ///
    /// # Errors
    /// Which are not, and why.
    pub fn health(&self) -> Result<(), String> {
        let table = self.current.load();
        let errors: Vec<String> = table
            .plugins
            .iter()
            .enumerate()
            .filter_map(|(index, plugin)| plugin.health().err().map(|error| format!("kms-provider-{index}: {error}")))
            .collect();
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.into_iter().collect()),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    fn find(&self, group: &str, resource: &str) -> Option<Arc<dyn Transformer>> {
        let table = self.current.load();
        let rule = |group: &str, resource: &str| table.rules.get(&(group.to_string(), resource.to_string())).cloned();
        rule(group, resource).or_else(|| rule(group, "*")).or_else(|| rule("*", "*"))
    }
}

struct Of {
    encryption: Arc<Encryption>,
    group: String,
    resource: String,
    label: String,
}

/// How one resource is stored.
#[derive(Default)]
pub struct Storage {
    /// `None`: plainly, by a server without a configuration.
    of: Option<Of>,
}

impl Storage {
    fn with<T>(&self, key: &str, act: impl FnOnce(&dyn Transformer, Place<'_>) -> T) -> T {
        match &self.of {
            None => act(&Identity, Place { key, resource: "" }),
            Some(of) => {
                let place = Place { key, resource: &of.label };
                match of.encryption.find(&of.group, &of.resource) {
                    Some(transformer) => act(&*transformer, place),
                    None => act(&Identity, place),
                }
            }
        }
    }

    /// What was stored as `data` under `key`, and whether it is to be written again.
    ///
    /// # Errors
    /// When it cannot be decrypted.
    pub fn read(&self, key: &str, data: Bytes) -> Result<(Bytes, bool), Error> {
        self.with(key, |transformer, place| transformer.from_storage(data, place))
    }

    /// What to store under `key`.
    ///
    /// # Errors
    /// When there is no key to encrypt with.
    pub fn write(&self, key: &str, data: &Bytes) -> Result<Bytes, Error> {
        self.with(key, |transformer, place| transformer.to_storage(data, place))
    }

    /// Work to be done before [`Storage::read`], so that it need not block.
    pub fn prepare(&self, data: &Bytes) -> Option<BoxFuture<'static, ()>> {
        let of = self.of.as_ref()?;
        of.encryption.find(&of.group, &of.resource)?.prepare(data)
    }

    /// Whether stored values may be stale at all.
    pub fn is_configured(&self) -> bool {
        self.of.is_some()
    }
}

fn build(configuration: &Configuration, clock: &SharedClock, metrics: Option<&Arc<Metrics>>) -> Result<Table, String> {
    let failed = |error: String| format!("error while building transformers: {error}");
    let mut rules: AHashMap<(String, String), Vec<Made>> = AHashMap::default();
    let mut plugins = Vec::new();
    for rule in &configuration.resources {
        let made = rule
            .providers
            .iter()
            .map(|provider| make(provider, clock, metrics))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        plugins.extend(made.iter().filter_map(|made| made.plugin.clone()));
        for resource in &rule.resources {
            let (group, plural) = configuration::group_resource(resource);
            for (masked, shown) in [
                (group, if group.is_empty() { "*.".to_string() } else { format!("*.{group}") }),
                ("*", "*.*".to_string()),
            ] {
                if rules.contains_key(&(masked.to_string(), "*".to_string())) {
                    let own = if (group, plural) == ("", "*") { "*." } else { resource.as_str() };
                    return Err(failed(format!("resource {own:?} is masked by earlier rule {shown:?}")));
                }
            }
            rules.entry((group.to_string(), plural.to_string())).or_default().extend(made.iter().cloned());
        }
    }
    let rules = rules
        .into_iter()
        .map(|(resource, made)| {
            let list = made.into_iter().map(|made| (made.prefix, Box::new(Shared(made.transformer)) as _)).collect();
            let all: Arc<dyn Transformer> = Arc::new(Prefixed::new(list, "no matching prefix found", metrics.cloned()));
            (resource, all)
        })
        .collect();
    Ok(Table { rules, plugins, hash: configuration.hash.clone() })
}

#[derive(Clone)]
struct Made {
    prefix: String,
    transformer: Arc<dyn Transformer>,
    plugin: Option<Arc<Kms>>,
}

/// A provider that several resources have.
struct Shared(Arc<dyn Transformer>);

impl Transformer for Shared {
    fn from_storage(&self, data: Bytes, place: Place<'_>) -> Result<(Bytes, bool), Error> {
        self.0.from_storage(data, place)
    }

    fn to_storage(&self, data: &Bytes, place: Place<'_>) -> Result<Bytes, Error> {
        self.0.to_storage(data, place)
    }

    fn prepare(&self, data: &Bytes) -> Option<BoxFuture<'static, ()>> {
        self.0.prepare(data)
    }
}

fn make(provider: &Provider, clock: &SharedClock, metrics: Option<&Arc<Metrics>>) -> Result<Made, String> {
    type Cipher = fn(&[u8]) -> Result<Box<dyn Transformer>, Error>;
    let local = |prefix: &str, unknown: &'static str, keys: &Keys, cipher: Cipher| {
        let mut list: Vec<(String, Box<dyn Transformer>)> = Vec::new();
        for key in &keys.keys {
            let name = &key.name;
            let bytes = STANDARD
                .decode(&key.secret)
                .map_err(|error| format!("could not obtain secret for named key {name}: {error}"))?;
            let cipher =
                cipher(&bytes).map_err(|error| format!("error while creating cipher for named key {name}: {error}"))?;
            list.push((format!("{name}:"), cipher));
        }
        let transformer: Arc<dyn Transformer> = Arc::new(Prefixed::new(list, unknown, metrics.cloned()));
        Ok(Made { prefix: prefix.to_string(), transformer, plugin: None })
    };
    const NO_AES_KEY: &str = "no matching key was found for the provided AES transformer";
    if let Some(keys) = &provider.aesgcm {
        return local("k8s:enc:aesgcm:v1:", NO_AES_KEY, keys, |key| Ok(Box::new(Gcm::new(key)?)));
    }
    if let Some(keys) = &provider.aescbc {
        return local("k8s:enc:aescbc:v1:", NO_AES_KEY, keys, |key| Ok(Box::new(Cbc::new(key)?)));
    }
    if let Some(keys) = &provider.secretbox {
        let unknown = "no matching key was found for the provided Secretbox transformer";
        return local("k8s:enc:secretbox:v1:", unknown, keys, |key| Ok(Box::new(Secretbox::new(key)?)));
    }
    if let Some(options) = &provider.kms {
        if options.api_version == "v1" {
            return Err("KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature.".to_string());
        }
        let plugin = Kms::start(options, clock.clone(), metrics.cloned())?;
        let transformer: Arc<dyn Transformer> = Arc::new(Envelope(plugin.clone()));
        return Ok(Made { prefix: plugin.prefix(), transformer, plugin: Some(plugin) });
    }
    Ok(Made { prefix: String::new(), transformer: Arc::new(Identity), plugin: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that upstream's kube-apiserver 1.36 wrote into etcd, under their keys.
    const WRITTEN: &str = include_str!("testdata/upstream.txt");

    fn key(byte: char, length: usize) -> String {
        STANDARD.encode(byte.to_string().repeat(length))
    }

    #[test]
    fn upstreams_values_are_read() {
        let keys = |name: &str, secret: String| Keys { keys: vec![configuration::Key { name: name.into(), secret }] };
        let cbc = |keys| Provider { aescbc: Some(keys), ..Provider::default() };
        let gcm = |keys| Provider { aesgcm: Some(keys), ..Provider::default() };
        let rule = configuration::Rule {
            resources: vec!["secrets".into()],
            providers: vec![
                cbc(keys("k1", key('a', 32))),
                cbc(keys("k2", key('b', 24))),
                gcm(keys("k1", key('a', 32))),
                gcm(keys("k2", key('b', 24))),
                gcm(keys("k4", key('d', 16))),
                Provider { secretbox: Some(keys("k3", key('c', 32))), ..Provider::default() },
            ],
        };
        let clock = component_base::clock::RealClock::shared();
        let table = build(&Configuration { resources: vec![rule], hash: String::new() }, &clock, None).unwrap();
        let transformer = &table.rules[&(String::new(), "secrets".to_string())];
        assert_eq!(WRITTEN.lines().count(), 6);
        for line in WRITTEN.lines() {
            let (key, value) = line.split_once(' ').unwrap();
            let place = Place { key, resource: "secrets" };
            let value = Bytes::from(STANDARD.decode(value).unwrap());
            let (plain, stale) = transformer.from_storage(value.clone(), place).unwrap();
            assert!(plain.starts_with(b"k8s\0"), "{key}");
            let name = key.rsplit('/').next().unwrap();
            assert!(plain.windows(name.len()).any(|window| window == name.as_bytes()), "{key}");
            // Only the first provider's are not to be written again.
            assert_eq!(stale, !key.ends_with("cbc32"), "{key}");
            let moved = transformer.from_storage(value, Place { key: "/registry/secrets/default/x", ..place });
            assert_eq!(moved.is_err(), key.contains("gcm"), "{key}");
        }
    }

    #[test]
    fn rules_that_hide_others_are_refused() {
        let rule = |resource: &str| configuration::Rule {
            resources: vec![resource.into()],
            providers: vec![Provider { identity: Some(configuration::Empty {}), ..Provider::default() }],
        };
        let clock = component_base::clock::RealClock::shared();
        let build = |resources: &[&str]| {
            let resources = resources.iter().map(|resource| rule(resource)).collect();
            build(&Configuration { resources, hash: String::new() }, &clock, None).map(|_| ())
        };
        for (rules, want) in [
            (&["*.", "secrets"][..], "resource \"secrets\" is masked by earlier rule \"*.\""),
            (&["*.apps", "deployments.apps"], "resource \"deployments.apps\" is masked by earlier rule \"*.apps\""),
            (&["*.*", "*."], "resource \"*.\" is masked by earlier rule \"*.*\""),
        ] {
            assert_eq!(build(rules).unwrap_err(), format!("error while building transformers: {want}"));
        }
        assert_eq!(build(&["secrets", "*.", "*.*"]), Ok(()));
    }
}
