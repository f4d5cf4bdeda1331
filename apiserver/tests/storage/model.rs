//! Random operations on the embedded engine, compared with a model that remembers everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apiserver::storage::embedded::{Embedded, Options};
use apiserver::storage::{Error, RangeRequest, Revision, Storage, WriteOptions};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

/// Key to (create revision, revision, value).
type State = BTreeMap<String, (Revision, Revision, String)>;

struct Model {
    /// The state after each revision, from the compacted one on.
    states: BTreeMap<Revision, State>,
    compacted: Revision,
    /// When keys with a time to live expire.
    expiry: BTreeMap<String, u64>,
}

impl Model {
    fn now(&self) -> State {
        self.states.values().next_back().cloned().unwrap_or_default()
    }

    fn at(&self, revision: Revision) -> State {
        let until = self.states.range(..=revision).next_back();
        until.map(|(_, state)| state.clone()).unwrap_or_default()
    }

    fn current(&self) -> Revision {
        self.states.keys().next_back().copied().unwrap_or(1)
    }

    fn record(&mut self, revision: Revision, change: impl FnOnce(&mut State)) {
        assert_eq!(revision, self.current() + 1, "revisions have no gaps");
        let mut state = self.now();
        change(&mut state);
        self.states.insert(revision, state);
    }
}

async fn read(store: &Embedded, at: Option<Revision>) -> Result<State, Error> {
    let prefix = "/registry/".to_owned();
    let range = store.range(RangeRequest { prefix, revision: at, ..Default::default() }).await?;
    let entry = |kv: apiserver::storage::KeyValue| {
        let value = String::from_utf8(kv.value.to_vec()).unwrap();
        (kv.key.to_string(), (kv.create_revision, kv.mod_revision, value))
    };
    Ok(range.items.into_iter().map(entry).collect())
}

#[test]
fn behaves_like_a_model_that_forgets_nothing() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(seed, 3000));
}

async fn run(seed: u64, steps: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let directory = TempDir::new().unwrap();
    let clock = Arc::new(AtomicU64::new(1_000_000));
    let open = || {
        let mut options = Options::new(directory.path());
        options.sync = false;
        options.history = Duration::from_secs(1 << 30);
        let clock = clock.clone();
        options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
        Embedded::open(options).unwrap()
    };
    let mut store = open();
    let mut model = Model { states: BTreeMap::new(), compacted: 0, expiry: BTreeMap::new() };
    for step in 0..steps {
        let key = format!("/registry/{}/{}", random.random_range(0..3), random.random_range(0..6));
        let value = format!("{step}");
        let bytes = Bytes::from(value.clone());
        let current = model.now().get(&key).cloned();
        let ttl = random.random_bool(0.2).then(|| random.random_range(1..50));
        let write = WriteOptions { ttl: ttl.map(Duration::from_secs), ..WriteOptions::default() };
        let expires = ttl.map(|seconds| clock.load(Ordering::Relaxed) + seconds * 1000);
        match (random.random_range(0..100), current) {
            (0..40, None) => {
                let revision = store.create(&key, bytes, write).await.unwrap();
                model.record(revision, |s| drop(s.insert(key.clone(), (revision, revision, value))));
                model.expiry.remove(&key);
                model.expiry.extend(expires.map(|at| (key, at)));
            }
            (0..40, Some((created, last, _))) => {
                let revision = store.update(&key, last, bytes, write).await.unwrap();
                model.record(revision, |s| drop(s.insert(key.clone(), (created, revision, value))));
                model.expiry.remove(&key);
                model.expiry.extend(expires.map(|at| (key, at)));
            }
            (40..55, Some((_, last, _))) => {
                let revision = store.delete(&key, last, None).await.unwrap();
                model.record(revision, |s| drop(s.remove(&key)));
                model.expiry.remove(&key);
            }
            (55..60, Some((_, last, _))) => {
                let wrong = store.update(&key, last + 1, bytes, write).await;
                assert!(matches!(wrong, Err(Error::Conflict { current, .. }) if current == last));
                assert!(matches!(
                    store.create(&key, Bytes::new(), WriteOptions::default()).await,
                    Err(Error::Exists { .. })
                ));
            }
            (60..65, _) => {
                clock.fetch_add(random.random_range(0..20_000), Ordering::Relaxed);
                store.tick().await;
                let now = clock.load(Ordering::Relaxed);
                let mut due: Vec<_> =
                    model.expiry.iter().filter(|(_, at)| **at <= now).map(|(k, at)| (*at, k.clone())).collect();
                let state = model.now();
                due.sort_by_key(|(at, key)| (*at, state[key].1));
                for (_, key) in due {
                    model.expiry.remove(&key);
                    let revision = model.current() + 1;
                    model.record(revision, |s| drop(s.remove(&key)));
                }
            }
            (65..68, _) if model.current() > 1 => {
                let revision = random.random_range(model.compacted.max(1)..=model.current());
                store.compact(revision).await.unwrap();
                model.compacted = revision;
                let base = model.at(revision);
                model.states = model.states.split_off(&(revision + 1));
                model.states.insert(revision, base);
            }
            (68..69, _) => {
                drop(store);
                store = open();
            }
            _ => {
                let revision = random.random_range(0..=model.current() + 1);
                let found = read(&store, Some(revision)).await;
                if revision > model.current() {
                    assert!(matches!(found, Err(Error::Future { .. })), "step {step}: {found:?}");
                } else if revision < model.compacted {
                    assert!(matches!(found, Err(Error::Compacted { .. })), "step {step}: {found:?}");
                } else {
                    assert_eq!(found.unwrap(), model.at(revision), "step {step}, at {revision}");
                }
                let limit = random.random_range(1..40);
                let history = store.history("/registry/", limit).await.unwrap().unwrap();
                let told: Vec<_> = history.changes.iter().map(|c| c.revision).collect();
                let expected: Vec<_> = (history.base.max(1) + 1..=model.current()).collect();
                assert_eq!(told, expected, "step {step}: every change since {}", history.base);
                assert!(told.len() == limit || history.base <= model.compacted.max(1));
            }
        }
        assert_eq!(read(&store, None).await.unwrap(), model.now(), "step {step}");
        assert_eq!(store.current_revision().await.unwrap(), model.current(), "step {step}");
    }
}
