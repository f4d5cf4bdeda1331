//! Services: families, cluster IPs and node ports, as upstream's `core/service/storage`.

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::gvk::GroupKind;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::cache::Freshness;
use crate::registry::hooks::{HookContext, Hooks, Reservation};
use crate::server::Server;
use crate::services::ips::Refusal;

pub struct Service;

const NONE: &str = "None";
const SPEC: &str = "spec";

fn kind(service: &Value) -> &str {
    service.str_at(&[SPEC, "type"]).unwrap_or("ClusterIP")
}

fn is_external_name(service: &Value) -> bool {
    kind(service) == "ExternalName"
}

fn has_node_ports(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

fn gets_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service.bool_at(&[SPEC, "allocateLoadBalancerNodePorts"]).unwrap_or(true),
        _ => false,
    }
}

fn needs_health_check_port(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && service.str_at(&[SPEC, "externalTrafficPolicy"]) == Some("Local")
}

fn is_reached_from_outside(service: &Value) -> bool {
    has_node_ports(service) || (kind(service) == "ClusterIP" && !service.list_at(&[SPEC, "externalIPs"]).is_empty())
}

fn cluster_ip(service: &Value) -> &str {
    service.str_at(&[SPEC, "clusterIP"]).unwrap_or_default()
}

fn texts(service: &Value, name: &str) -> Vec<String> {
    service.list_at(&[SPEC, name]).iter().filter_map(Value::as_str).map(str::to_string).collect()
}

fn cluster_ips(service: &Value) -> Vec<String> {
    texts(service, "clusterIPs")
}

fn is_headless(service: &Value) -> bool {
    service.list_at(&[SPEC, "clusterIPs"]).first().and_then(Value::as_str) == Some(NONE)
}

fn set_cluster_ips(service: &mut Value, ips: Vec<String>) {
    if ips.is_empty() {
        service.remove_at(&[SPEC, "clusterIPs"]);
    } else {
        service.set_at(&[SPEC, "clusterIPs"], json!(ips));
    }
}

fn node_ports(service: &Value) -> Vec<i64> {
    let ports = service.list_at(&[SPEC, "ports"]).iter();
    ports.filter_map(|port| port.i64_at(&["nodePort"])).filter(|port| *port != 0).collect()
}

/// Keeps `clusterIP` and `clusterIPs` in step, whichever of the two a client knows.
fn normalize(new: &mut Value, old: Option<&Value>) {
    let (one, many) = (cluster_ip(new).to_string(), cluster_ips(new));
    let Some(old) = old else {
        if !one.is_empty() && many.is_empty() {
            set_cluster_ips(new, vec![one]);
        }
        return;
    };
    let (old_one, old_many) = (cluster_ip(old), cluster_ips(old));
    if many.is_empty() && !old_many.is_empty() && one == old_one {
        set_cluster_ips(new, old_many);
    } else if one != old_one && many == old_many {
        set_cluster_ips(new, if one.is_empty() { Vec::new() } else { vec![one] });
    }
}

/// What an update that leaves allocated values out keeps of them.
fn keep_allocated(new: &mut Value, old: &Value) {
    if !is_external_name(old) && !is_external_name(new) {
        if cluster_ip(new).is_empty() && !cluster_ip(old).is_empty() {
            new.set_at(&[SPEC, "clusterIP"], cluster_ip(old).into());
        }
        if cluster_ips(new).is_empty() {
            set_cluster_ips(new, cluster_ips(old));
        }
    }
    if gets_node_ports(old) && gets_node_ports(new) {
        let after = node_ports(new);
        let kept: Vec<i64> = node_ports(old).into_iter().filter(|port| after.contains(port)).collect();
        let name = |port: &Value| port.str_at(&["name"]).unwrap_or_default().to_string();
        let known: Vec<(String, i64)> = old
            .list_at(&[SPEC, "ports"])
            .iter()
            .map(|port| (name(port), port.i64_at(&["nodePort"]).unwrap_or_default()))
            .collect();
        for port in ports_mut(new).filter(|port| port.i64_at(&["nodePort"]).unwrap_or_default() == 0) {
            let name = name(port);
            if let Some((_, number)) = known.iter().rfind(|(other, _)| *other == name)
                && *number != 0
                && !kept.contains(number)
            {
                port["nodePort"] = (*number).into();
            }
        }
    }
    if needs_health_check_port(old)
        && needs_health_check_port(new)
        && new.i64_at(&[SPEC, "healthCheckNodePort"]).unwrap_or_default() == 0
        && let Some(port) = old.at(&[SPEC, "healthCheckNodePort"]).cloned()
    {
        new.set_at(&[SPEC, "healthCheckNodePort"], port);
    }
}

