//! Puts the parts together: informers in, one sync loop per IP family, and the HTTP servers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use client::informer::{Event, InformerParams, SharedInformerFactory};
use client::{Client, resources};
use component_base::clock::{RealClock, SharedClock};
use component_base::serving;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backend::iptables::command::{Programs, detect};
use crate::backend::iptables::{IptablesBackend, Settings, cleanup as iptables_cleanup};
use crate::config::{Config, DetectLocalMode};
use crate::healthcheck::{ProxyHealth, ServiceHealth};
use crate::metrics::Metrics;
use crate::node;
use crate::node_port_addresses::NodePortAddresses;
use crate::objects::{EndpointSlice, Node, Service};
use crate::proxier::{Context, Periods, Proxier};
use crate::sysctl::Sysctl;
use crate::types::IpFamily;

/// Services and slices with either label are somebody else's: another proxy's, or nobody's.
const SELECTOR: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";

/// How long to wait for the Node object to tell its addresses before going on without.
const NODE_WAIT: Duration = Duration::from_secs(30);

/// Why kube-proxy ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's name cannot be read.
    #[error("cannot read the host's name")]
    Hostname(#[source] std::io::Error),
    /// A server cannot listen, and the configuration calls that fatal.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// No iptables for the node's primary family.
    #[error("no support for primary IP family \"{family}\"")]
    NoIptables {
        /// The family.
        family: IpFamily,
        /// What its iptables said.
        #[source]
        source: crate::backend::Error,
    },
    /// With `detectLocalMode: NodeCIDR`, the node never got a pod range.
    #[error("timeout waiting for PodCIDR allocation to configure detect-local-mode NodeCIDR")]
    NoPodCidr,
    /// The node's addresses or pod ranges changed: rules depend on them, so start over.
    #[error("the node's {0} changed")]
    NodeChanged(&'static str),
    /// A sync loop ended by itself.
    #[error("a sync loop ended: {0}")]
    LoopEnded(String),
    /// `--cleanup` could not remove everything.
    #[error("encountered an error while tearing down rules")]
    Cleanup(#[source] crate::backend::Error),
}

/// Removes all rules of both families. A family without iptables has none.
pub fn cleanup() -> Result<(), Error> {
    let flavour = detect();
    let mut result = Ok(());
    for family in [IpFamily::V4, IpFamily::V6] {
        let programs = Programs::new(family, flavour);
        if programs.present().is_ok()
            && let Err(error) = iptables_cleanup::cleanup(&programs)
        {
            // Go on: the other family's rules should not stay because of this one.
            result = Err(Error::Cleanup(error));
        }
    }
    result
}

/// Runs kube-proxy until `shutdown`.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let clock = RealClock::shared();
    let node_name = node_name(&config)?;
    let metrics = Metrics::default();
    // Twice the sync period, so that one failed sync and its retry still count as healthy.
    let health = ProxyHealth::new(clock.clone(), config.sync_period * 2, metrics.clone());
    start_servers(&config, &health, &metrics, &clock, &shutdown).await?;

    let factory = SharedInformerFactory::new(client, shutdown.clone());
    let (node_sender, mut node_receiver) = watch::channel::<Option<Arc<Node>>>(None);
    let nodes =
        factory.informer::<Node>(&resources::NODES, InformerParams::fields(&format!("metadata.name={node_name}")));
    nodes.on_event({
        let health = health.clone();
        move |event| {
            let current = match event {
                Event::Deleted(_) => None,
                other => Some(other.object().clone()),
            };
            health.set_node_eligible(current.as_deref().is_some_and(node::eligible));
            node_sender.send_replace(current);
        }
    });
    let services = factory.informer::<Service>(&resources::SERVICES, InformerParams::labels(SELECTOR));
    let slices = factory.informer::<EndpointSlice>(&resources::ENDPOINT_SLICES, InformerParams::labels(SELECTOR));
    factory.start();

    let Some(this_node) = wait_for_node(&config, &mut node_receiver, &shutdown).await? else {
        return Ok(());
    };
    let reported = this_node.as_deref().map(node::reported_addresses).unwrap_or_default();
    let pod_cidrs = this_node.as_deref().map(node::pod_cidrs).unwrap_or_default();
    tracing::info!(node = node_name, addresses = ?reported, "Successfully retrieved NodeIPs");

    let proxiers = start_proxiers(&config, &node_name, &reported, &pod_cidrs, &clock, &health, &metrics).await?;
    if config.init_only {
        return Ok(());
    }
    for (proxier, _) in &proxiers {
        let (on_service, on_slice) = (proxier.clone(), proxier.clone());
        services.on_event(move |event| match event {
            Event::Added(new) => on_service.on_service(None, Some(new)),
            Event::Modified { old, new } => on_service.on_service(Some(old), Some(new)),
            Event::Deleted(old) => on_service.on_service(Some(old), None),
        });
        slices.on_event(move |event| match event {
            Event::Deleted(slice) => on_slice.on_endpoint_slice(slice, true),
            other => on_slice.on_endpoint_slice(other.object(), false),
        });
    }
    services.wait_synced().await;
    slices.wait_synced().await;
    tracing::info!("Services and EndpointSlices have been received");

    let periods = Periods { min: config.min_sync_period, retry: config.sync_period };
    let mut handles = Vec::new();
    let mut loops = tokio::task::JoinSet::new();
    for (proxier, backend) in proxiers {
        proxier.set_zone(this_node.as_deref().map_or("", node::zone));
        proxier.start_syncing();
        handles.push(proxier.clone());
        loops.spawn(proxier.run(Box::new(backend), periods, shutdown.clone()));
    }
    tokio::select! {
        result = watch_node(&config, node_receiver, &handles, &reported, &pod_cidrs, &shutdown) => result?,
        ended = loops.join_next() => if !shutdown.is_cancelled() {
            // Without its loop a family's rules would grow stale unnoticed: better to start over.
            return Err(Error::LoopEnded(ended.and_then(Result::err).map_or_else(String::new, |e| e.to_string())));
        },
    }
    while loops.join_next().await.is_some() {}
    Ok(())
}

/// The node this proxy serves.
fn node_name(config: &Config) -> Result<String, Error> {
    match &config.hostname_override {
        Some(name) => Ok(name.clone()),
        None => component_base::program::hostname().map(|name| name.trim().to_lowercase()).map_err(Error::Hostname),
    }
}

/// Waits until the node tells what the configuration needs. `Ok(None)` at shutdown; the inner
/// `None` when there is no node yet and nothing depends on it.
async fn wait_for_node(
    config: &Config,
    receiver: &mut watch::Receiver<Option<Arc<Node>>>,
    shutdown: &CancellationToken,
) -> Result<Option<Option<Arc<Node>>>, Error> {
    let needs_pod_cidr = config.detect_local_mode == DetectLocalMode::NodeCidr;
    let known = |node: &Option<Arc<Node>>| {
        node.as_deref().is_some_and(|node| {
            !node::reported_addresses(node).is_empty() && (!needs_pod_cidr || !node::pod_cidrs(node).is_empty())
        })
    };
    let found = tokio::select! {
        () = shutdown.cancelled() => return Ok(None),
        result = tokio::time::timeout(NODE_WAIT, receiver.wait_for(known)) => match result {
            Ok(Ok(node)) => Some(node.clone()),
            _ => None,
        },
    };
    match found {
        Some(node) => Ok(Some(node)),
        None if needs_pod_cidr => Err(Error::NoPodCidr),
        None => {
            tracing::warn!("the node has not reported its addresses; going on without");
            Ok(Some(receiver.borrow().clone()))
        }
    }
}

type Started = (Proxier, IptablesBackend<Programs>);

async fn start_proxiers(
    config: &Config,
    node_name: &str,
    reported: &[IpAddr],
    pod_cidrs: &[ipnet::IpNet],
    clock: &SharedClock,
    health: &ProxyHealth,
    metrics: &Metrics,
) -> Result<Vec<Started>, Error> {
    let (primary, node_ips) = node::primary_addresses(reported, config.bind_address);
    let (probed, interfaces) = tokio::task::spawn_blocking(|| (probe_iptables(), interface_addresses()))
        .await
        .expect("probing does not panic");
    let sysctl = Sysctl::default();
    let cores = std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1));
    sysctl.apply_conntrack(&config.conntrack, cores);
    let liberal = sysctl.get("net/netfilter/nf_conntrack_tcp_be_liberal").is_ok_and(|v| v != 0);
    let ranges = if config.node_port_addresses_primary {
        node_ips.values().filter(|ip| !ip.is_loopback()).map(|ip| ipnet::IpNet::from(*ip)).collect()
    } else {
        config.node_port_addresses.clone()
    };
    let mut proxiers = Vec::new();
    for (family, probe) in probed {
        let (programs, random_fully) = match probe {
            Ok(found) => found,
            Err(source) if family == primary => return Err(Error::NoIptables { family, source }),
            Err(error) => {
                tracing::info!(%family, %error, "No iptables support for family");
                continue;
            }
        };
        let node_port_addresses = NodePortAddresses::new(family, &ranges);
        let localhost_node_ports = family == IpFamily::V4
            && config.localhost_node_ports
            && node_port_addresses.contains_ipv4_loopback()
            // Without the setting such packets would be dropped as martians anyway.
            && sysctl.ensure("net/ipv4/conf/all/route_localnet", 1);
        let health_addresses = if node_port_addresses.match_all() {
            vec![match family {
                IpFamily::V4 => IpAddr::from([0, 0, 0, 0]),
                IpFamily::V6 => IpAddr::from([0u16; 8]),
            }]
        } else {
            node_port_addresses.select(&interfaces)
        };
        let context = Context {
            clock: clock.clone(),
            health: health.clone(),
            metrics: metrics.clone(),
            service_health: Arc::new(ServiceHealth::new(health_addresses, health.clone())),
        };
        let settings = Settings {
            family,
            masquerade_all: config.masquerade_all,
            masquerade_mark: 1 << config.masquerade_bit,
            localhost_node_ports,
            local_detector: node::local_detector(config, pod_cidrs, family),
            node_port_addresses,
            node_addresses: interfaces.clone(),
            node_name: node_name.to_owned(),
            node_ip: node_ips.get(&family).copied(),
            conntrack_tcp_liberal: liberal,
            random_fully,
        };
        tracing::info!(%family, ?programs, "Using iptables Proxier");
        proxiers.push((Proxier::new(family, node_name, context), IptablesBackend::new(programs, settings)));
    }
    Ok(proxiers)
}

