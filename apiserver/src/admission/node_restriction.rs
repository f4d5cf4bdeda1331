//! NodeRestriction: a kubelet writes what concerns its own node and pods, and nothing else.
//!
//! The Node authorizer decides by names; this sees the objects. Upstream:
//! `plugin/pkg/admission/noderestriction`.

use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::gvk::GroupResource;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, lookup};
use crate::authorization::node::{self, LEASE_NAMESPACE};
use crate::authorization::{Attributes as Question, Decision};
use crate::server::Server;

pub const NAME: &str = "NodeRestriction";

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels of Kubernetes' own that a kubelet may set on its node.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// Label prefixes that kubelets own.
const KUBELET_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// The label prefix that is there to be kept from kubelets.
const RESTRICTED_PREFIX: &str = "node-restriction.kubernetes.io";

pub struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    async fn mutate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        check(server, attributes, object, old).await
    }
}

async fn check(
    server: &Server,
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let Some(node) = node::identity(attributes.user) else { return Ok(()) };
    if node.is_empty() {
        return Err(attributes.forbidden(format!("could not determine node from user {:?}", attributes.user.name)));
    }
    let resource = &attributes.served.resource;
    let cx = Request { server, attributes, node, object, old };
    let outcome = match (resource.group.as_ref(), resource.plural.as_ref(), attributes.subresource) {
        ("", "pods", "") => cx.pod(),
        ("", "pods", "status") => cx.pod_status(),
        ("", "pods", "eviction") => cx.eviction(),
        ("", "pods", other) => {
            Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed").into())
        }
        ("", "nodes", _) => cx.own_node(),
        ("", "persistentvolumeclaims", "status") => cx.claim_status(),
        ("", "persistentvolumeclaims", _) => Err("may only update PVC status".into()),
        ("", "serviceaccounts", "token") => cx.token().await,
        ("certificates.k8s.io", "podcertificaterequests", _) => cx.pod_certificate(),
        ("coordination.k8s.io", "leases", _) => cx.lease(),
        ("storage.k8s.io", "csinodes", _) => {
            cx.own_name("can only access CSINode with the same name as the requesting node")
        }
        ("resource.k8s.io", "resourceslices", _) => cx.slice(),
        ("certificates.k8s.io", "certificatesigningrequests", "") => cx.signing_request(),
        _ => Ok(()),
    };
    outcome.map_err(|refusal| match refusal {
        Refusal::Forbidden(text) => attributes.forbidden(text),
        Refusal::Status(status) => *status,
    })
}

/// Why a request is refused.
enum Refusal {
    /// A 403 with this text.
    Forbidden(String),
    /// Another answer.
    Status(Box<Status>),
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Refusal::Forbidden(text)
    }
}

impl From<&str> for Refusal {
    fn from(text: &str) -> Self {
        Refusal::Forbidden(text.to_string())
    }
}

type Outcome = Result<(), Refusal>;

/// A kubelet's request.
struct Request<'a> {
    server: &'a Server,
    attributes: &'a Attributes<'a>,
    node: &'a str,
    object: &'a Value,
    old: Option<&'a Value>,
}

fn not_found(plural: &str, name: &str) -> Refusal {
    // The words of upstream's lister, which knows the singular.
    let singular = plural.strip_suffix('s').unwrap_or(plural);
    Refusal::Status(Box::new(Status::not_found(&GroupResource::new("", singular), name)))
}

