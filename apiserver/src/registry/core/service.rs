//! Services: families, cluster IPs and node ports, as upstream's `core/service/storage`.

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gvk::GroupKind;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::registry::hooks::{HookContext, Hooks, Reservation};
use crate::server::Server;

pub struct Service;

const NONE: &str = "None";

fn kind(service: &Value) -> &str {
    service.str_at(&["spec", "type"]).unwrap_or("ClusterIP")
}

fn needs_ip(service: &Value) -> bool {
    matches!(kind(service), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service.bool_at(&["spec", "allocateLoadBalancerNodePorts"]).unwrap_or(true),
        _ => false,
    }
}

fn needs_health_check_port(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && service.str_at(&["spec", "externalTrafficPolicy"]) == Some("Local")
}

fn cluster_ip(service: &Value) -> &str {
    service.str_at(&["spec", "clusterIP"]).unwrap_or_default()
}

fn cluster_ips(service: &Value) -> Vec<String> {
    let list = service.list_at(&["spec", "clusterIPs"]);
    list.iter().filter_map(Value::as_str).map(str::to_string).collect()
}

fn is_headless(service: &Value) -> bool {
    cluster_ip(service) == NONE || cluster_ips(service).first().is_some_and(|ip| ip == NONE)
}

/// Keeps `clusterIP` and `clusterIPs` in step, whichever of the two a client knows.
fn normalize(new: &mut Value, old: Option<&Value>) {
    let (one, many) = (cluster_ip(new).to_string(), cluster_ips(new));
    let set = |new: &mut Value, ips: Vec<String>| {
        if ips.is_empty() {
            new.remove_at(&["spec", "clusterIPs"]);
        } else {
            new.set_at(&["spec", "clusterIPs"], json!(ips));
        }
    };
    match old {
        None => {
            if !one.is_empty() && many.is_empty() {
                set(new, vec![one]);
            }
        }
        Some(old) => {
            let (old_one, old_many) = (cluster_ip(old).to_string(), cluster_ips(old));
            if !old_one.is_empty() && one.is_empty() && many == old_many {
                // Cleared by a client that knows only the one.
                set(new, Vec::new());
            } else if one != old_one && many == old_many {
                set(new, if one.is_empty() { Vec::new() } else { vec![one] });
            } else if one != old_one && !one.is_empty() && many.is_empty() {
                set(new, vec![one]);
            }
        }
    }
}

impl Service {
    /// What an update that leaves allocated values out keeps of them.
    fn keep_allocated(new: &mut Value, old: &Value) {
        if needs_ip(old) && needs_ip(new) {
            if cluster_ip(new).is_empty() && cluster_ips(new).is_empty() && !cluster_ip(old).is_empty() {
                new.set_at(&["spec", "clusterIP"], cluster_ip(old).into());
            }
            if cluster_ips(new).is_empty() && cluster_ip(new) == cluster_ip(old) && !cluster_ips(old).is_empty() {
                new.set_at(&["spec", "clusterIPs"], json!(cluster_ips(old)));
            }
        }
        if needs_node_ports(old) && needs_node_ports(new) {
            let before: Vec<Value> = old.list_at(&["spec", "ports"]).to_vec();
            let mut taken: Vec<i64> =
                new.list_at(&["spec", "ports"]).iter().filter_map(|port| port.i64_at(&["nodePort"])).collect();
            for port in ports_mut(new) {
                if port.i64_at(&["nodePort"]).unwrap_or_default() != 0 {
                    continue;
                }
                let same = before.iter().find(|other| {
                    other.get("port") == port.get("port") && other.get("protocol") == port.get("protocol")
                });
                if let Some(number) = same.and_then(|other| other.i64_at(&["nodePort"]))
                    && number != 0
                    && !taken.contains(&number)
                {
                    taken.push(number);
                    port["nodePort"] = number.into();
                }
            }
        }
        if needs_health_check_port(old)
            && needs_health_check_port(new)
            && new.i64_at(&["spec", "healthCheckNodePort"]).unwrap_or_default() == 0
            && let Some(port) = old.at(&["spec", "healthCheckNodePort"]).cloned()
        {
            new.set_at(&["spec", "healthCheckNodePort"], port);
        }
    }

