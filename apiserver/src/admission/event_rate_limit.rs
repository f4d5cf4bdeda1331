//! EventRateLimit: a component that writes too many events is told to wait.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use apimachinery::object::ObjectExt as _;
use apimachinery::status::Status;
use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::server::Server;

pub const NAME: &str = "EventRateLimit";

/// Buckets that a limit keeps when its configuration does not say; upstream's figure.
const CACHED: usize = 4096;

/// What events have a bucket in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Kind {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

/// One limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    #[serde(rename = "type")]
    pub kind: Kind,
    pub qps: f64,
    pub burst: f64,
    pub cache_size: Option<NonZeroUsize>,
}

/// The limits, each with its buckets. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Settings(Vec<(Limit, Arc<Buckets>)>);

/// By key: tokens, and when they were counted.
type Buckets = Mutex<AHashMap<String, (f64, Duration)>>;

impl Settings {
    pub fn new(limits: Vec<Limit>) -> Self {
        Self(limits.into_iter().map(|limit| (limit, Arc::default())).collect())
    }

    /// Takes a token from every limit's bucket, and names those that had none.
    fn take(&self, now: Duration, key: impl Fn(Kind) -> String) -> Vec<String> {
        let mut empty = Vec::new();
        for (limit, buckets) in &self.0 {
            let mut buckets = buckets.lock();
            let refilled = |tokens: f64, since: Duration| {
                (tokens + now.saturating_sub(since).as_secs_f64() * limit.qps).min(limit.burst)
            };
            let most = limit.cache_size.map_or(CACHED, NonZeroUsize::get);
            let key = key(limit.kind);
            if buckets.len() >= most && !buckets.contains_key(&key) {
                // A full bucket is as good as none; when there is none, the one unused for longest goes.
                buckets.retain(|_, (tokens, since)| refilled(*tokens, *since) < limit.burst);
                if buckets.len() >= most
                    && let Some(oldest) =
                        buckets.iter().min_by_key(|(_, (_, since))| *since).map(|(key, _)| key.clone())
                {
                    buckets.remove(&oldest);
                }
            }
            let (tokens, since) = buckets.entry(key.clone()).or_insert((limit.burst, now));
            *tokens = refilled(*tokens, *since);
            *since = now;
            if *tokens >= 1.0 {
                *tokens -= 1.0;
            } else {
                empty.push(format!("limit reached on type {:?} for key {key}", limit.kind));
            }
        }
        empty
    }
}

pub struct EventRateLimit;

#[async_trait]
impl Plugin for EventRateLimit {
    async fn validate(
        &self,
        server: &Arc<Server>,
        attributes: &Attributes<'_>,
        object: &Value,
        _: Option<&Value>,
    ) -> Result<(), Status> {
        let resource = &attributes.served.resource;
        if resource.plural != "events"
            || attributes.dry_run
            || !matches!(attributes.operation, Operation::Create | Operation::Update)
        {
            return Ok(());
        }
        let key = |kind| match kind {
            Kind::Server => String::new(),
            Kind::Namespace => attributes.namespace.clone(),
            Kind::User => attributes.user.name.clone(),
            Kind::SourceAndObject => {
                ["source.component", "source.host", "kind", "namespace", "name", "uid", "apiVersion"]
                    .iter()
                    .map(|field| {
                        let path: Vec<&str> = match field.split_once('.') {
                            Some((outer, inner)) => vec![outer, inner],
                            None => vec!["involvedObject", field],
                        };
                        object.str_at(&path).unwrap_or_default()
                    })
                    .collect::<Vec<_>>()
                    .concat()
            }
        };
        let empty = server.config.admission.event_rate_limit.take(server.clock.monotonic(), key);
        if empty.is_empty() { Ok(()) } else { Err(Status::too_many_requests(super::aggregate(empty), 0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_fill_and_are_forgotten() {
        let limit = |kind, qps, burst, most| Limit { kind, qps, burst, cache_size: NonZeroUsize::new(most) };
        let settings = Settings::new(vec![limit(Kind::User, 1.0, 2.0, 2)]);
        let at = Duration::from_secs;
        let take = |second, user: &str| settings.take(at(second), |_| user.to_string()).is_empty();
        assert_eq!([take(1, "a"), take(1, "a"), take(1, "a"), take(1, "b")], [true, true, false, true]);
        assert!(take(2, "a"), "one token a second");
        assert!(take(3, "c"), "an old bucket makes room");
        assert_eq!(settings.0[0].1.lock().len(), 2);
        let both = Settings::new(vec![limit(Kind::Server, 1.0, 1.0, 0), limit(Kind::User, 1.0, 9.0, 0)]);
        assert!(both.take(at(1), |_| String::new()).is_empty());
        assert_eq!(both.take(at(1), |_| String::new()), ["limit reached on type Server for key "]);
    }
}
