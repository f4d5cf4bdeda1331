//! Objects explained at length: the text of `kubectl describe`, kind by kind, pure.
//!
//! Reads the object and what belongs to it (events, pods, ReplicaSets, …), which the command has
//! fetched. A kind without a describer of its own is shown field by field.

mod config;
mod generic;
mod node;
mod pod;
mod pod_spec;
mod service;
#[cfg(test)]
mod tests;
mod workload;
mod writer;

use jiff::Timestamp;
use serde_json::Value;

use crate::codec;
use crate::mapper::Mapping;
use writer::Writer;

/// What belongs to an object.
#[derive(Debug, Default, Clone)]
pub struct Related {
    /// Events about it; None when they were not asked for.
    pub events: Option<Vec<Value>>,
    /// Its pods; None when they may not be seen.
    pub pods: Option<Vec<Value>>,
    /// A Deployment's ReplicaSets.
    pub replica_sets: Vec<Value>,
    /// A Service's EndpointSlices.
    pub slices: Vec<Value>,
    /// A Node's lease, or why it could not be read.
    pub lease: Option<Result<Value, String>>,
    /// A Namespace's quotas.
    pub quotas: Option<Vec<Value>>,
    /// A Namespace's limits.
    pub limits: Option<Vec<Value>>,
}

/// The description of an object at a point in time.
pub fn describe(mapping: &Mapping, object: &Value, related: &Related, now: Timestamp) -> String {
    let mut w = Writer::new(now);
    match (mapping.group.as_str(), mapping.kind.as_str()) {
        ("", "Pod") => pod::describe(&mut w, object),
        ("", "Node") => node::describe(&mut w, object, related),
        ("", "Service") => service::describe(&mut w, object, &related.slices),
        ("", "Namespace") => {
            config::namespace(&mut w, object, related);
            return w.finish();
        }
        ("", "ConfigMap") => config::config_map(&mut w, object),
        ("", "Secret") => {
            config::secret(&mut w, object);
            return w.finish();
        }
        ("", "ServiceAccount") => config::service_account(&mut w, object),
        ("", "ReplicationController") => workload::replication_controller(&mut w, object, related),
        ("apps", "Deployment") => workload::deployment(&mut w, object, related),
        ("apps", "ReplicaSet") => workload::replica_set(&mut w, object, related),
        ("apps", "DaemonSet") => workload::daemon_set(&mut w, object, related),
        ("apps", "StatefulSet") => workload::stateful_set(&mut w, object, related),
        ("batch", "Job") => workload::job(&mut w, object),
        _ => generic::describe(&mut w, object),
    }
    if let Some(events) = &related.events {
        events_table(&mut w, events);
    }
    w.finish()
}

/// The description of a pod template alone, as `rollout history --revision` shows it.
pub fn pod_template(template: &Value) -> String {
    let mut w = Writer::new(Timestamp::UNIX_EPOCH);
    pod_spec::template(&mut w, template);
    w.finish_unaligned()
}

fn events_table(w: &mut Writer, events: &[Value]) {
    if events.is_empty() {
        w.line(0, "Events:\t<none>");
        return;
    }
    w.flush();
    let mut events: Vec<&Value> = events.iter().collect();
    events.sort_by_key(|event| codec::text(event, &["lastTimestamp"]).to_owned());
    w.line(0, "Events:\n  Type\tReason\tAge\tFrom\tMessage");
    w.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let first = match codec::at(event, &["eventTime"]) {
            Some(_) => w.since(event, &["eventTime"]),
            None => w.since(event, &["firstTimestamp"]),
        };
        let count = codec::int(event, &["count"]).unwrap_or(0);
        let age = if codec::at(event, &["series"]).is_some() {
            let count = codec::int(event, &["series", "count"]).unwrap_or(0);
            format!("{} (x{count} over {first})", w.since(event, &["series", "lastObservedTime"]))
        } else if count > 1 {
            format!("{} (x{count} over {first})", w.since(event, &["lastTimestamp"]))
        } else {
            first
        };
        let source = match codec::text(event, &["source", "component"]) {
            "" => codec::text(event, &["reportingComponent"]),
            component => component,
        };
        let mut message = codec::text(event, &["message"]).trim().to_owned();
        let field = codec::text(event, &["involvedObject", "fieldPath"]);
        if !field.is_empty() {
            message = format!("{field}: {message}");
        }
        let (kind, reason) = (codec::text(event, &["type"]), codec::text(event, &["reason"]));
        w.line(1, &format!("{kind}\t{reason}\t{age}\t{source}\t{message}"));
    }
}
