//! What a backend sees of the cluster: service ports and their endpoints, for one IP family.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// An IP family; the text is `v1.IPFamily`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl IpFamily {
    /// The family of an address.
    pub fn of(ip: &IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family of a range.
    pub fn of_net(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// `IPv4` or `IPv6`, as the API and the metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// From the API's word; absent means TCP.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Lower case, as rules and chain hashes use it.
    pub fn lower(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// One port of one service: what endpoints are grouped by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortName {
    /// The service.
    pub service: NamespacedName,
    /// The port's name, possibly empty.
    pub port: String,
    /// The protocol: two ports of one name may differ in it.
    pub protocol: Protocol,
}

/// `namespace/name:port`, without the colon for an unnamed port; rules' comments and hashes use it.
impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// Everything rules need to know of one service port.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    /// The cluster address of this family.
    pub cluster_ip: IpAddr,
    /// The port on it, and on external and load balancer addresses.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The port on every node; 0 for none.
    pub node_port: u16,
    /// External addresses of this family.
    pub external_ips: Vec<IpAddr>,
    /// Load balancer addresses of this family that arrive unchanged at the node.
    pub load_balancer_vips: Vec<IpAddr>,
    /// Ranges that may reach the load balancer's addresses; empty means all.
    pub load_balancer_source_ranges: Vec<IpNet>,
    /// Seconds of ClientIP affinity; `None` without affinity.
    pub sticky_seconds: Option<u32>,
    /// externalTrafficPolicy is Local (and the service is reachable from outside).
    pub external_policy_local: bool,
    /// internalTrafficPolicy is Local.
    pub internal_policy_local: bool,
    /// Port of the health check server; 0 for none.
    pub health_check_node_port: u16,
}

impl ServicePort {
    /// Whether anything outside the cluster can reach it.
    pub fn externally_accessible(&self) -> bool {
        self.node_port != 0 || !self.load_balancer_vips.is_empty() || !self.external_ips.is_empty()
    }

    /// Cluster endpoints are needed for policy Cluster, and also for external traffic under policy
    /// Local, because traffic from inside the cluster short-circuits to all endpoints.
    pub fn uses_cluster_endpoints(&self) -> bool {
        !self.internal_policy_local || self.externally_accessible()
    }

    /// Whether endpoints of this node are needed separately.
    pub fn uses_local_endpoints(&self) -> bool {
        self.internal_policy_local || (self.external_policy_local && self.externally_accessible())
    }
}

/// One endpoint of a service port.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// Runs on this node.
    pub is_local: bool,
    /// Takes traffic.
    pub ready: bool,
    /// Answers, even if terminating.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
    /// Zones that should use it.
    pub zone_hints: BTreeSet<String>,
    /// Nodes that should use it.
    pub node_hints: BTreeSet<String>,
}

/// `ip:port`, `[ip]:port` for IPv6.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

/// All service ports of one family, in a stable order.
pub type ServicePortMap = BTreeMap<ServicePortName, ServicePort>;

/// All endpoints of one family, each list sorted by its text.
pub type EndpointsMap = BTreeMap<ServicePortName, Vec<Endpoint>>;
