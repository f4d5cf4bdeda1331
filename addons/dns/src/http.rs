//! What others look at: `/health`, `/ready` and `/metrics`, each at the port that CoreDNS has it at. The last port has
//! them all, for nodes whose other ports are better left to pods on their network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use component_base::serving;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::answers::Answers;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::server::Error;

/// The process runs.
pub fn health() -> Router {
    Router::new().route("/health", get(|| async { "OK" }))
}

/// Everything that there is has been received, and nobody is about to end the process.
pub fn ready(answers: Arc<Answers>, shutdown: CancellationToken) -> Router {
    let ready = move || -> Response {
        if answers.is_ready() && !shutdown.is_cancelled() {
            "OK".into_response()
        } else {
            // What is not ready, by the name of its plugin.
            (StatusCode::SERVICE_UNAVAILABLE, "kubernetes").into_response()
        }
    };
    Router::new().route("/ready", get(move || std::future::ready(ready())))
}

/// Starts the servers that the configuration asks for, at every address.
///
/// # Errors
/// A port that cannot be listened on.
pub async fn serve(
    config: &Config,
    answers: &Arc<Answers>,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let ready = ready(answers.clone(), shutdown.clone());
    let servers = [
        (config.health_port, health()),
        (config.ready_port, ready.clone()),
        (config.metrics_port, metrics.registry().router().merge(health()).merge(ready)),
    ];
    for (port, router) in servers {
        let Some(port) = port else { continue };
        for address in &config.bind_addresses {
            let listener = listen(*address, port).await?;
            let options = serving::Options::default();
            tokio::spawn(serving::serve(listener, None, router.clone(), options, shutdown.clone()));
        }
    }
    Ok(())
}

async fn listen(address: IpAddr, port: u16) -> Result<TcpListener, Error> {
    let address = SocketAddr::new(address, port);
    TcpListener::bind(address).await.map_err(|source| Error::Listen(address, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::config::PodRecords;
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt as _;

    async fn get(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_only_when_everything_is_known_and_until_the_end() {
        let cluster = Arc::new(Cluster::default());
        let zone = hickory_proto::rr::Name::from_ascii("cluster.local.").unwrap();
        let answers = Arc::new(Answers::new(cluster.clone(), zone, PodRecords::Insecure, 30, Vec::new()));
        let shutdown = CancellationToken::new();
        let router = ready(answers, shutdown.clone());
        assert_eq!(get(&router, "/ready").await, (StatusCode::SERVICE_UNAVAILABLE, "kubernetes".to_owned()));
        cluster.set_synced();
        assert_eq!(get(&router, "/ready").await, (StatusCode::OK, "OK".to_owned()));
        shutdown.cancel();
        assert_eq!(get(&router, "/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&health(), "/health").await, (StatusCode::OK, "OK".to_owned()));
        assert_eq!(get(&health(), "/").await.0, StatusCode::NOT_FOUND);
    }
}
