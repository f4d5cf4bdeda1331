//! How protobuf travels: the `k8s\0` envelope, lists made of encoded items, watch frames.
//!
//! The envelope is `runtime.Unknown`: type meta (1), raw message (2), content encoding (3), content
//! type (4). A watch stream is length-delimited `WatchEvent`s without an envelope, whose objects have one.

use serde_json::Value;

use super::Error;
use super::decode::decode_below;
use super::encode::encode_into;
use super::wire::{BYTES, Reader, Writer};
use crate::table;

/// The media type.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every enveloped object starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// An opened envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    /// The message, or JSON when `content_type` says so.
    pub raw: &'a [u8],
    pub content_encoding: &'a str,
    pub content_type: &'a str,
}

/// True when the bytes start with the envelope's prefix.
pub fn is_protobuf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Opens an envelope without looking at the message.
pub fn unwrap(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    let mut reader = Reader::new(bytes.strip_prefix(MAGIC).ok_or(Error::NoMagic)?);
    let mut envelope = Envelope { api_version: "", kind: "", raw: &[], content_encoding: "", content_type: "" };
    while !reader.is_empty() {
        let (number, wire) = reader.tag()?;
        if !(1..=4).contains(&number) {
            reader.skip(wire)?;
            continue;
        }
        if wire != BYTES {
            let field = ["TypeMeta", "Raw", "ContentEncoding", "ContentType"][number as usize - 1];
            return Err(Error::WrongWireType { wire, field: field.to_owned() });
        }
        let content = reader.bytes()?;
        match number {
            1 => {
                let mut inner = Reader::new(content);
                while !inner.is_empty() {
                    match inner.tag()? {
                        (1, BYTES) => envelope.api_version = utf8(inner.bytes()?)?,
                        (2, BYTES) => envelope.kind = utf8(inner.bytes()?)?,
                        (_, wire) => inner.skip(wire)?,
                    }
                }
            }
            2 => envelope.raw = content,
            3 => envelope.content_encoding = utf8(content)?,
            _ => envelope.content_type = utf8(content)?,
        }
    }
    Ok(envelope)
}

fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes)
        .map_err(|error| Error::BadJson { field: "TypeMeta".to_owned(), reason: error.to_string() })
}

/// Puts an encoded message into an envelope.
pub fn wrap(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(raw.len() + api_version.len() + kind.len() + 24);
    close_envelope(&mut writer, api_version, kind, |writer| {
        writer.raw(raw);
        Ok(())
    })
    .expect("copying bytes does not fail");
    writer.finish()
}

fn close_envelope(
    writer: &mut Writer,
    api_version: &str,
    kind: &str,
    content: impl FnOnce(&mut Writer) -> Result<(), Error>,
) -> Result<(), Error> {
    writer.bytes_field(4, b"");
    writer.bytes_field(3, b"");
    let mark = writer.mark();
    content(writer)?;
    writer.close(2, mark);
    let mark = writer.mark();
    writer.bytes_field(2, kind.as_bytes());
    writer.bytes_field(1, api_version.as_bytes());
    writer.close(1, mark);
    writer.raw(MAGIC);
    Ok(())
}

/// An object of a built-in kind, enveloped. The type is found by its `apiVersion` and `kind`.
pub fn encode_object(object: &Value) -> Result<Vec<u8>, Error> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let ty = find(api_version, kind)?;
    let mut writer = Writer::with_capacity(2048);
    close_envelope(&mut writer, api_version, kind, |writer| encode_into(writer, ty, object))?;
    Ok(writer.finish())
}

/// Opens an envelope and decodes the object, with `apiVersion` and `kind` put in.
pub fn decode_object(bytes: &[u8]) -> Result<Value, Error> {
    decode_object_below(bytes, 0)
}

/// As [`decode_object`], for an object inside another: a List of Lists must end somewhere.
pub(super) fn decode_object_below(bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let envelope = unwrap(bytes)?;
    let ty = find(envelope.api_version, envelope.kind)?;
    let mut object = if envelope.content_type == "application/json" {
        serde_json::from_slice(envelope.raw)
            .map_err(|error| Error::BadJson { field: "raw".to_owned(), reason: error.to_string() })?
    } else {
        decode_below(ty, envelope.raw, depth)?
    };
    if let Value::Object(map) = &mut object {
        map.insert("apiVersion".to_owned(), Value::String(envelope.api_version.to_owned()));
        map.insert("kind".to_owned(), Value::String(envelope.kind.to_owned()));
    }
    Ok(object)
}

