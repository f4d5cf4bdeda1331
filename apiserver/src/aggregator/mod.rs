//! The aggregation layer (kube-aggregator): APIServices, and the extension servers behind some of them.
//!
//! One loop follows APIServices, CustomResourceDefinitions, Services and EndpointSlices in the watch
//! cache. From it come the [`Routes`] that requests look at, the APIServices of what this server serves
//! itself ([`register`]), and one task for each extension server, which sees to its condition
//! ([`available`]) and keeps its discovery and OpenAPI documents.
//!
//! A request for a group version of an extension server is handed over by [`forward`] after
//! authentication and authorization, with the user's identity in headers.

pub mod available;
mod converted;
pub mod discovery;
pub mod forward;
pub mod metrics;
pub mod openapi;
pub mod priorities;
pub mod register;
pub mod resolve;
pub mod routes;
pub mod transport;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use component_base::health::Checks;
use component_base::metrics::Registry;
use component_base::tls::{self, ClientCert};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::cache::{self, Event, Freshness, Item, ResourceCache, Scope, Start, Watch, WatchRequest};
use crate::config::FrontProxy;
use crate::server::Server;
use metrics::Metrics;
use register::Registrar;
use routes::{ApiService, Routes, condition};

/// Extension servers are looked at again this often, whether or not anything changed here: networks
/// fail without telling.
const RESYNC: Duration = Duration::from_secs(30);
/// The first of the doubling pauses between looks at one that fails.
const BACKOFF: Duration = Duration::from_millis(5);
/// How long a starting server waits for its own APIServices.
const REGISTRATION: Duration = Duration::from_secs(5);
/// How long a failed write of an APIService waits for its next attempt.
const RETRY: Duration = Duration::from_secs(1);

/// The documents of one extension server's group version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    pub discovery: discovery::Known,
    pub openapi: openapi::Known,
}

/// The state of the aggregation layer; shared by requests and its loop.
pub struct Aggregator {
    routes: ArcSwap<Routes>,
    /// The front-proxy certificate.
    identity: Option<ClientCert>,
    documents: RwLock<BTreeMap<String, Arc<Documents>>>,
    /// Counts changes of routes and documents: what is made of them is made again then.
    generation: watch::Sender<u64>,
    /// Built-in APIServices that have not been seen available.
    pending: Mutex<BTreeSet<String>>,
    /// The loop has seen everything once.
    synced: AtomicBool,
    pub metrics: Metrics,
}

impl Aggregator {
    /// An aggregator that knows nothing yet.
    ///
    /// # Errors
    /// When the front-proxy certificate cannot be read.
    pub fn new(config: &FrontProxy, registry: &Registry) -> Result<Self, tls::Error> {
        let identity = match (&config.client_certificate, &config.client_key) {
            (Some(cert), Some(key)) => Some(ClientCert::from_files(cert, key)?),
            _ => None,
        };
        Ok(Self {
            routes: ArcSwap::default(),
            identity,
            documents: RwLock::default(),
            generation: watch::Sender::new(0),
            pending: Mutex::default(),
            synced: AtomicBool::new(false),
            metrics: Metrics::new(registry),
        })
    }