    /// What a change of type drops, where the client left it as it was.
    fn drop_of_type(new: &mut Value, old: &Value) {
        if needs_ip(old) && !needs_ip(new) && cluster_ips(new) == cluster_ips(old) {
            for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                new.remove_at(&["spec", name]);
            }
        }
        if needs_node_ports(old) && !needs_node_ports(new) && !matches!(kind(new), "NodePort" | "LoadBalancer") {
            let before: Vec<i64> =
                old.list_at(&["spec", "ports"]).iter().filter_map(|port| port.i64_at(&["nodePort"])).collect();
            let after: Vec<i64> =
                new.list_at(&["spec", "ports"]).iter().filter_map(|port| port.i64_at(&["nodePort"])).collect();
            if after.iter().all(|port| before.contains(port)) {
                for port in ports_mut(new) {
                    if let Some(map) = port.as_object_mut() {
                        map.remove("nodePort");
                    }
                }
            }
        }
        if needs_health_check_port(old)
            && !needs_health_check_port(new)
            && new.at(&["spec", "healthCheckNodePort"]) == old.at(&["spec", "healthCheckNodePort"])
        {
            new.remove_at(&["spec", "healthCheckNodePort"]);
        }
        let external = |service: &Value| matches!(kind(service), "NodePort" | "LoadBalancer");
        let same = |name: &str| new.at(&["spec", name]) == old.at(&["spec", name]);
        if external(old)
            && !external(new)
            && same("externalTrafficPolicy")
            && new.list_at(&["spec", "externalIPs"]).is_empty()
        {
            new.remove_at(&["spec", "externalTrafficPolicy"]);
        }
        if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
            for name in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
                if new.at(&["spec", name]) == old.at(&["spec", name]) {
                    new.remove_at(&["spec", name]);
                }
            }
        }
    }
}

fn ports_mut(service: &mut Value) -> impl Iterator<Item = &mut Value> {
    service.get_mut("spec").and_then(|spec| spec.get_mut("ports")).and_then(Value::as_array_mut).into_iter().flatten()
}

#[async_trait]
impl Hooks for Service {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        object.set_at(&["status"], json!({"loadBalancer": {}}));
        normalize(object, None);
    }

    fn prepare_update(&self, cx: &HookContext<'_>, new: &mut Value, old: &Value) {
        if !cx.subresource.is_empty() {
            return;
        }
        normalize(new, Some(old));
        Service::drop_of_type(new, old);
        Service::keep_allocated(new, old);
    }

    async fn reserve(
        &self,
        cx: &HookContext<'_>,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<Option<Box<dyn Reservation>>, Status> {
        if !cx.subresource.is_empty() {
            return Ok(None);
        }
        let mut taken = Taken {
            server: cx.server.clone(),
            service: (new.namespace().to_string(), new.name().to_string()),
            ips: Vec::new(),
            obsolete: Vec::new(),
            ports: Vec::new(),
            kept: false,
            dry_run: cx.dry_run,
        };
        families(cx.server, new);
        addresses(cx, new, old, &mut taken).await?;
        ports(cx, new, old, &mut taken).await?;
        Ok(Some(Box::new(taken)))
    }

    async fn deleted(&self, cx: &HookContext<'_>, object: &Value) {
        for ip in cluster_ips(object) {
            if let Ok(address) = ip.parse() {
                cx.server.allocators.ips.release(cx.server, address, (object.namespace(), object.name())).await;
            }
        }
    }
}

