//! Namespaces.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, text};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[NAME, Column::string("Status").about("The status of the namespace"), AGE];
pub(super) fn row(namespace: &Value, now: Timestamp) -> Vec<Value> {
    vec![json!(cells::name(namespace)), json!(text(namespace, &["status", "phase"])), cells::age(namespace, now)]
}
