//! End-to-end scenarios over a running cluster, over the wire only.
//!
//! The subject is chosen by variables, so that every scenario also runs against upstream, which proves the
//! scenario: `KUBECONFIG` names the cluster, `KUBECTL` the kubectl to drive it with. What reaches behind the
//! API (killing processes, entering nodes) is in [`machine`] and only runs where `keelson up` made the cluster.

pub mod cluster;
pub mod machine;
pub mod operator;
pub mod runner;
pub mod scenarios;
