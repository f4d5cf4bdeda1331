//! Crashes of the embedded engine: killed processes, torn journals, two openers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use apiserver::storage::embedded::{Embedded, Options};
use apiserver::storage::{Durability, Error, RangeRequest, Revision, Storage, WriteOptions};
use bytes::Bytes;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::subject::eventually;

/// Set in the child that is to be killed: the directory of the store.
const CHILD: &str = "KEELSON_CRASH_CHILD";

/// Rounds of kill and verify; more with `KEELSON_CRASH_ROUNDS`.
const ROUNDS: usize = 8;

const WRITERS: usize = 8;
const KEYS_PER_WRITER: u64 = 5;

fn options(path: &Path) -> Options {
    let mut options = Options::new(path);
    // All history stays, so that every acknowledged write can be looked for.
    options.history = Duration::from_secs(3600);
    options
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Not a test of its own: what [`acknowledged_writes_survive_a_kill`] starts and kills.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    runtime().block_on(async {
        let store = std::sync::Arc::new(Embedded::open(options(Path::new(&path))).expect("opens"));
        let tasks: Vec<_> = (0..WRITERS).map(|at| tokio::spawn(load(store.clone(), at))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Writes for ever, and says so on standard output after each acknowledgement.
async fn load(store: std::sync::Arc<Embedded>, writer: usize) {
    let mut number = 0;
    loop {
        number += 1;
        let key = format!("/registry/crash/{writer}/{}", number % KEYS_PER_WRITER);
        let current = store.get(&key, None).await.unwrap();
        let value = format!("{writer}-{number}-{}", "x".repeat((number % 700) as usize));
        let write = WriteOptions {
            durability: if writer == 0 { Durability::Relaxed } else { Durability::Synced },
            ..WriteOptions::default()
        };
        let bytes = Bytes::from(value.clone());
        let (revision, value) = match current {
            None => (store.create(&key, bytes, write).await.unwrap(), value),
            Some(kv) if number % 7 == 0 => (store.delete(&key, kv.mod_revision, None).await.unwrap(), "-".to_owned()),
            Some(kv) => (store.update(&key, kv.mod_revision, bytes, write).await.unwrap(), value),
        };
        let line = format!("ack {key} {revision} {value}\n");
        // One write call per line: a killed child leaves whole lines in the pipe, save the last.
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        std::io::stdout().lock().flush().unwrap();
    }
}

#[test]
fn acknowledged_writes_survive_a_kill() {
    let directory = TempDir::new().unwrap();
    let rounds = std::env::var("KEELSON_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut acknowledged: BTreeMap<Revision, (String, String)> = BTreeMap::new();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let wanted: usize = random.random_range(1..600);
        let before = acknowledged.len();
        let mut killed = false;
        for line in output.split(b'\n') {
            let line = String::from_utf8(line.unwrap()).unwrap();
            let mut words = line.split(' ');
            if let (Some("ack"), Some(key), Some(revision), Some(value), None) =
                (words.next(), words.next(), words.next(), words.next(), words.next())
            {
                let revision = revision.parse().unwrap();
                let earlier = acknowledged.insert(revision, (key.to_owned(), value.to_owned()));
                assert_eq!(earlier, None, "revision {revision} was given out twice");
            }
            // Lines that were written before the kill are still read after it.
            if !killed && acknowledged.len() - before >= wanted {
                std::thread::sleep(Duration::from_micros(random.random_range(0..3000)));
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        verify(directory.path(), &mut acknowledged, round);
    }
}

fn verify(path: &Path, acknowledged: &mut BTreeMap<Revision, (String, String)>, round: usize) {
    runtime().block_on(async {
        let store = Embedded::open(options(path)).expect("opens after a kill");
        let mut newest: BTreeMap<&str, (Revision, &str)> = BTreeMap::new();
        for (revision, (key, value)) in acknowledged.iter() {
            let found = store.get(key, Some(*revision)).await.unwrap();
            match found {
                Some(found) => {
                    assert_eq!(found.mod_revision, *revision, "round {round}: {key}");
                    assert_eq!(found.value, value.as_bytes(), "round {round}: {key}@{revision}");
                }
                None => assert_eq!(value, "-", "round {round}: {key}@{revision} is lost"),
            }
            newest.insert(key, (*revision, value));
        }
        for (key, (revision, value)) in newest {
            match store.get(key, None).await.unwrap() {
                // The one write that was in flight may have happened.
                Some(found) if found.mod_revision != revision => {
                    assert!(found.mod_revision > revision, "round {round}: {key} went back");
                }
                Some(found) => assert_eq!(found.value, value.as_bytes()),
                None => {
                    let deleted = store.get(key, Some(revision)).await.unwrap().is_none();
                    let later = store.current_revision().await.unwrap() > revision;
                    assert!(deleted || later, "round {round}: {key}@{revision} is lost");
                }
            }
        }
        let last = acknowledged.keys().next_back().copied().unwrap_or(0);
        let key = format!("/registry/verify/{round}");
        let next = store.create(&key, Bytes::from_static(b"x"), WriteOptions::default()).await;
        let next = next.unwrap();
        assert!(next > last, "round {round}: {next} after {last}");
        acknowledged.insert(next, (key, "x".to_owned()));
    });
}

/// The used part of the journal, and the store's directory without it.
struct Image {
    directory: TempDir,
    journal: PathBuf,
    bytes: Vec<u8>,
    last_batch: usize,
}

const KEPT: [&str; 3] = ["/registry/x/a", "/registry/x/b", "/registry/x/c"];
const LAST: &str = "/registry/x/last";

/// What a crash leaves right after the write of `LAST`: copied while the store is open.
fn image() -> Image {
    let source = TempDir::new().unwrap();
    let store = Embedded::open(options(source.path())).unwrap();
    let create = |key: &'static str| {
        runtime().block_on(store.create(key, Bytes::from_static(b"value"), WriteOptions::default()))
    };
    for key in KEPT {
        create(key).unwrap();
    }
    let journal = fs::read_dir(source.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|file| file.extension().is_some_and(|e| e == "jnl"))
        .unwrap();
    let used = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        bytes[..end].to_vec()
    };
    let last_batch = used(&journal).len();
    create(LAST).unwrap();
    let bytes = used(&journal);
    let directory = TempDir::new().unwrap();
    copy(source.path(), directory.path());
    let journal = PathBuf::from(journal.file_name().unwrap());
    Image { directory, journal, bytes, last_batch }
}

/// Copies a store, except for its journals.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else if file.path().extension().is_none_or(|e| e != "jnl") {
            fs::copy(file.path(), target).unwrap();
        }
    }
}

impl Image {
    /// Opens a copy with this journal: everything before the last write must be there, the last
    /// write be whole or gone, and the store take writes again.
    fn check(&self, journal: &[u8], what: &str) -> bool {
        let directory = TempDir::new().unwrap();
        copy(self.directory.path(), directory.path());
        fs::write(directory.path().join(&self.journal), journal).unwrap();
        runtime().block_on(async {
            let mut survived = Vec::new();
            for reopened in [false, true] {
                let store = match Embedded::open(options(directory.path())) {
                    Ok(store) => store,
                    Err(error) => panic!("{what}: {error}"),
                };
                for key in KEPT {
                    let found = store.get(key, None).await.unwrap();
                    assert_eq!(found.expect(what).value, "value", "{what}: {key}");
                }
                let last = store.get(LAST, None).await.unwrap();
                if let Some(last) = &last {
                    assert_eq!(last.value, "value", "{what}");
                }
                survived.push(last.is_some());
                let range = RangeRequest { prefix: "/registry/x/".to_owned(), ..Default::default() };
                let range = store.range(range).await.unwrap();
                assert_eq!(range.items.len(), KEPT.len() + usize::from(last.is_some()), "{what}");
                let key = format!("/registry/after/{reopened}");
                store.create(&key, Bytes::from_static(b"x"), WriteOptions::default()).await.expect(what);
            }
            assert_eq!(survived[0], survived[1], "{what}");
            survived[0]
        })
    }
}

#[test]
fn opens_with_its_journal_cut_off_anywhere() {
    let image = image();
    assert!(image.check(&image.bytes, "whole"));
    for end in image.last_batch..image.bytes.len() {
        let cut = &image.bytes[..end];
        assert!(!image.check(cut, &format!("cut at {end}")));
        // The file is allocated ahead: what was not written reads as zeros.
        if end % 4 == 0 {
            let mut zeros = cut.to_vec();
            zeros.resize(image.bytes.len() + 4096, 0);
            assert!(!image.check(&zeros, &format!("zeros from {end}")));
        }
    }
}

#[test]
fn opens_with_its_last_write_torn() {
    let image = image();
    // Blocks reach the disk in any order: a hole, and the end of the batch behind it.
    let mut served = Vec::new();
    for start in image.last_batch..image.bytes.len() - 8 {
        let mut torn = image.bytes.clone();
        torn[start..start + 8].fill(0);
        if torn != image.bytes && image.check(&torn, &format!("hole at {start}")) {
            served.push(start - image.last_batch);
        }
    }
    // A hole that hits nothing but the sequence number in the batch's head (bytes 5 to 12, with
    // zeros before) spoils nothing of the write itself, and `check` has seen that it is whole. Any
    // other hole must be noticed.
    assert!(served.iter().all(|at| (2..=5).contains(at)), "served with holes at {served:?}");
}

#[test]
fn only_one_process_opens_a_store() {
    let directory = TempDir::new().unwrap();
    let first = Embedded::open(options(directory.path())).unwrap();
    let second = Embedded::open(options(directory.path()));
    assert!(matches!(second, Err(Error::Locked(_))), "{second:?}");
    drop(first);
    Embedded::open(options(directory.path())).expect("opens once the first is closed");
}

#[test]
fn a_clean_stop_keeps_revisions_without_a_gap() {
    let directory = TempDir::new().unwrap();
    runtime().block_on(async {
        let mut last = 0;
        for round in 0..3 {
            let store = Embedded::open(options(directory.path())).unwrap();
            let key = format!("/registry/x/{round}");
            let write = WriteOptions::default();
            let revision = store.create(&key, Bytes::from_static(b"x"), write).await.unwrap();
            assert!(last == 0 || revision == last + 1, "{revision} after {last}");
            last = revision;
            // Everything there was may be deleted and compacted: numbers must not start over.
            last = store.delete(&key, last, None).await.unwrap();
            store.compact(last).await.unwrap();
            assert_eq!(store.size().0, 0);
            store.close().await;
            let refused = store.create(&key, Bytes::new(), WriteOptions::default()).await;
            assert_eq!(refused, Err(Error::Closed));
        }
    });
}

#[test]
fn history_is_dropped_by_age_and_survives_a_restart_within_it() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    let directory = TempDir::new().unwrap();
    let clock = Arc::new(AtomicU64::new(10_000_000));
    let open = || {
        let mut options = Options::new(directory.path());
        options.history = Duration::from_secs(300);
        options.sync = false;
        let clock = clock.clone();
        options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
        Embedded::open(options).unwrap()
    };
    runtime().block_on(async {
        let key = "/registry/x/a";
        let store = open();
        let first = store.create(key, Bytes::from_static(b"0"), WriteOptions::default()).await.unwrap();
        let mut last = first;
        for number in 1..100 {
            clock.fetch_add(10_000, Ordering::Relaxed);
            let value = Bytes::from(number.to_string());
            last = store.update(key, last, value, WriteOptions::default()).await.unwrap();
        }
        store.tick().await;
        let check = async |store: &Embedded| {
            let gone = store.get(key, Some(last - 60)).await;
            assert!(matches!(gone, Err(Error::Compacted { .. })), "{gone:?}");
            let kept = store.get(key, Some(last - 25)).await.unwrap().unwrap();
            assert_eq!(kept.value, "74");
            assert_eq!(store.get(key, None).await.unwrap().unwrap().value, "99");
        };
        check(&store).await;
        drop(store);
        check(&open()).await;
    });
}

