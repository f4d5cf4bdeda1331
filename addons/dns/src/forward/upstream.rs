//! One server that is asked.

use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::wire;
use crate::message::TCP_SIZE;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a server that failed is asked after all others.
const REST: Duration = Duration::from_secs(5);

/// How a server is asked: the way in which we were, because who came by TCP wants what does not fit into UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A server that is asked.
pub struct Upstream {
    address: SocketAddr,
    /// Until when it is asked last, in milliseconds of the monotonic clock; 0 when it answers.
    rests_until: AtomicU64,
}

impl Upstream {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, rests_until: AtomicU64::new(0) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn answered(&self) {
        self.rests_until.store(0, Ordering::Relaxed);
    }

    pub fn failed(&self, now: Duration) {
        self.rests_until.store(milliseconds(now + REST), Ordering::Relaxed);
    }

    pub fn is_failing(&self, now: Duration) -> bool {
        self.rests_until.load(Ordering::Relaxed) > milliseconds(now)
    }

    /// Sends a question, under a number that nobody can guess, and gives the answer to it under its own.
    ///
    /// # Errors
    /// The network's, and `TimedOut` when there is no answer in time.
    pub async fn exchange(&self, question: &[u8], transport: Transport) -> Result<Vec<u8>> {
        let mut sent = question.to_vec();
        sent[..2].copy_from_slice(&rand::random::<[u8; 2]>());
        let exchange = async {
            match transport {
                Transport::Udp => self.over_udp(&sent).await,
                Transport::Tcp => self.over_tcp(&sent).await,
            }
        };
        let timeout = tokio::time::timeout(PATIENCE, exchange).await;
        let mut answer = timeout.map_err(|_| Error::from(ErrorKind::TimedOut))??;
        answer[..2].copy_from_slice(&question[..2]);
        Ok(answer)
    }

    async fn over_udp(&self, question: &[u8]) -> Result<Vec<u8>> {
        let any: SocketAddr = match self.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        // A port of its own for each question, which again nobody can guess; connected, so that nobody else is heard.
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.address).await?;
        socket.send(question).await?;
        let mut buffer = vec![0; TCP_SIZE];
        loop {
            let length = socket.recv(&mut buffer).await?;
            // What does not belong may be made up, or late: the answer is still to come.
            if wire::belongs(&buffer[..length], question) {
                return Ok(buffer[..length].to_vec());
            }
        }
    }

    async fn over_tcp(&self, question: &[u8]) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address).await?;
        let length = u16::try_from(question.len()).map_err(|_| ErrorKind::InvalidInput)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(question);
        stream.write_all(&framed).await?;
        loop {
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            if wire::belongs(&answer, question) {
                return Ok(answer);
            }
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
