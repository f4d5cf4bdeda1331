//! Cluster DNS: the names of Services and pods, to the Kubernetes DNS specification (version 1.1.0).

pub mod message;
