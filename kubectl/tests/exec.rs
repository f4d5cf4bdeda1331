//! Streaming: `exec` against a server in this process that speaks v5.channel.k8s.io.
//!
//! The command echoes its input in capitals and ends with code 3, so that output, error, the end of
//! input and the exit code all have to come through.

#[allow(dead_code, reason = "each test uses a part")]
mod fake;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::Cursor;

use fake::{Buffer, Fake};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use kubectl::streams::{Output, Streams};
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

async fn serve(listener: tokio::net::TcpListener, fake: Fake) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        let client = fake.client();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(request, client.clone()));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            let _ = connection.with_upgrades().await;
        });
    }
}

async fn answer(mut request: Request<Incoming>, client: kube::Client) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(key) = request.headers().get("sec-websocket-key").cloned() {
        let query = request.uri().query().unwrap_or("").to_owned();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let upgraded = upgrade.await.expect("an upgrade");
            command(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await, &query).await;
        });
        return Ok(Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", derive_accept_key(key.as_bytes()))
            .header("sec-websocket-protocol", "v5.channel.k8s.io")
            .body(Full::default())
            .expect("a response"));
    }
    let (parts, _) = request.into_parts();
    let forwarded = Request::from_parts(parts, kube::client::Body::empty());
    let (parts, body) = client.send(forwarded).await.expect("the fake answers").into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    Ok(Response::from_parts(parts, Full::new(bytes)))
}

async fn command<S>(mut socket: WebSocketStream<S>, query: &str)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let send = |channel: u8, text: &str| Message::Binary([&[channel], text.as_bytes()].concat().into());
    socket.send(send(1, &format!("{query}\n"))).await.expect("sent");
    socket.send(send(2, "a warning\n")).await.expect("sent");
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else { continue };
        match bytes.as_ref() {
            [0, input @ ..] => {
                let text = String::from_utf8_lossy(input).to_uppercase();
                socket.send(send(1, &text)).await.expect("sent");
            }
            [255, 0] => break,
            _ => {}
        }
    }
    let status = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "…",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
    socket.send(send(3, &status.to_string())).await.expect("sent");
    let _ = socket.close(None).await;
}

#[tokio::test]
async fn streams_and_exit_code() {
    let fake = Fake::default();
    fake.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": {"phase": "Running"}}));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(serve(listener, fake));
    let client = kube::Client::try_from(kube::Config::new(url.parse().expect("a URL"))).expect("a client");
    let (out, err) = (Buffer::default(), Buffer::default());
    let streams = Streams {
        out: Output::new(out.clone()),
        err: Output::new(err.clone()),
        stdin: RefCell::new(Box::new(Cursor::new("some input"))),
        out_is_terminal: false,
        in_is_terminal: false,
    };
    let args: Vec<String> = ["exec", "-i", "p", "--", "cat", "-"].map(str::to_owned).to_vec();
    let code = kubectl::run(&args, streams, Some(client)).await;
    assert_eq!(code, 3, "{}", err.text());
    assert_eq!(out.text(), "command=cat&command=-&container=a&stdin=true&stdout=true&stderr=true\nSOME INPUT");
    assert_eq!(err.text(), "Defaulted container \"a\" out of: a, b\na warning\ncommand terminated with exit code 3\n");
}
