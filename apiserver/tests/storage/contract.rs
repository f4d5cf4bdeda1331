//! What every engine promises.

use std::sync::Arc;
use std::time::Duration;

use apiserver::storage::{Change, Error, RangeRequest, Revision, Sink, Storage, Watch, WriteOptions};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::subject::{Subject, eventually, for_each};

/// Remembers what it is given.
#[derive(Default)]
pub struct Recorder {
    changes: Mutex<Vec<Change>>,
    broken: Mutex<Option<Error>>,
}

impl Sink for Recorder {
    fn apply(&self, changes: &[Change]) {
        assert!(!changes.is_empty());
        self.changes.lock().extend_from_slice(changes);
    }

    fn broken(&self, error: Error) {
        *self.broken.lock() = Some(error);
    }
}

impl Recorder {
    fn seen(&self) -> Vec<(Revision, String, Option<String>)> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let changes = self.changes.lock();
        changes.iter().map(|c| (c.revision, c.key.to_string(), c.value.as_ref().map(text))).collect()
    }
}

fn options() -> WriteOptions {
    WriteOptions::default()
}

async fn create(storage: &Arc<dyn Storage>, key: &str, value: &str) -> Revision {
    let value = Bytes::copy_from_slice(value.as_bytes());
    storage.create(key, value, options()).await.expect("creates")
}

async fn range(storage: &Arc<dyn Storage>, prefix: &str, at: Option<Revision>) -> Vec<String> {
    let request = RangeRequest { prefix: prefix.to_owned(), revision: at, ..Default::default() };
    let range = storage.range(request).await.expect("reads");
    assert!(!range.more);
    range.items.iter().map(|i| format!("{}={}", i.key, String::from_utf8_lossy(&i.value))).collect()
}

#[test]
fn guards_writes() {
    for_each(|subject| async move {
        let storage = &subject.storage;
        let key = "/registry/pods/default/a";
        let first = create(storage, key, "1").await;
        let again = storage.create(key, Bytes::from_static(b"2"), options()).await;
        assert_eq!(again, Err(Error::Exists { key: key.to_owned() }));

        let second = storage.update(key, first, Bytes::from_static(b"2"), options()).await.unwrap();
        assert!(second > first);
        let stale = storage.update(key, first, Bytes::from_static(b"3"), options()).await;
        assert_eq!(stale, Err(Error::Conflict { key: key.to_owned(), current: second }));
        let stale = storage.delete(key, first, None).await;
        assert_eq!(stale, Err(Error::Conflict { key: key.to_owned(), current: second }));

        let got = storage.get(key, None).await.unwrap().unwrap();
        assert_eq!((&got.value[..], got.create_revision, got.mod_revision), (&b"2"[..], first, second));

        let third = storage.delete(key, second, None).await.unwrap();
        assert!(third > second);
        assert_eq!(storage.get(key, None).await, Ok(None));
        let missing = Err(Error::NotFound { key: key.to_owned() });
        assert_eq!(storage.delete(key, second, None).await, missing);
        assert_eq!(storage.update(key, second, Bytes::new(), options()).await, missing);

        // A key may come back, as a new one.
        let fourth = create(storage, key, "4").await;
        let got = storage.get(key, None).await.unwrap().unwrap();
        assert_eq!((got.create_revision, got.mod_revision), (fourth, fourth));
        assert!(storage.current_revision().await.unwrap() >= fourth);
    });
}

#[test]
fn numbers_all_keys_in_one_sequence() {
    for_each(|subject| async move {
        let mut last = subject.storage.current_revision().await.unwrap();
        for number in 0..20 {
            let key = format!("/registry/{}/{number}", if number % 2 == 0 { "a" } else { "b" });
            let revision = create(&subject.storage, &key, "x").await;
            assert_eq!(revision, last + 1, "{}", subject.name);
            last = revision;
        }
    });
}

