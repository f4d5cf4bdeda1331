//! The order of groups and versions in discovery, and the versions that extension servers answer for.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::Resource;
use serde_json::{Value, json};

use crate::aggregator::priorities;
use crate::aggregator::routes::{self, Place, Routes};
use crate::server::Server;

/// What is served, by this server and by extension servers.
pub struct Served {
    routes: Arc<Routes>,
    places: Vec<Place>,
}

impl Served {
    /// Takes the group versions of `rows` and of every APIService with a Service.
    pub fn new(server: &Server, rows: &[&Resource]) -> Self {
        let routes = server.aggregator.routes();
        let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut places = Vec::new();
        for row in rows.iter().filter(|row| seen.insert((row.group.as_ref(), row.version.as_ref()))) {
            places.push(place(&routes, &row.group, &row.version));
        }
        for service in routes.services.values().filter(|service| service.service.is_some()) {
            if !seen.contains(&(service.group.as_str(), service.version.as_str())) {
                places.push(Place {
                    group: service.group.clone(),
                    version: service.version.clone(),
                    group_priority: service.group_priority,
                    version_priority: service.version_priority,
                });
            }
        }
        Self { routes, places }
    }

    /// For `/apis` and `/apis/<group>`.
    pub fn plain(&self) -> Vec<(String, Vec<String>)> {
        routes::order_of_groups(self.places.clone())
    }

    /// For the aggregated form.
    pub fn aggregated(&self) -> Vec<(String, Vec<String>)> {
        routes::aggregated_order_of_groups(self.places.clone())
    }

    /// The element of `versions` of a group version that an extension server answers for.
    pub fn remote(&self, server: &Server, group: &str, version: &str) -> Option<Value> {
        if self.routes.remotes == 0 {
            return None;
        }
        let service = self.routes.services.get(&format!("{version}.{group}"))?;
        service.service.as_ref()?;
        let documents = server.aggregator.documents(&service.name);
        let known = &documents.discovery;
        let mut entry = known.version.clone().unwrap_or_else(|| json!({"version": version}));
        let fresh = known.version.is_some() && !known.stale;
        entry["freshness"] = json!(if fresh { "Current" } else { "Stale" });
        Some(entry)
    }
}

/// Where a group version of this server stands: its APIService says so, or will.
fn place(routes: &Routes, group: &str, version: &str) -> Place {
    let (group_priority, version_priority) = match routes.services.get(&format!("{version}.{group}")) {
        Some(service) => (service.group_priority, service.version_priority),
        None => priorities::of(group, version).unwrap_or(priorities::CUSTOM),
    };
    Place { group: group.to_owned(), version: version.to_owned(), group_priority, version_priority }
}
