//! Trees and cached entries as bytes: JSON, YAML, protobuf, CBOR, and the metadata-only shape.

use api::conversion::TEMPLATE_GENERATION;
use apimachinery::gvk::GroupVersion;
use apimachinery::object::ObjectExt as _;
use apimachinery::schema::TypeRef;
use apimachinery::status::Status;
use bytes::Bytes;
use serde_json::{Value, json};

use super::members;
use crate::cache::Entry;
use crate::registry::Served;
use crate::request::accept::{Encoding, Format, Transform};

/// The prefix of everything Kubernetes writes as protobuf.
pub const PROTOBUF_PREFIX: &[u8] = b"k8s\0";

/// A tree as JSON with a newline at its end, as Go's encoder writes.
pub fn json_bytes(value: &Value, pretty: bool) -> Vec<u8> {
    let mut out = if pretty { apimachinery::json::to_vec_pretty(value) } else { apimachinery::json::to_vec(value) };
    out.push(b'\n');
    out
}

/// The schema of a kind that is no resource of its own: Status, Scale, Table, reviews.
pub fn type_of(object: &Value) -> Option<TypeRef<'static>> {
    let version = GroupVersion::parse(object.api_version()).ok()?;
    api::table().find_kind(&version.group, &version.version, object.kind())
}

/// A whole object in the wanted encoding, whatever its kind.
///
/// # Errors
/// 406 when the kind has no protobuf form.
pub fn value(object: &Value, format: Format) -> Result<(&'static str, Bytes), Status> {
    let body = match format.encoding {
        Encoding::Json => Bytes::from(json_bytes(object, format.pretty)),
        Encoding::Yaml => Bytes::from(apimachinery::yaml::emit(object)),
        Encoding::Protobuf => {
            let ty = type_of(object)
                .filter(|ty| api::table::has_protobuf(*ty))
                .ok_or_else(|| Status::not_acceptable(&["application/json", "application/yaml"]))?;
            let raw = api::protobuf::encode(ty, object).map_err(Status::internal)?;
            envelope(object.api_version(), object.kind(), &raw)
        }
        Encoding::Cbor => Bytes::from(api::cbor::encode(object, type_of(object))),
    };
    Ok((format.encoding.media_type(), body))
}

/// A protobuf varint.
pub fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number as u8) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A length-delimited protobuf field.
pub fn field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    field_header(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// The tag and length of a length-delimited protobuf field.
pub fn field_header(out: &mut Vec<u8>, number: u32, length: usize) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, length as u64);
}

/// Everything of a `k8s\0` envelope before the raw bytes, for a message of this length, and what
/// comes after it.
pub fn envelope_parts(api_version: &str, kind: &str, length: usize) -> (Vec<u8>, &'static [u8]) {
    let mut meta = Vec::new();
    field(&mut meta, 1, api_version.as_bytes());
    field(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(meta.len() + 24);
    out.extend_from_slice(PROTOBUF_PREFIX);
    field(&mut out, 1, &meta);
    field_header(&mut out, 2, length);
    // Empty contentEncoding (3) and contentType (4), which Go writes too.
    (out, &[0x1a, 0x00, 0x22, 0x00])
}

/// A message in its `k8s\0` envelope (`runtime.Unknown`).
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Bytes {
    let (mut out, tail) = envelope_parts(api_version, kind, raw.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(tail);
    Bytes::from(out)
}

/// Which derived form of an entry is kept under which number (see `cache::Encodings`).
pub fn form(served: &Served, kind: u32) -> u32 {
    (served.ordinal << 4) | kind
}

/// The form of an entry's JSON in the version served.
pub const FORM_JSON: u32 = 1;
const FORM_PROTOBUF: u32 = 2;

/// An entry's JSON in the version served.
pub fn entry_json(served: &Served, entry: &Entry) -> Bytes {
    match stored_json(served, entry) {
        Some(json) => json.clone(),
        None => derived_json(served, entry),
    }
}

/// Hands an entry's JSON in the version served to `read`. Cheaper than [`entry_json`] where thousands are only copied:
/// nobody's references are counted.
pub fn with_json<T>(served: &Served, entry: &Entry, read: impl FnOnce(&[u8]) -> T) -> T {
    match stored_json(served, entry) {
        Some(json) => read(json),
        None => read(&derived_json(served, entry)),
    }
}

/// The JSON that is stored, if that is what is served.
fn stored_json<'a>(served: &Served, entry: &'a Entry) -> Option<&'a Bytes> {
    (served.custom().is_none() && served.is_storage_version()).then(|| entry.json())
}

