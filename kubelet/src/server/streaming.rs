//! Exec, attach and port-forward. The runtime serves the streams; the kubelet asks it for an address and
//! stands between.
//!
//! Runtimes speak SPDY/3.1. A client that speaks it too gets bytes passed through. A WebSocket client
//! gets its channels translated to SPDY streams, in whichever protocol of channels it asked for; a
//! port-forward tunnel (`SPDY/3.1+portforward.k8s.io`) gets its messages unwrapped; plain port-forward
//! channels are `ports`' work.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::cri;
use proto::remotecommand::{self as channels, Message, Protocol};
use proto::spdy::{self, Headers, Role, Session, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role as WebSocketRole;

use super::{Server, query, refuse};
use crate::pod::PodExt;
use crate::runtime::state::State as ContainerState;

const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
type Params = Path<HashMap<String, String>>;
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    /// From the query; a terminal has no separate error output.
    fn read(query: &[(String, String)]) -> Result<Self, &'static str> {
        let on = |names: [&str; 2]| {
            query.iter().any(|(k, v)| names.contains(&k.as_str()) && matches!(v.as_str(), "1" | "true"))
        };
        let tty = on(["tty", "tty"]);
        let wanted = Self {
            stdin: on(["input", "stdin"]),
            stdout: on(["output", "stdout"]),
            stderr: on(["error", "stderr"]) && !tty,
            tty,
        };
        if !wanted.stdin && !wanted.stdout && !wanted.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr");
        }
        Ok(wanted)
    }
}

pub(super) async fn exec(State(server): State<Arc<Server>>, Path(params): Params, request: Request) -> Response {
    let query = query(&request);
    let wanted = match Wanted::read(&query) {
        Ok(wanted) => wanted,
        Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
    };
    let id = match running_container(&server, &params).await {
        Ok(id) => id,
        Err(response) => return *response,
    };
    let address = server.cri.exec(cri::ExecRequest {
        container_id: id,
        cmd: query.into_iter().filter(|(k, _)| k == "command").map(|(_, v)| v).collect(),
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    });
    match address.await {
        Ok(address) => connect(request, &address, Some(wanted)).await,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    }
}

pub(super) async fn attach(State(server): State<Arc<Server>>, Path(params): Params, request: Request) -> Response {
    let wanted = match Wanted::read(&query(&request)) {
        Ok(wanted) => wanted,
        Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
    };
    let id = match running_container(&server, &params).await {
        Ok(id) => id,
        Err(response) => return *response,
    };
    // Whether there is a terminal is the container's own property.
    let pod = server.workers.find(&params["namespace"], &params["pod"]);
    let tty = pod.and_then(|p| p.container(&params["container"])).and_then(|(_, c)| c.tty).unwrap_or(false);
    let wanted = Wanted { tty, stderr: wanted.stderr && !tty, ..wanted };
    let address = server.cri.attach(cri::AttachRequest {
        container_id: id,
        stdin: wanted.stdin,
        tty,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    });
    match address.await {
        Ok(address) => connect(request, &address, Some(wanted)).await,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    }
}

pub(super) async fn port_forward(
    State(server): State<Arc<Server>>,
    Path(params): Params,
    request: Request,
) -> Response {
    let Some(pod) = server.workers.find(&params["namespace"], &params["pod"]) else {
        return refuse(StatusCode::NOT_FOUND, "pod does not exist");
    };
    if params.get("uid").is_some_and(|uid| uid != pod.uid()) {
        return refuse(StatusCode::NOT_FOUND, "pod does not exist");
    }
    let state = match crate::runtime::state::read(&server.cri, pod.uid()).await {
        Ok(state) => state,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    };
    let Some(sandbox) = state.ready_sandbox() else {
        return refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("failed to find sandbox for pod {:?}", pod.described()),
        );
    };
    let ports = query(&request).into_iter().filter(|(k, _)| k == "port" || k == "ports");
    let port = ports.filter_map(|(_, v)| v.parse().ok()).collect();
    match server.cri.port_forward(cri::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port }).await {
        Ok(address) => connect(request, &address, None).await,
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    }
}

