//! What a cluster of ours needs beyond what every API server brings along: rights, and the Service of cluster DNS.

use std::net::IpAddr;

use client::Resource;
use client::resources::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, SERVICES};
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

/// User, role and binding of cluster DNS, by the name that kubeadm gives the latter two.
const DNS: &str = "system:coredns";

fn role(name: &str, rules: Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

/// Roles that upstream has no like of.
fn roles() -> [Value; 2] {
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

/// The role of cluster DNS: less than kubeadm's, which may read pods and Endpoints too.
fn dns_role() -> Value {
    let follow = json!(["list", "watch"]);
    role(
        DNS,
        json!([
            {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": follow},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": follow},
        ]),
    )
}

/// The Service by which everybody knows cluster DNS, as kubeadm makes it. Its address is each node's own, so there is
/// nothing to select, and nothing for kube-proxy to do.
fn dns_service(address: IpAddr) -> Value {
    let port = |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "port": port, "targetPort": port});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
                "service.kubernetes.io/service-proxy-name": "keelson-dns",
            },
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
        },
        "spec": {
            "clusterIP": address,
            "ports": [port("dns", "UDP", 53), port("dns-tcp", "TCP", 53), port("metrics", "TCP", 9153)],
        },
    })
}

/// Creates what is missing, all at once. What an administrator changed stays.
///
/// `dns` is where the nodes' cluster DNS answers, if they have one.
pub async fn create(client: &client::Client, dns: Option<IpAddr>) {
    let mut objects: Vec<(&'static Resource, Value)> = Vec::new();
    objects.extend(roles().map(|role| (&CLUSTER_ROLES, role)));
    objects.extend(BINDINGS.map(|with| (&CLUSTER_ROLE_BINDINGS, binding(with))));
    objects.push((&CLUSTER_ROLE_BINDINGS, approver()));
    if let Some(address) = dns {
        objects.push((&CLUSTER_ROLES, dns_role()));
        objects.push((&CLUSTER_ROLE_BINDINGS, binding((DNS, DNS, "User", DNS))));
        objects.push((&SERVICES, dns_service(address)));
    }
    let create = |(resource, object): (&'static Resource, Value)| async move {
        let namespace = object["metadata"]["namespace"].as_str();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let Err(error) = client.create::<IgnoredAny>(resource, namespace, &object).await else { return };
        // A Service that is there already has its address taken by itself, and is refused for that.
        if !error.is_already_exists() && client.get::<IgnoredAny>(resource, namespace, name).await.is_err() {
            tracing::error!(name, error = error.chain(), "what the cluster needs could not be made");
        }
    };
    futures::future::join_all(objects.into_iter().map(create)).await;
}
