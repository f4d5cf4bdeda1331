//! The `keelson` command: clusters on this machine, and the control plane in one process.
//!
//! [`up`] and [`down`] are the two ends; between them [`network`], [`node`] and [`image`] make what a node
//! needs, [`plan`] says which processes run, and [`supervisor`] keeps them running. [`server`] composes the
//! control plane. This room is the only one that knows all the others.

pub mod certs;
pub mod cgroup;
pub mod command;
pub mod down;
mod grants;
pub mod image;
pub mod kubeconfig;
pub mod network;
pub mod node;
pub mod node_config;
pub mod nodes;
pub mod pki;
pub mod plan;
pub mod progress;
pub mod server;
pub mod state;
pub mod supervisor;
mod sys;
pub mod up;
