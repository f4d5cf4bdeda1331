//! LIST bodies: a snapshot's entries put together from bytes that exist already.
//!
//! Items of a list carry no `kind` and `apiVersion`; stored objects do. Where both stand at the
//! front, as they do for most kinds because keys are sorted, they are a constant prefix to skip;
//! elsewhere the top level is scanned for the two members.

use std::sync::Arc;

use apimachinery::status::Status;
use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use serde_json::{Map, Value, json};

use super::members::Members;
use super::{encode, indent};
use crate::cache::Entry;
use crate::registry::Served;
use crate::request::accept::{Encoding, Format, Transform};

/// Bytes put together before they are handed to the connection.
const CHUNK: usize = 128 * 1024;

/// Levels around an item of a list: the list, and its array of items.
const ITEM_DEPTH: usize = 2;

/// What a list says about itself.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    pub resource_version: String,
    pub continue_token: String,
    pub remaining: Option<i64>,
}

impl ListMeta {
    /// What a Table of one object says.
    pub fn of_object(object: &Value) -> Self {
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        Self { resource_version: version.to_string(), ..Self::default() }
    }

    /// As `metadata` of a list.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if !self.continue_token.is_empty() {
            map.insert("continue".into(), self.continue_token.clone().into());
        }
        if let Some(remaining) = self.remaining {
            map.insert("remainingItemCount".into(), remaining.into());
        }
        if !self.resource_version.is_empty() {
            map.insert("resourceVersion".into(), self.resource_version.clone().into());
        }
        Value::Object(map)
    }

    /// As `metadata` of a list of a resource: custom ones always say where they go on.
    fn of(&self, served: &Served) -> Value {
        let mut value = self.to_value();
        if served.custom().is_some() && self.continue_token.is_empty() {
            value["continue"] = "".into();
        }
        value
    }
}

/// A list in the client's form: content type and body.
///
/// # Errors
/// 406 for a transformation that does not fit a list.
pub fn body(
    served: &Arc<Served>,
    entries: Vec<Arc<Entry>>,
    meta: &ListMeta,
    format: Format,
    table: &super::table::Options,
) -> Result<(&'static str, Body), Status> {
    let media_type = format.encoding.media_type();
    match format.transform {
        None => match format.encoding {
            Encoding::Json => Ok((media_type, json_body(served, entries, meta, format.pretty))),
            Encoding::Protobuf => Ok((media_type, protobuf_body(served, entries, meta)?)),
            Encoding::Cbor => Ok((media_type, cbor_body(served, entries, meta))),
            Encoding::Yaml => {
                let item = |entry: &Arc<Entry>| match served.custom() {
                    // Items of custom kinds say what they are.
                    Some(_) => encode::entry_tree(served, entry),
                    None => strip(encode::entry_tree(served, entry)),
                };
                let items = entries.iter().map(item).collect::<Vec<_>>();
                whole(&list_value(served, items, meta), format)
            }
        },
        Some(Transform::Table(version)) if format.encoding == Encoding::Json && !format.pretty => {
            Ok((media_type, table_body(served, entries, meta, version, *table)?))
        }
        Some(Transform::Table(version)) => {
            let trees = entries.iter().map(|entry| encode::printed_tree(served, entry));
            whole(&table.of_list(served, trees, meta, version)?, format)
        }
        Some(Transform::PartialObjectMetadataList(version))
            if format.encoding == Encoding::Json
                && !format.pretty
                && !entries.is_empty()
                && encode::has_plain_metadata(served) =>
        {
            Ok((media_type, metadata_body(served, entries, meta, version)))
        }
        Some(Transform::PartialObjectMetadataList(version)) => {
            let items = entries
                .iter()
                .map(|entry| {
                    let metadata = encode::entry_metadata(served, entry);
                    let mut item = encode::partial_metadata(served, metadata, version);
                    if format.encoding == Encoding::Protobuf {
                        item = strip(item);
                    }
                    item
                })
                .collect::<Vec<_>>();
            // Upstream never makes the list of nothing.
            let items =
                if items.is_empty() && format.encoding != Encoding::Protobuf { Value::Null } else { items.into() };
            let list = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": meta.to_value(),
                "items": items,
            });
            whole(&list, format)
        }
        Some(Transform::PartialObjectMetadata(_)) => Err(Status::failure(
            406,
            apimachinery::status::reason::NOT_ACCEPTABLE,
            format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({})",
                served.go_name(true)
            ),
        )),
    }
}

fn whole(value: &Value, format: Format) -> Result<(&'static str, Body), Status> {
    let (content_type, body) = encode::value(value, format)?;
    Ok((content_type, Body::from(body)))
}

