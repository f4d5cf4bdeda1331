//! PodDisruptionBudgets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, int};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Min Available").about("The minimum number of pods that must be available."),
    Column::string("Max Unavailable").about("The maximum number of pods that may be unavailable."),
    Column::integer("Allowed Disruptions").about("Calculated number of pods that may be disrupted at this time."),
    AGE,
];
pub(super) fn row(budget: &Value, now: Timestamp) -> Vec<Value> {
    let bound = |field| match at(budget, &["spec", field]) {
        Some(Value::String(text)) => text.clone(),
        Some(number) => number.to_string(),
        None => "N/A".to_owned(),
    };
    vec![
        json!(cells::name(budget)),
        json!(bound("minAvailable")),
        json!(bound("maxUnavailable")),
        json!(int(budget, &["status", "disruptionsAllowed"])),
        cells::age(budget, now),
    ]
}