/// Fills in `ipFamilies` and `ipFamilyPolicy`.
fn families(server: &Server, service: &mut Value) {
    if !needs_ip(service) {
        return;
    }
    let available = server.allocators.ips.families();
    let headless_without_selector =
        is_headless(service) && service.map_at(&["spec", "selector"]).is_none_or(serde_json::Map::is_empty);
    let mut wanted: Vec<String> =
        service.list_at(&["spec", "ipFamilies"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    let policy = service.str_at(&["spec", "ipFamilyPolicy"]).unwrap_or_default().to_string();
    let policy = if !policy.is_empty() {
        policy
    } else if headless_without_selector || wanted.len() > 1 || cluster_ips(service).len() > 1 {
        "RequireDualStack".to_string()
    } else {
        "SingleStack".to_string()
    };
    for ip in cluster_ips(service) {
        if let Ok(address) = ip.parse::<IpAddr>() {
            let family = crate::services::ips::family(&address).to_string();
            if !wanted.contains(&family) {
                wanted.push(family);
            }
        }
    }
    if wanted.is_empty() {
        wanted.extend(available.first().map(ToString::to_string));
    }
    if policy != "SingleStack" && wanted.len() < 2 && (available.len() > 1 || headless_without_selector) {
        let other = if wanted.first().is_some_and(|family| family == "IPv4") { "IPv6" } else { "IPv4" };
        if headless_without_selector || available.contains(&other) {
            wanted.push(other.to_string());
        }
    }
    service.set_at(&["spec", "ipFamilies"], json!(wanted));
    service.set_at(&["spec", "ipFamilyPolicy"], policy.into());
}

fn invalid(service: &Value, error: field::FieldError) -> Status {
    Status::invalid(&GroupKind::new("", "Service"), service.name(), &ErrorList::from(error))
}

async fn addresses(
    cx: &HookContext<'_>,
    new: &mut Value,
    old: Option<&Value>,
    taken: &mut Taken,
) -> Result<(), Status> {
    let before: Vec<String> = old.map(cluster_ips).unwrap_or_default();
    if !needs_ip(new) {
        taken.obsolete = before.iter().filter_map(|ip| ip.parse().ok()).collect();
        return Ok(());
    }
    if is_headless(new) {
        new.set_at(&["spec", "clusterIP"], NONE.into());
        new.set_at(&["spec", "clusterIPs"], json!([NONE]));
        return Ok(());
    }
    let families: Vec<String> =
        new.list_at(&["spec", "ipFamilies"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    let mut ips = cluster_ips(new);
    let service = taken.service.clone();
    let who = (service.0.as_str(), service.1.as_str());
    let allocator = &cx.server.allocators.ips;
    for (at, family) in families.iter().enumerate() {
        match ips.get(at) {
            Some(ip) if before.contains(ip) => {}
            Some(ip) => {
                let path = Path::new("spec").child("clusterIPs");
                let refuse = |why: String| {
                    invalid(new, field::invalid(&path, json!(ips), format!("failed to allocate IP {ip}: {why}")))
                };
                let Ok(address) = ip.parse::<IpAddr>() else { continue };
                if !allocator.contains(&address) {
                    let ranges: Vec<String> = allocator.ranges().iter().map(ToString::to_string).collect();
                    return Err(refuse(format!(
                        "the provided network does not match the current range: {}",
                        ranges.join(",")
                    )));
                }
                if !allocator.take(cx.server, address, who, cx.dry_run).await? {
                    return Err(refuse("provided IP is already allocated".to_string()));
                }
                taken.ips.push(address);
            }
            None => {
                let address = allocator.next(cx.server, family, who, cx.dry_run).await?;
                taken.ips.push(address);
                ips.push(address.to_string());
            }
        }
    }
    taken.obsolete = before.iter().filter(|ip| !ips.contains(ip)).filter_map(|ip| ip.parse().ok()).collect();
    if let Some(first) = ips.first() {
        new.set_at(&["spec", "clusterIP"], first.clone().into());
    }
    new.set_at(&["spec", "clusterIPs"], json!(ips));
    Ok(())
}

async fn ports(cx: &HookContext<'_>, new: &mut Value, old: Option<&Value>, taken: &mut Taken) -> Result<(), Status> {
    let own: Vec<u16> = old.map(crate::services::ports::of).unwrap_or_default();
    let key = cx
        .server
        .registry
        .any_version("", "services")
        .map(|served| served.key(new.namespace(), new.name()))
        .unwrap_or_default();
    let allocator = &cx.server.allocators.ports;
    let (low, high) = allocator.range();
    // One number may serve several protocols of one Service.
    let mut mine: Vec<u16> = own;
    let mut promise = async |wanted: Option<u16>, mine: &mut Vec<u16>| -> Result<Option<u16>, Status> {
        if let Some(port) = wanted
            && mine.contains(&port)
        {
            return Ok(Some(port));
        }
        let port = allocator.promise(cx.server, wanted, &key).await?;
        if let Some(port) = port {
            taken.ports.push(port);
            mine.push(port);
        }
        Ok(port)
    };
    if needs_node_ports(new) || (matches!(kind(new), "NodePort" | "LoadBalancer")) {
        let count = new.list_at(&["spec", "ports"]).len();
        // Ports asked for by number come first, so that none is given away by chance.
        let mut numbers: Vec<Option<u16>> = Vec::with_capacity(count);
        for at in 0..count {
            let wanted = new.list_at(&["spec", "ports"])[at].i64_at(&["nodePort"]).unwrap_or_default();
            let wanted = u16::try_from(wanted).ok().filter(|port| *port != 0);
            if let Some(port) = wanted {
                let path = Path::new("spec").child("ports").index(at).child("nodePort");
                let in_range = (low..=high).contains(&port);
                if !in_range && !mine.contains(&port) {
                    return Err(invalid(
                        new,
                        field::invalid(
                            &path,
                            i64::from(port),
                            format!(
                                "provided port is not in the valid range. The range of valid ports is {low}-{high}"
                            ),
                        ),
                    ));
                }
                if promise(Some(port), &mut mine).await?.is_none() {
                    return Err(invalid(
                        new,
                        field::invalid(&path, i64::from(port), "provided port is already allocated"),
                    ));
                }
            }
            numbers.push(wanted);
        }
        if needs_node_ports(new) {
            for (at, number) in numbers.into_iter().enumerate() {
                if number.is_some() {
                    continue;
                }
                let Some(port) = promise(None, &mut mine).await? else {
                    return Err(Status::internal("failed to allocate a nodePort: range is full"));
                };
                if let Some(entry) = ports_mut(new).nth(at) {
                    entry["nodePort"] = port.into();
                }
            }
        }
    }
    if needs_health_check_port(new) {
        let wanted = new.i64_at(&["spec", "healthCheckNodePort"]).unwrap_or_default();
        let wanted = u16::try_from(wanted).ok().filter(|port| *port != 0);
        match promise(wanted, &mut mine).await? {
            Some(port) => new.set_at(&["spec", "healthCheckNodePort"], port.into()),
            None => {
                return Err(Status::internal("failed to allocate requested HealthCheck NodePort"));
            }
        }
    }
    Ok(())
}

/// What a write took; given back when it is dropped without being kept.
struct Taken {
    server: Arc<Server>,
    service: (String, String),
    ips: Vec<IpAddr>,
    /// The old object's addresses that the new one has no more.
    obsolete: Vec<IpAddr>,
    ports: Vec<u16>,
    kept: bool,
    dry_run: bool,
}

impl Reservation for Taken {
    fn keep(mut self: Box<Self>) {
        self.kept = true;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for port in &self.ports {
            self.server.allocators.ports.settle(*port);
        }
        let back = std::mem::take(if self.kept { &mut self.obsolete } else { &mut self.ips });
        if self.dry_run || back.is_empty() {
            return;
        }
        let (server, service) = (self.server.clone(), self.service.clone());
        tokio::spawn(async move {
            for address in back {
                server.allocators.ips.release(&server, address, (&service.0, &service.1)).await;
            }
        });
    }
}
