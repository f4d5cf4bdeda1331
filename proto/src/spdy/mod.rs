//! SPDY/3.1 as Kubernetes uses it for exec, attach and port-forward: multiplexed streams over a
//! connection that an HTTP/1.1 upgrade handed over.
//!
//! [`Session`] runs over any byte stream, as the side that dialled (odd stream ids) or the one that
//! accepted (even). Flow-control windows are neither sent nor honoured, as by Kubernetes' own peers;
//! back-pressure comes from the connection.

mod dictionary;
mod frame;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

pub use frame::{Decoder, Encoder, Error as FrameError, Frame, Headers};

/// The upgrade token of this protocol.
pub const UPGRADE: &str = "SPDY/3.1";

/// Frames queued between a stream and its reader before the connection as a whole stops being read.
const STREAM_QUEUE: usize = 256;
/// Bytes of one data frame; what Kubernetes' peers write.
const CHUNK: usize = 32 * 1024;

/// A stream could not be opened or written because the connection is gone.
#[derive(Debug, thiserror::Error)]
#[error("SPDY connection closed")]
pub struct Closed;

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Dialled: opens odd streams.
    Client,
    /// Accepted: opens even streams.
    Server,
}

enum Command {
    Register { id: u32, data: mpsc::Sender<Bytes> },
    Send(Frame),
}

/// A handle on a running connection; the connection ends when every handle and stream is dropped, or
/// when the peer goes away.
#[derive(Clone)]
pub struct Session {
    commands: mpsc::Sender<Command>,
    next: Arc<AtomicU32>,
}

/// One stream: read with [`Stream::recv`], write through [`Stream::writer`].
pub struct Stream {
    headers: Headers,
    data: mpsc::Receiver<Bytes>,
    writer: StreamWriter,
}

/// The writing half of a stream.
#[derive(Clone)]
pub struct StreamWriter {
    id: u32,
    commands: mpsc::Sender<Command>,
}

impl Session {
    /// Runs the protocol over `io`. The receiver yields the streams that the peer opens.
    pub fn start<IO>(io: IO, role: Role) -> (Self, mpsc::Receiver<Stream>)
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (commands, queue) = mpsc::channel(STREAM_QUEUE);
        let (accepted, incoming) = mpsc::channel(64);
        let first = if role == Role::Client { 1 } else { 2 };
        let session = Self { commands: commands.clone(), next: Arc::new(AtomicU32::new(first)) };
        tokio::spawn(run(io, role, queue, commands.downgrade(), accepted));
        (session, incoming)
    }

    /// Opens a stream. Does not wait for the reply: data may follow at once, as the peers allow.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Closed> {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let (data_tx, data) = mpsc::channel(STREAM_QUEUE);
        self.commands.send(Command::Register { id, data: data_tx }).await.map_err(|_| Closed)?;
        let syn = Frame::SynStream { id, fin: false, headers: headers.clone() };
        self.commands.send(Command::Send(syn)).await.map_err(|_| Closed)?;
        Ok(Stream { headers, data, writer: StreamWriter { id, commands: self.commands.clone() } })
    }
}

impl Stream {
    /// The first value of a header, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.first().map(String::as_str)
    }

    /// The next bytes; `None` once the peer has half-closed or reset the stream.
    pub async fn recv(&mut self) -> Option<Bytes> {
        self.data.recv().await
    }

    /// A handle to write with.
    pub fn writer(&self) -> StreamWriter {
        self.writer.clone()
    }
}

impl StreamWriter {
    /// Sends bytes, in chunks.
    pub async fn send(&self, mut data: Bytes) -> Result<(), Closed> {
        while !data.is_empty() {
            let chunk = data.split_to(data.len().min(CHUNK));
            let frame = Frame::Data { id: self.id, fin: false, data: chunk };
            self.commands.send(Command::Send(frame)).await.map_err(|_| Closed)?;
        }
        Ok(())
    }

    /// Half-closes: the peer reads end of file.
    pub async fn close(&self) -> Result<(), Closed> {
        let frame = Frame::Data { id: self.id, fin: true, data: Bytes::new() };
        self.commands.send(Command::Send(frame)).await.map_err(|_| Closed)
    }

    /// Aborts both directions.
    pub async fn reset(&self) -> Result<(), Closed> {
        self.commands.send(Command::Send(Frame::RstStream { id: self.id, status: 5 })).await.map_err(|_| Closed)
    }
}

