//! Puts the parts together: informers feed the scheduling loop, whose decisions become bindings,
//! conditions and events; leader election around it, an HTTPS server beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use client::delegated::Delegated;
use client::events::Recorder;
use client::informer::{Event, InformerParams, SharedInformerFactory};
use client::leader_election::{self, LeaderElector, Outcome as Leading};
use client::{Client, resources};
use component_base::clock::{RealClock, SharedClock};
use component_base::health::Checks;
use component_base::pki::{Pair, Profile as CertificateProfile, self_signed};
use component_base::serving;
use component_base::tls::{self, ClientAuthority, ServingCert};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Serving, build_profiles};
use crate::core::Core;
use crate::framework::events::EventKind;
use crate::listers::InformerListers;
use crate::metrics::Metrics;
use crate::objects::{Namespace, Node, Pod, Selecting};
use crate::plugins::Handle;
use crate::queue::SchedulingQueue;

mod actions;
mod scheduling_loop;

use actions::Actions;
use scheduling_loop::{Change, SchedulingLoop};

/// Why kube-scheduler ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The HTTPS server cannot listen.
    #[error("failed to create listener: cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A certificate cannot be read or made.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// A client for authorization cannot be made.
    #[error("cannot reach the API that authorizes: {0}")]
    Authorization(#[source] client::Error),
    /// Another scheduler leads now.
    #[error("leaderelection lost")]
    LostLease,
}

/// Runs kube-scheduler until `shutdown`.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let clock = RealClock::shared();
    let client = match config.client_rate {
        Some((qps, burst)) => client.with_rate_limit(qps, burst),
        None => client,
    };
    let metrics = Metrics::default();
    let synced = Arc::new(AtomicBool::new(false));
    if let Some(serving) = &config.serving {
        serve(serving, &client, &metrics, &synced, &clock, &shutdown).await?;
    }

    let factory = SharedInformerFactory::new(client.clone(), shutdown.clone());
    let listers = Arc::new(InformerListers::new(&factory));
    let handle = Handle::new(listers, Some(client.clone()));
    let profiles = build_profiles(&config, &handle)?;
    let scheduler_names: Vec<String> = profiles.iter().map(|profile| profile.scheduler_name.clone()).collect();
    let queue = SchedulingQueue::new(&profiles, config.back_off);
    let core = Core::new(profiles, config.percentage_of_nodes_to_score, queue);

    let (sender, receiver) = std::sync::mpsc::channel();
    let pods = watch(&factory, &sender);
    let wake = sender.clone();
    let identity = leader_election::default_identity();
    let host = identity.rsplit_once('_').map_or(identity.as_str(), |(host, _)| host).to_owned();
    // Events carry the name of the profile that decided.
    let recorders = scheduler_names
        .into_iter()
        .map(|name| {
            let recorder = Recorder::events_v1(client.clone(), &name, &format!("{name}-{host}"), clock.clone());
            (name, recorder)
        })
        .collect();
    let actions =
        Actions::new(client.clone(), recorders, pods, metrics.clone(), clock.clone(), sender, config.parallel_bindings);
    factory.start();

    let leading = Arc::new(AtomicBool::new(false));
    let scheduling = SchedulingLoop::new(core, receiver, actions, clock.clone(), metrics, leading.clone());
    let stop = shutdown.child_token();
    let thread = scheduling.spawn(stop.clone());
    if !factory.wait_synced().await {
        stop.cancel();
        drop(wake.send(Change::Wake));
        return Ok(());
    }
    synced.store(true, Ordering::Release);

    let result = match &config.leader_election {
        None => {
            leading.store(true, Ordering::Release);
            drop(wake.send(Change::Wake));
            shutdown.cancelled().await;
            Ok(())
        }
        Some(election) => {
            let mut lease = leader_election::Config::new(&election.namespace, &election.name, &identity);
            lease.lease_duration = election.lease_duration;
            lease.renew_deadline = election.renew_deadline;
            lease.retry_period = election.retry_period;
            let start = wake.clone();
            let lead = |token: CancellationToken| async move {
                leading.store(true, Ordering::Release);
                drop(start.send(Change::Wake));
                token.cancelled().await;
                leading.store(false, Ordering::Release);
            };
            match LeaderElector::new(client, lease, clock).run(shutdown.clone(), lead).await {
                Leading::Cancelled => Ok(()),
                Leading::Lost => Err(Error::LostLease),
            }
        }
    };
    stop.cancel();
    drop(wake.send(Change::Wake));
    if let Ok(Err(panic)) = tokio::task::spawn_blocking(move || thread.join()).await {
        std::panic::resume_unwind(panic);
    }
    result
}

