//! Rights that a cluster of ours needs beyond those every API server brings along.

use client::resources::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The group that kubeadm gives bootstrap tokens of nodes.
const JOINING: &str = "system:bootstrappers:kubeadm:default-node-token";

/// Name, role, and the subject that is bound to it.
const BINDINGS: [(&str, &str, &str, &str); 6] = [
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
    // And its serving certificate, if the names in it are its own.
    ("keelson:node-autoapprove-serving", SERVING, "Group", "system:nodes"),
];

/// The role of nodes whose serving certificates are approved, and of who approves them.
const SERVING: &str = "keelson:selfnodeserver";
const APPROVER: &str = "keelson:kubelet-serving-approver";

/// Roles that upstream has no like of.
fn roles() -> [Value; 2] {
    let role = |name: &str, rules: Value| json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let certificates = "certificates.k8s.io";
    [
        role(
            SERVING,
            json!([{
                "apiGroups": [certificates], "resources": ["certificatesigningrequests/selfnodeserver"],
                "verbs": ["create"],
            }]),
        ),
        role(
            APPROVER,
            json!([
                {
                    "apiGroups": [certificates], "resources": ["signers"],
                    "resourceNames": ["kubernetes.io/kubelet-serving"], "verbs": ["approve"],
                },
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
            ]),
        ),
    ]
}

/// Who approves them is the account of the certificate controllers.
fn approver() -> Value {
    let mut binding = binding((APPROVER, APPROVER, "ServiceAccount", "certificate-controller"));
    binding["subjects"] =
        json!([{"kind": "ServiceAccount", "name": "certificate-controller", "namespace": "kube-system"}]);
    binding
}

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
    let bindings = BINDINGS.into_iter().map(binding).chain([approver()]);
    let roles = roles().into_iter().map(|role| (&CLUSTER_ROLES, role));
    for (resource, object) in roles.chain(bindings.map(|binding| (&CLUSTER_ROLE_BINDINGS, binding))) {
        match client.create::<IgnoredAny>(resource, None, &object).await {
            Err(error) if !error.is_already_exists() => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                tracing::error!(name, error = error.chain(), "a right could not be given");
            }
            _ => {}
        }
    }
}
