//! A command's streams: WebSocket channels towards the client, SPDY streams towards the runtime.

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use proto::remotecommand::{self as channels, Message, Protocol};
use proto::spdy::{self, Headers, Role, Session, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;

use super::Wanted;

/// Opens a stream of a remote command session.
async fn open(session: &Session, kind: &str) -> Result<Stream, spdy::Closed> {
    session.open(Headers::from([("streamtype".to_owned(), vec![kind.to_owned()])])).await
}

/// WebSocket channels on one side, SPDY streams on the other.
pub(super) async fn translate<C, R>(socket: WebSocketStream<C>, protocol: Protocol, runtime: R, wanted: Wanted)
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
        channels::STDOUT
    } else if wanted.stderr {
        channels::STDERR
    } else {
        channels::ERROR
    };
    let _ = out.send(Message::Data(first, Bytes::new())).await;

    let reading = async {
        while let Some(Ok(message)) = source.next().await {
            let data: Bytes = match message {
                tungstenite::Message::Binary(data) => data,
                tungstenite::Message::Text(text) => text.into(),
                tungstenite::Message::Close(_) => break,
                _ => continue,
            };
            let sent = match protocol.decode(data) {
                Some(Message::Data(channels::STDIN, data)) => match &stdin {
                    Some(stdin) => stdin.writer().send(data).await,
                    None => Ok(()),
                },
                Some(Message::Data(channels::RESIZE, data)) => match &resize {
                    Some(resize) => resize.writer().send(data).await,
                    None => Ok(()),
                },
                Some(Message::Close(channels::STDIN)) => match &stdin {
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
        tokio::join!(forward(stdout, channels::STDOUT, out.clone()), forward(stderr, channels::STDERR, out.clone()),);
        // The status comes last: clients stop reading when they have it.
        if protocol.json_status {
            forward(Some(error), channels::ERROR, out).await;
        } else {
            if let Some(text) = failure(error).await {
                let _ = out.send(Message::Data(channels::ERROR, text.into())).await;
            }
            drop(out);
        }
    };
    let writing = async {
        while let Some(message) = queue.recv().await {
            if sink.send(framed(protocol, &message)).await.is_err() {
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

/// A message as the client's protocol has it.
pub(in crate::server) fn framed(protocol: Protocol, message: &Message) -> tungstenite::Message {
    let bytes = protocol.encode(message);
    if !protocol.base64 {
        return tungstenite::Message::Binary(bytes);
    }
    tungstenite::Utf8Bytes::try_from(bytes.clone())
        .map_or(tungstenite::Message::Binary(bytes), tungstenite::Message::Text)
}

/// What the `Status` on an error stream says of a command that failed.
async fn failure(mut error: Stream) -> Option<String> {
    let mut text = Vec::new();
    while let Some(data) = error.recv().await {
        text.extend_from_slice(&data);
    }
    let status: serde_json::Value = match serde_json::from_slice(&text) {
        Ok(status) => status,
        Err(_) => return Some(String::from_utf8_lossy(&text).into_owned()).filter(|text| !text.is_empty()),
    };
    let failed = status["status"] != "Success";
    failed.then(|| status["message"].as_str().unwrap_or_default().to_owned())
}

/// Ends a WebSocket with a normal closure. A close frame without a code is an error to upstream's
/// clients, whatever the Status before it said.
pub(in crate::server) async fn hang_up<C>(sink: &mut SplitSink<WebSocketStream<C>, tungstenite::Message>)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let frame = tungstenite::protocol::CloseFrame {
        code: tungstenite::protocol::frame::coding::CloseCode::Normal,
        reason: "".into(),
    };
    let _ = sink.send(tungstenite::Message::Close(Some(frame))).await;
}

async fn forward(stream: Option<Stream>, channel: u8, out: mpsc::Sender<Message>) {
    let Some(mut stream) = stream else { return };
    while let Some(data) = stream.recv().await {
        if out.send(Message::Data(channel, data)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio_tungstenite::tungstenite::protocol::Role as WebSocketRole;

    use super::*;

    /// A client and a runtime with [`translate`] between them.
    async fn session(wanted: Wanted) -> (WebSocketStream<tokio::io::DuplexStream>, mpsc::Receiver<Stream>, Session) {
        session_in(channels::V5, wanted).await
    }

    async fn session_in(
        protocol: &'static str,
        wanted: Wanted,
    ) -> (WebSocketStream<tokio::io::DuplexStream>, mpsc::Receiver<Stream>, Session) {
        let protocol = Protocol::negotiate([protocol], &Protocol::COMMAND).unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = WebSocketStream::from_raw_socket(far, WebSocketRole::Server, None).await;
        tokio::spawn(translate(server, protocol, ours, wanted));
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
        let wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
        let (mut client, mut streams, _runtime) = session(wanted).await;
        let mut opened = HashMap::new();
        for _ in 0..4 {
            let stream = streams.recv().await.unwrap();
            opened.insert(stream.header("streamtype").unwrap().to_owned(), stream);
        }
        assert_eq!(next(&mut client).await, data(channels::STDOUT, b""));
        client.send(data(channels::STDIN, b"in")).await.unwrap();
        let close = tungstenite::Message::Binary(Message::Close(channels::STDIN).encode());
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
        assert_eq!(next(&mut client).await, data(channels::STDERR, b"err"));
        end("stdout", b"out").await;
        assert_eq!(next(&mut client).await, data(channels::STDOUT, b"out"));
        assert_eq!(next(&mut client).await, data(channels::ERROR, b"status"));
        match next(&mut client).await {
            tungstenite::Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1000),
            other => panic!("not a close: {other:?}"),
        }
    }

    #[tokio::test]
    async fn before_version_4_failures_are_told_in_words() {
        let wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: false };
        let ends: [(&[u8], Option<&'static str>); 3] = [
            (br#"{"status":"Success"}"#, None),
            (br#"{"status":"Failure","message":"exit code 3"}"#, Some("exit code 3")),
            (b"not a status", Some("not a status")),
        ];
        for (status, expected) in ends {
            let (mut client, mut streams, _runtime) = session_in(channels::V1_BASE64, wanted).await;
            let mut opened = HashMap::new();
            for _ in 0..3 {
                let stream = streams.recv().await.unwrap();
                opened.insert(stream.header("streamtype").unwrap().to_owned(), stream);
            }
            assert_eq!(next(&mut client).await, tungstenite::Message::text("1"));
            // Neither of these two is a message.
            client.send(tungstenite::Message::text("0???")).await.unwrap();
            client.send(tungstenite::Message::text("")).await.unwrap();
            client.send(tungstenite::Message::text("0aW4=")).await.unwrap();
            assert_eq!(opened.get_mut("stdin").unwrap().recv().await.as_deref(), Some(&b"in"[..]));
            for (name, bytes) in [("stdout", &b"foo\n"[..]), ("error", status)] {
                let writer = opened[name].writer();
                writer.send(Bytes::copy_from_slice(bytes)).await.unwrap();
                writer.close().await.unwrap();
            }
            assert_eq!(next(&mut client).await, tungstenite::Message::text("1Zm9vCg=="));
            if let Some(words) = expected {
                let protocol = Protocol::negotiate([channels::V1_BASE64], &Protocol::COMMAND).unwrap();
                let message = Message::Data(channels::ERROR, Bytes::from_static(words.as_bytes()));
                assert_eq!(next(&mut client).await, framed(protocol, &message));
            }
            assert!(matches!(next(&mut client).await, tungstenite::Message::Close(Some(_))));
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_session() {
        let wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
        let (mut client, mut streams, _runtime) = session(wanted).await;
        let mut opened = Vec::new();
        for _ in 0..4 {
            opened.push(streams.recv().await.unwrap());
        }
        let kinds: Vec<&str> = opened.iter().map(|s| s.header("streamtype").unwrap()).collect();
        assert_eq!(kinds, ["error", "stdin", "stdout", "resize"]);
        client.send(data(channels::RESIZE, br#"{"Width":80,"Height":24}"#)).await.unwrap();
        assert_eq!(opened[3].recv().await.as_deref(), Some(&br#"{"Width":80,"Height":24}"#[..]));
        drop(client);
        assert_eq!(opened[1].recv().await, None);
    }
}
