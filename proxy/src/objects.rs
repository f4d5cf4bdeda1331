//! The parts of Service, EndpointSlice and Node that kube-proxy reads.
//!
//! Lean on purpose: a proxy holds every Service and every EndpointSlice of the cluster, so a field
//! that no rule depends on is not kept. The field names are the API's.

use client::ObjectMeta;
use serde::{Deserialize, Serialize};

/// `v1.Service`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Name, namespace, labels, annotations.
    pub metadata: ObjectMeta,
    /// The wanted addresses and ports.
    pub spec: ServiceSpec,
    /// The load balancer's addresses.
    pub status: ServiceStatus,
}

/// `v1.ServiceSpec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// ClusterIP, NodePort, LoadBalancer or ExternalName.
    #[serde(rename = "type")]
    pub type_: String,
    /// The primary cluster address, `None` for headless.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// The addresses of both families.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Addresses that somebody else routes to the nodes.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// Who may reach the load balancer's addresses.
    pub load_balancer_source_ranges: Vec<String>,
    /// The ports.
    pub ports: Vec<ServicePortSpec>,
    /// None or ClientIP.
    pub session_affinity: String,
    /// How long affinity holds.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// Cluster or Local, for traffic from outside.
    pub external_traffic_policy: String,
    /// Cluster or Local, for traffic to the cluster address.
    pub internal_traffic_policy: Option<String>,
    /// The port on which a load balancer asks for local endpoints.
    pub health_check_node_port: u16,
}

/// `v1.ServicePort`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePortSpec {
    /// The port's name; empty when the service has only one.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The port on the cluster address.
    pub port: u16,
    /// The port on every node, 0 when there is none.
    pub node_port: u16,
}

/// `v1.SessionAffinityConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionAffinityConfig {
    /// Settings of ClientIP affinity.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// `v1.ClientIPConfig`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// Seconds.
    pub timeout_seconds: Option<u32>,
}

/// `v1.ServiceStatus`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// The load balancer's state.
    pub load_balancer: LoadBalancerStatus,
}

/// `v1.LoadBalancerStatus`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    /// Its addresses.
    pub ingress: Vec<LoadBalancerIngress>,
}

/// `v1.LoadBalancerIngress`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// The address, empty for one known by host name only.
    pub ip: String,
    /// VIP (the default) or Proxy.
    pub ip_mode: Option<String>,
}

/// `discovery.k8s.io/v1.EndpointSlice`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// The label `kubernetes.io/service-name` says whose it is.
    pub metadata: ObjectMeta,
    /// IPv4, IPv6 or FQDN.
    pub address_type: String,
    /// The endpoints.
    #[serde(deserialize_with = "null_is_empty")]
    pub endpoints: Vec<EndpointSpec>,
    /// The ports every endpoint serves.
    #[serde(deserialize_with = "null_is_empty")]
    pub ports: Vec<EndpointPort>,
}

/// `discovery.k8s.io/v1.Endpoint`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSpec {
    /// Only the first is used, as the API says.
    pub addresses: Vec<String>,
    /// ready, serving, terminating.
    pub conditions: EndpointConditions,
    /// Whom this endpoint is meant for.
    pub hints: Option<EndpointHints>,
    /// The node it runs on.
    pub node_name: Option<String>,
}

/// `discovery.k8s.io/v1.EndpointConditions`; an absent ready or serving means true.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// Takes traffic.
    pub ready: Option<bool>,
    /// Answers, even if terminating.
    pub serving: Option<bool>,
    /// Is being deleted.
    pub terminating: Option<bool>,
}

/// `discovery.k8s.io/v1.EndpointHints`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    /// Zones whose nodes should use the endpoint.
    pub for_zones: Vec<NamedHint>,
    /// Nodes that should use the endpoint.
    pub for_nodes: Vec<NamedHint>,
}

/// `discovery.k8s.io/v1.ForZone` and `ForNode`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedHint {
    /// The zone or the node.
    pub name: String,
}

/// `discovery.k8s.io/v1.EndpointPort`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// The service port's name; a port without one is ignored.
    pub name: Option<String>,
    /// TCP, UDP or SCTP.
    pub protocol: Option<String>,
    /// The port number; none or 0 is ignored.
    pub port: Option<u16>,
}

/// `v1.Node`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// The topology labels are here.
    pub metadata: ObjectMeta,
    /// Pod ranges and taints.
    pub spec: NodeSpec,
    /// Addresses.
    pub status: NodeStatus,
}

/// `v1.NodeSpec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// The node's pod ranges, one per family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// The node's taints.
    pub taints: Vec<NodeTaint>,
}

/// `v1.Taint`: only the key matters here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTaint {
    /// The taint's key.
    pub key: String,
}

/// `v1.NodeStatus`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// Addresses as the kubelet reported them.
    pub addresses: Vec<NodeAddress>,
}

/// `v1.NodeAddress`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeAddress {
    /// InternalIP, ExternalIP, Hostname, ….
    #[serde(rename = "type")]
    pub type_: String,
    /// The address.
    pub address: String,
}

client::impl_meta!(Service, EndpointSlice, Node);

/// Go encodes a nil slice without `omitempty` as `null`.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}
