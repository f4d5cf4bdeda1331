//! The kubelet's own servers: HTTPS on 10250 for the API server (logs, exec, attach, port-forward, pods,
//! metrics) and plain health on 10248.
//!
//! Every request but health is authenticated (client certificate, or token by TokenReview) and
//! authorized (`system:masters`, the API server's own certificate, or SubjectAccessReview).

mod cadvisor;
mod info;
mod logs;
mod ports;
mod streaming;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use client::Client;
use client::delegated::{Attributes, Delegated};
use component_base::clock::SharedClock;
use component_base::pki::{self, Pair, Profile};
use component_base::serving::{self, Peer};
use component_base::tls::{self, ClientAuthority, ServingCert};
use component_base::zpages;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::certificates::{self, Rotation, Store};
use crate::config::Config;
use crate::cri::Runtime;
use crate::node::facts::Machine;
use crate::settings::Settings;
use crate::status;
use crate::volume::Volumes;
use crate::workers::Workers;

/// The certificate that the API server shows kubelets.
const API_SERVER: &str = "kube-apiserver-kubelet-client";

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}")]
    Listen { address: String, source: std::io::Error },
    #[error("cannot set up TLS")]
    Tls(#[from] tls::Error),
    #[error("cannot make a serving certificate")]
    Pki(#[from] pki::Error),
}

/// What handlers work with.
pub struct Server {
    pub config: Config,
    pub node_name: String,
    pub client: Client,
    pub cri: Arc<dyn Runtime>,
    pub workers: Arc<Workers>,
    pub volumes: Arc<Volumes>,
    pub statuses: status::Manager,
    pub settings: Arc<Settings>,
    pub machine: Machine,
    pub clock: SharedClock,
}

/// Listens, then serves in the background until shutdown.
pub async fn start(server: Arc<Server>, shutdown: CancellationToken) -> Result<(), Error> {
    let file = &server.config.file;
    if file.healthz_port != 0 {
        let listener = listen(&file.healthz_bind_address, file.healthz_port).await?;
        let router =
            Router::new().route("/healthz", get(|| async { "ok" })).route("/healthz/{check}", get(|| async { "ok" }));
        tokio::spawn(serving::serve(listener, None, router, serving::Options::default(), shutdown.clone()));
    }
    if !file.enable_server {
        return Ok(());
    }
    let authority = match file.client_ca_file.as_str() {
        "" => None,
        path => Some(ClientAuthority::from_file(Path::new(path))?),
    };
    let config = tls::live_server_config(certificate(&server, &shutdown)?, authority.as_ref())?;
    let delegated = Delegated::new(server.client.clone(), authority, file.anonymous_auth, server.clock.clone());
    let listener = listen(&file.address, file.port).await?;
    let router = router(server.clone(), delegated);
    tokio::spawn(serving::serve(listener, config, router, serving::Options::default(), shutdown));
    Ok(())
}

async fn listen(address: &str, port: u16) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen { address: format!("{address}:{port}"), source };
    let ip = address.parse().map_err(|e| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, e)))?;
    TcpListener::bind(SocketAddr::new(ip, port)).await.map_err(failed)
}

/// The certificate given, the one kept from before, or a new self-signed one.
fn certificate(server: &Server, shutdown: &CancellationToken) -> Result<ServingCert, Error> {
    let file = &server.config.file;
    if file.server_tls_bootstrap && file.tls_cert_file.is_empty() {
        return Ok(requested(server, shutdown));
    }
    if !file.tls_cert_file.is_empty() && !file.tls_private_key_file.is_empty() {
        let cert = ServingCert::from_files(Path::new(&file.tls_cert_file), Path::new(&file.tls_private_key_file))?;
        tokio::spawn(cert.clone().watch());
        return Ok(cert);
    }
    let directory = &server.config.cert_dir;
    let pair = match Pair::read(directory, "kubelet")? {
        Some(pair) => pair,
        None => {
            let mut names = vec![server.node_name.as_str()];
            names.extend(server.settings.facts.host_ips.iter().map(String::as_str));
            let pair = pki::self_signed(&Profile::server(&server.node_name, &names))?;
            pair.write(directory, "kubelet")?;
            pair
        }
    };
    Ok(ServingCert::from_pair(&pair)?)
}

/// A certificate that the cluster's signer gives (`serverTLSBootstrap`); until then there is none.
fn requested(server: &Server, shutdown: &CancellationToken) -> ServingCert {
    let store = Store::new(&server.config.cert_dir, "kubelet-server");
    let cert = ServingCert::later();
    if let Some(pair) = store.valid(server.clock.now()).and_then(|_| store.current())
        && let Err(error) = cert.replace(&pair)
    {
        tracing::error!(error = &error as &dyn std::error::Error, "the kept serving certificate is of no use");
    }
    let mut names = vec![server.node_name.clone()];
    names.extend(server.settings.facts.host_ips.iter().cloned());
    let (node_name, fresh) = (server.node_name.clone(), cert.clone());
    let rotation = Rotation {
        client: server.client.clone(),
        store,
        ask: Box::new(move || Some(certificates::serving_ask(&node_name, names.clone()))),
        initial: None,
        fresh: Box::new(move |pair| {
            if let Err(error) = fresh.replace(pair) {
                tracing::error!(error = &error as &dyn std::error::Error, "the new serving certificate is of no use");
            }
        }),
        clock: server.clock.clone(),
    };
    tokio::spawn(rotation.run(shutdown.clone()));
    cert
}

