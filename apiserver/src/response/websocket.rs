//! Answers over WebSocket to reads that last: watches, an event a message, and logs, as they come.
//!
//! Who is refused, and how, follows the handshakes of upstream's server. A client has nothing to say on such a
//! connection but that it ends: everything else is dropped.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt as _, Stream, StreamExt as _, stream};
use http::header::{
    CONNECTION, CONTENT_TYPE, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::Response;
use crate::request::accept::{Encoding, Format};
use crate::server::walk::Context;

/// Subprotocols of byte streams: the bytes as they are, or in base64.
const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// How long a client may take to say that it saw the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Whether a request asks for a WebSocket.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let connection = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    upgrade.eq_ignore_ascii_case("websocket")
        && connection.into_iter().any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// The subprotocols that a client offers.
fn offered(headers: &HeaderMap) -> Vec<String> {
    let text = headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let parts = text.split(',').map(|part| part.trim().to_string());
    if text.trim().is_empty() { Vec::new() } else { parts.collect() }
}

/// Sends a watch whose chunks hold whole frames. Only pages of some origin are served, whichever it is.
pub fn watch(
    cx: &Context,
    format: Format,
    chunks: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> Response {
    let origin = cx.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    if origin.is_none_or(|origin| url::Url::parse(origin).is_err()) {
        return refuse(StatusCode::FORBIDDEN, "");
    }
    let protocols = offered(&cx.headers);
    if protocols.len() > 1 {
        return refuse(StatusCode::BAD_REQUEST, "");
    }
    let messages = chunks.flat_map(move |chunk| {
        let Ok(chunk) = chunk;
        stream::iter(events(chunk, format.encoding))
    });
    begin(cx, protocols.first().map(String::as_str), messages)
}

/// Sends bytes as they come, after an empty message that tells that they will.
pub fn log(cx: &Context, body: Body) -> Response {
    let protocol = match offered(&cx.headers).into_iter().find(|offer| [BINARY, BASE64, ""].contains(&offer.as_str())) {
        Some(protocol) => protocol,
        None if offered(&cx.headers).is_empty() => String::new(),
        None => return refuse(StatusCode::FORBIDDEN, ""),
    };
    let message: fn(Bytes) -> Message =
        if protocol == BASE64 { |bytes| Message::text(STANDARD.encode(bytes)) } else { Message::Binary };
    let begun = stream::iter([message(Bytes::new())]);
    let rest = body
        .into_data_stream()
        .take_while(|chunk| std::future::ready(chunk.is_ok()))
        .filter_map(|chunk| std::future::ready(chunk.ok().filter(|bytes| !bytes.is_empty())))
        .map(message);
    begin(cx, Some(protocol.as_str()).filter(|protocol| !protocol.is_empty()), begun.chain(rest))
}

/// The events of a chunk, without what frames them on a plain connection.
fn events(mut chunk: Bytes, encoding: Encoding) -> Vec<Message> {
    let mut messages = Vec::new();
    while !chunk.is_empty() {
        if encoding == Encoding::Protobuf {
            let Some(length) = chunk.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize) else {
                break;
            };
            let _ = chunk.split_to(4);
            messages.push(Message::Binary(chunk.split_to(length.min(chunk.len()))));
        } else if encoding == Encoding::Cbor {
            let length = api::cbor::item_length(&chunk).unwrap_or(chunk.len());
            messages.push(Message::Binary(chunk.split_to(length)));
        } else {
            let end = chunk.iter().position(|byte| *byte == b'\n').map_or(chunk.len(), |at| at + 1);
            let event = chunk.split_to(end);
            messages.push(Utf8Bytes::try_from(event.clone()).map_or(Message::Binary(event), Message::Text));
        }
    }
    messages
}

/// Answers the handshake and sends what there is once the connection is a WebSocket.
fn begin(cx: &Context, protocol: Option<&str>, messages: impl Stream<Item = Message> + Send + 'static) -> Response {
    let header = |name: http::HeaderName| cx.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    if header(SEC_WEBSOCKET_KEY).is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "mismatch challenge/response");
    }
    if header(SEC_WEBSOCKET_VERSION) != b"13" {
        let mut answer = refuse(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version");
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return answer;
    }
    let Some(upgrade) = cx.extensions.get::<OnUpgrade>().cloned() else {
        return refuse(StatusCode::BAD_REQUEST, "not websocket protocol");
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = derive_accept_key(header(SEC_WEBSOCKET_KEY));
    for (name, value) in [
        (UPGRADE, Some("websocket")),
        (CONNECTION, Some("Upgrade")),
        (SEC_WEBSOCKET_ACCEPT, Some(accept.as_str())),
        (SEC_WEBSOCKET_PROTOCOL, protocol),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            answer.headers_mut().insert(name, value);
        }
    }
    let shutdown = cx.server.shutdown.clone();
    tokio::spawn(async move {
        match upgrade.await {
            Ok(client) => tokio::select! {
                () = serve(TokioIo::new(client), messages) => {}
                () = shutdown.cancelled() => {}
            },
            Err(error) => tracing::debug!(%error, "an upgrade did not happen"),
        }
    });
    answer
}

