//! Priority and Fairness: each request belongs to a flow of a FlowSchema, and waits for a seat of the
//! priority level that the schema names.
//!
//! Schemas and levels are followed in the watch cache and compiled; classifying a request reads the
//! compiled form without a lock. Upstream: `util/flowcontrol`.

mod dump;
mod level;
mod matching;
mod metrics;
pub mod objects;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use component_base::clock::SharedClock;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cache::{Entry, Event, Follower, Snapshot};
use crate::registry::Registry;
use crate::request::{RequestInfo, UserInfo};
use level::Levels;
pub use level::{Refusal, Seat};
use matching::Schema;
use metrics::Series;
pub use metrics::{FlowMetrics, Running};

/// Seats that the widest request takes.
const MAX_WIDTH: u32 = 10;
/// Objects that one seat of a list stands for.
const OBJECTS_PER_SEAT: usize = 100;

/// A level as classification needs it.
#[derive(Clone, Debug)]
struct LevelInfo {
    name: Arc<str>,
    uid: Arc<str>,
    exempt: bool,
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
    total: u32,
    known: Mutex<Known>,
    compiled: ArcSwap<Compiled>,
    levels: Levels,
    changed: Notify,
    metrics: Arc<FlowMetrics>,
    clock: SharedClock,
}

/// The dispatcher of a server. Clones share it.
#[derive(Clone)]
pub struct FlowControl(Arc<Inner>);

/// What became of a request: its seat, if it needs one, and where it belongs.
pub struct Admitted {
    /// Kept while the request is worked on.
    pub seat: Option<Seat>,
    /// Likewise.
    pub running: Running,
    pub schema_uid: Arc<str>,
    pub level_uid: Arc<str>,
}

/// A request that got no seat, and where it belongs.
pub struct Refused {
    pub why: Refusal,
    pub schema_uid: Arc<str>,
    pub level_uid: Arc<str>,
}

/// How many seats a request takes: one, or for a list one for each hundred objects.
pub fn width(verb: &str, objects: usize, limit: usize) -> u32 {
    if verb != "list" {
        return 1;
    }
    let objects = if limit == 0 { objects } else { objects.min(limit) };
    u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(MAX_WIDTH).clamp(1, MAX_WIDTH)
}

impl FlowControl {
    /// A dispatcher of `total` seats that knows no schema yet: everything is let through.
    pub fn new(total: usize, metrics: Arc<FlowMetrics>, clock: SharedClock) -> Self {
        Self(Arc::new(Inner {
            total: u32::try_from(total).unwrap_or(u32::MAX),
            known: Mutex::default(),
            compiled: ArcSwap::default(),
            levels: Levels::default(),
            changed: Notify::new(),
            metrics,
            clock,
        }))
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
        let (compiled, specs) = {
            let known = self.0.known.lock();
            let mut list: Vec<(Schema, LevelInfo, Arc<Series>)> = known
                .schemas
                .values()
                .filter_map(|schema| {
                    // A schema whose level is not there matches nothing.
                    let name = schema.spec.priority_level_configuration.name.as_str();
                    let (name, (uid, spec)) = known.levels.get_key_value(name)?;
                    let exempt = spec.kind == "Exempt";
                    let series = self.0.metrics.of(&schema.name, name);
                    Some((schema.clone(), LevelInfo { name: name.clone(), uid: uid.clone(), exempt }, series))
                })
                .collect();
            list.sort_by(|(a, ..), (b, ..)| {
                a.spec.matching_precedence.cmp(&b.spec.matching_precedence).then_with(|| a.name.cmp(&b.name))
            });
            let specs: HashMap<Arc<str>, level::Spec> =
                known.levels.iter().map(|(name, (_, spec))| (name.clone(), spec.clone())).collect();
            (Compiled(list), specs)
        };
        self.0.levels.configure(self.0.total, &specs);
        for (name, limits) in self.0.levels.limits(&specs) {
            self.0.metrics.limits(&name, limits);
        }
        self.0.compiled.store(Arc::new(compiled));
        self.0.changed.notify_one();
    }

    /// Finds a request's place and waits for its seat.
    ///
    /// # Errors
    /// When there is no seat within `patience`.
    pub async fn admit(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
        width: u32,
        patience: Duration,
    ) -> Result<Option<Admitted>, Refused> {
        let found = {
            let compiled = self.0.compiled.load();
            compiled.0.iter().find(|(schema, ..)| schema.matches(user, info)).map(|(schema, level, series)| {
                let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
                hasher.write(schema.name.as_bytes());
                hasher.write_u8(0);
                hasher.write(schema.distinguish(user, info).as_bytes());
                (schema.uid.clone(), level.clone(), series.clone(), hasher.finish())
            })
        };
        let Some((schema_uid, level, series, flow)) = found else { return Ok(None) };
        let level_uid = level.uid.clone();
        let clock = &self.0.clock;
        let is_watch = info.verb == "watch";
        series.estimated(width);
        if level.exempt {
            let running = series.run(width, is_watch, clock);
            return Ok(Some(Admitted { seat: None, running, schema_uid, level_uid }));
        }
        let (waiting, begun) = (series.wait(width), clock.monotonic());
        let acquired = self.0.levels.acquire(&level.name, flow, width, patience).await;
        waiting.answer(acquired.as_ref().err().copied(), clock.monotonic() - begun);
        match acquired {
            Ok(seat) => {
                let running = series.run(width, is_watch, clock);
                Ok(Some(Admitted { seat: Some(seat), running, schema_uid, level_uid }))
            }
            Err(why) => Err(Refused { why, schema_uid, level_uid }),
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

    #[test]
    fn lists_are_as_wide_as_what_they_read() {
        for (verb, objects, limit, want) in [
            ("get", 100_000, 0, 1),
            ("list", 0, 0, 1),
            ("list", 100, 0, 1),
            ("list", 101, 0, 2),
            ("list", 100_000, 0, 10),
            ("list", 100_000, 500, 5),
        ] {
            assert_eq!(width(verb, objects, limit), want, "{verb} {objects} {limit}");
        }
    }
}
