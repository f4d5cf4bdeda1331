//! Informers: a local copy of a collection that follows the server, shared by all its readers.
//!
//! Reads with WatchList (KEP-3157) first; where the server has none, by a paged list and a watch.
//! Bookmarks move the position without traffic; a 410 starts over; failures back off as upstream's
//! reflector does (0.8 s doubling to 30 s, with jitter). Events are handed to callbacks one after
//! another, after the store changed.

mod reflector;
mod store;
#[cfg(test)]
mod tests;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use store::Store;

use crate::meta::{Meta, ObjectKey};
use crate::resources::Resource;
use crate::transport::Client;

/// What an informer follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct InformerParams {
    /// All namespaces when empty.
    pub namespace: String,
    pub label_selector: String,
    pub field_selector: String,
    /// Only metadata is asked for, as `PartialObjectMetadata`.
    pub metadata_only: bool,
}

impl InformerParams {
    pub fn fields(selector: &str) -> Self {
        Self { field_selector: selector.to_string(), ..Self::default() }
    }

    pub fn labels(selector: &str) -> Self {
        Self { label_selector: selector.to_string(), ..Self::default() }
    }

    pub fn namespace(namespace: &str) -> Self {
        Self { namespace: namespace.to_string(), ..Self::default() }
    }

    pub fn metadata_only() -> Self {
        Self { metadata_only: true, ..Self::default() }
    }
}

/// A change of the local copy.
#[derive(Debug)]
pub enum Event<T> {
    Added(Arc<T>),
    /// Also sent by a resync, then with `old` and `new` the same object.
    Modified {
        old: Arc<T>,
        new: Arc<T>,
    },
    /// The last state known; an object deleted during a disconnection is its last seen state.
    Deleted(Arc<T>),
}

impl<T> Clone for Event<T> {
    fn clone(&self) -> Self {
        match self {
            Event::Added(object) => Event::Added(object.clone()),
            Event::Modified { old, new } => Event::Modified { old: old.clone(), new: new.clone() },
            Event::Deleted(object) => Event::Deleted(object.clone()),
        }
    }
}

impl<T> Event<T> {
    /// The newest state the event carries.
    pub fn object(&self) -> &Arc<T> {
        match self {
            Event::Added(object) | Event::Deleted(object) | Event::Modified { new: object, .. } => object,
        }
    }
}

type Handler<T> = Box<dyn Fn(&Event<T>) + Send + Sync>;

/// Turns true when an informer has handed its first full state to all handlers.
pub type Synced = watch::Receiver<bool>;

/// Follows one collection. Made by a [`SharedInformerFactory`].
pub struct Informer<T> {
    client: Client,
    resource: Resource,
    params: InformerParams,
    store: Store<T>,
    /// Held while events are handed out, so that a late handler misses nothing and sees nothing twice.
    handlers: Mutex<Vec<Handler<T>>>,
    synced: watch::Sender<bool>,
    resync: Mutex<Option<Duration>>,
    started: AtomicBool,
}

impl<T: Meta + DeserializeOwned> Informer<T> {
    /// An informer that stands alone; [`Informer::run`] drives it.
    pub fn new(client: Client, resource: Resource, params: InformerParams) -> Arc<Self> {
        Arc::new(Self {
            client,
            resource,
            params,
            store: Store::default(),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
            resync: Mutex::new(None),
            started: AtomicBool::new(false),
        })
    }

    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The local copy.
    pub fn store(&self) -> Store<T> {
        self.store.clone()
    }

    /// Adds an index to the store.
    pub fn add_index(&self, name: &'static str, function: impl Fn(&T) -> Vec<String> + Send + Sync + 'static) {
        self.store.add_index(name, function);
    }

    /// Calls `handler` for every change from now on, after one `Added` for each object already known.
    /// Runs on the informer's task: it should only put keys on queues. It must not add handlers.
    pub fn on_event(&self, handler: impl Fn(&Event<T>) + Send + Sync + 'static) {
        let mut handlers = self.handlers.lock();
        for object in self.store.list() {
            handler(&Event::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// Repeats every object as `Modified` with this period, for handlers that must be level-driven
    /// even against lost outside effects.
    pub fn set_resync(&self, period: Duration) {
        *self.resync.lock() = Some(period);
    }

    /// Whether the first full state has been handed to all handlers.
    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Tells when the first full state has been handed out, to somebody who waits for several informers.
    pub fn synced(&self) -> Synced {
        self.synced.subscribe()
    }

    /// Waits for the first full state.
    pub async fn wait_synced(&self) {
        // The sender lives as long as self, so this cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Follows the collection until `shutdown`. A second call does nothing.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        if self.started.swap(true, Ordering::SeqCst) {
            return;
        }
        let resync = self.clone().resync_loop();
        let follow = reflector::follow(&self);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follow => {}
            () = resync => {}
        }
    }

    async fn resync_loop(self: Arc<Self>) {
        let Some(period) = *self.resync.lock() else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(period).await;
            let handlers = self.handlers.lock();
            for object in self.store.list() {
                let event = Event::Modified { old: object.clone(), new: object };
                handlers.iter().for_each(|handler| handler(&event));
            }
        }
    }

