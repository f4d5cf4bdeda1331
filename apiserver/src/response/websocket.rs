//! The server's end of a WebSocket: the handshake, and byte streams as messages for clients that read
//! answers that way (`binary.k8s.io`).

use apimachinery::status::Status;
use axum::body::Body;
use base64::Engine as _;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Response;
use crate::server::walk::Context;

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// Whether the request wants to become a WebSocket.
pub fn is_requested(headers: &HeaderMap) -> bool {
    let has = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// The subprotocols that the client offers, in its order.
pub fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

/// The answer that accepts a WebSocket under a subprotocol (none when empty), and the connection to come.
///
/// # Errors
/// 400 for a request that is no handshake, or came over a connection that cannot change its protocol.
pub fn accept(cx: &mut Context, protocol: &'static str) -> Result<(Response, OnUpgrade), Status> {
    let Some(key) = cx.headers.get(SEC_WEBSOCKET_KEY) else {
        return Err(Status::bad_request("the request has no Sec-WebSocket-Key"));
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|error| Status::internal(error.to_string()))?;
    let Some(client) = cx.extensions.remove::<OnUpgrade>() else {
        return Err(Status::bad_request("this connection cannot be upgraded; use HTTP/1.1"));
    };
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    reply.headers_mut().extend([
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ]);
    if !protocol.is_empty() {
        reply.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok((reply, client))
}

/// Answers with a body as a WebSocket's messages, an empty one first; what the client says is ignored.
///
/// # Errors
/// 403 when the client offers only subprotocols that are no byte streams, and those of [`accept`].
pub fn stream(cx: &mut Context, body: Body) -> Result<Response, Status> {
    let names: Vec<&str> = offered(&cx.headers).collect();
    let known = names.iter().find_map(|name| [BINARY, BASE64].into_iter().find(|known| known == name));
    let protocol = match known {
        Some(protocol) => protocol,
        None if names.is_empty() => "",
        None => {
            let text = "requested protocol(s) are not supported; supports [ binary.k8s.io base64.binary.k8s.io]";
            return Err(Status::failure(403, apimachinery::status::reason::FORBIDDEN, text));
        }
    };
    let (reply, client) = accept(cx, protocol)?;
    let shutdown = cx.server.shutdown.clone();
    tokio::spawn(async move {
        let Ok(client) = client.await else { return };
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, None).await;
        tokio::select! {
            () = copy(socket, body, protocol == BASE64) => {}
            () = shutdown.cancelled() => {}
        }
    });
    Ok(reply)
}

async fn copy<S>(socket: WebSocketStream<S>, mut body: Body, base64: bool)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let message = |data: bytes::Bytes| match base64 {
        true => Message::Text(base64::engine::general_purpose::STANDARD.encode(data).into()),
        false => Message::Binary(data),
    };
    let (mut sink, mut source) = socket.split();
    let writing = async {
        sink.send(message(bytes::Bytes::new())).await.ok()?;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.ok()?.into_data() else { continue };
            sink.send(message(data)).await.ok()?;
        }
        sink.close().await.ok()
    };
    let reading = async { while let Some(Ok(_)) = source.next().await {} };
    tokio::select! {
        _ = writing => {}
        () = reading => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_known_by_both_headers() {
        let of = |upgrade: &'static str, connection: &'static str| {
            HeaderMap::from_iter([
                (UPGRADE, HeaderValue::from_static(upgrade)),
                (CONNECTION, HeaderValue::from_static(connection)),
            ])
        };
        assert!(is_requested(&of("WebSocket", "keep-alive, Upgrade")));
        assert!(!is_requested(&of("websocket", "keep-alive")) && !is_requested(&of("h2c", "Upgrade")));
    }

    #[tokio::test]
    async fn a_body_arrives_message_by_message_after_an_empty_one() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        tokio::spawn(copy(server, Body::from("foo\n"), true));
        let mut texts = Vec::new();
        while let Some(Ok(Message::Text(text))) = client.next().await {
            texts.push(text.to_string());
        }
        assert_eq!(texts, ["", "Zm9vCg=="]);
    }
}
