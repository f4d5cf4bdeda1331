//! The configuration files of a node's kubelet and kube-proxy: upstream's own kinds, so that upstream's
//! binaries start with them just as well.

use std::path::{Path, PathBuf};

use apimachinery::yaml;
use component_base::clock::{Clock as _, RealClock};
use component_base::pki::{Pair, Store};
use serde_json::json;

use crate::kubeconfig::{self, Access};
use crate::pki::Pki;
use crate::server::Switches;
use crate::state::{API_PORT, CLUSTER_CIDR, CLUSTER_DOMAIN, DNS_ADDRESS, HOST_ADDRESS, NodeName, State};

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

/// The resolver configuration of nodes and of who asks for them.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// systemd-resolved's own list of who it asks; [`RESOLV_CONF`] names only itself then, at an address of the host.
const SYSTEMD_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// The resolver configuration that means something inside a node.
pub fn resolv_conf() -> &'static str {
    let own = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    if names_only_this_machine(&own) && Path::new(SYSTEMD_RESOLV_CONF).exists() {
        return SYSTEMD_RESOLV_CONF;
    }
    RESOLV_CONF
}

fn names_only_this_machine(resolv_conf: &str) -> bool {
    let mut servers =
        resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim).peekable();
    servers.peek().is_some()
        && servers.all(|server| server.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()))
}

/// Where a node's kubelet keeps the certificates that it was given.
pub fn node_pki(state: &State, node: &str) -> PathBuf {
    state.node(node).join("kubelet").join("pki")
}

/// Gives a kubelet the certificate that it serves with until it asks for its own: before its first one ends, as it goes
/// on to do for good. It need not wait for a first one to be signed, so the node is reached from its first moment on.
fn seed_serving_certificate(dir: &Path, identity: &Pair) -> Result<(), Error> {
    let (store, now) = (Store::new(dir, "kubelet-server"), RealClock::new().now());
    if store.valid(now).is_none() {
        store.update(identity, now).map_err(|source| Error::Write { path: dir.into(), source })?;
    }
    Ok(())
}

/// Writes everything that the node's components read.
pub fn write(state: &State, node: &NodeName, pki: &Pki, switches: &Switches) -> Result<(), Error> {
    let server = format!("https://{HOST_ADDRESS}:{API_PORT}");
    let identity = pki.node(&node.name, &node.address().to_string())?;
    let (proxy_identity, dns_identity) = (pki.client("kube-proxy")?, pki.client("keelson-dns")?);
    let kubelet_kubeconfig = state.kubeconfig(&format!("kubelet-{}", node.name));
    let (proxy_kubeconfig, dns_kubeconfig) = (state.kubeconfig("kube-proxy"), state.kubeconfig("keelson-dns"));
    for (path, pair) in
        [(&kubelet_kubeconfig, &identity), (&proxy_kubeconfig, &proxy_identity), (&dns_kubeconfig, &dns_identity)]
    {
        let access =
            Access { server: &server, ca_pem: pki.ca_pem(), certificate_pem: &pair.cert_pem, key_pem: &pair.key_pem };
        kubeconfig::write(path, &kubeconfig::document(&access))?;
    }
    seed_serving_certificate(&node_pki(state, &node.name), &identity)?;
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
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "enforceNodeAllocatable": ["pods"],
        // The disk is the machine's, shared with everything else on it: how full it is says nothing about
        // the cluster, and must not cost it its pods.
        "evictionHard": {"imagefs.available": "0%", "imagefs.inodesFree": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "failCgroupV1": false,
        "featureGates": switches.feature_gates.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "failSwapOn": false,
        "resolvConf": resolv_conf(),
        "rotateCertificates": true,
        "serverTLSBootstrap": true,
        "staticPodPath": state.node(&node.name).join("manifests"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serving_certificate_is_given_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let pki = Pki::open(&dir.path().join("pki"), &["127.0.0.1".to_owned()]).expect("made");
        let kept = dir.path().join("kubelet/pki");
        let store = Store::new(&kept, "kubelet-server");
        let current = || store.current().expect("there").cert_pem.trim().to_owned();
        let first = pki.node("node-1", "172.30.0.11").expect("issued");
        seed_serving_certificate(&kept, &first).expect("written");
        assert_eq!(current(), first.cert_pem.trim());
        // What the kubelet has been given since is not taken away by another `up`.
        let given = pki.node("node-2", "172.30.0.12").expect("issued");
        store.update(&given, RealClock::new().now()).expect("written");
        seed_serving_certificate(&kept, &first).expect("kept");
        assert_eq!(current(), given.cert_pem.trim());
    }

    #[test]
    fn a_resolver_of_this_machine_alone_is_told_from_others() {
        assert!(names_only_this_machine("search x\nnameserver 127.0.0.53\noptions edns0\n"));
        for other in ["", "search x\n", "nameserver 127.0.0.53\nnameserver 10.0.0.2\n", "nameserver 10.0.0.2\n"] {
            assert!(!names_only_this_machine(other), "{other}");
        }
    }
}
