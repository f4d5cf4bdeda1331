//! Node ports: which ones stored Services use, and which are promised to writes under way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::Freshness;
use crate::handlers::errors;
use crate::server::Server;

/// Hands out node ports.
pub struct PortAllocator {
    low: u16,
    high: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Storage key of a Service → revision it was read at, and its ports.
    services: HashMap<Arc<str>, (u64, Vec<u16>)>,
    /// Promised to writes that are not stored yet.
    promised: BTreeMap<u16, usize>,
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

impl PortAllocator {
    /// An allocator over an inclusive range.
    pub fn new((low, high): (u16, u16)) -> Self {
        Self { low, high, state: Mutex::default() }
    }

    /// `30000-32767`.
    pub fn range(&self) -> (u16, u16) {
        (self.low, self.high)
    }

    /// The ports that stored Services other than `except` use.
    async fn used(&self, server: &Arc<Server>, except: &str) -> Result<HashSet<u16>, Status> {
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
        Ok(state
            .services
            .iter()
            .filter(|(key, _)| key.as_ref() != except)
            .flat_map(|(_, (_, ports))| ports.iter().copied())
            .chain(state.promised.keys().copied())
            .collect())
    }

    /// Promises a free port, or the wanted one; `None` when it is taken or the range is full.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn promise(
        &self,
        server: &Arc<Server>,
        wanted: Option<u16>,
        own_key: &str,
    ) -> Result<Option<u16>, Status> {
        let used = self.used(server, own_key).await?;
        let free = |port: u16| !used.contains(&port);
        let port = match wanted {
            Some(port) => Some(port).filter(|port| free(*port)),
            None => {
                let size = u32::from(self.high - self.low) + 1;
                let start = rand::random::<u32>() % size;
                (0..size)
                    .map(|step| self.low + u16::try_from((start + step) % size).expect("below the size"))
                    .find(|port| free(*port))
            }
        };
        if let Some(port) = port {
            *self.state.lock().promised.entry(port).or_default() += 1;
        }
        Ok(port)
    }

    /// Takes a promise back: the write is stored, and counts from now on, or it failed.
    pub fn settle(&self, port: u16) {
        let mut state = self.state.lock();
        if let Some(count) = state.promised.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                state.promised.remove(&port);
            }
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
}
