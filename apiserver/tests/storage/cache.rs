//! What the watch cache promises, above every engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apiserver::cache::{
    Cache, CreateOptions, Entry, Error, EventType, Freshness, Item, ResourceCache, ResourceSpec, RingLimits, Scope,
    SelectableField, Start, Watch, WatchRequest,
};
use apiserver::storage::{Revision, WriteOptions};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::subject::{Subject, eventually, for_each};

const NOW: Freshness = Freshness::Consistent;

fn pods_spec() -> ResourceSpec {
    let mut spec = ResourceSpec::new("", "pods", "/registry/pods", true);
    spec.fields = vec![SelectableField::at_path("spec.nodeName").indexed(), SelectableField::at_path("status.phase")];
    spec.index_owners = true;
    spec
}

fn pods(subject: &Subject) -> Arc<ResourceCache> {
    Cache::new(subject.storage.clone(), RingLimits::default()).register(pods_spec())
}

fn pod(namespace: &str, name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}"),
            "labels": {"app": "web", "name": name}},
        "spec": {"nodeName": node},
    })
}

fn key(namespace: &str, name: &str) -> String {
    format!("/registry/pods/{namespace}/{name}")
}

async fn create(pods: &ResourceCache, namespace: &str, name: &str, node: &str) -> Arc<Entry> {
    let object = pod(namespace, name, node);
    pods.create(&key(namespace, name), object, CreateOptions::default()).await.expect("creates")
}

async fn set(pods: &ResourceCache, entry: &Arc<Entry>, path: &[&str], value: &str) -> Arc<Entry> {
    let mut object = entry.tree();
    let mut at = &mut object;
    for part in path {
        at = &mut at[*part];
    }
    *at = json!(value);
    pods.update(entry, object, CreateOptions::default()).await.expect("updates")
}

fn request(scope: Scope, start: Start) -> WatchRequest {
    WatchRequest { scope, matcher: None, start, bookmarks: None, ends_in: None }
}

/// Reads `count` events as (type, name, revision in the frame).
async fn events(watch: &mut Watch, count: usize) -> Vec<(EventType, String, Revision)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next());
        match next.await.unwrap_or_else(|_| panic!("only {seen:?}")).expect("watches") {
            Item::Events(events) => {
                for (kind, event) in events {
                    let frame: Value = serde_json::from_slice(&event.json_frame(kind)).unwrap();
                    assert_eq!(frame["type"], kind.as_str());
                    let metadata = &frame["object"]["metadata"];
                    assert_eq!(metadata["resourceVersion"], event.revision.to_string());
                    let name = metadata["name"].as_str().unwrap().to_owned();
                    seen.push((kind, name, event.revision));
                }
            }
            Item::Bookmark(_) => {}
        }
    }
    assert_eq!(seen.len(), count, "{seen:?}");
    seen
}

fn short(events: &[(EventType, String, Revision)]) -> Vec<String> {
    events.iter().map(|(kind, name, _)| format!("{} {name}", kind.as_str())).collect()
}

fn names<'a>(entries: impl IntoIterator<Item = &'a Arc<Entry>>) -> Vec<&'a str> {
    entries.into_iter().map(|e| e.name()).collect()
}

