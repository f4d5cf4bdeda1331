//! The file of `--encryption-provider-config`: read strictly, and checked as upstream checks it
//! (`apiserver/validation/validation_encryption.go`).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use apimachinery::field::{self, ErrorList, Path as FieldPath};
use apimachinery::yaml;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// What the file says.
#[derive(Debug, Default)]
pub struct Configuration {
    pub resources: Vec<Rule>,
    /// `sha256:…` of the file.
    pub hash: String,
}

/// Resources and how they are stored: the first provider writes, all read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default)]
    pub resources: Vec<String>,
    #[serde(default)]
    pub providers: Vec<Provider>,
}

/// Exactly one of them is set in a file that is right.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    pub aesgcm: Option<Keys>,
    pub aescbc: Option<Keys>,
    pub secretbox: Option<Keys>,
    pub identity: Option<Empty>,
    pub kms: Option<Kms>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    pub keys: Vec<Key>,
}

/// A named key, its bytes in base64.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Key {
    pub name: String,
    pub secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A plugin that keeps the key of keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kms {
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    pub name: String,
    pub cachesize: Option<i32>,
    pub endpoint: String,
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

impl Default for Kms {
    fn default() -> Self {
        Self {
            api_version: "v1".to_string(),
            name: String::new(),
            cachesize: None,
            endpoint: String::new(),
            timeout: Duration::from_secs(3),
        }
    }
}

fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    match component_base::duration::parse(&text) {
        Ok(duration) => Ok(duration),
        // Judged with everything else.
        Err(component_base::duration::Error::Negative(_)) => Ok(Duration::ZERO),
        Err(error) => Err(serde::de::Error::custom(error)),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    resources: Vec<Rule>,
}

/// The file's bytes and their digest.
///
/// # Errors
/// When there is no such file or nothing in it.
pub fn read(path: &Path) -> Result<(Vec<u8>, String), String> {
    let shown = path.display();
    let data = std::fs::read(path)
        .map_err(|error| format!("error reading encryption provider configuration file \"{shown}\": {error}"))?;
    if data.is_empty() {
        return Err(format!("encryption provider configuration file \"{shown}\" is empty"));
    }
    let hash: String = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((data, format!("sha256:{hash}")))
}

/// Reads and checks the file. `reload` demands more of the names of plugins.
///
/// # Errors
/// Says what is wrong with it, never with a key.
pub fn load(path: &Path, reload: bool) -> Result<Configuration, String> {
    let (data, hash) =
        read(path).map_err(|error| format!("error while parsing file: error while loading file: {error}"))?;
    let bad = |error: String| {
        format!(
            "error while parsing file: error decoding encryption provider configuration file \"{}\": {error}",
            path.display()
        )
    };
    let value = yaml::parse(&String::from_utf8_lossy(&data)).map_err(|error| bad(error.to_string()))?;
    let (version, kind) = (value["apiVersion"].as_str().unwrap_or(""), value["kind"].as_str().unwrap_or(""));
    if kind != "EncryptionConfiguration" || version != "apiserver.config.k8s.io/v1" {
        return Err(bad(format!("no kind {kind:?} is registered for version {version:?}")));
    }
    let file: File = serde_json::from_value(value).map_err(|error| bad(error.to_string()))?;
    let mut configuration = Configuration { resources: file.resources, hash };
    for rule in &mut configuration.resources {
        for kms in rule.providers.iter_mut().filter_map(|provider| provider.kms.as_mut()) {
            if kms.api_version.is_empty() {
                kms.api_version = "v1".to_string();
            }
            if kms.api_version == "v1" && kms.cachesize.is_none() {
                kms.cachesize = Some(1000);
            }
        }
    }
    let errors = validate(&configuration, reload);
    if errors.is_empty() {
        Ok(configuration)
    } else {
        Err(format!("error while parsing file: {}", errors.to_aggregate()))
    }
}

/// A resource as the file writes it: plural and group. `*.` is everything of the core group.
pub fn group_resource(text: &str) -> (&str, &str) {
    let (resource, group) = text.split_once('.').unwrap_or((text, ""));
    (group, resource)
}

fn validate(configuration: &Configuration, reload: bool) -> ErrorList {
    let root = FieldPath::new("resources");
    let mut errors = ErrorList::new();
    let one = |path: &FieldPath| format!("at least one {path} is required");
    if configuration.resources.is_empty() {
        errors.push(field::required(&root, one(&root)));
        return errors;
    }
    let mut names = BTreeSet::new();
    for (index, rule) in configuration.resources.iter().enumerate() {
        let resources = root.index(index).child("resources");
        let providers = root.index(index).child("providers");
        if rule.resources.is_empty() {
            errors.push(field::required(&resources, one(&resources)));
        }
        overlap(&rule.resources, &resources, &mut errors);
        for (at, resource) in rule.resources.iter().enumerate() {
            if let Some(why) = bad_resource(resource) {
                errors.push(field::invalid(&resources.index(at), resource.as_str(), why));
            }
        }
        if rule.providers.is_empty() {
            errors.push(field::required(&providers, one(&providers)));
        }
        for (at, provider) in rule.providers.iter().enumerate() {
            let path = providers.index(at);
            check_provider(provider, &path, (&names, reload), &mut errors);
            if let Some(kms) = &provider.kms {
                names.insert(kms.name.clone());
            }
        }
    }
    errors
}

fn overlap(resources: &[String], path: &FieldPath, errors: &mut ErrorList) {
    let (mut duplicate, mut overlapping) = (false, false);
    let parsed: Vec<_> = resources.iter().map(|resource| group_resource(resource)).collect();
    for (i, one) in parsed.iter().enumerate() {
        for (_, other) in parsed.iter().enumerate().filter(|(j, _)| i != *j) {
            if one == other {
                duplicate = true;
            } else if *one == ("*", "*") || (one.0 == other.0 && (one.1 == "*" || other.1 == "*")) {
                overlapping = true;
            }
        }
    }
    let listed = || serde_json::Value::from(resources.to_vec());
    if duplicate {
        errors.push(field::invalid(path, listed(), "the same resource cannot be specified multiple times"));
    }
    if overlapping {
        errors.push(field::invalid(path, listed(), "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"));
    }
}

fn bad_resource(resource: &str) -> Option<&'static str> {
    if resource.to_lowercase() != resource {
        return Some("resource name should not contain capital letters");
    }
    if resource == "*" {
        return Some("use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources");
    }
    if ["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"].contains(&resource) {
        return Some("resources which do not have REST API/s cannot be encrypted");
    }
    match group_resource(resource) {
        ("events.k8s.io", _) => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        ),
        ("extensions", _) => Some("'extensions' group has been removed and cannot be used for encryption"),
        ("*", plural) if plural != "*" => Some("encrypting the same resource across groups is not supported"),
        _ => None,
    }
}

