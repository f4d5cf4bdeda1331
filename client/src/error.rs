//! What a call to the API may fail with.
//!
//! [`Error::Api`] carries the server's `Status`; everything else never reached an answer.

use serde::{Deserialize, Serialize};

pub type Result<T> = std::result::Result<T, Error>;

/// The `Status` object of a failed request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// `Success` or `Failure`.
    pub status: String,
    /// Machine-readable reason, such as `NotFound`.
    pub reason: String,
    /// Text for people.
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
}

/// What a `Status` is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

/// One cause of a failure, such as one invalid field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusCause {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a failure; whether to retry depends on its reason.
    #[error("{}", .0.message)]
    Api(Box<Status>),
    /// The request did not get an answer; retrying may help.
    #[error("cannot reach the API server")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not what was asked for; retrying will not help.
    #[error("cannot decode the answer of {path}")]
    Decode { path: String, source: serde_json::Error },
    /// The request could not be written; retrying will not help.
    #[error("cannot encode the request")]
    Encode(#[source] serde_json::Error),
    /// The request's address or headers are malformed; retrying will not help.
    #[error("malformed request")]
    Request(#[from] http::Error),
    /// The kubeconfig or the in-cluster environment is unusable.
    #[error("invalid configuration: {0}")]
    Config(String),
}

impl Error {
    /// An API failure made here, where a local check stands for the server's.
    pub fn api(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Error::Api(Box::new(Status {
            code,
            status: "Failure".into(),
            reason: reason.into(),
            message: message.into(),
            details: None,
        }))
    }

    /// The server's `Status`, when it answered.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Api(status) => Some(status),
            _ => None,
        }
    }

    fn is(&self, code: u16, reason: &str) -> bool {
        self.status().is_some_and(|status| status.reason == reason || (status.reason.is_empty() && status.code == code))
    }

    pub fn is_not_found(&self) -> bool {
        self.is(404, "NotFound")
    }

    /// The object changed since it was read.
    pub fn is_conflict(&self) -> bool {
        self.is(409, "Conflict")
    }

    pub fn is_already_exists(&self) -> bool {
        self.is(409, "AlreadyExists")
    }

    /// The resource version asked for is no longer kept.
    pub fn is_gone(&self) -> bool {
        self.status().is_some_and(|status| status.code == 410 || status.reason == "Gone" || status.reason == "Expired")
    }

    pub fn is_invalid(&self) -> bool {
        self.is(422, "Invalid")
    }

    pub fn is_forbidden(&self) -> bool {
        self.is(403, "Forbidden")
    }

    pub fn is_unauthorized(&self) -> bool {
        self.is(401, "Unauthorized")
    }

    pub fn is_bad_request(&self) -> bool {
        self.is(400, "BadRequest")
    }

    pub fn is_method_not_supported(&self) -> bool {
        self.is(405, "MethodNotAllowed")
    }

    pub fn is_too_many_requests(&self) -> bool {
        self.is(429, "TooManyRequests")
    }

    /// Whether the namespace of a create is being deleted, which retrying cannot help.
    pub fn is_namespace_terminating(&self) -> bool {
        self.has_cause("NamespaceTerminating")
    }

    /// Whether the failure names this cause.
    pub fn has_cause(&self, reason: &str) -> bool {
        self.status()
            .and_then(|status| status.details.as_ref())
            .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == reason))
    }

    /// The whole chain in one line, for logs.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(inner) = source {
            text += &format!(": {inner}");
            source = inner.source();
        }
        text
    }
}

impl Status {
    /// Reads the body of a failed answer; a body that is no `Status` becomes the message.
    pub(crate) fn from_answer(code: u16, body: &[u8]) -> Self {
        if let Ok(status) = serde_json::from_slice::<Status>(body)
            && status.status == "Failure"
        {
            return Status { code: if status.code == 0 { code } else { status.code }, ..status };
        }
        let text = String::from_utf8_lossy(&body[..body.len().min(2048)]).trim().to_string();
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            406 => "NotAcceptable",
            409 => "Conflict",
            410 => "Gone",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Status {
            code,
            status: "Failure".into(),
            reason: reason.into(),
            message: if text.is_empty() { format!("the server answered {code}") } else { text },
            details: None,
        }
    }
}
