//! JSON in: a decoder that answers as Kubernetes' does.
//!
//! Syntax errors have the text of Go's scanner; duplicate and unknown fields are collected in
//! document order with upstream's paths (`fieldValidation`); integers stay integers; invalid UTF-8
//! and lone surrogates become U+FFFD. The decoder keeps its own stack, so no document, however
//! deep, can exhaust the thread's.

mod scan;

pub(crate) use scan::number_value;

use crate::schema::{Type, TypeRef};
use scan::Scanner;
use serde_json::{Map, Value};

/// How deep objects and lists may nest: as deep as Go reads.
pub const MAX_DEPTH: usize = 10_000;

/// How deep what is kept may nest. Trees deeper than this would overflow the stacks of every recursive
/// walk after the decoder, and nothing legitimate comes near it; what is thrown away is only read.
pub const MAX_KEPT_DEPTH: usize = 1_000;

/// As many strict errors as upstream collects.
const MAX_STRICT_ERRORS: usize = 100;

/// Text that is not JSON. The message is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub message: String,
    /// Byte offset at which reading stopped.
    pub offset: usize,
}

/// A decoded document and what strict validation has against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// `duplicate field "spec.x"`, `unknown field "spec.y"`, in document order, without repeats.
    pub strict: Vec<String>,
}

/// Reads one document; later duplicates win silently.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    Ok(decode(bytes, None)?.value)
}

/// Reads one document. Under a type, unknown fields are dropped and reported; duplicates are
/// always reported. Values are not checked against the type.
pub fn decode(bytes: &[u8], ty: Option<TypeRef<'_>>) -> Result<Decoded, Error> {
    let mut decoder = Decoder { scanner: Scanner::new(bytes), stack: Vec::new(), strict: Vec::new() };
    let mode = match ty {
        Some(ty) => Mode::Typed { ty, report: true },
        None => Mode::Free { report: true },
    };
    let value = decoder.document(mode)?;
    Ok(Decoded { value, strict: decoder.strict })
}

/// What is known about the value being read.
#[derive(Clone, Copy)]
enum Mode<'s> {
    /// A described value; strict errors inside are reported or not.
    Typed { ty: TypeRef<'s>, report: bool },
    /// Anything goes; duplicates are reported or not.
    Free { report: bool },
    /// Read and thrown away.
    Discard,
}

impl<'s> Mode<'s> {
    fn reports(self) -> bool {
        matches!(self, Self::Typed { report: true, .. } | Self::Free { report: true })
    }

    /// Types whose Go form decodes itself see through to the type behind, and keep silent.
    fn resolved(self) -> Self {
        let Self::Typed { ty, report } = self else {
            return self;
        };
        match ty.ty() {
            Type::SchemaOrBool(id) | Type::SchemaOrArray(id) | Type::SchemaOrStringArray(id) => {
                Self::Typed { ty: ty.at(*id), report: false }
            }
            Type::RawExtension | Type::Json | Type::FieldsV1 | Type::Unknown => Self::Free { report: false },
            Type::Object(object) if object.preserve_unknown && object.fields.is_empty() => Self::Free { report },
            _ => self,
        }
    }

    /// Whether an integer is due.
    fn is_integer(self) -> bool {
        matches!(self, Self::Typed { ty, .. } if matches!(ty.ty(), Type::Int32 | Type::Int64 | Type::IntOrString))
    }

    /// The mode of a field; `None` if there is no such field.
    fn field(self, key: &str) -> Option<Self> {
        match self {
            Self::Discard => Some(Self::Discard),
            Self::Free { .. } => Some(self),
            Self::Typed { ty, report } => match ty.ty() {
                Type::Object(object) => match ty.field(key) {
                    Some(field) => Some(Self::Typed { ty: field.ty, report }),
                    None if object.preserve_unknown => Some(Self::Free { report }),
                    // Embedded resources have these although the schema need not say so.
                    None if object.embedded_resource && matches!(key, "apiVersion" | "kind" | "metadata") => {
                        Some(Self::Free { report })
                    }
                    None => None,
                },
                Type::Map(map) => Some(Self::Typed { ty: ty.at(map.value), report }),
                // A wrong type: kept as it is for the checks after decoding to complain about.
                _ => Some(Self::Free { report: false }),
            },
        }
    }

    fn item(self) -> Self {
        match self {
            Self::Typed { ty, report } => match ty.ty() {
                Type::List(list) => Self::Typed { ty: ty.at(list.item), report },
                // JSONSchemaPropsOrArray holds schemas, JSONSchemaPropsOrStringArray strings.
                Type::Object(_) if !report => self,
                _ => Self::Free { report: false },
            },
            other => other,
        }
    }
}

enum Frame<'s> {
    Object { map: Map<String, Value>, key: String, mode: Mode<'s>, child: Mode<'s>, keep: bool },
    Array { items: Vec<Value>, mode: Mode<'s> },
}

struct Decoder<'a, 's> {
    scanner: Scanner<'a>,
    stack: Vec<Frame<'s>>,
    strict: Vec<String>,
}

