//! `meta/v1` Status: the one shape of every API error.
//!
//! Constructors are named as apimachinery's `api/errors` and give the same code, reason, details
//! and text.

use crate::field::ErrorList;
use crate::gotext::quote;
use crate::gvk::{GroupKind, GroupResource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;

/// The machine-readable reasons.
pub mod reason {
    pub const UNKNOWN: &str = "";
    pub const UNAUTHORIZED: &str = "Unauthorized";
    pub const FORBIDDEN: &str = "Forbidden";
    pub const NOT_FOUND: &str = "NotFound";
    pub const ALREADY_EXISTS: &str = "AlreadyExists";
    pub const CONFLICT: &str = "Conflict";
    pub const GONE: &str = "Gone";
    pub const EXPIRED: &str = "Expired";
    pub const INVALID: &str = "Invalid";
    pub const SERVER_TIMEOUT: &str = "ServerTimeout";
    pub const STORE_READ_ERROR: &str = "StorageReadError";
    pub const TIMEOUT: &str = "Timeout";
    pub const TOO_MANY_REQUESTS: &str = "TooManyRequests";
    pub const BAD_REQUEST: &str = "BadRequest";
    pub const METHOD_NOT_ALLOWED: &str = "MethodNotAllowed";
    pub const NOT_ACCEPTABLE: &str = "NotAcceptable";
    pub const REQUEST_ENTITY_TOO_LARGE: &str = "RequestEntityTooLarge";
    pub const UNSUPPORTED_MEDIA_TYPE: &str = "UnsupportedMediaType";
    pub const INTERNAL_ERROR: &str = "InternalError";
    pub const SERVICE_UNAVAILABLE: &str = "ServiceUnavailable";
}

/// The body of an unsuccessful answer, and of a few successful ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// `Success` or `Failure`.
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// The HTTP code.
    #[serde(skip_serializing_if = "is_zero_code")]
    pub code: u16,
}

fn is_zero_code(code: &u16) -> bool {
    *code == 0
}

fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