#[test]
fn serves_what_was_written() {
    for_each(|subject| async move {
        let pods = pods(&subject);
        let created = create(&pods, "default", "a", "n1").await;
        let tree: Value = serde_json::from_slice(created.json()).unwrap();
        let mut expected = pod("default", "a", "n1");
        expected["metadata"]["resourceVersion"] = json!(created.revision().to_string());
        assert_eq!(tree, expected);
        assert_eq!((created.namespace(), created.name(), created.uid()), ("default", "a", "uid-a"));
        assert_eq!(created.label("app"), Some("web"));
        assert_eq!(created.field("spec.nodeName"), Some("n1"));
        assert_eq!(created.field("status.phase"), Some(""));
        assert_eq!(created.field("metadata.name"), Some("a"));
        assert_eq!(created.field("spec.other"), None);

        let got = pods.get(&key("default", "a"), NOW).await.unwrap().unwrap();
        assert_eq!(got.json(), created.json());
        assert_eq!(pods.get(&key("default", "b"), NOW).await.unwrap().map(|_| ()), None);

        let again = pods.create(&key("default", "a"), pod("default", "a", ""), CreateOptions::default()).await;
        assert!(matches!(again, Err(Error::Exists { .. })));

        let updated = set(&pods, &created, &["spec", "nodeName"], "n2").await;
        assert!(updated.revision() > created.revision());
        assert_eq!(updated.create_revision(), created.revision());
        // Unless the cache lags, writing what a stale copy has is a conflict, not a no-op.
        pods.wait_fresh(NOW).await.unwrap();
        let stale = pods.update(&created, created.tree(), CreateOptions::default()).await;
        let conflict = updated.revision();
        assert!(matches!(stale, Err(Error::Conflict { current, .. }) if current == conflict));

        let same = pods.update(&updated, updated.tree(), CreateOptions::default()).await.unwrap();
        assert_eq!(same.revision(), updated.revision(), "an unchanged object is not written");

        let past = pods.get_at(&key("default", "a"), created.revision()).await.unwrap().unwrap();
        assert_eq!(past.json(), created.json());

        let deleted = pods.delete(&updated).await.unwrap();
        assert!(deleted > updated.revision());
        assert_eq!(pods.get(&key("default", "a"), NOW).await.unwrap().map(|_| ()), None);
        assert!(matches!(pods.delete(&updated).await, Err(Error::NotFound { .. })));
    });
}

#[test]
fn loads_what_is_there_and_what_others_write() {
    for_each(|subject| async move {
        let storage = &subject.storage;
        let raw = |name: &str| Bytes::from(pod("ns", name, "n1").to_string());
        for name in ["a", "b"] {
            storage.create(&key("ns", name), raw(name), WriteOptions::default()).await.unwrap();
        }
        storage.create(&key("ns", "bad"), Bytes::from_static(b"\x00"), WriteOptions::default()).await.unwrap();
        let pods = pods(&subject);
        let snapshot = pods.snapshot(NOW).await.unwrap();
        assert_eq!(names(snapshot.range(None, None)), ["a", "b"], "one bad value takes nothing down");
        let c = storage.create(&key("ns", "c"), raw("c"), WriteOptions::default()).await.unwrap();
        let snapshot = pods.snapshot(NOW).await.unwrap();
        assert_eq!(names(snapshot.range(None, None)), ["a", "b", "c"]);
        let found = pods.by_field("spec.nodeName", "n1", NOW).await.unwrap().unwrap();
        assert_eq!(names(&found.0), ["a", "b", "c"]);
        let entry = snapshot.get(&key("ns", "c")).unwrap();
        assert_eq!(entry.revision(), c);
        assert_eq!(entry.tree()["metadata"]["resourceVersion"], c.to_string());
    });
}

#[test]
fn lists_are_consistent_and_of_one_moment() {
    for_each(|subject| async move {
        let (ours, other) = (pods(&subject), pods(&subject));
        other.load().await.unwrap();
        for number in 0..50 {
            let entry = create(&ours, "ns", &format!("{number:02}"), "").await;
            // Another apiserver's cache (on etcd) must see it as soon as it was acknowledged.
            let snapshot = other.snapshot(NOW).await.unwrap();
            assert_eq!(snapshot.len(), number + 1, "{}", subject.name);
            assert!(snapshot.revision() >= entry.revision());
        }
        create(&ours, "ns2", "x", "").await;
        let snapshot = ours.snapshot(NOW).await.unwrap();
        assert_eq!(snapshot.range(Some("ns"), None).count(), 50);
        assert_eq!(snapshot.range(Some("ns2"), None).count(), 1);
        assert_eq!(snapshot.range(Some("n"), None).count(), 0);
        assert_eq!(snapshot.range(None, None).count(), 51);
        let from = key("ns", "47");
        let rest = snapshot.range(Some("ns"), Some(&format!("{from}\0")));
        assert_eq!(names(rest), ["48", "49"]);
        let a = snapshot.get(&from).unwrap().clone();
        ours.delete(&a).await.unwrap();
        assert_eq!(snapshot.len(), 51, "a snapshot does not change");
    });
}

