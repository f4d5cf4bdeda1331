//! kube-proxy: makes the addresses of Services work on a node.
//!
//! Watches Services, EndpointSlices and its own Node, and keeps the kernel's rules equal to them
//! through a [`backend`]. It reads the API and writes nothing to it.

pub mod backend;
pub mod config;
pub mod conntrack;
pub mod endpoints;
pub mod healthcheck;
pub mod local_detector;
pub mod metrics;
pub mod node;
pub mod node_port_addresses;
pub mod objects;
pub mod proxier;
pub mod server;
pub mod services;
pub mod sysctl;
pub mod topology;
#[cfg(test)]
mod tracer;
pub mod types;

pub use config::Config;
pub use server::{Error, cleanup, run};