/// What a change of type drops, where the client left it as it was.
fn drop_of_type(new: &mut Value, old: &Value) {
    let same = |new: &Value, name: &str| new.at(&[SPEC, name]) == old.at(&[SPEC, name]);
    let drop = |new: &mut Value, name: &str| {
        if same(new, name) {
            new.remove_at(&[SPEC, name]);
        }
    };
    if !is_external_name(old) && is_external_name(new) {
        if cluster_ip(new) == cluster_ip(old) && cluster_ips(new) == cluster_ips(old) {
            new.remove_at(&[SPEC, "clusterIP"]);
            new.remove_at(&[SPEC, "clusterIPs"]);
        }
        drop(new, "ipFamilies");
        drop(new, "ipFamilyPolicy");
    }
    if has_node_ports(old) && !has_node_ports(new) {
        let before = node_ports(old);
        if node_ports(new).iter().all(|port| before.contains(port)) {
            for port in ports_mut(new) {
                port.as_object_mut().map(|map| map.remove("nodePort"));
            }
        }
    }
    if needs_health_check_port(old) && !needs_health_check_port(new) {
        drop(new, "healthCheckNodePort");
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        drop(new, "allocateLoadBalancerNodePorts");
        drop(new, "loadBalancerClass");
    }
    if is_reached_from_outside(old) && !is_reached_from_outside(new) {
        drop(new, "externalTrafficPolicy");
    }
    if kind(new) != "LoadBalancer" && new.at(&["status", "loadBalancer"]).is_some() {
        new.set_at(&["status", "loadBalancer"], json!({}));
    }
}

/// Only what is reached by a cluster IP has a policy for it; upstream leaves it out of whatever is read.
fn drop_unneeded_policy(service: &mut Value) {
    if kind(service) == "ExternalName" {
        service.remove_at(&[SPEC, "internalTrafficPolicy"]);
    }
}

fn ports_mut(service: &mut Value) -> impl Iterator<Item = &mut Value> {
    service.get_mut(SPEC).and_then(|spec| spec.get_mut("ports")).and_then(Value::as_array_mut).into_iter().flatten()
}

#[async_trait]
impl Hooks for Service {
    fn prepare_create(&self, _: &HookContext<'_>, object: &mut Value) {
        object.set_at(&["status"], json!({"loadBalancer": {}}));
    }

    fn prepare_update(&self, cx: &HookContext<'_>, new: &mut Value, old: &Value) {
        if cx.subresource.is_empty() {
            drop_of_type(new, old);
            drop_unneeded_policy(new);
        }
    }

    fn read_back(&self, object: &mut Value) {
        drop_unneeded_policy(object);
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
        if let Some(old) = old {
            keep_allocated(new, old);
        }
        normalize(new, old);
        if !old.is_some_and(|old| stays_dual_stack(new, old)) {
            families(cx.server, new, old)?;
            addresses(cx, new, old, &mut taken).await?;
        }
        let mut numbers = Numbers { cx, taken: &mut taken, pretended: Vec::new() };
        ports(&mut numbers, new, old).await?;
        Ok(Some(Box::new(taken)))
    }

    async fn deleted(&self, cx: &HookContext<'_>, object: &Value) {
        let (namespace, name) = (object.namespace(), object.name());
        if let Some(served) = cx.server.registry.any_version("", "endpoints")
            && let Some(cache) = &served.cache
            && let Ok(Some(entry)) = cache.get(&served.key(namespace, name), Freshness::Consistent).await
            && let Err(error) = cache.delete(&entry).await
        {
            tracing::warn!(%error, namespace, name, "the endpoints of a Service stay behind");
        }
        for ip in cluster_ips(object) {
            if let Ok(address) = ip.parse() {
                cx.server.allocators.ips.release(cx.server, address, (namespace, name)).await;
            }
        }
    }
}

fn policy(service: &Value) -> &str {
    service.str_at(&[SPEC, "ipFamilyPolicy"]).unwrap_or_default()
}