#[test]
fn ranges_in_pages_of_one_revision() {
    for_each(|subject| async move {
        let storage = &subject.storage;
        for number in 0..25 {
            create(storage, &format!("/registry/pods/ns/{number:02}"), "x").await;
        }
        create(storage, "/registry/podsx/ns/1", "other").await;
        let mut request = RangeRequest { prefix: "/registry/pods/".to_owned(), limit: 10, ..Default::default() };
        let mut sizes = Vec::new();
        let mut keys = Vec::new();
        loop {
            let page = storage.range(request.clone()).await.unwrap();
            sizes.push((page.items.len(), page.more));
            keys.extend(page.items.iter().map(|i| i.key.to_string()));
            request.revision = Some(page.revision);
            request.start = format!("{}\0", keys.last().unwrap());
            // Neither of these may show up in the pages that follow.
            create(storage, &format!("/registry/pods/ns/{}-new", keys.len()), "x").await;
            if !page.more {
                break;
            }
        }
        assert_eq!(sizes, [(10, true), (10, true), (5, false)], "{}", subject.name);
        assert_eq!(keys.len(), 25);
        assert!(keys.is_sorted());
        let empty = RangeRequest { prefix: "/registry/none/".to_owned(), ..Default::default() };
        assert_eq!(storage.range(empty).await.unwrap().items, []);
    });
}

#[test]
fn reads_the_past_until_it_is_compacted() {
    for_each(|subject| async move {
        let storage = &subject.storage;
        let (a, b) = ("/registry/x/a", "/registry/x/b");
        let r1 = create(storage, a, "1").await;
        let r2 = create(storage, b, "2").await;
        let r3 = storage.update(a, r1, Bytes::from_static(b"3"), options()).await.unwrap();
        let r4 = storage.delete(b, r2, None).await.unwrap();
        let r5 = create(storage, b, "5").await;

        let show = |at| range(storage, "/registry/x/", at);
        assert_eq!(show(Some(r1)).await, ["/registry/x/a=1"]);
        assert_eq!(show(Some(r2)).await, ["/registry/x/a=1", "/registry/x/b=2"]);
        assert_eq!(show(Some(r3)).await, ["/registry/x/a=3", "/registry/x/b=2"]);
        assert_eq!(show(Some(r4)).await, ["/registry/x/a=3"]);
        assert_eq!(show(Some(r5)).await, ["/registry/x/a=3", "/registry/x/b=5"]);
        assert_eq!(show(None).await, ["/registry/x/a=3", "/registry/x/b=5"]);
        assert_eq!(storage.get(b, Some(r3)).await.unwrap().unwrap().value, "2");
        assert_eq!(storage.get(b, Some(r4)).await.unwrap(), None);

        let future = storage.get(a, Some(r5 + 100)).await;
        assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");

        storage.compact(r4).await.unwrap();
        assert_eq!(storage.compacted_revision().await.unwrap(), r4);
        for old in [r1, r2, r3] {
            let gone = storage.get(a, Some(old)).await;
            assert!(matches!(gone, Err(Error::Compacted { .. })), "{gone:?}");
        }
        assert_eq!(show(Some(r4)).await, ["/registry/x/a=3"]);
        assert_eq!(show(Some(r5)).await, ["/registry/x/a=3", "/registry/x/b=5"]);
        assert_eq!(show(None).await, ["/registry/x/a=3", "/registry/x/b=5"]);
    });
}

async fn attach(subject: &Subject, prefix: &str, after: Option<Revision>) -> (Arc<Recorder>, Watch) {
    let recorder = Arc::new(Recorder::default());
    let watch = subject.storage.watch(prefix, after, recorder.clone()).await.expect("attaches");
    (recorder, watch)
}

