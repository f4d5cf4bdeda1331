//! Authentication and authorization that a component's own server delegates to the API server:
//! client certificates against a CA, tokens by TokenReview, permission by SubjectAccessReview.
//!
//! Answers are kept for ten seconds, as upstream keeps them, so that a scrape costs no request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use component_base::clock::SharedClock;
use component_base::serving::Peer;
use component_base::tls::ClientAuthority;
use http::{HeaderMap, Method, StatusCode, header};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Result;
use crate::meta::null_default;
use crate::resources::{SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS};
use crate::transport::Client;

/// An authenticated user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    pub username: String,
    #[serde(deserialize_with = "null_default")]
    pub groups: Vec<String>,
    pub uid: String,
}

/// What a user wants to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Attributes {
    /// A path that is no resource, such as `/metrics`.
    NonResource {
        path: String,
        verb: String,
    },
    Resource {
        verb: String,
        group: String,
        resource: String,
        subresource: String,
        namespace: String,
        name: String,
    },
}

const KEEP: Duration = Duration::from_secs(10);
/// Bounds the memory an attacker with many tokens can take.
const MAX_KEPT: usize = 4096;

type Kept<K, V> = Mutex<HashMap<K, (V, Duration)>>;

/// The delegation of one server.
pub struct Delegated {
    client: Client,
    authority: Option<ClientAuthority>,
    /// Requests without credentials become `system:anonymous` instead of 401.
    anonymous: bool,
    clock: SharedClock,
    tokens: Kept<String, Option<User>>,
    permissions: Kept<(User, Attributes), bool>,
}

impl Delegated {
    pub fn new(client: Client, authority: Option<ClientAuthority>, anonymous: bool, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { client, authority, anonymous, clock, tokens: Mutex::default(), permissions: Mutex::default() })
    }

    fn kept<K: std::hash::Hash + Eq, V: Clone>(&self, kept: &Kept<K, V>, key: &K) -> Option<V> {
        let now = self.clock.monotonic();
        kept.lock().get(key).filter(|(_, at)| now.saturating_sub(*at) < KEEP).map(|(value, _)| value.clone())
    }

    fn keep<K: std::hash::Hash + Eq, V>(&self, kept: &Kept<K, V>, key: K, value: V) {
        let now = self.clock.monotonic();
        let mut kept = kept.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (_, at)| now.saturating_sub(*at) < KEEP);
        }
        if kept.len() < MAX_KEPT {
            kept.insert(key, (value, now));
        }
    }

    /// Who asks; `None` means 401.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Result<Option<User>> {
        if let (Some(authority), Some(peer)) = (&self.authority, peer)
            && !peer.certificates().is_empty()
        {
            match authority.verify(peer.certificates()) {
                Ok(identity) => {
                    let mut groups = identity.organizations;
                    groups.push("system:authenticated".into());
                    return Ok(Some(User { username: identity.common_name, groups, uid: String::new() }));
                }
                Err(error) => tracing::debug!(%error, "client certificate refused"),
            }
        }
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim().to_string());
        match bearer {
            Some(token) if !token.is_empty() => self.review(token).await,
            _ if self.anonymous => Ok(Some(User {
                username: "system:anonymous".into(),
                groups: vec!["system:unauthenticated".into()],
                uid: String::new(),
            })),
            _ => Ok(None),
        }
    }

    async fn review(&self, token: String) -> Result<Option<User>> {
        if let Some(known) = self.kept(&self.tokens, &token) {
            return Ok(known);
        }
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": { "token": token },
        });
        let answer: Value = self.client.create(&TOKEN_REVIEWS, None, &body).await?;
        let user = (answer["status"]["authenticated"] == true)
            .then(|| serde_json::from_value(answer["status"]["user"].clone()).ok())
            .flatten();
        self.keep(&self.tokens, token, user.clone());
        Ok(user)
    }

    /// Whether the user may.
    pub async fn authorize(&self, user: &User, attributes: &Attributes) -> Result<bool> {
        // As upstream: the API server would say yes, and must not be needed for that.
        if user.groups.iter().any(|group| group == "system:masters") {
            return Ok(true);
        }
        let key = (user.clone(), attributes.clone());
        if let Some(known) = self.kept(&self.permissions, &key) {
            return Ok(known);
        }
        let mut spec = json!({ "user": user.username, "groups": user.groups, "uid": user.uid });
        match attributes {
            Attributes::NonResource { path, verb } => {
                spec["nonResourceAttributes"] = json!({ "path": path, "verb": verb });
            }
            Attributes::Resource { verb, group, resource, subresource, namespace, name } => {
                spec["resourceAttributes"] = json!({
                    "verb": verb, "group": group, "resource": resource, "version": "v1",
                    "subresource": subresource, "namespace": namespace, "name": name,
                });
            }
        }
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec,
        });
        let answer: Value = self.client.create(&SUBJECT_ACCESS_REVIEWS, None, &body).await?;
        let allowed = answer["status"]["allowed"] == true;
        self.keep(&self.permissions, key, allowed);
        Ok(allowed)
    }

    /// Guards a component's router: paths in `open` need nothing, all others permission for the path.
    pub fn protect(self: Arc<Self>, router: Router, open: &[&str]) -> Router {
        let open: Arc<[String]> = open.iter().map(|path| path.to_string()).collect();
        router.layer(axum::middleware::from_fn_with_state((self, open), guard))
    }
}

async fn guard(
    State((delegated, open)): State<(Arc<Delegated>, Arc<[String]>)>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let is_open = open
        .iter()
        .any(|known| path == known || path.strip_prefix(known.as_str()).is_some_and(|rest| rest.starts_with('/')));
    if is_open {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().cloned();
    let user = match delegated.authenticate(request.headers(), peer.as_ref()).await {
        Ok(Some(user)) => user,
        Ok(None) => return (StatusCode::UNAUTHORIZED, "Unauthorized\n").into_response(),
        Err(error) => {
            tracing::error!(error = error.chain(), "cannot authenticate a request");
            return (StatusCode::UNAUTHORIZED, "Unauthorized\n").into_response();
        }
    };
    let attributes = Attributes::NonResource { path: path.to_string(), verb: verb(request.method()).to_string() };
    match delegated.authorize(&user, &attributes).await {
        Ok(true) => next.run(request).await,
        Ok(false) => {
            let text =
                format!("forbidden: User \"{}\" cannot {} path \"{path}\"\n", user.username, verb(request.method()));
            (StatusCode::FORBIDDEN, text).into_response()
        }
        Err(error) => {
            tracing::error!(error = error.chain(), "cannot authorize a request");
            (StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error\n").into_response()
        }
    }
}

/// The verb RBAC knows a method by, for paths that are no resources.
pub fn verb(method: &Method) -> String {
    method.as_str().to_ascii_lowercase()
}

/// A loopback peer, for requests that come from within the process.
pub fn local_peer() -> Peer {
    Peer::new(SocketAddr::from(([127, 0, 0, 1], 0)), Vec::new())
}
