//! Bootstrap tokens: secrets of kube-system by which machines join. One controller deletes them when their time
//! is over, another signs with them what is published for those who join.
//!
//! Upstream: `pkg/controller/bootstrap`.

pub mod cleaner;
pub mod signer;

use std::time::Duration;

use client::informer::InformerParams;
use jiff::Timestamp;

use crate::types::Secret;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAME_PREFIX: &str = "bootstrap-token-";

/// What informers of tokens ask for.
fn params() -> InformerParams {
    InformerParams { namespace: NAMESPACE.to_string(), ..InformerParams::fields(&format!("type={TYPE}")) }
}

impl Secret {
    /// Pure: how long the token may stay; `None` is for ever. What cannot be read is over.
    fn left(&self, now: Timestamp) -> Option<Duration> {
        self.data.get("expiration").filter(|text| !text.is_empty())?;
        let rest = self.value("expiration").parse::<Timestamp>().ok().map(|end| end.duration_since(now));
        Some(rest.and_then(|rest| Duration::try_from(rest).ok()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn tokens_end_when_they_say() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        for (expiration, want) in [
            (None, None),
            (Some(""), None),
            (Some("2026-01-01T00:01:00Z"), Some(60)),
            (Some("2026-01-01T01:01:00+01:00"), Some(60)),
            (Some("2025-12-31T23:59:59Z"), Some(0)),
            (Some("soon"), Some(0)),
        ] {
            let mut secret = Secret::default();
            if let Some(text) = expiration {
                secret.data.insert("expiration".into(), STANDARD.encode(text));
            }
            assert_eq!(secret.left(now), want.map(Duration::from_secs), "{expiration:?}");
        }
    }
}
