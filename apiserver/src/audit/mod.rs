//! Audit: a record of who did what, by policy, to a file and to a webhook.
//!
//! An event is made when a request has been authenticated (or was not), and goes out at the stages that the
//! policy does not omit. Upstream: `apiserver/pkg/audit` and `apiserver/pkg/endpoints/filters/audit.go`.

mod backend;
mod event;
mod metrics;
pub mod options;
pub mod policy;

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::gvk::GroupVersion;
use apimachinery::object::ObjectExt as _;
use axum::body::Body;
use bytes::Bytes;
use component_base::clock::SharedClock;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::Value;

use crate::authorization::Attributes;
use crate::request::Latencies;
use crate::request::latency;
use crate::request::notes::Annotation;
use crate::response::{Response, Unrecorded};
use crate::server::impersonation::Impersonated;
pub use backend::Backend;
use event::{AuthenticationMetadata, Event, ObjectReference, Raw, ResponseStatus, User};
pub use metrics::Metrics;
pub use options::{LogOptions, WebhookOptions};
use policy::{Level, Policy, Stage, Verdict};

/// A longer User-Agent is cut.
const LONGEST_AGENT: usize = 1024;

/// What a server records, and where to.
pub struct Audit {
    policy: Policy,
    backend: Backend,
    metrics: Metrics,
    clock: SharedClock,
}

/// The record of one request, growing along its walk.
pub struct Record {
    audit: Arc<Audit>,
    verdict: Verdict,
    event: Event,
    latencies: Arc<Latencies>,
}

/// What of a request its attributes do not tell.
pub struct Facts<'a> {
    pub audit_id: &'a str,
    pub uri: &'a str,
    pub headers: &'a HeaderMap,
    /// Where the connection comes from.
    pub peer: Option<IpAddr>,
    pub received: Timestamp,
    /// Where its time goes.
    pub latencies: &'a Arc<Latencies>,
}

impl Facts<'_> {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn agent(&self) -> String {
        let agent = self.header("user-agent");
        match agent.get(..LONGEST_AGENT) {
            Some(start) if agent.len() > LONGEST_AGENT => format!("{start}...TRUNCATED"),
            _ => agent.to_string(),
        }
    }

    /// What proxies say of the client, and the peer, which cannot be made up.
    fn sources(&self) -> Vec<String> {
        let mut found: Vec<IpAddr> =
            self.header("x-forwarded-for").split(',').filter_map(|part| part.trim().parse().ok()).collect();
        let real = self.header("x-real-ip").parse().ok();
        found.extend(real.filter(|real| !found.contains(real)));
        found.extend(self.peer.filter(|peer| found.last() != Some(peer)));
        found.iter().map(ToString::to_string).collect()
    }
}

impl Audit {
    /// Records by this policy to this backend.
    pub fn new(policy: Policy, backend: Backend, metrics: Metrics, clock: SharedClock) -> Self {
        Self { policy, backend, metrics, clock }
    }

    /// Begins a record; `None` when the policy wants none.
    pub fn begin(self: &Arc<Self>, attributes: &Attributes, facts: &Facts<'_>) -> Option<Record> {
        let verdict = self.policy.evaluate(attributes);
        self.metrics.level(verdict.level);
        if verdict.level == Level::None {
            return None;
        }
        let reference = || ObjectReference {
            resource: attributes.resource.clone(),
            namespace: attributes.namespace.clone(),
            name: attributes.name.clone(),
            api_group: attributes.group.clone(),
            api_version: attributes.version.clone(),
            subresource: attributes.subresource.clone(),
            ..ObjectReference::default()
        };
        let event = Event {
            level: verdict.level,
            audit_id: facts.audit_id.to_string(),
            stage: Stage::RequestReceived,
            request_uri: facts.uri.to_string(),
            verb: attributes.verb.clone(),
            user: User::from(&*attributes.user),
            impersonated_user: None,
            authentication_metadata: None,
            source_ips: facts.sources(),
            user_agent: facts.agent(),
            object_ref: attributes.is_resource.then(reference),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: facts.received,
            stage_timestamp: facts.received,
            annotations: std::collections::BTreeMap::new(),
        };
        Some(Record { audit: self.clone(), verdict, event, latencies: facts.latencies.clone() })
    }

    /// Completes when what is queued is delivered or given up; after shutdown only.
    pub async fn finish(&self) {
        self.backend.finish().await;
    }
}

