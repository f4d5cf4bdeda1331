//! What kubelets may do: what concerns their own node and the pods that run there.
//!
//! Upstream: `plugin/pkg/auth/authorizer/node`. What a kubelet may write is narrowed further by the
//! NodeRestriction admission plugin, which sees the objects.

pub mod graph;
pub mod references;

use std::sync::Arc;

use component_base::featuregate::FeatureGates;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::rbac::policy;
use super::rbac::rule::Rule;
use super::{Attributes, Authorizer, Decision, Found};
use crate::config::features;
use crate::registry::Registry;
use crate::request::UserInfo;
use graph::{Graph, Kind, Populator, Source};

/// The group of all kubelets.
pub const NODES: &str = "system:nodes";
/// Where kubelets' leases are.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node that a user is, if it is one. The name may be empty.
pub fn identity(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.in_group(NODES))
}

/// The authorizer mode `Node`.
pub struct Node {
    graph: Arc<RwLock<Graph>>,
    /// For what is not subdivided by node.
    rules: Vec<Rule>,
    /// Whether there are certificates of pods.
    pod_certificates: bool,
}

type Opinion = Result<(), String>;

fn refused(reason: impl Into<String>) -> Opinion {
    Err(reason.into())
}

impl Node {
    /// One that knows no pod yet.
    pub fn new(gates: &FeatureGates) -> Self {
        let role = policy::objects(gates).into_iter().find(|object| object["metadata"]["name"] == "system:node");
        let rules = role.and_then(|mut role| serde_json::from_value(role["rules"].take()).ok()).unwrap_or_default();
        Self { graph: Arc::default(), rules, pod_certificates: gates.enabled(features::POD_CERTIFICATE_REQUEST) }
    }

    /// Reads what the graph is made of and follows it until `shutdown`.
    pub async fn start(&self, registry: &Registry, shutdown: &CancellationToken) {
        for (source, group, plural) in Source::ALL {
            let Some(cache) = registry.any_version(group, plural).and_then(|served| served.cache.clone()) else {
                continue;
            };
            let populator = Arc::new(Populator { source, graph: self.graph.clone() });
            cache.follow(populator, shutdown.clone()).await;
        }
    }

    fn related(&self, node: &str, found: impl FnOnce(&Graph) -> bool, attributes: &Attributes) -> Opinion {
        if attributes.name.is_empty() {
            return refused("No Object name found");
        }
        if found(&self.graph.read()) {
            Ok(())
        } else {
            refused(format!("no relationship found between node '{node}' and this object"))
        }
    }

    fn object(&self, node: &str, kind: Kind, attributes: &Attributes) -> Opinion {
        let (namespace, name) = (&attributes.namespace, &attributes.name);
        self.related(node, |graph| graph.reaches(node, kind, namespace, name), attributes)
    }

