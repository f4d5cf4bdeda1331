//! Kubernetes' protobuf, driven by the table instead of generated structs.
//!
//! [`encode`] and [`decode`] go between the JSON tree and the bytes that Kubernetes' own (gogo) encoder
//! writes: fields in the order of their numbers, every field that is no Go pointer present even when
//! zero, maps sorted by key. [`decode`] gives the tree that Go would then write as JSON.
//!
//! On the wire an object is wrapped: `k8s\0`, then a `runtime.Unknown` that names its type
//! ([`encode_object`], [`decode_object`]). Lists and watch events can be put together from items that
//! are encoded already ([`ListWriter`], [`watch_frame`]): the read path never decodes.
//!
//! Reads and writes nothing but its arguments. Lengths, nesting and wire types of input are never
//! trusted; anything wrong is an [`Error`].

mod decode;
mod encode;
mod envelope;
mod wire;

pub use decode::decode;
pub use encode::encode;
pub use envelope::{
    CONTENT_TYPE, Envelope, ListWriter, MAGIC, decode_object, encode_object, is_protobuf, unwrap, watch_frame,
    watch_frame_object, wrap,
};

/// How deep messages may nest. `JSONSchemaProps` is the only recursive type.
pub const MAX_DEPTH: usize = 250;

/// Why bytes or a tree could not be transcoded. Texts of wire errors are those of Kubernetes' decoder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The message ends inside a field. The sender cut it.
    #[error("unexpected EOF")]
    UnexpectedEnd,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: negative length found during unmarshaling")]
    NegativeLength,
    #[error("proto: illegal tag {number} (wire type {wire})")]
    IllegalTag { number: i32, wire: u8 },
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    #[error("proto: unexpected end of group")]
    UnexpectedEndOfGroup,
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WrongWireType { wire: u8, field: String },
    /// Messages nest beyond [`MAX_DEPTH`].
    #[error("proto: message nests too deeply")]
    TooDeep,
    /// A raw JSON value inside the message is not JSON.
    #[error("proto: field {field}: {reason}")]
    BadJson { field: String, reason: String },
    /// The tree holds something else than its type says; canonicalize it or check its fields first.
    #[error("field {field}: expected {expected}")]
    WrongValue { field: String, expected: &'static str },
    /// The type has no protobuf form (`Table`): answer JSON, or 406.
    #[error(
        "object *{0} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    NoProtobuf(String),
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    /// The envelope names a kind that the table does not know.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { api_version: String, kind: String },
}

#[cfg(test)]
mod tests;
