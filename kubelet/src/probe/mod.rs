//! Probes: what they ask (here and in `check`), when they ask (`worker`), and what the kubelet makes of
//! the answers (`manager`).

pub mod check;
mod grpc_health;
mod manager;
mod worker;

pub use manager::{Kind, Manager};
