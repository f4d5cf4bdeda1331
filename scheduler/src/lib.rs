//! kube-scheduler: finds a node for every pod that has none.
//!
//! [`core`] is the algorithm over the [`framework`] and its [`plugins`], and does no I/O; [`server`]
//! feeds it from informers and carries its decisions out: bindings, conditions, preemption, events.

pub mod config;
pub mod core;
pub mod framework;
pub mod listers;
pub mod metrics;
pub mod objects;
pub mod plugins;
pub mod queue;
pub mod server;
pub mod testing;

pub use config::Config;
pub use server::{Error, run};
