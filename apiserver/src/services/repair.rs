//! Mends cluster IPs: every Service's address has its IPAddress, and every IPAddress that was taken for a Service
//! is of one that has it. A crash between the two writes, or somebody who deletes IPAddresses, leaves
//! such gaps.
//!
//! Upstream: `pkg/registry/core/service/ipallocator/controller`, whose grace periods and events these are.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use http::Method;
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ips::{address_object, family, holds, ranges_of};
use crate::cache::{CreateOptions, Entry, Error, Freshness, ResourceCache};
use crate::handlers::errors;
use crate::server::{Server, in_process};

const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const ALLOCATOR: &str = "ipallocator.k8s.io";
const CONTROLLER: &str = "ipallocator-repair-controller";

/// A Service may still be on its way for as long as a request lives.
const ON_ITS_WAY: Duration = Duration::from_secs(60);
/// An update that is about to be taken back.
const TAKEN_BACK: Duration = Duration::from_secs(5);

/// What is of interest of a Service.
struct Service {
    namespace: String,
    name: String,
    uid: String,
    external: bool,
    ips: Vec<String>,
    created: Option<Timestamp>,
}

/// What is of interest of an IPAddress.
struct Address {
    ip: String,
    uid: String,
    /// Taken by an allocator of Services.
    managed: bool,
    labelled: bool,
    is_service: bool,
    namespace: String,
    name: String,
    created: Option<Timestamp>,
}

type Memo<T> = HashMap<Arc<str>, (u64, Arc<T>)>;

