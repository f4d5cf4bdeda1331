//! Port-forward over plain WebSocket channels (`v4.channel.k8s.io` and its kin), which client libraries use: two
//! channels per port, data and error, each opened by the server with the port's number.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::remotecommand::{Message, Protocol};
use proto::spdy::{self, Headers, Role, Session, Stream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite;

use super::streaming::{Socket, framed};

/// The channels of the port at `index`: data and error.
fn channels(index: usize) -> Option<(u8, u8)> {
    let data = u8::try_from(index * 2).ok()?;
    Some((data, data.checked_add(1)?))
}

/// Joins the channels of a client with a runtime's port-forward session, until either side is done.
pub(super) async fn translate(socket: Socket, protocol: Protocol, runtime: Upgraded, ports: Vec<u16>) {
    let (session, _) = Session::start(TokioIo::new(runtime), Role::Client);
    let (mut sink, mut source) = socket.split();
    let (out, mut queue) = mpsc::channel::<Message>(64);
    let mut writers = Vec::new();
    let mut forwards = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let Some((data_channel, error_channel)) = channels(index) else { break };
        let Ok((error, data)) = open(&session, port, index).await else { break };
        for channel in [data_channel, error_channel] {
            let number = Bytes::copy_from_slice(&port.to_le_bytes());
            let _ = out.send(Message::Data(channel, number)).await;
        }
        writers.push(data.writer());
        forwards.push(forward(data, data_channel, out.clone()));
        forwards.push(forward(error, error_channel, out.clone()));
    }
    drop(out);
    let reading = async {
        while let Some(Ok(message)) = source.next().await {
            let data = match message {
                tungstenite::Message::Binary(data) => data,
                tungstenite::Message::Text(text) => text.into(),
                tungstenite::Message::Close(_) => return,
                _ => continue,
            };
            if let Some(Message::Data(channel, data)) = protocol.decode(data) {
                let index = usize::from(channel / 2);
                if let Some(writer) = writers.get(index).filter(|_| channel % 2 == 0) {
                    // A port whose other end has closed swallows what is still sent to it.
                    let _ = writer.send(data).await;
                }
            }
        }
    };
    let writing = async {
        while let Some(message) = queue.recv().await {
            if sink.send(framed(protocol, &message)).await.is_err() {
                return;
            }
        }
    };
    let forwarding = futures::future::join_all(forwards);
    tokio::select! {
        () = reading => {}
        _ = futures::future::join(forwarding, writing) => {}
    }
    super::streaming::hang_up(&mut sink).await;
}

/// The error and the data stream of one forwarded connection. The client's side of the error stream is
/// closed at once: it only listens there.
async fn open(session: &Session, port: u16, request: usize) -> Result<(Stream, Stream), spdy::Closed> {
    let headers = |kind: &str| {
        Headers::from([
            ("streamtype".to_owned(), vec![kind.to_owned()]),
            ("port".to_owned(), vec![port.to_string()]),
            ("requestid".to_owned(), vec![request.to_string()]),
        ])
    };
    let error = session.open(headers("error")).await?;
    error.writer().close().await?;
    let data = session.open(headers("data")).await?;
    Ok((error, data))
}

async fn forward(mut stream: Stream, channel: u8, out: mpsc::Sender<Message>) {
    while let Some(data) = stream.recv().await {
        if out.send(Message::Data(channel, data)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_of_ports() {
        assert_eq!(channels(0), Some((0, 1)));
        assert_eq!(channels(3), Some((6, 7)));
        assert_eq!(channels(200), None);
    }
}