impl Request<'_> {
    fn find(&self, plural: &str, namespace: &str, name: &str) -> Result<Value, Refusal> {
        let found = lookup::get(self.server, "", plural, namespace, name);
        found.map(|entry| entry.tree()).ok_or_else(|| not_found(plural, name))
    }

    fn own_pod(&self, name: &str, refusal: impl FnOnce() -> String) -> Outcome {
        let pod = self.find("pods", &self.attributes.namespace, name)?;
        if node_of(&pod) == self.node { Ok(()) } else { Err(refusal().into()) }
    }

    fn pod(&self) -> Outcome {
        let node = self.node;
        match self.attributes.operation {
            Operation::Create => self.mirror_pod(),
            Operation::Delete => self.own_pod(&self.attributes.name, || {
                format!("node {node:?} can only delete pods with spec.nodeName set to itself")
            }),
            other => Err(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                other.as_str()
            )
            .into()),
        }
    }

    fn mirror_pod(&self) -> Outcome {
        let (node, pod) = (self.node, self.object);
        if pod.annotation(MIRROR).is_none() {
            return Err(
                format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods").into()
            );
        }
        if node_of(pod) != node {
            return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself").into());
        }
        let owner = match pod.owner_references() {
            [] => {
                return Err(format!("node {node:?} can only create pods with an owner reference set to itself").into());
            }
            [owner] => owner,
            _ => {
                return Err(
                    format!("node {node:?} can only create pods with a single owner reference set to itself").into()
                );
            }
        };
        let text = |field: &str| owner.str_at(&[field]).unwrap_or_default();
        if text("apiVersion") != "v1" || text("kind") != "Node" || text("name") != node {
            return Err(format!("node {node:?} can only create pods with an owner reference set to itself").into());
        }
        if owner.bool_at(&["controller"]) != Some(true) {
            return Err(
                format!("node {node:?} can only create pods with a controller owner reference set to itself").into()
            );
        }
        if owner.bool_at(&["blockOwnerDeletion"]) == Some(true) {
            return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference").into());
        }
        let own = self.find("nodes", "", node)?;
        if own.uid() != text("uid") {
            return Err(format!("node {node} UID mismatch: expected {} got {}", text("uid"), own.uid()).into());
        }
        match node::references::needs_api(pod) {
            Some(what) => Err(format!("node {node:?} can not create pods that reference {what}").into()),
            None => Ok(()),
        }
    }

    fn pod_status(&self) -> Outcome {
        let node = self.node;
        let Some(old) = self.old.filter(|_| self.attributes.operation == Operation::Update) else {
            return Err(format!("unexpected operation {:?}", self.attributes.operation.as_str()).into());
        };
        if node_of(old) != node {
            return Err(
                format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself").into()
            );
        }
        let labels = |pod: &Value| pod.labels().filter(|labels| !labels.is_empty()).cloned();
        if labels(old) != labels(self.object) {
            return Err(format!("node {node:?} cannot update labels through pod status").into());
        }
        let list = |pod: &Value| pod.list_at(&["status", "resourceClaimStatuses"]).to_vec();
        if list(old) != list(self.object) {
            return Err(format!("node {node:?} cannot update resource claim statues").into());
        }
        let extended = |pod: &Value| pod.at(&["status", "extendedResourceClaimStatus"]).cloned();
        if extended(old) != extended(self.object) {
            return Err(format!("node {node:?} cannot update extended resource claim status").into());
        }
        Ok(())
    }

    fn eviction(&self) -> Outcome {
        let name = match self.attributes.name.as_str() {
            "" => self.object.name(),
            name => name,
        };
        if name.is_empty() {
            return Err("could not determine pod from request data".into());
        }
        self.own_pod(name, || format!("node {} can only evict pods with spec.nodeName set to itself", self.node))
    }

    fn claim_status(&self) -> Outcome {
        let Some(old) = self.old else { return Ok(()) };
        let rest = |claim: &Value| {
            let mut claim = claim.clone();
            for path in [["metadata", "resourceVersion"], ["metadata", "managedFields"]] {
                claim.remove_at(&path);
            }
            for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                claim.remove_at(&["status", field]);
            }
            claim
        };
        if rest(old) == rest(self.object) {
            return Ok(());
        }
        Err(format!(
            "node {:?} is not allowed to update fields other than status.quantity and status.conditions",
            self.node
        )
        .into())
    }

    fn own_node(&self) -> Outcome {
        let node = self.node;
        let requested = match self.attributes.name.as_str() {
            "" => self.object.name(),
            name => name,
        };
        if requested != node {
            return Err(format!("node {node:?} is not allowed to modify node {requested:?}").into());
        }
        let config = |object: &Value| object.at(&["spec", "configSource"]).filter(|at| !at.is_null()).cloned();
        match (self.attributes.operation, self.old) {
            (Operation::Create, _) => {
                if config(self.object).is_some() {
                    return Err(
                        format!("node {node:?} is not allowed to create pods with a non-nil configSource").into()
                    );
                }
                let forbidden = forbidden_labels(self.object, None);
                if !forbidden.is_empty() {
                    return Err(format!(
                        "node {node:?} is not allowed to set the following labels: {}",
                        forbidden.join(", ")
                    )
                    .into());
                }
            }
            (Operation::Update, Some(old)) => {
                if config(self.object).is_some_and(|new| Some(new) != config(old)) {
                    return Err(format!(
                        "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                    )
                    .into());
                }
                if self.object.list_at(&["spec", "taints"]) != old.list_at(&["spec", "taints"]) {
                    return Err(format!("node {node:?} is not allowed to modify taints").into());
                }
                if self.object.owner_references() != old.owner_references() {
                    return Err(format!("node {node:?} is not allowed to modify ownerReferences").into());
                }
                let forbidden = forbidden_labels(self.object, Some(old));
                if !forbidden.is_empty() {
                    return Err(format!("is not allowed to modify labels: {}", forbidden.join(", ")).into());
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn token(&self) -> Outcome {
        if self.attributes.operation != Operation::Create {
            return Ok(());
        }
        let bound = |field: &str| self.object.str_at(&["spec", "boundObjectRef", field]).unwrap_or_default();
        if bound("apiVersion") != "v1" || bound("kind") != "Pod" || bound("name").is_empty() {
            return Err("node requested token not bound to a pod".into());
        }
        let uid = bound("uid");
        if uid.is_empty() {
            return Err("node requested token with a pod binding without a uid".into());
        }
        let pod = self.find("pods", &self.attributes.namespace, bound("name"))?;
        if uid != pod.uid() {
            return Err(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            )
            .into());
        }
        if node_of(&pod) != self.node {
            return Err("node requested token bound to a pod scheduled on a different node".into());
        }
        self.audience(&pod).await
    }

    /// A token is for an audience that the pod asks for, or one that the node has a right to.
    async fn audience(&self, pod: &Value) -> Outcome {
        let audience = match self.object.list_at(&["spec", "audiences"]) {
            [] => "",
            [audience] => audience.as_str().unwrap_or_default(),
            _ => return Err("node may only request 0 or 1 audiences".into()),
        };
        let asks = |volume: &Value| {
            let source = |source: &Value| {
                source.get("serviceAccountToken").is_some_and(|token| {
                    !token.is_null() && token.str_at(&["audience"]).unwrap_or_default() == audience
                })
            };
            volume.list_at(&["projected", "sources"]).iter().any(source)
                || self.driver(pod, volume).is_some_and(|driver| self.driver_asks(&driver, audience))
        };
        if pod.list_at(&["spec", "volumes"]).iter().any(asks) {
            return Ok(());
        }
        let user = self.attributes.user;
        let question = Question {
            user: user.clone(),
            verb: "request-serviceaccounts-token-audience".to_string(),
            namespace: self.attributes.namespace.clone(),
            version: "v1".to_string(),
            resource: audience.to_string(),
            name: self.attributes.name.clone(),
            is_resource: true,
            ..Question::default()
        };
        match self.server.authorizer.decide(&question).await {
            Decision::Allow(_) => Ok(()),
            _ => Err(format!(
                "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
                user.name
            )
            .into()),
        }
    }

    /// The CSI driver behind a volume of a pod.
    fn driver(&self, pod: &Value, volume: &Value) -> Option<String> {
        if let Some(driver) = volume.str_at(&["csi", "driver"]) {
            return Some(driver.to_string());
        }
        let claim = match volume.str_at(&["persistentVolumeClaim", "claimName"]) {
            Some(claim) => claim.to_string(),
            None => {
                volume.at(&["ephemeral", "volumeClaimTemplate"])?;
                format!("{}-{}", pod.name(), volume.str_at(&["name"]).unwrap_or_default())
            }
        };
        let claim = lookup::get(self.server, "", "persistentvolumeclaims", pod.namespace(), &claim)?.tree();
        let bound = lookup::get(self.server, "", "persistentvolumes", "", claim.str_at(&["spec", "volumeName"])?)?;
        bound.tree().str_at(&["spec", "csi", "driver"]).map(str::to_string)
    }

    fn driver_asks(&self, driver: &str, audience: &str) -> bool {
        lookup::get(self.server, "storage.k8s.io", "csidrivers", "", driver).is_some_and(|driver| {
            let driver = driver.tree();
            let requests = driver.list_at(&["spec", "tokenRequests"]);
            requests.iter().any(|request| request.str_at(&["audience"]).unwrap_or_default() == audience)
        })
    }

    fn own_name(&self, refusal: &str) -> Outcome {
        let name =
            if self.attributes.operation == Operation::Create { self.object.name() } else { &self.attributes.name };
        if name == self.node { Ok(()) } else { Err(refusal.into()) }
    }

    fn lease(&self) -> Outcome {
        if self.attributes.namespace != LEASE_NAMESPACE {
            return Err(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace").into());
        }
        self.own_name("can only access node lease with the same name as the requesting node")
    }

    fn slice(&self) -> Outcome {
        let refusal =
            |verb: &str| format!("can only {verb} ResourceSlice with the same NodeName as the requesting node").into();
        match self.attributes.operation {
            Operation::Create if node_of(self.object) != self.node => Err(refusal("create")),
            Operation::Delete => {
                let slice = lookup::get(self.server, "resource.k8s.io", "resourceslices", "", &self.attributes.name);
                match slice {
                    Some(slice) if node_of(&slice.tree()) != self.node => Err(refusal("delete")),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn pod_certificate(&self) -> Outcome {
        if self.attributes.operation != Operation::Create {
            return Err(format!("unexpected operation {}", self.attributes.operation.as_str()).into());
        }
        if !self.attributes.subresource.is_empty() {
            return Err(format!("unexpected subresource {}", self.attributes.subresource).into());
        }
        let namespace = &self.attributes.namespace;
        let text = |field: &str| self.object.str_at(&["spec", field]).unwrap_or_default();
        if text("nodeName") != self.node {
            return Err(format!(
                "PodCertificateRequest.Spec.NodeName={:?}, which is not the requesting node {:?}",
                text("nodeName"),
                self.node
            )
            .into());
        }
        let node = self.find("nodes", "", self.node)?;
        let name = format!("{namespace}/{}", text("podName"));
        if node.uid() != text("nodeUID") {
            return Err(format!(
                "PodCertificateRequest for pod {name:?} names node UID {:?}, inconsistent with the running node ({:?})",
                text("nodeUID"),
                node.uid()
            )
            .into());
        }
        let pod = self.find("pods", namespace, text("podName"))?;
        if pod.uid() != text("podUID") {
            return Err(format!(
                "PodCertificateRequest for pod {name:?} contains pod UID ({:?}) which differs from running pod {:?}",
                text("podUID"),
                pod.uid()
            )
            .into());
        }
        if node_of(&pod) != self.node {
            return Err(format!(
                "pod {name:?} is not running on node {:?} named in the PodCertificateRequest",
                self.node
            )
            .into());
        }
        if pod.annotation(MIRROR).is_some() {
            return Err(format!("pod {name:?} is a mirror pod").into());
        }
        let account = pod.str_at(&["spec", "serviceAccountName"]).unwrap_or_default();
        if account != text("serviceAccountName") {
            return Err(format!(
                "PodCertificateRequest for pod {name:?} contains serviceAccountName ({:?}) that differs from running pod ({account:?})",
                text("serviceAccountName")
            )
            .into());
        }
        let found = self.find("serviceaccounts", namespace, account)?;
        if found.uid() != text("serviceAccountUID") {
            return Err(format!(
                "PodCertificateRequest for pod {name:?} names service account UID {:?}, which differs from the running service account ({:?})",
                text("serviceAccountUID"),
                found.uid()
            )
            .into());
        }
        Ok(())
    }

    fn signing_request(&self) -> Outcome {
        let signer = self.object.str_at(&["spec", "signerName"]).unwrap_or_default();
        if self.attributes.operation != Operation::Create
            || !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet")
        {
            return Ok(());
        }
        let subject = super::certificates::subject(self.object)
            .map_err(|error| Refusal::Forbidden(format!("unable to parse csr: {error}")))?;
        let user = &self.attributes.user.name;
        if subject.common_name == *user {
            return Ok(());
        }
        Err(format!("can only create a node CSR with CN={user}").into())
    }
}

fn node_of(object: &Value) -> &str {
    object.str_at(&["spec", "nodeName"]).unwrap_or_default()
}

fn below(prefix: &str, namespace: &str) -> bool {
    namespace == prefix || namespace.strip_suffix(prefix).is_some_and(|rest| rest.ends_with('.'))
}

/// Labels that differ and that a kubelet has no business with.
fn forbidden_labels(new: &Value, old: Option<&Value>) -> Vec<String> {
    let keys: BTreeSet<&String> =
        new.labels().into_iter().chain(old.and_then(|old| old.labels())).flat_map(|labels| labels.keys()).collect();
    let changed = |key: &str| new.label(key) != old.and_then(|old| old.label(key));
    let forbidden = |key: &str| {
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        let of_kubernetes = below("kubernetes.io", namespace) || below("k8s.io", namespace);
        let of_kubelet =
            KUBELET_LABELS.contains(&key) || KUBELET_PREFIXES.iter().any(|prefix| below(prefix, namespace));
        below(RESTRICTED_PREFIX, namespace) || (of_kubernetes && !of_kubelet)
    };
    keys.into_iter().filter(|key| changed(key) && forbidden(key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_of_the_cluster_are_not_the_kubelets() {
        let node = |labels: Value| json!({"metadata": {"labels": labels}});
        let old = node(json!({"node-role.kubernetes.io/x": ""}));
        for (labels, want) in [
            (json!({"node-role.kubernetes.io/x": "", "own": "2", "kubernetes.io/hostname": "h"}), ""),
            (json!({}), "node-role.kubernetes.io/x"),
            (json!({"node-role.kubernetes.io/x": "changed"}), "node-role.kubernetes.io/x"),
            (
                json!({"node-role.kubernetes.io/x": "", "a.node-restriction.kubernetes.io/y": "", "k8s.io/z": ""}),
                "a.node-restriction.kubernetes.io/y,k8s.io/z",
            ),
            (json!({"node-role.kubernetes.io/x": "", "kubelet.kubernetes.io/q": "", "xk8s.io/a": ""}), ""),
        ] {
            assert_eq!(forbidden_labels(&node(labels.clone()), Some(&old)).join(","), want, "{labels}");
        }
    }
}
