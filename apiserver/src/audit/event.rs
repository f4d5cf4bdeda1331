//! One audit event, as `audit.k8s.io/v1` has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::gotext;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::policy::{Level, Stage};
use crate::request::UserInfo;

/// Text that is JSON already. Clones share it.
#[derive(Clone, Debug)]
pub struct Raw(Arc<RawValue>);

impl Raw {
    /// A tree as text.
    pub fn of(value: &Value) -> Option<Self> {
        RawValue::from_string(value.to_string()).ok().map(|raw| Self(raw.into()))
    }

    /// Bytes that are JSON; on one line, whatever they look like.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.contains(&b'\n') {
            return Self::of(&serde_json::from_slice(bytes).ok()?);
        }
        serde_json::from_slice::<Box<RawValue>>(bytes).ok().map(|raw| Self(raw.into()))
    }
}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

fn empty(text: &str) -> bool {
    text.is_empty()
}

fn micro<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.6}"))
}

/// A user as events name one.
#[derive(Clone, Debug, Default, Serialize)]
pub struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl From<&UserInfo> for User {
    fn from(user: &UserInfo) -> Self {
        let UserInfo { name, uid, groups, extra } = user.clone();
        Self { username: name, uid, groups, extra }
    }
}

/// How the request's user was established.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationMetadata {
    /// The verb that allowed the impersonation.
    pub impersonation_constraint: String,
}

/// What a request is about.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// The bounded part of a `Status`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ResponseStatus {
    /// Always there and empty.
    pub(super) metadata: BTreeMap<(), ()>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    #[serde(skip_serializing_if = "is_zero")]
    pub code: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(code: &u16) -> bool {
    *code == 0
}

impl ResponseStatus {
    /// An answer of this code.
    pub fn code(code: u16) -> Self {
        Self { code, ..Self::default() }
    }

    /// What a `Status` says that was answered, but for its code.
    pub fn of(status: &Value) -> Self {
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_string();
        Self {
            status: text("status"),
            message: text("message"),
            reason: text("reason"),
            details: status.get("details").cloned(),
            ..Self::default()
        }
    }
}

/// An event without its kind and version, which lists leave out.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub level: Level,
    #[serde(rename = "auditID")]
    pub audit_id: String,
    pub stage: Stage,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub verb: String,
    pub user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_metadata: Option<AuthenticationMetadata>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<ResponseStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Raw>,
    #[serde(serialize_with = "micro")]
    pub request_received_timestamp: Timestamp,
    #[serde(serialize_with = "micro")]
    pub stage_timestamp: Timestamp,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Event {
    /// The event as an item of a list.
    pub fn item(&self) -> String {
        // Only a map key that is no text can fail, and there is none.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// One line of the format `legacy`.
    pub fn line(&self) -> String {
        let list = |items: &[String]| items.iter().map(|item| gotext::quote(item)).collect::<Vec<_>>().join(",");
        let or = |text: &str, other: &str| gotext::quote(if empty(text) { other } else { text });
        let user = &self.user;
        let groups = if empty(&user.username) || user.groups.is_empty() { String::new() } else { list(&user.groups) };
        let (as_user, as_groups) = match &self.impersonated_user {
            None => ("<self>", "<lookup>".to_string()),
            Some(user) => (user.username.as_str(), list(&user.groups)),
        };
        let namespace = self.object_ref.as_ref().map_or("", |object| object.namespace.as_str());
        let response = self.response_status.as_ref().map_or("<deferred>".to_string(), |status| status.code.to_string());
        format!(
            "{} AUDIT: id={} stage={} ip={} method={} user={} groups={} as={} asgroups={} user-agent={} namespace={} uri={} response=\"{response}\"",
            self.request_received_timestamp,
            gotext::quote(&self.audit_id),
            gotext::quote(self.stage.as_str()),
            or(self.source_ips.first().map_or("", String::as_str), "<unknown>"),
            gotext::quote(&self.verb),
            or(&user.username, "<none>"),
            or(&groups, "<none>"),
            gotext::quote(as_user),
            gotext::quote(&as_groups),
            gotext::quote(&self.user_agent),
            or(namespace, "<none>"),
            gotext::quote(&self.request_uri),
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An event of a request that was answered.
    pub fn event(name: &str) -> Event {
        let received = "2026-01-02T03:04:05.123456789Z".parse().unwrap();
        Event {
            level: Level::Request,
            audit_id: "a".to_string(),
            stage: Stage::ResponseComplete,
            request_uri: format!("/api/v1/namespaces/default/pods/{name}"),
            verb: "get".to_string(),
            user: User::from(&UserInfo::new("ada", &["dev"])),
            impersonated_user: None,
            authentication_metadata: None,
            source_ips: vec!["10.0.0.1".to_string()],
            user_agent: "curl".to_string(),
            object_ref: Some(ObjectReference {
                resource: "pods".to_string(),
                namespace: "default".to_string(),
                name: name.to_string(),
                api_version: "v1".to_string(),
                ..ObjectReference::default()
            }),
            response_status: Some(ResponseStatus::code(200)),
            request_object: None,
            response_object: None,
            request_received_timestamp: received,
            stage_timestamp: received,
            annotations: [("k".to_string(), "v".to_string())].into(),
        }
    }

    #[test]
    fn is_written_as_upstream_writes_it() {
        let mut event = event("p");
        event.request_object = Raw::parse(b"{\n  \"kind\": \"Pod\"\n}");
        assert_eq!(
            event.item(),
            r#"{"level":"Request","auditID":"a","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/pods/p","verb":"get","user":{"username":"ada","groups":["dev","system:authenticated"]},"sourceIPs":["10.0.0.1"],"userAgent":"curl","objectRef":{"resource":"pods","namespace":"default","name":"p","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestObject":{"kind":"Pod"},"requestReceivedTimestamp":"2026-01-02T03:04:05.123456Z","stageTimestamp":"2026-01-02T03:04:05.123456Z","annotations":{"k":"v"}}"#
        );
        assert_eq!(
            event.line(),
            r#"2026-01-02T03:04:05.123456789Z AUDIT: id="a" stage="ResponseComplete" ip="10.0.0.1" method="get" user="ada" groups="\"dev\",\"system:authenticated\"" as="<self>" asgroups="<lookup>" user-agent="curl" namespace="default" uri="/api/v1/namespaces/default/pods/p" response="200""#
        );
        let nobody = Event { user: User::default(), object_ref: None, response_status: None, ..event };
        assert!(nobody.line().contains(r#"user="<none>" groups="<none>""#), "{}", nobody.line());
        assert!(nobody.line().ends_with(r#"response="<deferred>""#), "{}", nobody.line());
    }
}
