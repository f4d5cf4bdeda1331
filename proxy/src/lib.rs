//! kube-proxy: makes the addresses of Services work on a node.
//!
//! Watches Services, EndpointSlices and its own Node, and keeps the kernel's rules equal to them
//! through a [`backend`]. It reads the API and writes nothing to it but events.

pub mod backend;
pub mod endpoints;
pub mod local_detector;
pub mod node_port_addresses;
pub mod objects;
pub mod services;
pub mod topology;
#[cfg(test)]
mod tracer;
pub mod types;
