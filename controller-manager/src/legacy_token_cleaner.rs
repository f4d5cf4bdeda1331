//! Marks generated ServiceAccount token Secrets that nobody has used for a year, and deletes them a year later
//! (KEP-2799). Secrets that people made, and those that pods mount, stay.
//!
//! Once a day, as upstream: reads secrets, serviceaccounts, pods and the ConfigMap that says since when use is
//! tracked; labels and deletes secrets. Upstream:
//! `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::meta::null_default;
use client::resources::{CONFIG_MAPS, PODS, SECRETS, SERVICE_ACCOUNTS};
use client::{Client, DeleteOptions, ListParams, ObjectMeta, Patch, Preconditions};
use futures::future::BoxFuture;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::context::Context;
use crate::worker;

pub const NAME: &str = "legacy-serviceaccount-token-cleaner-controller";

const ACCOUNT: &str = "legacy-service-account-token-cleaner";
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const SERVICE_ACCOUNT: &str = "kubernetes.io/service-account.name";
const SERVICE_ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const INTERVAL: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Secret {
    metadata: ObjectMeta,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Account {
    metadata: ObjectMeta,
    #[serde(deserialize_with = "null_default")]
    secrets: Vec<Value>,
}

client::impl_meta!(Secret, Account);

/// What becomes of a Secret.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Keep,
    /// It is not accepted any more from this day on.
    Mark(String),
    Delete,
}

fn day(text: &str) -> Option<Date> {
    // Upstream's format has no other spelling of a day.
    text.parse::<Date>().ok().filter(|date| date.to_string() == text)
}

/// Whether a Secret has not been used for so long that its account and the pods are worth a look.
fn is_idle(secret: &Secret, now: Timestamp, period: Duration) -> bool {
    let metadata = &secret.metadata;
    let period = SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX);
    let before = now - period;
    if metadata.deletion_timestamp.is_some() || metadata.creation_timestamp.is_none_or(|made| made >= before) {
        return false;
    }
    match metadata.labels.get(LAST_USED) {
        None => true,
        Some(used) => day(used).is_some_and(|used| used < before.to_zoned(TimeZone::UTC).date()),
    }
}

/// Pure: what becomes of an idle Secret, given its account and what pods mount in its namespace.
fn decide(
    secret: &Secret,
    account: Option<&Account>,
    mounted: &BTreeSet<String>,
    now: Timestamp,
    period: Duration,
) -> Decision {
    let metadata = &secret.metadata;
    let uid = metadata.annotation(SERVICE_ACCOUNT_UID).unwrap_or_default();
    let refers = |account: &Account| {
        (uid.is_empty() || uid == account.metadata.uid)
            && account.secrets.iter().any(|reference| reference["name"] == metadata.name.as_str())
    };
    // Only what its account refers to was generated.
    if !account.is_some_and(refers) || mounted.contains(&metadata.name) {
        return Decision::Keep;
    }
    let period = SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX);
    match metadata.labels.get(INVALID_SINCE).and_then(|since| day(since)) {
        None => Decision::Mark(now.to_zoned(TimeZone::UTC).date().to_string()),
        Some(since) if since < (now - period).to_zoned(TimeZone::UTC).date() => Decision::Delete,
        Some(_) => Decision::Keep,
    }
}