/// What is served beside the pages that tell of it.
const PATHS: [&str; 11] = [
    "/attach",
    "/configz",
    "/containerLogs",
    "/exec",
    "/healthz",
    "/metrics",
    "/pods",
    "/portForward",
    "/run",
    "/runningpods",
    "/stats",
];

fn router(server: Arc<Server>, delegated: Arc<Delegated>) -> Router {
    let guard = Guard { server: server.clone(), delegated };
    // As upstream, none of what is for debugging.
    let pages = match server.config.file.enable_debugging_handlers {
        true => server.config.zpages.pages("kubelet", server.clock.clone(), PATHS).router(),
        false => Router::new(),
    };
    Router::new()
        .route("/pods", get(info::pods))
        .route("/runningpods/", get(info::running_pods))
        .route("/configz", get(info::configz))
        .route("/metrics", get(info::metrics))
        .route("/metrics/cadvisor", get(cadvisor::metrics))
        .route("/metrics/resource", get(info::resource_metrics))
        .route("/stats/summary", get(info::summary))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container_logs))
        .route("/run/{namespace}/{pod}/{container}", post(streaming::run))
        .route("/exec/{namespace}/{pod}/{container}", any(streaming::exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(streaming::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(streaming::attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", any(streaming::attach))
        .route("/portForward/{namespace}/{pod}", any(streaming::port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", any(streaming::port_forward))
        .route("/healthz", get(|| async { "ok" }))
        .route("/healthz/{check}", get(|| async { "ok" }))
        .with_state(server)
        .merge(pages)
        .layer(axum::middleware::from_fn_with_state(guard, authorize))
}

#[derive(Clone)]
struct Guard {
    server: Arc<Server>,
    delegated: Arc<Delegated>,
}

/// The subresource of nodes that a path stands for.
fn subresource(path: &str) -> &'static str {
    let below = |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    if below("/stats") {
        "stats"
    } else if below("/metrics") {
        "metrics"
    } else if below("/logs") {
        "log"
    } else if below("/checkpoint") {
        "checkpoint"
    } else if below(zpages::STATUSZ) {
        "statusz"
    } else if below(zpages::FLAGZ) {
        "configz"
    } else {
        "proxy"
    }
}

/// The finer subresource that is enough for a path (KEP-2862).
fn fine(path: &str) -> Option<&'static str> {
    match path.split('/').nth(1) {
        Some("pods" | "runningpods") => Some("pods"),
        Some("healthz") => Some("healthz"),
        Some("configz") => Some("configz"),
        _ => None,
    }
}

async fn authorize(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let user = match guard.delegated.authenticate(request.headers(), peer.as_ref()).await {
        Ok(Some(user)) => user,
        Ok(None) => return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response(),
        Err(error) => {
            tracing::warn!(error = %error.chain(), "unable to authenticate the request");
            return (StatusCode::UNAUTHORIZED, "Unauthorized").into_response();
        }
    };
    let path = request.uri().path().to_owned();
    let trusted = guard.server.config.file.authorization_mode == "AlwaysAllow"
        || user.username == API_SERVER
        || user.groups.iter().any(|group| group == "system:masters");
    if trusted {
        return next.run(request).await;
    }
    let verb = match request.method().as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    };
    let coarse = subresource(&path);
    for subresource in fine(&path).into_iter().chain([coarse]) {
        let attributes = Attributes::Resource {
            verb: verb.to_owned(),
            group: String::new(),
            resource: "nodes".into(),
            subresource: subresource.into(),
            namespace: String::new(),
            name: guard.server.node_name.clone(),
        };
        match guard.delegated.authorize(&user, &attributes).await {
            Ok(true) => return next.run(request).await,
            Ok(false) => {}
            Err(error) => {
                let text = format!(
                    "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                    user.username
                );
                tracing::warn!(error = %error.chain(), "{text}");
                return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
            }
        }
    }
    let text = format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{coarse}])", user.username);
    (StatusCode::FORBIDDEN, text).into_response()
}

/// An answer in plain text.
fn refuse(status: StatusCode, text: impl Into<String>) -> Response {
    (status, text.into()).into_response()
}

/// The bytes of a query parameter, `+` and percent signs undone.
fn query(request: &Request) -> Vec<(String, String)> {
    let text = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_map_to_subresources() {
        for (path, expected, finer) in [
            ("/stats/summary", "stats", None),
            ("/metrics/resource", "metrics", None),
            ("/metricsx", "proxy", None),
            ("/exec/a/b/c", "proxy", None),
            ("/pods", "proxy", Some("pods")),
            ("/runningpods/", "proxy", Some("pods")),
            ("/healthz/ping", "proxy", Some("healthz")),
            ("/statusz", "statusz", None),
            ("/flagz", "configz", None),
        ] {
            assert_eq!((subresource(path), fine(path)), (expected, finer), "{path}");
        }
    }
}