type Probe = Result<(Programs, bool), crate::backend::Error>;

/// What iptables there is, by family; IPv6 only where the kernel has it.
fn probe_iptables() -> BTreeMap<IpFamily, Probe> {
    let flavour = detect();
    let ipv6 = std::path::Path::new("/proc/net/if_inet6").exists()
        && !std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|v| v.trim() == "1");
    let mut families = vec![IpFamily::V4];
    if ipv6 {
        families.push(IpFamily::V6);
    }
    families
        .into_iter()
        .map(|family| {
            let programs = Programs::new(family, flavour);
            (family, programs.present().map(|()| (programs.clone(), programs.has_random_fully())))
        })
        .collect()
}

fn interface_addresses() -> Vec<IpAddr> {
    match nix::ifaddrs::getifaddrs() {
        Ok(list) => list
            .filter_map(|interface| {
                let address = interface.address?;
                address
                    .as_sockaddr_in()
                    .map(|a| IpAddr::V4(a.ip()))
                    .or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
            })
            .collect(),
        Err(error) => {
            tracing::error!(%error, "cannot list the node's addresses; services with nodeport may not work as intended");
            Vec::new()
        }
    }
}

/// Follows the node until shutdown, or until something changed that rules were made from.
async fn watch_node(
    config: &Config,
    mut receiver: watch::Receiver<Option<Arc<Node>>>,
    proxiers: &[Proxier],
    addresses: &[IpAddr],
    pod_cidrs: &[ipnet::IpNet],
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            changed = receiver.changed() => if changed.is_err() {
                shutdown.cancelled().await;
                return Ok(());
            },
        }
        let Some(node) = receiver.borrow_and_update().clone() else { continue };
        for proxier in proxiers {
            proxier.set_zone(node::zone(&node));
        }
        let now = node::reported_addresses(&node);
        // A node that is being registered anew reports nothing for a moment.
        if !now.is_empty() && now != addresses {
            return Err(Error::NodeChanged("addresses"));
        }
        if config.detect_local_mode == DetectLocalMode::NodeCidr && node::pod_cidrs(&node) != pod_cidrs {
            return Err(Error::NodeChanged("PodCIDRs"));
        }
    }
}

async fn start_servers(
    config: &Config,
    health: &ProxyHealth,
    metrics: &Metrics,
    clock: &SharedClock,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let pages = config.zpages.pages("kube-proxy", clock.clone(), ["/healthz", "/metrics", "/proxyMode"]);
    let metrics_router = metrics
        .registry()
        .router()
        .merge(pages.router())
        .route("/proxyMode", get(|| async { "iptables" }))
        .route("/healthz", get(|| async { "ok" }));
    let servers: [(Option<SocketAddr>, Router); 2] =
        [(config.healthz_bind_address, health.router()), (config.metrics_bind_address, metrics_router)];
    for (address, router) in servers {
        let Some(address) = address else { continue };
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tokio::spawn(serving::serve(listener, None, router, serving::Options::default(), shutdown.clone()));
            }
            Err(error) if config.bind_address_hard_fail => return Err(Error::Listen(address, error)),
            Err(error) => tracing::error!(%address, %error, "cannot listen; going on without"),
        }
    }
    Ok(())
}
