//! Servers that end under load: no request may fail because of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apiserver::config::StorageBackend;
use apiserver::storage::embedded::{Embedded, Options};
use apiserver::{Config, Handle, Server};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server that listens.
pub struct Running {
    pub handle: Handle,
    stop: CancellationToken,
    pub address: SocketAddr,
    pub pem: String,
}

/// Starts a server whose administrator has the token `secret`.
pub async fn start(storage: &Arc<Embedded>, dir: &std::path::Path, change: impl FnOnce(&mut Config)) -> Running {
    let tokens = dir.join("tokens");
    std::fs::write(&tokens, "secret,admin,1,system:masters\n").unwrap();
    let mut config = Config {
        bind_address: [127, 0, 0, 1].into(),
        secure_port: 0,
        cert_dir: dir.join("certs"),
        token_auth_file: Some(tokens),
        authorization_modes: vec![apiserver::config::AuthorizationMode::Rbac],
        storage: StorageBackend::Embedded { data_dir: dir.into() },
        reconcile_endpoints: false,
        ..Config::default()
    };
    change(&mut config);
    let stop = CancellationToken::new();
    let handle = Server::start_on(config, storage.clone(), stop.clone()).await.unwrap();
    let (address, pem) = (handle.addr, handle.serving_cert_pem.clone().unwrap());
    Running { handle, stop, address, pem }
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn connect(address: SocketAddr, pem: &str, two: bool) -> std::io::Result<Self> {
        let mut config = (*component_base::tls::client_config(pem.as_bytes(), None).unwrap()).clone();
        config.alpn_protocols = vec![if two { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let stream = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await?;
        let io = TokioIo::new(stream);
        Ok(if two {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            Self::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            Self::One(sender)
        })
    }

    async fn ready(&mut self) -> bool {
        match self {
            Self::One(sender) => sender.ready().await.is_ok(),
            Self::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(if matches!(self, Self::Two(_)) { format!("https://localhost{path}") } else { path.to_string() })
            .header("host", "localhost")
            .header("authorization", "Bearer secret")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(text)))
            .unwrap();
        match self {
            Self::One(sender) => sender.send_request(request).await,
            Self::Two(sender) => sender.send_request(request).await,
        }
    }
}

#[derive(Default)]
struct Tally {
    good: AtomicUsize,
    /// Sent to the one that ends, after it was told to.
    late: AtomicUsize,
    bad: parking_lot::Mutex<Vec<String>>,
}

/// Whether a request crossed the frame with which a server says farewell: it has not been looked at, so that clients may
/// ask again (RFC 9113, 6.8), and Go's do.
fn crossed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR))
}

/// Asks another server, which would know if the first one had done anything.
async fn again((address, pem): &(SocketAddr, String), method: &str, path: &str, body: &Value) -> Result<(), String> {
    let mut sender = Sender::connect(*address, pem, true).await.map_err(|error| error.to_string())?;
    let answer = sender.send(method, path, body).await.map_err(|error| error.to_string())?;
    if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
}

