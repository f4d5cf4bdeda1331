//! Channel framing of exec, attach and port-forward over WebSocket ([`Protocol`]): messages that start with a
//! channel number.
//!
//! Version 5 adds one message: channel 255 followed by a channel number half-closes that channel
//! (KEP-4006). Port-forward may instead tunnel SPDY/3.1 bytes unframed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};

/// Half-close is possible.
pub const V5: &str = "v5.channel.k8s.io";
/// As [`V5`] without half-close.
pub const V4: &str = "v4.channel.k8s.io";
/// As [`V4`] in text messages.
pub const V4_BASE64: &str = "v4.base64.channel.k8s.io";
/// Before version 4, the end of a command was told in plain text.
pub const V1: &str = "channel.k8s.io";
/// As [`V1`] in text messages.
pub const V1_BASE64: &str = "base64.channel.k8s.io";
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

/// What client and server agree on when a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// As clients ask for it; empty for those that ask for none.
    pub name: &'static str,
    /// Messages are text: the channel's digit, then the bytes in base64.
    pub base64: bool,
    /// A command's end is told by a `Status` in JSON. Before, nothing told of success, and a text of failure.
    pub json_status: bool,
}

impl Protocol {
    const fn new(name: &'static str, base64: bool, json_status: bool) -> Self {
        Self { name, base64, json_status }
    }

    /// Those of exec and attach.
    pub const COMMAND: [Self; 6] = [
        Self::new(V5, false, true),
        Self::new(V4, false, true),
        Self::new(V4_BASE64, true, true),
        Self::new(V1, false, false),
        Self::new(V1_BASE64, true, false),
        Self::new("", false, false),
    ];
    /// Those of port-forward that have channels.
    pub const PORT_FORWARD: [Self; 3] =
        [Self::new(V4, false, true), Self::new(V4_BASE64, true, true), Self::new("", false, false)];
    /// Tunnelled, without channels.
    pub const TUNNEL: Self = Self::new(SPDY_TUNNEL, false, false);

    /// Reads one message; `None` for an empty one and for one that is none of this protocol.
    pub fn decode(&self, message: Bytes) -> Option<Message> {
        if !self.base64 {
            return match Message::decode(message)? {
                Message::Close(channel) if self.name != V5 => Some(Message::Data(CLOSE, vec![channel].into())),
                message => Some(message),
            };
        }
        let (digit, text) = message.split_first()?;
        Some(Message::Data(digit.checked_sub(b'0')?, STANDARD.decode(text).ok()?.into()))
    }

    /// The bytes of one message.
    pub fn encode(&self, message: &Message) -> Bytes {
        match message {
            Message::Data(channel, data) if self.base64 => {
                format!("{}{}", char::from(b'0'.wrapping_add(*channel)), STANDARD.encode(data)).into()
            }
            message => message.encode(),
        }
    }

    /// The first of `offered` that is among `known`: servers follow the client's order of preference. Who offers
    /// nothing asks for the protocol without a name.
    pub fn negotiate<'a>(offered: impl IntoIterator<Item = &'a str>, known: &[Self]) -> Option<Self> {
        let mut offered = offered.into_iter().peekable();
        let none = offered.peek().is_none();
        offered.chain(none.then_some("")).find_map(|name| known.iter().find(|known| known.name == name).copied())
    }
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
    fn text_messages_are_digits_and_base64() {
        let protocol = Protocol::negotiate([V4_BASE64], &Protocol::COMMAND).expect("known");
        let message = Message::Data(STDOUT, Bytes::from_static(b"foo\n"));
        assert_eq!(protocol.encode(&message), "1Zm9vCg==");
        assert_eq!(protocol.decode(Bytes::from_static(b"1Zm9vCg==")), Some(message));
        assert_eq!(protocol.decode(Bytes::from_static(b"0")), Some(Message::Data(STDIN, Bytes::new())));
        for nonsense in ["", "1not base64", "!Zm9vCg=="] {
            assert_eq!(protocol.decode(Bytes::from_static(nonsense.as_bytes())), None, "{nonsense}");
        }
    }

    #[test]
    fn channels_are_half_closed_in_version_5_only() {
        let close = Bytes::from_static(&[CLOSE, STDIN]);
        let read = |name| Protocol::negotiate([name], &Protocol::COMMAND).expect("known").decode(close.clone());
        assert_eq!(read(V5), Some(Message::Close(STDIN)));
        assert_eq!(read(V4), Some(Message::Data(CLOSE, Bytes::from_static(&[STDIN]))));
    }

    #[test]
    fn negotiation_takes_the_clients_first_known_choice() {
        let command = |offered: &[&'static str]| {
            Protocol::negotiate(offered.iter().copied(), &Protocol::COMMAND).map(|protocol| protocol.name)
        };
        assert_eq!(command(&["v6", V5, V4]), Some(V5));
        assert_eq!(command(&[V4, V5]), Some(V4));
        assert_eq!(command(&[V1]), Some(V1));
        assert_eq!(command(&[]), Some(""));
        assert_eq!(command(&["v6"]), None);
        assert_eq!(Protocol::negotiate([V1], &Protocol::PORT_FORWARD), None);
    }
}