    fn read_namespaced(&self, node: &str, kind: Kind, attributes: &Attributes) -> Opinion {
        if !matches!(attributes.verb.as_str(), "get" | "list" | "watch") {
            return refused("can only read resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return refused("cannot read subresource");
        }
        if attributes.namespace.is_empty() {
            return refused("can only read namespaced object of this type");
        }
        self.object(node, kind, attributes)
    }

    /// `get` of one object itself.
    fn get(&self, attributes: &Attributes, related: impl FnOnce() -> Opinion) -> Opinion {
        if attributes.verb != "get" {
            return refused("can only get individual resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return refused("cannot get subresource");
        }
        related()
    }

    fn claim(&self, node: &str, attributes: &Attributes) -> Opinion {
        if attributes.subresource != "status" {
            return self.get(attributes, || self.object(node, Kind::Claim, attributes));
        }
        if !matches!(attributes.verb.as_str(), "update" | "patch") {
            return refused("can only get/update/patch this type");
        }
        self.object(node, Kind::Claim, attributes)
    }

    fn service_account(&self, node: &str, attributes: &Attributes) -> Opinion {
        if attributes.verb == "get" && attributes.subresource.is_empty() {
            return self.read_namespaced(node, Kind::ServiceAccount, attributes);
        }
        if attributes.verb != "create" || attributes.name.is_empty() {
            return refused("can only create tokens for individual service accounts");
        }
        if attributes.subresource != "token" {
            return refused("can only create token subresource of serviceaccount");
        }
        self.object(node, Kind::ServiceAccount, attributes)
    }

    fn resource_slice(&self, node: &str, attributes: &Attributes) -> Opinion {
        if !attributes.subresource.is_empty() {
            return refused("cannot authorize ResourceSlice subresources");
        }
        match attributes.verb.as_str() {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                self.related(node, |graph| graph.has_slice(node, &attributes.name), attributes)
            }
            "watch" | "list" | "deletecollection" if selects(attributes, "spec.nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                refused("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => refused(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn certificate_request(&self, node: &str, attributes: &Attributes) -> Opinion {
        if !attributes.subresource.is_empty() {
            return refused("nodes may not access the status subresource of PodCertificateRequests");
        }
        match attributes.verb.as_str() {
            "create" => Ok(()),
            "get" => self.related(
                node,
                |graph| graph.has_certificate_request(node, &attributes.namespace, &attributes.name),
                attributes,
            ),
            "list" | "watch" if selects(attributes, "spec.nodeName", node) => Ok(()),
            "list" | "watch" => refused("can only list/watch podcertificaterequests with nodeName field selector"),
            verb => refused(format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    fn pod(&self, node: &str, attributes: &Attributes) -> Opinion {
        let own =
            || self.related(node, |graph| graph.has_pod(node, &attributes.namespace, &attributes.name), attributes);
        match (attributes.subresource.as_str(), attributes.verb.as_str()) {
            ("", "get") => own(),
            ("", "list" | "watch") if selects(attributes, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !attributes.name.is_empty() => own(),
            ("", "list" | "watch") => refused("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => refused(""),
        }
    }

    fn judge(&self, node: &str, attributes: &Attributes) -> Opinion {
        if attributes.is_resource {
            match (attributes.group.as_str(), attributes.resource.as_str()) {
                ("", "secrets") => return self.read_namespaced(node, Kind::Secret, attributes),
                ("", "configmaps") => return self.read_namespaced(node, Kind::ConfigMap, attributes),
                ("", "persistentvolumeclaims") => return self.claim(node, attributes),
                ("", "persistentvolumes") => {
                    let reached = |graph: &Graph| graph.reaches_volume(node, &attributes.name);
                    return self.get(attributes, || self.related(node, reached, attributes));
                }
                ("resource.k8s.io", "resourceclaims") => {
                    return self.get(attributes, || self.object(node, Kind::ResourceClaim, attributes));
                }
                ("storage.k8s.io", "volumeattachments") => {
                    let attached = |graph: &Graph| graph.has_attachment(node, &attributes.name);
                    return self.get(attributes, || self.related(node, attached, attributes));
                }
                ("", "serviceaccounts") => return self.service_account(node, attributes),
                ("coordination.k8s.io", "leases") => return lease(node, attributes),
                ("storage.k8s.io", "csinodes") => return csi_node(node, attributes),
                ("resource.k8s.io", "resourceslices") => return self.resource_slice(node, attributes),
                ("", "nodes") => return own_node(node, attributes),
                ("", "pods") => return self.pod(node, attributes),
                ("certificates.k8s.io", "podcertificaterequests") if self.pod_certificates => {
                    return self.certificate_request(node, attributes);
                }
                ("certificates.k8s.io", "podcertificaterequests") => return refused(""),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(attributes)) { Ok(()) } else { refused("") }
    }
}

/// Whether the request selects what has this value in this field.
fn selects(attributes: &Attributes, field: &str, value: &str) -> bool {
    attributes.field_selector.iter().any(|term| !term.negated && term.field == field && term.value == value)
}

fn may_write(verb: &str) -> bool {
    matches!(verb, "get" | "create" | "update" | "patch" | "delete")
}

fn lease(node: &str, attributes: &Attributes) -> Opinion {
    if !may_write(&attributes.verb) {
        return refused("can only get, create, update, patch, or delete a node lease");
    }
    if attributes.namespace != LEASE_NAMESPACE {
        return refused(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    // The name of a lease to be created is in the object; admission looks there.
    if attributes.verb != "create" && attributes.name != node {
        return refused("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, attributes: &Attributes) -> Opinion {
    if !may_write(&attributes.verb) {
        return refused("can only get, create, update, patch, or delete a CSINode");
    }
    if !attributes.subresource.is_empty() {
        return refused("cannot authorize CSINode subresources");
    }
    if attributes.verb != "create" && attributes.name != node {
        return refused("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn own_node(node: &str, attributes: &Attributes) -> Opinion {
    match (attributes.subresource.as_str(), attributes.verb.as_str()) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match attributes.name.as_str() {
            name if name == node => Ok(()),
            "" => refused(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => refused(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => refused(""),
    }
}

impl Authorizer for Arc<Node> {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let Some(node) = identity(&attributes.user) else { return Decision::NoOpinion(String::new()) };
        if node.is_empty() {
            return Decision::NoOpinion(format!("unknown node for user {:?}", attributes.user.name));
        }
        match self.judge(node, attributes) {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        }
    }

    fn rules_for(&self, user: &UserInfo, _: &str) -> Found {
        // What a node may do depends on its pods: that is no list of rules.
        let node = identity(user).is_some();
        let errors = node.then(|| "node authorizer does not support user rule resolution".to_string());
        Found { incomplete: node, errors: errors.into_iter().collect(), ..Found::default() }
    }
}

#[cfg(test)]
mod tests;