/// A list as one tree.
fn list_value(served: &Served, items: Vec<Value>, meta: &ListMeta) -> Value {
    json!({
        "kind": served.resource.list_kind,
        "apiVersion": served.api_version(),
        "metadata": meta.of(served),
        "items": items,
    })
}

/// An object as it appears inside a list.
pub fn strip(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}

fn json_body(served: &Arc<Served>, entries: Vec<Arc<Entry>>, meta: &ListMeta, pretty: bool) -> Body {
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
        json!(served.resource.list_kind),
        json!(served.api_version()),
        meta.of(served)
    );
    let custom = served.custom().is_some();
    let prefix = format!("{{\"apiVersion\":{},\"kind\":{},", json!(served.api_version()), json!(served.resource.kind));
    let mut buffer = Vec::new();
    match pretty {
        true => indent::append(&mut buffer, head.as_bytes(), 0),
        false => buffer.extend_from_slice(head.as_bytes()),
    }
    if pretty && entries.is_empty() {
        // Nothing stands inside of an empty array, not even a new line.
        buffer.truncate(buffer.trim_ascii_end().len());
    }
    let tail: &[u8] = match (pretty, entries.is_empty()) {
        (true, false) => b"\n  ]\n}\n",
        (true, true) => b"]\n}\n",
        (false, _) => b"]}\n",
    };
    let served = served.clone();
    let (mut any, mut item) = (false, Vec::new());
    in_chunks(buffer, entries, tail.to_vec(), move |buffer, entry| {
        let append = |out: &mut Vec<u8>| {
            encode::with_json(&served, entry, |json| match custom {
                true => out.extend_from_slice(json),
                false => append_item(out, json, prefix.as_bytes()),
            });
        };
        let first = !std::mem::replace(&mut any, true);
        if !first {
            buffer.push(b',');
        }
        if !pretty {
            return append(buffer);
        }
        if !first {
            indent::line(buffer, ITEM_DEPTH);
        }
        item.clear();
        append(&mut item);
        indent::append(buffer, &item, ITEM_DEPTH);
    })
}

/// Appends an object without its `apiVersion` and `kind`.
fn append_item(out: &mut Vec<u8>, json: &[u8], prefix: &[u8]) {
    if let Some(rest) = json.strip_prefix(prefix) {
        out.push(b'{');
        out.extend_from_slice(rest);
        return;
    }
    out.push(b'{');
    let mut first = true;
    for (name, member) in Members::of(json) {
        if matches!(name, b"apiVersion" | b"kind") {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(member);
    }
    out.push(b'}');
}

/// A PartialObjectMetadataList, put together from the metadata of objects as they are.
fn metadata_body(served: &Arc<Served>, entries: Vec<Arc<Entry>>, meta: &ListMeta, version: &str) -> Body {
    let head = format!("{{\"apiVersion\":\"meta.k8s.io/{version}\",\"items\":[");
    let tail = format!("],\"kind\":\"PartialObjectMetadataList\",\"metadata\":{}}}\n", meta.to_value());
    let (served, version) = (served.clone(), version.to_owned());
    let mut any = false;
    in_chunks(head.into_bytes(), entries, tail.into_bytes(), move |buffer, entry| {
        if std::mem::replace(&mut any, true) {
            buffer.push(b',');
        }
        encode::with_json(&served, entry, |json| encode::append_metadata(buffer, json, &version));
    })
}

/// A Table, a row at a time: thousands of trees at once would take ten times the memory of their objects.
fn table_body(
    served: &Arc<Served>,
    entries: Vec<Arc<Entry>>,
    meta: &ListMeta,
    version: &'static str,
    table: super::table::Options,
) -> Result<Body, Status> {
    const END: &[u8] = b"]}\n";
    let empty = table.of_list(served, std::iter::empty(), meta, version)?;
    if entries.is_empty() {
        return Ok(Body::from(encode::json_bytes(&empty, false)));
    }
    let mut head = encode::json_bytes(&empty, false);
    if head.ends_with(b"null}\n") {
        head.truncate(head.len() - b"null}\n".len());
        head.extend_from_slice(b"[]}\n");
    }
    // Members are sorted, so the rows, of which there are none yet, stand last.
    debug_assert!(head.ends_with(b"\"rows\":[]}\n"));
    head.truncate(head.len() - END.len());
    let served = served.clone();
    let mut any = false;
    Ok(in_chunks(head, entries, END.to_vec(), move |buffer, entry| {
        if std::mem::replace(&mut any, true) {
            buffer.push(b',');
        }
        let row = table.row(&served, encode::printed_tree(&served, entry), version);
        apimachinery::json::append(buffer, &row);
    }))
}

/// A body of `head`, what `append` makes of each item, and `tail`, sent as it is made.
fn in_chunks<T: Send + 'static>(
    head: Vec<u8>,
    items: Vec<T>,
    tail: Vec<u8>,
    append: impl FnMut(&mut Vec<u8>, &T) + Send + 'static,
) -> Body {
    let state = Some((head, items.into_iter(), tail, append));
    Body::from_stream(stream::unfold(state, |state| async move {
        let (mut buffer, mut items, tail, mut append) = state?;
        while buffer.len() < CHUNK {
            let Some(item) = items.next() else {
                buffer.extend_from_slice(&tail);
                return Some((Ok::<_, std::convert::Infallible>(Bytes::from(buffer)), None));
            };
            append(&mut buffer, &item);
        }
        let next = (Vec::with_capacity(CHUNK + CHUNK / 8), items, tail, append);
        Some((Ok(Bytes::from(buffer)), Some(next)))
    }))
}

