//! Load: connections of their own, requests one after the other on each, and watchers that note delays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::server::Server;

/// A TLS connection for one request at a time.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub async fn open(server: &Server) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1").expect("an address is a name");
        let stream = TlsConnector::from(server.tls.clone()).connect(name, stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender })
    }

    pub async fn get(&mut self, path: &str, accept: &str) -> anyhow::Result<Bytes> {
        self.send("GET", path, None, accept).await
    }

    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<String>,
        accept: &str,
    ) -> anyhow::Result<Bytes> {
        let answer = self.start(method, path, body, accept).await?;
        Ok(answer.into_body().collect().await?.to_bytes())
    }

    async fn start(
        &mut self,
        method: &str,
        path: &str,
        body: Option<String>,
        accept: &str,
    ) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1")
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        if !answer.status().is_success() {
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(answer)
    }
}

type Wanted = (&'static str, String, Option<String>);

/// Requests per second of `clients` connections that each send one after the other.
pub async fn rate(
    server: &Server,
    clients: usize,
    time: Duration,
    request: impl Fn(usize, usize) -> Wanted + Send + Sync + 'static,
) -> anyhow::Result<f64> {
    let request = Arc::new(request);
    let mut tasks = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(server).await?);
    }
    let started = Instant::now();
    for (client, mut connection) in connections.into_iter().enumerate() {
        let request = request.clone();
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            while started.elapsed() < time {
                let (method, path, body) = request(client, done);
                connection.send(method, &path, body, "application/json").await?;
                done += 1;
            }
            Ok::<_, anyhow::Error>(done)
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await??;
    }
    Ok(total as f64 / started.elapsed().as_secs_f64())
}

/// Sends `count` requests over `clients` connections.
pub async fn each(
    server: &Server,
    clients: usize,
    count: usize,
    request: impl Fn(usize) -> Wanted + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let (request, next) = (Arc::new(request), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let mut connection = Connection::open(server).await?;
        let (request, next) = (request.clone(), next.clone());
        tasks.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, anyhow::Error>(());
                }
                let (method, path, body) = request(number);
                connection.send(method, &path, body, "application/json").await?;
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

const WATCHED: &str = "/api/v1/namespaces/kube-public/configmaps";

/// Delays from the sending of a write to its arrival, over all watchers, sorted.
pub async fn fan_out(
    server: &Server,
    watchers: usize,
    per_second: u32,
    time: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let mut tasks = Vec::new();
    let end = Instant::now() + time + Duration::from_secs(30);
    let events = (time.as_secs_f64() * f64::from(per_second)) as usize;
    for _ in 0..watchers {
        let mut connection = Connection::open(server).await?;
        let answer = connection.start("GET", &format!("{WATCHED}?watch=true"), None, "application/json").await?;
        tasks.push(tokio::spawn(read_events(connection, answer, events, end)));
    }
    let mut writer = Connection::open(server).await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    for number in 0..events {
        ticks.tick().await;
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("watched-{number}")},
            "data": {"sent": now_us().to_string()},
        });
        writer.send("POST", WATCHED, Some(map.to_string()), "application/json").await?;
    }
    let mut delays = Vec::new();
    for task in tasks {
        delays.extend(task.await??);
    }
    delays.sort();
    Ok(delays)
}

/// Reads frames, a line each, until every event has come.
async fn read_events(
    _open: Connection,
    answer: http::Response<hyper::body::Incoming>,
    events: usize,
    end: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let (mut body, mut rest, mut delays) = (answer.into_body(), Vec::new(), Vec::with_capacity(events));
    while delays.len() < events {
        let frame = tokio::time::timeout_at(end.into(), body.frame()).await.context("events are missing")?;
        let data = frame.context("the watch ended")??.into_data().unwrap_or_default();
        let arrived = now_us();
        rest.extend_from_slice(&data);
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=at).collect();
            if let Some(sent) = sent(&line) {
                delays.push(Duration::from_micros(arrived.saturating_sub(sent)));
            }
        }
    }
    Ok(delays)
}

/// The time in an event, found without parsing: the reader shares its processor with the server.
fn sent(line: &[u8]) -> Option<u64> {
    const KEY: &[u8] = br#""sent":""#;
    let at = line.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits: Vec<u8> = line[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(now.as_micros()).expect("centuries away")
}
