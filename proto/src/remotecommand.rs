//! Channel framing of exec, attach and port-forward over WebSocket: `v4.channel.k8s.io` and
//! `v5.channel.k8s.io`, whose binary messages start with a channel number.
//!
//! Version 5 adds one message: channel 255 followed by a channel number half-closes that channel
//! (KEP-4006). Port-forward may instead tunnel SPDY/3.1 bytes unframed.

use bytes::{BufMut, Bytes, BytesMut};

/// Half-close is possible.
pub const V5: &str = "v5.channel.k8s.io";
/// As [`V5`] without half-close.
pub const V4: &str = "v4.channel.k8s.io";
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
    fn negotiation_takes_the_clients_first_known_choice() {
        assert_eq!(negotiate(["v6", V5, V4], &[V4, V5]), Some(V5));
        assert_eq!(negotiate([V4, V5], &[V5, V4]), Some(V4));
        assert_eq!(negotiate(["channel.k8s.io"], &[V5, V4]), None);
    }
}
