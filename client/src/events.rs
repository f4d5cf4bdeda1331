//! Recording Events, correlated as upstream's broadcaster does so that a hot loop cannot flood.
//!
//! - spam filter: per source and object, 25 at once and one each five minutes after;
//! - aggregation: more than ten events in ten minutes that differ only in their message become one,
//!   "(combined from similar events)";
//! - counting: the same event again raises `count` (or the series) of the one that is stored.
//!
//! Recording never blocks and never fails the caller: events are dropped when the API is slow.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use component_base::clock::SharedClock;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::Result;
use crate::meta::ObjectMeta;
use crate::resources::{EVENTS, EVENTS_V1, Resource};
use crate::transport::Client;
use crate::verbs::Patch;

/// What an Event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Such as `spec.containers{nginx}`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field_path: String,
}

impl Reference {
    /// A reference to an object of this resource.
    pub fn of(resource: &Resource, metadata: &ObjectMeta) -> Self {
        Self {
            api_version: resource.api_version(),
            kind: resource.kind.to_string(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: String::new(),
        }
    }

    /// The same object, a part of it.
    pub fn field(mut self, path: &str) -> Self {
        self.field_path = path.to_string();
        self
    }
}

/// Which API events are written to; upstream's scheduler and proxy use the newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Core,
    EventsV1,
}

/// A handle to record with. Clones share the queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Recorded>,
    clock: SharedClock,
}

#[derive(Debug)]
struct Recorded {
    regarding: Reference,
    related: Option<Reference>,
    kind: String,
    reason: String,
    action: String,
    note: String,
    annotations: Vec<(String, String)>,
    at: Timestamp,
}

impl Recorder {
    /// Writes core/v1 Events with this source. Must be called inside a tokio runtime.
    pub fn core(client: Client, component: &str, host: &str, clock: SharedClock) -> Self {
        Self::spawn(client, Style::Core, component, host, clock)
    }

    /// Writes events.k8s.io/v1 Events of this reporting controller and instance.
    pub fn events_v1(client: Client, controller: &str, instance: &str, clock: SharedClock) -> Self {
        Self::spawn(client, Style::EventsV1, controller, instance, clock)
    }

    fn spawn(client: Client, style: Style, component: &str, host: &str, clock: SharedClock) -> Self {
        let (queue, mut inbox) = mpsc::channel::<Recorded>(1000);
        let mut sink = Sink {
            client,
            style,
            component: component.to_string(),
            host: host.to_string(),
            correlator: Correlator::default(),
            clock: clock.clone(),
        };
        tokio::spawn(async move {
            while let Some(event) = inbox.recv().await {
                sink.write(event).await;
            }
        });
        Self { queue, clock }
    }

    /// Records an event of this type (`Normal`, `Warning`) and reason.
    pub fn event(&self, regarding: &Reference, kind: &str, reason: &str, note: &str) {
        self.event_with(regarding, None, kind, reason, reason, note);
    }

    /// Records with an action and a related object, which events.k8s.io has.
    pub fn event_with(
        &self,
        regarding: &Reference,
        related: Option<&Reference>,
        kind: &str,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let event = Recorded {
            regarding: regarding.clone(),
            related: related.cloned(),
            kind: kind.to_string(),
            reason: reason.to_string(),
            action: action.to_string(),
            note: note.to_string(),
            annotations: Vec::new(),
            at: self.clock.now(),
        };
        if self.queue.try_send(event).is_err() {
            tracing::debug!(reason, "the event queue is full; dropping an event");
        }
    }
}

struct Sink {
    client: Client,
    style: Style,
    component: String,
    host: String,
    correlator: Correlator,
    clock: SharedClock,
}

impl Sink {
    async fn write(&mut self, event: Recorded) {
        tracing::debug!(
            object = format!("{}/{}", event.regarding.namespace, event.regarding.name),
            kind = event.regarding.kind,
            reason = event.reason,
            note = event.note,
            "Event occurred"
        );
        let now = self.clock.monotonic();
        let Some(decision) = self.correlator.decide(&event, now) else {
            return;
        };
        let mut wait = Duration::from_secs(1);
        // Upstream tries twelve times, ten seconds apart; a shorter ladder keeps the queue moving.
        for _ in 0..5 {
            let result = match &decision {
                Decision::Create { key, note } => self.create(&event, key, note).await,
                Decision::Count { key, name, count, note } => self.count(&event, key, name, *count, note).await,
            };
            match result {
                Ok(()) => return,
                // An answer that refuses the event will refuse it again.
                Err(error) if error.status().is_some() => {
                    tracing::debug!(reason = event.reason, error = error.chain(), "server rejected event");
                    return;
                }
                Err(error) => tracing::debug!(error = error.chain(), "cannot write an event"),
            }
            self.clock.sleep(wait).await;
            wait *= 2;
        }
    }

