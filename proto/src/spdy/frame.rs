//! SPDY/3.1 frames: bytes to values and back, with the shared header compression of each direction.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::dictionary;

/// Header names are lower case on the wire; a name may have several values.
pub type Headers = BTreeMap<String, Vec<String>>;

/// The longest header block accepted after decompression: a peer that sends more is hostile or broken.
const MAX_HEADER_BLOCK: usize = 1 << 20;
/// The longest frame accepted. The wire allows 16 MiB; upstream writes 32 KiB at most.
const MAX_FRAME: usize = 1 << 24;

/// Why a frame could not be read; the connection is of no more use after any of them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer speaks something else.
    #[error("unsupported SPDY version {0}")]
    Version(u16),
    /// A frame is shorter than its fixed part.
    #[error("truncated SPDY frame")]
    Truncated,
    /// The header block does not decompress or its lengths do not add up.
    #[error("invalid SPDY header block")]
    Headers,
}

/// The frames this implementation tells apart.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream; `fin` half-closes the opener's side at once.
    SynStream { id: u32, fin: bool, headers: Headers },
    /// Accepts a stream.
    SynReply { id: u32, fin: bool, headers: Headers },
    /// Aborts a stream; 1 is protocol error, 3 refused, 5 cancel.
    RstStream { id: u32, status: u32 },
    /// Answered with the same id by the side that did not choose it.
    Ping { id: u32 },
    /// No stream is accepted any more.
    GoAway { last: u32 },
    /// Payload; `fin` half-closes the sender's side.
    Data { id: u32, fin: bool, data: Bytes },
    /// SETTINGS, HEADERS, WINDOW_UPDATE and what else there may be: read and passed over. Kubernetes'
    /// peers neither honour nor announce flow-control windows.
    Ignored,
}

const FIN: u8 = 1;

/// Writes frames; holds the compression state of the outgoing direction.
pub struct Encoder {
    zlib: Compress,
}

impl Default for Encoder {
    fn default() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&dictionary()).expect("a fresh compressor takes a dictionary");
        Self { zlib }
    }
}

impl Encoder {
    /// Appends one frame to `out`.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::SynStream { id, fin, headers } => {
                let block = self.compress(headers);
                control(out, 1, if *fin { FIN } else { 0 }, 10 + block.len());
                out.put_u32(*id);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => {
                let block = self.compress(headers);
                control(out, 2, if *fin { FIN } else { 0 }, 4 + block.len());
                out.put_u32(*id);
                out.put_slice(&block);
            }
            Frame::RstStream { id, status } => {
                control(out, 3, 0, 8);
                out.put_u32(*id);
                out.put_u32(*status);
            }
            Frame::Ping { id } => {
                control(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last } => {
                control(out, 7, 0, 8);
                out.put_u32(*last);
                out.put_u32(0);
            }
            Frame::Data { id, fin, data } => {
                out.put_u32(*id & 0x7fff_ffff);
                out.put_u32((data.len() as u32 & 0x00ff_ffff) | u32::from(if *fin { FIN } else { 0 }) << 24);
                out.put_slice(data);
            }
            Frame::Ignored => {}
        }
    }

    fn compress(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.put_u32(headers.len() as u32);
        for (name, values) in headers {
            plain.put_u32(name.len() as u32);
            plain.put_slice(name.to_ascii_lowercase().as_bytes());
            let value = values.join("\0");
            plain.put_u32(value.len() as u32);
            plain.put_slice(value.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.zlib.total_in();
        loop {
            let consumed = (self.zlib.total_in() - start) as usize;
            out.reserve(256);
            let room = out.capacity() - out.len();
            let before = self.zlib.total_out();
            self.zlib
                .compress_vec(&plain[consumed..], &mut out, FlushCompress::Sync)
                .expect("deflate into a growing buffer does not fail");
            let written = (self.zlib.total_out() - before) as usize;
            if written < room {
                return out;
            }
        }
    }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8003);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

/// Reads frames; holds the decompression state of the incoming direction.
pub struct Decoder {
    zlib: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { zlib: Decompress::new(true) }
    }
}

