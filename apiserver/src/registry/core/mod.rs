//! Kinds of the core group and of `apps` that need code.

pub mod daemon_set;
pub mod deployment;
pub mod endpoint_slice;
pub mod event;
pub mod ip_address;
pub mod limit_range;
pub mod namespace;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod secret;
pub mod service;
pub mod service_account;