/// Sends messages until they end or the client goes.
async fn serve(client: impl AsyncRead + AsyncWrite + Unpin, messages: impl Stream<Item = Message>) {
    let (mut sink, mut source) = WebSocketStream::from_raw_socket(client, Role::Server, None).await.split();
    let gone = async { while let Some(Ok(_)) = source.next().await {} };
    tokio::pin!(gone);
    let mut messages = std::pin::pin!(messages.map(Ok));
    tokio::select! {
        () = &mut gone => return,
        sent = sink.send_all(&mut messages) => if sent.is_err() { return },
    }
    let end = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    // What a client sent meanwhile is read to the end: the kernel would take back what is under way otherwise.
    if sink.send(Message::Close(Some(end))).await.is_ok() {
        let _ = tokio::time::timeout(FAREWELL, gone).await;
    }
}

fn refuse(code: StatusCode, text: &'static str) -> Response {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = code;
    if !text.is_empty() {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_message() {
        let chunk = Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n");
        let expected = [Message::text("{\"a\":1}\n"), Message::text("{\"b\":2}\n")];
        assert_eq!(events(chunk, Encoding::Json), expected);
        let chunk = Bytes::from_static(b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c");
        let expected = ["ab", "", "c"].map(|bytes| Message::Binary(bytes.into()));
        assert_eq!(events(chunk, Encoding::Protobuf), expected);
        assert!(events(Bytes::new(), Encoding::Json).is_empty());
    }

    #[test]
    fn who_asks_for_a_websocket() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs
                .iter()
                .map(|(name, value)| {
                    (name.parse::<http::HeaderName>().expect("a name"), HeaderValue::from_static(value))
                })
                .collect()
        };
        assert!(is_wanted(&headers(&[("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")])));
        assert!(!is_wanted(&headers(&[("upgrade", "SPDY/3.1"), ("connection", "Upgrade")])));
        assert!(!is_wanted(&headers(&[("upgrade", "websocket")])));
        assert_eq!(offered(&headers(&[("sec-websocket-protocol", " a , b")])), ["a", "b"]);
        assert_eq!(offered(&headers(&[("sec-websocket-protocol", " ")])), Vec::<String>::new());
    }

    #[tokio::test]
    async fn messages_then_a_farewell() {
        let (near, far) = tokio::io::duplex(1024);
        let server = tokio::spawn(serve(far, stream::iter(["one", "two"]).map(Message::text)));
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        // What a client says changes nothing.
        client.send(Message::text("hello")).await.expect("sent");
        for expected in ["one", "two"] {
            assert_eq!(client.next().await.expect("a message").expect("sound"), Message::text(expected));
        }
        match client.next().await.expect("an end").expect("sound") {
            Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Normal),
            other => panic!("no end: {other}"),
        }
        assert!(client.next().await.is_none_or(|last| last.is_err()));
        server.await.expect("served");
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_it() {
        let (near, far) = tokio::io::duplex(1024);
        let server = tokio::spawn(serve(far, stream::pending()));
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        client.close(None).await.expect("closed");
        server.await.expect("served");
    }
}
