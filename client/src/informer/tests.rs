//! Informers against a scripted server.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{Full, StreamBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::resources::PODS;

/// Answers requests from a script: each entry says what the request must contain and what comes back.
#[derive(Clone)]
struct Server {
    script: Arc<Mutex<VecDeque<(&'static str, Answer)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

enum Answer {
    Status(u16, Value),
    Watch(mpsc::UnboundedReceiver<Value>),
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

impl tower::Service<Request<Full<Bytes>>> for Server {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::result::Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        use http_body_util::BodyExt as _;
        let uri = request.uri().to_string();
        self.asked.lock().push(uri.clone());
        let next = self.script.lock().pop_front();
        Box::pin(async move {
            let Some((expected, answer)) = next else {
                return Ok(std::future::pending::<Response<Body>>().await);
            };
            assert!(uri.contains(expected), "{uri} should contain {expected}");
            Ok(match answer {
                Answer::Status(code, body) => Response::builder()
                    .status(code)
                    .body(Full::new(Bytes::from(body.to_string())).boxed_unsync())
                    .unwrap(),
                Answer::Watch(events) => {
                    let frames = futures::stream::unfold(events, |mut events| async move {
                        let event = events.recv().await?;
                        let line = Bytes::from(format!("{event}\n"));
                        Some((Ok::<_, Infallible>(http_body::Frame::data(line)), events))
                    });
                    Response::new(StreamBody::new(frames).boxed_unsync())
                }
            })
        })
    }
}

fn pod(name: &str, uid: &str, version: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": "default", "uid": uid, "resourceVersion": version, "managedFields": [1] } })
}

fn event(kind: &str, object: Value) -> Value {
    json!({ "type": kind, "object": object })
}

fn bookmark(version: &str) -> Value {
    event(
        "BOOKMARK",
        json!({ "metadata": { "resourceVersion": version, "annotations": { "k8s.io/initial-events-end": "true" } } }),
    )
}

struct Run {
    informer: Arc<Informer<Value>>,
    events: mpsc::UnboundedReceiver<String>,
    server: Server,
    stop: tokio_util::sync::DropGuard,
}

fn run(script: Vec<(&'static str, Answer)>) -> Run {
    let server = Server { script: Arc::new(Mutex::new(script.into())), asked: Arc::default() };
    let informer =
        Informer::<Value>::new(Client::from_service(server.clone()), PODS.clone(), InformerParams::default());
    let (sender, events) = mpsc::unbounded_channel();
    informer.on_event(move |event| {
        let text = match event {
            Event::Added(pod) => format!("+{}@{}", pod.name(), pod.resource_version()),
            Event::Modified { old, new } => {
                format!("{}@{}>{}", new.name(), old.resource_version(), new.resource_version())
            }
            Event::Deleted(pod) => format!("-{}", pod.name()),
        };
        let _ = sender.send(text);
    });
    let token = CancellationToken::new();
    tokio::spawn(informer.clone().run(token.clone()));
    Run { informer, events, server, stop: token.drop_guard() }
}

impl Run {
    async fn expect(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.events.recv().await.as_deref(), Some(*expected));
        }
    }
}

fn channel(events: Vec<Value>) -> (mpsc::UnboundedSender<Value>, Answer) {
    let (sender, receiver) = mpsc::unbounded_channel();
    for event in events {
        sender.send(event).unwrap();
    }
    (sender, Answer::Watch(receiver))
}

#[tokio::test(start_paused = true)]
async fn streams_the_list_then_follows_and_resumes() {
    let (first, answer) = channel(vec![
        event("ADDED", pod("a", "1", "5")),
        event("ADDED", pod("b", "2", "6")),
        event("DELETED", pod("a", "1", "7")),
        bookmark("7"),
    ]);
    let (second, resumed) = channel(vec![event("MODIFIED", pod("b", "2", "12"))]);
    let mut run = run(vec![("sendInitialEvents=true", answer), ("resourceVersion=11", resumed)]);
    run.informer.wait_synced().await;
    run.expect(&["+b@6"]).await;
    assert_eq!(run.informer.store().len(), 1);
    assert!(run.informer.store().list()[0]["metadata"].get("managedFields").is_none());
    first.send(event("MODIFIED", pod("b", "2", "9"))).unwrap();
    first.send(event("ADDED", pod("c", "3", "10"))).unwrap();
    first.send(event("DELETED", pod("c", "3", "11"))).unwrap();
    run.expect(&["b@6>9", "+c@10", "-c"]).await;
    drop(first);
    run.expect(&["b@9>12"]).await;
    drop(second);
    drop(run.stop);
}

#[tokio::test(start_paused = true)]
async fn expiry_lists_again_and_tells_only_the_differences() {
    let (first, answer) = channel(vec![
        event("ADDED", pod("same", "1", "5")),
        event("ADDED", pod("gone", "2", "6")),
        event("ADDED", pod("reborn", "3", "6")),
        bookmark("7"),
    ]);
    let (_second, again) =
        channel(vec![event("ADDED", pod("same", "1", "5")), event("ADDED", pod("reborn", "4", "20")), bookmark("21")]);
    let mut run = run(vec![("sendInitialEvents=true", answer), ("sendInitialEvents=true", again)]);
    run.expect(&["+same@5", "+gone@6", "+reborn@6"]).await;
    first
        .send(event("ERROR", json!({ "status": "Failure", "code": 410, "reason": "Expired", "message": "too old" })))
        .unwrap();
    run.expect(&["-reborn", "+reborn@20", "-gone"]).await;
    drop(run.stop);
}

#[tokio::test(start_paused = true)]
async fn falls_back_to_pages_where_there_is_no_watch_list() {
    let invalid =
        json!({ "status": "Failure", "code": 422, "reason": "Invalid", "message": "sendInitialEvents is forbidden" });
    let page = |token: &str, name: &str| json!({ "metadata": { "resourceVersion": "50", "continue": token }, "items": [pod(name, name, "4")] });
    let (_watch, answer) = channel(vec![event("ADDED", pod("c", "c", "51"))]);
    let mut run = run(vec![
        ("sendInitialEvents=true", Answer::Status(422, invalid)),
        ("limit=500", Answer::Status(200, page("next", "a"))),
        ("continue=next", Answer::Status(200, page("", "b"))),
        ("resourceVersion=50", answer),
    ]);
    run.expect(&["+a@4", "+b@4", "+c@51"]).await;
    // A late handler is told what is known.
    let late = Arc::new(Mutex::new(Vec::new()));
    let seen = late.clone();
    run.informer.on_event(move |event| seen.lock().push(event.object().name().to_string()));
    late.lock().sort();
    assert_eq!(*late.lock(), ["a", "b", "c"]);
    assert!(run.server.asked.lock().iter().all(|uri| uri.starts_with("/api/v1/pods?")));
    drop(run.stop);
}

#[test]
fn indexes_follow_the_store() {
    let store: Store<Value> = Store::default();
    let on = |node: &str, name: &str| {
        let mut pod = pod(name, name, "1");
        pod["spec"] = json!({ "nodeName": node });
        Arc::new(pod)
    };
    store.insert(on("n1", "a"));
    store.add_index("node", |pod: &Value| vec![pod["spec"]["nodeName"].as_str().unwrap_or_default().to_string()]);
    store.insert(on("n1", "b"));
    store.insert(on("n2", "a"));
    assert_eq!(store.by_index("node", "n1").len(), 1);
    assert_eq!(store.by_index("node", "n2")[0].name(), "a");
    store.remove(&ObjectKey::new("default", "a"));
    assert_eq!(store.count_index("node", "n2"), 0);
    assert_eq!(store.index_values("node"), ["n1"]);
}
