//! YAML to trees. The events come from `granit-parser`; what they mean is decided here, as
//! `go.yaml.in/yaml/v2` and the JSON conversion of `sigs.k8s.io/yaml` decide it.

use super::resolve::{Resolved, float_key, float_value, resolve, resolve_core, timestamp_text};
use crate::gotext::quote;
use crate::json;
use base64::Engine;
use granit_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Text that is not YAML, or YAML that is not an object tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("yaml: {message}")]
pub struct Error {
    /// Begins with `line N: ` where the place is known.
    pub message: String,
}

fn error(message: impl Into<String>) -> Error {
    Error { message: message.into() }
}

/// A document and what strict reading has against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub value: Value,
    /// Upstream's one message about keys given twice, over several lines.
    pub strict: Option<String>,
}

/// Reads the first document; a key given twice takes its last value.
pub fn parse(text: &str) -> Result<Value, Error> {
    Ok(decode(text)?.value)
}

/// Reads the first document and notes keys given twice.
pub fn decode(text: &str) -> Result<Parsed, Error> {
    let mut composer = Composer::new(text);
    let value = composer.next_document()?.unwrap_or(Value::Null);
    let strict = (!composer.duplicates.is_empty())
        .then(|| format!("yaml: unmarshal errors:\n  {}", composer.duplicates.join("\n  ")));
    Ok(Parsed { value, strict })
}

/// Reads every document that is not empty. JSON, also several objects in a row, is read as JSON.
pub fn parse_documents(text: &str) -> Result<Vec<Value>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{')
        && let Some(values) = json_stream(text)
    {
        return Ok(values);
    }
    let mut composer = Composer::new(text);
    let mut documents = Vec::new();
    while let Some(value) = composer.next_document()? {
        if !value.is_null() {
            documents.push(value);
        }
    }
    Ok(documents)
}

/// As [`parse_documents`], with the scalars of `go.yaml.in/yaml/v3`, by which kustomize reads: `yes` and
/// `on` are strings, and a date becomes a time with a zone.
pub fn parse_documents_core(text: &str) -> Result<Vec<Value>, Error> {
    let mut composer = Composer::new(text.strip_prefix('\u{feff}').unwrap_or(text));
    composer.core = true;
    let mut documents = Vec::new();
    while let Some(value) = composer.next_document()? {
        documents.push(value);
    }
    Ok(documents)
}

fn json_stream(text: &str) -> Option<Vec<Value>> {
    if let Ok(mut value) = json::parse(text.as_bytes()) {
        // As it would be sent.
        json::settle(&mut value);
        return Some(vec![value]);
    }
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().ok()
}

/// Below this many nodes nearly all may come from aliases, above the other nearly none:
/// yaml.v2's guard against documents that explode.
const ALIAS_RANGE: (f64, f64) = (400_000.0, 4_000_000.0);

struct Anchor {
    value: Value,
    nodes: usize,
    plain_merge: bool,
}

enum Frame {
    Map { map: Map<String, Value>, key: Option<Key>, anchor: usize, nodes: usize },
    Seq { items: Vec<Value>, anchor: usize, nodes: usize },
}

enum Key {
    Name(String),
    Merge,
}

/// A finished node.
struct Node {
    value: Value,
    /// The same as a key of a map.
    key: Result<Key, String>,
    line: usize,
    anchor: usize,
    nodes: usize,
}

struct Composer<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Anchor>,
    duplicates: Vec<String>,
    decoded: usize,
    aliased: usize,
    /// Plain scalars mean what yaml/v3 says.
    core: bool,
}

impl<'a> Composer<'a> {
    fn new(text: &'a str) -> Self {
        let options =
            granit_parser::options! { emit_comments: false, flow_nesting_limit: 500, block_nesting_limit: 500 };
        Self {
            parser: Parser::new_from_str_with_options(text, options),
            anchors: HashMap::new(),
            duplicates: Vec::new(),
            decoded: 0,
            aliased: 0,
            core: false,
        }
    }