#[test]
fn reads_exact_revisions() {
    for_each(|subject| async move {
        let pods = pods(&subject);
        let mut history: Vec<(Revision, BTreeMap<String, Revision>)> = Vec::new();
        let mut now = BTreeMap::new();
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        for step in 0..40 {
            let revision = match step % 4 {
                0 | 1 => {
                    let entry = create(&pods, "ns", &format!("{step:02}"), "").await;
                    now.insert(entry.name().to_owned(), entry.revision());
                    entries.push(entry.clone());
                    entry.revision()
                }
                2 => {
                    let at = (step / 4) % entries.len();
                    entries[at] = set(&pods, &entries[at], &["spec", "nodeName"], &format!("n{step}")).await;
                    now.insert(entries[at].name().to_owned(), entries[at].revision());
                    entries[at].revision()
                }
                _ => {
                    let entry = entries.remove(0);
                    now.remove(entry.name());
                    pods.delete(&entry).await.unwrap()
                }
            };
            history.push((revision, now.clone()));
        }
        let check = async |pods: &ResourceCache| {
            for (revision, expected) in &history {
                let snapshot = pods.snapshot_at(*revision).await.unwrap();
                let found: BTreeMap<_, _> =
                    snapshot.range(None, None).map(|e| (e.name().to_owned(), e.revision())).collect();
                assert_eq!(&found, expected, "at {revision}");
                assert_eq!(snapshot.revision(), *revision);
            }
        };
        check(&pods).await;
        // A cache that has just started has no ring: it reads the store's history.
        check(&self::pods(&subject)).await;

        let last = history.last().unwrap().0;
        subject.storage.compact(last).await.unwrap();
        let fresh = self::pods(&subject);
        let gone = fresh.snapshot_at(history[3].0).await;
        assert!(matches!(gone, Err(Error::TooOld { .. })), "{gone:?}");
        // Nor does the cache that still has it at hand serve what the store has forgotten.
        let gone = pods.snapshot_at(history[3].0).await;
        assert!(matches!(gone, Err(Error::TooOld { .. })), "{gone:?}");
        assert!(pods.snapshot_at(last).await.is_ok());
        let future = fresh.snapshot_at(last + 1_000_000).await;
        assert!(matches!(future, Err(Error::TooLarge { .. })), "{future:?}");
    });
}

#[test]
fn watches_from_now_from_a_revision_and_from_the_state() {
    for_each(|subject| async move {
        let pods = pods(&subject);
        let a = create(&pods, "ns", "a", "").await;
        let mut now = pods.watch(request(Scope::All, Start::Now(NOW))).await.unwrap();
        let b = create(&pods, "ns", "b", "").await;
        let a2 = set(&pods, &a, &["spec", "nodeName"], "n1").await;
        pods.delete(&b).await.unwrap();
        let expected = ["ADDED b", "MODIFIED a", "DELETED b"];
        assert_eq!(short(&events(&mut now, 3).await), expected);

        let mut past = pods.watch(request(Scope::All, Start::After(a.revision()))).await.unwrap();
        assert_eq!(short(&events(&mut past, 3).await), expected);
        let mut later = pods.watch(request(Scope::All, Start::After(a2.revision()))).await.unwrap();
        assert_eq!(short(&events(&mut later, 1).await), ["DELETED b"]);

        let mut state = pods.watch(request(Scope::All, Start::State(NOW))).await.unwrap();
        let initial = state.initial.take().unwrap();
        assert_eq!(names(initial.range(None, None)), ["a"]);
        create(&pods, "ns", "c", "").await;
        assert_eq!(short(&events(&mut state, 1).await), ["ADDED c"]);

        // One that has not happened yet: nothing until it has.
        let current = pods.revision();
        let mut future = pods.watch(request(Scope::All, Start::After(current + 1))).await.unwrap();
        let d = create(&pods, "ns", "d", "").await;
        let e = create(&pods, "ns", "e", "").await;
        assert_eq!((d.revision(), e.revision()), (current + 1, current + 2));
        assert_eq!(short(&events(&mut future, 1).await), ["ADDED e"]);
    });
}

