//! Events expire (`--event-ttl`).

use std::time::Duration;

use crate::registry::hooks::Hooks;
use crate::server::Server;

pub struct Event;

impl Hooks for Event {
    fn ttl(&self, server: &Server) -> Option<Duration> {
        Some(server.config.event_ttl).filter(|ttl| !ttl.is_zero())
    }
}
