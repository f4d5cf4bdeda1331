//! Signs the kubeconfig in ConfigMap `kube-public/cluster-info` with every token that is for signing: who knows a
//! token can tell that what anybody may read was written by who knows it, too. Off unless asked for, as upstream
//! (`--controllers=*,bootstrap-signer-controller`).
//!
//! Reads secrets of kube-system, and reads and updates that ConfigMap. Upstream:
//! `pkg/controller/bootstrap/bootstrapsigner.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::informer::{Event, InformerParams};
use client::meta::null_default;
use client::resources::{CONFIG_MAPS, SECRETS};
use client::workqueue::WorkQueue;
use client::{ObjectKey, ObjectMeta};
use futures::future::BoxFuture;
use jiff::Timestamp;
use ring::hmac;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{NAME_PREFIX, params};
use crate::context::Context;
use crate::types::Secret;
use crate::worker::{self, Requeue};

pub const NAME: &str = "bootstrap-signer-controller";

const ACCOUNT: &str = "bootstrap-signer";
const PUBLIC: &str = "kube-public";
const CONFIG_MAP: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ConfigMap {
    metadata: ObjectMeta,
    #[serde(deserialize_with = "null_default")]
    data: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    binary_data: BTreeMap<String, String>,
    immutable: Option<bool>,
}

client::impl_meta!(ConfigMap);

/// Pure: id and secret of a token that may sign now.
fn signs(secret: &Secret, now: Timestamp) -> Option<(String, String)> {
    let (id, key) = (secret.value("token-id"), secret.value("token-secret"));
    let named = secret.metadata.name.strip_prefix(NAME_PREFIX)?;
    let is_id = named.len() == 6 && named.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let over = secret.left(now).is_some_and(|left| left.is_zero());
    let may = is_id && named == id && !key.is_empty() && !over && secret.value("usage-bootstrap-signing") == "true";
    may.then_some((id, key))
}

/// Pure: a JSON web signature without the content it is about (RFC 7515, appendix F).
fn signature(content: &str, id: &str, key: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":{}}}", json!(id)));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Pure: the data with the signatures of these tokens and no other; `None` when that is what it has, or when
/// there is nothing to sign.
fn sign(data: &BTreeMap<String, String>, tokens: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let content = data.get(KUBECONFIG)?;
    let mut signed = data.clone();
    signed.retain(|key, _| !key.starts_with(SIGNATURE));
    for (id, key) in tokens {
        signed.insert(format!("{SIGNATURE}{id}"), signature(content, id, key));
    }
    (signed != *data).then_some(signed)
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    let client = context.client(ACCOUNT);
    let secrets = context.informers.informer::<Secret>(&SECRETS, params());
    let fields = InformerParams::fields(&format!("metadata.name={CONFIG_MAP}"));
    let maps = context
        .informers
        .informer::<ConfigMap>(&CONFIG_MAPS, InformerParams { namespace: PUBLIC.to_string(), ..fields });
    // There is one thing to do, whatever changed.
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    let key = || ObjectKey::new(PUBLIC, CONFIG_MAP);
    {
        let queue = queue.clone();
        secrets.on_event(move |_| queue.add(key()));
    }
    {
        let queue = queue.clone();
        maps.on_event(move |event| {
            if !matches!(event, Event::Deleted(_)) {
                queue.add(key());
            }
        });
    }
    let clock = context.clock.clone();
    let followed = [secrets.synced(), maps.synced()];
    let (secrets, maps) = (secrets.store(), maps.store());
    worker::start(NAME, queue, 1, &context.shutdown, followed, move |key| {
        let (client, secrets, maps, now) = (client.clone(), secrets.clone(), maps.clone(), clock.now());
        async move {
            let Some(map) = maps.get(&key) else { return Ok(Requeue::Never) };
            let tokens = secrets.list().iter().filter_map(|secret| signs(secret, now)).collect();
            let Some(data) = sign(&map.data, &tokens) else { return Ok(Requeue::Never) };
            let mut object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": map.metadata, "data": data,
            });
            if !map.binary_data.is_empty() {
                object["binaryData"] = json!(map.binary_data);
            }
            if let Some(immutable) = map.immutable {
                object["immutable"] = immutable.into();
            }
            match client.update::<IgnoredAny>(&CONFIG_MAPS, Some(PUBLIC), CONFIG_MAP, &object).await {
                Err(error) if !error.is_conflict() && !error.is_not_found() => Err(error.into()),
                // Whoever was faster made an event.
                _ => Ok(Requeue::Never),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    fn secret(name: &str, values: &[(&str, &str)]) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.name = name.into();
        secret.data = values.iter().map(|(key, value)| ((*key).to_string(), STANDARD.encode(value))).collect();
        secret
    }

    #[test]
    fn tokens_sign_if_they_are_for_that() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let good = [("token-id", "abcdef"), ("token-secret", "s"), ("usage-bootstrap-signing", "true")];
        let check =
            |name: &str, more: &[(&str, &str)]| signs(&secret(name, &[&good[..], more].concat()), now).is_some();
        let name = "bootstrap-token-abcdef";
        assert!(check(name, &[]));
        assert!(check(name, &[("expiration", "2026-01-01T00:00:01Z")]));
        assert!(!check(name, &[("expiration", "2025-12-31T23:59:59Z")]));
        assert!(!check(name, &[("usage-bootstrap-signing", "yes")]));
        assert!(!check(name, &[("token-secret", "")]));
        assert!(!check("bootstrap-token-ghijkl", &[]), "the name is another's");
        assert!(!check("token-abcdef", &[]));
    }

    /// Values that another implementation of the standard made.
    #[test]
    fn signatures_leave_the_content_out() {
        let key = "a secret of sixteen";
        let whole = signature("content", "abcdef", key);
        let (header, rest) = whole.split_once("..").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), br#"{"alg":"HS256","kid":"abcdef"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode("content"));
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(rest).unwrap()).unwrap();
        assert_eq!(
            signature(
                "Hello from the other side. I must have called a thousand times.",
                "joshua",
                "my voice is my passcode"
            ),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }

    #[test]
    fn signatures_come_and_go_with_tokens() {
        let tokens = |ids: &[&str]| ids.iter().map(|id| ((*id).to_string(), "key".to_string())).collect();
        let data = |keys: &[&str]| keys.iter().map(|key| ((*key).to_string(), "text".to_string())).collect();
        assert_eq!(sign(&data(&["other"]), &tokens(&["abcdef"])), None, "there is nothing to sign");
        let signed = sign(&data(&[KUBECONFIG, "other"]), &tokens(&["abcdef"])).unwrap();
        assert_eq!(signed.keys().collect::<Vec<_>>(), ["jws-kubeconfig-abcdef", KUBECONFIG, "other"]);
        assert_eq!(sign(&signed, &tokens(&["abcdef"])), None, "it is as it should be");
        let fewer = sign(&signed, &tokens(&[])).unwrap();
        assert_eq!(fewer.keys().collect::<Vec<_>>(), [KUBECONFIG, "other"]);
        let mut forged = signed.clone();
        forged.insert(KUBECONFIG.to_string(), "another".to_string());
        assert_ne!(
            sign(&forged, &tokens(&["abcdef"])).unwrap()["jws-kubeconfig-abcdef"],
            signed["jws-kubeconfig-abcdef"]
        );
    }
}
