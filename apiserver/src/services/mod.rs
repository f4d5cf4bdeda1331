//! Allocation for Services: cluster IPs as IPAddress objects, node ports from the configured range.
//!
//! An address is taken by creating its IPAddress (KEP-1880), which only one server can do, so no
//! bitmap has to be kept and repaired. Used node ports are read out of the stored Services; each
//! Service is decoded once per change.

pub mod ips;
pub mod ports;
mod resolve;

pub use ips::IpAllocator;
pub use ports::PortAllocator;
pub use resolve::resolve;

use crate::config::Config;

/// Everything Services draw from.
pub struct Allocators {
    pub ips: IpAllocator,
    pub ports: PortAllocator,
}

impl Allocators {
    /// Allocators over the configured ranges.
    pub fn new(config: &Config) -> Self {
        Self {
            ips: IpAllocator::new(config.service_cluster_ip_ranges.clone()),
            ports: PortAllocator::new(config.service_node_port_range),
        }
    }
}