impl Decoder {
    /// Takes one frame off the front of `buffer`, or says that more bytes are needed.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Error> {
        if buffer.len() < 8 {
            return Ok(None);
        }
        let first = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
        let second = u32::from_be_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]);
        let length = (second & 0x00ff_ffff) as usize;
        let flags = (second >> 24) as u8;
        debug_assert!(length < MAX_FRAME);
        if buffer.len() < 8 + length {
            buffer.reserve(8 + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(8);
        let mut body = buffer.split_to(length).freeze();
        let fin = flags & FIN != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { id: first, fin, data: body }));
        }
        let version = (first >> 16 & 0x7fff) as u16;
        if version != 3 {
            return Err(Error::Version(version));
        }
        let need = |n: usize| {
            if body.len() < n { Err(Error::Truncated) } else { Ok(()) }
        };
        Ok(Some(match first & 0xffff {
            1 => {
                need(10)?;
                let id = body.get_u32() & 0x7fff_ffff;
                body.advance(6);
                Frame::SynStream { id, fin, headers: self.headers(&body)? }
            }
            2 => {
                need(4)?;
                let id = body.get_u32() & 0x7fff_ffff;
                Frame::SynReply { id, fin, headers: self.headers(&body)? }
            }
            3 => {
                need(8)?;
                Frame::RstStream { id: body.get_u32() & 0x7fff_ffff, status: body.get_u32() }
            }
            6 => {
                need(4)?;
                Frame::Ping { id: body.get_u32() }
            }
            7 => {
                need(4)?;
                Frame::GoAway { last: body.get_u32() & 0x7fff_ffff }
            }
            8 => {
                // The compression state is shared by every header block, so a HEADERS frame has to be
                // inflated even though nothing in it is used.
                need(4)?;
                body.advance(4);
                self.headers(&body)?;
                Frame::Ignored
            }
            _ => Frame::Ignored,
        }))
    }

    fn headers(&mut self, block: &[u8]) -> Result<Headers, Error> {
        let mut plain = Vec::with_capacity(block.len() * 4 + 64);
        let start = self.zlib.total_in();
        loop {
            let consumed = (self.zlib.total_in() - start) as usize;
            if plain.len() > MAX_HEADER_BLOCK {
                return Err(Error::Headers);
            }
            plain.reserve(1024);
            let room = plain.capacity() - plain.len();
            let before = plain.len();
            match self.zlib.decompress_vec(&block[consumed..], &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => break,
                Ok(_) => {
                    let done = (self.zlib.total_in() - start) as usize == block.len();
                    let written = plain.len() - before;
                    if done && written < room {
                        break;
                    }
                    if !done && written == 0 && (self.zlib.total_in() - start) as usize == consumed {
                        return Err(Error::Headers);
                    }
                }
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(&dictionary()).map_err(|_| Error::Headers)?;
                }
                Err(_) => return Err(Error::Headers),
            }
        }
        parse_block(&plain).ok_or(Error::Headers)
    }
}

fn parse_block(mut plain: &[u8]) -> Option<Headers> {
    let text = |plain: &mut &[u8]| -> Option<String> {
        let length = plain.try_get_u32().ok()? as usize;
        if plain.len() < length {
            return None;
        }
        let (head, rest) = plain.split_at(length);
        *plain = rest;
        Some(String::from_utf8_lossy(head).into_owned())
    };
    let count = plain.try_get_u32().ok()?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut plain)?;
        let value = text(&mut plain)?;
        headers.insert(name.to_ascii_lowercase(), value.split('\0').map(str::to_owned).collect());
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(n, v)| (n.to_string(), vec![v.to_string()])).collect()
    }

    #[test]
    fn frames_round_trip_one_byte_at_a_time() {
        let frames = [
            Frame::SynStream { id: 1, fin: false, headers: headers(&[("streamtype", "error")]) },
            Frame::SynStream { id: 3, fin: true, headers: headers(&[("streamtype", "stdin"), ("port", "80")]) },
            Frame::SynReply { id: 1, fin: false, headers: Headers::new() },
            Frame::Data { id: 3, fin: false, data: Bytes::from_static(b"hello") },
            Frame::Data { id: 3, fin: true, data: Bytes::new() },
            Frame::Ping { id: 7 },
            Frame::RstStream { id: 3, status: 5 },
            Frame::GoAway { last: 3 },
        ];
        let mut encoder = Encoder::default();
        let mut wire = BytesMut::new();
        for frame in &frames {
            encoder.encode(frame, &mut wire);
        }
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for byte in wire {
            buffer.put_u8(byte);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn many_headers_compress_across_buffer_growth() {
        let big: Headers = (0..400).map(|i| (format!("name-{i}"), vec![format!("value-{}", i * 7919)])).collect();
        let mut encoder = Encoder::default();
        let mut decoder = Decoder::default();
        for _ in 0..3 {
            let mut wire = BytesMut::new();
            encoder.encode(&Frame::SynReply { id: 1, fin: false, headers: big.clone() }, &mut wire);
            let frame = decoder.decode(&mut wire).unwrap();
            assert_eq!(frame, Some(Frame::SynReply { id: 1, fin: false, headers: big.clone() }));
        }
    }

    #[test]
    fn garbage_is_an_error_not_a_panic() {
        let mut wire = BytesMut::from(&[0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 9, 9, 9, 9][..]);
        assert!(matches!(Decoder::default().decode(&mut wire), Err(Error::Headers)));
        let mut wire = BytesMut::from(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..]);
        assert!(matches!(Decoder::default().decode(&mut wire), Err(Error::Version(2))));
        let mut wire = BytesMut::from(&[0x80, 3, 0, 3, 0, 0, 0, 2, 0, 0][..]);
        assert!(matches!(Decoder::default().decode(&mut wire), Err(Error::Truncated)));
    }
}