    /// Reads the front-proxy certificate again.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn reload(&self) -> Result<(), tls::Error> {
        self.identity.as_ref().map_or(Ok(()), ClientCert::reload)
    }

    /// The APIServices now.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// The extension server that a path belongs to.
    pub fn remote(&self, path: &str) -> Option<Arc<ApiService>> {
        self.routes.load().remote(path).cloned()
    }

    /// Changes whenever discovery or OpenAPI may have changed because of extension servers.
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// What is known of an extension server's group version.
    pub fn documents(&self, name: &str) -> Arc<Documents> {
        self.documents.read().get(name).cloned().unwrap_or_default()
    }

    fn changed(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    fn set_documents(&self, name: &str, documents: Documents) {
        let mut all = self.documents.write();
        if all.get(name).is_none_or(|known| **known != documents) {
            all.insert(name.to_string(), Arc::new(documents));
            drop(all);
            self.changed();
        }
    }

    /// Puts an APIService into the routes, or takes it out.
    fn route(&self, name: &str, object: Option<&Value>) -> Option<Arc<ApiService>> {
        // Only the loop writes, so that reading and storing need no lock.
        let mut routes = Routes::clone(&self.routes.load());
        let before = routes.services.remove(name);
        let now = object.map(|object| Arc::new(ApiService::read(object, self.identity.as_ref(), before.as_deref())));
        if let Some(now) = &now {
            routes.services.insert(name.to_string(), now.clone());
        }
        routes.remotes = routes.services.values().filter(|service| service.service.is_some()).count();
        self.routes.store(Arc::new(routes));
        match &now {
            Some(now) => {
                self.metrics.state(name, now.available);
                if now.available {
                    self.pending.lock().remove(name);
                }
            }
            None => self.metrics.forget(name),
        }
        self.changed();
        now
    }

    fn forget(&self, name: &str) {
        if self.documents.write().remove(name).is_some() {
            self.changed();
        }
    }

    /// Completes when everything that this server serves is registered, or after a while: a store that
    /// does not answer must not keep the server from saying so.
    pub async fn registered(&self) {
        let mut generation = self.generation.subscribe();
        let complete = generation.wait_for(|_| self.completion().is_ok());
        if tokio::time::timeout(REGISTRATION, complete).await.is_err() {
            tracing::warn!("the own APIServices are not all registered yet");
        }
    }

    /// Which built-in APIServices are still missing; upstream's check `autoregister-completion`.
    fn completion(&self) -> Result<(), String> {
        let pending = self.pending.lock();
        if pending.is_empty() && self.synced.load(Ordering::Acquire) {
            return Ok(());
        }
        let names: Vec<&str> = pending.iter().map(String::as_str).collect();
        Err(format!("missing APIService: [{}]", names.join(" ")))
    }
}

/// There with `--proxy-client-cert-file` only.
const RELOAD: &str = "poststarthook/aggregator-reload-proxy-client-cert";

/// Health checks of upstream that have a counterpart here, in upstream's order; the first ones wait for
/// the loop's first look at everything.
const CHECKS: [&str; 8] = [
    RELOAD,
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-wait-for-first-sync",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
];

/// Adds the health checks of the aggregation layer.
pub fn checks(server: &Arc<Server>) {
    let reloads = server.config.front_proxy.client_certificate.is_some();
    for checks in [&server.livez, &server.readyz, &server.healthz] {
        for name in CHECKS.into_iter().filter(|name| reloads || *name != RELOAD) {
            add(checks, server, name, |aggregator| {
                if aggregator.synced.load(Ordering::Acquire) { Ok(()) } else { Err("not finished".to_string()) }
            });
        }
        add(checks, server, "autoregister-completion", Aggregator::completion);
        for name in ["poststarthook/apiservice-openapi-controller", "poststarthook/apiservice-openapiv3-controller"] {
            add(checks, server, name, |aggregator| {
                if aggregator.synced.load(Ordering::Acquire) { Ok(()) } else { Err("not finished".to_string()) }
            });
        }
    }
}

fn add(checks: &Checks, server: &Arc<Server>, name: &str, check: fn(&Aggregator) -> Result<(), String>) {
    // Weak: the server owns the checks.
    let server = Arc::downgrade(server);
    checks.add(name, move || match server.upgrade() {
        Some(server) => check(&server.aggregator),
        None => Err("not finished".to_string()),
    });
}

