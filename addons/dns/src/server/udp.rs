//! Questions that come in a packet each.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::{Error, Server, Step};

/// Longer than any question: a name and an extension.
const LARGEST: usize = 4096;

pub async fn bind(address: SocketAddr) -> Result<Arc<UdpSocket>, Error> {
    let socket = UdpSocket::bind(address).await.map_err(|source| Error::Listen(address, source))?;
    Ok(Arc::new(socket))
}

pub async fn serve(socket: Arc<UdpSocket>, server: Arc<Server>, shutdown: CancellationToken) -> Result<(), Error> {
    let mut buffer = vec![0; LARGEST];
    loop {
        let (length, peer) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // What a peer's machine said to an answer of before.
                Err(error) if error.raw_os_error().is_some() => {
                    tracing::debug!(%error, "a packet was not received");
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(source) => {
                    let address = socket.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
                    return Err(Error::Read(address, source));
                }
            },
        };
        match server.step(&buffer[..length], peer, false) {
            Step::Reply(answer) => send(&socket, &answer, peer).await,
            Step::Ask(asking) => {
                let (socket, server, packet) = (socket.clone(), server.clone(), buffer[..length].to_vec());
                tokio::spawn(async move {
                    if let Some(answer) = server.ask(&packet, asking).await {
                        send(&socket, &answer, peer).await;
                    }
                });
            }
            Step::Silence => {}
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(answer, peer).await {
        tracing::debug!(%error, %peer, "an answer was not sent");
    }
}
