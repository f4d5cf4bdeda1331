//! `componentstatuses`, which nothing stores: each read asks the components how they are.
//!
//! Deprecated since 1.19, and served all the same. Where the scheduler and the controller manager listen is not
//! known to an API server; as upstream's, this one takes it that they are beside it, on their own ports.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use axum::body::Body;
use futures::future::join_all;
use http::Request;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use super::selection::Selection;
use crate::cache::{Entry, ResourceSpec};
use crate::proxy::Target;
use crate::registry::Served;
use crate::server::Server;

/// How long a component has to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// So much of an answer is shown, in bytes.
const MAX_ANSWER: usize = 10 << 10;

/// The ports of the components that have one, and the store, in the order of their names.
const COMPONENTS: [(&str, Option<u16>); 3] =
    [("controller-manager", Some(10257)), ("etcd-0", None), ("scheduler", Some(10259))];

/// What a component says of itself.
enum Health {
    /// It is well, in its own words.
    Good(String),
    /// It is not: why, as a message or as an error.
    Bad { message: String, error: String },
}

/// The components that a selection wants, all asked at once.
pub async fn list(server: &Server, served: &Served, selection: &Selection) -> Vec<Arc<Entry>> {
    let spec = spec(served);
    let asked = COMPONENTS.map(|(name, port)| {
        let spec = &spec;
        async move { entry(spec, served, name, health(server, port).await) }
    });
    let mut entries = join_all(asked).await;
    entries.retain(|entry| selection.matches(entry));
    entries
}

/// One component.
///
/// # Errors
/// 404 for any other name.
pub async fn get(server: &Server, served: &Served, name: &str) -> Result<Arc<Entry>, Status> {
    let Some((name, port)) = COMPONENTS.into_iter().find(|(known, _)| *known == name) else {
        // Upstream names the kind here.
        return Err(Status::not_found(&GroupResource::new("", "componentstatus"), name));
    };
    Ok(entry(&spec(served), served, name, health(server, port).await))
}

fn spec(served: &Served) -> Arc<ResourceSpec> {
    Arc::new(ResourceSpec::new("", &served.resource.plural, "", false))
}

fn entry(spec: &Arc<ResourceSpec>, served: &Served, name: &str, health: Health) -> Arc<Entry> {
    let mut condition = match health {
        Health::Good(message) => json!({"type": "Healthy", "status": "True", "message": message}),
        Health::Bad { message, error } => {
            json!({"type": "Healthy", "status": "False", "message": message, "error": error})
        }
    };
    if let Some(members) = condition.as_object_mut() {
        members.retain(|_, value| value.as_str() != Some(""));
    }
    let object = json!({
        "apiVersion": served.api_version(),
        "kind": &*served.resource.kind,
        "metadata": {"name": name},
        "conditions": [condition],
    });
    Entry::unstored(spec, name, &object)
}

async fn health(server: &Server, port: Option<u16>) -> Health {
    let Some(port) = port else {
        let asked = tokio::time::timeout(PATIENCE, server.cache.storage().healthy()).await;
        return match asked {
            Ok(Ok(())) => Health::Good("ok".into()),
            Ok(Err(error)) => Health::Bad { message: String::new(), error: error.to_string() },
            Err(_) => Health::Bad { message: String::new(), error: "context deadline exceeded".into() },
        };
    };
    let target = Target { host: "127.0.0.1".into(), port, tls: true, kubelet: false };
    let url = format!("https://{}/healthz", target.authority());
    let bad = |message: String| Health::Bad { message, error: String::new() };
    match tokio::time::timeout(PATIENCE, ask(server, &target)).await {
        Ok(Ok((code, body))) if (200..400).contains(&code) => Health::Good(body),
        Ok(Ok((code, _))) => bad(format!("HTTP probe failed with statuscode: {code}")),
        Ok(Err(why)) => bad(format!("Get {url:?}: {why}")),
        Err(_) => bad(format!("Get {url:?}: context deadline exceeded")),
    }
}

async fn ask(server: &Server, target: &Target) -> Result<(u16, String), String> {
    let request = Request::get("/healthz")
        .header(HOST, target.authority())
        .header(USER_AGENT, "kube-probe/1.36")
        .header(ACCEPT, "*/*")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let answer = server.kubelet.try_send(target, request).await?;
    let code = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    Ok((code, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}