#[test]
fn delivers_changes_in_order() {
    for_each(|subject| async move {
        let storage = &subject.storage;
        let before = create(storage, "/registry/pods/ns/before", "x").await;
        let (recorder, watch) = attach(&subject, "/registry/pods/", None).await;
        assert!(watch.revision <= before);
        let mut expected = Vec::new();
        let r = create(storage, "/registry/pods/ns/a", "1").await;
        expected.push((r, "/registry/pods/ns/a".to_owned(), Some("1".to_owned())));
        create(storage, "/registry/podsx/ns/a", "not this").await;
        let r2 = storage.update("/registry/pods/ns/a", r, Bytes::from_static(b"2"), options()).await.unwrap();
        expected.push((r2, "/registry/pods/ns/a".to_owned(), Some("2".to_owned())));
        let r3 = storage.delete("/registry/pods/ns/a", r2, None).await.unwrap();
        expected.push((r3, "/registry/pods/ns/a".to_owned(), None));

        let mine = || {
            let mut seen = recorder.seen();
            seen.retain(|(revision, ..)| *revision > before);
            seen
        };
        if storage.delivers_before_acknowledging() {
            assert_eq!(mine(), expected);
        }
        eventually("all changes arrive", async || mine() == expected).await;
        tokio::time::timeout(Duration::from_secs(10), storage.wait_delivered(r3)).await.unwrap();
        assert!(storage.delivered() >= r3);

        drop(watch);
        create(storage, "/registry/pods/ns/after", "x").await;
        let (other, _watch) = attach(&subject, "/registry/pods/", Some(r3)).await;
        eventually("the replay arrives", async || other.seen().len() == 1).await;
        assert_eq!(mine(), expected, "nothing comes after detaching");
    });
}

#[test]
fn replays_history_and_goes_on_without_a_gap() {
    for_each(|subject| async move {
        let storage = subject.storage.clone();
        let start = storage.current_revision().await.unwrap();
        let mut expected = Vec::new();
        for number in 0..50 {
            let key = format!("/registry/x/{number}");
            expected.push((create(&storage, &key, "x").await, key));
        }
        // Attach while writes go on.
        let writer = tokio::spawn({
            let storage = storage.clone();
            async move {
                let mut written = Vec::new();
                for number in 50..200 {
                    let key = format!("/registry/x/{number}");
                    written.push((create(&storage, &key, "x").await, key));
                }
                written
            }
        });
        let (recorder, _watch) = attach(&subject, "/registry/x/", Some(start)).await;
        expected.extend(writer.await.unwrap());
        eventually("all arrive", async || recorder.seen().len() >= expected.len()).await;
        let seen: Vec<_> = recorder.seen().into_iter().map(|(r, k, _)| (r, k)).collect();
        assert_eq!(seen, expected, "{}", subject.name);
    });
}

#[test]
fn refuses_to_watch_what_is_compacted() {
    for_each(|subject| async move {
        let storage = &subject.storage;
        let first = create(storage, "/registry/x/a", "1").await;
        let mut last = first;
        for _ in 0..5 {
            last = storage.update("/registry/x/a", last, Bytes::from_static(b"x"), options()).await.unwrap();
        }
        storage.compact(last).await.unwrap();
        let recorder = Arc::new(Recorder::default());
        match storage.watch("/registry/x/", Some(first), recorder.clone()).await {
            Err(Error::Compacted { .. }) => {}
            Err(other) => panic!("{other:?}"),
            // etcd only says so once the watch has begun.
            Ok(_watch) => {
                eventually("the watch breaks", async || recorder.broken.lock().is_some()).await;
                let broken = recorder.broken.lock().clone();
                assert!(matches!(broken, Some(Error::Compacted { .. })), "{broken:?}");
            }
        }
    });
}

#[test]
fn expires_keys() {
    for_each(|subject| async move {
        let storage = &subject.storage;
        let ttl = |seconds| WriteOptions { ttl: Some(Duration::from_secs(seconds)), ..WriteOptions::default() };
        let (recorder, _watch) = attach(&subject, "/registry/events/", None).await;
        let value = Bytes::from_static(b"x");
        storage.create("/registry/events/short", value.clone(), ttl(2)).await.unwrap();
        let kept = storage.create("/registry/events/kept", value.clone(), ttl(2)).await.unwrap();
        storage.update("/registry/events/kept", kept, value.clone(), options()).await.unwrap();
        storage.create("/registry/events/long", value.clone(), ttl(1000)).await.unwrap();
        assert_eq!(range(storage, "/registry/events/", None).await.len(), 3);
        subject.pass(Duration::from_secs(3)).await;
        eventually("the short one expires", async || {
            range(storage, "/registry/events/", None).await == ["/registry/events/kept=x", "/registry/events/long=x"]
        })
        .await;
        eventually("its delete is seen", async || {
            let seen = recorder.seen();
            seen.last().is_some_and(|(_, key, value)| key == "/registry/events/short" && value.is_none())
        })
        .await;
    });
}

