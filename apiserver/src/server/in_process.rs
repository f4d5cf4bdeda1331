//! The server as a service without a socket: for clients in the same process, and for itself.

use std::convert::Infallible;
use std::sync::Arc;

use apimachinery::status::Status;
use axum::Router;
use axum::body::Body;
use component_base::serving::Answers;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::service_fn;

use super::Server;
use super::walk::{InProcessUser, walk};
use crate::request::UserInfo;

/// A router that answers requests as this user, whatever credentials they carry.
pub fn router(server: Arc<Server>, user: UserInfo) -> Router {
    let user = Arc::new(user);
    Router::new().fallback_service(service_fn(move |mut request: Request<Body>| {
        request.extensions_mut().insert(InProcessUser(user.clone()));
        let server = server.clone();
        async move { Ok::<_, Infallible>(walk(server, request).await) }
    }))
}

/// Routers for components of the same process, each acting under the name that its certificate or
/// token would give it.
#[derive(Clone)]
pub struct Identities(Arc<Server>);

impl Identities {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self(server)
    }

    /// As a user who is in no special group.
    pub fn user(&self, name: &str) -> Router {
        router(self.0.clone(), UserInfo::new(name, &[]))
    }

    /// As a service account.
    pub fn service_account(&self, namespace: &str, name: &str) -> Router {
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
        router(self.0.clone(), UserInfo::new(&format!("system:serviceaccount:{namespace}:{name}"), &groups))
    }
}

/// What is behind the sockets: requests say who they are themselves.
pub fn public(server: Arc<Server>) -> impl Answers {
    service_fn(move |mut request: Request<Body>| {
        // Nobody on a socket may claim to be in this process.
        request.extensions_mut().remove::<InProcessUser>();
        let server = server.clone();
        // As long as the request, not as the connection, which may be idle.
        Box::pin(async move { Ok::<_, Infallible>(walk(server, request).await) })
    })
}

/// One request of the server to itself, through the whole walk, as `system:apiserver`.
///
/// # Errors
/// The Status that was answered.
pub async fn request(server: &Arc<Server>, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Status> {
    send(server, method, path, "application/json", body).await
}

/// A merge patch of the server to itself.
///
/// # Errors
/// As [`request`].
pub async fn merge_patch(server: &Arc<Server>, path: &str, patch: &Value) -> Result<Value, Status> {
    send(server, Method::PATCH, path, "application/merge-patch+json", Some(patch)).await
}

/// A forced server-side apply of the server to itself.
///
/// # Errors
/// As [`request`].
pub async fn apply(server: &Arc<Server>, path: &str, object: &Value, manager: &str) -> Result<Value, Status> {
    let path = format!("{path}?fieldManager={manager}&force=true");
    send(server, Method::PATCH, &path, "application/apply-patch+yaml", Some(object)).await
}

async fn send(
    server: &Arc<Server>,
    method: Method,
    path: &str,
    content_type: &str,
    body: Option<&Value>,
) -> Result<Value, Status> {
    let mut builder =
        Request::builder().method(method).uri(path).header(http::header::USER_AGENT, "kube-apiserver/v1.36");
    if body.is_some() {
        builder = builder.header(http::header::CONTENT_TYPE, content_type);
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let mut request =
        builder.body(body).map_err(|error| Status::internal(format!("bad request to itself: {error}")))?;
    request.extensions_mut().insert(InProcessUser(Arc::new(UserInfo::apiserver())));
    let answer = walk(server.clone(), request).await;
    let code = answer.status();
    let bytes = answer
        .into_body()
        .collect()
        .await
        .map_err(|error| Status::internal(format!("reading the own answer: {error}")))?
        .to_bytes();
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| Status::internal(format!("reading the own answer: {error}")))?;
    if code.is_success() {
        return Ok(value);
    }
    Err(Status::from_value(&value).unwrap_or_else(|| Status::internal(code)))
}