/// Asks the first server until nobody listens there, then the second.
async fn work(index: usize, servers: Arc<[(SocketAddr, String); 2]>, tally: Arc<Tally>, stop: [CancellationToken; 2]) {
    let two = index % 2 == 1;
    let mut at = 0;
    let mut count = 0;
    while !stop[1].is_cancelled() {
        let (address, pem) = &servers[at];
        let mut sender = match Sender::connect(*address, pem, two).await {
            Ok(sender) => sender,
            // Nobody listens: as a load balancer would find out.
            Err(_) if at == 0 => {
                at = 1;
                continue;
            }
            Err(error) => {
                tally.bad.lock().push(format!("the second server: {error}"));
                return;
            }
        };
        while !stop[1].is_cancelled() && sender.ready().await {
            count += 1;
            let name = format!("m-{index}-{count}");
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
            let (method, path, body) = if count % 3 == 0 {
                ("POST", MAPS.to_string(), map)
            } else {
                ("GET", format!("{MAPS}?limit=2"), Value::Null)
            };
            let late = at == 0 && stop[0].is_cancelled();
            match sender.send(method, &path, &body).await {
                Ok(answer) => {
                    let status = answer.status();
                    let close = answer.headers().get("connection").is_some_and(|value| value == "close");
                    if let Err(error) = answer.into_body().collect().await {
                        tally.bad.lock().push(format!("a body broke off: {error}"));
                    } else if status.is_success() {
                        tally.good.fetch_add(1, Ordering::Relaxed);
                        tally.late.fetch_add(usize::from(late), Ordering::Relaxed);
                    } else {
                        tally.bad.lock().push(format!("{method} {path}: {status}"));
                    }
                    if close {
                        break;
                    }
                }
                // It was never sent.
                Err(error) if error.is_canceled() => break,
                Err(error) if at == 0 && crossed(&error) => {
                    if let Err(error) = again(&servers[1], method, &path, &body).await {
                        tally.bad.lock().push(format!("{method} {path}, again: {error}"));
                    }
                    break;
                }
                Err(error) => {
                    tally.bad.lock().push(format!("{method} {path} two={two}: {error:?}"));
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails() {
    for delay in [Duration::ZERO, Duration::from_millis(700)] {
        let dir = tempfile::tempdir().unwrap();
        let storage = Arc::new(Embedded::open(Options { sync: false, ..Options::new(dir.path()) }).unwrap());
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::create_dir_all(&one).unwrap();
        std::fs::create_dir_all(&two).unwrap();
        let ending = start(&storage, &one, |config| config.shutdown_delay = delay).await;
        let staying = start(&storage, &two, |_| {}).await;
        let servers = Arc::new([(ending.address, ending.pem.clone()), (staying.address, staying.pem.clone())]);
        let tally = Arc::new(Tally::default());
        let over = CancellationToken::new();
        // A watch, begun before there is anything to see, sees what happens and ends without an error.
        let watch = tokio::spawn(watch(ending.address, ending.pem.clone()).await);
        let workers: Vec<_> = (0..8)
            .map(|index| tokio::spawn(work(index, servers.clone(), tally.clone(), [ending.stop.clone(), over.clone()])))
            .collect();
        while tally.good.load(Ordering::Relaxed) < 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let told = Instant::now();
        ending.stop.cancel();
        if !delay.is_zero() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut probe = Sender::connect(ending.address, &ending.pem, false).await.unwrap();
            let ready = probe.send("GET", "/readyz", &Value::Null).await.unwrap();
            assert_eq!(ready.status(), StatusCode::INTERNAL_SERVER_ERROR, "it is not ready any more");
            let mut probe = Sender::connect(ending.address, &ending.pem, false).await.unwrap();
            let live = probe.send("GET", "/livez", &Value::Null).await.unwrap();
            assert_eq!(live.status(), StatusCode::OK, "but alive");
        }
        ending.handle.server.shutdown.cancelled().await;
        assert!(told.elapsed() >= delay);
        let before = tally.good.load(Ordering::Relaxed);
        while tally.good.load(Ordering::Relaxed) < before + 200 && tally.bad.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        over.cancel();
        for worker in workers {
            worker.await.unwrap();
        }
        assert_eq!(*tally.bad.lock(), Vec::<String>::new(), "delay {delay:?}");
        if !delay.is_zero() {
            assert!(tally.late.load(Ordering::Relaxed) > 0, "it served while it was about to end");
        }
        assert!(watch.await.unwrap() > 0, "the watch saw nothing");
        // The other one has to go as well before the folder does.
        staying.stop.cancel();
    }
}

/// Begins a watch; what it gives counts the events that it sees until it ends.
async fn watch(address: SocketAddr, pem: String) -> impl Future<Output = usize> {
    let mut sender = Sender::connect(address, &pem, true).await.unwrap();
    let answer = sender.send("GET", &format!("{MAPS}?watch=true"), &Value::Null).await.unwrap();
    async move {
        let _connected = sender;
        let whole = answer.into_body().collect().await.expect("a watch ends without an error").to_bytes();
        whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_requests_are_told_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(Embedded::open(Options { sync: false, ..Options::new(dir.path()) }).unwrap());
    let server = start(&storage, dir.path(), |config| config.shutdown_send_retry_after = true).await;
    // Something that takes its time is in flight.
    let held = server.handle.server.lifecycle.request();
    server.stop.cancel();
    server.handle.server.lifecycle.closing.cancelled().await;
    for two in [false, true] {
        let mut sender = Sender::connect(server.address, &server.pem, two).await.unwrap();
        let answer = sender.send("GET", MAPS, &Value::Null).await.unwrap();
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()["retry-after"], "5");
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, "The apiserver is shutting down, please try again later.\n");
        // Over HTTP/2 the frame that says so comes after the answer.
        let closed = async {
            while sender.ready().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), closed).await.expect("the connection is closed");
        let mut sender = Sender::connect(server.address, &server.pem, two).await.unwrap();
        assert_eq!(sender.send("GET", "/livez", &Value::Null).await.unwrap().status(), StatusCode::OK);
    }
    drop(held);
    tokio::time::timeout(Duration::from_secs(20), server.handle.stopped()).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn now_and_then_a_connection_ends() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(Embedded::open(Options { sync: false, ..Options::new(dir.path()) }).unwrap());
    let server = start(&storage, dir.path(), |config| config.goaway_chance = 0.5).await;
    let ended = AtomicBool::new(false);
    let mut two = Sender::connect(server.address, &server.pem, true).await.unwrap();
    for _ in 0..100 {
        if !two.ready().await {
            ended.store(true, Ordering::Relaxed);
            break;
        }
        match two.send("GET", "/version", &Value::Null).await {
            Ok(answer) => assert_eq!(answer.status(), StatusCode::OK),
            Err(error) if error.is_canceled() => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(ended.load(Ordering::Relaxed), "no GOAWAY in a hundred requests");
    let mut one = Sender::connect(server.address, &server.pem, false).await.unwrap();
    for _ in 0..50 {
        assert!(one.ready().await, "HTTP/1.1 is left alone");
        let answer = one.send("GET", "/version", &Value::Null).await.unwrap();
        answer.into_body().collect().await.unwrap();
    }
    server.stop.cancel();
}
