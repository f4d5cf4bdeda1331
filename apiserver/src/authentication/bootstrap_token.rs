//! Bootstrap tokens: what a machine that is to become a node shows first. Each is a Secret in
//! `kube-system`. Upstream: `plugin/pkg/auth/authenticator/token/bootstrap`.

use apimachinery::object::ObjectExt as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::request::UserInfo;

const GROUP: &str = "system:bootstrappers";
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// The id and the secret half of a token, when it looks like one: `abcdef.0123456789abcdef`.
pub fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// The name of the Secret of a token.
pub fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// The user of a token, going by its Secret; `None` says that it is not good.
pub fn user(secret: &Value, id: &str, half: &str, now: Timestamp) -> Option<UserInfo> {
    let refuse = |why: &str| -> Option<UserInfo> {
        tracing::info!(secret = secret.name(), why, "bootstrap token refused");
        None
    };
    let data = |key: &str| {
        let encoded = secret.str_at(&["data", key])?;
        STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok())
    };
    if secret.deletion_timestamp().is_some() || secret.str_at(&["type"]) != Some(TYPE) {
        return refuse("it is no bootstrap token any more");
    }
    // Digests: how long the comparison takes then says nothing about the secret.
    let same = data("token-secret").is_some_and(|have| Sha256::digest(have) == Sha256::digest(half));
    if !same || data("token-id").as_deref() != Some(id) {
        return refuse("its secret is another");
    }
    if let Some(expiration) = data("expiration") {
        match expiration.parse::<Timestamp>() {
            Ok(expiration) if now < expiration => {}
            _ => return refuse("it has expired"),
        }
    }
    if data("usage-bootstrap-authentication").as_deref() != Some("true") {
        return refuse("it is not for authentication");
    }
    let mut groups = vec![GROUP.to_string()];
    if let Some(extra) = data("auth-extra-groups") {
        for group in extra.split(',').map(str::trim).filter(|group| !group.is_empty()) {
            let rest = group.strip_prefix("system:bootstrappers:").unwrap_or_default();
            let valid =
                rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":-".contains(&byte))
                    && rest.bytes().next_back().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            if !valid || rest.len() > 256 {
                return refuse("its extra groups are not allowed");
            }
            groups.push(group.to_string());
        }
    }
    Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(fields: &[(&str, &str)]) -> Value {
        let data: serde_json::Map<String, Value> =
            fields.iter().map(|(key, value)| ((*key).to_string(), STANDARD.encode(value).into())).collect();
        json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": TYPE, "data": data})
    }

    #[test]
    fn a_token_is_as_good_as_its_secret() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let (id, half) = split("abcdef.0123456789abcdef").unwrap();
        let base = [("token-id", id), ("token-secret", half), ("usage-bootstrap-authentication", "true")];
        let with = |more: &[(&str, &str)]| user(&secret(&[&base, more].concat()), id, half, now);
        let groups = with(&[("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token")]).unwrap().groups;
        assert_eq!(groups, [GROUP, "system:bootstrappers:kubeadm:default-node-token"]);
        assert_eq!(with(&[]).unwrap().name, "system:bootstrap:abcdef");
        assert!(with(&[("expiration", "2026-01-02T00:00:00Z")]).is_some());
        assert!(with(&[("expiration", "2025-01-02T00:00:00Z")]).is_none());
        assert!(with(&[("auth-extra-groups", "system:masters")]).is_none());
        assert!(user(&secret(&base), id, "fedcba9876543210", now).is_none());
        assert!(user(&secret(&base[..2]), id, half, now).is_none(), "not for authentication");
        let mut gone = secret(&base);
        gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert!(user(&gone, id, half, now).is_none());
        for bad in ["", "abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123", "abcdef.0123456789abcdef0"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
