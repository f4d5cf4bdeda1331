//! Kinds without a printer: name and creation time in RFC 3339.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Column, META, NAME, cells};

pub(super) const COLUMNS: &[Column] = &[NAME, Column::date("Created At").of(META, "creationTimestamp")];

pub(super) fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    // Go's zero time, which upstream prints for an object that was never stored.
    let created = cells::opt_text(object, &["metadata", "creationTimestamp"]).unwrap_or("0001-01-01T00:00:00Z");
    vec![json!(cells::name(object)), json!(created)]
}
