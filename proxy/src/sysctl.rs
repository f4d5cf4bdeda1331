//! The kernel settings kube-proxy wants, under `/proc/sys`.
//!
//! In nested hosts and containers some are read-only or belong to the outer host. Rules work
//! without them, so a refusal is logged and survived.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Conntrack;

/// Access to settings below a root, `/proc/sys` but for tests.
#[derive(Clone, Debug)]
pub struct Sysctl {
    root: PathBuf,
    hash_size: PathBuf,
}

impl Default for Sysctl {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/proc/sys"),
            hash_size: PathBuf::from("/sys/module/nf_conntrack/parameters/hashsize"),
        }
    }
}

impl Sysctl {
    /// Settings below another root.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), hash_size: root.join("hashsize") }
    }

    /// Reads a number.
    pub fn get(&self, name: &str) -> io::Result<i64> {
        let text = std::fs::read_to_string(self.root.join(name))?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// Writes a number unless it is there already; `false` (and a log line) when refused.
    pub fn ensure(&self, name: &str, value: i64) -> bool {
        match self.get(name) {
            Ok(current) if current == value => return true,
            Err(error) => {
                tracing::warn!(sysctl = name, %error, "setting does not exist here");
                return false;
            }
            Ok(_) => {}
        }
        match std::fs::write(self.root.join(name), value.to_string()) {
            Ok(()) => {
                tracing::info!(sysctl = name, value, "Set sysctl");
                true
            }
            Err(error) => {
                tracing::warn!(sysctl = name, value, %error, "cannot set sysctl; going on without");
                false
            }
        }
    }

    /// Applies the connection tracking settings.
    pub fn apply_conntrack(&self, conntrack: &Conntrack, cores: i64) {
        if let Some(max) = conntrack_max(conntrack, cores) {
            // Never shrunk: another component may have asked for more.
            let current = self.get("net/netfilter/nf_conntrack_max").unwrap_or(0);
            if current < max {
                self.ensure("net/netfilter/nf_conntrack_max", max);
                self.ensure_hash_size(max / 4);
            }
        }
        for (name, timeout) in [
            ("nf_conntrack_tcp_timeout_established", conntrack.tcp_established_timeout),
            ("nf_conntrack_tcp_timeout_close_wait", conntrack.tcp_close_wait_timeout),
            ("nf_conntrack_udp_timeout", conntrack.udp_timeout),
            ("nf_conntrack_udp_timeout_stream", conntrack.udp_stream_timeout),
        ] {
            if timeout > Duration::ZERO {
                let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
                self.ensure(&format!("net/netfilter/{name}"), seconds);
            }
        }
        if conntrack.tcp_be_liberal {
            self.ensure("net/netfilter/nf_conntrack_tcp_be_liberal", 1);
        }
    }

    fn ensure_hash_size(&self, size: i64) {
        let current = std::fs::read_to_string(&self.hash_size)
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
            .unwrap_or(i64::MAX);
        if current < size
            && let Err(error) = std::fs::write(&self.hash_size, size.to_string())
        {
            tracing::warn!(size, %error, "cannot raise the conntrack hash size");
        }
    }
}

/// The wanted `nf_conntrack_max`; `None` leaves it.
fn conntrack_max(conntrack: &Conntrack, cores: i64) -> Option<i64> {
    (conntrack.max_per_core > 0).then(|| (conntrack.max_per_core * cores).max(conntrack.min))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_differs_and_survives_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let netfilter = dir.path().join("net/netfilter");
        std::fs::create_dir_all(&netfilter).unwrap();
        std::fs::write(netfilter.join("nf_conntrack_max"), "65536\n").unwrap();
        std::fs::write(netfilter.join("nf_conntrack_tcp_timeout_established"), "432000\n").unwrap();
        std::fs::write(dir.path().join("hashsize"), "16384\n").unwrap();
        let sysctl = Sysctl::at(dir.path());
        sysctl.apply_conntrack(&Conntrack::default(), 2);
        assert_eq!(sysctl.get("net/netfilter/nf_conntrack_max").unwrap(), 131_072);
        assert_eq!(sysctl.get("net/netfilter/nf_conntrack_tcp_timeout_established").unwrap(), 86_400);
        assert_eq!(std::fs::read_to_string(dir.path().join("hashsize")).unwrap(), "32768");
        assert!(!sysctl.ensure("net/none", 1));
    }

    #[test]
    fn the_limit_grows_with_cores() {
        let d = Conntrack::default();
        assert_eq!(conntrack_max(&d, 1), Some(131_072));
        assert_eq!(conntrack_max(&d, 64), Some(2_097_152));
        assert_eq!(conntrack_max(&Conntrack { max_per_core: 0, ..d }, 64), None);
    }
}