/// `POST /run/…?cmd=…`: a command to its end, its output as the answer.
pub(super) async fn run(State(server): State<Arc<Server>>, Path(params): Params, request: Request) -> Response {
    let id = match running_container(&server, &params).await {
        Ok(id) => id,
        Err(response) => return *response,
    };
    let query = query(&request);
    let text = query.iter().find(|(k, _)| k == "cmd").map(|(_, v)| v.as_str()).unwrap_or_default();
    let command: Vec<String> = text.split(' ').map(str::to_owned).collect();
    match server.cri.exec_sync(&id, &command, 0).await {
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            let status = if answer.exit_code == 0 { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            (status, output).into_response()
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    }
}

async fn running_container(server: &Server, params: &HashMap<String, String>) -> Result<String, Box<Response>> {
    let fail = |status, text: String| Err(Box::new(refuse(status, text)));
    let Some(pod) = server.workers.find(&params["namespace"], &params["pod"]) else {
        return fail(StatusCode::NOT_FOUND, "pod does not exist".into());
    };
    if params.get("uid").is_some_and(|uid| uid != pod.uid()) {
        return fail(StatusCode::NOT_FOUND, "pod does not exist".into());
    }
    let state = match crate::runtime::state::read(&server.cri, pod.uid()).await {
        Ok(state) => state,
        Err(error) => return fail(StatusCode::INTERNAL_SERVER_ERROR, error.message),
    };
    let name = &params["container"];
    match state.find(name).filter(|c| c.state == ContainerState::Running) {
        Some(found) => Ok(found.id.clone()),
        None => fail(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({name:?})")),
    }
}

/// Which way a client wants to be served.
enum Upgrade {
    Spdy,
    WebSocket(Protocol),
}

fn upgrade_of(headers: &HeaderMap, port_forward: bool) -> Result<Upgrade, Box<Response>> {
    let token = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if token.eq_ignore_ascii_case(spdy::UPGRADE) {
        return Ok(Upgrade::Spdy);
    }
    if token.eq_ignore_ascii_case("websocket") {
        let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
        let offered = offered.flat_map(|v| v.split(',')).map(str::trim);
        let offered: Vec<&str> = offered.filter(|name| !name.is_empty()).collect();
        let protocol = if port_forward && offered.contains(&channels::SPDY_TUNNEL) {
            Some(Protocol::TUNNEL)
        } else if port_forward {
            Protocol::negotiate(offered.iter().copied(), &Protocol::PORT_FORWARD)
        } else {
            Protocol::negotiate(offered.iter().copied(), &Protocol::COMMAND)
        };
        return protocol.map(Upgrade::WebSocket).ok_or_else(|| {
            let text = format!("requested protocol(s) are not supported: [{}]", offered.join(" "));
            Box::new(refuse(StatusCode::FORBIDDEN, text))
        });
    }
    Err(Box::new(refuse(
        StatusCode::BAD_REQUEST,
        "you must upgrade: unable to upgrade: missing upgrade headers in request",
    )))
}

/// Connects a client to the runtime's streaming server at `address`.
async fn connect(mut request: Request, address: &str, wanted: Option<Wanted>) -> Response {
    let upgrade = match upgrade_of(request.headers(), wanted.is_none()) {
        Ok(upgrade) => upgrade,
        Err(response) => return *response,
    };
    let client = hyper::upgrade::on(&mut request);
    let protocols: Vec<HeaderValue> = match upgrade {
        Upgrade::Spdy => request.headers().get_all(STREAM_PROTOCOL).iter().cloned().collect(),
        Upgrade::WebSocket(_) if wanted.is_none() => vec![HeaderValue::from_static(channels::PORT_FORWARD_V1)],
        Upgrade::WebSocket(_) => vec![HeaderValue::from_static(channels::V4)],
    };
    let (runtime, answer) = match dial(address, &protocols).await {
        Ok(Dialed::Upgraded(runtime, headers)) => (runtime, headers),
        Ok(Dialed::Refused(status, text)) => return refuse(status, text),
        Err(text) => {
            return refuse(StatusCode::BAD_GATEWAY, format!("error dialing the runtime's streaming server: {text}"));
        }
    };
    let mut response =
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(header::CONNECTION, "Upgrade");
    match upgrade {
        Upgrade::Spdy => {
            response = response.header(header::UPGRADE, spdy::UPGRADE);
            for value in answer.get_all(STREAM_PROTOCOL) {
                response = response.header(STREAM_PROTOCOL, value);
            }
            tokio::spawn(async move {
                if let Ok(client) = client.await {
                    let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(runtime)).await;
                }
            });
        }
        Upgrade::WebSocket(protocol) => {
            let ports: Vec<u16> = query(&request)
                .into_iter()
                .filter(|(k, _)| k == "port" || k == "ports")
                .flat_map(|(_, v)| v.split(',').filter_map(|p| p.parse().ok()).collect::<Vec<_>>())
                .collect();
            let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
            response = response
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key));
            if !protocol.name.is_empty() {
                response = response.header(header::SEC_WEBSOCKET_PROTOCOL, protocol.name);
            }
            tokio::spawn(async move {
                let Ok(client) = client.await else { return };
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), WebSocketRole::Server, None).await;
                match wanted {
                    Some(wanted) => translate(socket, protocol, TokioIo::new(runtime), wanted).await,
                    None if protocol == Protocol::TUNNEL => tunnel(socket, runtime).await,
                    None => super::ports::translate(socket, protocol, runtime, ports).await,
                }
            });
        }
    }
    response.body(Body::empty()).unwrap_or_else(|e| refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

enum Dialed {
    Upgraded(Upgraded, HeaderMap),
    Refused(StatusCode, String),
}

/// Asks the runtime's streaming server for SPDY.
async fn dial(address: &str, protocols: &[HeaderValue]) -> Result<Dialed, String> {
    let address = url::Url::parse(address).map_err(|e| e.to_string())?;
    let host = address.host_str().unwrap_or("127.0.0.1");
    let port = address.port_or_known_default().unwrap_or(80);
    let authority = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let stream = TcpStream::connect(&authority).await.map_err(|e| e.to_string())?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection.with_upgrades());
    let target = match address.query() {
        Some(query) => format!("{}?{query}", address.path()),
        None => address.path().to_owned(),
    };
    let mut builder = http::Request::builder()
        .method(Method::POST)
        .uri(target)
        .header(header::HOST, &authority)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, spdy::UPGRADE);
    for protocol in protocols {
        builder = builder.header(STREAM_PROTOCOL, protocol);
    }
    let request = builder.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        return Ok(Dialed::Refused(status, String::from_utf8_lossy(&body).into_owned()));
    }
    let headers = response.headers().clone();
    let upgraded = hyper::upgrade::on(response).await.map_err(|e| e.to_string())?;
    Ok(Dialed::Upgraded(upgraded, headers))
}