fn check_provider(
    provider: &Provider,
    path: &FieldPath,
    (names, reload): (&BTreeSet<String>, bool),
    errors: &mut ErrorList,
) {
    let set: Vec<&str> = [
        ("KMS", provider.kms.is_some()),
        ("AESGCM", provider.aesgcm.is_some()),
        ("AESCBC", provider.aescbc.is_some()),
        ("Secretbox", provider.secretbox.is_some()),
        ("Identity", provider.identity.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
    .collect();
    match set.len() {
        0 => errors.push(field::invalid(
            path,
            "",
            "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
        )),
        1 => {}
        _ => errors.push(field::invalid(
            path,
            set.join(", "),
            "more than one provider specified in a single element, should split into different list elements",
        )),
    }
    if let Some(kms) = &provider.kms {
        check_kms(kms, &path.child("kms"), (names, reload), errors);
    } else if let Some(keys) = &provider.aesgcm {
        check_keys(keys, &path.child("aesgcm").child("keys"), &[16, 24, 32], errors);
    } else if let Some(keys) = &provider.aescbc {
        check_keys(keys, &path.child("aescbc").child("keys"), &[16, 24, 32], errors);
    } else if let Some(keys) = &provider.secretbox {
        check_keys(keys, &path.child("secretbox").child("keys"), &[32], errors);
    }
}

fn check_keys(keys: &Keys, path: &FieldPath, lengths: &[usize], errors: &mut ErrorList) {
    if keys.keys.is_empty() {
        errors.push(field::required(path, "at least one keys is required"));
    }
    for (index, key) in keys.keys.iter().enumerate() {
        let path = path.index(index);
        if key.name.is_empty() {
            errors.push(field::required(&path.child("name"), "name is a mandatory field for a key"));
        }
        let path = path.child("secret");
        if key.secret.is_empty() {
            errors.push(field::required(&path, "secret is a mandatory field for a key"));
            continue;
        }
        match STANDARD.decode(&key.secret) {
            Err(_) => errors.push(field::invalid(&path, "REDACTED", "secrets must be base64 encoded")),
            Ok(bytes) if !lengths.contains(&bytes.len()) => {
                let expected: Vec<String> = lengths.iter().map(ToString::to_string).collect();
                let detail = format!(
                    "secret is not of the expected length, got {}, expected one of [{}]",
                    bytes.len(),
                    expected.join(" ")
                );
                errors.push(field::invalid(&path, "REDACTED", detail));
            }
            Ok(_) => {}
        }
    }
}

fn check_kms(kms: &Kms, path: &FieldPath, (names, reload): (&BTreeSet<String>, bool), errors: &mut ErrorList) {
    let name = path.child("name");
    if kms.name.is_empty() {
        errors.push(field::required(&name, "name is a mandatory field for a provider"));
    }
    if kms.api_version != "v1" && kms.name.contains(':') {
        let detail = format!("invalid KMS provider name {}, must not contain ':'", kms.name);
        errors.push(field::invalid(&name, kms.name.as_str(), detail));
    }
    if (reload || kms.api_version != "v1") && names.contains(&kms.name) {
        let detail = format!("duplicate KMS provider name {}, names must be unique", kms.name);
        errors.push(field::invalid(&name, kms.name.as_str(), detail));
    }
    if kms.timeout.is_zero() {
        errors.push(field::invalid(&path.child("timeout"), "0s", "timeout should be a positive value"));
    }
    let endpoint = path.child("endpoint");
    if kms.endpoint.is_empty() {
        errors.push(field::invalid(&endpoint, "", "endpoint is a mandatory field for a kms"));
    } else {
        let scheme = kms.endpoint.split_once(':').map_or("", |(scheme, _)| scheme);
        if scheme != "unix" {
            let detail = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
            errors.push(field::invalid(&endpoint, kms.endpoint.as_str(), detail));
        }
    }
    if let Some(size) = kms.cachesize {
        if kms.api_version != "v1" {
            errors.push(field::invalid(&path.child("cachesize"), i64::from(size), "cachesize is not supported in v2"));
        } else if size == 0 {
            let detail = "cachesize should be a positive value, or negative to disable";
            errors.push(field::invalid(&path.child("cachesize"), 0_i64, detail));
        }
    }
    if kms.api_version != "v1" && kms.api_version != "v2" {
        errors.push(field::invalid(
            &path.child("apiVersion"),
            kms.api_version.as_str(),
            "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &str, want: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        std::fs::write(
            &path,
            format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{rules}"),
        )
        .unwrap();
        let got = load(&path, true).map(|_| ()).unwrap_err();
        assert!(got.contains(want), "{got}");
        assert!(!got.contains("c2VjcmV0IGtleQ=="), "a key was shown: {got}");
    }

    #[test]
    fn mistakes_are_named() {
        for (rules, want) in [
            (
                "- {resources: [secrets], providers: []}",
                "resources[0].providers: Required value: at least one resources[0].providers is required",
            ),
            (
                "- {resources: [], providers: [{identity: {}}]}",
                "resources[0].resources: Required value: at least one resources[0].resources is required",
            ),
            (
                "- {resources: [Secrets], providers: [{identity: {}}]}",
                "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters",
            ),
            ("- {resources: ['*'], providers: [{identity: {}}]}", "use '*.' to encrypt all the resources"),
            ("- {resources: [secrets, '*.'], providers: [{identity: {}}]}", "using overlapping resources"),
            (
                "- {resources: [secrets, secrets], providers: [{identity: {}}]}",
                "the same resource cannot be specified multiple times",
            ),
            (
                "- {resources: ['secrets.*'], providers: [{identity: {}}]}",
                "encrypting the same resource across groups is not supported",
            ),
            ("- {resources: [a.events.k8s.io], providers: [{identity: {}}]}", "'*.events.k8s.io' objects are stored"),
            ("- {resources: [secrets], providers: [{}]}", "provider does not contain any of the expected providers"),
            (
                "- {resources: [secrets], providers: [{identity: {}, aesgcm: {keys: []}}]}",
                "more than one provider specified in a single element",
            ),
            (
                "- {resources: [secrets], providers: [{aescbc: {keys: [{name: a, secret: c2VjcmV0IGtleQ==}]}}]}",
                "resources[0].providers[0].aescbc.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 10, expected one of [16 24 32]",
            ),
            (
                "- {resources: [secrets], providers: [{secretbox: {keys: [{name: a, secret: '%'}]}}]}",
                "secrets must be base64 encoded",
            ),
            (
                "- {resources: [secrets], providers: [{kms: {apiVersion: v2, name: 'a:b', endpoint: 'unix:///x'}}]}",
                "invalid KMS provider name a:b, must not contain ':'",
            ),
            (
                "- {resources: [secrets], providers: [{kms: {apiVersion: v2, name: a, endpoint: 'http://x'}}]}",
                "unsupported scheme \"http\" for KMS provider, only unix is supported",
            ),
            (
                "- {resources: [secrets], providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///x', cachesize: 5}}]}",
                "cachesize is not supported in v2",
            ),
            (
                "- {resources: [secrets], providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///x'}}, {kms: {apiVersion: v2, name: a, endpoint: 'unix:///x'}}]}",
                "duplicate KMS provider name a, names must be unique",
            ),
            (
                "- {resources: [secrets], providers: [{kms: {apiVersion: v3, name: a, endpoint: 'unix:///x'}}]}",
                "only v1 and v2 are supported",
            ),
            ("- {resources: [secrets], provider: []}", "unknown field `provider`"),
        ] {
            check(rules, want);
        }
    }

    #[test]
    fn empty_and_foreign_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        assert!(load(&path, false).unwrap_err().contains("error reading encryption provider configuration file"));
        std::fs::write(&path, "").unwrap();
        assert!(load(&path, false).unwrap_err().ends_with("is empty"));
        std::fs::write(&path, "apiVersion: v1\nkind: EncryptionConfig\n").unwrap();
        assert!(load(&path, false).unwrap_err().contains("no kind \"EncryptionConfig\" is registered"));
    }
}
