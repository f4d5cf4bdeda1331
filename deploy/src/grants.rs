//! Rights that a cluster of ours needs beyond those every API server brings along.

use client::resources::CLUSTER_ROLE_BINDINGS;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The group that kubeadm gives bootstrap tokens of nodes.
const JOINING: &str = "system:bootstrappers:kubeadm:default-node-token";

/// Name, role, and the subject that is bound to it.
const BINDINGS: [(&str, &str, &str, &str); 5] = [
    // The API server reaches kubelets under this name, for logs, exec and the like.
    ("keelson:kubelet-api-admin", "system:kubelet-api-admin", "User", "kube-apiserver-kubelet-client"),
    // Administrators by kubeadm's convention: unlike system:masters, this can be taken away again.
    ("kubeadm:cluster-admins", "cluster-admin", "Group", "kubeadm:cluster-admins"),
    // A machine with a bootstrap token may ask for a node's first certificate, and gets it.
    ("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", "Group", JOINING),
    (
        "kubeadm:node-autoapprove-bootstrap",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "Group",
        JOINING,
    ),
    // A node gets its next one.
    (
        "kubeadm:node-autoapprove-certificate-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "Group",
        "system:nodes",
    ),
];

fn binding((name, role, kind, subject): (&str, &str, &str, &str)) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": kind, "name": subject}],
    })
}

/// Creates what is missing. What an administrator changed stays.
pub async fn create(client: &client::Client) {
    for row in BINDINGS {
        match client.create::<IgnoredAny>(&CLUSTER_ROLE_BINDINGS, None, &binding(row)).await {
            Err(error) if !error.is_already_exists() => {
                tracing::error!(binding = row.0, error = error.chain(), "a right could not be given");
            }
            _ => {}
        }
    }
}