/// A PreferDualStack Service whose addresses are left alone is neither upgraded nor downgraded when the cluster
/// changed meanwhile.
fn stays_dual_stack(new: &Value, old: &Value) -> bool {
    const PREFER: &str = "PreferDualStack";
    kind(new) == kind(old)
        && matches!(kind(new), "ClusterIP" | "NodePort" | "LoadBalancer")
        && policy(new) == PREFER
        && matches!(policy(old), "" | PREFER)
        && ["clusterIPs", "ipFamilies"].iter().all(|name| texts(new, name) == texts(old, name))
}

/// Fills in `ipFamilies` and `ipFamilyPolicy`, and refuses what cannot be.
fn families(server: &Server, new: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    const RELEASE: &str = "must be 'SingleStack' to release the secondary";
    const MULTIPLE: &str = "must be 'RequireDualStack' or 'PreferDualStack' when multiple";
    if is_external_name(new) {
        return Ok(());
    }
    let selectorless = new.map_at(&[SPEC, "selector"]).is_none_or(serde_json::Map::is_empty);
    let free = cluster_ip(new) == NONE && selectorless;
    if new.at(&[SPEC, "ipFamilyPolicy"]).is_none_or(Value::is_null) {
        let before = old.map(policy).filter(|policy| !policy.is_empty());
        let chosen = before.unwrap_or(if free { "RequireDualStack" } else { "SingleStack" });
        new.set_at(&[SPEC, "ipFamilyPolicy"], chosen.into());
    }
    let errors = api::validation::service_cluster_ips(new, old);
    if !errors.is_empty() {
        return Err(refused(new, &errors));
    }
    let mut errors = ErrorList::new();
    let (mut ips, mut wanted) = (cluster_ips(new), texts(new, "ipFamilies"));
    let path = Path::new(SPEC).child("ipFamilyPolicy");
    let single = policy(new) == "SingleStack";
    let wrong = |errors: &mut ErrorList, why: String| errors.push(field::invalid(&path, policy(new), why));
    if let Some(old) = old {
        let (old_ips, old_wanted) = (cluster_ips(old), texts(old, "ipFamilies"));
        if single {
            if ips == old_ips {
                ips.truncate(1);
            }
            if wanted == old_wanted {
                wanted.truncate(1);
            }
        } else {
            if !ips.is_empty() && ips.len() < old_ips.len() {
                wrong(&mut errors, format!("{RELEASE} cluster IP"));
            }
            if !wanted.is_empty() && wanted.len() < old_wanted.len() {
                wrong(&mut errors, format!("{RELEASE} IP family"));
            }
        }
    }
    if single && ips.len() == 2 {
        wrong(&mut errors, format!("{MULTIPLE} cluster IPs are specified"));
    }
    if single && wanted.len() == 2 {
        wrong(&mut errors, format!("{MULTIPLE} IP families are specified"));
    }
    let available = server.allocators.ips.families();
    for (at, ip) in ips.iter().enumerate().take_while(|(_, ip)| *ip != NONE) {
        let Ok(address) = ip.parse::<IpAddr>() else { continue };
        let family = crate::services::ips::family(&address);
        if at < wanted.len() {
            continue;
        }
        if available.contains(&family) {
            wanted.push(family.to_string());
        } else {
            let path = Path::new(SPEC).child("clusterIPs").index(at);
            errors.push(field::invalid(&path, json!(ips), format!("{family} is not configured on this cluster")));
        }
    }
    if !errors.is_empty() {
        return Err(refused(new, &errors));
    }
    if !free {
        if policy(new) == "RequireDualStack" && available.len() < 2 {
            wrong(&mut errors, "this cluster is not configured for dual-stack services".to_string());
        }
        for (at, family) in wanted.iter().enumerate().filter(|(_, family)| !available.contains(&family.as_str())) {
            let path = Path::new(SPEC).child("ipFamilies").index(at);
            errors.push(field::invalid(&path, family.as_str(), "not configured on this cluster"));
        }
        if !errors.is_empty() {
            return Err(refused(new, &errors));
        }
    }
    if wanted.is_empty() {
        wanted.extend(available.first().map(ToString::to_string));
    }
    if !single && wanted.len() == 1 && (free || available.len() == 2) {
        wanted.push(if wanted[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_string());
    }
    set_cluster_ips(new, ips);
    new.set_at(&[SPEC, "ipFamilies"], json!(wanted));
    Ok(())
}

fn refused(service: &Value, errors: &ErrorList) -> Status {
    Status::invalid(&GroupKind::new("", "Service"), service.name(), errors)
}

fn invalid(service: &Value, error: field::FieldError) -> Status {
    refused(service, &ErrorList::from(error))
}

async fn addresses(
    cx: &HookContext<'_>,
    new: &mut Value,
    old: Option<&Value>,
    taken: &mut Taken,
) -> Result<(), Status> {
    let from = match old {
        None => 0,
        Some(old) if is_external_name(old) => 0,
        Some(old) if is_headless(old) => return Ok(()),
        Some(old) => {
            let before = cluster_ips(old);
            let (families, old_families) = (texts(new, "ipFamilies").len(), texts(old, "ipFamilies").len());
            let parse = |ips: &[String]| ips.iter().filter_map(|ip| ip.parse().ok()).collect();
            if is_external_name(new) {
                taken.obsolete = parse(&before);
                return Ok(());
            }
            if old_families == 2 && families == 1 {
                taken.obsolete = parse(before.get(1..).unwrap_or_default());
                return Ok(());
            }
            if !(old_families == 1 && families == 2) {
                return Ok(());
            }
            1
        }
    };
    if is_external_name(new) || is_headless(new) {
        return Ok(());
    }
    let families = texts(new, "ipFamilies");
    let mut ips = cluster_ips(new);
    ips.resize(families.len().max(ips.len()), String::new());
    let service = taken.service.clone();
    let who = (service.0.as_str(), service.1.as_str());
    let allocator = &cx.server.allocators.ips;
    let path = Path::new(SPEC).child("clusterIPs");
    for (at, family) in families.iter().enumerate().skip(from) {
        let ip = ips[at].clone();
        let got = if ip.is_empty() {
            allocator.next(cx.server, family, who, cx.dry_run).await
        } else {
            let Ok(address) = ip.parse::<IpAddr>() else {
                return Err(Status::internal(format!("failed to parse service IP {ip:?}")));
            };
            allocator.take(cx.server, address, who, cx.dry_run).await.map(|()| address)
        };
        let address = match got {
            Ok(address) => address,
            Err(Refusal::Store(status)) => return Err(status),
            Err(Refusal::Full) if ip.is_empty() => {
                let name = new.name();
                let full = Refusal::Full;
                return Err(Status::internal(format!("failed to allocate a serviceIP for Service {name:?}: {full}")));
            }
            Err(why) => {
                let what = if ip.is_empty() { String::new() } else { format!(" {ip}") };
                let why = format!("failed to allocate IP{what}: {why}");
                return Err(invalid(new, field::invalid(&path, json!(ips), why)));
            }
        };
        taken.ips.push(address);
        if ip.is_empty() {
            ips[at] = address.to_string();
        }
    }
    if from == 0
        && let Some(first) = ips.first()
    {
        new.set_at(&[SPEC, "clusterIP"], first.clone().into());
    }
    set_cluster_ips(new, ips);
    Ok(())
}

/// The node ports of one write.
struct Numbers<'a, 'b> {
    cx: &'a HookContext<'b>,
    taken: &'a mut Taken,
    /// What a dry run would have taken.
    pretended: Vec<u16>,
}

impl Numbers<'_, '_> {
    /// Takes a port; the text says why not.
    async fn take(&mut self, port: i64) -> Result<Result<(), String>, Status> {
        const TAKEN: &str = "provided port is already allocated";
        let allocator = &self.cx.server.allocators.ports;
        let (low, high) = allocator.range();
        let inside = u16::try_from(port).ok().filter(|port| (low..=high).contains(port));
        let Some(port) = inside else {
            return Ok(if self.cx.dry_run {
                Ok(())
            } else {
                Err(format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"))
            });
        };
        if self.cx.dry_run {
            let free = !self.pretended.contains(&port) && allocator.is_free(self.cx.server, port).await?;
            self.pretended.push(port);
            return Ok(if free { Ok(()) } else { Err(TAKEN.to_string()) });
        }
        if !allocator.promise(self.cx.server, port).await? {
            return Ok(Err(TAKEN.to_string()));
        }
        self.taken.ports.push(port);
        Ok(Ok(()))
    }

    /// Takes any port. A dry run makes one up, as upstream does.
    async fn take_any(&mut self) -> Result<Option<u16>, Status> {
        if self.cx.dry_run {
            let port = self.pretended.iter().max().map_or(32769, |last| last.saturating_add(1));
            self.pretended.push(port);
            return Ok(Some(port));
        }
        let port = self.cx.server.allocators.ports.promise_any(self.cx.server).await?;
        self.taken.ports.extend(port);
        Ok(port)
    }

    async fn wished(&mut self, service: &Value, at: usize, port: i64) -> Result<(), Status> {
        let path = Path::new(SPEC).child("ports").index(at).child("nodePort");
        self.take(port).await?.map_err(|why| invalid(service, field::invalid(&path, port, why)))
    }

    async fn any(&mut self) -> Result<i64, Status> {
        let port = self.take_any().await?;
        port.map(i64::from).ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
    }
}

async fn ports(numbers: &mut Numbers<'_, '_>, new: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if has_node_ports(new) {
        match old {
            None => ports_of_new(numbers, new).await?,
            Some(old) => ports_of_changed(numbers, new, old).await?,
        }
    }
    if needs_health_check_port(new) && !old.is_some_and(needs_health_check_port) {
        let wanted = new.i64_at(&[SPEC, "healthCheckNodePort"]).unwrap_or_default();
        if wanted == 0 {
            let Some(port) = numbers.take_any().await? else {
                return Err(Status::internal("failed to allocate a HealthCheck NodePort 0: range is full"));
            };
            new.set_at(&[SPEC, "healthCheckNodePort"], port.into());
        } else if let Err(why) = numbers.take(wanted).await? {
            let what = format!("failed to allocate requested HealthCheck NodePort {wanted}: {why}");
            return Err(Status::internal(what));
        }
    }
    Ok(())
}

/// `(port, nodePort)` of each port.
fn pairs(service: &Value) -> Vec<(i64, i64)> {
    let number = |port: &Value, name: &str| port.i64_at(&[name]).unwrap_or_default();
    service.list_at(&[SPEC, "ports"]).iter().map(|port| (number(port, "port"), number(port, "nodePort"))).collect()
}

fn set_node_port(service: &mut Value, at: usize, number: i64) {
    if let Some(port) = ports_mut(service).nth(at) {
        port["nodePort"] = number.into();
    }
}

/// Ports of the same number (of several protocols) share a node port unless they ask for different ones.
async fn ports_of_new(numbers: &mut Numbers<'_, '_>, new: &mut Value) -> Result<(), Status> {
    let allocate = gets_node_ports(new);
    let mut given: Vec<(i64, i64)> = Vec::new();
    let wishes = pairs(new);
    for (at, (port, wish)) in wishes.iter().copied().enumerate() {
        if wish == 0 && !allocate {
            continue;
        }
        match given.iter().find(|(other, _)| *other == port) {
            Some((_, number)) if wish == 0 => set_node_port(new, at, *number),
            Some((_, number)) if wish == *number => {}
            Some(_) => numbers.wished(new, at, wish).await?,
            None => {
                let number = match wishes.iter().find(|(other, wish)| *other == port && *wish != 0) {
                    Some((_, wish)) => {
                        numbers.wished(new, at, *wish).await?;
                        *wish
                    }
                    None => numbers.any().await?,
                };
                set_node_port(new, at, number);
                given.push((port, number));
            }
        }
    }
    Ok(())
}

async fn ports_of_changed(numbers: &mut Numbers<'_, '_>, new: &mut Value, old: &Value) -> Result<(), Status> {
    let allocate = gets_node_ports(new);
    let mut mine = node_ports(old);
    let mut seen: Vec<(String, i64)> = Vec::new();
    for (at, (_, wish)) in pairs(new).into_iter().enumerate() {
        if wish == 0 && !allocate {
            continue;
        }
        let number = if wish == 0 { numbers.any().await? } else { wish };
        if wish == 0 {
            set_node_port(new, at, number);
        } else if !mine.contains(&wish) {
            numbers.wished(new, at, wish).await?;
            mine.push(wish);
        }
        let protocol = new.list_at(&[SPEC, "ports"])[at].str_at(&["protocol"]).unwrap_or_default().to_string();
        let pair = (protocol, number);
        if seen.contains(&pair) {
            let message = format!("duplicate nodePort: {{{} {}}}", pair.0, pair.1);
            return Err(Status::failure(500, "", message));
        }
        seen.push(pair);
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

#[async_trait]
impl Reservation for Taken {
    fn keep(mut self: Box<Self>) {
        self.kept = true;
    }

    async fn give_back(mut self: Box<Self>) {
        let (ips, server) = (std::mem::take(&mut self.ips), self.server.clone());
        for address in ips.into_iter().filter(|_| !self.dry_run) {
            server.allocators.ips.release(&server, address, (&self.service.0, &self.service.1)).await;
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for port in &self.ports {
            self.server.allocators.ports.settle(&self.server, *port);
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
