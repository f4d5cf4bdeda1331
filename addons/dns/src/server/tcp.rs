//! Questions that come over a connection, each with its length before it (RFC 7766).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Error, MAX_CONNECTIONS, Server, Step};

/// How long a connection may rest between two questions, and a question may take to arrive.
const IDLE: Duration = Duration::from_secs(10);

pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen(address, source))
}

pub async fn serve(listener: TcpListener, server: Arc<Server>, shutdown: CancellationToken) -> Result<(), Error> {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, shutdown) = (server.clone(), shutdown.clone());
                tokio::spawn(async move {
                    let ended = tokio::select! {
                        () = shutdown.cancelled() => Ok(()),
                        ended = connection(stream, peer, &server) => ended,
                    };
                    if let Err(error) = ended {
                        tracing::debug!(%error, %peer, "connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors or a peer that left in the queue: neither ends the server.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Answers one question after the other until the peer leaves or rests for too long.
async fn connection(mut stream: TcpStream, peer: SocketAddr, server: &Server) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let read = async {
            let mut packet = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut packet).await?;
            Ok::<_, std::io::Error>(packet)
        };
        let packet = match tokio::time::timeout(IDLE, read).await {
            Ok(Ok(packet)) => packet,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let answer = match server.step(&packet, peer, true) {
            Step::Reply(answer) => Some(answer),
            Step::Ask(asking) => server.ask(&packet, asking).await,
            // Who sends what is no question sends nothing else either.
            Step::Silence => return Ok(()),
        };
        let Some(answer) = answer else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