/// The names of Secrets anywhere in a pod.
fn mounted(pod: &Value, into: &mut BTreeSet<String>) {
    match pod {
        Value::Object(map) => {
            for (key, value) in map {
                let name = match key.as_str() {
                    "secret" => value["secretName"].as_str().or_else(|| value["name"].as_str()),
                    "secretRef" | "secretKeyRef" | "nodePublishSecretRef" => value["name"].as_str(),
                    "imagePullSecrets" => {
                        let list = value.as_array().into_iter().flatten();
                        into.extend(list.filter_map(|one| one["name"].as_str()).map(String::from));
                        None
                    }
                    // Azure files name their Secret directly.
                    "azureFile" => value["secretName"].as_str(),
                    _ => None,
                };
                into.extend(name.map(String::from));
                mounted(value, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| mounted(value, into)),
        _ => {}
    }
}

/// Whether use has been tracked for a whole period: a day later than the ConfigMap says, to be sure.
fn is_tracked(since: &str, now: Timestamp, period: Duration) -> bool {
    let start = day(since).and_then(|day| day.tomorrow().ok()).and_then(|day| day.to_zoned(TimeZone::UTC).ok());
    start.is_some_and(|start| {
        let age = now.duration_since(start.timestamp());
        age >= SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX)
    })
}

async fn pass(reader: &Client, writer: &Client, now: Timestamp, period: Duration) -> worker::Result<()> {
    let tracking: Value = writer.get(&CONFIG_MAPS, Some("kube-system"), TRACKING).await?;
    if !is_tracked(tracking["data"]["since"].as_str().unwrap_or_default(), now, period) {
        return Ok(());
    }
    let tokens = ListParams::default().fields("type=kubernetes.io/service-account-token");
    let secrets = reader.list_all::<Secret>(&SECRETS, None, &tokens).await?.items;
    let mut in_use: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for secret in secrets.into_iter().filter(|secret| is_idle(secret, now, period)) {
        let (namespace, name) = (&secret.metadata.namespace, &secret.metadata.name);
        let account = secret.metadata.annotation(SERVICE_ACCOUNT).unwrap_or_default();
        let account = match reader.get::<Account>(&SERVICE_ACCOUNTS, Some(namespace), account).await {
            Ok(account) => Some(account),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        if !in_use.contains_key(namespace) {
            let mut names = BTreeSet::new();
            let pods = reader.list_all::<Value>(&PODS, Some(namespace), &ListParams::default()).await?;
            pods.items.iter().for_each(|pod| mounted(&pod["spec"], &mut names));
            in_use.insert(namespace.clone(), names);
        }
        let done = match decide(&secret, account.as_ref(), &in_use[namespace], now, period) {
            Decision::Keep => continue,
            Decision::Mark(today) => {
                tracing::info!(
                    namespace,
                    name,
                    since = today,
                    "Mark the auto-generated service account token as invalid"
                );
                let metadata = json!({"uid": secret.metadata.uid, "labels": {INVALID_SINCE: today}});
                let patch = Patch::Merge(json!({"metadata": metadata}));
                writer.patch::<IgnoredAny>(&SECRETS, Some(namespace), name, None, &patch).await.map(|_| ())
            }
            Decision::Delete => {
                tracing::info!(namespace, name, "Delete auto-generated service account token");
                let version = Some(secret.metadata.resource_version.clone());
                let preconditions = Some(Preconditions { uid: None, resource_version: version });
                let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
                writer.delete(&SECRETS, Some(namespace), name, &options).await.map(|_| ())
            }
        };
        if let Err(error) = done
            && !error.is_not_found()
            && !error.is_conflict()
        {
            tracing::error!(namespace, name, error = error.chain(), "a token's secret was not cleaned up");
        }
    }
    Ok(())
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let (reader, writer) = (context.component(), context.client(ACCOUNT));
    let period = context.config.legacy_token_clean_up_period;
    let (clock, shutdown) = (context.clock.clone(), context.shutdown.clone());
    Box::pin(async move {
        loop {
            if let Err(error) = pass(&reader, &writer, clock.now(), period).await {
                tracing::error!(controller = NAME, %error, "tokens were not looked at");
            }
            tokio::select! {
                () = clock.sleep(INTERVAL) => {}
                () = shutdown.cancelled() => return,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn secret(labels: Value) -> Secret {
        let metadata = json!({
            "name": "sa-token-x", "namespace": "a", "uid": "1", "creationTimestamp": "2020-01-01T00:00:00Z",
            "annotations": {SERVICE_ACCOUNT: "sa", SERVICE_ACCOUNT_UID: "sa-uid"}, "labels": labels,
        });
        serde_json::from_value(json!({"metadata": metadata})).expect("a secret")
    }

    fn account(secret: &str) -> Account {
        let account = json!({"metadata": {"name": "sa", "uid": "sa-uid"}, "secrets": [{"name": secret}]});
        serde_json::from_value(account).expect("an account")
    }

    #[test]
    fn idle_tokens_are_marked_then_deleted() {
        let now: Timestamp = "2026-06-15T12:00:00Z".parse().expect("a time");
        for (labels, idle) in [
            (json!({}), true),
            (json!({LAST_USED: "2025-06-14"}), true),
            (json!({LAST_USED: "2025-06-15"}), false),
            (json!({LAST_USED: "2026-06-14"}), false),
            (json!({LAST_USED: "yesterday"}), false),
        ] {
            assert_eq!(is_idle(&secret(labels.clone()), now, YEAR), idle, "{labels}");
        }
        assert!(!is_idle(&secret(json!({})), "2020-06-01T00:00:00Z".parse().expect("a time"), YEAR), "it is young");
        let none = BTreeSet::new();
        let mark = || Decision::Mark("2026-06-15".to_string());
        for (labels, want) in [
            (json!({}), mark()),
            (json!({INVALID_SINCE: "nonsense"}), mark()),
            (json!({INVALID_SINCE: "2025-06-15"}), Decision::Keep),
            (json!({INVALID_SINCE: "2025-06-14"}), Decision::Delete),
        ] {
            assert_eq!(
                decide(&secret(labels.clone()), Some(&account("sa-token-x")), &none, now, YEAR),
                want,
                "{labels}"
            );
        }
        let old = secret(json!({INVALID_SINCE: "2020-01-01"}));
        let used = BTreeSet::from(["sa-token-x".to_string()]);
        assert_eq!(decide(&old, Some(&account("sa-token-x")), &used, now, YEAR), Decision::Keep, "a pod mounts it");
        assert_eq!(decide(&old, Some(&account("other")), &none, now, YEAR), Decision::Keep, "somebody made it");
        assert_eq!(decide(&old, None, &none, now, YEAR), Decision::Keep, "the tokens controller deletes it");
    }

    #[test]
    fn use_must_have_been_tracked() {
        let now: Timestamp = "2026-06-15T12:00:00Z".parse().expect("a time");
        for (since, want) in [("2025-06-13", true), ("2025-06-15", false), ("", false), ("2025-6-1", false)] {
            assert_eq!(is_tracked(since, now, YEAR), want, "{since}");
        }
    }

    #[test]
    fn pods_name_secrets_in_many_places() {
        let spec = json!({
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"secret": {"secretName": "volume"}},
                {"projected": {"sources": [{"secret": {"name": "projected"}}]}},
                {"csi": {"nodePublishSecretRef": {"name": "csi"}}},
            ],
            "containers": [{
                "envFrom": [{"secretRef": {"name": "from"}}],
                "env": [{"valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
            }],
        });
        let mut names = BTreeSet::new();
        mounted(&spec, &mut names);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(names, ["csi", "from", "key", "projected", "pull", "volume"]);
    }
}
