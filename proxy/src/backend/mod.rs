//! Backends: what turns service ports and endpoints into the kernel's rules.
//!
//! A backend serves one IP family. It is handed the whole wanted state and the names of what
//! changed; how much it rewrites is its own business, but it must do so atomically, and after an
//! error it must manage to repair everything in the next full sync.

use std::collections::BTreeSet;

use crate::types::{EndpointsMap, NamespacedName, ServicePortMap};

pub mod iptables;

/// The wanted state.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// All service ports.
    pub services: &'a ServicePortMap,
    /// All endpoints.
    pub endpoints: &'a EndpointsMap,
    /// This node's zone; empty when it has none.
    pub zone: &'a str,
}

/// How much to write.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Everything, whatever the kernel holds.
    Full,
    /// Only what depends on these services; the rest is as the last sync left it.
    Changed(&'a BTreeSet<NamespacedName>),
}

/// What a sync wrote, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Rules of the filter table after the sync.
    pub filter_rules: usize,
    /// Rules of the nat table after the sync.
    pub nat_rules: usize,
    /// Rules of the nat table written by this sync.
    pub nat_rules_written: usize,
    /// Ports with internalTrafficPolicy Local and no local endpoint.
    pub no_local_endpoints_internal: usize,
    /// Ports with externalTrafficPolicy Local and no local endpoint.
    pub no_local_endpoints_external: usize,
}

/// Failures of a backend; the caller retries with [`Scope::Full`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("cannot run {program}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed: {message}")]
    Failed {
        /// Its name.
        program: String,
        /// What it wrote to its standard error.
        message: String,
    },
}

/// One IP family's rules.
pub trait Backend: Send {
    /// Makes the kernel agree with `view`.
    fn sync(&mut self, view: View<'_>, scope: Scope<'_>) -> Result<SyncReport, Error>;

    /// Whether somebody else flushed our rules since the last sync.
    fn damaged(&mut self) -> bool;
}
