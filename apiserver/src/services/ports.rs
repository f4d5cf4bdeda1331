//! Node ports: which ones stored Services use, and which are promised to writes under way.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::Freshness;
use crate::handlers::errors;
use crate::server::Server;
use crate::storage::{self, WriteOptions};

/// How long another server believes a claim of one that is gone; longer than any request lives.
const CLAIM: Duration = Duration::from_secs(90);

/// Hands out node ports.
pub struct PortAllocator {
    low: u16,
    high: u16,
    /// Where claims are stored, if other servers share the store.
    shared: Option<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Storage key of a Service → revision it was read at, and its ports.
    services: HashMap<Arc<str>, (u64, Vec<u16>)>,
    /// Promised to writes that are not stored yet, with the revision of the stored claim.
    promised: HashMap<u16, Option<u64>>,
}

/// The node ports of a Service.
pub fn of(service: &Value) -> Vec<u16> {
    let mut ports: Vec<u16> = service
        .list_at(&["spec", "ports"])
        .iter()
        .filter_map(|port| port.i64_at(&["nodePort"]))
        .chain(service.i64_at(&["spec", "healthCheckNodePort"]))
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// How many ports at the low end are left to Services that ask for a port of their own (KEP-3668).
fn static_band(size: u32) -> u32 {
    if size <= 16 { 0 } else { (size / 32).clamp(16, 128) }
}

impl PortAllocator {
    /// An allocator over an inclusive range. Claims are stored below `shared` if other servers use the store.
    pub fn new((low, high): (u16, u16), shared: Option<String>) -> Self {
        Self { low, high, shared, state: Mutex::default() }
    }

    /// `30000-32767`.
    pub fn range(&self) -> (u16, u16) {
        (self.low, self.high)
    }

    /// The ports of stored Services.
    async fn used(&self, server: &Arc<Server>) -> Result<HashSet<u16>, Status> {
        let served =
            server.registry.any_version("", "services").ok_or_else(|| Status::internal("services are switched off"))?;
        let cache = served.cache.as_ref().expect("services are stored");
        let snapshot = cache.snapshot(Freshness::Consistent).await.map_err(errors::of_read)?;
        let mut state = self.state.lock();
        let mut seen = HashMap::with_capacity(snapshot.len());
        for entry in snapshot.range(None, None) {
            let known = state.services.remove(entry.key());
            let ports = match known {
                Some((revision, ports)) if revision == entry.revision() => ports,
                _ => of(&entry.tree()),
            };
            seen.insert(entry.key().clone(), (entry.revision(), ports));
        }
        state.services = seen;
        Ok(state.services.values().flat_map(|(_, ports)| ports.iter().copied()).collect())
    }

    /// Whether nobody has a port, which a dry run asks.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_free(&self, server: &Arc<Server>, port: u16) -> Result<bool, Status> {
        Ok(!self.used(server).await?.contains(&port) && !self.state.lock().promised.contains_key(&port))
    }

    /// Promises a port to a write; false when somebody has it.
    ///
    /// First claimed, then looked for among the stored Services: of two writers one sees the other's claim, or the
    /// Service that it became.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn promise(&self, server: &Arc<Server>, port: u16) -> Result<bool, Status> {
        if !self.claim(server, port).await? {
            return Ok(false);
        }
        let used = self.used(server).await;
        if !used.as_ref().is_ok_and(|used| !used.contains(&port)) {
            self.settle(server, port);
        }
        Ok(!used?.contains(&port))
    }

    async fn claim(&self, server: &Arc<Server>, port: u16) -> Result<bool, Status> {
        match self.state.lock().promised.entry(port) {
            Entry::Occupied(_) => return Ok(false),
            Entry::Vacant(entry) => {
                entry.insert(None);
            }
        }
        let Some(prefix) = &self.shared else { return Ok(true) };
        let options = WriteOptions { ttl: Some(CLAIM), ..WriteOptions::default() };
        let stored = server.cache.storage().create(&format!("{prefix}{port}"), "{}".into(), options).await;
        let mut state = self.state.lock();
        match stored {
            Ok(revision) => {
                state.promised.insert(port, Some(revision));
                Ok(true)
            }
            Err(error) => {
                state.promised.remove(&port);
                match error {
                    storage::Error::Exists { .. } => Ok(false),
                    other => Err(errors::of_read(other.into())),
                }
            }
        }
    }

    /// Promises any free port; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn promise_any(&self, server: &Arc<Server>) -> Result<Option<u16>, Status> {
        let used = self.used(server).await?;
        let size = u32::from(self.high - self.low) + 1;
        let band = static_band(size);
        for (low, high) in [(band, size), (0, band)] {
            let count = high - low;
            let start = if count == 0 { 0 } else { rand::random::<u32>() % count };
            for step in 0..count {
                let offset = low + (start + step) % count;
                let port = self.low + u16::try_from(offset).expect("below the size");
                if !used.contains(&port) && self.promise(server, port).await? {
                    return Ok(Some(port));
                }
            }
        }
        Ok(None)
    }

    /// Takes a promise back: the write is stored, and counts from now on, or it failed.
    pub fn settle(&self, server: &Arc<Server>, port: u16) {
        let claim = self.state.lock().promised.remove(&port).flatten();
        if let (Some(prefix), Some(revision)) = (&self.shared, claim) {
            let (server, key) = (server.clone(), format!("{prefix}{port}"));
            tokio::spawn(async move {
                if let Err(error) = server.cache.storage().delete(&key, revision, None).await {
                    tracing::debug!(%error, key, "a claim was not taken back; it ends by itself");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_ports() {
        let service = json!({"spec": {"healthCheckNodePort": 32000, "ports": [{"nodePort": 30001}, {"port": 1}, {"nodePort": 30001}]}});
        assert_eq!(of(&service), [30001, 32000]);
    }

    #[test]
    fn leaves_the_low_end_to_wishes() {
        for (size, want) in [(16, 0), (17, 16), (512, 16), (2768, 86), (65535, 128)] {
            assert_eq!(static_band(size), want, "{size}");
        }
    }
}
