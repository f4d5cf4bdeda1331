//! What becomes of events on their way: truncated, queued, delivered again, lost and counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use component_base::metrics::Registry;
use parking_lot::Mutex;
use serde_json::Value;

use super::super::event::Raw;
use super::super::event::tests::event;
use super::super::options::{Batch, LOG, Throttle, WEBHOOK};
use super::*;
use crate::remote::Failure;

/// Takes events after failing a number of times.
#[derive(Default)]
struct Server {
    fails: AtomicUsize,
    lists: Mutex<Vec<Value>>,
}

#[async_trait]
impl Remote for Server {
    async fn ask(&self, document: &Value) -> Result<Value, Failure> {
        let left = |fails: usize| fails.checked_sub(1);
        if self.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
            return Err("connection refused".into());
        }
        self.lists.lock().push(document.clone());
        Ok(Value::Null)
    }
}

impl Server {
    fn sizes(&self) -> Vec<usize> {
        self.lists.lock().iter().map(|list| list["items"].as_array().map_or(0, Vec::len)).collect()
    }
}

fn options(change: impl FnOnce(&mut Delivery)) -> WebhookOptions {
    let mut delivery = WEBHOOK;
    delivery.batch = Batch { buffer_size: 10, max_size: 3, max_wait: Duration::from_secs(5), throttle: None };
    change(&mut delivery);
    WebhookOptions { kubeconfig: "unused".into(), initial_backoff: Duration::from_secs(10), delivery }
}

struct Bench {
    backend: Backend,
    server: Arc<Server>,
    registry: Registry,
    shutdown: CancellationToken,
}

fn bench(options: &WebhookOptions) -> Bench {
    let (registry, shutdown, server) = (Registry::new(), CancellationToken::new(), Arc::new(Server::default()));
    let metrics = Metrics::new(&registry);
    let remote: Arc<dyn Remote> = server.clone();
    let backend = Backend::start(None, Some((options, remote)), &metrics, &shutdown).unwrap();
    Bench { backend, server, registry, shutdown }
}

impl Bench {
    fn has(&self, line: &str) {
        let text = self.registry.encode();
        assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn batches_go_when_they_are_full_or_old() {
    let bench = bench(&options(|_| {}));
    for name in ["a", "b", "c", "d"] {
        assert!(bench.backend.process(event(name)).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.server.sizes(), [3]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.server.sizes(), [3, 1]);
    let list = bench.server.lists.lock()[0].clone();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&"EventList".into(), &"audit.k8s.io/v1".into()));
    assert_eq!(list["items"][1]["objectRef"]["name"], "b");
    assert_eq!(list["items"][1].get("kind"), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_goes_out_at_the_end() {
    let bench = bench(&options(|_| {}));
    bench.backend.process(event("a")).await;
    tokio::task::yield_now().await;
    bench.shutdown.cancel();
    bench.backend.finish().await;
    assert_eq!(bench.server.sizes(), [1]);
    bench.backend.process(event("late")).await;
    bench.has("apiserver_audit_error_total{plugin=\"buffered\"} 1");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_is_away_is_asked_five_times() {
    let bench = bench(&options(|delivery| delivery.batch.max_size = 1));
    bench.server.fails.store(4, Ordering::SeqCst);
    bench.backend.process(event("a")).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.server.sizes(), [1]);
    bench.server.fails.store(5, Ordering::SeqCst);
    bench.backend.process(event("b")).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(bench.server.sizes(), [1], "given up");
    bench.has("apiserver_audit_error_total{plugin=\"webhook\"} 1");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_loses_events_and_counts_them() {
    let throttle = Some(Throttle { qps: 0.1, burst: 1 });
    let bench = bench(&options(|delivery| {
        delivery.batch = Batch { buffer_size: 2, max_size: 1, max_wait: Duration::ZERO, throttle };
    }));
    for at in 0..10 {
        assert!(bench.backend.process(event(&at.to_string())).await, "requests are not held up");
        tokio::task::yield_now().await;
    }
    // One went, one waits for its token, two are in the queue.
    bench.has("apiserver_audit_error_total{plugin=\"buffered\"} 6");
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(bench.server.sizes(), [1; 4]);
}

#[tokio::test(start_paused = true)]
async fn strict_requests_wait_and_fail() {
    for (mode, good) in [(Mode::Blocking, true), (Mode::BlockingStrict, false)] {
        let bench = bench(&options(|delivery| delivery.mode = mode));
        bench.server.fails.store(5, Ordering::SeqCst);
        assert_eq!(bench.backend.process(event("a")).await, good, "{mode:?}");
        assert!(bench.backend.process(event("b")).await);
        assert_eq!(bench.server.sizes(), [1], "it was waited for");
    }
}

#[tokio::test]
async fn large_events_are_cut_and_larger_ones_dropped() {
    let bench = bench(&options(|delivery| {
        delivery.mode = Mode::Blocking;
        delivery.truncate = Truncate { enabled: true, max_batch_size: 2000, max_event_size: 1000 };
    }));
    let with_body = |name: &str| {
        let mut event = event(name);
        event.request_object = Raw::parse(Bytes::from(format!("{:?}", "x".repeat(2000))).as_ref());
        event
    };
    bench.backend.process(event("small")).await;
    bench.backend.process(with_body("cut")).await;
    bench.backend.process(with_body(&"n".repeat(1000))).await;
    // Metadata has nothing that could be left out.
    let mut metadata = event(&"m".repeat(1000));
    metadata.level = Level::Metadata;
    bench.backend.process(metadata).await;
    let lists = bench.server.lists.lock();
    assert_eq!(lists.len(), 2);
    assert_eq!(lists[0]["items"][0]["annotations"].get(TRUNCATED), None);
    let cut = &lists[1]["items"][0];
    assert_eq!((&cut["annotations"][TRUNCATED], cut.get("requestObject")), (&"true".into(), None));
    drop(lists);
    bench.has("apiserver_audit_error_total{plugin=\"truncate\"} 2");
}

#[tokio::test]
async fn the_log_has_a_line_for_each_event() {
    let dir = tempfile::tempdir().unwrap();
    for (format, start) in
        [(super::super::options::Format::Json, log::PREFIX), (super::super::options::Format::Legacy, "2026-01-02T")]
    {
        let path = dir.path().join(format!("{format:?}/audit.log"));
        let log = LogOptions { format, ..LogOptions::new(path.clone()) };
        assert_eq!(log.delivery, LOG);
        let metrics = Metrics::new(&Registry::new());
        let backend = Backend::start(Some(&log), None, &metrics, &CancellationToken::new()).unwrap();
        assert!(backend.process(event("a")).await);
        assert!(backend.process(event("b")).await);
        // Nothing is waited for: that is what blocking means.
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.starts_with(start)), "{text}");
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_made_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let log = LogOptions::new(dir.path().join("file/audit.log"));
    let error = Backend::start(Some(&log), None, &Metrics::new(&Registry::new()), &CancellationToken::new());
    assert!(error.err().unwrap().starts_with("ensureLogFile: "));
}