impl Record {
    async fn emit(&self, stage: Stage) -> bool {
        if self.verdict.omit_stages.contains(&stage) {
            return true;
        }
        let mut event = self.event.clone();
        event.stage = stage;
        if stage != Stage::RequestReceived {
            event.stage_timestamp = self.audit.clock.now();
        }
        if stage == Stage::ResponseComplete {
            self.slow(&mut event);
        }
        self.audit.metrics.event();
        self.audit.backend.process(event).await
    }

    /// Tells of a slow request where its time went.
    fn slow(&self, event: &mut Event) {
        let took = event.stage_timestamp.duration_since(event.request_received_timestamp).unsigned_abs();
        if took <= latency::SLOW {
            return;
        }
        let layers: Vec<_> = self.latencies.annotations().collect();
        if !layers.is_empty() {
            let total = (latency::TOTAL, component_base::duration::format(took));
            for (key, value) in layers.into_iter().chain([total]) {
                event.annotations.entry(key.to_string()).or_insert(value);
            }
        }
    }

    /// Sends the event of a request that has come; whether it may be served.
    pub async fn received(&self) -> bool {
        let good = self.emit(Stage::RequestReceived).await;
        if !good {
            self.audit.metrics.rejected();
        }
        good
    }

    /// Notes whom the request was done as.
    pub fn impersonated(&mut self, found: &Impersonated) {
        self.event.impersonated_user = Some(User::from(&found.user));
        if !found.constraint.is_empty() {
            self.event.authentication_metadata =
                Some(AuthenticationMetadata { impersonation_constraint: found.constraint.clone() });
        }
    }

    /// Notes the object that the request brings, and what of it is not known from the URL.
    pub fn about(&mut self, object: &Value) {
        let reference = self.event.object_ref.get_or_insert_default();
        for (field, text) in [
            (&mut reference.namespace, object.namespace()),
            (&mut reference.name, object.name()),
            (&mut reference.uid, object.uid()),
            (&mut reference.resource_version, object.resource_version()),
        ] {
            if field.is_empty() {
                *field = text.to_string();
            }
        }
        if self.verdict.level >= Level::Request {
            self.event.request_object = self.tree(object);
        }
    }

    /// Notes a patch as it came, or as the tree it stands for if it came in YAML or CBOR. (Upstream takes those for
    /// JSON, cannot write them, and loses the event.)
    pub fn patch(&mut self, bytes: &[u8], tree: impl FnOnce() -> Option<Value>) {
        if self.verdict.level >= Level::Request {
            self.event.request_object = Raw::parse(bytes).or_else(|| Raw::of(&tree()?));
        }
    }

    /// Notes something under an annotation.
    pub fn annotate(&mut self, key: &str, value: &str) {
        self.event.annotations.insert(key.to_string(), value.to_string());
    }

    /// Notes what was said on the way. Details are for logs that have the request's body.
    pub fn annotate_all(&mut self, annotations: impl IntoIterator<Item = (String, Annotation)>) {
        for (key, annotation) in annotations {
            if !annotation.detailed || self.verdict.level >= Level::Request {
                self.event.annotations.insert(key, annotation.value);
            }
        }
    }

    fn tree(&self, object: &Value) -> Option<Raw> {
        if !self.verdict.omit_managed_fields {
            return Raw::of(object);
        }
        let mut object = object.clone();
        omit(&mut object);
        Raw::of(&object)
    }

    /// Finishes the record of an answer. That of a request that lasts is finished when its body ends.
    pub async fn finish(mut self, answer: Response, lasts: bool) -> Response {
        let code = answer.status().as_u16();
        self.event.response_status = Some(ResponseStatus::code(code));
        let answer = if lasts && code < 400 { answer } else { self.answered(code, answer).await };
        if !lasts {
            self.emit(Stage::ResponseComplete).await;
            return answer;
        }
        self.emit(Stage::ResponseStarted).await;
        let (parts, body) = answer.into_parts();
        Response::from_parts(parts, Body::new(Lasting { body, record: Some(self) }))
    }