fn derived_json(served: &Served, entry: &Entry) -> Bytes {
    entry.encodings.get_or_make(form(served, FORM_JSON), || match served.custom() {
        Some(custom) => custom.local_form(entry),
        None => {
            let tree = served.from_storage(entry.tree());
            Bytes::from(apimachinery::json::to_vec(&tree))
        }
    })
}

/// An entry's tree in the version served.
pub fn entry_tree(served: &Served, entry: &Entry) -> Value {
    if served.custom().is_some() {
        // Large integers are floats to upstream, whose numbers the schema is held against.
        return apimachinery::json::parse(&entry_json(served, entry)).expect("these bytes were encoded from a tree");
    }
    served.from_storage(entry.tree())
}

/// An entry as a bare protobuf message.
pub fn entry_protobuf(served: &Served, entry: &Entry) -> Result<Bytes, Status> {
    if served.custom().is_some() {
        // Custom objects have no protobuf form.
        return Err(Status::not_acceptable(crate::request::accept::object_types(false)));
    }
    entry.encodings.try_get_or_make(form(served, FORM_PROTOBUF), || {
        api::protobuf::encode(served.schema(), &entry_tree(served, entry)).map(Bytes::from).map_err(Status::internal)
    })
}

/// The type that CBOR is written by; none for custom objects, which are trees for upstream, too.
pub fn item_type(served: &Served) -> Option<TypeRef<'_>> {
    served.custom().is_none().then(|| served.schema())
}

/// Whether the metadata of this row's objects is served as it stands in their JSON.
pub fn has_plain_metadata(served: &Served) -> bool {
    // The one annotation that mirrors a field; and other versions may mirror more.
    served.resource.plural != "daemonsets" && (served.is_storage_version() || served.custom().is_some())
}

/// Appends PartialObjectMetadata made of an object's JSON, which is not decoded.
pub fn append_metadata(out: &mut Vec<u8>, json: &[u8], version: &str) {
    out.extend_from_slice(b"{\"apiVersion\":\"meta.k8s.io/");
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(b"\",\"kind\":\"PartialObjectMetadata\",\"metadata\":");
    out.extend_from_slice(members::value(json, "metadata").unwrap_or(b"{}"));
    out.push(b'}');
}

/// An entry's metadata as a tree.
pub fn entry_metadata(served: &Served, entry: &Entry) -> Value {
    if !has_plain_metadata(served) {
        let tree = entry_tree(served, entry);
        return tree.get("metadata").cloned().unwrap_or_else(|| json!({}));
    }
    let json = entry_json(served, entry);
    let metadata = members::value(&json, "metadata").unwrap_or(b"{}");
    serde_json::from_slice(metadata).expect("these bytes were encoded from a tree")
}

/// An entry's tree as columns are made of it: upstream prints its internal form, which the storage version is next to.
pub fn printed_tree(served: &Served, entry: &Entry) -> Value {
    match served.custom() {
        Some(_) => entry_tree(served, entry),
        None => entry.tree(),
    }
}

/// PartialObjectMetadata of an object.
pub fn partial_metadata(served: &Served, mut metadata: Value, version: &str) -> Value {
    if served.resource.plural == "daemonsets"
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        // It mirrors a field of the whole object.
        annotations.remove(TEMPLATE_GENERATION);
        if annotations.is_empty() {
            metadata.as_object_mut().map(|map| map.remove("annotations"));
        }
    }
    metadata_only(metadata, version)
}

/// PartialObjectMetadata around metadata.
pub fn metadata_only(metadata: Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
    })
}

/// One entry as the client wants it: content type and body.
///
/// # Errors
/// 406 for a transformation that does not fit a single object.
pub fn entry(
    served: &Served,
    entry: &Entry,
    format: Format,
    table: &super::table::Options,
) -> Result<(&'static str, Bytes), Status> {
    match format.transform {
        None => match format.encoding {
            Encoding::Json => {
                let json = entry_json(served, entry);
                let mut out = Vec::with_capacity(if format.pretty { json.len() * 2 } else { json.len() + 1 });
                match format.pretty {
                    true => super::indent::append(&mut out, &json, 0),
                    false => out.extend_from_slice(&json),
                }
                out.push(b'\n');
                Ok((format.encoding.media_type(), Bytes::from(out)))
            }
            Encoding::Protobuf => {
                let raw = entry_protobuf(served, entry)?;
                let body = envelope(&served.api_version(), &served.resource.kind, &raw);
                Ok((format.encoding.media_type(), body))
            }
            Encoding::Cbor => {
                let body = api::cbor::encode(&entry_tree(served, entry), item_type(served));
                Ok((format.encoding.media_type(), Bytes::from(body)))
            }
            Encoding::Yaml => value(&entry_tree(served, entry), format),
        },
        Some(Transform::PartialObjectMetadata(version))
            if format.encoding == Encoding::Json && !format.pretty && has_plain_metadata(served) =>
        {
            let json = entry_json(served, entry);
            let mut out = Vec::with_capacity(json.len() / 2);
            append_metadata(&mut out, &json, version);
            out.push(b'\n');
            Ok((format.encoding.media_type(), Bytes::from(out)))
        }
        Some(Transform::PartialObjectMetadata(version)) => {
            value(&partial_metadata(served, entry_metadata(served, entry), version), format)
        }
        Some(Transform::PartialObjectMetadataList(_)) => Err(not_a_list(served)),
        Some(Transform::Table(version)) => {
            let table = table.of_object(served, &printed_tree(served, entry), version)?;
            value(&table, format)
        }
    }
}

