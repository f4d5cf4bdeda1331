//! A pod with everything scheduling computes from it, computed once.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use apimachinery::labels::Selector;
use client::Interned;

use super::resource::{Resource, pod_requests, pod_requests_non_zero};
use super::selector::{RequiredNodeAffinity, Term};
use crate::objects::{Pod, PodAffinityTerm, Toleration};

/// A port of the host that the pod wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The address, `0.0.0.0` for all.
    pub ip: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The number.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0")
    }
}

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    /// Namespaces named; the pod's own when nothing else is said.
    pub namespaces: BTreeSet<String>,
    /// Namespaces chosen by their labels; `None` chooses none.
    pub namespace_selector: Option<Selector>,
    /// Pods.
    pub selector: Selector,
    /// The label whose equal values make nodes one place.
    pub topology_key: String,
}

impl AffinityTerm {
    fn parse(term: &PodAffinityTerm, pod: &Pod) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(pod.metadata.namespace.clone());
        }
        // The API server has merged matchLabelKeys into the selector already.
        Self {
            namespaces,
            namespace_selector: term
                .namespace_selector
                .as_ref()
                .map(|s| Selector::from_label_selector(Some(s)).unwrap_or_else(|_| Selector::nothing())),
            selector: Selector::from_label_selector(term.label_selector.as_ref())
                .unwrap_or_else(|_| Selector::nothing()),
            topology_key: term.topology_key.clone(),
        }
    }
}

/// A pod, ready for scheduling.
#[derive(Debug)]
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// What it asks for.
    pub requests: Resource,
    /// The same, never zero.
    pub non_zero: Resource,
    /// Ports of the host it wants.
    pub host_ports: Vec<HostPort>,
    /// What its node must be.
    pub required_node_affinity: RequiredNodeAffinity,
    /// What its node should be, with weights.
    pub preferred_node_affinity: Vec<(i64, Term)>,
    /// Pods it must be with.
    pub required_affinity: Vec<AffinityTerm>,
    /// Pods it must not be with.
    pub required_anti_affinity: Vec<AffinityTerm>,
    /// Pods it should be with.
    pub preferred_affinity: Vec<(i64, AffinityTerm)>,
    /// Pods it should not be with.
    pub preferred_anti_affinity: Vec<(i64, AffinityTerm)>,
    /// Its images, as nodes list them.
    pub images: Interned<Vec<String>>,
    signature: OnceLock<u64>,
}

impl PodInfo {
    /// Computes everything.
    pub fn new(pod: Arc<Pod>) -> Self {
        let affinity = pod.spec.affinity.as_deref();
        let pod_affinity = affinity.and_then(|a| a.pod_affinity.as_ref());
        let anti_affinity = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let required = |a: Option<&crate::objects::PodAffinity>| {
            a.into_iter()
                .flat_map(|a| &a.required_during_scheduling_ignored_during_execution)
                .map(|term| AffinityTerm::parse(term, &pod))
                .collect::<Vec<_>>()
        };
        let preferred = |a: Option<&crate::objects::PodAffinity>| {
            a.into_iter()
                .flat_map(|a| &a.preferred_during_scheduling_ignored_during_execution)
                .filter(|term| term.weight != 0)
                .map(|term| (term.weight, AffinityTerm::parse(&term.pod_affinity_term, &pod)))
                .collect::<Vec<_>>()
        };
        let preferred_node_affinity = affinity
            .and_then(|a| a.node_affinity.as_ref())
            .into_iter()
            .flat_map(|a| &a.preferred_during_scheduling_ignored_during_execution)
            .filter(|term| term.weight != 0)
            .map(|term| (term.weight, Term::parse(&term.preference)))
            .collect();
        Self {
            requests: pod_requests(&pod),
            non_zero: pod_requests_non_zero(&pod),
            host_ports: host_ports(&pod),
            required_node_affinity: RequiredNodeAffinity::of(&pod),
            preferred_node_affinity,
            required_affinity: required(pod_affinity),
            required_anti_affinity: required(anti_affinity),
            preferred_affinity: preferred(pod_affinity),
            preferred_anti_affinity: preferred(anti_affinity),
            images: pod
                .spec
                .init_containers
                .iter()
                .chain(&pod.spec.containers)
                .map(|c| normalized_image_name(&c.image))
                .collect(),
            signature: OnceLock::new(),
            pod,
        }
    }

