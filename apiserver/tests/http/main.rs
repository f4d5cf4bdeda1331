//! Requests to a whole server in this process: no socket, a real embedded store.

#![allow(clippy::unwrap_used, reason = "a fixture that fails fails its test")]

mod admission;
mod aggregation;
mod allocation;
mod audit;
mod authentication;
mod authorization;
mod bad_input;
mod bombs;
mod cbor;
mod cost;
mod custom;
mod drain;
mod dynamic_admission;
mod encryption;
mod golden;
mod hostile;
mod hostile_webhooks;
mod identity;
mod lifecycle;
mod loops;
mod mutating_policies;
mod numbers;
mod oidc;
mod pod_certificates;
mod reload;
mod reviews;
mod tables;
mod unsafe_delete;
mod walks;
mod websocket;
mod zpages;

use std::sync::Arc;

use apiserver::config::{AuthorizationMode, StorageBackend};
use apiserver::storage::embedded::{Embedded, Options};
use apiserver::{Config, Handle, Server, UserInfo};
use axum::Router;
use axum::body::Body;
use component_base::serving::Answers;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A server on a store of its own that lives as long as the test.
pub struct Fixture {
    pub handle: Handle,
    router: Router,
    storage: Arc<Embedded>,
    _dir: Option<tempfile::TempDir>,
    _stop: tokio_util::sync::DropGuard,
}

/// What a request was answered.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
    pub text: String,
    pub warnings: Vec<String>,
}

impl Answer {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or(&self.text)
    }
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A server whose configuration differs.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            authorization_modes: vec![AuthorizationMode::Node, AuthorizationMode::Rbac],
            storage: StorageBackend::Embedded { data_dir: dir.path().into() },
            service_cluster_ip_ranges: vec!["10.96.0.0/16".parse().unwrap()],
            reconcile_endpoints: false,
            allow_privileged: true,
            ..Config::default()
        };
        change(&mut config);
        let storage = Embedded::open(Options { sync: false, ..Options::new(dir.path()) }).unwrap();
        Self::on(config, Arc::new(storage), Some(dir)).await
    }

    /// Another server on the same store.
    pub async fn twin(&self, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            authorization_modes: vec![AuthorizationMode::Rbac],
            reconcile_endpoints: false,
            allow_privileged: true,
            ..Config::default()
        };
        change(&mut config);
        Self::on(config, self.storage.clone(), None).await
    }

    async fn on(config: Config, storage: Arc<Embedded>, dir: Option<tempfile::TempDir>) -> Self {
        let stop = CancellationToken::new();
        let handle = Server::start_in_process(config, storage.clone(), stop.clone()).await.unwrap();
        let router = handle.admin_router();
        Self { handle, router, storage, _dir: dir, _stop: stop.drop_guard() }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        Self::send_to(self.router.clone(), request).await
    }

    pub async fn send_to(service: impl Answers, request: Request<Body>) -> Answer {
        let answer = service.oneshot(request).await.unwrap();
        let code = answer.status().as_u16();
        let warnings =
            answer.headers().get_all("warning").iter().map(|value| value.to_str().unwrap().to_string()).collect();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { code, body, text, warnings }
    }

    pub async fn ask(&self, method: &str, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, "application/json", body.to_string()).await
    }

    /// Anything, as somebody who is not an administrator.
    pub async fn ask_as(&self, user: UserInfo, method: &str, path: &str, body: &Value) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        let mut content = Body::empty();
        if !body.is_null() {
            request = request.header("content-type", "application/json");
            content = Body::from(body.to_string());
        }
        Self::send_to(self.handle.router(user), request.body(content).unwrap()).await
    }

    /// As somebody who is not an administrator.
    pub async fn get_as(&self, user: UserInfo, path: &str) -> Answer {
        let request = Request::get(path).body(Body::empty()).unwrap();
        Self::send_to(self.handle.router(user), request).await
    }
}
