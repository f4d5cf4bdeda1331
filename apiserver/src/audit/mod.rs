//! Audit: a record of who did what, by policy, to a file and to a webhook.
//!
//! An event is made when a request has been authenticated, and goes out at the stages that the policy
//! does not omit. Backends have their own task and a bounded queue: when it is full, events are lost
//! and counted rather than requests held up. Upstream: `apiserver/pkg/audit`.

mod backend;
pub mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use axum::body::Body;
use bytes::Bytes;
use component_base::clock::SharedClock;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::authorization::Attributes;
use crate::request::UserInfo;
use crate::request::notes::Annotation;
use crate::response::Response;
pub use backend::{Backend, LogOptions, WebhookOptions};
use policy::{Level, Policy, Stage, Verdict};

/// Bodies larger than this are not recorded; upstream's truncation leaves such events without bodies.
const MAX_BODY: usize = 100 * 1024;

/// What a server records, and where to.
pub struct Audit {
    policy: Policy,
    backend: Backend,
    clock: SharedClock,
}

/// The record of one request, growing along its walk.
pub struct Record {
    audit: Arc<Audit>,
    verdict: Verdict,
    event: Value,
    received: Timestamp,
}

fn micro(time: Timestamp) -> String {
    format!("{:.6}", time)
}

impl Audit {
    /// Records by this policy to this backend.
    pub fn new(policy: Policy, backend: Backend, clock: SharedClock) -> Self {
        Self { policy, backend, clock }
    }

    /// Begins a record; `None` when the policy wants none.
    pub fn begin(self: &Arc<Self>, attributes: &Attributes, facts: &Facts<'_>) -> Option<Record> {
        let verdict = self.policy.evaluate(attributes);
        if verdict.level == Level::None {
            return None;
        }
        let received = self.clock.now();
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": verdict.level.as_str(),
            "auditID": facts.audit_id,
            "stage": "",
            "requestURI": facts.uri,
            "verb": attributes.verb,
            "user": attributes.user.to_value(),
            "sourceIPs": facts.source.as_slice(),
            "requestReceivedTimestamp": micro(received),
        });
        if !facts.agent.is_empty() {
            event["userAgent"] = facts.agent.into();
        }
        if attributes.is_resource {
            let mut object = json!({"apiVersion": attributes.version});
            for (field, text) in [
                ("resource", &attributes.resource),
                ("namespace", &attributes.namespace),
                ("name", &attributes.name),
                ("apiGroup", &attributes.group),
                ("subresource", &attributes.subresource),
            ] {
                if !text.is_empty() {
                    object[field] = text.clone().into();
                }
            }
            event["objectRef"] = object;
        }
        let record = Record { audit: self.clone(), verdict, event, received };
        record.emit(Stage::RequestReceived);
        Some(record)
    }
}

/// What of a request its attributes do not tell.
pub struct Facts<'a> {
    pub audit_id: &'a str,
    pub uri: &'a str,
    pub agent: &'a str,
    pub source: Option<String>,
}

impl Record {
    fn emit(&self, stage: Stage) {
        if self.verdict.omit_stages.contains(&stage) {
            return;
        }
        let mut event = self.event.clone();
        event["stage"] = stage.as_str().into();
        event["stageTimestamp"] = micro(self.audit.clock.now()).into();
        self.audit.backend.send(event);
    }

    /// Notes whom the request was done as.
    pub fn impersonated(&mut self, user: &UserInfo) {
        self.event["impersonatedUser"] = user.to_value();
    }

    /// Notes what is not known from the URL of the object that the request brings.
    pub fn about(&mut self, object: &Value) {
        let reference = &mut self.event["objectRef"];
        for (field, text) in [
            ("namespace", object.namespace()),
            ("name", object.name()),
            ("uid", object.uid()),
            ("resourceVersion", object.resource_version()),
        ] {
            if !text.is_empty() && reference.get(field).is_none() {
                reference[field] = text.into();
            }
        }
    }

    /// Notes something under an annotation.
    pub fn annotate(&mut self, key: &str, value: &str) {
        self.event["annotations"][key] = value.into();
    }

    /// Notes what was said on the way, as far as the level allows.
    pub fn annotate_all(&mut self, annotations: BTreeMap<String, Annotation>) {
        for (key, annotation) in annotations {
            if !annotation.detailed || self.wants_request() {
                self.annotate(&key, &annotation.value);
            }
        }
    }

    /// Whether the request's body is wanted.
    pub fn wants_request(&self) -> bool {
        self.verdict.level >= Level::Request
    }

    /// Notes the request's body, and gives it back for the handler.
    pub async fn request_body(&mut self, body: Body) -> Body {
        match read(body).await {
            (Some(bytes), body) => {
                if let Some(object) = self.object(&bytes) {
                    self.event["requestObject"] = object;
                }
                body
            }
            (None, body) => body,
        }
    }

    fn object(&self, bytes: &[u8]) -> Option<Value> {
        let mut object: Value = serde_json::from_slice(bytes).ok().filter(Value::is_object)?;
        if self.verdict.omit_managed_fields {
            omit(&mut object);
        }
        Some(object)
    }

    /// Finishes the record of an answer. A watch's is finished when its body ends.
    pub async fn finish(mut self, answer: Response, streams: bool) -> Response {
        let code = answer.status().as_u16();
        self.event["responseStatus"] = json!({"metadata": {}, "code": code});
        if streams {
            self.emit(Stage::ResponseStarted);
            let (parts, body) = answer.into_parts();
            return Response::from_parts(parts, Body::new(Watched { body, record: Some(self) }));
        }
        let is_json = answer
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/json"));
        let failed = code >= 400;
        let answer = if is_json && (failed || self.verdict.level >= Level::RequestResponse) {
            let (parts, body) = answer.into_parts();
            let (bytes, body) = read(body).await;
            if let Some(object) = bytes.and_then(|bytes| self.object(&bytes)) {
                if object["kind"] == "Status" {
                    let mut status = json!({"metadata": {}, "code": code});
                    for field in ["status", "message", "reason", "details"] {
                        if let Some(value) = object.get(field) {
                            status[field] = value.clone();
                        }
                    }
                    self.event["responseStatus"] = status;
                }
                if self.verdict.level >= Level::RequestResponse {
                    self.event["responseObject"] = object;
                }
            }
            Response::from_parts(parts, body)
        } else {
            answer
        };
        self.emit(Stage::ResponseComplete);
        answer
    }

    /// Finishes the record of a request whose handler panicked.
    pub fn panicked(mut self) {
        self.event["responseStatus"] = json!({
            "metadata": {}, "status": "Failure", "code": 500, "reason": "InternalError",
            "message": format!("APIServer panic'd after {}s", self.audit.clock.now().duration_since(self.received).as_secs()),
        });
        self.emit(Stage::Panic);
    }
}

/// Takes managed fields out of an object, or of a list's items.
fn omit(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(metadata) = item.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
}

/// The bytes of a body that is not too large, and the body again.
async fn read(body: Body) -> (Option<Bytes>, Body) {
    let known = http_body::Body::size_hint(&body).exact();
    if known.is_none_or(|size| size > MAX_BODY as u64) {
        return (None, body);
    }
    match body.collect().await {
        Ok(collected) => {
            let bytes = collected.to_bytes();
            (Some(bytes.clone()), Body::from(bytes))
        }
        Err(_) => (None, Body::empty()),
    }
}

/// A body whose end finishes a record.
struct Watched {
    body: Body,
    record: Option<Record>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            record.emit(Stage::ResponseComplete);
        }
    }
}
