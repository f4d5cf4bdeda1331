//! Cluster IPs: each one in use has an IPAddress object that names its Service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::cache::{CreateOptions, Error, Freshness};
use crate::handlers::errors;
use crate::server::Server;
use apimachinery::status::Status;

/// Ranges larger than this are treated as this large, as upstream does for IPv6.
const MAX_SIZE: u128 = 1 << 64;

/// Hands out addresses of the cluster's ServiceCIDRs. The configured ranges say which families there are, the
/// first being the primary one, and where the `kubernetes` Service is.
pub struct IpAllocator {
    ranges: Vec<IpNet>,
}

/// Why there is no address; upstream's words.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    Allocated,
    #[error("the provided network does not match the current range")]
    MismatchedNetwork,
    #[error("allocator not ready")]
    NotReady,
    #[error("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}")]
    NotInRange { ip: IpAddr, range: IpNet },
    /// What the store or its cache answered.
    #[error("{}", .0.message)]
    Store(Status),
}

/// `IPv4` or `IPv6`.
pub fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn nth(range: &IpNet, offset: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => {
            let base = u128::from(u32::from(base));
            IpAddr::V4(Ipv4Addr::from(u32::try_from(base + offset).unwrap_or(u32::MAX)))
        }
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).saturating_add(offset))),
    }
}

fn size(range: &IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    if bits >= 64 { MAX_SIZE } else { 1u128 << bits }
}

/// How many addresses of a range can be given out: all but the first, and the last of IPv4.
fn usable(range: &IpNet) -> u128 {
    let reserved = if matches!(range, IpNet::V4(_)) { 2 } else { 1 };
    size(range).saturating_sub(reserved)
}

/// The lower part of a range, left to Services that ask for an address of their own (KEP-3070).
fn static_band(range: &IpNet) -> u128 {
    let size = size(range);
    if size <= 16 { 0 } else { (size / 16).clamp(16, 256) }
}

/// Whether a range gives out an address: not its first, nor the last of IPv4.
pub fn holds(range: &IpNet, address: IpAddr) -> bool {
    let last = matches!(range, IpNet::V4(range) if range.broadcast() == address);
    range.contains(&address) && range.network() != address && !last
}

/// A ServiceCIDR's ranges, and whether it is ready and here to stay.
pub fn ranges_of(object: &Value) -> (Vec<IpNet>, bool) {
    let ranges = object.list_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str);
    let conditions = object.list_at(&["status", "conditions"]);
    let ready = conditions.iter().find(|condition| condition.str_at(&["type"]) == Some("Ready"));
    // Without a controller-manager nobody says that a range is ready.
    let ready = ready.is_none_or(|condition| condition.str_at(&["status"]) == Some("True"));
    (ranges.filter_map(|range| range.parse().ok()).collect(), ready && object.deletion_timestamp().is_none())
}

impl IpAllocator {
    /// An allocator over one range, or two of different families.
    pub fn new(ranges: Vec<IpNet>) -> Self {
        Self { ranges }
    }

    /// The configured ranges.
    pub fn ranges(&self) -> &[IpNet] {
        &self.ranges
    }