    /// Equal for pods that cannot be told apart by any plugin. Computed when first asked for:
    /// pods on nodes never are.
    pub fn signature(&self) -> u64 {
        *self.signature.get_or_init(|| signature(&self.pod))
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        &self.pod.metadata.uid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.pod.metadata.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.pod.metadata.namespace
    }

    /// Its node; empty before it is bound.
    pub fn node_name(&self) -> &str {
        &self.pod.spec.node_name
    }

    /// Its priority.
    pub fn priority(&self) -> i32 {
        self.pod.spec.priority.unwrap_or(0)
    }

    /// Its tolerations.
    pub fn tolerations(&self) -> &[Toleration] {
        &self.pod.spec.tolerations
    }

    /// Whether it is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether it says anything about other pods.
    pub fn has_affinity(&self) -> bool {
        !(self.required_affinity.is_empty()
            && self.required_anti_affinity.is_empty()
            && self.preferred_affinity.is_empty()
            && self.preferred_anti_affinity.is_empty())
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    sidecars
        .chain(&pod.spec.containers)
        .flat_map(|container| &container.ports)
        .filter(|port| port.host_port > 0)
        .map(|port| HostPort {
            ip: if port.host_ip.is_empty() { "0.0.0.0".to_owned() } else { port.host_ip.clone() },
            protocol: if port.protocol.is_empty() { "TCP".to_owned() } else { port.protocol.clone() },
            port: port.host_port,
        })
        .collect()
}

/// Nodes list images with their tag; a name without one means `latest`.
fn normalized_image_name(name: &str) -> String {
    let last_segment = name.rfind('/').map_or(0, |i| i + 1);
    if name[last_segment..].contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// Everything plugins read of a pod that is not yet placed; names and UIDs are left out.
fn signature(pod: &Pod) -> u64 {
    let mut hasher = DefaultHasher::new();
    pod.metadata.namespace.hash(&mut hasher);
    pod.metadata.labels.hash(&mut hasher);
    for owner in &pod.metadata.owner_references {
        owner.uid.hash(&mut hasher);
    }
    // Serialised because it covers every field, including those added later.
    let spec = serde_json::to_vec(&pod.spec).expect("a spec read from JSON can be written as JSON");
    spec.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn info(value: serde_json::Value) -> PodInfo {
        PodInfo::new(Arc::new(serde_json::from_value(value).unwrap()))
    }

    #[test]
    fn equal_pods_have_equal_signatures() {
        let pod = |name: &str, cpu: &str, label: &str| {
            info(json!({"metadata": {"name": name, "uid": name, "namespace": "ns", "labels": {"app": label}},
                "spec": {"containers": [{"image": "a", "resources": {"requests": {"cpu": cpu}}}]}}))
            .signature()
        };
        assert_eq!(pod("a", "1", "x"), pod("b", "1", "x"));
        assert_ne!(pod("a", "1", "x"), pod("b", "2", "x"));
        assert_ne!(pod("a", "1", "x"), pod("b", "1", "y"));
    }

    #[test]
    fn image_names() {
        for (name, expected) in [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("host:5000/a/b", "host:5000/a/b:latest"),
            ("host:5000/a/b:2", "host:5000/a/b:2"),
        ] {
            assert_eq!(normalized_image_name(name), expected);
        }
    }

    #[test]
    fn host_ports_conflict() {
        let port = |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
        for (a, b, expected) in [
            (port("0.0.0.0", "TCP", 80), port("127.0.0.1", "TCP", 80), true),
            (port("127.0.0.1", "TCP", 80), port("127.0.0.2", "TCP", 80), false),
            (port("0.0.0.0", "TCP", 80), port("0.0.0.0", "UDP", 80), false),
            (port("0.0.0.0", "TCP", 80), port("0.0.0.0", "TCP", 81), false),
        ] {
            assert_eq!(a.conflicts(&b), expected);
        }
        let pod = info(json!({"spec": {"containers": [{"ports": [{"containerPort": 1}, {"hostPort": 80}]}],
            "initContainers": [{"ports": [{"hostPort": 81}]}, {"restartPolicy": "Always", "ports": [{"hostPort": 82}]}]}}));
        assert_eq!(pod.host_ports.iter().map(|p| p.port).collect::<Vec<_>>(), [82, 80]);
    }
}
