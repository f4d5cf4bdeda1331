//! Load: connections of their own, requests one after the other on each.
//!
//! The load shares its processors with the server, so it is written to cost little: HTTP/1.1 straight on the TLS
//! stream, one thread, no task per connection, bodies counted and not kept unless somebody wants them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::future::{LocalBoxFuture, try_join_all};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::subject::Endpoint;

/// What clients in a loop accept and send.
pub const JSON: &str = "application/json";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// A list item's or watch event's metadata only: what is cheapest to count.
pub const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
pub const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

const READ: usize = 64 * 1024;

/// A TLS connection for one request at a time.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    /// What was read and not used yet, from `at` on.
    buffer: Vec<u8>,
    at: usize,
    authorization: String,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: &'static str,
    pub path: String,
    pub body: String,
    pub accept: &'static str,
    pub content_type: &'static str,
    pub agent: &'static str,
}

impl Ask {
    pub fn get(path: impl Into<String>) -> Ask {
        Ask { method: "GET", path: path.into(), body: String::new(), accept: JSON, content_type: JSON, agent: "bench" }
    }

    pub fn post(path: impl Into<String>, body: &serde_json::Value) -> Ask {
        Ask { method: "POST", body: body.to_string(), ..Ask::get(path) }
    }

    pub fn accept(self, accept: &'static str) -> Ask {
        Ask { accept, ..self }
    }
}

/// The size of an answer's body, as its headers say.
enum Length {
    Known(usize),
    Chunked,
}

impl Connection {
    pub async fn open(endpoint: &Endpoint) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", endpoint.port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1").expect("an address is a name");
        let stream = TlsConnector::from(endpoint.tls.clone()).connect(name, stream).await?;
        let authorization =
            endpoint.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        Ok(Connection { stream, buffer: Vec::new(), at: 0, authorization })
    }

    pub async fn get(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        self.send(&Ask::get(path)).await
    }

    pub async fn get_json(&mut self, path: &str) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.get(path).await?)?)
    }

    /// Sends a request and gives its answer's body.
    pub async fn send(&mut self, ask: &Ask) -> anyhow::Result<Vec<u8>> {
        let mut kept = Vec::new();
        self.exchange(ask, &mut Some(&mut kept)).await?;
        Ok(kept)
    }

    /// Sends a request and gives the size of its answer's body.
    pub async fn count(&mut self, ask: &Ask) -> anyhow::Result<usize> {
        self.exchange(ask, &mut None).await
    }

    async fn exchange(&mut self, ask: &Ask, keep: &mut Option<&mut Vec<u8>>) -> anyhow::Result<usize> {
        let (code, length) = self.begin(ask).await?;
        if code >= 300 {
            let mut text = Vec::new();
            self.body(length, &mut Some(&mut text)).await?;
            bail!("{} {}: {code}: {}", ask.method, ask.path, String::from_utf8_lossy(&text));
        }
        self.body(length, keep).await
    }

    /// Sends a request and reads its answer's head.
    async fn begin(&mut self, ask: &Ask) -> anyhow::Result<(u16, Length)> {
        let request = format!(
            "{} {} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: {}\r\nAccept: {}\r\nContent-Type: {}\r\n{}Content-Length: {}\r\n\r\n{}",
            ask.method,
            ask.path,
            ask.agent,
            ask.accept,
            ask.content_type,
            self.authorization,
            ask.body.len(),
            ask.body,
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        let end = loop {
            if let Some(end) = memchr::memmem::find(&self.buffer[self.at..], b"\r\n\r\n") {
                break self.at + end;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[self.at..end]).to_ascii_lowercase();
        self.at = end + 4;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP answer")?;
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length = match header("content-length:") {
            Some(length) => Length::Known(length.parse()?),
            None if header("transfer-encoding:") == Some("chunked") => Length::Chunked,
            None => Length::Known(0),
        };
        Ok((code, length))
    }

    async fn body(&mut self, length: Length, keep: &mut Option<&mut Vec<u8>>) -> anyhow::Result<usize> {
        match length {
            Length::Known(length) => {
                self.take(length, keep).await?;
                Ok(length)
            }
            Length::Chunked => {
                let mut total = 0;
                loop {
                    let size = self.chunk_size().await?;
                    self.take(size, keep).await?;
                    self.take(2, &mut None).await?;
                    total += size;
                    if size == 0 {
                        return Ok(total);
                    }
                }
            }
        }
    }

    async fn chunk_size(&mut self) -> anyhow::Result<usize> {
        let end = loop {
            if let Some(end) = memchr::memmem::find(&self.buffer[self.at..], b"\r\n") {
                break self.at + end;
            }
            self.more().await?;
        };
        let line = std::str::from_utf8(&self.buffer[self.at..end])?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)?;
        self.at = end + 2;
        Ok(size)
    }

    async fn take(&mut self, mut count: usize, keep: &mut Option<&mut Vec<u8>>) -> anyhow::Result<()> {
        while count > 0 {
            if self.at == self.buffer.len() {
                self.more().await?;
            }
            let now = count.min(self.buffer.len() - self.at);
            if let Some(keep) = keep {
                keep.extend_from_slice(&self.buffer[self.at..self.at + now]);
            }
            self.at += now;
            count -= now;
        }
        Ok(())
    }

    /// Reads what comes next behind what is there.
    async fn more(&mut self) -> anyhow::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.reserve(READ);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }

    /// Begins a watch, whose bytes are then read as they come.
    pub async fn watch(mut self, ask: &Ask) -> anyhow::Result<Stream> {
        let (code, _) = self.begin(ask).await?;
        if code != 200 {
            bail!("{}: {code}", ask.path);
        }
        Ok(Stream { connection: self })
    }
}