#[test]
fn watches_go_on_over_a_restart() {
    for_each(|subject| async move {
        if subject.name != "embedded" {
            // etcd's history is not read back: there a restart costs its watchers a 410.
            return;
        }
        let before = pods(&subject);
        let a = create(&before, "ns", "a", "").await;
        let b = create(&before, "ns", "b", "").await;
        set(&before, &a, &["spec", "nodeName"], "n1").await;
        before.delete(&b).await.unwrap();
        let after = Cache::new(subject.storage.clone(), RingLimits::default());
        let after = after.register(pods_spec());
        after.load().await.unwrap();
        let mut watch = after.watch(request(Scope::All, Start::After(a.revision()))).await.unwrap();
        create(&after, "ns", "c", "").await;
        let seen = short(&events(&mut watch, 4).await);
        assert_eq!(seen, ["ADDED b", "MODIFIED a", "DELETED b", "ADDED c"]);

        subject.storage.compact(a.revision()).await.unwrap();
        let late = Cache::new(subject.storage.clone(), RingLimits::default());
        let late = late.register(pods_spec());
        let refused = late.watch(request(Scope::All, Start::After(a.revision() - 1))).await;
        assert!(matches!(refused, Err(Error::TooOld { .. })), "{refused:?}");
        let mut watch = late.watch(request(Scope::All, Start::After(a.revision()))).await.unwrap();
        assert_eq!(short(&events(&mut watch, 4).await).len(), 4);
    });
}

#[test]
fn loads_everything_at_once() {
    for_each(|subject| async move {
        let cache = Cache::new(subject.storage.clone(), RingLimits::default());
        let pods = cache.register(pods_spec());
        let others = cache.register(ResourceSpec::new("", "nodes", "/registry/minions", false));
        cache.load_all().await.unwrap();
        let a = create(&pods, "ns", "a", "").await;
        // Nothing has touched nodes yet, but they remember since the start.
        let before = Start::After(a.revision() - 1);
        others.watch(request(Scope::All, before)).await.unwrap();
    });
}

#[test]
fn scopes_and_selectors_make_their_own_events() {
    for_each(|subject| async move {
        let pods = pods(&subject);
        pods.load().await.unwrap();
        let field = |value: &str| Scope::Field { label: "spec.nodeName".to_owned(), value: value.to_owned() };
        let start = Start::Now(NOW);
        let mut node = pods.watch(request(field("n1"), start)).await.unwrap();
        let mut namespace = pods.watch(request(Scope::Namespace("ns2".to_owned()), start)).await.unwrap();
        let mut one = pods.watch(request(Scope::Key(key("ns", "b")), start)).await.unwrap();
        let mut labelled = pods
            .watch(WatchRequest {
                matcher: Some(Arc::new(|e: &Entry| e.label("app") == Some("web"))),
                ..request(Scope::All, start)
            })
            .await
            .unwrap();

        let a = create(&pods, "ns", "a", "").await;
        let b = create(&pods, "ns", "b", "n1").await;
        create(&pods, "ns2", "c", "n2").await;
        let a = set(&pods, &a, &["spec", "nodeName"], "n1").await;
        let a = set(&pods, &a, &["metadata", "labels", "app"], "other").await;
        let b = set(&pods, &b, &["spec", "nodeName"], "n2").await;
        let a = set(&pods, &a, &["metadata", "labels", "app"], "web").await;
        pods.delete(&b).await.unwrap();
        pods.delete(&a).await.unwrap();

        assert_eq!(
            short(&events(&mut node, 6).await),
            ["ADDED b", "ADDED a", "MODIFIED a", "DELETED b", "MODIFIED a", "DELETED a"]
        );
        assert_eq!(short(&events(&mut namespace, 1).await), ["ADDED c"]);
        assert_eq!(short(&events(&mut one, 3).await), ["ADDED b", "MODIFIED b", "DELETED b"]);
        assert_eq!(
            short(&events(&mut labelled, 9).await),
            [
                "ADDED a",
                "ADDED b",
                "ADDED c",
                "MODIFIED a",
                "DELETED a",
                "MODIFIED b",
                "ADDED a",
                "DELETED b",
                "DELETED a"
            ]
        );
    });
}

