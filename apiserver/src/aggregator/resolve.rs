//! Where the Service of an APIService is: its cluster IP, or one of its endpoints with
//! `--enable-aggregator-routing`.

use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use serde_json::Value;

use super::routes::ServiceReference;
use crate::cache::{Entry, Freshness};
use crate::server::Server;

/// Why there is no address, in upstream's words.
pub type Error = String;

fn authority(host: &str, port: i64) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The Service's object.
pub fn service(server: &Server, reference: &ServiceReference) -> Option<Value> {
    let services = server.registry.any_version("", "services")?;
    let key = services.key(&reference.namespace, &reference.name);
    services.cache.as_ref()?.cached(&key).map(|entry| entry.tree())
}

/// The endpoint slices of a Service.
pub async fn slices(server: &Server, reference: &ServiceReference) -> Result<Vec<Arc<Entry>>, Error> {
    let Some(cache) =
        server.registry.any_version("discovery.k8s.io", "endpointslices").and_then(|served| served.cache.clone())
    else {
        return Ok(Vec::new());
    };
    let snapshot = cache.snapshot(Freshness::Any).await.map_err(|error| error.to_string())?;
    Ok(snapshot
        .range(Some(&reference.namespace), None)
        .filter(|entry| entry.label("kubernetes.io/service-name") == Some(&reference.name))
        .cloned()
        .collect())
}

/// `host:port` of the Service.
///
/// # Errors
/// A text for the log: clients are only told that the service is unavailable.
pub async fn resolve(server: &Server, reference: &ServiceReference) -> Result<String, Error> {
    if reference.namespace == "default" && reference.name == "kubernetes" && reference.port == 443 {
        return Ok(format!("127.0.0.1:{}", server.advertise_port()));
    }
    let service = service(server, reference).ok_or_else(|| format!("service {:?} not found", reference.name))?;
    let kind = service.str_at(&["spec", "type"]).unwrap_or("ClusterIP").to_string();
    let routed = matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer");
    if server.config.front_proxy.aggregator_routing {
        if !routed {
            return Err(format!("unsupported service type {kind:?}"));
        }
        return endpoint(server, reference, &service).await;
    }
    let address = service.str_at(&["spec", "clusterIP"]).unwrap_or_default();
    match kind.as_str() {
        "ClusterIP" if address == "None" => Err("cannot route to service with ClusterIP \"None\"".to_string()),
        "ExternalName" => {
            let name = service.str_at(&["spec", "externalName"]).unwrap_or_default();
            Ok(authority(name, i64::from(reference.port)))
        }
        _ if routed => {
            let port = port(&service, reference)?;
            Ok(authority(address, port.i64_at(&["port"]).unwrap_or_default()))
        }
        _ => Err(format!("unsupported service type {kind:?}")),
    }
}

fn port<'s>(service: &'s Value, reference: &ServiceReference) -> Result<&'s Value, Error> {
    service
        .list_at(&["spec", "ports"])
        .iter()
        .find(|port| port.i64_at(&["port"]) == Some(i64::from(reference.port)))
        .ok_or_else(|| format!("no service port {} found for service {:?}", reference.port, reference.name))
}

/// A ready endpoint, of the Service's first address family if there is one.
async fn endpoint(server: &Server, reference: &ServiceReference, service: &Value) -> Result<String, Error> {
    let port = port(service, reference)?;
    let name = port.str_at(&["name"]).unwrap_or_default();
    let family = service.list_at(&["spec", "ipFamilies"]).first().and_then(Value::as_str).unwrap_or_default();
    let mut preferred = Vec::new();
    let mut others = Vec::new();
    for entry in slices(server, reference).await? {
        let slice = entry.tree();
        let number = slice
            .list_at(&["ports"])
            .iter()
            .find(|port| port.str_at(&["name"]).unwrap_or_default() == name)
            .and_then(|port| port.i64_at(&["port"]));
        let Some(number) = number else { continue };
        let into = if slice.str_at(&["addressType"]) == Some(family) { &mut preferred } else { &mut others };
        for endpoint in slice.list_at(&["endpoints"]) {
            if endpoint.bool_at(&["conditions", "ready"]).unwrap_or(true)
                && let Some(address) = endpoint.list_at(&["addresses"]).first().and_then(Value::as_str)
            {
                into.push(authority(address, number));
            }
        }
    }
    let mut found = if preferred.is_empty() { others } else { preferred };
    if found.is_empty() {
        return Err(format!("no endpoints available for service {:?}", reference.name));
    }
    Ok(found.swap_remove(rand::random::<u32>() as usize % found.len()))
}