/// What the failure is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Mostly the plural resource, despite its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// One cause of a failure, usually one field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Cause {
    pub fn new(reason: impl Into<String>, message: impl Into<String>, field: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), field: field.into() }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    /// A failure of the given code, reason and text.
    pub fn failure(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: "Failure".to_owned(),
            message: message.into(),
            reason: Cow::Borrowed(reason),
            details: None,
            code,
        }
    }

    /// `Success`, as given for deletions; details name the object.
    pub fn success(details: Option<Details>) -> Self {
        Self { status: "Success".to_owned(), details: details.map(Box::new), ..Self::default() }
    }

    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    fn about(self, resource: &GroupResource, name: &str) -> Self {
        self.with_details(Details {
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            name: name.to_owned(),
            ..Details::default()
        })
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::failure(404, reason::NOT_FOUND, format!("{resource} {} not found", quote(name))).about(resource, name)
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::failure(409, reason::ALREADY_EXISTS, format!("{resource} {} already exists", quote(name)))
            .about(resource, name)
    }

    pub fn generate_name_conflict(resource: &GroupResource, name: &str, retry_after_seconds: u32) -> Self {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Self::failure(409, reason::ALREADY_EXISTS, message).about(resource, name).retry_after(retry_after_seconds)
    }

    pub fn conflict(resource: &GroupResource, name: &str, error: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {error}", quote(name));
        Self::failure(409, reason::CONFLICT, message).about(resource, name)
    }

    /// Conflicts of server-side apply.
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Self {
        Self::failure(409, reason::CONFLICT, message).with_details(Details { causes, ..Details::default() })
    }

    pub fn invalid(kind: &GroupKind, name: &str, errors: &ErrorList) -> Self {
        let causes = errors.iter().map(|e| Cause::new(e.kind.as_str(), e.body(), e.field.clone())).collect();
        let message = if errors.is_empty() {
            format!("{kind} {} is invalid", quote(name))
        } else {
            format!("{kind} {} is invalid: {}", quote(name), errors.to_aggregate())
        };
        Self::failure(422, reason::INVALID, message).with_details(Details {
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            name: name.to_owned(),
            causes,
            ..Details::default()
        })
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, reason::BAD_REQUEST, message)
    }

    pub fn forbidden(resource: &GroupResource, name: &str, error: impl fmt::Display) -> Self {
        let message = if resource.is_empty() {
            format!("forbidden: {error}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {error}")
        } else {
            format!("{resource} {} is forbidden: {error}", quote(name))
        };
        Self::failure(403, reason::FORBIDDEN, message).about(resource, name)
    }

    /// An empty message becomes `not authorized`; the server itself answers `Unauthorized`.
    pub fn unauthorized(message: &str) -> Self {
        Self::failure(401, reason::UNAUTHORIZED, if message.is_empty() { "not authorized" } else { message })
    }

    pub fn method_not_supported(resource: &GroupResource, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind {}", quote(&resource.to_string()));
        Self::failure(405, reason::METHOD_NOT_ALLOWED, message).about(resource, "")
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::failure(410, reason::GONE, message)
    }

    /// A resource version or continue token that is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, reason::EXPIRED, message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::failure(429, reason::TOO_MANY_REQUESTS, message)
            .with_details(Details::default())
            .retry_after(retry_after_seconds)
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, reason::SERVICE_UNAVAILABLE, message)
    }

    pub fn server_timeout(resource: &GroupResource, operation: &str, retry_after_seconds: u32) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Self::failure(500, reason::SERVER_TIMEOUT, message).about(resource, operation).retry_after(retry_after_seconds)
    }

    pub fn internal(error: impl fmt::Display) -> Self {
        let text = error.to_string();
        Self::failure(500, reason::INTERNAL_ERROR, format!("Internal error occurred: {text}"))
            .with_details(Details { causes: vec![Cause::new("", text, "")], ..Details::default() })
    }

    pub fn timeout(message: impl fmt::Display, retry_after_seconds: u32) -> Self {
        Self::failure(504, reason::TIMEOUT, format!("Timeout: {message}"))
            .with_details(Details::default())
            .retry_after(retry_after_seconds)
    }

    pub fn request_entity_too_large(message: impl fmt::Display) -> Self {
        Self::failure(413, reason::REQUEST_ENTITY_TOO_LARGE, format!("Request entity too large: {message}"))
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::failure(415, reason::UNSUPPORTED_MEDIA_TYPE, message)
    }

    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::failure(406, reason::NOT_ACCEPTABLE, message)
    }

    /// What is said where nothing more specific is known, as for an unknown path.
    pub fn generic(code: u16, verb: &str, resource: &GroupResource, name: &str, server_message: &str) -> Self {
        let (reason, mut message): (&'static str, String) = match code {
            409 => (
                if verb == "POST" { reason::ALREADY_EXISTS } else { reason::CONFLICT },
                "the server reported a conflict".into(),
            ),
            404 => (reason::NOT_FOUND, "the server could not find the requested resource".into()),
            400 => (reason::BAD_REQUEST, "the server rejected our request for an unknown reason".into()),
            401 => (reason::UNAUTHORIZED, "the server has asked for the client to provide credentials".into()),
            403 => (reason::FORBIDDEN, server_message.into()),
            405 => {
                (reason::METHOD_NOT_ALLOWED, "the server does not allow this method on the requested resource".into())
            }
            406 if server_message.is_empty() || server_message == "unknown" => (
                reason::NOT_ACCEPTABLE,
                "the server was unable to respond with a content type that the client supports".into(),
            ),
            406 => (reason::NOT_ACCEPTABLE, server_message.into()),
            415 => (reason::UNSUPPORTED_MEDIA_TYPE, server_message.into()),
            422 => (reason::INVALID, "the server rejected our request due to an error in our request".into()),
            429 => (
                reason::TOO_MANY_REQUESTS,
                "the server has received too many requests and has asked us to try again later".into(),
            ),
            503 => {
                (reason::SERVICE_UNAVAILABLE, "the server is currently unable to handle the request".into())
            }
            504 => (
                reason::TIMEOUT,
                "the server was unable to return a response in the time allotted, but may still be processing the request"
                    .into(),
            ),
            500.. => (
                reason::INTERNAL_ERROR,
                format!("an error on the server ({}) has prevented the request from succeeding", quote(server_message)),
            ),
            _ => (
                reason::UNKNOWN,
                format!("the server responded with the status code {code} but did not return more information"),
            ),
        };
        let verb = verb.to_lowercase();
        if !resource.is_empty() {
            message = if name.is_empty() {
                format!("{message} ({verb} {resource})")
            } else {
                format!("{message} ({verb} {resource} {name})")
            };
        }
        Self::failure(code, reason, message).about(resource, name)
    }

    /// Sets `retryAfterSeconds`, which also becomes the Retry-After header.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    pub fn has_reason(&self, reason: &str) -> bool {
        self.reason == reason
    }

    pub fn is_not_found(&self) -> bool {
        self.has_reason(reason::NOT_FOUND) || (self.reason.is_empty() && self.code == 404)
    }

    pub fn is_already_exists(&self) -> bool {
        self.has_reason(reason::ALREADY_EXISTS)
    }

    pub fn is_conflict(&self) -> bool {
        self.has_reason(reason::CONFLICT) || (self.reason.is_empty() && self.code == 409)
    }

    /// Either way of saying that a watch must start over.
    pub fn is_gone(&self) -> bool {
        self.code == 410 || self.has_reason(reason::GONE) || self.has_reason(reason::EXPIRED)
    }

    /// The object on the wire.
    pub fn to_value(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("a Status has only string keys");
        let object = value.as_object_mut().expect("a Status is an object");
        object.insert("kind".into(), json!("Status"));
        object.insert("apiVersion".into(), json!("v1"));
        object.insert("metadata".into(), json!({}));
        value
    }

    /// Reads a Status object; `None` if the tree is something else.
    pub fn from_value(value: &Value) -> Option<Self> {
        (value.get("kind")?.as_str()? == "Status").then_some(())?;
        Self::deserialize(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Path, required};

    #[test]
    fn texts() {
        let pods = GroupResource::new("", "pods");
        let deployments = GroupResource::new("apps", "deployments");
        for (status, code, message) in [
            (Status::not_found(&pods, "x"), 404, "pods \"x\" not found"),
            (Status::already_exists(&deployments, "x"), 409, "deployments.apps \"x\" already exists"),
            (Status::conflict(&pods, "x", "boom"), 409, "Operation cannot be fulfilled on pods \"x\": boom"),
            (Status::forbidden(&pods, "", "no"), 403, "pods is forbidden: no"),
            (Status::method_not_supported(&pods, "patch"), 405, "patch is not supported on resources of kind \"pods\""),
            (
                Status::generic(404, "GET", &GroupResource::default(), "", ""),
                404,
                "the server could not find the requested resource",
            ),
        ] {
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
    }

    #[test]
    fn invalid_names_every_field() {
        let errors = ErrorList(vec![required(&Path::new("spec"), ""), required(&Path::new("a"), "b")]);
        let status = Status::invalid(&GroupKind::new("apps", "Deployment"), "d", &errors);
        assert_eq!(
            status.to_value(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 422,
                "reason": "Invalid",
                "message": "Deployment.apps \"d\" is invalid: [spec: Required value, a: Required value: b]",
                "details": {"name": "d", "group": "apps", "kind": "Deployment", "causes": [
                    {"reason": "FieldValueRequired", "message": "Required value", "field": "spec"},
                    {"reason": "FieldValueRequired", "message": "Required value: b", "field": "a"},
                ]},
            })
        );
        assert_eq!(Status::from_value(&status.to_value()), Some(status));
    }
}
