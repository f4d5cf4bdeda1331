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

use super::indent::string_end;
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
            Encoding::Protobuf => Ok((media_type, protobuf_body(served, &entries, meta)?)),
            _ => {
                let items = entries.iter().map(|entry| strip(encode::entry_tree(served, entry))).collect::<Vec<_>>();
                whole(&list_value(served, items, meta), format)
            }
        },
        Some(Transform::Table(version)) => {
            let trees = entries.iter().map(|entry| encode::entry_tree(served, entry));
            whole(&table.of_list(served, trees, meta, version)?, format)
        }
        Some(Transform::PartialObjectMetadataList(version)) => {
            let items = entries
                .iter()
                .map(|entry| {
                    let tree = encode::entry_tree(served, entry);
                    let metadata = tree.get("metadata").cloned().unwrap_or_else(|| json!({}));
                    let mut item = encode::partial_metadata(metadata, version);
                    if format.encoding == Encoding::Protobuf {
                        item = strip(item);
                    }
                    item
                })
                .collect::<Vec<_>>();
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
        "metadata": meta.to_value(),
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
        meta.to_value()
    );
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
    struct State {
        served: Arc<Served>,
        entries: std::vec::IntoIter<Arc<Entry>>,
        buffer: Vec<u8>,
        /// The item at hand, before it is indented.
        item: Vec<u8>,
        pretty: bool,
        any: bool,
        done: bool,
        prefix: String,
    }
    let state = State {
        served: served.clone(),
        entries: entries.into_iter(),
        buffer,
        item: Vec::new(),
        pretty,
        any: false,
        done: false,
        prefix,
    };
    Body::from_stream(stream::unfold(state, |mut state| async move {
        if state.done {
            return None;
        }
        let mut buffer = std::mem::take(&mut state.buffer);
        buffer.reserve(CHUNK.saturating_sub(buffer.len()).min(CHUNK));
        loop {
            let Some(entry) = state.entries.next() else {
                match (state.pretty, state.any) {
                    (true, true) => buffer.extend_from_slice(b"\n  ]\n}\n"),
                    (true, false) => buffer.extend_from_slice(b"]\n}\n"),
                    (false, _) => buffer.extend_from_slice(b"]}\n"),
                }
                state.done = true;
                break;
            };
            let json = encode::entry_json(&state.served, &entry);
            if state.any {
                buffer.push(b',');
            }
            if state.pretty {
                if state.any {
                    indent::line(&mut buffer, ITEM_DEPTH);
                }
                state.item.clear();
                append_item(&mut state.item, &json, state.prefix.as_bytes());
                indent::append(&mut buffer, &state.item, ITEM_DEPTH);
            } else {
                append_item(&mut buffer, &json, state.prefix.as_bytes());
            }
            state.any = true;
            if buffer.len() >= CHUNK {
                break;
            }
        }
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(buffer)), state))
    }))
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
    for (name, member) in (Members { json, at: 1 }) {
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

/// The top-level members of an object that was encoded here, so without white space: name, and
/// name with value.
struct Members<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        if self.json.get(start) != Some(&b'"') {
            return None;
        }
        let name_end = string_end(self.json, start);
        let end = value_end(self.json, name_end + 1);
        self.at = end + 1;
        Some((self.json.get(start + 1..name_end - 1)?, self.json.get(start..end)?))
    }
}

fn value_end(json: &[u8], start: usize) -> usize {
    match json.get(start) {
        Some(b'"') => string_end(json, start),
        Some(b'{' | b'[') => {
            let mut depth = 0usize;
            let mut at = start;
            while at < json.len() {
                match json[at] {
                    b'"' => {
                        at = string_end(json, at);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return at + 1;
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
            json.len()
        }
        _ => json[start..]
            .iter()
            .position(|byte| matches!(byte, b',' | b'}'))
            .map_or(json.len(), |offset| start + offset),
    }
}

fn protobuf_body(served: &Served, entries: &[Arc<Entry>], meta: &ListMeta) -> Result<Body, Status> {
    let messages = entries.iter().map(|entry| encode::entry_protobuf(served, entry)).collect::<Result<Vec<_>, _>>()?;
    let mut list_meta = Vec::new();
    // selfLink (1) is always written, empty.
    encode::field(&mut list_meta, 1, b"");
    encode::field(&mut list_meta, 2, meta.resource_version.as_bytes());
    encode::field(&mut list_meta, 3, meta.continue_token.as_bytes());
    if let Some(remaining) = meta.remaining {
        list_meta.push(4 << 3);
        let mut number = remaining as u64;
        while number >= 0x80 {
            list_meta.push((number as u8) | 0x80);
            number >>= 7;
        }
        list_meta.push(number as u8);
    }
    let mut raw = Vec::with_capacity(messages.iter().map(|message| message.len() + 6).sum::<usize>() + 64);
    encode::field(&mut raw, 1, &list_meta);
    for message in &messages {
        encode::field(&mut raw, 2, message);
    }
    Ok(Body::from(encode::envelope(&served.api_version(), &served.resource.list_kind, &raw)))
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
