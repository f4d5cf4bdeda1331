//! apiextensions in this process: follows the CustomResourceDefinitions and has the registry serve
//! them.
//!
//! One loop over the watch cache. Every change of a definition replaces its rows at once, then
//! computes the conditions and accepted names (upstream's naming, establishing, approval and
//! structural schema controllers) and writes them, in one update. Deletions are finished by a task
//! of their own, which removes the instances first.

mod finalizer;
pub mod status;
mod webhook;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::object::ObjectExt as _;
use http::Method;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::{
    Entry, EventType, Freshness, Item, ResourceCache, ResourceSpec, SelectableField, Start, WatchRequest,
};
use crate::registry::custom::{Custom, Definition, Reviewer, Row};
use crate::registry::{Served, rules};
use crate::server::{Server, in_process};

/// Where definitions are.
pub const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// From a status that could not be written to the next attempt.
const AGAIN: Duration = Duration::from_secs(1);

/// What the loop needs besides the server.
struct Follower {
    server: Arc<Server>,
    reviewer: Arc<dyn Reviewer>,
    /// Definitions whose instances are being removed.
    finalizing: Arc<Mutex<HashSet<String>>>,
    /// Accepted names of every definition, by group: who may take a name is decided by these.
    accepted: Mutex<HashMap<String, BTreeMap<String, Value>>>,
    /// Definitions whose status could not be written, by a webhook's fault or the store's.
    unwritten: Mutex<HashSet<String>>,
}

/// Serves what is stored, and follows the definitions until the server stops. Returns once what
/// was there is served.
pub async fn start(server: &Arc<Server>) {
    let Some(definitions) = server.registry.any_version("apiextensions.k8s.io", "customresourcedefinitions") else {
        return;
    };
    let cache = definitions.cache.clone().expect("definitions are stored");
    let follower = Follower {
        server: server.clone(),
        reviewer: webhook::reviewer(server),
        finalizing: Arc::default(),
        accepted: Mutex::default(),
        unwritten: Mutex::default(),
    };
    match cache.snapshot(Freshness::Consistent).await {
        Ok(snapshot) => {
            for entry in snapshot.range(None, None) {
                let tree = entry.tree();
                follower.serve(entry, &tree);
                follower.remember(&tree);
            }
        }
        Err(error) => tracing::error!(%error, "custom resources are not served yet"),
    }
    tokio::spawn(async move {
        let shutdown = follower.server.shutdown.clone();
        tokio::select! {
            () = follower.run(&cache) => {}
            () = shutdown.cancelled() => {}
        }
    });
}

impl Follower {
    async fn run(&self, cache: &Arc<ResourceCache>) {
        loop {
            if let Err(error) = self.follow(cache).await {
                tracing::warn!(%error, "the watch of CustomResourceDefinitions starts over");
                self.server.clock.sleep(Duration::from_millis(200)).await;
            }
        }
    }

    async fn follow(&self, cache: &Arc<ResourceCache>) -> Result<(), crate::cache::Error> {
        let request = WatchRequest {
            matcher: None,
            scope: crate::cache::Scope::All,
            start: Start::State(Freshness::Consistent),
            bookmarks: None,
            ends_in: None,
        };
        let mut watch = cache.watch(request).await?;
        if let Some(state) = watch.initial.take() {
            let names: HashSet<String> = state.range(None, None).map(|entry| entry.name().to_string()).collect();
            let gone: Vec<String> = self
                .server
                .registry
                .custom()
                .rows()
                .map(|row| row.definition.name.clone())
                .filter(|name| !names.contains(name))
                .collect();
            gone.iter().for_each(|name| self.withdraw(name));
            let known: Vec<String> = self.accepted.lock().values().flat_map(BTreeMap::keys).cloned().collect();
            known.iter().filter(|name| !names.contains(*name)).for_each(|name| self.forget(name));
            for entry in state.range(None, None) {
                self.changed(entry).await;
            }
        }
        loop {
            let unwritten = !self.unwritten.lock().is_empty();
            let item = tokio::select! {
                item = watch.next() => item?,
                () = self.server.clock.sleep(AGAIN), if unwritten => {
                    self.write_again(cache).await?;
                    continue;
                }
            };
            let Item::Events(events) = item else { continue };
            for (kind, event) in events {
                let entry = event.entry(kind);
                match kind {
                    EventType::Added | EventType::Modified => self.changed(entry).await,
                    EventType::Deleted => {
                        self.withdraw(entry.name());
                        self.forget(entry.name());
                    }
                }
            }
        }
    }

    async fn changed(&self, entry: &Arc<Entry>) {
        let tree = entry.tree();
        self.serve(entry, &tree);
        self.remember(&tree);
        self.conditions(&tree).await;
        let held = tree.finalizers().any(|name| name == crate::registry::apiextensions::CLEANUP_FINALIZER);
        if tree.deletion_timestamp().is_some() && held {
            self.finalize(entry.name());
        }
    }

    /// Notes which names a definition has.
    fn remember(&self, tree: &Value) {
        let group = tree.str_at(&["spec", "group"]).unwrap_or_default().to_string();
        let names = tree.at(&["status", "acceptedNames"]).cloned().unwrap_or_default();
        self.accepted.lock().entry(group).or_default().insert(tree.name().to_string(), names);
    }

