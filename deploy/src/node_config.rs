//! The configuration files of a node's kubelet and kube-proxy: upstream's own kinds, so that upstream's
//! binaries start with them just as well.

use std::path::PathBuf;

use apimachinery::yaml;
use serde_json::json;

use crate::kubeconfig::{self, Access};
use crate::pki::Pki;
use crate::state::{API_PORT, CLUSTER_CIDR, HOST_ADDRESS, NodeName, State};

/// What could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kubeconfig(#[from] kubeconfig::Error),
    #[error(transparent)]
    Pki(#[from] component_base::pki::Error),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// Writes everything that the node's components read.
pub fn write(state: &State, node: &NodeName, pki: &Pki) -> Result<(), Error> {
    let server = format!("https://{HOST_ADDRESS}:{API_PORT}");
    let identity = pki.node(&node.name, &node.address().to_string())?;
    let proxy_identity = pki.client("kube-proxy")?;
    let kubelet_kubeconfig = state.kubeconfig(&format!("kubelet-{}", node.name));
    let proxy_kubeconfig = state.kubeconfig("kube-proxy");
    for (path, pair) in [(&kubelet_kubeconfig, &identity), (&proxy_kubeconfig, &proxy_identity)] {
        let access =
            Access { server: &server, ca_pem: pki.ca_pem(), certificate_pem: &pair.cert_pem, key_pem: &pair.key_pem };
        kubeconfig::write(path, &kubeconfig::document(&access))?;
    }
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.path("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}/{}", crate::cgroup::GROUP, node.name),
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "enforceNodeAllocatable": ["pods"],
        // The disk is the machine's, shared with everything else on it: how full it is says nothing about
        // the cluster, and must not cost it its pods.
        "evictionHard": {"imagefs.available": "0%", "imagefs.inodesFree": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "failCgroupV1": false,
        "failSwapOn": false,
        "rotateCertificates": true,
        "staticPodPath": state.node(&node.name).join("manifests"),
        "tlsCertFile": pki.path(&format!("kubelet-{}.crt", node.name)),
        "tlsPrivateKeyFile": pki.path(&format!("kubelet-{}.key", node.name)),
    });
    let proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": proxy_kubeconfig},
        "clusterCIDR": CLUSTER_CIDR,
        // The table of connections is the host's, and its size is not a container's to set.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "hostnameOverride": node.name,
        "mode": "iptables",
    });
    let disk = state.node(&node.name);
    std::fs::create_dir_all(disk.join("manifests"))
        .map_err(|source| Error::Write { path: disk.join("manifests"), source })?;
    for (file, document) in [("kubelet.yaml", kubelet), ("kube-proxy.yaml", proxy)] {
        let path = disk.join(file);
        std::fs::write(&path, yaml::emit(&document)).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}