#[test]
fn decides_racing_writers() {
    for_each(|subject| async move {
        let storage = subject.storage.clone();
        let (recorder, _watch) = attach(&subject, "/registry/x/", None).await;
        create(&storage, "/registry/x/counter", "0").await;
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let storage = storage.clone();
                tokio::spawn(async move {
                    let mut done = 0;
                    while done < 20 {
                        let now = storage.get("/registry/x/counter", None).await.unwrap().unwrap();
                        let count: u64 = std::str::from_utf8(&now.value).unwrap().parse().unwrap();
                        let next = Bytes::from((count + 1).to_string());
                        match storage.update("/registry/x/counter", now.mod_revision, next, options()).await {
                            Ok(_) => done += 1,
                            Err(Error::Conflict { .. }) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let end = storage.get("/registry/x/counter", None).await.unwrap().unwrap();
        assert_eq!(end.value, "320", "{}", subject.name);
        eventually("all are delivered", async || recorder.seen().len() == 321).await;
        let values: Vec<_> = recorder.seen().into_iter().filter_map(|(.., v)| v).collect();
        let counted: Vec<_> = (0..=320).map(|n| n.to_string()).collect();
        assert_eq!(values, counted, "each value once, in order");
    });
}

#[test]
fn takes_large_and_strange_values() {
    for_each(|subject| async move {
        let storage = &subject.storage;
        let large = Bytes::from(vec![b'x'; 1_400_000]);
        let first = storage.create("/registry/x/large", large.clone(), options()).await.unwrap();
        assert_eq!(storage.get("/registry/x/large", None).await.unwrap().unwrap().value, large);
        let too_large = Bytes::from(vec![b'x'; 2_000_000]);
        let refused = storage.update("/registry/x/large", first, too_large, options()).await;
        assert!(matches!(refused, Err(Error::TooLarge(_))), "{refused:?}");
        let binary = Bytes::from((0..=255).collect::<Vec<u8>>());
        storage.create("/registry/x/ünicode/ключ", binary.clone(), options()).await.unwrap();
        let got = storage.get("/registry/x/ünicode/ключ", None).await.unwrap().unwrap();
        assert_eq!(got.value, binary);
    });
}

/// Panics on the second change it is given.
#[derive(Default)]
struct Panicking(Recorder);

impl Sink for Panicking {
    fn apply(&self, changes: &[Change]) {
        self.0.apply(changes);
        assert!(self.0.seen().len() < 2, "this sink panics on purpose");
    }

    fn broken(&self, error: Error) {
        self.0.broken(error);
    }
}

#[test]
fn nobody_waits_for_ever_when_a_sink_panics() {
    for_each(|subject| async move {
        let storage = &subject.storage;
        let sink = Arc::new(Panicking::default());
        let _watch = storage.watch("/registry/x/", None, sink.clone()).await.unwrap();
        create(storage, "/registry/x/a", "1").await;
        let write = async |key: &str| {
            let write = storage.create(key, Bytes::from_static(b"2"), options());
            tokio::time::timeout(Duration::from_secs(10), write).await.expect("answers")
        };
        let second = write("/registry/x/b").await;
        match subject.name {
            // The change is on disk, but the caches may have missed it: the store stops.
            "embedded" => {
                assert_eq!(second, Err(Error::Closed));
                assert_eq!(write("/registry/x/c").await, Err(Error::Closed));
                assert!(storage.healthy().await.is_err());
                storage.close().await;
            }
            _ => {
                second.unwrap();
                eventually("the sink is told", async || sink.0.broken.lock().is_some()).await;
                let (recorder, _watch) = attach(&subject, "/registry/x/", None).await;
                let third = write("/registry/x/c").await.unwrap();
                eventually("others are served", async || {
                    recorder.seen().last().is_some_and(|(revision, ..)| *revision == third)
                })
                .await;
            }
        }
    });
}