#[test]
fn frames_are_encoded_once() {
    for_each(|subject| async move {
        let pods = pods(&subject);
        let mut watches = Vec::new();
        for _ in 0..3 {
            watches.push(pods.watch(request(Scope::All, Start::Now(NOW))).await.unwrap());
        }
        create(&pods, "ns", "a", "").await;
        let mut frames = Vec::new();
        for watch in &mut watches {
            let Item::Events(events) = watch.next().await.unwrap() else { panic!("no events") };
            let (kind, event) = &events[0];
            frames.push(event.json_frame(*kind));
            assert_eq!(event.frame(*kind, 7, |_| Bytes::from_static(b"once")), "once");
            assert_eq!(event.frame(*kind, 7, |_| panic!("made twice")), "once");
        }
        assert!(frames.windows(2).all(|pair| pair[0].as_ptr() == pair[1].as_ptr()));
    });
}

#[test]
fn bookmarks_follow_other_resources() {
    for_each(|subject| async move {
        let cache = Cache::new(subject.storage.clone(), RingLimits::default());
        let pods = cache.register(pods_spec());
        let others = cache.register(ResourceSpec::new("", "configmaps", "/registry/configmaps", true));
        let mut watch = pods
            .watch(WatchRequest { bookmarks: Some(Duration::from_millis(20)), ..request(Scope::All, Start::Now(NOW)) })
            .await
            .unwrap();
        let object = json!({"metadata": {"name": "x", "namespace": "ns"}});
        let other = others.create("/registry/configmaps/ns/x", object, CreateOptions::default()).await.unwrap();
        eventually("a bookmark reaches the other write", async || match watch.next().await {
            Ok(Item::Bookmark(revision)) => revision >= other.revision(),
            other => panic!("{other:?}"),
        })
        .await;
        let a = create(&pods, "ns", "a", "").await;
        let seen = events(&mut watch, 1).await;
        assert_eq!(seen, [(EventType::Added, "a".to_owned(), a.revision())]);
    });
}

#[test]
fn a_slow_watcher_reads_the_ring_and_then_is_too_late() {
    for_each(|subject| async move {
        let limits = RingLimits { count: 2000, ..RingLimits::default() };
        let pods = Cache::new(subject.storage.clone(), limits).register(pods_spec());
        let mut slow = pods.watch(request(Scope::All, Start::Now(NOW))).await.unwrap();
        let mut slower = pods.watch(request(Scope::All, Start::Now(NOW))).await.unwrap();
        let mut entry = create(&pods, "ns", "a", "").await;
        // More than a watcher's channel holds (1,024), fewer than the ring does.
        for number in 0..1500 {
            entry = set(&pods, &entry, &["spec", "nodeName"], &number.to_string()).await;
        }
        let last = entry.revision();
        let seen = events(&mut slow, 1501).await;
        assert_eq!(seen[1500].2, last);
        assert!(seen.is_sorted_by_key(|(.., revision)| *revision));
        for number in 0..1500 {
            entry = set(&pods, &entry, &["spec", "nodeName"], &number.to_string()).await;
        }
        pods.wait_fresh(NOW).await.unwrap();
        let late = slower.next().await;
        assert!(matches!(late, Err(Error::TooOld { .. })), "{late:?}");
        let late = pods.watch(request(Scope::All, Start::After(seen[0].2))).await;
        assert!(matches!(late, Err(Error::TooOld { .. })), "{late:?}");
    });
}