    fn forget(&self, name: &str) {
        let Some((_, group)) = name.split_once('.') else { return };
        let mut accepted = self.accepted.lock();
        if let Some(names) = accepted.get_mut(group) {
            names.remove(name);
            if names.is_empty() {
                accepted.remove(group);
            }
        }
    }

    /// Writes names and conditions that are not as they should be.
    async fn conditions(&self, tree: &Value) {
        let group = tree.str_at(&["spec", "group"]).unwrap_or_default();
        let now = self.server.timestamp();
        let new = {
            let accepted = self.accepted.lock();
            status::compute(tree, accepted.get(group).into_iter().flat_map(BTreeMap::values), &now)
        };
        let Some(new) = new else { return };
        let path = format!("{PATH}/{}/status", tree.name());
        match in_process::request(&self.server, Method::PUT, &path, Some(&new)).await {
            // Names are taken from now on, not from when the watch tells of them.
            Ok(written) => self.remember(&written),
            // Whoever wrote it meanwhile made an event, too.
            Err(status) if status.is_conflict() || status.is_not_found() => {}
            Err(status) => {
                tracing::warn!(definition = tree.name(), error = %status.message, "status not written");
                self.unwritten.lock().insert(tree.name().to_string());
            }
        }
    }

    /// Tries once more to write what could not be written.
    async fn write_again(&self, cache: &Arc<ResourceCache>) -> Result<(), crate::cache::Error> {
        let names = std::mem::take(&mut *self.unwritten.lock());
        let snapshot = cache.snapshot(Freshness::Consistent).await?;
        for entry in snapshot.range(None, None).filter(|entry| names.contains(entry.name())) {
            self.conditions(&entry.tree()).await;
        }
        Ok(())
    }

    /// Has the registry serve a definition as it is now.
    fn serve(&self, entry: &Arc<Entry>, tree: &Value) {
        let name = entry.name();
        let is = |condition: &str| status::is_true(tree, condition);
        let (established, accepted, terminating) = (is("Established"), is("NamesAccepted"), is("Terminating"));
        let registry = &self.server.registry;
        let mut rows = (**registry.custom()).clone();
        let old = rows.row(name).cloned();
        let definition = if established || accepted { Definition::read(entry, tree, &self.reviewer) } else { None };
        let Some(definition) = definition else {
            if old.is_some() {
                self.withdraw(name);
            }
            return;
        };
        let same = old
            .as_ref()
            .filter(|old| old.definition.fingerprint == definition.fingerprint && old.definition.uid == definition.uid);
        let definition = match same {
            Some(old) => {
                old.definition.refresh(entry);
                if old.established == established && old.terminating == terminating {
                    return;
                }
                old.definition.clone()
            }
            None => {
                if let Some(old) = &old {
                    // Watches end, and what was derived from the old schema goes.
                    self.server.cache.remove(&old.definition.group, &old.definition.plural);
                }
                Arc::new(definition)
            }
        };
        let cache = self.server.cache.register(spec(&self.server, &definition));
        let served: Vec<Arc<Served>> = definition
            .versions
            .iter()
            .enumerate()
            .filter(|(_, version)| version.served)
            .map(|(at, version)| {
                let custom = Custom { definition: definition.clone(), at, terminating };
                let resource = status::resource(&definition, at, tree, terminating);
                let rules = rules::custom(version.status);
                Served::custom_row(resource, custom, cache.clone(), rules, rows.ordinal())
            })
            .collect();
        rows.put(Row { definition: definition.clone(), served, established, terminating });
        registry.set_custom(rows);
        if let Some(old) = old.filter(|old| !Arc::ptr_eq(&old.definition, &definition)) {
            old.definition.ended.cancel();
        }
    }

    /// Serves a definition no more.
    fn withdraw(&self, name: &str) {
        let registry = &self.server.registry;
        let mut rows = (**registry.custom()).clone();
        let Some(row) = rows.remove(name) else { return };
        registry.set_custom(rows);
        self.server.cache.remove(&row.definition.group, &row.definition.plural);
        row.definition.ended.cancel();
    }

    fn finalize(&self, name: &str) {
        if !self.finalizing.lock().insert(name.to_string()) {
            return;
        }
        let (server, finalizing, name) = (self.server.clone(), self.finalizing.clone(), name.to_string());
        tokio::spawn(async move {
            let shutdown = server.shutdown.clone();
            tokio::select! {
                () = finalizer::run(&server, &name) => {}
                () = shutdown.cancelled() => {}
            }
            finalizing.lock().remove(&name);
        });
    }
}

/// How instances are stored: under upstream's keys.
fn spec(server: &Server, definition: &Definition) -> ResourceSpec {
    let root = server.config.etcd_prefix.trim_end_matches('/');
    let prefix = format!("{root}/{}/{}/", definition.group, definition.plural);
    let mut spec = ResourceSpec::new(&definition.group, &definition.plural, &prefix, definition.namespaced);
    let mut labels: Vec<&String> = definition.versions.iter().flat_map(|version| &version.selectable_fields).collect();
    labels.sort();
    labels.dedup();
    spec.fields = labels.into_iter().map(|label| SelectableField::at_path(label)).collect();
    spec
}