/// Sends every change of the cluster to the scheduling loop.
fn watch(factory: &SharedInformerFactory, sender: &std::sync::mpsc::Sender<Change>) -> client::informer::Store<Pod> {
    // The loop outlives the informers; if it has ended, so has the scheduler.
    let send = |sender: &std::sync::mpsc::Sender<Change>, change| drop(sender.send(change));
    let nodes = factory.informer::<Node>(&resources::NODES, InformerParams::default());
    let to = sender.clone();
    nodes.on_event(move |event| match event {
        Event::Added(node) => send(&to, Change::Node(None, node.clone())),
        Event::Modified { old, new } => send(&to, Change::Node(Some(old.clone()), new.clone())),
        Event::Deleted(node) => send(&to, Change::NodeDeleted(node.clone())),
    });
    let pods = factory
        .informer::<Pod>(&resources::PODS, InformerParams::fields("status.phase!=Succeeded,status.phase!=Failed"));
    let to = sender.clone();
    pods.on_event(move |event| match event {
        Event::Added(pod) => send(&to, Change::Pod(None, pod.clone())),
        Event::Modified { old, new } if old.metadata.uid != new.metadata.uid => {
            send(&to, Change::PodDeleted(old.clone()));
            send(&to, Change::Pod(None, new.clone()));
        }
        Event::Modified { old, new } => send(&to, Change::Pod(Some(old.clone()), new.clone())),
        Event::Deleted(pod) => send(&to, Change::PodDeleted(pod.clone())),
    });
    let to = sender.clone();
    factory
        .informer::<Namespace>(&resources::NAMESPACES, InformerParams::default())
        .on_event(move |_| send(&to, Change::Other(EventKind::NamespaceUpdate)));
    let to = sender.clone();
    factory
        .informer::<Selecting>(&resources::SERVICES, InformerParams::default())
        .on_event(move |_| send(&to, Change::Other(EventKind::SelectorChange)));
    pods.store()
}

/// What is served beside the pages that tell of it.
const PATHS: [&str; 4] = ["/healthz", "/livez", "/metrics", "/readyz"];

async fn serve(
    config: &Serving,
    client: &Client,
    metrics: &Metrics,
    synced: &Arc<AtomicBool>,
    clock: &SharedClock,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let tls_error = |error: &dyn std::fmt::Display| Error::Tls(error.to_string());
    let authority = match &config.client_ca {
        Some(path) => Some(ClientAuthority::from_file(path).map_err(|e| tls_error(&e))?),
        None => None,
    };
    let certificate = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => ServingCert::from_files(certificate, key).map_err(|e| tls_error(&e))?,
        _ => {
            let pair: Pair = self_signed(&CertificateProfile::server("kube-scheduler", &["localhost", "127.0.0.1"]))
                .map_err(|e| tls_error(&e))?;
            ServingCert::from_pair(&pair).map_err(|e| tls_error(&e))?
        }
    };
    let tls = tls::live_server_config(certificate, authority.as_ref()).map_err(|e| tls_error(&e))?;
    let authorizer = match &config.authorization_kubeconfig {
        Some(path) => Client::from_kubeconfig(Some(path), None).await.map_err(Error::Authorization)?,
        None => client.clone(),
    };
    let (healthz, livez, readyz) = (Checks::new("healthz"), Checks::new("livez"), Checks::new("readyz"));
    let synced = synced.clone();
    readyz.add("informer-sync", move || {
        if synced.load(Ordering::Acquire) { Ok(()) } else { Err("informers are not synced".to_owned()) }
    });
    let pages = config.zpages.pages("kube-scheduler", clock.clone(), PATHS);
    let router: Router = [livez.router(), readyz.router(), metrics.registry().router(), pages.router()]
        .into_iter()
        .fold(healthz.router(), Router::merge);
    let open: Vec<&str> = config.always_allow.iter().map(String::as_str).collect();
    let router = Delegated::new(authorizer, authority, true, clock.clone()).protect(router, &open);
    let address = SocketAddr::new(config.bind_address, config.port);
    let listener = TcpListener::bind(address).await.map_err(|error| Error::Listen(address, error))?;
    tokio::spawn(serving::serve(listener, tls, router, serving::Options::default(), shutdown.clone()));
    Ok(())
}
