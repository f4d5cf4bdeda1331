//! The component's own HTTPS server on 10257: health and metrics, guarded as upstream guards them.

use std::net::SocketAddr;

use client::Client;
use client::delegated::Delegated;
use component_base::clock::SharedClock;
use component_base::health::Checks;
use component_base::metrics::Registry;
use component_base::pki::{Profile, self_signed};
use component_base::{serving, tls};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Serving;

/// What is served beside the pages that tell of it.
const PATHS: [&str; 4] = ["/healthz", "/livez", "/metrics", "/readyz"];

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("serving certificate")]
    Tls(#[from] tls::Error),
    #[error("serving certificate")]
    Pki(#[from] component_base::pki::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
}

/// Starts serving; answers once the port is open.
pub async fn start(
    config: &Serving,
    client: Client,
    checks: &[Checks],
    metrics: &Registry,
    clock: SharedClock,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    if config.secure_port == 0 {
        return Ok(());
    }
    let cert = match (&config.tls_cert_file, &config.tls_private_key_file) {
        (Some(cert), Some(key)) => tls::ServingCert::from_files(cert, key)?,
        _ => tls::ServingCert::from_pair(&self_signed(&Profile::server(
            "kube-controller-manager",
            &["localhost", "127.0.0.1"],
        ))?)?,
    };
    let authority = config.client_ca_file.as_deref().map(tls::ClientAuthority::from_file).transpose()?;
    let reviewer = match config.authorization_kubeconfig.as_ref().or(config.authentication_kubeconfig.as_ref()) {
        Some(path) => Client::from_kubeconfig(Some(path), None).await?,
        None => client,
    };
    let tls_config = tls::live_server_config(cert.clone(), authority.as_ref())?;
    let pages = config.zpages.pages("kube-controller-manager", clock.clone(), PATHS);
    let router = metrics.router().merge(pages.router());
    let router = checks.iter().fold(router, |router, checks| router.merge(checks.router()));
    let open: Vec<&str> = config.always_allow_paths.iter().map(String::as_str).collect();
    let router = Delegated::new(reviewer, authority, true, clock).protect(router, &open);
    let address = SocketAddr::new(config.bind_address, config.secure_port);
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    tracing::info!("Serving securely on {address}");
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            tokio::select! {
                () = cert.watch() => {}
                () = shutdown.cancelled() => {}
            }
        }
    });
    tokio::spawn(serving::serve(listener, tls_config, router, serving::Options::default(), shutdown));
    Ok(())
}
