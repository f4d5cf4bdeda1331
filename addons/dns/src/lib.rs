//! Cluster DNS: the names of Services and pods, to the Kubernetes DNS specification (version 1.1.0), for the pods of
//! one node.
//!
//! It needs no pod: a process on each node answers at the cluster's DNS address. Names of the cluster are answered
//! from memory, which informers keep, and never wait for anything; all others are asked of the node's own resolvers, or
//! of those of a stub domain, and remembered for a while. Its behaviour, metrics and health endpoints are those of
//! CoreDNS as kubeadm configures it.
//!
//! [`message`] reads and writes packets, [`cluster`] is what is known, [`answers`] finds records in it, [`forward`] asks
//! others, [`server`] ties them to sockets.

pub mod answers;
pub mod cluster;
pub mod config;
pub mod forward;
pub mod http;
pub mod message;
pub mod metrics;
pub mod objects;
pub mod server;

pub use config::Config;
pub use server::{Error, run};
