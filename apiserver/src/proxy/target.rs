//! Where a proxied request goes: a kubelet by the addresses of its node, a pod by its IP, a service
//! by one of its endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::gvk::GroupResource;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use serde_json::Value;

use crate::cache::Freshness;
use crate::handlers::get;
use crate::registry::Served;
use crate::server::Server;
use crate::server::walk::Context;

/// The port of a kubelet that does not say another.
const KUBELET_PORT: u16 = 10250;

/// One end of a proxied connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
    /// `https`, with the kubelet client certificate when `kubelet` is set.
    pub tls: bool,
    pub kubelet: bool,
}

impl Target {
    /// `host:port`, as in a Host header.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The kubelet that a pod's node has.
///
/// # Errors
/// As [`kubelet`]; but upstream looks the node up on behalf of the request, so that what does not exist is called a pod,
/// by the node's name.
pub async fn kubelet_of_pod(server: &Arc<Server>, node: &str) -> Result<Target, Status> {
    kubelet(server, node).await.map_err(|status| {
        if status.is_not_found() { Status::not_found(&GroupResource::new("", "pods"), node) } else { status }
    })
}

/// The kubelet of a node.
///
/// # Errors
/// 404 for nodes that do not exist, 500 for nodes without an address.
pub async fn kubelet(server: &Arc<Server>, name: &str) -> Result<Target, Status> {
    let nodes = server.registry.any_version("", "nodes").ok_or_else(|| Status::internal("nodes are switched off"))?;
    let node = get::read_at(nodes, "", name, Freshness::Any).await?.tree();
    let port = node
        .i64_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"])
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .unwrap_or(KUBELET_PORT);
    let addresses = node.list_at(&["status", "addresses"]);
    let host = server
        .config
        .kubelet
        .preferred_address_types
        .iter()
        .find_map(|wanted| {
            addresses
                .iter()
                .find(|address| address.str_at(&["type"]) == Some(wanted))
                .and_then(|address| address.str_at(&["address"]))
        })
        .ok_or_else(|| {
            Status::internal(format!(
                "no preferred addresses found; known addresses: {}",
                Value::from(addresses.to_vec())
            ))
        })?;
    Ok(Target { host: host.to_string(), port, tls: true, kubelet: true })
}

/// `[scheme:]name[:port]` as proxy paths write it; `None` for what is none.
fn split(name: &str) -> Option<(&str, &str, &str)> {
    let parts: Vec<&str> = name.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    (["", "http", "https"].contains(&scheme) && !name.is_empty()).then_some((scheme, name, port))
}

/// Refuses addresses that are the server's own or mean nothing elsewhere.
fn check_address(host: &str) -> Result<(), Status> {
    let allowed = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => !ip.is_loopback() && !ip.is_link_local() && !ip.octets().starts_with(&[224, 0, 0]),
        Ok(IpAddr::V6(ip)) => {
            let head = ip.segments()[0];
            // Link-local, and multicast that does not leave the link or the interface.
            !ip.is_loopback() && head & 0xffc0 != 0xfe80 && !matches!(head & 0xff0f, 0xff01 | 0xff02)
        }
        Err(_) => true,
    };
    if allowed { Ok(()) } else { Err(Status::bad_request("address not allowed")) }
}

/// A node's kubelet, or another port of the node.
///
/// # Errors
/// As [`kubelet`].
pub async fn node(server: &Arc<Server>, name: &str) -> Result<Target, Status> {
    let Some((scheme, name, port)) = split(name) else {
        return Err(Status::bad_request(format!("invalid node request {name:?}")));
    };
    let mut target = kubelet(server, name).await?;
    if let Ok(port) = port.parse::<u16>()
        && port != target.port
    {
        target.port = port;
        target.kubelet = false;
        target.tls = scheme == "https";
    }
    Ok(target)
}

