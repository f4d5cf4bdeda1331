//! Priority and Fairness: each request belongs to a flow of a FlowSchema, and waits for a seat of the
//! priority level that the schema names.
//!
//! Schemas and levels are followed in the watch cache and compiled; classifying a request reads the
//! compiled form without a lock. Upstream: `util/flowcontrol`.

mod allocation;
mod dropped;
mod dump;
mod level;
mod matching;
mod metrics;
pub mod objects;
mod queue_set;
mod utilization;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use component_base::clock::SharedClock;
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cache::{Entry, Event, Follower, Snapshot};
use crate::registry::Registry;
use crate::request::{RequestInfo, UserInfo};
use level::{Entrance, Levels};
use matching::Schema;
pub use metrics::FlowMetrics;
use metrics::Series;
use queue_set::{Asked, Details};
pub use queue_set::{Refusal, Seat};
pub use utilization::Counted;
use work::Work;
pub use work::{Load, Watches, Watching};

/// A level as classification needs it.
#[derive(Clone)]
struct LevelInfo {
    name: Arc<str>,
    uid: Arc<str>,
    entrance: Entrance,
}

/// Schemas in the order in which they are tried, each with its level.
#[derive(Default)]
struct Compiled(Vec<(Schema, LevelInfo, Arc<Series>)>);

#[derive(Default)]
struct Known {
    schemas: HashMap<Arc<str>, Schema>,
    levels: HashMap<Arc<str>, (Arc<str>, level::Spec)>,
}

struct Inner {
    known: Mutex<Known>,
    compiled: ArcSwap<Compiled>,
    levels: Levels,
    changed: Notify,
    metrics: Arc<FlowMetrics>,
    clock: SharedClock,
    watches: Watches,
    dropped: dropped::Dropped,
}

/// The dispatcher of a server. Clones share it.
#[derive(Clone)]
pub struct FlowControl(Arc<Inner>);

/// A request's seat, and where it belongs.
pub struct Admitted {
    /// Kept while the request is worked on.
    pub seat: Seat,
    /// Likewise.
    pub counted: Counted,
    /// How long it waited for it; not at all at a level without queues.
    pub waited: Duration,
    pub schema_uid: Arc<str>,
    pub level_uid: Arc<str>,
}

/// A request that got no seat, and where it belongs.
pub struct Refused {
    pub why: Refusal,
    pub waited: Duration,
    /// In how many seconds another try makes sense.
    pub retry_after: i64,
    pub schema_uid: Arc<str>,
    pub level_uid: Arc<str>,
}

/// A flow's hash: that of its schema and of what tells flows of the schema apart.
fn hash(schema: &str, distinguisher: &str) -> u64 {
    let digest = Sha256::new().chain_update(schema).chain_update([0]).chain_update(distinguisher).finalize();
    let mut start = [0; 8];
    start.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(start)
}

