//! ConfigMaps, Secrets and ServiceAccounts.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, count, text};
use super::{AGE, Column, NAME};

pub(super) const CONFIG_MAP_COLUMNS: &[Column] =
    &[NAME, Column::string("Data").of("io.k8s.api.core.v1.ConfigMap", "data"), AGE];
pub(super) const SECRET_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Type").of("io.k8s.api.core.v1.Secret", "type"),
    Column::string("Data").of("io.k8s.api.core.v1.Secret", "data"),
    AGE,
];
pub(super) const SERVICE_ACCOUNT_COLUMNS: &[Column] = &[NAME, AGE];
pub(super) fn config_map_row(map: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(cells::name(map)), json!(count(map, &["data"]) + count(map, &["binaryData"])), cells::age(map, now)]
}

pub(super) fn secret_row(secret: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        json!(cells::name(secret)),
        json!(text(secret, &["type"])),
        json!(count(secret, &["data"])),
        cells::age(secret, now),
    ]
}

pub(super) fn service_account_row(account: &Value, now: Timestamp) -> Vec<Value> {
    cells::name_and_age(account, now)
}
