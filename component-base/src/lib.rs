//! What every Keelson binary shares: flags, feature gates, logging, metrics, health, TLS, certificates, clock.
//!
//! Knows no Kubernetes kind and talks to no API server.

pub mod accept;
mod client_authority;
pub mod clock;
pub mod config_file;
pub mod duration;
pub mod featuregate;
pub mod files;
pub mod flags;
pub mod health;
pub mod jwt;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod pki;
pub mod program;
mod server_verifier;
pub mod serving;
pub mod signals;
mod sys;
pub mod tls;
pub mod version;
pub mod zpages;