/// A tree that is not (or not yet) in the cache as the client wants it: dry runs, subresources.
///
/// # Errors
/// As [`entry`].
pub fn tree(
    served: &Served,
    object: &Value,
    format: Format,
    table: &super::table::Options,
) -> Result<(&'static str, Bytes), Status> {
    match format.transform {
        None => value(object, format),
        Some(Transform::PartialObjectMetadata(version)) => {
            let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
            value(&partial_metadata(served, metadata, version), format)
        }
        Some(Transform::PartialObjectMetadataList(_)) => Err(not_a_list(served)),
        Some(Transform::Table(version)) => {
            let stored = if served.custom().is_some() { object.clone() } else { served.to_storage(object.clone()) };
            value(&table.of_object(served, &stored, version)?, format)
        }
    }
}

fn not_a_list(served: &Served) -> Status {
    Status::failure(
        406,
        apimachinery::status::reason::NOT_ACCEPTABLE,
        format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
            served.go_name(false)
        ),
    )
}

/// One watch event around an entry, in the client's encoding.
///
/// # Errors
/// When the object has no such form.
pub fn event_frame(
    served: &Served,
    kind: &str,
    entry: &Entry,
    format: Format,
    table: &super::table::Options,
) -> Result<Bytes, Status> {
    match (format.encoding, format.transform) {
        (Encoding::Json, None) => Ok(json_frame(kind, &entry_json(served, entry))),
        (Encoding::Json, Some(_)) => {
            let (_, body) = self::entry(served, entry, Format { pretty: false, ..format }, table)?;
            Ok(json_frame(kind, body.trim_ascii_end()))
        }
        (Encoding::Protobuf, _) => {
            let (_, body) = self::entry(served, entry, format, table)?;
            Ok(protobuf_frame(kind, &body))
        }
        (Encoding::Cbor, _) => {
            let (_, body) = self::entry(served, entry, format, table)?;
            Ok(cbor_frame(kind, &body))
        }
        (Encoding::Yaml, _) => Err(Status::not_acceptable(&["application/json;stream=watch"])),
    }
}

/// One watch event around any tree: bookmarks and errors.
///
/// # Errors
/// When the object has no such form.
pub fn value_frame(kind: &str, object: &Value, format: Format) -> Result<Bytes, Status> {
    let plain = Format { pretty: false, ..format };
    let (_, body) = value(object, plain)?;
    Ok(match format.encoding {
        Encoding::Protobuf => protobuf_frame(kind, &body),
        Encoding::Cbor => cbor_frame(kind, &body),
        Encoding::Json | Encoding::Yaml => json_frame(kind, body.trim_ascii_end()),
    })
}

fn json_frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}

/// A `WatchEvent` as one item of a sequence.
fn cbor_frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 32);
    out.extend_from_slice(&api::cbor::SELF_DESCRIBED);
    api::cbor::append_map_head(&mut out, 2);
    for (name, value) in [("type", Some(kind)), ("object", None)] {
        api::cbor::append_text(&mut out, name);
        match value {
            Some(text) => api::cbor::append_text(&mut out, text),
            None => out.extend_from_slice(object),
        }
    }
    Bytes::from(out)
}

/// A `WatchEvent` message behind its length, as upstream's streaming serializer frames it.
fn protobuf_frame(kind: &str, object: &[u8]) -> Bytes {
    let mut raw = Vec::with_capacity(object.len() + 8);
    field(&mut raw, 1, object);
    let mut event = Vec::with_capacity(raw.len() + 24);
    field(&mut event, 1, kind.as_bytes());
    field(&mut event, 2, &raw);
    let mut out = Vec::with_capacity(event.len() + 4);
    let length = u32::try_from(event.len()).expect("an object is far smaller than 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&event);
    Bytes::from(out)
}