#[test]
fn every_watcher_sees_every_change_in_order() {
    for_each(|subject| async move {
        let pods = pods(&subject);
        let mut watchers = Vec::new();
        for at in 0..40 {
            let pods = pods.clone();
            watchers.push(tokio::spawn(async move {
                // Some from the state, some from now: those who start late have a gap otherwise.
                let start = if at % 2 == 0 { Start::State(NOW) } else { Start::After(1) };
                let mut watch = match pods.watch(request(Scope::All, start)).await {
                    Ok(watch) => watch,
                    Err(Error::TooOld { .. }) => pods.watch(request(Scope::All, Start::State(NOW))).await.unwrap(),
                    Err(other) => panic!("{other:?}"),
                };
                let mut state: BTreeMap<String, Revision> = BTreeMap::new();
                if let Some(initial) = watch.initial.take() {
                    for entry in initial.range(None, None) {
                        state.insert(entry.name().to_owned(), entry.revision());
                    }
                }
                let mut last = 0;
                while !state.contains_key("end") {
                    let Item::Events(events) = watch.next().await.unwrap() else { continue };
                    for (kind, event) in events {
                        assert!(event.revision > last);
                        last = event.revision;
                        let name = event.any().name().to_owned();
                        let known = state.contains_key(&name);
                        match kind {
                            EventType::Added => assert!(!known, "{name} added twice"),
                            EventType::Modified | EventType::Deleted => assert!(known, "{name}"),
                        }
                        match kind {
                            EventType::Deleted => drop(state.remove(&name)),
                            _ => drop(state.insert(name, event.revision)),
                        }
                    }
                }
                state
            }));
        }
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let pods = pods.clone();
                tokio::spawn(async move {
                    for number in 0..25 {
                        let entry = create(&pods, "ns", &format!("{writer}-{number}"), "").await;
                        let entry = set(&pods, &entry, &["spec", "nodeName"], "n").await;
                        if number % 3 == 0 {
                            pods.delete(&entry).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        create(&pods, "ns", "end", "").await;
        let expected: BTreeMap<_, _> =
            pods.snapshot(NOW).await.unwrap().range(None, None).map(|e| (e.name().to_owned(), e.revision())).collect();
        for watcher in watchers {
            let state = tokio::time::timeout(Duration::from_secs(30), watcher).await;
            assert_eq!(state.expect("finishes").unwrap(), expected, "{}", subject.name);
        }
    });
}

#[test]
fn guaranteed_updates_never_lose_one() {
    for_each(|subject| async move {
        let pods = pods(&subject);
        let other = self::pods(&subject);
        create(&pods, "ns", "a", "0").await;
        let tasks: Vec<_> = (0..8)
            .map(|at| {
                let pods = if at % 2 == 0 { pods.clone() } else { other.clone() };
                tokio::spawn(async move {
                    for _ in 0..10 {
                        pods.guaranteed_update::<Error, _, _>(
                            &key("ns", "a"),
                            CreateOptions::default(),
                            |entry| async move {
                                let mut tree = entry.tree();
                                let count: u64 = tree["spec"]["nodeName"].as_str().unwrap().parse().unwrap();
                                tree["spec"]["nodeName"] = json!((count + 1).to_string());
                                Ok(Some(tree))
                            },
                        )
                        .await
                        .unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let end = pods.get(&key("ns", "a"), NOW).await.unwrap().unwrap();
        assert_eq!(end.field("spec.nodeName"), Some("80"), "{}", subject.name);
        let missing = pods
            .guaranteed_update::<Error, _, _>(&key("ns", "b"), CreateOptions::default(), |_| async { Ok(None) })
            .await;
        assert!(matches!(missing, Err(Error::NotFound { .. })));
    });
}

#[test]
fn a_thousand_unused_resources_cost_little() {
    for_each(|subject| async move {
        let cache = Cache::new(subject.storage.clone(), RingLimits::default());
        for number in 0..1000 {
            let resource = format!("things{number}");
            let spec = ResourceSpec::new("example.com", &resource, &format!("/registry/example.com/{resource}"), true);
            cache.register(spec);
        }
        let one = cache.resource("example.com", "things7").unwrap();
        assert_eq!(one.snapshot(NOW).await.unwrap().len(), 0);
        assert_eq!(one.size(), (0, 0));
        assert!(cache.remove("example.com", "things7").is_some());
        assert!(cache.resource("example.com", "things7").is_none());
        assert_eq!(cache.resources().len(), 999);
    });
}