/// A pod's IP and port.
///
/// # Errors
/// 404 for pods that do not exist, 400 for pods without an address.
pub async fn pod(cx: &Context, served: &Served) -> Result<Target, Status> {
    let Some((scheme, name, port)) = split(&cx.info.name) else {
        return Err(Status::bad_request(format!("invalid pod request {:?}", cx.info.name)));
    };
    let pod = get::read_at(served, &cx.info.namespace, name, Freshness::Consistent).await?.tree();
    let host = pod.str_at(&["status", "podIP"]).unwrap_or_default().to_string();
    if host.is_empty() {
        return Err(Status::bad_request("address not allowed"));
    }
    check_address(&host)?;
    let port = if port.is_empty() {
        pod.list_at(&["spec", "containers"])
            .iter()
            .flat_map(|container| container.list_at(&["ports"]))
            .find_map(|port| u16::try_from(port.i64_at(&["containerPort"])?).ok())
            .unwrap_or(if scheme == "https" { 443 } else { 80 })
    } else {
        port.parse().map_err(|_| Status::bad_request(format!("invalid pod request {:?}", cx.info.name)))?
    };
    Ok(Target { host, port, tls: scheme == "https", kubelet: false })
}

/// One ready endpoint of a service.
///
/// # Errors
/// 404 for services that do not exist, 503 for services without endpoints.
pub async fn service(cx: &Context, served: &Served) -> Result<Target, Status> {
    let Some((scheme, name, wanted)) = split(&cx.info.name) else {
        return Err(Status::bad_request(format!("invalid service request {:?}", cx.info.name)));
    };
    let service = get::read_at(served, &cx.info.namespace, name, Freshness::Consistent).await?.tree();
    let ports = service.list_at(&["spec", "ports"]);
    // A number stands for the name of the port that has it; without either, the port without a name is meant.
    let port_name = match wanted.parse::<i64>() {
        Ok(number) => ports
            .iter()
            .find(|port| port.i64_at(&["port"]) == Some(number))
            .map(|port| port.str_at(&["name"]).unwrap_or_default())
            .ok_or_else(|| {
                Status::service_unavailable(format!("no service port {number} found for service {name:?}"))
            })?,
        Err(_) => wanted,
    };
    let none = || Status::service_unavailable(format!("no endpoints available for service {:?}", cx.info.name));
    let slices = cx.server.registry.any_version("discovery.k8s.io", "endpointslices").ok_or_else(none)?;
    let cache = slices.cache.as_ref().ok_or_else(none)?;
    let snapshot = cache.snapshot(Freshness::Consistent).await.map_err(crate::handlers::errors::of_read)?;
    let mut found = Vec::new();
    for entry in snapshot.range(Some(&cx.info.namespace), None) {
        if entry.label("kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let slice = entry.tree();
        let Some(number) = slice
            .list_at(&["ports"])
            .iter()
            .find(|port| port.str_at(&["name"]).unwrap_or_default() == port_name)
            .and_then(|port| u16::try_from(port.i64_at(&["port"])?).ok())
        else {
            continue;
        };
        for endpoint in slice.list_at(&["endpoints"]) {
            if endpoint.bool_at(&["conditions", "ready"]).unwrap_or(true) {
                let addresses = endpoint.list_at(&["addresses"]).iter().filter_map(Value::as_str);
                found.extend(addresses.map(|address| (address.to_string(), number)));
            }
        }
    }
    if found.is_empty() {
        return Err(none());
    }
    for (host, _) in &found {
        check_address(host)?;
    }
    let (host, port) = found.swap_remove(rand::random::<u32>() as usize % found.len());
    Ok(Target { host, port, tls: scheme == "https", kubelet: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_names() {
        assert_eq!(split("web"), Some(("", "web", "")));
        assert_eq!(split("web:80"), Some(("", "web", "80")));
        assert_eq!(split("https:web:443"), Some(("https", "web", "443")));
        assert_eq!(split("ftp:web:443"), None);
        assert_eq!(split("a:b:c:d"), None);
    }

    #[test]
    fn some_addresses_are_nobodys_to_reach() {
        for host in ["127.0.0.1", "::1", "169.254.0.1", "fe80::1", "ff02::1", "224.0.0.1"] {
            assert_eq!(check_address(host).unwrap_err().message, "address not allowed", "{host}");
        }
        for host in ["10.0.0.1", "fd00::1", "node.example"] {
            assert!(check_address(host).is_ok(), "{host}");
        }
    }
}
