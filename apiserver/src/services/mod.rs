//! Allocation for Services: cluster IPs as IPAddress objects, node ports from the configured range.
//!
//! An address is taken by creating its IPAddress (KEP-1880), which only one server can do, so no
//! bitmap has to be kept and repaired; [`repair`] mends what a crash leaves. Used node ports are read
//! out of the stored Services; each Service is decoded once per change. Servers that share an etcd
//! tell each other of ports that are not stored yet by short-lived claims.

pub mod ips;
pub mod ports;
pub mod repair;
mod resolve;

pub use ips::IpAllocator;
pub use ports::PortAllocator;
pub use resolve::resolve;

use crate::config::{Config, StorageBackend};

/// Everything Services draw from.
pub struct Allocators {
    pub ips: IpAllocator,
    pub ports: PortAllocator,
}

impl Allocators {
    /// Allocators over the configured ranges.
    pub fn new(config: &Config) -> Self {
        let shared = match &config.storage {
            StorageBackend::Embedded { .. } => None,
            _ => Some(format!("{}/ranges/servicenodeports/", config.etcd_prefix)),
        };
        Self {
            ips: IpAllocator::new(config.service_cluster_ip_ranges.clone()),
            ports: PortAllocator::new(config.service_node_port_range, shared),
        }
    }
}