    /// Notes what is answered: a Status always, other objects if the policy wants them.
    async fn answered(&mut self, code: u16, answer: Response) -> Response {
        let kind = answer.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_json = kind.is_some_and(|kind| kind.starts_with("application/json"));
        let is_protobuf = kind.is_some_and(|kind| kind.starts_with("application/vnd.kubernetes.protobuf"));
        let wants_object = self.verdict.level >= Level::RequestResponse;
        let may_be_status = code >= 400 || matches!(self.event.verb.as_str(), "delete" | "deletecollection");
        let hidden = answer.extensions().get::<Unrecorded>().is_some();
        if hidden || !(is_json || is_protobuf) || !(wants_object || may_be_status) {
            return answer;
        }
        let (parts, body) = answer.into_parts();
        let (bytes, body) = match body.collect().await {
            Ok(collected) => {
                let bytes = collected.to_bytes();
                (bytes.clone(), Body::from(bytes))
            }
            Err(_) => (Bytes::new(), Body::empty()),
        };
        let object = if is_json { serde_json::from_slice::<Value>(&bytes).ok() } else { protobuf(&bytes) };
        if let Some(object) = object {
            if object.kind() == "Status" && object.api_version() == "v1" {
                // The code is the answer's, whatever the Status says.
                self.event.response_status = Some(ResponseStatus { code, ..ResponseStatus::of(&object) });
            }
            if wants_object {
                self.event.response_object = match is_json && !self.verdict.omit_managed_fields {
                    true => Raw::parse(&bytes),
                    false => self.tree(&object),
                };
            }
        }
        Response::from_parts(parts, body)
    }

    /// Finishes the record of a request that was refused before anybody knew whose it is. `why` is told if the
    /// answer has no Status.
    pub async fn refused(mut self, why: &str, answer: Response) -> Response {
        let code = answer.status().as_u16();
        self.event.response_status = Some(ResponseStatus { message: why.to_string(), ..ResponseStatus::code(code) });
        let answer = self.answered(code, answer).await;
        self.emit(Stage::ResponseStarted).await;
        answer
    }

    /// Finishes the record of a request whose handler panicked.
    pub async fn panicked(mut self, text: &str) {
        self.event.response_status = Some(ResponseStatus {
            status: "Failure".to_string(),
            message: format!("APIServer panic'd: {text}"),
            reason: "InternalError".to_string(),
            ..ResponseStatus::code(500)
        });
        self.emit(Stage::Panic).await;
    }
}

/// The object in an envelope.
fn protobuf(bytes: &[u8]) -> Option<Value> {
    let (api_version, kind, raw) = crate::codec::protobuf::open(bytes).ok()?;
    let version = GroupVersion::parse(&api_version).ok()?;
    let ty = api::table().find_kind(&version.group, &version.version, &kind)?;
    let mut object = api::protobuf::decode(ty, raw).ok()?;
    object.set_api_version(&api_version);
    object.set_kind(&kind);
    Some(object)
}

/// Takes managed fields out of an object, of a list's items, or of the objects of a table's rows.
fn omit(object: &mut Value) {
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(object);
    object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
    for row in object.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        row.get_mut("object").into_iter().for_each(strip);
    }
}

/// A body whose end finishes a record.
struct Lasting {
    body: Body,
    record: Option<Record>,
}

impl http_body::Body for Lasting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and nobody writes any more.
        if let Some(record) = self.record.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { record.emit(Stage::ResponseComplete).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_named_but_the_peer_is_last() {
        let sources = |forwarded: &str, real: &str, peer: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in [("x-forwarded-for", forwarded), ("x-real-ip", real)] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            let facts = Facts {
                audit_id: "",
                uri: "/",
                headers: &headers,
                peer: peer.parse().ok(),
                received: Timestamp::UNIX_EPOCH,
                latencies: &Arc::default(),
            };
            facts.sources().join(" ")
        };
        assert_eq!(sources("", "", "10.0.0.1"), "10.0.0.1");
        assert_eq!(sources("1.1.1.1, junk, 2.2.2.2", "", "10.0.0.1"), "1.1.1.1 2.2.2.2 10.0.0.1");
        assert_eq!(sources("1.1.1.1", "1.1.1.1", "1.1.1.1"), "1.1.1.1");
        assert_eq!(sources("", "3.3.3.3", "10.0.0.1"), "3.3.3.3 10.0.0.1");
    }

    #[test]
    fn long_agents_are_cut() {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "x".repeat(1025).parse().unwrap());
        let received = Timestamp::UNIX_EPOCH;
        let facts =
            Facts { audit_id: "", uri: "/", headers: &headers, peer: None, received, latencies: &Arc::default() };
        assert_eq!(facts.agent(), "x".repeat(1024) + "...TRUNCATED");
    }

    #[test]
    fn managed_fields_leave_objects_lists_and_tables() {
        let object = || serde_json::json!({"metadata": {"name": "a", "managedFields": []}});
        let mut all = object();
        all["items"] = serde_json::json!([object()]);
        all["rows"] = serde_json::json!([{"object": object()}, {"object": null}]);
        omit(&mut all);
        assert!(!all.to_string().contains("managedFields"), "{all}");
    }
}
