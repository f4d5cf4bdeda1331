//! Events, of the core group and of events.k8s.io: one kind under two names.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{self, at, int, text};
use super::{Column, META};

pub(super) const COLUMNS: &[Column] = &[
    Column::string("Last Seen").of("io.k8s.api.core.v1.Event", "lastTimestamp"),
    Column::string("Type").of("io.k8s.api.core.v1.Event", "type"),
    Column::string("Reason").of("io.k8s.api.core.v1.Event", "reason"),
    Column::string("Object").of("io.k8s.api.core.v1.Event", "involvedObject"),
    Column::string("Subobject").of("io.k8s.api.core.v1.ObjectReference", "fieldPath").wide(),
    Column::string("Source").of("io.k8s.api.core.v1.Event", "source").wide(),
    Column::string("Message").of("io.k8s.api.core.v1.Event", "message"),
    Column::string("First Seen").of("io.k8s.api.core.v1.Event", "firstTimestamp").wide(),
    Column::string("Count").of("io.k8s.api.core.v1.Event", "count").wide(),
    Column::string("Name").of(META, "name").name_format().wide(),
];
pub(super) fn row(event: &Value, now: Timestamp) -> Vec<Value> {
    let e = Fields(event);
    let first = match e.at(&["firstTimestamp"], &["deprecatedFirstTimestamp"]) {
        Some(_) => e.since("firstTimestamp", "deprecatedFirstTimestamp", now),
        None => cells::since(event, &["eventTime"], now),
    };
    let mut last = match e.at(&["lastTimestamp"], &["deprecatedLastTimestamp"]) {
        Some(_) => e.since("lastTimestamp", "deprecatedLastTimestamp", now),
        None => first.clone(),
    };
    let mut count = e.at(&["count"], &["deprecatedCount"]).and_then(Value::as_i64).unwrap_or(0);
    if let Some(series) = at(event, &["series"]) {
        last = cells::since(series, &["lastObservedTime"], now);
        count = int(series, &["count"]);
    } else if count == 0 {
        // An event of the new API that happened once carries no count.
        count = 1;
    }
    let object = e.at(&["involvedObject"], &["regarding"]).unwrap_or(&Value::Null);
    let kind = text(object, &["kind"]).to_lowercase();
    let target = match text(object, &["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        json!(last),
        json!(text(event, &["type"])),
        json!(text(event, &["reason"])),
        json!(target),
        json!(text(object, &["fieldPath"])),
        json!(source(event)),
        json!(e.text(&["message"], &["note"]).trim()),
        json!(first),
        json!(count),
        json!(cells::name(event)),
    ]
}

/// Component and host that reported the event; the new API's names stand in for empty ones.
pub fn source(event: &Value) -> String {
    let e = Fields(event);
    let component = cells::or(
        e.text(&["source", "component"], &["deprecatedSource", "component"]),
        e.text(&["reportingComponent"], &["reportingController"]),
    );
    let host =
        cells::or(e.text(&["source", "host"], &["deprecatedSource", "host"]), text(event, &["reportingInstance"]));
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

/// Reads an event by the field names of either API.
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn at(&self, core: &[&str], new: &[&str]) -> Option<&'a Value> {
        at(self.0, core).or_else(|| at(self.0, new))
    }
    fn text(&self, core: &[&str], new: &[&str]) -> &'a str {
        self.at(core, new).and_then(Value::as_str).unwrap_or("")
    }
    fn since(&self, core: &str, new: &str, now: Timestamp) -> String {
        let field = if at(self.0, &[core]).is_some() { core } else { new };
        cells::since(self.0, &[field], now)
    }
}