#[test]
fn space_is_given_back_behind_the_history() {
    let directory = TempDir::new().unwrap();
    runtime().block_on(async {
        let mut options = options(directory.path());
        options.sync = false;
        options.history = Duration::from_millis(200);
        let store = std::sync::Arc::new(Embedded::open(options).unwrap());
        let tasks: Vec<_> = (0..8)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    let key = format!("/registry/x/{writer}");
                    let value = |n: u32| {
                        let mut random = rand::rngs::StdRng::seed_from_u64(n.into());
                        let noise: Vec<u8> = (0..3000).map(|_| random.random()).collect();
                        Bytes::from(noise)
                    };
                    let mut last = store.create(&key, value(0), WriteOptions::default()).await.unwrap();
                    for number in 1..8_000 {
                        let next = store.update(&key, last, value(number), WriteOptions::default());
                        last = next.await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        store.tick().await;
        assert_eq!(store.size().0, 8);
        // 192 MB were written. What stays is the journal, allocated 64 MiB ahead, and at most as much
        // again of what compaction, which runs behind, has not reached.
        eventually("space is given back", async || {
            store.tick().await;
            let next = store.create("/registry/x/more", Bytes::from_static(b"x"), WriteOptions::default()).await;
            let _ = store.delete("/registry/x/more", next.unwrap(), None).await;
            store.size().1 < 140 << 20
        })
        .await;
    });
}
