//! Exec, attach and port-forward over WebSocket: messages that start with a channel number, and their
//! translation into the SPDY/3.1 streams that kubelets and runtimes speak.
//!
//! Version 5 adds one message: channel 255 followed by a channel number half-closes that channel
//! (KEP-4006). Before version 4 the error channel carries plain text and nothing for success. The base64
//! forms are for peers that can send text alone. Port-forward may instead tunnel SPDY/3.1 bytes unframed.

mod exec;
mod ports;
mod tunnel;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{WebSocketStream, tungstenite};

pub use exec::{Streams, translate};
pub use ports::translate as translate_ports;
pub use tunnel::tunnel;

/// Half-close is possible.
pub const V5: &str = "v5.channel.k8s.io";
/// As [`V5`] without half-close.
pub const V4: &str = "v4.channel.k8s.io";
/// As [`V4`] in base64: the channel is a digit, the rest of a message is encoded.
pub const V4_BASE64: &str = "v4.base64.channel.k8s.io";
/// Without a `Status` at the end.
pub const V1: &str = "channel.k8s.io";
/// As [`V1`] in base64.
pub const V1_BASE64: &str = "base64.channel.k8s.io";
/// The protocol of SPDY remote command sessions.
pub const SPDY_V4: &str = "v4.channel.k8s.io";
/// SPDY bytes inside WebSocket messages, for port-forward.
pub const SPDY_TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// The protocol name of a port-forward stream pair inside SPDY.
pub const PORT_FORWARD_V1: &str = "portforward.k8s.io";

/// Standard input, towards the container.
pub const STDIN: u8 = 0;
/// Standard output.
pub const STDOUT: u8 = 1;
/// Standard error.
pub const STDERR: u8 = 2;
/// One `Status` object in JSON, sent when the command has ended.
pub const ERROR: u8 = 3;
/// Terminal sizes, `{"Width":80,"Height":24}`.
pub const RESIZE: u8 = 4;
/// Half-closes the channel in the next byte (version 5 only).
pub const CLOSE: u8 = 255;

/// One WebSocket message of the protocol.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Bytes of a channel; may be empty.
    Data(u8, Bytes),
    /// No more bytes will come on this channel.
    Close(u8),
}

impl Message {
    /// Reads one message; `None` for an empty one, which peers send to keep a connection open.
    pub fn decode(mut message: Bytes) -> Option<Self> {
        let channel = *message.first()?;
        if channel == CLOSE && message.len() == 2 {
            return Some(Self::Close(message[1]));
        }
        Some(Self::Data(channel, message.split_off(1)))
    }

    /// The bytes of one message.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Data(channel, data) => {
                out.reserve(1 + data.len());
                out.put_u8(*channel);
                out.put_slice(data);
            }
            Self::Close(channel) => out.put_slice(&[CLOSE, *channel]),
        }
        out.freeze()
    }
}

/// How messages are written on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The subprotocol that was agreed on; empty when the client offered none.
    pub name: &'static str,
}

impl Protocol {
    /// What exec and attach take; a client that offers nothing means version 1.
    pub const EXEC: &'static [&'static str] = &[V5, V4, V4_BASE64, V1, V1_BASE64];
    /// What port-forward takes.
    pub const PORT_FORWARD: &'static [&'static str] = &[SPDY_TUNNEL, V4, V4_BASE64];

    /// The client's first choice among `known`; `None` when it offers only others.
    pub fn negotiate<'a>(offered: impl IntoIterator<Item = &'a str>, known: &[&'static str]) -> Option<Self> {
        let mut offered = offered.into_iter().map(str::trim).filter(|name| !name.is_empty()).peekable();
        match offered.peek() {
            None => Some(Self { name: "" }),
            Some(_) => negotiate(offered, known).map(|name| Self { name }),
        }
    }

    fn is_base64(self) -> bool {
        [V4_BASE64, V1_BASE64].contains(&self.name)
    }

    /// Whether the session ends with a `Status` in JSON.
    pub fn has_status(self) -> bool {
        [V5, V4, V4_BASE64].contains(&self.name)
    }

    /// One message in the protocol's own form.
    pub fn encode(self, message: &Message) -> tungstenite::Message {
        let bytes = message.encode();
        if !self.is_base64() {
            return tungstenite::Message::Binary(bytes);
        }
        let mut text = String::new();
        if let Some((channel, data)) = bytes.split_first() {
            text.push(char::from(channel.saturating_add(b'0')));
            STANDARD.encode_string(data, &mut text);
        }
        tungstenite::Message::Text(text.into())
    }

    /// Reads a message of a peer; `None` for those that carry nothing.
    pub fn decode(self, message: tungstenite::Message) -> Option<Message> {
        let bytes = match message {
            tungstenite::Message::Binary(bytes) => bytes,
            tungstenite::Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            _ => return None,
        };
        if !self.is_base64() {
            return Message::decode(bytes);
        }
        let (channel, data) = bytes.split_first()?;
        let data = STANDARD.decode(data).ok()?;
        Some(Message::Data(channel.checked_sub(b'0')?, data.into()))
    }
}

