//! Connections to etcd, with a client certificate that may be renewed while they stand.
//!
//! Upstream reads the certificate in every handshake. Here an endpoint holds it, so the endpoints are replaced when the
//! files change: what runs on a connection goes on there, and whoever connects next shows the new certificate. The
//! authorities of servers are read once, as upstream reads them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use component_base::files::Watch;
use etcd_client::{BalancedChannelBuilder, Certificate, Channel, Client, ConnectOptions, Identity, TlsOptions};
use http::Uri;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use tonic::transport::channel::Change;

use super::{Error, Options, Result, translate};

/// Upstream's figures: a dead peer is noticed within 40 s, at worst.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

type Changes = Sender<Change<Uri, Endpoint>>;

/// Connects; follows the certificate's files until `stop`.
///
/// # Errors
/// [`Error::Unavailable`] if no endpoint answers or a file cannot be read.
pub async fn connect(options: &Options, stop: &CancellationToken) -> Result<Client> {
    let mut connect = ConnectOptions::new()
        .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
        .with_keep_alive_while_idle(true)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_require_leader(true);
    let ca = options.ca_file.as_deref().map(read).transpose()?.map(Certificate::from_pem);
    let files = options.cert_file.clone().zip(options.key_file.clone());
    // Watched from here on, so that nothing falls between reading and watching.
    let watch = files.as_ref().map(|(cert, key)| Watch::new(&[cert, key]));
    let files = files.map(|(cert, key)| Files { ca: ca.clone(), cert, key });
    if let Some(files) = &files {
        connect = connect.with_tls(files.tls()?);
    } else if let Some(ca) = ca {
        connect = connect.with_tls(TlsOptions::new().ca_certificate(ca));
    }
    let mut changes = None;
    let client = Client::connect_with_balanced_channel(&options.endpoints, Some(connect), Kept(&mut changes));
    let client = client.await.map_err(|e| translate(&e, 0))?;
    if let (Some(files), Some(watch), Some(changes)) = (files, watch, changes) {
        tokio::spawn(follow(files, watch, options.endpoints.clone(), changes, stop.clone()));
    }
    Ok(client)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::Unavailable(format!("{}: {e}", path.display())))
}

/// A balanced channel whose other end is kept.
struct Kept<'a>(&'a mut Option<Changes>);

impl BalancedChannelBuilder for Kept<'_> {
    type Error = tonic::transport::Error;

    fn balanced_channel(self, size: usize) -> std::result::Result<(Channel, Changes), Self::Error> {
        let (channel, changes) = tonic::transport::Channel::balance_channel(size);
        *self.0 = Some(changes.clone());
        Ok((Channel::Tonic(channel), changes))
    }
}

/// The files of a client's certificate, and whom it trusts.
struct Files {
    ca: Option<Certificate>,
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn tls(&self) -> Result<TlsOptions> {
        let tls = TlsOptions::new().identity(Identity::from_pem(read(&self.cert)?, read(&self.key)?));
        Ok(match &self.ca {
            Some(ca) => tls.ca_certificate(ca.clone()),
            None => tls,
        })
    }

    /// An endpoint as the client made it when it began, with the certificate as it is now.
    fn endpoint(&self, url: &str) -> Result<Endpoint> {
        let unusable = |error: tonic::transport::Error| Error::Unavailable(format!("{url}: {error}"));
        let full = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let tls = self.tls()?;
        let endpoint = Endpoint::from_shared(full).and_then(|endpoint| endpoint.tls_config(tls)).map_err(unusable)?;
        let (interval, timeout) = KEEP_ALIVE;
        Ok(endpoint
            .keep_alive_while_idle(true)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT))
    }
}

async fn follow(files: Files, mut watch: Watch, urls: Vec<String>, changes: Changes, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = watch.changed() => {}
            () = stop.cancelled() => return,
        }
        for url in &urls {
            let replaced = match files.endpoint(url) {
                Ok(endpoint) => changes.send(Change::Insert(endpoint.uri().clone(), endpoint)).await,
                Err(error) => {
                    tracing::error!(%error, "cannot reload the certificate for etcd");
                    break;
                }
            };
            if replaced.is_err() {
                return;
            }
            tracing::info!(url, "etcd is shown the renewed certificate");
        }
    }
}
