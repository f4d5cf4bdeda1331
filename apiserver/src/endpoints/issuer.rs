//! What others need to check ServiceAccount tokens: OpenID discovery and the keys.

use http::StatusCode;
use serde_json::{Value, json};

use crate::response::{self, Response};
use crate::server::walk::Context;

/// `/.well-known/openid-configuration`; `None` without an issuer that is a URL.
pub fn configuration(cx: &Context) -> Option<Response> {
    let tokens = cx.server.tokens.as_ref()?;
    let issuer = tokens.issuers.first().filter(|issuer| issuer.starts_with("https://"))?;
    let keys_at = cx.server.config.service_account_jwks_uri.clone().unwrap_or_else(|| {
        format!("https://{}:{}/openid/v1/jwks", cx.server.advertise_address(), cx.server.advertise_port())
    });
    let mut algorithms: Vec<&str> = tokens.keys.iter().map(component_base::jwt::PublicKey::algorithm).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let document = json!({
        "issuer": issuer,
        "jwks_uri": keys_at,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    });
    let body = serde_json::to_vec(&document).expect("a JSON tree encodes");
    let mut answer = response::bytes(StatusCode::OK, "application/json", body);
    answer.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("public, max-age=3600"));
    Some(answer)
}

/// The form of a set of keys.
pub const KEYS: &str = "application/jwk-set+json";

/// `/openid/v1/jwks`.
pub fn keys(cx: &Context) -> Option<Response> {
    let tokens = cx.server.tokens.as_ref()?;
    let mut keys: Vec<Value> = Vec::new();
    for key in &tokens.keys {
        let key = key.to_jwk();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let body = serde_json::to_vec(&json!({"keys": keys})).expect("a JSON tree encodes");
    let mut answer = response::bytes(StatusCode::OK, KEYS, body);
    answer.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("public, max-age=3600"));
    Some(answer)
}