impl FlowControl {
    /// A dispatcher of `total` seats that knows no schema yet: everything is let through.
    pub fn new(total: usize, metrics: Arc<FlowMetrics>, clock: SharedClock) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Self(Arc::new(Inner {
            known: Mutex::default(),
            compiled: ArcSwap::default(),
            levels: Levels::new(total, clock.clone(), metrics.clone()),
            changed: Notify::new(),
            metrics,
            clock,
            watches: Watches::default(),
            dropped: dropped::Dropped::default(),
        }))
    }

    /// Who watches what: changes cost what their watchers cost.
    pub fn watches(&self) -> &Watches {
        &self.0.watches
    }

    /// Reads schemas and levels and follows them until `shutdown`.
    pub async fn start(&self, registry: &Registry, shutdown: &CancellationToken) {
        for kind in [Kind::Levels, Kind::Schemas] {
            let Some(cache) =
                registry.any_version(objects::GROUP, kind.plural()).and_then(|served| served.cache.clone())
            else {
                continue;
            };
            cache.follow(Arc::new(Source { kind, control: self.clone() }), shutdown.clone()).await;
        }
        let (control, shutdown) = (self.clone(), shutdown.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = control.0.clock.sleep(level::PERIOD) => control.0.levels.adjust(),
                    () = shutdown.cancelled() => return,
                }
            }
        });
    }

    /// Completes when schemas or levels have changed.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Whether a level of this name is there.
    pub fn has_level(&self, name: &str) -> bool {
        self.0.known.lock().levels.contains_key(name)
    }

    fn compile(&self) {
        let (mut list, specs) = {
            let known = self.0.known.lock();
            let list: Vec<(Schema, Arc<str>, Arc<str>)> = known
                .schemas
                .values()
                .filter_map(|schema| {
                    // A schema whose level is not there matches nothing.
                    let name = schema.spec.priority_level_configuration.name.as_str();
                    let (name, (uid, _)) = known.levels.get_key_value(name)?;
                    Some((schema.clone(), name.clone(), uid.clone()))
                })
                .collect();
            let specs: HashMap<Arc<str>, level::Spec> =
                known.levels.iter().map(|(name, (_, spec))| (name.clone(), spec.clone())).collect();
            (list, specs)
        };
        list.sort_by(|(a, ..), (b, ..)| {
            a.spec.matching_precedence.cmp(&b.spec.matching_precedence).then_with(|| a.name.cmp(&b.name))
        });
        let entrances = self.0.levels.configure(&specs);
        let compiled = list.into_iter().filter_map(|(schema, level, uid)| {
            let series = self.0.metrics.of(&schema.name, &level);
            let entrance = entrances.get(&level)?.clone();
            Some((schema, LevelInfo { name: level, uid, entrance }, series))
        });
        self.0.compiled.store(Arc::new(Compiled(compiled.collect())));
        self.0.changed.notify_one();
    }

    /// Finds a request's place and waits for its seat.
    ///
    /// # Errors
    /// When there is no seat within `patience`.
    pub async fn admit(
        &self,
        user: &Arc<UserInfo>,
        info: &Arc<RequestInfo>,
        load: Load,
        patience: Duration,
    ) -> Result<Option<Admitted>, Refused> {
        let found = {
            let compiled = self.0.compiled.load();
            compiled.0.iter().find(|(schema, ..)| schema.matches(user, info)).map(|(schema, level, series)| {
                let distinguisher = schema.distinguish(user, info).to_string();
                // Where nobody waits flows need not be told apart.
                let flow = if level.entrance.waits { hash(&schema.name, &distinguisher) } else { 0 };
                (schema.uid.clone(), level.clone(), series.clone(), flow, distinguisher)
            })
        };
        let Some((schema_uid, LevelInfo { name, uid: level_uid, entrance }, series, flow, distinguisher)) = found
        else {
            return Ok(None);
        };
        if let Load::Change { watches } = load {
            series.watched(watches);
        }
        let work = Work::of(load, entrance.widest);
        series.estimated(work.seats());
        let (clock, is_watch) = (&self.0.clock, info.verb == "watch");
        let details = Details { user: user.clone(), info: info.clone() };
        let asked = Asked { series: series.clone(), flow, distinguisher, work, is_watch, details };
        let begun = clock.monotonic();
        let mutating = !matches!(info.verb.as_str(), "get" | "list" | "watch");
        let waits = entrance.waits.then(|| self.0.metrics.kinds.waits(mutating));
        let started = entrance.queues.start(asked, patience).await;
        drop(waits);
        let waited = if entrance.exempt { Duration::ZERO } else { clock.monotonic() - begun };
        if !entrance.exempt {
            series.waited(started.is_ok(), waited);
        }
        match started {
            Ok(seat) => {
                let counted = self.0.metrics.kinds.executes(mutating);
                Ok(Some(Admitted { seat, counted, waited, schema_uid, level_uid }))
            }
            Err(why) => {
                let retry_after = self.0.dropped.record(&name, clock.now().as_second());
                Err(Refused { why, waited, retry_after, schema_uid, level_uid })
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Schemas,
    Levels,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Kind::Schemas => "flowschemas",
            Kind::Levels => "prioritylevelconfigurations",
        }
    }
}

struct Source {
    kind: Kind,
    control: FlowControl,
}

#[derive(Deserialize)]
struct Object<T> {
    spec: T,
}

fn spec<T: for<'de> Deserialize<'de> + Default>(entry: &Entry) -> T {
    match serde_json::from_slice::<Object<T>>(entry.json()) {
        Ok(object) => object.spec,
        Err(error) => {
            tracing::error!(%error, key = %entry.key(), "a flow control object cannot be read");
            T::default()
        }
    }
}

impl Source {
    fn put(&self, known: &mut Known, entry: &Entry) {
        let (name, uid): (Arc<str>, Arc<str>) = (entry.name().into(), entry.uid().into());
        match self.kind {
            Kind::Schemas => {
                known.schemas.insert(name.clone(), Schema { name, uid, spec: spec(entry) });
            }
            Kind::Levels => {
                known.levels.insert(name, (uid, spec(entry)));
            }
        }
    }
}

impl Follower for Source {
    fn replace(&self, objects: &Snapshot) {
        {
            let mut known = self.control.0.known.lock();
            match self.kind {
                Kind::Schemas => known.schemas.clear(),
                Kind::Levels => known.levels.clear(),
            }
            for entry in objects.range(None, None) {
                self.put(&mut known, entry);
            }
        }
        self.control.compile();
    }

    fn apply(&self, event: &Event) {
        {
            let mut known = self.control.0.known.lock();
            match (&event.object, self.kind) {
                (Some(entry), _) => self.put(&mut known, entry),
                (None, Kind::Schemas) => {
                    known.schemas.remove(event.any().name());
                }
                (None, Kind::Levels) => {
                    known.levels.remove(event.any().name());
                }
            }
        }
        self.control.compile();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As upstream's own hash, so that either server deals a flow the same hand.
    #[test]
    fn flows_are_hashed_by_schema_and_distinguisher() {
        let digest = Sha256::digest(b"service-accounts\0system:serviceaccount:a:x");
        let start: [u8; 8] = digest[..8].try_into().unwrap();
        assert_eq!(hash("service-accounts", "system:serviceaccount:a:x"), u64::from_le_bytes(start));
        assert_ne!(hash("a", "bc"), hash("ab", "c"));
    }
}