/// Tells a client, whose connection stands already, why there will be no session: `status` is its whole
/// outcome.
pub async fn refuse<C>(socket: WebSocketStream<C>, protocol: Protocol, status: Bytes)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, _) = socket.split();
    if sink.send(protocol.encode(&Message::Data(ERROR, status))).await.is_ok() {
        hang_up(&mut sink).await;
    }
}

/// Ends a WebSocket with a normal closure. A close frame without a code is an error to upstream's
/// clients, whatever the Status before it said.
async fn hang_up<C>(sink: &mut SplitSink<WebSocketStream<C>, tungstenite::Message>)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let frame = tungstenite::protocol::CloseFrame {
        code: tungstenite::protocol::frame::coding::CloseCode::Normal,
        reason: "".into(),
    };
    let _ = sink.send(tungstenite::Message::Close(Some(frame))).await;
}

/// The first of `offered` that the server knows: servers follow the client's order of preference.
pub fn negotiate<'a>(offered: impl IntoIterator<Item = &'a str>, known: &[&'static str]) -> Option<&'static str> {
    offered.into_iter().find_map(|name| known.iter().find(|k| **k == name).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip() {
        for message in [
            Message::Data(STDIN, Bytes::from_static(b"ls\n")),
            Message::Data(STDOUT, Bytes::new()),
            Message::Close(STDIN),
            Message::Data(RESIZE, Bytes::from_static(br#"{"Width":80,"Height":24}"#)),
        ] {
            assert_eq!(Message::decode(message.encode()), Some(message));
        }
        assert_eq!(Message::decode(Bytes::new()), None);
    }

    #[test]
    fn base64_messages_are_text() {
        let protocol = Protocol { name: V1_BASE64 };
        let text = tungstenite::Message::Text("0Zm9vCg==".into());
        assert_eq!(protocol.encode(&Message::Data(STDIN, Bytes::from_static(b"foo\n"))), text);
        assert_eq!(protocol.decode(text), Some(Message::Data(STDIN, Bytes::from_static(b"foo\n"))));
        assert_eq!(protocol.decode(tungstenite::Message::Text("0???".into())), None);
        assert_eq!(protocol.decode(tungstenite::Message::Text("".into())), None);
    }

    #[test]
    fn a_client_that_offers_nothing_gets_the_first_version() {
        assert_eq!(Protocol::negotiate([], Protocol::EXEC), Some(Protocol { name: "" }));
        assert_eq!(Protocol::negotiate(["v9", "channel.k8s.io"], Protocol::EXEC), Some(Protocol { name: V1 }));
        assert_eq!(Protocol::negotiate(["v9"], Protocol::EXEC), None);
        assert!(!Protocol { name: "" }.has_status() && Protocol { name: V5 }.has_status());
    }

    #[test]
    fn negotiation_takes_the_clients_first_known_choice() {
        assert_eq!(negotiate(["v6", V5, V4], &[V4, V5]), Some(V5));
        assert_eq!(negotiate([V4, V5], &[V5, V4]), Some(V4));
        assert_eq!(negotiate(["channel.k8s.io"], &[V5, V4]), None);
    }
}
