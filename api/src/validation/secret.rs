//! Secret: keys, size, and what each type must hold.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::{gotext, json, names};
use base64::Engine;
use serde_json::Value;

use super::checks::{immutable_text, messages, name_is_subdomain};
use super::config_map::{self, MAX_SIZE, decoded_len};
use super::object_meta;
use crate::read::Read;

const ACCOUNT: &str = "kubernetes.io/service-account.name";

pub(super) fn create(secret: &Value, errors: &mut ErrorList) {
    object_meta::create(secret, true, name_is_subdomain, errors);
    let path = Path::new("data");
    let mut size = 0;
    for (key, value) in secret.entries("data") {
        messages(names::config_map_key(key), key, &path.key(key.clone()), errors);
        size += decoded_len(value);
    }
    if size > MAX_SIZE {
        errors.push(field::too_long(&path, MAX_SIZE));
    }
    let data = &secret["data"];
    let mut required = |key: &str| errors.push(field::required(&path.key(key), ""));
    match secret.text("type") {
        "kubernetes.io/service-account-token" if secret["metadata"]["annotations"].text(ACCOUNT).is_empty() => {
            let path = Path::new("metadata").child("annotations").key(ACCOUNT);
            errors.push(field::required(&path, ""));
        }
        "kubernetes.io/dockercfg" => docker_config(data, ".dockercfg", &path, errors),
        "kubernetes.io/dockerconfigjson" => docker_config(data, ".dockerconfigjson", &path, errors),
        "kubernetes.io/basic-auth" if data.get("username").is_none() && data.get("password").is_none() => {
            required("username");
            required("password");
        }
        "kubernetes.io/ssh-auth" if data.text("ssh-privatekey").is_empty() => {
            required("ssh-privatekey");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if data.get(key).is_none() {
                    required(key);
                }
            }
        }
        _ => {}
    }
}

fn docker_config(data: &Value, key: &'static str, path: &Path, errors: &mut ErrorList) {
    let path = path.key(key);
    let Some(text) = data.get(key).and_then(Value::as_str) else {
        errors.push(field::required(&path, ""));
        return;
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    let wrong = match json::parse(&bytes) {
        Err(error) => error.message,
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            let kind = gotext::json_kind(&other);
            format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
        }
    };
    errors.push(field::invalid(&path, "<secret contents redacted>", wrong));
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    immutable_text(&new["type"], &old["type"], &Path::new("type"), errors);
    config_map::immutable(new, old, &["data"], errors);
    create(new, errors);
}