/// What was seen, so that only changes are read.
#[derive(Default)]
pub struct Repair {
    services: Memo<Service>,
    addresses: Memo<Address>,
    ranges: Vec<IpNet>,
    /// Revisions of the last pass.
    seen: Option<[u64; 3]>,
    /// Something was left for a later pass.
    waiting: bool,
    reported: HashSet<(String, &'static str)>,
}

fn created(object: &Value) -> Option<Timestamp> {
    object.str_at(&["metadata", "creationTimestamp"])?.parse().ok()
}

fn service(entry: &Arc<Entry>) -> Service {
    let object = entry.tree();
    let ips = object.list_at(&["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    Service {
        namespace: object.namespace().to_string(),
        name: object.name().to_string(),
        uid: object.uid().to_string(),
        external: object.str_at(&["spec", "type"]) == Some("ExternalName"),
        ips: ips.filter(|ip| !matches!(*ip, "" | "None")).map(str::to_string).collect(),
        created: created(&object),
    }
}

fn address(entry: &Arc<Entry>) -> Address {
    let object = entry.tree();
    let parent = |name: &str| object.str_at(&["spec", "parentRef", name]).unwrap_or_default();
    let managed = entry.label(MANAGED_BY) == Some(ALLOCATOR);
    let of: Option<IpAddr> = entry.name().parse().ok();
    Address {
        managed,
        labelled: managed && of.is_some_and(|of| entry.label(FAMILY) == Some(family(&of))),
        is_service: parent("group").is_empty() && parent("resource") == "services",
        namespace: parent("namespace").to_string(),
        name: parent("name").to_string(),
        created: created(&object),
        ip: entry.name().to_string(),
        uid: entry.uid().to_string(),
    }
}

async fn read<T>(cache: &ResourceCache, memo: &mut Memo<T>, parse: fn(&Arc<Entry>) -> T) -> Result<(), Status> {
    let snapshot = cache.snapshot(Freshness::Consistent).await.map_err(errors::of_read)?;
    let mut now = Memo::with_capacity(snapshot.len());
    for entry in snapshot.range(None, None) {
        let known = memo.remove(entry.key()).filter(|(revision, _)| *revision == entry.revision());
        let known = known.unwrap_or_else(|| (entry.revision(), Arc::new(parse(entry))));
        now.insert(entry.key().clone(), known);
    }
    *memo = now;
    Ok(())
}

/// What to do about one address.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// Look again later.
    Wait,
    /// For this reason it goes.
    Remove(&'static str, String),
}

/// Pure: whether an address that was taken for a Service is right. `owner` is the Service that it names.
fn judge(address: &Address, owner: Option<&Service>, now: Timestamp) -> Verdict {
    const NOT_ALLOCATED: &str = "IPAddressNotAllocated";
    let ip = address.ip.as_str();
    let age =
        address.created.map_or(Duration::MAX, |created| now.duration_since(created).try_into().unwrap_or_default());
    if !address.managed {
        return Verdict::Fine;
    }
    if !address.is_service {
        let note = format!("IPAddress {ip} appears to have been modified, not referencing a Service: cleaning up");
        return Verdict::Remove(NOT_ALLOCATED, note);
    }
    let (namespace, name) = (&address.namespace, &address.name);
    let Some(owner) = owner else {
        let note = format!("IPAddress: {ip} for Service {namespace}/{name} appears to have leaked: cleaning up");
        return if age > ON_ITS_WAY { Verdict::Remove(NOT_ALLOCATED, note) } else { Verdict::Wait };
    };
    if owner.ips.iter().any(|other| other == ip) {
        return Verdict::Fine;
    }
    if (owner.external && age < ON_ITS_WAY) || (address.created > owner.created && age < TAKEN_BACK) {
        return Verdict::Wait;
    }
    let note = format!("IPAddress: {ip} for Service {namespace}/{name} has a wrong reference; cleaning up");
    Verdict::Remove("IPAddressWrongReference", note)
}

impl Repair {
    /// Looks at everything that changed since the last pass.
    ///
    /// # Errors
    /// When the store fails; the next pass tries again.
    pub async fn pass(&mut self, server: &Arc<Server>) -> Result<(), Status> {
        let cache = |group: &str, plural: &str| {
            server.registry.any_version(group, plural).and_then(|served| Some((served.clone(), served.cache.clone()?)))
        };
        let (Some((_, services)), Some((served, addresses)), Some((_, ranges))) = (
            cache("", "services"),
            cache("networking.k8s.io", "ipaddresses"),
            cache("networking.k8s.io", "servicecidrs"),
        ) else {
            return Ok(());
        };
        let revisions = [services.revision(), addresses.revision(), ranges.revision()];
        if self.seen == Some(revisions) && !self.waiting {
            return Ok(());
        }
        // Services first: the address of each was there before it.
        read(&services, &mut self.services, service).await?;
        read(&addresses, &mut self.addresses, address).await?;
        let snapshot = ranges.snapshot(Freshness::Consistent).await.map_err(errors::of_read)?;
        self.ranges = snapshot.range(None, None).flat_map(|entry| ranges_of(&entry.tree()).0).collect();
        self.seen = Some(revisions);
        self.waiting = false;
        let all: Vec<(Arc<str>, Arc<Service>)> =
            self.services.iter().map(|(key, (_, service))| (key.clone(), service.clone())).collect();
        for (key, of) in all.into_iter().filter(|(_, of)| !of.external) {
            for ip in &of.ips {
                let Ok(ip) = ip.parse::<IpAddr>() else { continue };
                // Whoever deleted the Service meanwhile gave its address back.
                let wrong = self.service_ip(server, &served.key("", &ip.to_string()), &of, ip);
                if let Some(revision) = wrong
                    && services.get(&key, Freshness::Consistent).await.map_err(errors::of_read)?.is_some()
                {
                    self.give(server, &addresses, &served.key("", &ip.to_string()), revision, &of, ip).await?;
                }
            }
        }
        let owners: HashMap<(&str, &str), &Service> = self
            .services
            .values()
            .map(|(_, service)| ((service.namespace.as_str(), service.name.as_str()), service.as_ref()))
            .collect();
        let now = server.clock.now();
        let mut removed = Vec::new();
        for (key, (revision, address)) in &self.addresses {
            let owner = owners.get(&(address.namespace.as_str(), address.name.as_str())).copied();
            match judge(address, owner, now) {
                Verdict::Fine => {}
                Verdict::Wait => self.waiting = true,
                Verdict::Remove(reason, note) => removed.push((key.clone(), *revision, address.clone(), reason, note)),
            }
        }
        for (key, revision, address, reason, note) in removed {
            let (name, uid) = (&address.ip, &address.uid);
            let regarding =
                json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "name": name, "uid": uid});
            self.report(server, &regarding, reason, "IPAddressAllocation", note);
            self.remove(&addresses, &key, revision).await?;
        }
        Ok(())
    }

