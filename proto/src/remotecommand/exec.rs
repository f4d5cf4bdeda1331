//! Exec and attach: the channels of a WebSocket on one side, SPDY streams on the other.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::{WebSocketStream, tungstenite};

use super::{ERROR, Message, Protocol, RESIZE, STDERR, STDIN, STDOUT, hang_up};
use crate::spdy::{self, Headers, Role, Session, Stream};

/// The streams of a session; there is one for errors always, and one for sizes where there is a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    /// Never with a terminal, which has one output.
    pub stderr: bool,
    pub tty: bool,
}

/// Opens a stream of a remote command session.
async fn open(session: &Session, kind: &str) -> Result<Stream, spdy::Closed> {
    session.open(Headers::from([("streamtype".to_owned(), vec![kind.to_owned()])])).await
}

/// WebSocket channels on one side, SPDY streams on the other.
///
/// Returns when either side is done, with the connection to the client closed in good order.
pub async fn translate<C, R>(socket: WebSocketStream<C>, protocol: Protocol, runtime: R, wanted: Streams)
where
    C: AsyncRead + AsyncWrite + Unpin,
    R: AsyncRead + AsyncWrite + Send + 'static,
{
    let (session, _) = Session::start(runtime, Role::Client);
    let (mut sink, mut source) = socket.split();
    let opened = async {
        // The order in which upstream's client opens them.
        let error = open(&session, "error").await?;
        let stdin = if wanted.stdin { Some(open(&session, "stdin").await?) } else { None };
        let stdout = if wanted.stdout { Some(open(&session, "stdout").await?) } else { None };
        let stderr = if wanted.stderr { Some(open(&session, "stderr").await?) } else { None };
        let resize = if wanted.tty { Some(open(&session, "resize").await?) } else { None };
        Ok::<_, spdy::Closed>((error, stdin, stdout, stderr, resize))
    };
    let Ok((error, stdin, stdout, stderr, resize)) = opened.await else {
        hang_up(&mut sink).await;
        return;
    };
    let (out, mut queue) = mpsc::channel::<Message>(64);
    // An empty message tells the client that the session stands.
    let first = if wanted.stdout {
        STDOUT
    } else if wanted.stderr {
        STDERR
    } else {
        ERROR
    };
    let _ = out.send(Message::Data(first, Bytes::new())).await;

    let reading = async {
        while let Some(Ok(message)) = source.next().await {
            if matches!(message, tungstenite::Message::Close(_)) {
                break;
            }
            let sent = match protocol.decode(message) {
                Some(Message::Data(STDIN, data)) => match &stdin {
                    Some(stdin) => stdin.writer().send(data).await,
                    None => Ok(()),
                },
                Some(Message::Data(RESIZE, data)) => match &resize {
                    Some(resize) => resize.writer().send(data).await,
                    None => Ok(()),
                },
                Some(Message::Close(STDIN)) => match &stdin {
                    Some(stdin) => stdin.writer().close().await,
                    None => Ok(()),
                },
                _ => Ok(()),
            };
            if sent.is_err() {
                // The command has ended; what the client still says goes nowhere.
                std::future::pending::<()>().await;
            }
        }
    };
    let forwarding = async {
        tokio::join!(forward(stdout, STDOUT, out.clone()), forward(stderr, STDERR, out.clone()));
        // The status comes last: clients stop reading when they have it.
        if protocol.has_status() {
            forward(Some(error), ERROR, out).await;
        } else if let Some(text) = failure(error).await {
            let _ = out.send(Message::Data(ERROR, text)).await;
        }
    };
    let writing = async {
        while let Some(message) = queue.recv().await {
            if sink.send(protocol.encode(&message)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        ((), ()) = futures::future::join(forwarding, writing) => {}
    }
    drop(session);
    hang_up(&mut sink).await;
}

async fn forward(stream: Option<Stream>, channel: u8, out: mpsc::Sender<Message>) {
    let Some(mut stream) = stream else { return };
    while let Some(data) = stream.recv().await {
        if out.send(Message::Data(channel, data)).await.is_err() {
            return;
        }
    }
}

/// What older protocols say of a command that failed: the message of its status, and nothing for success.
async fn failure(mut error: Stream) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(more) = error.recv().await {
        bytes.extend_from_slice(&more);
    }
    let status: serde_json::Value = match serde_json::from_slice(&bytes) {
        Ok(status) => status,
        // Not a status: the peer speaks the old way itself.
        Err(_) => return (!bytes.is_empty()).then(|| bytes.freeze()),
    };
    match status["status"].as_str() {
        Some("Success") => None,
        _ => Some(Bytes::from(status["message"].as_str().unwrap_or_default().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio_tungstenite::tungstenite::protocol::Role as WebSocketRole;

    use super::*;
    use crate::remotecommand::{V1, V5};

    /// A client and a runtime with [`translate`] between them.
    async fn session(wanted: Streams) -> (WebSocketStream<tokio::io::DuplexStream>, mpsc::Receiver<Stream>, Session) {
        session_of(V5, wanted).await
    }

    async fn session_of(
        name: &'static str,
        wanted: Streams,
    ) -> (WebSocketStream<tokio::io::DuplexStream>, mpsc::Receiver<Stream>, Session) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = WebSocketStream::from_raw_socket(far, WebSocketRole::Server, None).await;
        tokio::spawn(translate(server, Protocol { name }, ours, wanted));
        let (runtime, streams) = Session::start(theirs, Role::Server);
        (WebSocketStream::from_raw_socket(near, WebSocketRole::Client, None).await, streams, runtime)
    }

    async fn next(client: &mut WebSocketStream<tokio::io::DuplexStream>) -> tungstenite::Message {
        client.next().await.unwrap().unwrap()
    }

    fn data(channel: u8, bytes: &'static [u8]) -> tungstenite::Message {
        tungstenite::Message::Binary(Message::Data(channel, Bytes::from_static(bytes)).encode())
    }

    #[tokio::test]
    async fn a_command_gets_its_input_to_the_end_and_its_status_comes_last() {
        let wanted = Streams { stdin: true, stdout: true, stderr: true, tty: false };
        let (mut client, mut streams, _runtime) = session(wanted).await;
        let mut opened = HashMap::new();
        for _ in 0..4 {
            let stream = streams.recv().await.unwrap();
            opened.insert(stream.header("streamtype").unwrap().to_owned(), stream);
        }
        assert_eq!(next(&mut client).await, data(STDOUT, b""));
        client.send(data(STDIN, b"in")).await.unwrap();
        let close = tungstenite::Message::Binary(Message::Close(STDIN).encode());
        client.send(close).await.unwrap();
        let mut stdin = opened.remove("stdin").unwrap();
        assert_eq!(stdin.recv().await.as_deref(), Some(&b"in"[..]));
        assert_eq!(stdin.recv().await, None);
        // The status is ready before the output is: it has to wait.
        let end = async |name: &str, bytes: &'static [u8]| {
            let writer = opened[name].writer();
            writer.send(Bytes::from_static(bytes)).await.unwrap();
            writer.close().await.unwrap();
        };
        end("error", b"status").await;
        end("stderr", b"err").await;
        assert_eq!(next(&mut client).await, data(STDERR, b"err"));
        end("stdout", b"out").await;
        assert_eq!(next(&mut client).await, data(STDOUT, b"out"));
        assert_eq!(next(&mut client).await, data(ERROR, b"status"));
        match next(&mut client).await {
            tungstenite::Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1000),
            other => panic!("not a close: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_session() {
        let wanted = Streams { stdin: true, stdout: true, stderr: false, tty: true };
        let (mut client, mut streams, _runtime) = session(wanted).await;
        let mut opened = Vec::new();
        for _ in 0..4 {
            opened.push(streams.recv().await.unwrap());
        }
        let kinds: Vec<&str> = opened.iter().map(|s| s.header("streamtype").unwrap()).collect();
        assert_eq!(kinds, ["error", "stdin", "stdout", "resize"]);
        client.send(data(RESIZE, br#"{"Width":80,"Height":24}"#)).await.unwrap();
        assert_eq!(opened[3].recv().await.as_deref(), Some(&br#"{"Width":80,"Height":24}"#[..]));
        drop(client);
        assert_eq!(opened[1].recv().await, None);
    }

    #[tokio::test]
    async fn older_protocols_get_the_message_of_a_failure_only() {
        let wanted = Streams { stdout: true, ..Default::default() };
        for (status, expected) in [
            (r#"{"status": "Success"}"#, None),
            (
                r#"{"status": "Failure", "message": "command terminated with exit code 3"}"#,
                Some("command terminated with exit code 3"),
            ),
        ] {
            let (mut client, mut streams, _runtime) = session_of(V1, wanted).await;
            let error = streams.recv().await.unwrap();
            let stdout = streams.recv().await.unwrap();
            assert_eq!(next(&mut client).await, data(STDOUT, b""));
            stdout.writer().close().await.unwrap();
            error.writer().send(Bytes::from_static(status.as_bytes())).await.unwrap();
            error.writer().close().await.unwrap();
            match (next(&mut client).await, expected) {
                (tungstenite::Message::Close(_), None) => {}
                (message, Some(text)) => assert_eq!(message, data(ERROR, text.as_bytes())),
                (message, None) => panic!("{message:?}"),
            }
        }
    }
}
