//! What a local cluster consists of: its nodes, its store, and from these the processes that run.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::server::{Store, Switches};
use crate::state::{
    API_PORT, CLUSTER_CIDR, CLUSTER_DOMAIN, DNS_ADDRESS, HOST_ADDRESS, KUBERNETES_SERVICE_ADDRESS, NodeName,
    SERVICE_CIDR, State,
};
use crate::supervisor::Process;
use crate::{node, node_config};

/// Where a cluster's own etcd listens: etcd's customary client port, on the loopback address only.
pub const ETCD_CLIENT: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";

/// What `keelson up` was asked for; kept, so that a second `up` and the supervisor agree with the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub nodes: u32,
    pub store: Store,
    #[serde(default)]
    pub switches: Switches,
}

impl Plan {
    pub fn node_names(&self) -> Vec<NodeName> {
        (1..=self.nodes).map(NodeName::new).collect()
    }

    /// Names and addresses that the API server's certificate is for.
    pub fn server_names() -> Vec<String> {
        let mut names: Vec<String> = ["localhost", "127.0.0.1"].map(String::from).to_vec();
        names.extend([HOST_ADDRESS.to_string(), KUBERNETES_SERVICE_ADDRESS.to_string()]);
        names.extend(crate::server::SERVICE_NAMES.map(String::from));
        names
    }

    /// Every process of the cluster, the control plane first. `programs` is the folder of our binaries.
    pub fn processes(&self, state: &State, programs: &Path) -> Vec<Process> {
        let mut processes = Vec::new();
        if self.store == Store::Etcd {
            processes.push(etcd(state));
        }
        processes.push(self.server(state, programs));
        for node in self.node_names() {
            processes.extend(node_processes(state, programs, &node));
        }
        processes
    }

    fn server(&self, state: &State, programs: &Path) -> Process {
        let mut argv = vec![
            programs.join("keelson").display().to_string(),
            "server".to_owned(),
            format!("--data-dir={}", state.server_data().display()),
            format!("--pki-dir={}", state.pki().display()),
            format!("--secure-port={API_PORT}"),
            "--bind-address=0.0.0.0".to_owned(),
            format!("--advertise-address={HOST_ADDRESS}"),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            format!("--cluster-cidr={CLUSTER_CIDR}"),
            format!("--cluster-dns={DNS_ADDRESS}"),
            "--component-bind-address=127.0.0.1".to_owned(),
            format!("--store={}", self.store),
        ];
        if self.store == Store::Etcd {
            argv.push(format!("--etcd-servers={ETCD_CLIENT}"));
        }
        argv.extend(self.switches.arguments());
        Process { name: "server".to_owned(), argv }
    }
}

fn etcd(state: &State) -> Process {
    let argv = vec![
        "etcd".to_owned(),
        "--name=keelson".to_owned(),
        format!("--data-dir={}", state.etcd_data().display()),
        format!("--listen-client-urls={ETCD_CLIENT}"),
        format!("--advertise-client-urls={ETCD_CLIENT}"),
        format!("--listen-peer-urls={ETCD_PEER}"),
        format!("--initial-advertise-peer-urls={ETCD_PEER}"),
        format!("--initial-cluster=keelson={ETCD_PEER}"),
    ];
    Process { name: "etcd".to_owned(), argv }
}

fn node_processes(state: &State, programs: &Path, node: &NodeName) -> Vec<Process> {
    let within = |program: &str, args: Vec<String>| {
        let mut argv = node::enter(state, node);
        argv.push(program.to_owned());
        argv.extend(args);
        argv
    };
    let ours = |program: &str| programs.join(program).display().to_string();
    let disk = state.node(&node.name);
    let containerd = within("containerd", vec![format!("--config={}", disk.join("containerd.toml").display())]);
    let kubelet = within(
        &ours("kubelet"),
        vec![
            format!("--config={}", disk.join("kubelet.yaml").display()),
            format!("--kubeconfig={}", state.kubeconfig(&format!("kubelet-{}", node.name)).display()),
            format!("--hostname-override={}", node.name),
            format!("--node-ip={}", node.address()),
        ],
    );
    let proxy = within(&ours("kube-proxy"), vec![format!("--config={}", disk.join("kube-proxy.yaml").display())]);
    let dns = within(
        &ours("keelson-dns"),
        vec![
            format!("--kubeconfig={}", state.kubeconfig("keelson-dns").display()),
            format!("--bind-addresses={DNS_ADDRESS}"),
            format!("--cluster-domain={CLUSTER_DOMAIN}"),
            format!("--resolv-conf={}", node_config::resolv_conf()),
            // A pod on the node's network may want these at every address; health is at the metrics' port, too.
            "--health-port=0".to_owned(),
            "--ready-port=0".to_owned(),
        ],
    );
    vec![
        Process { name: format!("{}-containerd", node.name), argv: containerd },
        Process { name: format!("{}-kubelet", node.name), argv: kubelet },
        Process { name: format!("{}-kube-proxy", node.name), argv: proxy },
        Process { name: format!("{}-dns", node.name), argv: dns },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn names(plan: &Plan) -> Vec<String> {
        let processes = plan.processes(&State::default(), Path::new("/opt/keelson"));
        processes.into_iter().map(|process| process.name).collect()
    }

    #[test]
    fn processes_follow_from_nodes_and_store() {
        let plan = Plan { nodes: 2, store: Store::Embedded, switches: Switches::default() };
        let found = names(&plan);
        assert_eq!(found.len(), 9);
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), 9);
        assert!(names(&Plan { store: Store::Etcd, ..plan }).contains(&"etcd".to_owned()));
    }

    #[test]
    fn a_plan_is_read_back() {
        let switches = Switches { feature_gates: vec![("ClusterTrustBundle".to_owned(), true)], ..Switches::default() };
        let plan = Plan { nodes: 3, store: Store::Etcd, switches };
        let text = serde_json::to_string(&plan).expect("plain data");
        assert_eq!(serde_json::from_str::<Plan>(&text).expect("what was written"), plan);
        // One that was written before there were switches.
        let old: Plan = serde_json::from_str(r#"{"nodes": 2, "store": "etcd"}"#).expect("an older plan");
        assert_eq!(old.switches, Switches::default());
    }

    #[test]
    fn the_server_is_told_of_switches() {
        let switches = Switches {
            feature_gates: vec![("A".to_owned(), true), ("B".to_owned(), false)],
            controllers: vec!["*".to_owned(), "-ttl".to_owned()],
            ..Switches::default()
        };
        let server = |switches: Switches| {
            let plan = Plan { nodes: 1, store: Store::Embedded, switches };
            plan.processes(&State::default(), Path::new("/opt/keelson")).swap_remove(0).argv
        };
        let argv = server(switches);
        assert_eq!(argv[argv.len() - 2..], ["--feature-gates=A=true,B=false", "--controllers=*,-ttl"]);
        assert_eq!(server(Switches::default()).len(), argv.len() - 2);
    }
}