    fn resource(&self) -> &'static Resource {
        match self.style {
            Style::Core => &EVENTS,
            Style::EventsV1 => &EVENTS_V1,
        }
    }

    async fn create(&mut self, event: &Recorded, key: &EventKey, note: &str) -> Result<()> {
        let namespace = if event.regarding.namespace.is_empty() { "default" } else { &event.regarding.namespace };
        let name = format!("{}.{:x}", event.regarding.name, event.at.as_nanosecond());
        let body = self.body(event, namespace, &name, note);
        let created: Created = self.client.create(self.resource(), Some(namespace), &body).await?;
        self.correlator.stored(key, created.metadata.name);
        Ok(())
    }

    async fn count(&mut self, event: &Recorded, key: &EventKey, name: &str, count: u32, note: &str) -> Result<()> {
        let namespace = if event.regarding.namespace.is_empty() { "default" } else { &event.regarding.namespace };
        let patch = match self.style {
            Style::Core => {
                json!({ "count": count, "lastTimestamp": seconds(event.at), "message": note })
            }
            Style::EventsV1 => {
                json!({ "series": { "count": count, "lastObservedTime": micros(event.at) } })
            }
        };
        let result: Result<Created> =
            self.client.patch(self.resource(), Some(namespace), name, None, &Patch::Strategic(patch)).await;
        match result {
            Ok(_) => Ok(()),
            // It has expired meanwhile: begin anew.
            Err(error) if error.is_not_found() => self.create(event, key, note).await,
            Err(error) => Err(error),
        }
    }

    fn body(&self, event: &Recorded, namespace: &str, name: &str, note: &str) -> Value {
        let annotations: serde_json::Map<String, Value> =
            event.annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let mut metadata = json!({ "name": name, "namespace": namespace });
        if !annotations.is_empty() {
            metadata["annotations"] = Value::Object(annotations);
        }
        let mut body = match self.style {
            Style::Core => json!({
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": metadata,
                "involvedObject": event.regarding,
                "reason": event.reason,
                "message": note,
                "type": event.kind,
                "count": 1,
                "firstTimestamp": seconds(event.at),
                "lastTimestamp": seconds(event.at),
                "source": { "component": self.component },
                "reportingComponent": self.component,
                "reportingInstance": self.host,
            }),
            Style::EventsV1 => json!({
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": metadata,
                "regarding": event.regarding,
                "reason": event.reason,
                "action": event.action,
                "note": note,
                "type": event.kind,
                "eventTime": micros(event.at),
                "reportingController": self.component,
                "reportingInstance": self.host,
            }),
        };
        if self.style == Style::Core && !self.host.is_empty() {
            body["source"]["host"] = json!(self.host);
        }
        if let Some(related) = &event.related {
            body["related"] = json!(related);
        }
        body
    }
}

