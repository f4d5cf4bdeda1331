//! The kubelet: runs the pods that are bound to this node.

pub mod api;
pub mod cgroup;
pub mod cri;
pub mod env;
pub mod images;
pub mod network;
pub mod pleg;
pub mod pod;
pub mod probe;
pub mod resources;
pub mod runtime;
pub mod settings;
pub mod status;
pub mod sys;
pub mod volume;
pub mod workers;
