//! The kubelet: runs the pods that are bound to this node.
//!
//! Desired pods come in (API, static manifests), CRI calls go out. One worker per pod reads what is
//! wanted and what is, decides purely, acts, and reports; everything a worker needs after a restart is in
//! the runtime, on the disk or in the API.

pub mod allocation;
pub mod api;
pub mod api_client;
pub mod certificates;
pub mod cgroup;
pub mod config;
pub mod cri;
pub mod env;
pub mod images;
mod kubelet;
pub mod network;
pub mod node;
pub mod pleg;
pub mod pod;
pub mod probe;
pub mod references;
pub mod resources;
pub mod runtime;
pub mod server;
pub mod settings;
pub mod static_pods;
pub mod status;
pub mod sys;
pub mod volume;
pub mod workers;

pub use config::Config;
pub use kubelet::{Error, run};
