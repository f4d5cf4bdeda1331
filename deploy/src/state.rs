//! Where a local cluster keeps what it has on this machine. Everything that `keelson up` makes is
//! named here, so that `keelson down` can remove it without looking anything up.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The bridge that every node of a local cluster hangs on.
pub const BRIDGE: &str = "keelson0";
/// The host's address on [`BRIDGE`]; the control plane is reached there by nodes and pods.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// Prefix length of the node network.
pub const NODE_PREFIX: u8 = 24;
/// The node network, as masquerading rules write it.
pub const NODE_NETWORK: &str = "172.30.0.0/24";
/// Upstream's (kubeadm's) customary pod range; every node gets a /24 of it.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// Upstream's (kubeadm's) default service range, with kube-apiserver's own mask.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// First address of [`SERVICE_CIDR`]: the `kubernetes` Service.
pub const KUBERNETES_SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Where cluster DNS answers, by upstream's convention (kubeadm: tenth address of the range).
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The domain of the cluster's names, by upstream's convention.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// kube-apiserver's default secure port.
pub const API_PORT: u16 = 6443;
/// Name of the context, cluster and user entries in kubeconfig files.
pub const CONTEXT: &str = "keelson";
/// More nodes than this do not fit into [`NODE_NETWORK`] above [`HOST_ADDRESS`].
pub const MAX_NODES: u32 = 200;

/// The folders of one local cluster.
#[derive(Clone, Debug)]
pub struct State {
    /// Survives a reboot: certificates, data, nodes' disks.
    pub root: PathBuf,
    /// Gone after a reboot: sockets, process ids, pinned namespaces.
    pub run: PathBuf,
}

impl Default for State {
    fn default() -> Self {
        State { root: "/var/lib/keelson".into(), run: "/run/keelson".into() }
    }
}

impl State {
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.root.join("admin.kubeconfig")
    }
    pub fn kubeconfig(&self, component: &str) -> PathBuf {
        self.root.join("kubeconfigs").join(component)
    }
    pub fn server_data(&self) -> PathBuf {
        self.root.join("server")
    }
    pub fn etcd_data(&self) -> PathBuf {
        self.root.join("etcd")
    }
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    pub fn node(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(name)
    }
    pub fn node_run(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }
    pub fn containerd_socket(&self, name: &str) -> PathBuf {
        self.node_run(name).join("containerd.sock")
    }
    pub fn pids(&self) -> PathBuf {
        self.run.join("pids")
    }
    /// A private tmpfs on which namespaces are pinned: a mount namespace may only be bound on a mount
    /// that does not propagate.
    pub fn namespaces(&self) -> PathBuf {
        self.run.join("namespaces")
    }
    /// What the cluster was started with; the supervisor and a second `up` read it.
    pub fn plan(&self) -> PathBuf {
        self.root.join("cluster.json")
    }
}

/// One node of a local cluster: names and addresses follow from its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// From 1.
    pub number: u32,
    /// `node-N`: the Node object's name and the host name inside.
    pub name: String,
}

impl NodeName {
    pub fn new(number: u32) -> Self {
        NodeName { number, name: format!("node-{number}") }
    }
    /// Name of the network namespace.
    pub fn netns(&self) -> String {
        format!("keelson-node-{}", self.number)
    }
    /// The host's end of the node's cable; the kernel allows 15 characters.
    pub fn veth(&self) -> String {
        format!("keelson-n{}", self.number)
    }
    pub fn address(&self) -> Ipv4Addr {
        let base = u32::from(HOST_ADDRESS);
        Ipv4Addr::from(base - 1 + 10 + self.number)
    }
}

/// Creates a folder that only root may look into.
pub fn private_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_follow_from_the_number() {
        let node = NodeName::new(2);
        assert_eq!(node.name, "node-2");
        assert_eq!(node.netns(), "keelson-node-2");
        assert_eq!(node.address(), Ipv4Addr::new(172, 30, 0, 12));
        assert!(NodeName::new(MAX_NODES).veth().len() <= 15);
        assert_eq!(NodeName::new(MAX_NODES).address().octets()[..3], HOST_ADDRESS.octets()[..3]);
    }
}