fn find(api_version: &str, kind: &str) -> Result<apimachinery::schema::TypeRef<'static>, Error> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    table()
        .find_kind(group, version, kind)
        .ok_or_else(|| Error::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() })
}

/// Builds an enveloped list from items that are encoded already (without envelopes).
///
/// A list's message is its metadata (1) and its items (2). Nothing is decoded or encoded twice; the
/// items are copied once.
#[derive(Debug)]
pub struct ListWriter {
    body: Vec<u8>,
}

impl ListWriter {
    /// `metadata` is the list's `metadata` tree: `resourceVersion`, `continue`, `remainingItemCount`.
    pub fn new(metadata: &Value, capacity: usize) -> Result<Self, Error> {
        let ty = table().named("meta/v1.ListMeta").expect("the table has ListMeta");
        let mut writer = Writer::with_capacity(64);
        let mark = writer.mark();
        encode_into(&mut writer, ty, metadata)?;
        writer.close(1, mark);
        let mut body = Vec::with_capacity(capacity + 64);
        body.extend_from_slice(&writer.finish());
        Ok(Self { body })
    }

    /// Adds one item's message.
    pub fn push(&mut self, message: &[u8]) {
        self.body.push(2 << 3 | BYTES);
        push_varint(&mut self.body, message.len() as u64);
        self.body.extend_from_slice(message);
    }

    /// The envelope.
    pub fn finish(self, api_version: &str, list_kind: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 64);
        out.extend_from_slice(MAGIC);
        let type_meta = 2 + api_version.len() + list_kind.len() + varint_length(api_version) + varint_length(list_kind);
        out.push(1 << 3 | BYTES);
        push_varint(&mut out, type_meta as u64);
        push_bytes(&mut out, 1, api_version.as_bytes());
        push_bytes(&mut out, 2, list_kind.as_bytes());
        push_bytes(&mut out, 2, &self.body);
        push_bytes(&mut out, 3, b"");
        push_bytes(&mut out, 4, b"");
        out
    }
}

fn varint_length(text: &str) -> usize {
    let mut length = 1;
    let mut rest = text.len() >> 7;
    while rest > 0 {
        length += 1;
        rest >>= 7;
    }
    length
}

fn push_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | BYTES);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// One frame of a watch stream: a big-endian length, then a `WatchEvent` of this type and this
/// enveloped object (protobuf for built-in kinds, JSON for the others).
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(object.len() + 32);
    let mark = writer.mark();
    writer.bytes_field(1, object);
    writer.close(2, mark);
    writer.bytes_field(1, event.as_bytes());
    let length = u32::try_from(writer.mark()).expect("an object is smaller than 4 GiB");
    writer.raw(&length.to_be_bytes());
    writer.finish()
}

/// Splits the first frame off a watch stream's bytes: event type, enveloped object, what follows.
/// `None` while the frame is not complete.
#[allow(clippy::type_complexity)] // three slices of the argument; a struct would say no more
pub fn watch_frame_object(stream: &[u8]) -> Result<Option<(&str, &[u8], &[u8])>, Error> {
    let Some((length, rest)) = stream.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if rest.len() < length {
        return Ok(None);
    }
    let (frame, rest) = rest.split_at(length);
    let (mut event, mut object) = ("", &[][..]);
    let mut reader = Reader::new(frame);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, BYTES) => event = utf8(reader.bytes()?)?,
            (2, BYTES) => {
                let mut inner = Reader::new(reader.bytes()?);
                while !inner.is_empty() {
                    match inner.tag()? {
                        (1, BYTES) => object = inner.bytes()?,
                        (_, wire) => inner.skip(wire)?,
                    }
                }
            }
            (_, wire) => reader.skip(wire)?,
        }
    }
    Ok(Some((event, object, rest)))
}
