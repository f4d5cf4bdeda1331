//! A running kube-apiserver: its parts, how they are started, and the handle that stops them.

pub mod impersonation;
pub mod in_process;
pub mod lifecycle;
pub mod metrics;
mod recording;
pub mod reload;
pub mod start;
pub mod walk;

use std::sync::{Arc, OnceLock};

use component_base::clock::SharedClock;
use component_base::health::Checks;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission::Chain;
use crate::authentication::{Authenticator, service_account};
use crate::authorization::Union;
use crate::authorization::node::Node;
use crate::authorization::rbac::Rbac;
use crate::cache::Cache;
use crate::config::Config;
use crate::flowcontrol::FlowControl;
use crate::proxy::KubeletClient;
use crate::registry::Registry;
use crate::services::Allocators;
pub use metrics::Metrics;
pub use start::{Error, Handle};

/// Everything a request may need. One per process; shared.
pub struct Server {
    pub config: Config,
    /// `--feature-gates`.
    pub features: component_base::featuregate::FeatureGates,
    /// Who this server is among others, with the gate `APIServerIdentity`.
    pub identity: Option<crate::bootstrap::identity::Identity>,
    /// What the server tells of itself.
    pub zpages: component_base::zpages::ZPages,
    pub clock: SharedClock,
    pub cache: Arc<Cache>,
    pub registry: Registry,
    pub authenticator: Authenticator,
    pub authorizer: Union,
    /// Who is somebody else in which way.
    pub impersonation: impersonation::Tracker,
    /// Roles and bindings, whether or not they authorize: they bound what may be granted.
    pub rbac: Rbac,
    /// What belongs to which node, with `--authorization-mode=Node`.
    pub node: Option<Arc<Node>>,
    /// The issuer of ServiceAccount tokens, when there are keys.
    pub tokens: Option<Arc<service_account::Tokens>>,
    pub admission: Chain,
    /// What admission looks at again and again, decoded.
    pub decoded: crate::admission::lookup::Decoded,
    /// Webhooks and policies, compiled.
    pub webhooks: crate::admission::webhook::Configurations,
    pub policies: crate::admission::policy::Policies,
    pub metrics: Metrics,
    pub livez: Checks,
    pub readyz: Checks,
    pub healthz: Checks,
    /// What is recorded of requests, with `--audit-policy-file`.
    pub audit: Option<Arc<crate::audit::Audit>>,
    /// Who waits for whom, with `--enable-priority-and-fairness`.
    pub flow_control: FlowControl,
    /// Seats for requests that change something, and for those that do not; `None` is no limit.
    pub mutating_seats: Option<Arc<Semaphore>>,
    pub reading_seats: Option<Arc<Semaphore>>,
    /// Cluster IPs and node ports.
    pub allocators: Allocators,
    /// How kubelets are reached.
    pub kubelet: KubeletClient,
    /// On the way to the end.
    pub lifecycle: Arc<lifecycle::Lifecycle>,
    /// Cancelled when the server has drained: loops end then.
    pub shutdown: CancellationToken,
    /// APIServices and the extension servers behind them.
    pub aggregator: crate::aggregator::Aggregator,
    /// Documents made once: discovery and OpenAPI.
    pub documents: crate::endpoints::Documents,
    /// The cluster's own objects are there.
    pub bootstrapped: std::sync::atomic::AtomicBool,
    /// Told when what the cluster's own objects say may have changed.
    pub refresh: tokio::sync::Notify,
    /// The port that was bound, once it is.
    pub bound_port: OnceLock<u16>,
}

impl Server {
    /// Now, as objects carry it.
    pub fn timestamp(&self) -> String {
        apimachinery::time::format(self.clock.now())
    }

    /// The address that others reach this server at: a loopback address is never advertised.
    pub fn advertise_address(&self) -> std::net::IpAddr {
        self.config.advertised()
    }

    /// Where other servers of the cluster reach this one: as told, or as everybody does.
    pub fn peer_address(&self) -> String {
        match &self.config.peer_advertise {
            Some((ip, port)) if ip.contains(':') => format!("[{ip}]:{port}"),
            Some((ip, port)) => format!("{ip}:{port}"),
            None => std::net::SocketAddr::new(self.advertise_address(), self.advertise_port()).to_string(),
        }
    }

    /// The port that others reach this server at.
    pub fn advertise_port(&self) -> u16 {
        self.bound_port.get().copied().unwrap_or(self.config.secure_port)
    }
}
