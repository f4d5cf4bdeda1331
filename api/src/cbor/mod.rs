//! CBOR, as Kubernetes writes and reads it (KEP-4222).
//!
//! What is written is RFC 8949's core deterministic form behind the self-describing tag: strings and names are byte
//! strings, `[]byte` is tagged to become base64 in text, floats are as short as they can be. What is read may be any
//! well-formed item, except what has no counterpart in JSON (NaN, bignums, undefined) and maps that repeat a key.
//!
//! Trees stand between the bytes and everything else, exactly as they do for JSON; so `[]byte` is base64 there.
//!
//! Reads bytes and trees, writes trees and bytes. Errors have the words of upstream's library.

mod decode;
mod diagnose;
mod encode;
mod head;
mod wellformed;

#[cfg(test)]
mod tests;

pub use decode::{Decoded, decode, interpret, type_name};
pub use diagnose::diagnose;
pub use encode::{append, append_array_head, append_map_head, append_text, encode};
pub use wellformed::item_length;

/// The tag that says nothing but that CBOR follows; everything that is written begins with it.
pub const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];

/// How deep items may nest: upstream's figure.
const MAX_DEPTH: usize = 10_000;
/// Upstream's bounds on what one array and one map may hold.
const MAX_ELEMENTS: u64 = 2_147_483_647;
const MAX_PAIRS: u64 = 2_097_152;

/// Why bytes are not CBOR, or not what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("EOF")]
    Empty,
    #[error("unexpected EOF")]
    Truncated,
    #[error("cbor: invalid additional information {info} for type {of}")]
    Information { info: u8, of: &'static str },
    #[error("cbor: invalid simple value {0} for type primitives")]
    Simple(u64),
    #[error("cbor: unexpected \"break\" code")]
    Break,
    #[error("cbor: wrong element type {found} for indefinite-length {of}")]
    Chunk { found: &'static str, of: &'static str },
    #[error("cbor: indefinite-length {0} chunk is not definite-length")]
    ChunkOfChunks(&'static str),
    #[error("cbor: exceeded max nested level {MAX_DEPTH}")]
    Depth,
    #[error("cbor: {of} length {length} is too large, causing integer overflow")]
    StringLength { of: &'static str, length: u64 },
    #[error("cbor: {of} length {length} is too large, it would cause integer overflow")]
    Length { of: &'static str, length: u64 },
    #[error("cbor: exceeded max number of elements {MAX_ELEMENTS} for CBOR array")]
    Elements,
    #[error("cbor: exceeded max number of key-value pairs {MAX_PAIRS} for CBOR map")]
    Pairs,
    #[error("cbor: {count} bytes of extraneous data starting at index {at}")]
    Extraneous { count: usize, at: usize },
    #[error("cbor: data item of cbor type {of} is not accepted by protocol: {what}")]
    Unacceptable { of: &'static str, what: String },
    #[error("cbor: tag number {tag} must be followed by {wanted}, got {found}")]
    TagContent { tag: u64, wanted: &'static str, found: &'static str },
    #[error("cbor: invalid UTF-8 string")]
    Utf8,
    #[error("cbor: found duplicate map key {key:?} at map element index {index}")]
    Duplicate { key: String, index: usize },
    #[error("cbor: found unknown field at map element index {0}")]
    Unknown(usize),
    #[error("cbor: cannot unmarshal {found} into Go {place} of type {wanted}{why}")]
    Type { found: &'static str, place: String, wanted: String, why: String },
    #[error("cbor: failed to decode base64 from byte string: illegal base64 data at input byte {0}")]
    Base64(usize),
    #[error("cbor: cannot set {text} for time.Time: {why}")]
    Time { text: String, why: String },
    #[error("cbor: decoded time cannot be represented in RFC3339 format with sub-second precision")]
    TimeRange,
}
