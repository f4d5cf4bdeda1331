//! The network of a local cluster: a bridge on the host, a network namespace and a cable per node,
//! and routes so that the host and every node reach every pod and every Service.
//!
//! The host reaches cluster IPs through the nodes: the service range is routed to all of them (one
//! path each), and their kube-proxy translates. Nothing of kube-proxy runs on the host.

use std::path::Path;

use crate::command::{self, Error, undo, words};
use crate::node::is_mount_point;
use crate::state::{
    BRIDGE, CLUSTER_CIDR, DNS_ADDRESS, HOST_ADDRESS, NODE_NETWORK, NODE_PREFIX, NodeName, SERVICE_CIDR,
};

/// Comment on every host rule that is ours: `down` deletes by it.
const COMMENT: &str = "keelson";

/// Makes the bridge and the host's rules; what is already there is kept.
pub async fn make_bridge() -> Result<(), Error> {
    if !exists(BRIDGE) {
        words(&format!("ip link add {BRIDGE} type bridge")).await?;
    }
    words(&format!("ip address replace {HOST_ADDRESS}/{NODE_PREFIX} dev {BRIDGE}")).await?;
    words(&format!("ip link set {BRIDGE} up")).await?;
    set_sysctl(Path::new("/proc/sys/net/ipv4/ip_forward"), "1");
    for rule in host_rules() {
        if words(&format!("iptables -w {}", rule.replacen("{op}", "-C", 1))).await.is_err() {
            words(&format!("iptables -w {}", rule.replacen("{op}", "-I", 1))).await?;
        }
    }
    Ok(())
}

/// Removes what [`make_bridge`] made. Forwarding stays on: others may have come to need it.
pub async fn remove_bridge() {
    for rule in host_rules() {
        // A rule may stand twice if an earlier `up` was cut off between its check and its insert.
        while words(&format!("iptables -w {}", rule.replacen("{op}", "-D", 1))).await.is_ok() {}
    }
    undo(&format!("ip link delete {BRIDGE}")).await;
}

/// What the host's firewall must let through, whatever its policy, and what it must translate:
/// pods' and nodes' traffic that leaves the cluster.
fn host_rules() -> Vec<String> {
    let comment = format!("-m comment --comment {COMMENT}");
    vec![
        format!("-t filter {{op}} FORWARD -i {BRIDGE} {comment} -j ACCEPT"),
        format!("-t filter {{op}} FORWARD -o {BRIDGE} {comment} -j ACCEPT"),
        format!("-t nat {{op}} POSTROUTING -s {NODE_NETWORK} ! -o {BRIDGE} {comment} -j MASQUERADE"),
        format!("-t nat {{op}} POSTROUTING -s {CLUSTER_CIDR} ! -o {BRIDGE} {comment} -j MASQUERADE"),
    ]
}

/// Makes a node's network namespace and its cable to the bridge.
pub async fn make_node(node: &NodeName) -> Result<(), Error> {
    let (netns, veth, address) = (node.netns(), node.veth(), node.address());
    let pin = Path::new("/run/netns").join(&netns);
    if !is_mount_point(&pin) {
        if pin.exists() {
            // `ip` was cut off between making the file and pinning the namespace on it.
            words(&format!("ip netns delete {netns}")).await?;
        }
        words(&format!("ip netns add {netns}")).await?;
    }
    if !exists(&veth) {
        words(&format!("ip link add {veth} type veth peer name eth0 netns {netns}")).await?;
    }
    words(&format!("ip link set {veth} master {BRIDGE} up")).await?;
    // kube-proxy translates what a pod sends to a pod of its own node by way of a Service, which it
    // can only where bridged packets pass iptables. Without the module there is nothing to switch.
    let bridged = |family: &str| format!("sysctl -qw net.bridge.bridge-nf-call-{family}=1 2>/dev/null || :");
    let script = [
        "set -e".to_owned(),
        "ip link set lo up".to_owned(),
        // Where cluster DNS answers, on every node itself. The loopback device needs no kernel module.
        format!("ip address replace {DNS_ADDRESS}/32 dev lo"),
        format!("ip address replace {address}/{NODE_PREFIX} dev eth0"),
        "ip link set eth0 up".to_owned(),
        format!("ip route replace default via {HOST_ADDRESS}"),
        "sysctl -qw net.ipv4.ip_forward=1".to_owned(),
        bridged("iptables"),
        bridged("ip6tables"),
    ];
    // All in one process: going into the namespace takes longer than any of them.
    enter(&netns, ["sh", "-c", &script.join("\n")]).await?;
    Ok(())
}

/// Removes a node's namespace; its cable goes with it.
pub async fn remove_node(node: &NodeName) {
    undo(&format!("ip link delete {}", node.veth())).await;
    undo(&format!("ip netns delete {}", node.netns())).await;
}

/// Routes every node's pods, on the host and on every other node, and the service range on the host.
///
/// # Errors
/// What `ip route` answers to the first route that it does not take.
pub async fn route(nodes: &[(NodeName, String)]) -> Result<(), Error> {
    for (node, pod_cidr) in nodes {
        words(&format!("ip route replace {pod_cidr} via {}", node.address())).await?;
        for (other, _) in nodes.iter().filter(|(other, _)| other != node) {
            within(&other.netns(), &format!("ip route replace {pod_cidr} via {}", node.address())).await?;
        }
    }
    let hops: String = nodes.iter().map(|(node, _)| format!(" nexthop via {}", node.address())).collect();
    if !hops.is_empty() {
        words(&format!("ip route replace {SERVICE_CIDR}{hops}")).await?;
    }
    Ok(())
}

/// Runs a command in a network namespace, its words in one string.
pub async fn within(netns: &str, line: &str) -> Result<String, Error> {
    enter(netns, line.split_whitespace()).await
}

/// Runs a command in a network namespace. `ip netns exec` would mount /sys anew and hide the cgroups.
async fn enter<'a>(netns: &str, command: impl IntoIterator<Item = &'a str>) -> Result<String, Error> {
    let mut parts = vec![format!("--net=/run/netns/{netns}"), "--".to_owned()];
    parts.extend(command.into_iter().map(str::to_owned));
    command::run("nsenter", parts.iter().map(String::as_str)).await
}

fn exists(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).exists()
}

/// Nested hosts may refuse a sysctl that is already as it should be; the cluster then works anyway.
fn set_sysctl(path: &Path, value: &str) {
    if std::fs::read_to_string(path).is_ok_and(|now| now.trim() == value) {
        return;
    }
    if let Err(error) = std::fs::write(path, value) {
        tracing::warn!(path = %path.display(), %error, "cannot set a sysctl");
    }
}