#[derive(Deserialize)]
struct Created {
    metadata: ObjectMeta,
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Everything of an event but its time; two events of one key are one event seen twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct EventKey {
    regarding: Arc<Reference>,
    kind: String,
    reason: String,
    note: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Create { key: EventKey, note: String },
    Count { key: EventKey, name: String, count: u32, note: String },
}

#[derive(Default)]
struct Correlator {
    /// Tokens and the time they were counted, per object.
    spam: HashMap<Reference, (f64, Duration)>,
    /// Distinct messages seen lately, per object, type and reason.
    similar: HashMap<(Reference, String, String), (Vec<String>, Duration)>,
    seen: HashMap<EventKey, (String, u32)>,
    order: VecDeque<EventKey>,
}

const SPAM_BURST: f64 = 25.0;
const SPAM_QPS: f64 = 1.0 / 300.0;
const AGGREGATE_OVER: usize = 10;
const AGGREGATE_WINDOW: Duration = Duration::from_secs(600);
/// Upstream keeps 4,096 of each.
const CACHE: usize = 4096;

impl Correlator {
    fn decide(&mut self, event: &Recorded, now: Duration) -> Option<Decision> {
        // The version changes with each status update and must not make events differ.
        let regarding = Reference { resource_version: String::new(), ..event.regarding.clone() };
        let object = Reference { field_path: String::new(), ..regarding.clone() };
        if self.spam.len() >= CACHE {
            self.spam.retain(|_, (_, at)| now.saturating_sub(*at) < Duration::from_secs(300));
        }
        let (tokens, at) = self.spam.entry(object.clone()).or_insert((SPAM_BURST, now));
        *tokens = (*tokens + now.saturating_sub(*at).as_secs_f64() * SPAM_QPS).min(SPAM_BURST);
        *at = now;
        if *tokens < 1.0 {
            return None;
        }
        *tokens -= 1.0;

        if self.similar.len() >= CACHE {
            self.similar.retain(|_, (_, at)| now.saturating_sub(*at) < AGGREGATE_WINDOW);
        }
        let (messages, last) =
            self.similar.entry((object, event.kind.clone(), event.reason.clone())).or_insert_with(|| (Vec::new(), now));
        if now.saturating_sub(*last) > AGGREGATE_WINDOW {
            messages.clear();
        }
        *last = now;
        if !messages.contains(&event.note) {
            messages.push(event.note.clone());
            if messages.len() > AGGREGATE_OVER {
                messages.remove(0);
            }
        }
        let combined = messages.len() >= AGGREGATE_OVER;
        let note =
            if combined { format!("(combined from similar events): {}", event.note) } else { event.note.clone() };
        let key = EventKey {
            regarding: Arc::new(regarding),
            kind: event.kind.clone(),
            reason: event.reason.clone(),
            // Combined events share one record whatever they say.
            note: if combined { "(combined)".into() } else { note.clone() },
        };
        if let Some((name, count)) = self.seen.get_mut(&key)
            && !name.is_empty()
        {
            *count += 1;
            return Some(Decision::Count { name: name.clone(), count: *count, key, note });
        }
        if self.seen.insert(key.clone(), (String::new(), 1)).is_none() {
            self.order.push_back(key.clone());
            if self.order.len() > CACHE
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
        Some(Decision::Create { key, note })
    }

    fn stored(&mut self, key: &EventKey, name: String) {
        if let Some((known, count)) = self.seen.get_mut(key) {
            *known = name;
            *count = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, note: &str) -> Recorded {
        Recorded {
            regarding: Reference { kind: "Pod".into(), name: name.into(), ..Reference::default() },
            related: None,
            kind: "Normal".into(),
            reason: "Pulled".into(),
            action: String::new(),
            note: note.into(),
            annotations: Vec::new(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn repeats_count_and_floods_stop() {
        let mut correlator = Correlator::default();
        let mut now = Duration::ZERO;
        let Some(Decision::Create { key, .. }) = correlator.decide(&event("a", "x"), now) else {
            panic!("the first is created");
        };
        correlator.stored(&key, "a.1".into());
        for expected in 2..=25 {
            match correlator.decide(&event("a", "x"), now) {
                Some(Decision::Count { name, count, .. }) => {
                    assert_eq!((name.as_str(), count), ("a.1", expected))
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(correlator.decide(&event("a", "x"), now), None, "the burst is spent");
        assert!(correlator.decide(&event("b", "x"), now).is_some(), "another object has its own");
        now += Duration::from_secs(300);
        assert!(correlator.decide(&event("a", "x"), now).is_some());
    }

    #[test]
    fn many_similar_events_become_one() {
        let mut correlator = Correlator::default();
        let mut notes = Vec::new();
        for number in 0..12 {
            match correlator.decide(&event("a", &format!("message {number}")), Duration::ZERO) {
                Some(Decision::Create { key, note }) => {
                    correlator.stored(&key, format!("a.{number}"));
                    notes.push(note);
                }
                Some(Decision::Count { name, count, note, .. }) => notes.push(format!("{name} {count} {note}")),
                None => panic!("not spam yet"),
            }
        }
        assert_eq!(notes[8], "message 8");
        assert_eq!(notes[9], "(combined from similar events): message 9");
        assert_eq!(notes[10], "a.9 2 (combined from similar events): message 10");
    }
}
