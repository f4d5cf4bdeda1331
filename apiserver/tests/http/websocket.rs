//! Watches over WebSocket, as browsers' pages have them: the handshake, the messages, who is refused.

use std::sync::Arc;
use std::time::Duration;

use apiserver::storage::embedded::{Embedded, Options};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{SinkExt as _, StreamExt as _};
use http::Request;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::drain::{Running, start};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Server {
    running: Running,
    _dir: tempfile::TempDir,
}

impl Server {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = Arc::new(Embedded::open(Options { sync: false, ..Options::new(dir.path()) }).unwrap());
        Server { running: start(&storage, dir.path(), |_| {}).await, _dir: dir }
    }

    async fn create(&self, name: &str) {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let request = Request::post(MAPS).header("content-type", "application/json").body(map.to_string().into());
        let answer = crate::Fixture::send_to(self.running.handle.admin_router(), request.unwrap()).await;
        assert_eq!(answer.code, 201, "{}", answer.text);
    }

    /// Asks for a WebSocket with these headers beside those of the handshake.
    async fn open(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(WebSocketStream<TlsStream<TcpStream>>, Option<String>), Error> {
        let tls = component_base::tls::client_config(self.running.pem.as_bytes(), None).unwrap();
        let stream = TcpStream::connect(self.running.address).await.unwrap();
        let stream = TlsConnector::from(tls).connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let mut request = Request::get(format!("wss://localhost{path}"));
        let base = [
            ("host", "localhost"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", &generate_key()),
        ];
        for (name, value) in base.iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let (socket, answer) = tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await?;
        let protocol = answer.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap().to_string());
        Ok((socket, protocol))
    }

    /// The code with which a handshake is refused.
    async fn refusal(&self, path: &str, headers: &[(&str, &str)]) -> u16 {
        match self.open(path, headers).await {
            Err(Error::Http(answer)) => answer.status().as_u16(),
            Err(other) => panic!("{other}"),
            Ok(_) => 101,
        }
    }
}

async fn event(socket: &mut WebSocketStream<TlsStream<TcpStream>>) -> Value {
    let message = tokio::time::timeout(Duration::from_secs(60), socket.next()).await.expect("an event");
    match message.expect("a message").expect("sound") {
        Message::Text(text) => {
            assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text:?}");
            serde_json::from_str(&text).unwrap()
        }
        other => panic!("no event: {other:?}"),
    }
}

const TOKEN: (&str, &str) = ("authorization", "Bearer secret");
const ORIGIN: (&str, &str) = ("origin", "https://pages.example.com");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_one_a_message() {
    let server = Server::new().await;
    for name in ["a", "b"] {
        server.create(name).await;
    }
    let path = format!("{MAPS}?watch=true");
    let (mut socket, protocol) = server.open(&path, &[TOKEN, ORIGIN]).await.unwrap();
    assert_eq!(protocol, None);
    let named = |event: &Value| (event["type"].clone(), event["object"]["metadata"]["name"].clone());
    // Two that were there, which one chunk of a plain watch has together.
    for name in ["a", "b"] {
        assert_eq!(named(&event(&mut socket).await), ("ADDED".into(), name.into()));
    }
    server.create("c").await;
    assert_eq!(named(&event(&mut socket).await), ("ADDED".into(), "c".into()));
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}

    // The end of a watch is an end in order.
    let (mut socket, _) =
        server.open(&format!("{path}&resourceVersion=1&timeoutSeconds=1"), &[TOKEN, ORIGIN]).await.unwrap();
    let mut last = None;
    while let Some(Ok(message)) = socket.next().await {
        last = Some(message);
    }
    assert!(matches!(last, Some(Message::Close(Some(frame))) if u16::from(frame.code) == 1000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_come_as_a_subprotocol() {
    let server = Server::new().await;
    let path = format!("{MAPS}?watch=true");
    let token = |token: &str| format!("base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode(token));
    let offer = format!("page, {}", token("secret"));
    let (_socket, protocol) = server.open(&path, &[ORIGIN, ("sec-websocket-protocol", &offer)]).await.unwrap();
    assert_eq!(protocol.as_deref(), Some("page"), "the token is not answered");
    for bad in
        [format!("page, {}", token("wrong")), token("secret"), "page, base64url.bearer.authorization.k8s.io.!".into()]
    {
        assert_eq!(server.refusal(&path, &[ORIGIN, ("sec-websocket-protocol", &bad)]).await, 401, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_refused() {
    let server = Server::new().await;
    let path = format!("{MAPS}?watch=true");
    assert_eq!(server.refusal(&path, &[TOKEN]).await, 403, "no origin");
    assert_eq!(server.refusal(&path, &[TOKEN, ("origin", "null")]).await, 403);
    assert_eq!(server.refusal(&path, &[TOKEN, ORIGIN, ("sec-websocket-protocol", "a, b")]).await, 400);
    assert_eq!(server.refusal(&path, &[ORIGIN, ("authorization", "Bearer wrong")]).await, 401);
    // What is wrong with the request itself is told as ever.
    assert_eq!(server.refusal(&format!("{path}&labelSelector=%3D%3D"), &[TOKEN, ORIGIN]).await, 400);
    // A client that says what nobody wants to hear is heard out.
    let (mut socket, _) = server.open(&path, &[TOKEN, ORIGIN]).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    server.create("late").await;
    assert_eq!(event(&mut socket).await["object"]["metadata"]["name"], "late");
}
