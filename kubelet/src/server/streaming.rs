//! Exec, attach and port-forward. The runtime serves the streams; the kubelet asks it for an address and
//! stands between.
//!
//! Runtimes speak SPDY/3.1. A client that speaks it too gets bytes passed through; a WebSocket client gets
//! its channels translated to SPDY streams, or its tunnel unwrapped (`proto::remotecommand`).

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::cri;
use proto::remotecommand::{self as channels, Protocol, Streams};
use proto::spdy;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role as WebSocketRole;

use super::{Server, query, refuse};
use crate::pod::PodExt;
use crate::runtime::state::State as ContainerState;

const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
type Params = Path<HashMap<String, String>>;

/// The streams that a query asks for; a terminal has no separate error output.
fn wanted(query: &[(String, String)]) -> Result<Streams, &'static str> {
    let on =
        |names: [&str; 2]| query.iter().any(|(k, v)| names.contains(&k.as_str()) && matches!(v.as_str(), "1" | "true"));
    let tty = on(["tty", "tty"]);
    let streams = Streams {
        stdin: on(["input", "stdin"]),
        stdout: on(["output", "stdout"]),
        stderr: on(["error", "stderr"]) && !tty,
        tty,
    };
    if !streams.stdin && !streams.stdout && !streams.stderr {
        return Err("you must specify at least 1 of stdin, stdout, stderr");
    }
    Ok(streams)
}

pub(super) async fn exec(State(server): State<Arc<Server>>, Path(params): Params, request: Request) -> Response {
    let query = query(&request);
    let wanted = match wanted(&query) {
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
    let wanted = match wanted(&query(&request)) {
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
    let wanted = Streams { tty, stderr: wanted.stderr && !tty, ..wanted };
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
        let offered = offered.flat_map(|v| v.split(','));
        let known = if port_forward { Protocol::PORT_FORWARD } else { Protocol::EXEC };
        return match Protocol::negotiate(offered, known) {
            Some(protocol) => Ok(Upgrade::WebSocket(protocol)),
            None => Err(Box::new(refuse(
                StatusCode::FORBIDDEN,
                format!("unable to negotiate protocol: server supports {known:?}"),
            ))),
        };
    }
    Err(Box::new(refuse(
        StatusCode::BAD_REQUEST,
        "you must upgrade: unable to upgrade: missing upgrade headers in request",
    )))
}

/// Connects a client to the runtime's streaming server at `address`.
async fn connect(mut request: Request, address: &str, wanted: Option<Streams>) -> Response {
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
                let runtime = TokioIo::new(runtime);
                match wanted {
                    Some(wanted) => channels::translate(socket, protocol, runtime, wanted).await,
                    None if protocol.name == channels::SPDY_TUNNEL => channels::tunnel(socket, runtime).await,
                    None => channels::translate_ports(socket, protocol, runtime, ports).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_streams() {
        let read = |text: &str| {
            let query: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
            wanted(&query)
        };
        assert_eq!(
            read("input=1&output=1&error=1"),
            Ok(Streams { stdin: true, stdout: true, stderr: true, tty: false })
        );
        assert_eq!(
            read("stdout=true&stderr=true&tty=true"),
            Ok(Streams { stdin: false, stdout: true, stderr: false, tty: true })
        );
        assert!(read("tty=1").is_err());
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
        assert!(matches!(upgrade_of(&socket, false), Ok(Upgrade::WebSocket(Protocol { name: channels::V5 }))));
        assert!(matches!(upgrade_of(&socket, true), Ok(Upgrade::WebSocket(Protocol { name: channels::V4 }))));
        assert!(upgrade_of(&HeaderMap::new(), false).is_err());
    }
}