/// The body of a watch, with the marks between its chunks left in: whoever looks for something in it does not
/// mind them.
pub struct Stream {
    connection: Connection,
}

impl Stream {
    /// The bytes not used yet, after at least one more was read.
    pub async fn more(&mut self) -> anyhow::Result<&[u8]> {
        self.connection.more().await?;
        Ok(&self.connection.buffer)
    }

    /// Marks bytes as used, counted from the first that [`Stream::more`] gave.
    pub fn used(&mut self, count: usize) {
        self.connection.at = count;
    }
}

/// Requests per second of `clients` connections that each send one after the other for `time`.
pub async fn rate(
    endpoint: &Endpoint,
    clients: usize,
    time: Duration,
    ask: impl Fn(usize, usize) -> Ask,
) -> anyhow::Result<f64> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(endpoint).await?);
    }
    let started = Instant::now();
    let ask = &ask;
    let clients = connections.into_iter().enumerate().map(|(client, mut connection)| async move {
        let mut done = 0;
        while started.elapsed() < time {
            connection.count(&ask(client, done)).await?;
            done += 1;
        }
        Ok::<_, anyhow::Error>(done)
    });
    let total: usize = try_join_all(clients).await?.into_iter().sum();
    Ok(total as f64 / started.elapsed().as_secs_f64())
}

/// Sends `count` requests over `clients` connections; how long that took.
pub async fn each(
    endpoint: &Endpoint,
    clients: usize,
    count: usize,
    ask: impl Fn(usize) -> Ask,
) -> anyhow::Result<Duration> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(endpoint).await?);
    }
    let started = Instant::now();
    let (ask, next) = (&ask, Rc::new(Cell::new(0)));
    let clients = connections.into_iter().map(|mut connection| {
        let next = next.clone();
        async move {
            loop {
                let number = next.replace(next.get() + 1);
                if number >= count {
                    return Ok::<_, anyhow::Error>(());
                }
                connection.count(&ask(number)).await?;
            }
        }
    });
    try_join_all(clients).await?;
    Ok(started.elapsed())
}

/// When each object of a collection appeared to a watcher, first to last, counted from the call of
/// [`arrivals`].
#[derive(Debug)]
pub struct Arrivals {
    pub times: Vec<Duration>,
}

/// Longest wait for the first object of [`arrivals`].
const FIRST: Duration = Duration::from_secs(30);

/// Watches a collection until `count` objects have appeared, or for `patience` at most from the first on. The watch has
/// begun when this returns; the future it gives reads it.
pub async fn arrivals(
    endpoint: &Endpoint,
    path: &str,
    count: usize,
    patience: Duration,
) -> anyhow::Result<LocalBoxFuture<'static, anyhow::Result<Arrivals>>> {
    let connection = Connection::open(endpoint).await?;
    let mut stream = connection.watch(&Ask::get(path).accept(METADATA)).await?;
    let started = Instant::now();
    Ok(Box::pin(async move {
        const ADDED: &[u8] = br#""type":"ADDED""#;
        let mut times: Vec<Duration> = Vec::with_capacity(count);
        while times.len() < count {
            let until = times.first().map_or(FIRST, |first| *first + patience);
            let left = until.saturating_sub(started.elapsed());
            let Ok(bytes) = tokio::time::timeout(left, stream.more()).await else { break };
            let bytes = bytes?;
            let mut used = bytes.len().saturating_sub(ADDED.len() - 1);
            for at in memchr::memmem::find_iter(bytes, ADDED) {
                times.push(started.elapsed());
                used = used.max(at + ADDED.len());
            }
            stream.used(used);
        }
        Ok(Arrivals { times })
    }))
}
