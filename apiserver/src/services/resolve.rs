//! Where a Service is, for calls of the server itself: webhooks and aggregated servers.
//!
//! A ready endpoint is called directly, as upstream does with `--enable-aggregator-routing`: the
//! server need not be on a node, so cluster IPs may lead nowhere from here.

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use crate::server::Server;

/// Host and port of one ready endpoint behind a port of a Service; its cluster IP if it has no
/// endpoint slices.
///
/// # Errors
/// In upstream's words, when there is no such Service or port.
pub fn resolve(server: &Server, namespace: &str, name: &str, port: u16) -> Result<(String, u16), String> {
    let missing = || format!("service {name:?} not found");
    let services = server.registry.any_version("", "services").ok_or_else(missing)?;
    let cache = services.cache.as_ref().ok_or_else(missing)?;
    let service = cache.cached(&services.key(namespace, name)).ok_or_else(missing)?.tree();
    if service.str_at(&["spec", "type"]) == Some("ExternalName") {
        return Ok((service.str_at(&["spec", "externalName"]).unwrap_or_default().to_string(), port));
    }
    let found = service
        .list_at(&["spec", "ports"])
        .iter()
        .find(|known| known.i64_at(&["port"]) == Some(i64::from(port)))
        .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let port_name = found.str_at(&["name"]).unwrap_or_default();
    let endpoints = ready(server, namespace, name, port_name);
    if let Some(endpoint) = endpoints.get(rand::random::<u32>() as usize % endpoints.len().max(1)) {
        return Ok(endpoint.clone());
    }
    match service.str_at(&["spec", "clusterIP"]) {
        Some(ip) if !matches!(ip, "" | "None") => Ok((ip.to_string(), port)),
        _ => Err(format!("no endpoints available for service {name:?}")),
    }
}

fn ready(server: &Server, namespace: &str, name: &str, port_name: &str) -> Vec<(String, u16)> {
    let slices = server.registry.any_version("discovery.k8s.io", "endpointslices");
    let Some(cache) = slices.and_then(|slices| slices.cache.as_ref()) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in cache.cached_all(namespace) {
        if entry.label("kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let slice = entry.tree();
        let ports = slice.list_at(&["ports"]);
        let named = ports.iter().find(|port| port.str_at(&["name"]).unwrap_or_default() == port_name);
        let Some(number) = named.and_then(|port| u16::try_from(port.i64_at(&["port"])?).ok()) else { continue };
        for endpoint in slice.list_at(&["endpoints"]) {
            if endpoint.bool_at(&["conditions", "ready"]).unwrap_or(true) {
                let addresses = endpoint.list_at(&["addresses"]).iter().filter_map(Value::as_str);
                found.extend(addresses.map(|address| (address.to_string(), number)));
            }
        }
    }
    found
}