    fn apply(&self, mut object: T) {
        object.trim();
        let object = Arc::new(object);
        let handlers = self.handlers.lock();
        let event = match self.store.insert(object.clone()) {
            None => Event::Added(object),
            Some(old) => Event::Modified { old, new: object },
        };
        handlers.iter().for_each(|handler| handler(&event));
    }

    fn delete(&self, mut last: T) {
        last.trim();
        let handlers = self.handlers.lock();
        if self.store.remove(&last.key()).is_some() {
            let event = Event::Deleted(Arc::new(last));
            handlers.iter().for_each(|handler| handler(&event));
        }
    }

    /// Makes the store hold exactly `objects`, telling handlers the differences.
    fn replace(&self, objects: Vec<T>) {
        let handlers = self.handlers.lock();
        let mut stale: HashMap<ObjectKey, Arc<T>> =
            self.store.list().into_iter().map(|object| (object.key(), object)).collect();
        let tell = |event: Event<T>| handlers.iter().for_each(|handler| handler(&event));
        for mut object in objects {
            object.trim();
            let object = Arc::new(object);
            let known = stale.remove(&object.key());
            if let Some(known) = &known
                && known.resource_version() == object.resource_version()
                && known.uid() == object.uid()
            {
                continue;
            }
            match self.store.insert(object.clone()) {
                None => tell(Event::Added(object)),
                // Another object of the same name: readers must see the old one go.
                Some(old) if old.uid() != object.uid() => {
                    tell(Event::Deleted(old));
                    tell(Event::Added(object));
                }
                Some(old) => tell(Event::Modified { old, new: object }),
            }
        }
        for (key, object) in stale {
            self.store.remove(&key);
            tell(Event::Deleted(object));
        }
        drop(handlers);
        self.synced.send_replace(true);
    }
}

/// Something a factory can start and wait for, whatever its type.
trait Driven: Send + Sync {
    fn drive(self: Arc<Self>, shutdown: CancellationToken);
    fn subscribe(&self) -> watch::Receiver<bool>;
    fn describe(&self) -> String;
}

impl<T: Meta + DeserializeOwned> Driven for Informer<T> {
    fn drive(self: Arc<Self>, shutdown: CancellationToken) {
        if !self.started.load(Ordering::SeqCst) {
            tokio::spawn(self.run(shutdown));
        }
    }

    fn subscribe(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    fn describe(&self) -> String {
        self.resource.to_string()
    }
}

#[derive(PartialEq, Eq, Hash)]
struct InformerId {
    kind: TypeId,
    resource: Resource,
    params: InformerParams,
}

struct Entry {
    any: Arc<dyn Any + Send + Sync>,
    driven: Arc<dyn Driven>,
}

/// Makes informers, one for each (type, resource, parameters), so that readers share them.
#[derive(Clone)]
pub struct SharedInformerFactory {
    client: Client,
    shutdown: CancellationToken,
    informers: Arc<Mutex<HashMap<InformerId, Entry>>>,
}

impl SharedInformerFactory {
    /// Informers made here stop with `shutdown`.
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        Self { client, shutdown, informers: Arc::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of these; made when new, not yet running.
    pub fn informer<T: Meta + DeserializeOwned>(
        &self,
        resource: &Resource,
        params: InformerParams,
    ) -> Arc<Informer<T>> {
        let id = InformerId { kind: TypeId::of::<T>(), resource: resource.clone(), params };
        let mut informers = self.informers.lock();
        if let Some(entry) = informers.get(&id) {
            return entry.any.clone().downcast().expect("the id holds the type");
        }
        let informer = Informer::<T>::new(self.client.clone(), resource.clone(), id.params.clone());
        informers.insert(id, Entry { any: informer.clone(), driven: informer.clone() });
        informer
    }

    /// The informer of a whole collection.
    pub fn of<T: Meta + DeserializeOwned>(&self, resource: &Resource) -> Arc<Informer<T>> {
        self.informer(resource, InformerParams::default())
    }

    /// Starts every informer made so far that does not run yet. Must be called inside a runtime.
    pub fn start(&self) {
        for entry in self.informers.lock().values() {
            entry.driven.clone().drive(self.shutdown.clone());
        }
    }

    /// Waits until every informer made so far has its first full state; false when shut down before.
    pub async fn wait_synced(&self) -> bool {
        let waits: Vec<_> =
            self.informers.lock().values().map(|entry| (entry.driven.describe(), entry.driven.subscribe())).collect();
        for (resource, mut synced) in waits {
            tokio::select! {
                () = self.shutdown.cancelled() => return false,
                result = synced.wait_for(|synced| *synced) => {
                    if result.is_err() {
                        tracing::debug!(resource, "informer went away before it synced");
                        return false;
                    }
                }
            }
        }
        true
    }
}
