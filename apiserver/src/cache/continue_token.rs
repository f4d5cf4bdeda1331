//! The `continue` token of paged lists, in upstream's form.
//!
//! Unpadded base64url of `{"v":"meta.k8s.io/v1","rv":N,"start":KEY}`, `KEY` being relative to the
//! prefix listed. Clients treat it as opaque, but a token given out by upstream before an upgrade
//! must still work, and the other way round.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

/// Where a paged list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContinueToken {
    /// The resource version of the first page; -1 means "whatever is newest" and is given out when
    /// the first page's history is gone.
    pub revision: i64,
    /// First storage key of the next page (absolute).
    pub start: String,
}

#[derive(Serialize, Deserialize, Default)]
struct Wire {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

/// Why a token was refused; the texts are upstream's. All are 400.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not base64 or not JSON.
    #[error("continue key is not valid: {0}")]
    Malformed(String),
    /// A zero resource version.
    #[error("continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")]
    Revision,
    /// No start key.
    #[error("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)")]
    Start,
    /// An unknown version.
    #[error("continue key is not valid: server does not recognize this encoded version {0}")]
    Version(String),
}

impl ContinueToken {
    /// The token as clients see it. `prefix` is the key prefix listed and must begin `start`.
    pub fn encode(&self, prefix: &str) -> String {
        let start = self.start.strip_prefix(prefix).unwrap_or(&self.start);
        let wire = Wire { v: VERSION.to_owned(), rv: self.revision, start: start.to_owned() };
        // Go's field order: v, rv, start.
        let json = serde_json::to_vec(&wire).expect("a struct of strings and a number encodes");
        URL_SAFE_NO_PAD.encode(json)
    }

    /// Reads a token for a list of `prefix`.
    ///
    /// # Errors
    /// [`TokenError`]; a start key that would leave the prefix is refused.
    pub fn decode(token: &str, prefix: &str) -> Result<ContinueToken, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|e| {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(at) => at.saturating_sub(1),
                base64::DecodeError::InvalidPadding => token.len(),
            };
            TokenError::Malformed(format!("illegal base64 data at input byte {at}"))
        })?;
        let malformed = |e: &dyn std::fmt::Display| TokenError::Malformed(e.to_string());
        // Parsed twice for the sake of the first parser's words, which are Go's.
        let tree = apimachinery::json::parse(&bytes).map_err(|e| malformed(&e))?;
        let wire: Wire = serde_json::from_value(tree).map_err(|e| malformed(&e))?;
        if wire.v != VERSION {
            return Err(TokenError::Version(wire.v));
        }
        if wire.rv == 0 {
            return Err(TokenError::Revision);
        }
        if wire.start.is_empty() {
            return Err(TokenError::Start);
        }
        let relative = wire.start.strip_prefix('/').unwrap_or(&wire.start);
        let clean = !relative.split('/').any(|part| matches!(part, "" | "." | ".."));
        if !clean {
            return Err(TokenError::Malformed(wire.start));
        }
        Ok(ContinueToken { revision: wire.rv, start: format!("{prefix}{relative}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_equals_upstreams_form() {
        let token = ContinueToken { revision: 123, start: "/registry/pods/default/a\0".to_owned() };
        let text = token.encode("/registry/pods/default/");
        let json = URL_SAFE_NO_PAD.decode(&text).unwrap();
        assert_eq!(json, br#"{"v":"meta.k8s.io/v1","rv":123,"start":"a\u0000"}"#);
        assert_eq!(ContinueToken::decode(&text, "/registry/pods/default/"), Ok(token));
    }

    #[test]
    fn refuses_as_upstream() {
        #[track_caller]
        fn check(json: &str, expected: &str) {
            let error = ContinueToken::decode(&URL_SAFE_NO_PAD.encode(json), "/registry/pods/");
            assert_eq!(error.unwrap_err().to_string(), expected);
        }
        check(
            r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#,
            "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        );
        check(
            r#"{"v":"meta.k8s.io/v1","rv":1}"#,
            "continue key is not valid: encoded start key empty (version meta.k8s.io/v1)",
        );
        check(
            r#"{"v":"meta.k8s.io/v2","rv":1,"start":"a"}"#,
            "continue key is not valid: server does not recognize this encoded version meta.k8s.io/v2",
        );
        for start in ["../x", "/../x", "a/../../x", "a//b", "a/"] {
            check(
                &format!(r#"{{"v":"meta.k8s.io/v1","rv":1,"start":"{start}"}}"#),
                &format!("continue key is not valid: {start}"),
            );
        }
        assert!(ContinueToken::decode("***", "/").is_err());
    }
}