    /// The next document, or `None` at the end of the stream.
    fn next_document(&mut self) -> Result<Option<Value>, Error> {
        let mut stack: Vec<Frame> = Vec::new();
        self.anchors.clear();
        loop {
            let Some(event) = self.parser.next_event() else {
                return Ok(None);
            };
            let (event, span) = event.map_err(|e| scan_error(&e))?;
            let line = span.start.line();
            let node = match event {
                Event::StreamEnd => return Ok(None),
                Event::DocumentEnd => continue,
                Event::Scalar(text, style, anchor, tag) => {
                    scalar(&text, (style, self.core), anchor, tag.as_deref(), line)?
                }
                Event::SequenceStart(_, anchor, _) => {
                    stack.push(Frame::Seq { items: Vec::new(), anchor, nodes: 1 });
                    continue;
                }
                Event::MappingStart(_, anchor, _) => {
                    stack.push(Frame::Map { map: Map::new(), key: None, anchor, nodes: 1 });
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => match stack.pop() {
                    Some(Frame::Seq { items, anchor, nodes }) => Node {
                        value: Value::Array(items),
                        key: Err("invalid map key: a sequence".into()),
                        line,
                        anchor,
                        nodes,
                    },
                    Some(Frame::Map { map, anchor, nodes, .. }) => Node {
                        value: Value::Object(map),
                        key: Err("invalid map key: a mapping".into()),
                        line,
                        anchor,
                        nodes,
                    },
                    None => continue,
                },
                Event::Alias(id) => self.alias(id, line)?,
                _ => continue,
            };
            self.count(1, 0)?;
            if node.anchor != 0 {
                let plain_merge = matches!(node.key, Ok(Key::Merge));
                self.anchors.insert(node.anchor, Anchor { value: node.value.clone(), nodes: node.nodes, plain_merge });
            }
            match stack.last_mut() {
                None => return Ok(Some(node.value)),
                Some(Frame::Seq { items, nodes, .. }) => {
                    *nodes += node.nodes;
                    items.push(node.value);
                }
                Some(Frame::Map { map, key, nodes, .. }) => {
                    *nodes += node.nodes;
                    match key.take() {
                        None => *key = Some(node.key.map_err(error)?),
                        Some(Key::Merge) => merge(map, node.value)?,
                        Some(Key::Name(name)) => {
                            if map.contains_key(&name) {
                                self.duplicates.push(format!(
                                    "line {}: key {} already set in map",
                                    node.line,
                                    quote(&name)
                                ));
                            }
                            map.insert(name, node.value);
                        }
                    }
                }
            }
        }
    }

    fn alias(&mut self, id: usize, line: usize) -> Result<Node, Error> {
        // Anchors are known once their node is complete, so an unknown one is being defined.
        let nodes = match self.anchors.get(&id) {
            Some(anchor) => anchor.nodes,
            None => return Err(error("anchor value contains itself")),
        };
        self.count(nodes, nodes)?;
        let anchor = &self.anchors[&id];
        let key = match &anchor.value {
            _ if anchor.plain_merge => Ok(Key::Merge),
            Value::String(s) => Ok(Key::Name(s.clone())),
            Value::Number(n) => Ok(Key::Name(n.to_string())),
            Value::Bool(b) => Ok(Key::Name(b.to_string())),
            _ => Err("invalid map key".to_owned()),
        };
        Ok(Node { value: anchor.value.clone(), key, line, anchor: 0, nodes })
    }

    fn count(&mut self, decoded: usize, aliased: usize) -> Result<(), Error> {
        self.decoded += decoded;
        self.aliased += aliased;
        if self.aliased > 100 && self.decoded > 1000 {
            let decoded = self.decoded as f64;
            let (low, high) = ALIAS_RANGE;
            let allowed = (0.99 - 0.89 * ((decoded - low) / (high - low))).clamp(0.10, 0.99);
            if self.aliased as f64 / decoded > allowed {
                return Err(error("document contains excessive aliasing"));
            }
        }
        Ok(())
    }
}

/// `<<`: keys of the merged mappings; the earlier of a list wins.
fn merge(map: &mut Map<String, Value>, value: Value) -> Result<(), Error> {
    let refuse = || error("map merge requires map or sequence of maps as the value");
    match value {
        Value::Object(other) => map.extend(other),
        Value::Array(items) => {
            for item in items.into_iter().rev() {
                let Value::Object(other) = item else {
                    return Err(refuse());
                };
                map.extend(other);
            }
        }
        _ => return Err(refuse()),
    }
    Ok(())
}

fn scalar(
    text: &str,
    (style, core_schema): (ScalarStyle, bool),
    anchor: usize,
    tag: Option<&Tag>,
    line: usize,
) -> Result<Node, Error> {
    let string =
        |text: String| Node { key: Ok(Key::Name(text.clone())), value: Value::String(text), line, anchor, nodes: 1 };
    let core = tag.and_then(|t| t.core_suffix());
    match (core, tag) {
        (Some("str"), _) => return Ok(string(text.to_owned())),
        (Some("binary"), _) => {
            let data = base64::engine::general_purpose::STANDARD
                .decode(text.replace(['\n', ' '], ""))
                .map_err(|_| error("!!binary value contains invalid base64 data"))?;
            return Ok(string(String::from_utf8_lossy(&data).into_owned()));
        }
        (None, Some(_)) => return Ok(string(text.to_owned())),
        (None, None) if style != ScalarStyle::Plain => return Ok(string(text.to_owned())),
        _ => {}
    }
    let mut resolved = if core_schema { resolve_core(text) } else { resolve(text) };
    if core_schema && matches!(resolved, Resolved::Timestamp) {
        return Ok(string(timestamp_text(text)));
    }
    if let Some(wanted) = core {
        if let (Resolved::Int(int), "float") = (&resolved, wanted) {
            resolved = Resolved::Float(*int as f64);
        }
        let found = match resolved {
            Resolved::Null => "null",
            Resolved::Bool(_) => "bool",
            Resolved::Int(_) => "int",
            Resolved::Float(_) => "float",
            Resolved::Timestamp => "timestamp",
            Resolved::Merge => "merge",
            Resolved::Str => "str",
        };
        if found != wanted {
            return Err(error(format!("cannot decode !!{found} `{text}` as a !!{wanted}")));
        }
    }
    let (value, key) = match resolved {
        Resolved::Str | Resolved::Timestamp => return Ok(string(text.to_owned())),
        Resolved::Null => (Value::Null, Err("unsupported map key of type: %!s(<nil>), key: <nil>".to_owned())),
        Resolved::Bool(b) => (Value::Bool(b), Ok(Key::Name(b.to_string()))),
        Resolved::Int(int) => (Value::from(int), Ok(Key::Name(int.to_string()))),
        Resolved::Float(float) => {
            let key = Ok(Key::Name(float_key(float)));
            match float_value(float) {
                Some(value) => (value, key),
                None => {
                    return Err(error(format!("json: unsupported value: {}", show_float(float))));
                }
            }
        }
        Resolved::Merge => (Value::String(text.to_owned()), Ok(Key::Merge)),
    };
    Ok(Node { value, key, line, anchor, nodes: 1 })
}

fn show_float(float: f64) -> &'static str {
    if float.is_nan() {
        "NaN"
    } else if float > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

/// Both parsers descend from libyaml, but word some things differently.
fn scan_error(scan: &granit_parser::ScanError) -> Error {
    let text = scan.info().to_lowercase();
    let mut line = scan.marker().line();
    let message = if text.contains("mapping values are not allowed") {
        "mapping values are not allowed in this context"
    } else if text.contains("simple key expect") {
        "could not find expected ':'"
    } else if text.contains("did not find expected ',' or ']'") {
        "did not find expected ',' or ']'"
    } else if text.contains("did not find expected ',' or '}'") {
        "did not find expected ',' or '}'"
    } else if text.contains("did not find expected <document start>") {
        "did not find expected <document start>"
    } else if text.contains("did not find expected key") {
        "did not find expected key"
    } else if text.contains("unclosed bracket '{'") {
        "did not find expected ',' or '}'"
    } else if text.contains("unclosed bracket '['") {
        "did not find expected ',' or ']'"
    } else if text.contains("unclosed quote") {
        line += 1;
        "found unexpected end of stream"
    } else if text.contains("tab") || text.contains("unexpected character") {
        "found character that cannot start any token"
    } else {
        text.as_str()
    };
    // What the scanner finds on the first line, upstream tells without a line.
    let by_scanner =
        ["mapping values", "found character", "could not find"].iter().any(|start| message.starts_with(start));
    if line == 1 && by_scanner {
        return error(message);
    }
    error(format!("line {line}: {message}"))
}
