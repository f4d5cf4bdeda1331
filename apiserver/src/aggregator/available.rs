//! The condition Available of an APIService with a Service behind it: the Service is there, listens on
//! the port, has endpoints, and somebody answers discovery there.

use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use axum::body::Body;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::sync::Arc;

use super::routes::{ApiService, ServiceReference, condition};
use super::{forward, resolve};
use crate::request::UserInfo;
use crate::server::{Server, in_process};

/// As whom the server asks for discovery documents: access is certain.
pub fn aggregator_user() -> UserInfo {
    UserInfo {
        name: "system:kube-aggregator".to_string(),
        groups: vec![crate::request::user::MASTERS.to_string()],
        ..UserInfo::default()
    }
}

/// The request should happen quickly.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 5;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    fn new(status: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }

    /// Whether requests may be sent there.
    pub fn available(&self) -> bool {
        self.status == "True"
    }
}

/// Looks at everything once.
pub async fn check(server: &Arc<Server>, remote: &ApiService) -> Verdict {
    let Some(reference) = &remote.service else {
        return Verdict::new("True", "Local", "Local APIServices are always available");
    };
    if let Some(verdict) = backed(server, reference).await {
        return verdict;
    }
    match discover(server, remote, reference).await {
        Ok(()) => Verdict::new("True", "Passed", "all checks passed"),
        Err(error) => Verdict::new("False", "FailedDiscoveryCheck", error),
    }
}

/// What is wrong with the Service and its endpoints, if anything is.
async fn backed(server: &Server, reference: &ServiceReference) -> Option<Verdict> {
    let (name, namespace) = (&reference.name, &reference.namespace);
    let Some(service) = resolve::service(server, reference) else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Some(Verdict::new("False", "ServiceNotFound", message));
    };
    if service.str_at(&["spec", "type"]).unwrap_or("ClusterIP") != "ClusterIP" {
        return None;
    }
    let port = service
        .list_at(&["spec", "ports"])
        .iter()
        .find(|port| port.i64_at(&["port"]) == Some(i64::from(reference.port)));
    let Some(port) = port else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {}", reference.port);
        return Some(Verdict::new("False", "ServicePortError", message));
    };
    let port_name = port.str_at(&["name"]).unwrap_or_default();
    let slices = match resolve::slices(server, reference).await {
        Ok(slices) => slices,
        Err(error) => {
            let message = format!("service/{name} in {namespace:?} cannot be checked due to: {error}");
            return Some(Verdict::new("Unknown", "EndpointsAccessError", message));
        }
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Verdict::new("False", "EndpointsNotFound", message));
    }
    if !slices.iter().any(|entry| is_active(&entry.tree(), port_name)) {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
        );
        return Some(Verdict::new("False", "MissingEndpoints", message));
    }
    None
}

/// Whether a slice has a ready endpoint and the port.
fn is_active(slice: &Value, port_name: &str) -> bool {
    let ready = |endpoint: &Value| endpoint.bool_at(&["conditions", "ready"]).unwrap_or(true);
    let has_port = |port: &Value| port.str_at(&["name"]) == Some(port_name) && port.i64_at(&["port"]).is_some();
    slice.list_at(&["endpoints"]).iter().any(ready) && slice.list_at(&["ports"]).iter().any(has_port)
}

/// Asks for the discovery document of the group version, a few times at once: one answer is enough.
async fn discover(server: &Arc<Server>, remote: &ApiService, reference: &ServiceReference) -> Result<(), String> {
    let path = if remote.name == "v1." {
        format!("/api/{}", remote.version)
    } else {
        format!("/apis/{}/{}", remote.group, remote.version)
    };
    let mut attempts: FuturesUnordered<_> = (0..ATTEMPTS)
        .map(|_| async {
            let authority = resolve::resolve(server, reference).await?;
            let url = format!("https://{authority}{path}");
            let answered = tokio::time::timeout(REQUEST_TIMEOUT, get(remote, &url, &aggregator_user(), &[])).await;
            match answered {
                Ok(Ok(answer)) if answer.code / 100 == 2 => Ok(()),
                Ok(Ok(answer)) => {
                    let error = format!("bad status from {url}: {}", answer.code);
                    Err(format!("failing or missing response from {url}: {error}"))
                }
                Ok(Err(error)) => Err(format!("failing or missing response from {url}: Get \"{url}\": {error}")),
                Err(_) => {
                    Err(format!("failing or missing response from {url}: Get \"{url}\": context deadline exceeded"))
                }
            }
        })
        .collect();
    let mut last = Ok(());
    while let Some(result) = attempts.next().await {
        if result.is_ok() {
            return Ok(());
        }
        last = result;
    }
    last
}

