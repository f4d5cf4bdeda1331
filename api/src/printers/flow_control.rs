//! flowcontrol.apiserver.k8s.io: FlowSchema and PriorityLevelConfiguration.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, int, opt_text, text};
use super::{AGE, Column, NAME};

pub(super) const SCHEMA_COLUMNS: &[Column] = &[
    NAME,
    Column::string("PriorityLevel").of("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationReference", "name"),
    Column::string("MatchingPrecedence").of("io.k8s.api.flowcontrol.v1.FlowSchemaSpec", "matchingPrecedence"),
    Column::string("DistinguisherMethod").of("io.k8s.api.flowcontrol.v1.FlowSchemaSpec", "distinguisherMethod"),
    AGE,
    Column::string("MissingPL").about("references a broken or non-existent PriorityLevelConfiguration"),
];
pub(super) const LEVEL_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Type").of("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec", "type"),
    Column::string("NominalConcurrencyShares")
        .of("io.k8s.api.flowcontrol.v1.LimitedPriorityLevelConfiguration", "nominalConcurrencyShares"),
    Column::string("Queues").of("io.k8s.api.flowcontrol.v1.QueuingConfiguration", "queues"),
    Column::string("HandSize").of("io.k8s.api.flowcontrol.v1.QueuingConfiguration", "handSize"),
    Column::string("QueueLengthLimit").of("io.k8s.api.flowcontrol.v1.QueuingConfiguration", "queueLengthLimit"),
    AGE,
];
pub(super) fn schema_row(schema: &Value, now: Timestamp) -> Vec<Value> {
    let dangling =
        cells::condition(schema, &["status", "conditions"], "Dangling").map_or("?", |c| text(c, &["status"]));
    vec![
        json!(cells::name(schema)),
        json!(text(schema, &["spec", "priorityLevelConfiguration", "name"])),
        json!(int(schema, &["spec", "matchingPrecedence"])),
        json!(opt_text(schema, &["spec", "distinguisherMethod", "type"]).unwrap_or("<none>")),
        cells::age(schema, now),
        json!(dangling),
    ]
}

pub(super) fn level_row(level: &Value, now: Timestamp) -> Vec<Value> {
    // A column shows a number where the level has one and "<none>" where it cannot have any.
    let number = |holder: Option<&Value>, field| match holder {
        Some(holder) => json!(int(holder, &[field])),
        None => json!("<none>"),
    };
    let limited = at(level, &["spec", "limited"]);
    let queuing = limited.and_then(|limited| at(limited, &["limitResponse", "queuing"]));
    vec![
        json!(cells::name(level)),
        json!(text(level, &["spec", "type"])),
        number(limited, "nominalConcurrencyShares"),
        number(queuing, "queues"),
        number(queuing, "handSize"),
        number(queuing, "queueLengthLimit"),
        cells::age(level, now),
    ]
}
