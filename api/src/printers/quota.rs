//! ResourceQuotas. (LimitRanges have no printer of their own.)

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, quantity};
use super::{AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Request").about("Request represents a minimum amount of cpu/memory that a container may consume."),
    Column::string("Limit").about("Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
    AGE,
];
pub(super) fn row(quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    if let Some(Value::Object(hard)) = at(quota, &["status", "hard"]) {
        for resource in hard.keys() {
            let used = quantity(quota, &["status", "used", resource]);
            let hard = quantity(quota, &["status", "hard", resource]);
            let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
            column.push(format!("{resource}: {used}/{hard}"));
        }
    }
    vec![json!(cells::name(quota)), json!(requests.join(", ")), json!(limits.join(", ")), cells::age(quota, now)]
}
