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

/// Addresses tried at random before the range is searched in order.
const RANDOM_ATTEMPTS: usize = 64;

/// Hands out addresses of the service ranges, the first range being the primary family.
pub struct IpAllocator {
    ranges: Vec<IpNet>,
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

/// How many addresses of a range can be given out: all but the first, and the last of IPv4.
fn usable(range: &IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = if bits >= 64 { MAX_SIZE } else { 1u128 << bits };
    let reserved = if matches!(range, IpNet::V4(_)) { 2 } else { 1 };
    size.saturating_sub(reserved)
}

/// The lower part of a range, left to Services that ask for an address of their own (KEP-3070).
fn static_band(size: u128) -> u128 {
    if size <= 16 { 0 } else { (size / 16).clamp(16, 256) }
}

impl IpAllocator {
    /// An allocator over one range, or two of different families.
    pub fn new(ranges: Vec<IpNet>) -> Self {
        Self { ranges }
    }

    /// The ranges.
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

    fn range(&self, wanted: &str) -> Option<&IpNet> {
        self.ranges.iter().find(|range| family(&range.network()) == wanted)
    }

    /// Takes a free address of a family for a Service. A dry run only picks one.
    ///
    /// # Errors
    /// When the range is exhausted or the store fails.
    pub async fn next(
        &self,
        server: &Arc<Server>,
        wanted: &str,
        service: (&str, &str),
        dry_run: bool,
    ) -> Result<IpAddr, Status> {
        let Some(range) = self.range(wanted) else {
            return Err(Status::internal(format!("failed to allocate a serviceIP: no allocator for family {wanted}")));
        };
        let size = usable(range);
        let band = static_band(size);
        let full = || Status::internal("failed to allocate a serviceIP: range is full");
        for _ in 0..RANDOM_ATTEMPTS {
            if size <= band {
                break;
            }
            let offset = 1 + band + rand::random::<u128>() % (size - band);
            if self.take(server, nth(range, offset), service, dry_run).await? {
                return Ok(nth(range, offset));
            }
        }
        // Nearly full: look at each address once, the upper part first.
        let searched = size.min(1 << 20);
        for offset in (band..searched).chain(0..band.min(searched)) {
            let address = nth(range, 1 + offset);
            if self.take(server, address, service, dry_run).await? {
                return Ok(address);
            }
        }
        Err(full())
    }

    /// Takes a certain address; false when somebody has it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn take(
        &self,
        server: &Arc<Server>,
        address: IpAddr,
        (namespace, name): (&str, &str),
        dry_run: bool,
    ) -> Result<bool, Status> {
        let Some(served) = server.registry.any_version("networking.k8s.io", "ipaddresses") else {
            return Err(Status::internal("networking.k8s.io IPAddress is switched off"));
        };
        let cache = served.cache.as_ref().expect("addresses are stored");
        let key = served.key("", &address.to_string());
        let existing = cache.get(&key, Freshness::Any).await.map_err(errors::of_read)?;
        if let Some(existing) = existing {
            // An address left over by a failed create of the same Service is its own.
            let tree = existing.tree();
            return Ok(owned_by(&tree, namespace, name));
        }
        if dry_run {
            return Ok(true);
        }
        let object = address_object(server, address, namespace, name);
        match cache.create(&key, object, CreateOptions::default()).await {
            Ok(_) => Ok(true),
            Err(Error::Exists { .. }) => Ok(false),
            Err(error) => Err(errors::of_read(error)),
        }
    }

    /// Whether an address lies in a range.
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
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

fn owned_by(object: &Value, namespace: &str, name: &str) -> bool {
    object.str_at(&["spec", "parentRef", "namespace"]) == Some(namespace)
        && object.str_at(&["spec", "parentRef", "name"]) == Some(name)
        && object.str_at(&["spec", "parentRef", "resource"]) == Some("services")
}

fn address_object(server: &Server, address: IpAddr, namespace: &str, name: &str) -> Value {
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
        assert_eq!(static_band(65534), 256);
        assert_eq!(static_band(254), 16);
        assert_eq!(static_band(14), 0);
    }
}