/// Owns the connection: writes what is queued, reads frames and hands them to their streams.
async fn run<IO>(
    io: IO,
    role: Role,
    mut queue: mpsc::Receiver<Command>,
    commands: mpsc::WeakSender<Command>,
    accepted: mpsc::Sender<Stream>,
) where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(io);
    let (register_tx, mut registrations) = mpsc::unbounded_channel();
    let (control_tx, mut control) = mpsc::unbounded_channel::<Frame>();

    let writing = async move {
        let mut encoder = Encoder::default();
        let mut out = BytesMut::new();
        loop {
            tokio::select! {
                Some(frame) = control.recv() => encoder.encode(&frame, &mut out),
                command = queue.recv() => match command {
                    None => break,
                    Some(Command::Register { id, data }) => {
                        let _ = register_tx.send((id, data));
                        continue;
                    }
                    Some(Command::Send(frame)) => encoder.encode(&frame, &mut out),
                },
            }
            while let Ok(frame) = control.try_recv() {
                encoder.encode(&frame, &mut out);
            }
            if writer.write_all(&out).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            out.clear();
        }
        let _ = writer.shutdown().await;
    };

    let reading = async move {
        let mut streams: HashMap<u32, mpsc::Sender<Bytes>> = HashMap::new();
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            loop {
                let frame = match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(_) => return,
                };
                // A stream is registered before its SYN_STREAM is written, so its replies find it here.
                while let Ok((id, data)) = registrations.try_recv() {
                    streams.insert(id, data);
                }
                match frame {
                    Frame::SynStream { id, fin, headers } => {
                        let (data_tx, data) = mpsc::channel(STREAM_QUEUE);
                        let Some(commands) = commands.upgrade() else {
                            return;
                        };
                        if !fin {
                            streams.insert(id, data_tx);
                        }
                        let _ = control_tx.send(Frame::SynReply { id, fin: false, headers: Headers::new() });
                        let stream = Stream { headers, data, writer: StreamWriter { id, commands } };
                        if accepted.send(stream).await.is_err() {
                            let _ = control_tx.send(Frame::RstStream { id, status: 3 });
                            streams.remove(&id);
                        }
                    }
                    Frame::SynReply { id, fin, .. } => {
                        if fin {
                            streams.remove(&id);
                        }
                    }
                    Frame::RstStream { id, .. } => {
                        streams.remove(&id);
                    }
                    Frame::Data { id, fin, data } => {
                        if !data.is_empty()
                            && let Some(stream) = streams.get(&id)
                        {
                            // A dropped reader discards the rest of its stream, not the connection.
                            let _ = stream.send(data).await;
                        }
                        if fin {
                            streams.remove(&id);
                        }
                    }
                    Frame::Ping { id } => {
                        let theirs = (id % 2 == 1) == (role == Role::Server);
                        if theirs {
                            let _ = control_tx.send(Frame::Ping { id });
                        }
                    }
                    Frame::GoAway { .. } | Frame::Ignored => {}
                }
            }
            match reader.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };

    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_carry_data_both_ways_and_half_close() {
        let (a, b) = tokio::io::duplex(4096);
        let (client, _none) = Session::start(a, Role::Client);
        let (_server, mut incoming) = Session::start(b, Role::Server);
        let headers = Headers::from([("streamtype".to_owned(), vec!["stdin".to_owned()])]);
        let mut near = client.open(headers).await.unwrap();
        near.writer().send(Bytes::from(vec![7u8; 100_000])).await.unwrap();
        near.writer().close().await.unwrap();
        let mut far = incoming.recv().await.unwrap();
        assert_eq!(far.header("streamtype"), Some("stdin"));
        let mut total = 0;
        while let Some(data) = far.recv().await {
            total += data.len();
        }
        assert_eq!(total, 100_000);
        far.writer().send(Bytes::from_static(b"bye")).await.unwrap();
        far.writer().close().await.unwrap();
        assert_eq!(near.recv().await.as_deref(), Some(&b"bye"[..]));
        assert_eq!(near.recv().await, None);
    }

    #[tokio::test]
    async fn a_lost_connection_ends_every_stream() {
        let (a, b) = tokio::io::duplex(4096);
        let (client, _none) = Session::start(a, Role::Client);
        let mut stream = client.open(Headers::new()).await.unwrap();
        drop(b);
        assert_eq!(stream.recv().await, None);
    }
}
