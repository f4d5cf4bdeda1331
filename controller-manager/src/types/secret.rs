//! Secrets.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::ObjectMeta;
use client::meta::null_default;
use serde::Deserialize;

/// A Secret. What asks for it says of which type.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Secret {
    pub metadata: ObjectMeta,
    /// Values as they travel: base64.
    #[serde(deserialize_with = "null_default")]
    pub data: BTreeMap<String, String>,
}

client::impl_meta!(Secret);

impl Secret {
    /// A value; empty when it is not there or is no text.
    pub fn value(&self, key: &str) -> String {
        let decoded = self.data.get(key).and_then(|encoded| STANDARD.decode(encoded).ok());
        decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    }
}