/// Runs the loop until the server stops.
pub async fn run(server: Arc<Server>) {
    let shutdown = server.shutdown.clone();
    let mut following = Following::new(&server);
    let work = async {
        loop {
            if let Err(error) = following.follow().await {
                // The cache started over; so does this.
                tracing::warn!(%error, "following APIServices anew");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
    for (_, worker) in following.workers {
        worker.task.abort();
    }
}

/// The task of one extension server.
struct Worker {
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

/// What the loop keeps between events.
struct Following {
    server: Arc<Server>,
    registrar: Registrar,
    workers: HashMap<String, Worker>,
    /// Names whose last write failed.
    failed: BTreeSet<String>,
}

impl Following {
    fn new(server: &Arc<Server>) -> Self {
        let built_in = server
            .registry
            .all()
            .iter()
            .filter(|served| !served.resource.custom && served.resource.group != "apiregistration.k8s.io")
            .map(|served| (served.resource.group.to_string(), served.resource.version.to_string()))
            .collect::<BTreeSet<_>>();
        let registrar = Registrar::new(built_in);
        *server.aggregator.pending.lock() = registrar.built_in();
        Self { server: server.clone(), registrar, workers: HashMap::new(), failed: BTreeSet::new() }
    }

    fn cache(&self, group: &str, plural: &str) -> Option<Arc<ResourceCache>> {
        self.server.registry.any_version(group, plural).and_then(|served| served.cache.clone())
    }

    /// Follows until a watch breaks.
    async fn follow(&mut self) -> Result<(), cache::Error> {
        let Some(apiservices) = self.cache("apiregistration.k8s.io", "apiservices") else {
            // Switched off: nothing to register, nothing to wait for.
            self.server.aggregator.pending.lock().clear();
            self.server.aggregator.synced.store(true, Ordering::Release);
            self.server.aggregator.changed();
            return std::future::pending().await;
        };
        let mut definitions = follow(self.cache("apiextensions.k8s.io", "customresourcedefinitions")).await?;
        let mut services = follow(self.cache("", "services")).await?;
        let mut slices = follow(self.cache("discovery.k8s.io", "endpointslices")).await?;
        let mut own = apiservices.watch(request()).await?;

        for entry in initial(&mut definitions) {
            self.registrar.definition(entry.name(), Some(&entry.tree()));
        }
        let present = own.initial.take();
        let mut names = BTreeSet::new();
        for entry in present.iter().flat_map(|present| present.range(None, None)) {
            names.insert(entry.name().to_string());
            self.apiservice(entry.name(), Some(&entry.tree()), true);
        }
        for gone in self.server.aggregator.routes().services.keys().filter(|name| !names.contains(*name)) {
            self.apiservice(gone, None, true);
        }
        self.registrar.started(names.iter().cloned());
        let all: BTreeSet<String> = self.registrar.names().union(&names).cloned().collect();
        let current = |name: &str| apiservices.cached(&apiservices.spec().key("", name)).map(|entry| entry.tree());
        let failed = self.registrar.sync_all(&self.server, all, current).await;
        for (name, status) in failed {
            tracing::warn!(name, error = %status.message, "registering an APIService");
            self.failed.insert(name);
        }
        self.server.aggregator.synced.store(true, Ordering::Release);
        self.server.aggregator.changed();
        loop {
            let retry = !self.failed.is_empty();
            tokio::select! {
                item = own.next() => {
                    for (name, event) in changes(item?) {
                        let object = event.object.as_ref().map(|entry| entry.tree());
                        let spec = |entry: &Arc<crate::cache::Entry>| entry.tree().get("spec").cloned();
                        let changed = event.previous.as_ref().map(spec) != event.object.as_ref().map(spec);
                        self.apiservice(&name, object.as_ref(), changed);
                        self.register(&apiservices, &name).await;
                    }
                }
                item = next(&mut definitions) => {
                    for (name, event) in changes(item?) {
                        let object = event.object.as_ref().map(|entry| entry.tree());
                        for name in self.registrar.definition(&name, object.as_ref()) {
                            self.register(&apiservices, &name).await;
                        }
                    }
                }
                item = next(&mut services) => self.wake(&item?, |entry| entry.name().to_string()),
                item = next(&mut slices) => self.wake(&item?, |entry| {
                    entry.label("kubernetes.io/service-name").unwrap_or_default().to_string()
                }),
                () = tokio::time::sleep(RETRY), if retry => {
                    for name in std::mem::take(&mut self.failed) {
                        self.register(&apiservices, &name).await;
                    }
                }
            }
        }
    }

    /// Puts an automatically kept APIService right.
    async fn register(&mut self, apiservices: &Arc<ResourceCache>, name: &str) {
        let current = apiservices.cached(&apiservices.spec().key("", name)).map(|entry| entry.tree());
        if let Err(status) = self.registrar.sync(&self.server, name, current.as_ref()).await {
            tracing::warn!(name, error = %status.message, "registering an APIService");
            self.failed.insert(name.to_string());
        }
    }

    /// Takes note of an APIService; `changed` when more than its status differs.
    fn apiservice(&mut self, name: &str, object: Option<&Value>, changed: bool) {
        let now = self.server.aggregator.route(name, object);
        let remote = now.as_ref().is_some_and(|now| now.service.is_some());
        if remote {
            let server = self.server.clone();
            let worker = self.workers.entry(name.to_string()).or_insert_with(|| {
                let notify = Arc::new(Notify::new());
                let task = tokio::spawn(work(server, name.to_string(), notify.clone()));
                Worker { changed: notify, task }
            });
            if changed {
                worker.changed.notify_one();
            }
            return;
        }
        if let Some(worker) = self.workers.remove(name) {
            worker.task.abort();
            self.server.aggregator.forget(name);
        }
        if let Some(object) = object {
            let known = condition(object);
            let local = known.is_some_and(|known| known["reason"] == "Local" && known["status"] == "True");
            if !local {
                let (server, name, object) = (self.server.clone(), name.to_string(), object.clone());
                tokio::spawn(async move {
                    let verdict = available::Verdict {
                        status: "True",
                        reason: "Local",
                        message: "Local APIServices are always available".to_string(),
                    };
                    if let Err(status) = available::write(&server, &name, &object, &verdict).await {
                        tracing::info!(name, error = %status.message, "writing the condition of an APIService");
                    }
                });
            }
        }
    }

    /// Has the extension servers behind changed Services looked at again.
    fn wake(&self, item: &Item, service: impl Fn(&crate::cache::Entry) -> String) {
        let Item::Events(events) = item else { return };
        let routes = self.server.aggregator.routes();
        if routes.remotes == 0 {
            return;
        }
        for (_, event) in events {
            let Some(entry) = event.object.as_ref().or(event.previous.as_ref()) else { continue };
            let (namespace, name) = (entry.namespace(), service(entry));
            for remote in routes.services.values() {
                let behind = remote
                    .service
                    .as_ref()
                    .is_some_and(|service| service.namespace == namespace && service.name == name);
                if behind && let Some(worker) = self.workers.get(&remote.name) {
                    worker.changed.notify_one();
                }
            }
        }
    }
}

fn request() -> WatchRequest {
    WatchRequest {
        scope: Scope::All,
        matcher: None,
        start: Start::State(Freshness::Any),
        bookmarks: None,
        ends_in: None,
    }
}

async fn follow(cache: Option<Arc<ResourceCache>>) -> Result<Option<Watch>, cache::Error> {
    match cache {
        Some(cache) => Ok(Some(cache.watch(request()).await?)),
        None => Ok(None),
    }
}

/// The objects that were there when the watch began.
fn initial(watch: &mut Option<Watch>) -> Vec<Arc<crate::cache::Entry>> {
    let snapshot = watch.as_mut().and_then(|watch| watch.initial.take());
    snapshot.map(|snapshot| snapshot.range(None, None).cloned().collect()).unwrap_or_default()
}

/// The next item; never, of a resource that is switched off.
async fn next(watch: &mut Option<Watch>) -> Result<Item, cache::Error> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

fn changes(item: Item) -> Vec<(String, Arc<Event>)> {
    let Item::Events(events) = item else { return Vec::new() };
    events
        .into_iter()
        .filter_map(|(_, event)| {
            let entry = event.object.as_ref().or(event.previous.as_ref())?;
            Some((entry.name().to_string(), event.clone()))
        })
        .collect()
}

/// Looks after one extension server until it is stopped.
async fn work(server: Arc<Server>, name: String, changed: Arc<Notify>) {
    let mut pause = BACKOFF;
    loop {
        let failed = match look(&server, &name).await {
            Some(verdict) => verdict.reason == "FailedDiscoveryCheck",
            None => return,
        };
        let wait = if failed {
            let wait = pause;
            pause = (pause * 2).min(RESYNC);
            wait
        } else {
            pause = BACKOFF;
            RESYNC
        };
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One look: the condition, then the documents. `None` when the APIService is gone.
async fn look(server: &Arc<Server>, name: &str) -> Option<available::Verdict> {
    let aggregator = &server.aggregator;
    let remote = aggregator.routes().services.get(name).cloned()?;
    let verdict = available::check(server, &remote).await;
    let apiservices = server.registry.any_version("apiregistration.k8s.io", "apiservices")?;
    let object = apiservices.cache.as_ref()?.cached(&apiservices.key("", name))?.tree();
    let was = condition(&object).is_some_and(|condition| condition["status"] == "True");
    match available::write(server, name, &object, &verdict).await {
        Ok(true) if was && !verdict.available() => aggregator.metrics.lost(name, verdict.reason),
        Ok(_) => {}
        Err(status) => tracing::info!(name, error = %status.message, "writing the condition of an APIService"),
    }
    let before = aggregator.documents(name);
    let mut documents = Documents::clone(&before);
    let service = remote.service.as_ref()?;
    match resolve::resolve(server, service).await {
        Ok(authority) if verdict.available() => {
            documents.discovery = discovery::refresh(&remote, &authority, &before.discovery).await;
            documents.openapi = openapi::refresh(&remote, &authority, &before.openapi).await;
        }
        _ => documents.discovery.stale = true,
    }
    aggregator.set_documents(name, documents);
    Some(verdict)
}