/// Opens a stream of a remote command session.
async fn open(session: &Session, kind: &str) -> Result<Stream, spdy::Closed> {
    session.open(Headers::from([("streamtype".to_owned(), vec![kind.to_owned()])])).await
}

/// WebSocket channels on one side, SPDY streams on the other.
async fn translate<C, R>(socket: WebSocketStream<C>, protocol: Protocol, runtime: R, wanted: Wanted)
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
pub(super) fn framed(protocol: Protocol, message: &Message) -> tungstenite::Message {
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
pub(super) async fn hang_up<C>(sink: &mut SplitSink<WebSocketStream<C>, tungstenite::Message>)
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

/// SPDY bytes inside WebSocket messages on one side, plain on the other.
async fn tunnel(socket: Socket, runtime: Upgraded) {
    let (sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(runtime));
    let inwards = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                tungstenite::Message::Binary(data) if writer.write_all(&data).await.is_err() => {
                    return;
                }
                tungstenite::Message::Close(_) => return,
                _ => {}
            }
        }
    };
    let outwards = async {
        let mut sink: SplitSink<Socket, tungstenite::Message> = sink;
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count) = reader.read(&mut buffer).await {
            let data = Bytes::copy_from_slice(&buffer[..count]);
            if count == 0 || sink.send(tungstenite::Message::Binary(data)).await.is_err() {
                break;
            }
        }
        hang_up(&mut sink).await;
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_streams() {
        let read = |text: &str| {
            let query: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            Wanted::read(&query)
        };
        assert_eq!(
            read("input=1&output=1&error=1"),
            Ok(Wanted { stdin: true, stdout: true, stderr: true, tty: false })
        );
        assert_eq!(
            read("stdout=true&stderr=true&tty=true"),
            Ok(Wanted { stdin: false, stdout: true, stderr: false, tty: true })
        );
        assert!(read("tty=1").is_err());
    }

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

    #[test]
    fn upgrades() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(k, v)| (http::HeaderName::from_static(k), HeaderValue::from_static(v)))
                .collect::<HeaderMap>()
        };
        let spdy = headers(&[("upgrade", "SPDY/3.1")]);
        assert!(matches!(upgrade_of(&spdy, false), Ok(Upgrade::Spdy)));
        let socket =
            headers(&[("upgrade", "websocket"), ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io")]);
        let chosen = |headers: &HeaderMap, port_forward| match upgrade_of(headers, port_forward) {
            Ok(Upgrade::WebSocket(protocol)) => Some(protocol.name),
            _ => None,
        };
        assert_eq!(chosen(&socket, false), Some(channels::V5));
        assert_eq!(chosen(&socket, true), Some(channels::V4));
        let asks = |protocols| headers(&[("upgrade", "websocket"), ("sec-websocket-protocol", protocols)]);
        assert_eq!(chosen(&asks("v4.channel.k8s.io, SPDY/3.1+portforward.k8s.io"), true), Some(channels::SPDY_TUNNEL));
        assert_eq!(chosen(&asks("channel.k8s.io"), false), Some(channels::V1));
        assert_eq!(chosen(&headers(&[("upgrade", "websocket")]), false), Some(""));
        assert_eq!(chosen(&asks("v6.channel.k8s.io"), false), None);
        assert!(upgrade_of(&HeaderMap::new(), false).is_err());
    }
}