impl<'s> Decoder<'_, 's> {
    fn document(&mut self, root: Mode<'s>) -> Result<Value, Error> {
        let mut mode = root;
        loop {
            // One turn reads one value, or opens a container and reads its first child next.
            let mut value = match self.open(mode)? {
                Opened::Value(value) => value,
                Opened::Child(child) => {
                    mode = child;
                    continue;
                }
            };
            // Put the value into its container; close as many containers as end here.
            loop {
                match self.place(value)? {
                    Placed::Next(next) => {
                        mode = next;
                        break;
                    }
                    Placed::Closed(closed) => value = closed,
                    Placed::Done(done) => {
                        self.scanner.end()?;
                        return Ok(done);
                    }
                }
            }
        }
    }

    fn open(&mut self, mode: Mode<'s>) -> Result<Opened<'s>, Error> {
        let mode = mode.resolved();
        match self.scanner.value_start()? {
            b'{' => {
                self.push(Frame::Object { map: Map::new(), key: String::new(), mode, child: mode, keep: true })?;
                match self.scanner.first_key()? {
                    Some(key) => Ok(Opened::Child(self.enter(key)?)),
                    None => Ok(Opened::Value(self.pop())),
                }
            }
            b'[' => {
                self.push(Frame::Array { items: Vec::new(), mode })?;
                if self.scanner.array_is_empty()? {
                    Ok(Opened::Value(self.pop()))
                } else {
                    Ok(Opened::Child(mode.item()))
                }
            }
            b'"' => Ok(Opened::Value(Value::String(self.scanner.string()?))),
            _ => Ok(Opened::Value(self.scanner.scalar(mode.is_integer())?)),
        }
    }

    fn push(&mut self, frame: Frame<'s>) -> Result<(), Error> {
        // What is kept lies above what is not, so the depth of the stack is that of the tree.
        let discarded =
            matches!(&frame, Frame::Object { mode: Mode::Discard, .. } | Frame::Array { mode: Mode::Discard, .. });
        if self.stack.len() >= if discarded { MAX_DEPTH } else { MAX_KEPT_DEPTH } {
            let opened = if matches!(&frame, Frame::Object { .. }) { '{' } else { '[' };
            return Err(self.scanner.error_here(&format!("invalid character '{opened}' exceeded max depth")));
        }
        self.stack.push(frame);
        Ok(())
    }

    fn pop(&mut self) -> Value {
        match self.stack.pop().expect("a container is open") {
            Frame::Object { map, .. } => Value::Object(map),
            Frame::Array { items, .. } => Value::Array(items),
        }
    }

    /// A key was read: notes strict errors and tells how to read its value.
    fn enter(&mut self, new_key: String) -> Result<Mode<'s>, Error> {
        let Some(Frame::Object { map, mode, .. }) = self.stack.last() else { unreachable!("keys occur in objects") };
        let mode = *mode;
        let (next, complaint) = match mode.field(&new_key) {
            None => (Mode::Discard, mode.reports().then_some("unknown field")),
            Some(next) => (next, (mode.reports() && map.contains_key(&new_key)).then_some("duplicate field")),
        };
        if let Some(kind) = complaint {
            self.complain(kind, &new_key);
        }
        if let Some(Frame::Object { key, child, keep, .. }) = self.stack.last_mut() {
            *key = new_key;
            *child = next;
            *keep = !matches!(next, Mode::Discard);
        }
        Ok(next)
    }

    fn complain(&mut self, kind: &str, key: &str) {
        if self.strict.len() >= MAX_STRICT_ERRORS {
            return;
        }
        let mut path = String::new();
        let parents = self.stack.len() - 1;
        for frame in &self.stack[..parents] {
            match frame {
                Frame::Object { key, .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Frame::Array { items, .. } => path.push_str(&format!("[{}]", items.len())),
            }
        }
        if parents > 0 {
            path.push('.');
        }
        path.push_str(key);
        let text = format!("{kind} {}", crate::gotext::quote(&path));
        if !self.strict.contains(&text) {
            self.strict.push(text);
        }
    }

    fn place(&mut self, value: Value) -> Result<Placed<'s>, Error> {
        match self.stack.last_mut() {
            None => Ok(Placed::Done(value)),
            Some(Frame::Object { map, key, keep, .. }) => {
                if *keep {
                    map.insert(std::mem::take(key), value);
                }
                match self.scanner.next_key()? {
                    Some(key) => Ok(Placed::Next(self.enter(key)?)),
                    None => Ok(Placed::Closed(self.pop())),
                }
            }
            Some(Frame::Array { items, mode }) => {
                if !matches!(mode, Mode::Discard) {
                    items.push(value);
                }
                let item = mode.item();
                if self.scanner.next_item()? { Ok(Placed::Next(item)) } else { Ok(Placed::Closed(self.pop())) }
            }
        }
    }
}

enum Opened<'s> {
    Value(Value),
    Child(Mode<'s>),
}

enum Placed<'s> {
    Next(Mode<'s>),
    Closed(Value),
    Done(Value),
}

#[cfg(test)]
mod tests;
