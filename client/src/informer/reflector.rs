//! Keeps an [`Informer`] equal to the server's collection: list, watch, and start over when told.

use std::time::Duration;

use rand::Rng as _;
use serde::de::DeserializeOwned;

use super::Informer;
use crate::error::{Error, Result};
use crate::meta::Meta;
use crate::verbs::ListParams;
use crate::watch::{WatchEvent, WatchParams, WatchStream};

/// Upstream's reflector: 800 ms, doubling, at most 30 s, with up to as much again as jitter; reset
/// after two quiet minutes.
struct Backoff {
    next: Duration,
    last: Option<tokio::time::Instant>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(800);
    const MAX: Duration = Duration::from_secs(30);
    const RESET: Duration = Duration::from_secs(120);

    fn new() -> Self {
        Self { next: Self::FIRST, last: None }
    }

    async fn wait(&mut self) {
        let now = tokio::time::Instant::now();
        if self.last.is_some_and(|last| now - last > Self::RESET) {
            self.next = Self::FIRST;
        }
        self.last = Some(now);
        let jitter = rand::rng().random_range(0.0..1.0);
        let wait = self.next.mul_f64(1.0 + jitter);
        self.next = (self.next * 2).min(Self::MAX);
        tokio::time::sleep(wait).await;
    }
}

/// How an established watch ended.
enum Ended {
    /// The server closed it in order: go on from the last version.
    Closed,
    /// The version is too old: read everything again.
    Expired,
}

/// Follows the collection for ever.
pub(super) async fn follow<T: Meta + DeserializeOwned>(informer: &Informer<T>) {
    let mut backoff = Backoff::new();
    let mut stream_lists = true;
    let mut position: Option<String> = None;
    loop {
        let began = tokio::time::Instant::now();
        let result = round(informer, &mut position, &mut stream_lists).await;
        let resource = &informer.resource;
        match result {
            Ok(Ended::Closed) => {
                // A server that closes watches at once must not be asked in a tight loop.
                if began.elapsed() < Duration::from_secs(1) {
                    backoff.wait().await;
                }
            }
            Ok(Ended::Expired) => {
                tracing::debug!(%resource, "watch expired; reading everything again");
                position = None;
            }
            Err(error) => {
                if error.is_gone() {
                    position = None;
                    continue_after_gone(&mut backoff, began).await;
                    continue;
                }
                // A broken connection keeps its position; an answer that refuses the watch does not.
                if !matches!(error, Error::Transport(_)) {
                    position = None;
                }
                tracing::info!(%resource, error = error.chain(), "cannot list or watch; trying again");
                backoff.wait().await;
            }
        }
    }
}

async fn continue_after_gone(backoff: &mut Backoff, began: tokio::time::Instant) {
    if began.elapsed() < Duration::from_secs(1) {
        backoff.wait().await;
    }
}

async fn round<T: Meta + DeserializeOwned>(
    informer: &Informer<T>,
    position: &mut Option<String>,
    stream_lists: &mut bool,
) -> Result<Ended> {
    let mut stream = match position {
        Some(version) => open(informer, version).await?,
        None if *stream_lists => match stream_list(informer, position).await {
            Ok(stream) => stream,
            Err(error) if refuses_stream_lists(&error) => {
                tracing::debug!(resource = %informer.resource, error = error.chain(), "no WatchList; listing by pages");
                let stream = list_and_open(informer, position).await?;
                // The list worked where the streamed one did not: do not ask for that again.
                *stream_lists = false;
                stream
            }
            Err(error) => return Err(error),
        },
        None => list_and_open(informer, position).await?,
    };
    while let Some(event) = stream.next().await {
        match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                *position = Some(object.resource_version().to_string());
                informer.apply(object);
            }
            Ok(WatchEvent::Deleted(object)) => {
                *position = Some(object.resource_version().to_string());
                informer.delete(object);
            }
            Ok(WatchEvent::Bookmark { resource_version, .. }) => *position = Some(resource_version),
            Err(error) if error.is_gone() => return Ok(Ended::Expired),
            Err(error) => return Err(error),
        }
    }
    Ok(Ended::Closed)
}

/// Whether a plain list is worth trying. A server may lack WatchList, or have it and lack what it
/// needs from its storage (old etcd), which upstream answers with varying codes; only answers that
/// would meet a list as well are left to the back-off.
fn refuses_stream_lists(error: &Error) -> bool {
    error.status().is_some() && !error.is_unauthorized() && !error.is_too_many_requests() && !error.is_gone()
}

/// WatchList: the state comes as events, ended by a marked bookmark.
async fn stream_list<T: Meta + DeserializeOwned>(
    informer: &Informer<T>,
    position: &mut Option<String>,
) -> Result<WatchStream<T>> {
    let params = WatchParams { send_initial_events: true, ..watch_params(informer) };
    let mut stream = informer.client.watch::<T>(&informer.resource, namespace(informer), &params).await?;
    let mut objects: Vec<T> = Vec::new();
    // Where an object stands in `objects`; needed only when it changes while the state is streamed.
    let mut places: std::collections::HashMap<crate::meta::ObjectKey, usize> = Default::default();
    let mut gone: Vec<usize> = Vec::new();
    while let Some(event) = stream.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => match places.get(&object.key()) {
                Some(&place) => objects[place] = object,
                None => {
                    places.insert(object.key(), objects.len());
                    objects.push(object);
                }
            },
            WatchEvent::Deleted(object) => gone.extend(places.remove(&object.key())),
            WatchEvent::Bookmark { resource_version, initial_end } => {
                if initial_end {
                    gone.sort_unstable();
                    for place in gone.into_iter().rev() {
                        objects.swap_remove(place);
                    }
                    informer.replace(objects);
                    *position = Some(resource_version);
                    return Ok(stream);
                }
            }
        }
    }
    Err(Error::Transport("the watch ended before its initial events did".into()))
}

async fn list_and_open<T: Meta + DeserializeOwned>(
    informer: &Informer<T>,
    position: &mut Option<String>,
) -> Result<WatchStream<T>> {
    let params = ListParams {
        label_selector: informer.params.label_selector.clone(),
        field_selector: informer.params.field_selector.clone(),
        metadata_only: informer.params.metadata_only,
        ..ListParams::default()
    };
    let listed = informer.client.list_all::<T>(&informer.resource, namespace(informer), &params).await;
    let list = match listed {
        // A page's token may expire while a large collection is read: take it whole.
        Err(error) if error.is_gone() => {
            informer.client.list::<T>(&informer.resource, namespace(informer), &params).await?
        }
        other => other?,
    };
    informer.replace(list.items);
    let version = list.metadata.resource_version;
    *position = Some(version.clone());
    open(informer, &version).await
}

async fn open<T: Meta + DeserializeOwned>(informer: &Informer<T>, version: &str) -> Result<WatchStream<T>> {
    let params = WatchParams { resource_version: version.to_string(), ..watch_params(informer) };
    informer.client.watch::<T>(&informer.resource, namespace(informer), &params).await
}

fn watch_params<T>(informer: &Informer<T>) -> WatchParams {
    WatchParams {
        label_selector: informer.params.label_selector.clone(),
        field_selector: informer.params.field_selector.clone(),
        metadata_only: informer.params.metadata_only,
        // Five to ten minutes, so that watches of many readers do not end together.
        timeout: Some(Duration::from_secs(rand::rng().random_range(300..600))),
        ..WatchParams::default()
    }
}

fn namespace<T>(informer: &Informer<T>) -> Option<&str> {
    Some(informer.params.namespace.as_str()).filter(|namespace| !namespace.is_empty())
}