/// What an extension server answered.
pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: bytes::Bytes,
}

/// One GET as this user, read to its end; documents of extension servers may be large but not
/// without bound.
///
/// # Errors
/// Why there was no answer.
pub async fn get(
    remote: &ApiService,
    url: &str,
    user: &UserInfo,
    headers: &[(http::HeaderName, &str)],
) -> Result<Answer, String> {
    const LIMIT: usize = 64 << 20;
    let link = match &remote.link {
        Some(Ok(link)) => link,
        Some(Err(error)) => return Err(error.clone()),
        None => return Err("no service".to_string()),
    };
    let mut request = Request::get(url).body(Body::empty()).map_err(|error| error.to_string())?;
    forward::identify(request.headers_mut(), user);
    for (name, value) in headers {
        let value = http::HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        request.headers_mut().insert(name.clone(), value);
    }
    let answer = link.send(request).await?;
    let (parts, body) = answer.into_parts();
    let body = http_body_util::Limited::new(body, LIMIT).collect().await.map_err(|error| error.to_string())?;
    Ok(Answer { code: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() })
}

/// Writes a verdict into the object, unless it says so already; tells whether it changed.
///
/// # Errors
/// What the write was answered.
pub async fn write(server: &Arc<Server>, name: &str, object: &Value, verdict: &Verdict) -> Result<bool, Status> {
    let before = condition(object);
    let same = before.is_some_and(|before| {
        before.str_at(&["status"]) == Some(verdict.status)
            && before.str_at(&["reason"]) == Some(verdict.reason)
            && before.str_at(&["message"]) == Some(verdict.message.as_str())
    });
    if same {
        return Ok(false);
    }
    let kept = before.filter(|before| before.str_at(&["status"]) == Some(verdict.status));
    let since = kept
        .and_then(|before| before.str_at(&["lastTransitionTime"]))
        .map_or_else(|| server.timestamp(), str::to_string);
    let mut conditions: Vec<Value> = object.list_at(&["status", "conditions"]).to_vec();
    let now = json!({
        "type": "Available",
        "status": verdict.status,
        "lastTransitionTime": since,
        "reason": verdict.reason,
        "message": verdict.message,
    });
    match conditions.iter_mut().find(|condition| condition.str_at(&["type"]) == Some("Available")) {
        Some(condition) => *condition = now,
        None => conditions.push(now),
    }
    let mut changed = object.clone();
    changed.set_at(&["status", "conditions"], conditions.into());
    let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}/status");
    in_process::request(server, Method::PUT, &path, Some(&changed)).await?;
    tracing::info!(
        name,
        status = verdict.status,
        reason = verdict.reason,
        message = verdict.message,
        "changing APIService availability"
    );
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_slices() {
        let slice = |endpoints: Value, ports: Value| json!({"endpoints": endpoints, "ports": ports});
        let cases = [
            (json!([{"addresses": ["10.0.0.1"]}]), json!([{"name": "", "port": 443}]), true),
            (json!([{"conditions": {"ready": true}}]), json!([{"name": "", "port": 443}]), true),
            (json!([{"conditions": {"ready": false}}]), json!([{"name": "", "port": 443}]), false),
            (json!([{"conditions": {"ready": true}}]), json!([{"name": "other", "port": 443}]), false),
            (json!([{"conditions": {"ready": true}}]), json!([{"name": ""}]), false),
            (json!([]), json!([{"name": "", "port": 443}]), false),
        ];
        for (endpoints, ports, want) in cases {
            assert_eq!(is_active(&slice(endpoints.clone(), ports.clone()), ""), want, "{endpoints} {ports}");
        }
    }
}