/// A list in CBOR, an item at a time.
fn cbor_body(served: &Arc<Served>, entries: Vec<Arc<Entry>>, meta: &ListMeta) -> Body {
    use api::cbor::{append, append_array_head, append_map_head, append_text};
    // Names in the order of the deterministic form: by length.
    let mut head = api::cbor::SELF_DESCRIBED.to_vec();
    append_map_head(&mut head, 4);
    append_text(&mut head, "kind");
    append_text(&mut head, &served.resource.list_kind);
    append_text(&mut head, "items");
    append_array_head(&mut head, entries.len());
    let mut tail = Vec::new();
    append_text(&mut tail, "metadata");
    append(&mut tail, &meta.of(served), None);
    append_text(&mut tail, "apiVersion");
    append_text(&mut tail, &served.api_version());
    let served = served.clone();
    in_chunks(head, entries, tail, move |buffer, entry| {
        let tree = encode::entry_tree(&served, entry);
        // Items of custom kinds say what they are.
        let tree = if served.custom().is_some() { tree } else { strip(tree) };
        append(buffer, &tree, encode::item_type(&served));
    })
}

fn protobuf_body(served: &Arc<Served>, entries: Vec<Arc<Entry>>, meta: &ListMeta) -> Result<Body, Status> {
    let mut list_meta = Vec::new();
    // selfLink (1) is always written, empty.
    encode::field(&mut list_meta, 1, b"");
    encode::field(&mut list_meta, 2, meta.resource_version.as_bytes());
    encode::field(&mut list_meta, 3, meta.continue_token.as_bytes());
    if let Some(remaining) = meta.remaining {
        list_meta.push(4 << 3);
        encode::varint(&mut list_meta, remaining as u64);
    }
    let mut start = Vec::new();
    encode::field(&mut start, 1, &list_meta);
    // Each message is made once and kept with its entry; their length stands in front of all of them.
    let messages = entries.iter().map(|entry| encode::entry_protobuf(served, entry)).collect::<Result<Vec<_>, _>>()?;
    drop(entries);
    let mut length = start.len();
    let mut header = Vec::new();
    for message in &messages {
        header.clear();
        encode::field_header(&mut header, 2, message.len());
        length += header.len() + message.len();
    }
    let (mut head, tail) = encode::envelope_parts(&served.api_version(), &served.resource.list_kind, length);
    head.extend_from_slice(&start);
    Ok(in_chunks(head, messages, tail.to_vec(), |buffer, message: &Bytes| encode::field(buffer, 2, message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_type_meta_wherever_it_stands() {
        let check = |json: &str, want: &str| {
            let mut out = Vec::new();
            append_item(&mut out, json.as_bytes(), b"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",");
            assert_eq!(std::str::from_utf8(&out).unwrap(), want, "{json}");
        };
        check(r#"{"apiVersion":"v1","kind":"Pod","metadata":{}}"#, r#"{"metadata":{}}"#);
        check(
            r#"{"addressType":"IPv4","apiVersion":"v1","endpoints":[{"kind":"x\"}"}],"kind":"S","metadata":{"kind":1}}"#,
            r#"{"addressType":"IPv4","endpoints":[{"kind":"x\"}"}],"metadata":{"kind":1}}"#,
        );
        check(r#"{"a":1,"apiVersion":"v1","kind":"X"}"#, r#"{"a":1}"#);
        check(r#"{"kind":"X"}"#, "{}");
    }
}
