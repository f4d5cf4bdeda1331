//! From a client's upgrade to a stream of the runtime's: SPDY as it is, WebSockets translated.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::remotecommand::{self as channels, Protocol};
use proto::spdy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role as WebSocketRole;

use super::super::{ports, query, refuse};
use super::command::{hang_up, translate};
use super::{Socket, Wanted};

const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

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
pub(super) async fn connect(mut request: Request, address: &str, wanted: Option<Wanted>) -> Response {
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
                    None => ports::translate(socket, protocol, runtime, ports).await,
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