    /// What is wrong with a Service's address: it has none (`Some(None)`), or one of a revision that has to be made
    /// anew. Reports what cannot be mended.
    fn service_ip(&mut self, server: &Arc<Server>, key: &str, of: &Service, ip: IpAddr) -> Option<Option<u64>> {
        let say = |repair: &mut Self, reason: &'static str, note: String| {
            repair.report(server, &regarding(of), reason, "ClusterIPAllocation", note);
        };
        let (kind, owner) = (family(&ip), format!("{}/{}", of.namespace, of.name));
        if !self.ranges.iter().any(|range| holds(range, ip)) {
            let note =
                format!("Cluster IP [{kind}]: {ip} is not within any configured Service CIDR; please recreate service");
            say(self, "ClusterIPOutOfRange", note);
            return None;
        }
        let Some((revision, address)) = self.addresses.get(key).cloned() else {
            let note = format!("Cluster IP [{kind}]: {ip} is not allocated; repairing");
            say(self, "ClusterIPNotAllocated", note);
            return Some(None);
        };
        let mine = address.namespace == of.namespace && address.name == of.name;
        if address.is_service && !mine {
            let text = ip.to_string();
            let other = self.services.values().map(|(_, other)| other).find(|other| {
                other.namespace == address.namespace && other.name == address.name && other.ips.contains(&text)
            });
            if other.is_some() {
                let note =
                    format!("Cluster IP [{kind}]:{ip} was assigned to multiple services; please recreate service");
                say(self, "ClusterIPAlreadyAllocated", note);
                return None;
            }
        }
        if !address.is_service || !mine {
            let note = format!("the ClusterIP [{kind}]: {ip} for Service {owner} has a wrong reference; repairing");
            say(self, "ClusterIPNotAllocated", note);
            return Some(Some(revision));
        }
        (!address.labelled).then_some(Some(revision))
    }

    async fn give(
        &mut self,
        server: &Arc<Server>,
        addresses: &ResourceCache,
        key: &str,
        replaced: Option<u64>,
        of: &Service,
        ip: IpAddr,
    ) -> Result<(), Status> {
        self.waiting = true;
        if let Some(revision) = replaced {
            self.remove(addresses, key, revision).await?;
        }
        let object = address_object(server, ip, &of.namespace, &of.name);
        match addresses.create(key, object, CreateOptions::default()).await {
            Ok(_) | Err(Error::Exists { .. }) => Ok(()),
            Err(error) => Err(errors::of_read(error)),
        }
    }

    /// Deletes an IPAddress unless it changed meanwhile.
    async fn remove(&mut self, addresses: &ResourceCache, key: &str, revision: u64) -> Result<(), Status> {
        self.waiting = true;
        let entry = addresses.get(key, Freshness::Consistent).await.map_err(errors::of_read)?;
        let Some(entry) = entry.filter(|entry| entry.revision() == revision) else { return Ok(()) };
        self.addresses.remove(key);
        match addresses.delete(&entry).await {
            Ok(_) | Err(Error::NotFound { .. } | Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(errors::of_read(error)),
        }
    }

    /// Says something once, as an Event.
    fn report(
        &mut self,
        server: &Arc<Server>,
        regarding: &Value,
        reason: &'static str,
        action: &'static str,
        note: String,
    ) {
        if self.reported.insert((format!("{}{note}", regarding["uid"]), reason)) {
            let (server, regarding) = (server.clone(), regarding.clone());
            tokio::spawn(async move { event(&server, &regarding, reason, action, &note).await });
        }
    }
}

fn regarding(of: &Service) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "namespace": of.namespace, "name": of.name, "uid": of.uid})
}

async fn event(server: &Arc<Server>, regarding: &Value, reason: &str, action: &str, note: &str) {
    tracing::warn!(reason, "{note}");
    let namespace = regarding["namespace"].as_str().unwrap_or("default");
    let name = regarding["name"].as_str().unwrap_or_default();
    let now = server.clock.now();
    let object = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": format!("{name}.{:x}", now.as_nanosecond()), "namespace": namespace},
        "eventTime": format!("{now:.6}"),
        "reportingController": CONTROLLER,
        "reportingInstance": CONTROLLER,
        "type": "Warning",
        "reason": reason,
        "action": action,
        "note": note,
        "regarding": regarding,
    });
    let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
    if let Err(status) = in_process::request(server, Method::POST, &path, Some(&object)).await {
        tracing::debug!(error = %status.message, "no event about a cluster IP");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_addresses() {
        let now: Timestamp = "2026-01-01T00:01:30Z".parse().unwrap();
        let at = |second: i64| Some(now - Duration::from_secs(u64::try_from(second).unwrap()));
        let address = |age: i64| Address {
            ip: "10.0.0.7".to_string(),
            uid: String::new(),
            managed: true,
            labelled: true,
            is_service: true,
            namespace: "n".to_string(),
            name: "s".to_string(),
            created: at(age),
        };
        let owner = |ips: &[&str], external: bool, age: i64| Service {
            namespace: "n".to_string(),
            name: "s".to_string(),
            uid: String::new(),
            external,
            ips: ips.iter().map(ToString::to_string).collect(),
            created: at(age),
        };
        let check = |address: Address, owner: Option<Service>, want: &str| {
            let got = match judge(&address, owner.as_ref(), now) {
                Verdict::Fine => "fine",
                Verdict::Wait => "wait",
                Verdict::Remove(reason, _) => reason,
            };
            assert_eq!(got, want);
        };
        check(address(1), Some(owner(&["10.0.0.7"], false, 1)), "fine");
        check(Address { managed: false, ..address(80) }, None, "fine");
        check(Address { is_service: false, ..address(1) }, None, "IPAddressNotAllocated");
        check(address(30), None, "wait");
        check(address(61), None, "IPAddressNotAllocated");
        check(address(30), Some(owner(&[], true, 80)), "wait");
        check(address(61), Some(owner(&[], true, 80)), "IPAddressWrongReference");
        check(address(3), Some(owner(&["10.0.0.8"], false, 80)), "wait");
        check(address(7), Some(owner(&["10.0.0.8"], false, 80)), "IPAddressWrongReference");
        check(address(3), Some(owner(&["10.0.0.8"], false, 1)), "IPAddressWrongReference");
    }
}
