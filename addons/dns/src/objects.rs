//! The parts of Service, EndpointSlice, Namespace and Pod that have to do with names.
//!
//! Lean on purpose: every node holds all of them. Not even the usual metadata is kept, only what an informer must know.

use client::Meta;
use client::meta::null_default;
use serde::Deserialize;

/// Which object this is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    #[serde(deserialize_with = "null_default")]
    labels: Labels,
}

/// The one label that matters: whose endpoints a slice holds.

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    service_name: String,
}

/// `v1.Service`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    pub metadata: Metadata,
    pub spec: ServiceSpec,
}

/// `v1.ServiceSpec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub kind: String,
    /// The primary cluster address, `None` for headless.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// The addresses of both families.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// What an ExternalName Service is another name of.
    pub external_name: String,
    pub ports: Vec<ServicePort>,
}

/// `v1.ServicePort`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServicePort {
    /// Empty when the Service has only one.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    pub port: u16,
}

impl Service {
    /// Whether names of this Service stand for its endpoints.
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None"
    }

    /// Its addresses in the cluster, none for a headless one.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let spec = &self.spec;
        // Objects written before dual stack have only the single field.
        let single = spec.cluster_ips.is_empty().then_some(&spec.cluster_ip);
        spec.cluster_ips.iter().chain(single).map(String::as_str).filter(|ip| !ip.is_empty() && *ip != "None")
    }
}

/// `discovery.k8s.io/v1.EndpointSlice`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointSlice {
    pub metadata: Metadata,
    #[serde(deserialize_with = "null_default")]
    pub endpoints: Vec<Endpoint>,
    /// The ports that every endpoint serves.
    #[serde(deserialize_with = "null_default")]
    pub ports: Vec<EndpointPort>,
}

impl EndpointSlice {
    /// The Service whose endpoints these are; empty for a slice that belongs to none.
    pub fn service(&self) -> &str {
        &self.metadata.labels.service_name
    }

    /// The endpoints that names stand for. Those of a Service that publishes addresses which are not ready are written
    /// as ready by whoever makes the slice.
    pub fn ready(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| endpoint.conditions.ready != Some(false))
    }
}

/// `discovery.k8s.io/v1.Endpoint`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    pub addresses: Vec<String>,
    pub conditions: EndpointConditions,
    /// The pod's own host name, where its subdomain is the Service.
    pub hostname: Option<String>,
}

/// `discovery.k8s.io/v1.EndpointConditions`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Absent means true.
    pub ready: Option<bool>,
}

/// `discovery.k8s.io/v1.EndpointPort`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub port: Option<u16>,
}

/// `v1.Namespace`: only that it exists.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Namespace {
    pub metadata: Metadata,
}

/// `v1.Pod`, followed only where names of pods are verified.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub metadata: Metadata,
    pub status: PodStatus,
}

/// `v1.PodStatus`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
}

/// `v1.PodIP`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    pub ip: String,
}

macro_rules! meta {
    ($($kind:ty),+) => {$(
        impl Meta for $kind {
            fn name(&self) -> &str { &self.metadata.name }
            fn namespace(&self) -> &str { &self.metadata.namespace }
            fn uid(&self) -> &str { &self.metadata.uid }
            fn resource_version(&self) -> &str { &self.metadata.resource_version }
        }
    )+};
}
meta!(Service, EndpointSlice, Namespace, Pod);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_go_writes_is_read() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "prod", "labels": {"kubernetes.io/service-name": "web", "other": "x"}},
            "addressType": "IPv4", "endpoints": null, "ports": null,
        }))
        .expect("a nil slice is written as null");
        assert_eq!(slice.service(), "web");
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "nobody's"},
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": true}, "hostname": "a"},
            ],
        }))
        .expect("a slice");
        assert_eq!(slice.service(), "");
        assert_eq!(slice.ready().map(|e| e.addresses[0].as_str()).collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.3"]);
    }

    #[test]
    fn addresses_of_services() {
        let of = |spec| {
            let service: Service = serde_json::from_value(json!({"spec": spec})).expect("a Service");
            service.addresses().map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(
            of(json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]})),
            ["10.0.0.1", "fd00::1"]
        );
        assert_eq!(of(json!({"clusterIP": "10.0.0.1"})), ["10.0.0.1"]);
        assert!(of(json!({"clusterIP": "None", "clusterIPs": ["None"]})).is_empty());
        assert!(of(json!({"type": "ExternalName", "externalName": "a.example"})).is_empty());
    }
}
