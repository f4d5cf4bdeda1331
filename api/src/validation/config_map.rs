//! ConfigMap.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::names;
use serde_json::Value;

use super::checks::{messages, name_is_subdomain, semantically_equal};
use super::object_meta;
use crate::read::Read;

/// 1 MiB, for Secrets too.
pub(super) const MAX_SIZE: usize = 1024 * 1024;

pub(super) fn create(map: &Value, errors: &mut ErrorList) {
    object_meta::create(map, true, name_is_subdomain, errors);
    let mut size = 0;
    for (key, value) in map.entries("data") {
        let path = Path::new("data").key(key.clone());
        messages(names::config_map_key(key), key, &path, errors);
        if map["binaryData"].get(key).is_some() {
            errors.push(field::invalid(&path, key, "duplicate of key present in binaryData"));
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in map.entries("binaryData") {
        messages(names::config_map_key(key), key, &Path::new("binaryData").key(key.clone()), errors);
        size += decoded_len(value);
    }
    if size > MAX_SIZE {
        errors.push(field::too_long(&Path::new(""), MAX_SIZE));
    }
}

/// The length of what base64 text stands for.
pub(super) fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.len() / 4 * 3 - text.bytes().rev().take_while(|b| *b == b'=').count().min(2)
}

/// What an immutable ConfigMap or Secret refuses.
pub(super) fn immutable(new: &Value, old: &Value, fields: &[&'static str], errors: &mut ErrorList) {
    const MESSAGE: &str = "field is immutable when `immutable` is set";
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        errors.push(field::forbidden(&Path::new("immutable"), MESSAGE));
    }
    for name in fields.iter().filter(|n| !semantically_equal(&new[**n], &old[**n])) {
        errors.push(field::forbidden(&Path::new(*name), MESSAGE));
    }
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    object_meta::update(new, old, errors);
    immutable(new, old, &["data", "binaryData"], errors);
    create(new, errors);
}
