//! kube-controller-manager: the control loops of the cluster, one file or folder per controller.
//!
//! Each controller takes keys from a queue and does `read → decide → act`: everything is read, a
//! pure function decides, then requests are sent. Events only make it faster; the state decides.
//! [`descriptors::ALL`] is the table of contents.

pub mod bootstrap_tokens;
pub mod certificates;
pub mod cluster_role_aggregation;
pub mod config;
pub mod context;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod descriptors;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
mod expectations;
pub mod garbage_collector;
mod history;
pub mod job;
pub mod legacy_token_cleaner;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
mod ownership;
mod pod_control;
mod pod_endpoints;
pub mod pod_gc;
pub mod protection;
pub mod replicaset;
pub mod resource_quota;
pub mod root_ca;
mod server;
pub mod service_account;
pub mod service_account_tokens;
pub mod service_cidr;
pub mod stateful_set;
pub mod taint_eviction;
#[cfg(test)]
mod testing;
pub mod ttl_after_finished;
pub mod types;
pub mod validating_admission_policy_status;
pub mod worker;

use client::Client;
use client::events::Recorder;
use client::leader_election::{self, LeaderElector, Outcome};
use component_base::clock::{RealClock, SharedClock};
use component_base::health::Checks;
use component_base::metrics::Registry;
use tokio_util::sync::CancellationToken;

pub use config::Config;
use context::Context;

/// Why the component ended or could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("two controllers have the same name: {0:?}")]
    Duplicate(Vec<&'static str>),
    #[error("server")]
    Server(#[from] server::Error),
    /// Others lead now; the process must end, because its controllers may have half-done work.
    #[error("leaderelection lost")]
    LeadershipLost,
}

/// Runs all enabled controllers until `shutdown`, leading first when the configuration asks for it.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let duplicates = descriptors::duplicates();
    if !duplicates.is_empty() {
        return Err(Error::Duplicate(duplicates));
    }
    let clock = RealClock::shared();
    let metrics = Registry::new();
    let client = client.with_user_agent(&component_base::version::user_agent("kube-controller-manager"));
    if let Some(serving) = &config.serving {
        let checks = ["healthz", "livez", "readyz"].map(Checks::new);
        server::start(serving, client.clone(), &checks, &metrics, clock.clone(), shutdown.clone()).await?;
    }
    if !config.leader_elect {
        lead(config, client, clock, metrics, shutdown).await;
        return Ok(());
    }
    let election_client = client.with_user_agent(&format!(
        "{}/leader-election",
        component_base::version::user_agent("kube-controller-manager")
    ));
    let election = config.leader_election(&leader_election::default_identity());
    let recorder = Recorder::core(election_client.clone(), "kube-controller-manager", "", clock.clone());
    let outcome = LeaderElector::new(election_client, election, clock.clone())
        .with_recorder(recorder)
        .run(shutdown, |leading| lead(config, client, clock, metrics, leading))
        .await;
    match outcome {
        Outcome::Cancelled => Ok(()),
        Outcome::Lost => Err(Error::LeadershipLost),
    }
}

/// Starts the controllers and waits for all of them to end after `shutdown`.
async fn lead(config: Config, client: Client, clock: SharedClock, metrics: Registry, shutdown: CancellationToken) {
    let context = Context::new(config, client, clock, metrics, shutdown);
    let mut running = tokio::task::JoinSet::new();
    for descriptor in descriptors::ALL {
        if !context.config.is_enabled(descriptor) {
            continue;
        }
        match descriptor.start {
            Some(start) => {
                tracing::info!(controller = descriptor.name, "Starting controller");
                running.spawn(start(&context));
            }
            None => tracing::debug!(controller = descriptor.name, "this controller is not part of Keelson yet"),
        }
    }
    context.informers.start();
    context.shutdown.cancelled().await;
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller panicked");
        }
    }
}
