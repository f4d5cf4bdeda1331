//! Deletes objects whose owners are gone, and carries out foreground and orphaning deletion.
//!
//! Reads the metadata of every object of every resource that can be listed, watched and deleted;
//! deletes objects, and patches `ownerReferences` and `finalizers`. Upstream:
//! `pkg/controller/garbagecollector`. `graph` knows who owns whom; `collect` decides and acts.
//!
//! The graph may lag, so it never decides a deletion alone: an owner that the graph does not know is
//! asked for, and the object itself is read again, before anything is deleted, and the deletion
//! names the uid that was read.

mod collect;
mod graph;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event, Informer, InformerParams};
use client::workqueue::WorkQueue;
use client::{Client, Resource};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use self::collect::Collector;
use self::graph::{Graph, Object, Work};
use crate::context::Context;
use crate::worker;

pub const NAME: &str = "garbage-collector-controller";

/// How often the server is asked for new resources, as upstream does.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);

/// Informers that cannot be read (a broken conversion, say) must not keep everything else waiting:
/// since nothing is deleted on the graph's word alone, starting without them is safe.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);

/// Objects of these have no owners worth following and come and go all the time.
const IGNORED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];

/// What is asked of a kind: which resource it is, by `apiVersion` and kind.
#[derive(Default)]
struct Kinds {
    known: Mutex<HashMap<(String, String), Resource>>,
}

impl Kinds {
    fn set(&self, resources: impl Iterator<Item = Resource>) {
        let kinds = resources.map(|resource| ((resource.api_version(), resource.kind.to_string()), resource)).collect();
        *self.known.lock() = kinds;
    }

    fn get(&self, api_version: &str, kind: &str) -> Option<Resource> {
        self.known.lock().get(&(api_version.to_string(), kind.to_string())).cloned()
    }
}

pub fn start(context: &Arc<Context>) -> BoxFuture<'static, ()> {
    if !context.config.enable_garbage_collector {
        return Box::pin(std::future::ready(()));
    }
    let client = context.client("generic-garbage-collector");
    let graph: Arc<Mutex<Graph>> = Arc::default();
    let kinds: Arc<Kinds> = Arc::default();
    let delete: WorkQueue<String> = WorkQueue::new();
    let orphan: WorkQueue<String> = WorkQueue::new();
    let shutdown = context.shutdown.clone();
    let workers = context.config.concurrent_gc_syncs;
    let monitors = Monitors {
        // Informers share no client-side limit with the collector's own requests.
        client: client.with_rate_limit(0.0, 0),
        graph: graph.clone(),
        kinds: kinds.clone(),
        delete: delete.clone(),
        orphan: orphan.clone(),
        shutdown: shutdown.clone(),
        running: HashMap::new(),
    };
    let collector = Arc::new(Collector::new(client, graph, kinds, delete.clone()));
    Box::pin(async move {
        let (ready, go) = tokio::sync::oneshot::channel();
        let following = tokio::spawn(monitors.follow(ready));
        tokio::select! {
            () = shutdown.cancelled() => return,
            // An error means that following ended, which only shutdown does.
            _ = go => {}
        }
        let orphaner = collector.clone();
        tokio::join!(
            worker::run(NAME, delete, workers, shutdown.clone(), move |uid: String| {
                let collector = collector.clone();
                async move { collector.attempt_to_delete(&uid).await }
            }),
            worker::run(NAME, orphan, workers, shutdown.clone(), move |uid: String| {
                let collector = orphaner.clone();
                async move { collector.attempt_to_orphan(&uid).await }
            }),
        );
        if let Err(error) = following.await {
            tracing::error!(controller = NAME, %error, "following resources panicked");
        }
    })
}

/// The informers that feed the graph, one for each resource the server has.
struct Monitors {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    kinds: Arc<Kinds>,
    delete: WorkQueue<String>,
    orphan: WorkQueue<String>,
    shutdown: CancellationToken,
    running: HashMap<Resource, (Arc<Informer<Object>>, CancellationToken)>,
}

impl Monitors {
    /// Keeps the set of informers equal to what the server serves, until shutdown. Says when the
    /// first ones have filled the graph.
    async fn follow(mut self, ready: tokio::sync::oneshot::Sender<()>) {
        let mut ready = Some(ready);
        loop {
            let mut pause = DISCOVERY_PERIOD;
            match self.client.discover().await {
                Ok(found) => {
                    self.kinds.set(found.resources.iter().map(|found| found.resource.clone()));
                    let wanted = found
                        .preferred()
                        .into_iter()
                        .filter(|found| found.supports(&["delete", "list", "watch"]))
                        .map(|found| found.resource.clone())
                        .filter(|resource| {
                            !IGNORED
                                .iter()
                                .any(|(group, plural)| resource.group == *group && resource.plural == *plural)
                        })
                        .collect();
                    self.keep(wanted, &found.failed);
                    if let Some(ready) = ready.take() {
                        self.wait_synced().await;
                        // Nobody listens any more when shutdown came first.
                        let _ = ready.send(());
                    }
                }
                Err(error) => {
                    tracing::info!(controller = NAME, error = error.chain(), "cannot discover resources");
                    pause = Duration::from_secs(2);
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn wait_synced(&self) {
        let all = async {
            for (informer, _) in self.running.values() {
                informer.wait_synced().await;
            }
        };
        tokio::select! {
            () = all => {}
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(SYNC_PATIENCE) => {
                let late: Vec<String> = self
                    .running
                    .iter()
                    .filter(|(_, (informer, _))| !informer.has_synced())
                    .map(|(resource, _)| resource.to_string())
                    .collect();
                tracing::warn!(controller = NAME, resources = late.join(","), "starting before these have been read");
            }
        }
    }

    fn keep(&mut self, wanted: Vec<Resource>, failed: &[String]) {
        self.running.retain(|resource, (_, stop)| {
            // A group that did not answer discovery is not gone.
            let keep = wanted.contains(resource) || failed.contains(&resource.api_version());
            if !keep {
                stop.cancel();
            }
            keep
        });
        for resource in wanted {
            if self.running.contains_key(&resource) {
                continue;
            }
            let informer =
                Informer::<Object>::new(self.client.clone(), resource.clone(), InformerParams::metadata_only());
            self.connect(&informer, &resource);
            let stop = self.shutdown.child_token();
            tokio::spawn(informer.clone().run(stop.clone()));
            self.running.insert(resource, (informer, stop));
        }
    }

    fn connect(&self, informer: &Informer<Object>, resource: &Resource) {
        let graph = self.graph.clone();
        let (delete, orphan) = (self.delete.clone(), self.orphan.clone());
        let resource = Arc::new(resource.clone());
        informer.on_event(move |event| {
            let work = match event {
                Event::Added(object) => graph.lock().update(&resource, object),
                Event::Modified { old, new } => {
                    let mut graph = graph.lock();
                    let mut work = Work::default();
                    if old.metadata.uid != new.metadata.uid {
                        work = graph.remove(&old.metadata.uid);
                    }
                    let more = graph.update(&resource, new);
                    work.delete.extend(more.delete);
                    work.orphan.extend(more.orphan);
                    work
                }
                Event::Deleted(object) => graph.lock().remove(&object.metadata.uid),
            };
            work.delete.into_iter().for_each(|uid| delete.add(uid));
            work.orphan.into_iter().for_each(|uid| orphan.add(uid));
        });
    }
}