    /// The families, the primary one first.
    pub fn families(&self) -> Vec<&'static str> {
        self.ranges.iter().map(|range| family(&range.network())).collect()
    }

    /// The address of the `kubernetes` Service.
    pub fn first(&self) -> Option<IpAddr> {
        self.ranges.first().map(|range| nth(range, 1))
    }

    /// Ranges of a family that addresses may be taken from.
    async fn ready(server: &Server, wanted: &str) -> Result<Vec<IpNet>, Refusal> {
        let store = |error| Refusal::Store(errors::of_read(error));
        let Some(served) = server.registry.any_version("networking.k8s.io", "servicecidrs") else {
            return Err(Refusal::Store(Status::internal("networking.k8s.io ServiceCIDR is switched off")));
        };
        let cache = served.cache.as_ref().expect("ranges are stored");
        for freshness in [Freshness::Any, Freshness::Consistent] {
            let snapshot = cache.snapshot(freshness).await.map_err(store)?;
            let mut ranges = Vec::new();
            for entry in snapshot.range(None, None) {
                let (mut of, ready) = ranges_of(&entry.tree());
                of.retain(|range| ready && family(&range.network()) == wanted && !ranges.contains(range));
                ranges.extend(of);
            }
            if !ranges.is_empty() {
                return Ok(ranges);
            }
        }
        Ok(Vec::new())
    }

    /// Takes a free address of a family for a Service. A dry run answers the first range's own address, as
    /// upstream does.
    ///
    /// # Errors
    /// When the ranges are exhausted or the store fails.
    pub async fn next(
        &self,
        server: &Arc<Server>,
        wanted: &str,
        service: (&str, &str),
        dry_run: bool,
    ) -> Result<IpAddr, Refusal> {
        let ranges = Self::ready(server, wanted).await?;
        if dry_run {
            return ranges.first().map(IpNet::network).ok_or(Refusal::NotReady);
        }
        for range in &ranges {
            let (size, band) = (usable(range), static_band(range).min(usable(range)));
            // Offsets of the upper part come first, from somewhere on, then those of the lower.
            for (low, high) in [(band, size), (0, band)] {
                let count = high - low;
                let start = if count == 0 { 0 } else { rand::random::<u128>() % count };
                for step in 0..count {
                    let address = nth(range, 1 + low + (start + step) % count);
                    match Self::create(server, address, service).await {
                        Err(Refusal::Allocated) => {}
                        Err(other) => return Err(other),
                        Ok(()) => return Ok(address),
                    }
                }
            }
        }
        Err(Refusal::Full)
    }

    /// Takes a certain address.
    ///
    /// # Errors
    /// When somebody has it, it is in no range that is ready, or the store fails.
    pub async fn take(
        &self,
        server: &Arc<Server>,
        address: IpAddr,
        service: (&str, &str),
        dry_run: bool,
    ) -> Result<(), Refusal> {
        let ranges = Self::ready(server, family(&address)).await?;
        let inside = ranges.iter().any(|range| holds(range, address));
        match ranges.first() {
            None if dry_run => Err(Refusal::NotReady),
            Some(range) if dry_run && !holds(range, address) => Err(Refusal::NotInRange { ip: address, range: *range }),
            _ if dry_run => Ok(()),
            _ if !inside => Err(Refusal::MismatchedNetwork),
            _ => Self::create(server, address, service).await,
        }
    }

    /// The IPAddress of this name is the lock: whoever creates it has the address.
    async fn create(server: &Server, address: IpAddr, (namespace, name): (&str, &str)) -> Result<(), Refusal> {
        let Some(served) = server.registry.any_version("networking.k8s.io", "ipaddresses") else {
            return Err(Refusal::Store(Status::internal("networking.k8s.io IPAddress is switched off")));
        };
        let cache = served.cache.as_ref().expect("addresses are stored");
        let key = served.key("", &address.to_string());
        if cache.cached(&key).is_some() {
            return Err(Refusal::Allocated);
        }
        let object = address_object(server, address, namespace, name);
        match cache.create(&key, object, CreateOptions::default()).await {
            Ok(_) => Ok(()),
            Err(Error::Exists { .. }) => Err(Refusal::Allocated),
            Err(error) => Err(Refusal::Store(errors::of_read(error))),
        }
    }

    /// Gives an address back, if it is this Service's.
    pub async fn release(&self, server: &Arc<Server>, address: IpAddr, (namespace, name): (&str, &str)) {
        let Some(served) = server.registry.any_version("networking.k8s.io", "ipaddresses") else { return };
        let cache = served.cache.as_ref().expect("addresses are stored");
        let key = served.key("", &address.to_string());
        let Ok(Some(entry)) = cache.get(&key, Freshness::Consistent).await else { return };
        if !owned_by(&entry.tree(), namespace, name) {
            return;
        }
        if let Err(error) = cache.delete(&entry).await {
            tracing::warn!(%error, %address, "a cluster IP was not given back; it stays reserved");
        }
    }
}

pub(super) fn owned_by(object: &Value, namespace: &str, name: &str) -> bool {
    object.str_at(&["spec", "parentRef", "namespace"]) == Some(namespace)
        && object.str_at(&["spec", "parentRef", "name"]) == Some(name)
        && object.str_at(&["spec", "parentRef", "resource"]) == Some("services")
}

pub(super) fn address_object(server: &Server, address: IpAddr, namespace: &str, name: &str) -> Value {
    let now = server.timestamp();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": now,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family(&address),
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
            "managedFields": [{
                "apiVersion": "networking.k8s.io/v1",
                "fieldsType": "FieldsV1",
                "fieldsV1": {
                    "f:metadata": {"f:labels": {
                        ".": {},
                        "f:ipaddress.kubernetes.io/ip-family": {},
                        "f:ipaddress.kubernetes.io/managed-by": {},
                    }},
                    "f:spec": {"f:parentRef": {
                        ".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {},
                    }},
                },
                "manager": "kube-apiserver",
                "operation": "Update",
                "time": now,
            }],
        },
        "spec": {"parentRef": {"name": name, "namespace": namespace, "resource": "services"}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_addresses() {
        for (range, want, first) in
            [("10.96.0.0/16", 65534, "10.96.0.1"), ("10.0.0.0/30", 2, "10.0.0.1"), ("fd00::/112", 65535, "fd00::1")]
        {
            let range: IpNet = range.parse().unwrap();
            assert_eq!(usable(&range), want);
            assert_eq!(nth(&range, 1).to_string(), first);
        }
        let check = |range: &str, want: u128| assert_eq!(static_band(&range.parse().unwrap()), want, "{range}");
        check("10.96.0.0/16", 256);
        check("10.96.0.0/20", 256);
        check("10.96.0.0/24", 16);
        check("10.96.0.0/27", 16);
        check("10.96.0.0/28", 0);
        check("fd00::/64", 256);
    }

    #[test]
    fn reads_ranges() {
        let check = |object: Value, want: bool| {
            let (ranges, ready) = ranges_of(&object);
            assert_eq!((ranges.len(), ready), (2, want), "{object}");
        };
        let spec = json!({"cidrs": ["10.0.0.0/24", "fd00::/112"]});
        let ready = |status: &str| json!({"conditions": [{"type": "Ready", "status": status}]});
        check(json!({"spec": spec}), true);
        check(json!({"spec": spec, "status": ready("True")}), true);
        check(json!({"spec": spec, "status": ready("False")}), false);
        check(json!({"spec": spec, "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false);
        let range: IpNet = "10.0.0.0/24".parse().unwrap();
        for (address, want) in [("10.0.0.0", false), ("10.0.0.1", true), ("10.0.0.255", false), ("10.0.1.1", false)] {
            assert_eq!(holds(&range, address.parse().unwrap()), want, "{address}");
        }
    }
}
