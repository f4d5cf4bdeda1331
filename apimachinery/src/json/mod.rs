//! JSON in: a decoder that answers as Kubernetes' does.
//!
//! Syntax errors have the text of Go's scanner; duplicate and unknown fields are collected in
//! document order with upstream's paths (`fieldValidation`); integers stay integers; invalid UTF-8
//! and lone surrogates become U+FFFD. The decoder keeps its own stack, so no document, however
//! deep, can exhaust the thread's.

mod fit;
mod scan;
mod write;

pub use fit::{Cause, Misfit, Token, misfit};
pub(crate) use scan::number;
pub use write::{append, to_text, to_vec, to_vec_pretty, to_vec_stored};

use crate::schema::{ProtoEntry, Type, TypeRef};
use scan::{Scalar, Scanner};
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
    /// The first value of a wrong type, in Go's words: the document cannot be read as what it should be.
    pub type_error: Option<String>,
}

/// Reads one document; later duplicates win silently.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    let decoded = decode(bytes, None)?;
    match decoded.type_error {
        None => Ok(decoded.value),
        Some(message) => Err(Error { message, offset: bytes.len() }),
    }
}

/// Reads one document. Under a type, unknown fields are dropped and reported, and values are held against
/// theirs; duplicates are always reported.
pub fn decode(bytes: &[u8], ty: Option<TypeRef<'_>>) -> Result<Decoded, Error> {
    let mut decoder =
        Decoder { scanner: Scanner::new(bytes), stack: Vec::new(), strict: Vec::new(), type_error: None, ended: false };
    let mode = match ty {
        Some(ty) => Mode::Typed { ty, report: true },
        None => Mode::Free { report: true },
    };
    let value = decoder.document(mode)?;
    Ok(Decoded { value, strict: decoder.strict, type_error: decoder.type_error })
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
                // JSONSchemaPropsOrArray holds schemas.
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
    type_error: Option<String>,
    /// Go would have stopped reading; only the syntax of the rest still matters.
    ended: bool,
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

    fn open(&mut self, given: Mode<'s>) -> Result<Opened<'s>, Error> {
        let mode = given.resolved();
        match self.scanner.value_start()? {
            b'{' => {
                self.fit(given, Token::Object);
                self.push(Frame::Object { map: Map::new(), key: String::new(), mode, child: mode, keep: true })?;
                match self.scanner.first_key()? {
                    Some(key) => Ok(Opened::Child(self.enter(key)?)),
                    None => Ok(Opened::Value(self.pop())),
                }
            }
            b'[' => {
                self.fit(given, Token::Array);
                // The one list that does not hold what stands alone elsewhere.
                let strings =
                    matches!(given, Mode::Typed { ty, .. } if matches!(ty.ty(), Type::SchemaOrStringArray(_)));
                let mode = if strings { Mode::Free { report: false } } else { mode };
                self.push(Frame::Array { items: Vec::new(), mode })?;
                if self.scanner.array_is_empty()? {
                    Ok(Opened::Value(self.pop()))
                } else {
                    Ok(Opened::Child(mode.item()))
                }
            }
            b'"' => {
                let text = self.scanner.string()?;
                self.fit(given, Token::String(&text));
                Ok(Opened::Value(Value::String(text)))
            }
            _ => Ok(Opened::Value(match self.scanner.scalar()? {
                Scalar::Null => Value::Null,
                Scalar::Bool(value) => {
                    self.fit(given, Token::Bool);
                    Value::Bool(value)
                }
                Scalar::Number(text) => self.number(given, text),
            })),
        }
    }

    fn number(&mut self, mode: Mode<'s>, text: &str) -> Value {
        match mode {
            Mode::Typed { ty, .. } => {
                self.fit(mode, Token::Number(text));
                if matches!(ty.ty(), Type::Quantity) {
                    // It reads the text by itself, in which 1e3 is another notation than 1000.
                    return Value::String(text.to_owned());
                }
            }
            Mode::Free { .. } => {}
            Mode::Discard => return Value::Null,
        }
        number(text).unwrap_or_else(|| {
            let cause = Cause::Type { found: format!("number {text}"), wanted: "float64".to_owned() };
            self.misfit(&Misfit { cause, ends: false }, false);
            Value::Null
        })
    }

    /// Holds a value against its type.
    fn fit(&mut self, mode: Mode<'s>, token: Token<'_>) {
        if let Mode::Typed { ty, report } = mode
            && !self.ended
            && let Some(misfit) = misfit(ty, token)
        {
            self.misfit(&misfit, !report);
        }
    }

    /// `within`: the value is part of one that reads itself.
    fn misfit(&mut self, misfit: &Misfit, within: bool) {
        if self.ended {
            return;
        }
        let ends = misfit.ends || within;
        if ends || self.type_error.is_none() {
            self.type_error = Some(self.place_of(&misfit.cause));
        }
        self.ended = ends;
    }

    /// The text of an error at the current place: Go names the innermost struct that it read by itself, and the names of
    /// all fields on the way, those of inlined structs among them.
    fn place_of(&self, cause: &Cause) -> String {
        let (mut owner, mut path) = ("", Vec::new());
        let mut owned = true;
        for frame in &self.stack {
            let Frame::Object { mode: Mode::Typed { ty, report }, key, .. } = frame else { continue };
            let Type::Object(object) = ty.ty() else { continue };
            if owned {
                owner = short(&object.name);
            }
            // What is below reads itself.
            owned &= *report;
            inlined(*ty, key, &mut path);
            path.push(key);
        }
        cause.at(owner, &path.join("."))
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

/// Whether two trees say the same, in which an integer may be written as a float.
pub fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_equal(a, b)))
        }
        _ => a == b,
    }
}

/// Names of the inlined structs through which Go reaches a field.
pub fn inlined<'a>(ty: TypeRef<'a>, name: &str, path: &mut Vec<&'a str>) {
    let mut at = ty;
    while let Some(object) = at.object() {
        let inner = object.proto.iter().find_map(|entry| match entry {
            ProtoEntry::Embed { message, .. } => Some(at.at(*message)).filter(|inner| inner.field(name).is_some()),
            ProtoEntry::Field { .. } => None,
        });
        let Some(inner) = inner else { return };
        path.push(inner.object().map_or("", |object| short(&object.name)));
        at = inner;
    }
}

/// `core/v1.Pod` → `Pod`.
pub fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

/// How Go prints a type.
pub fn go_type(ty: TypeRef<'_>) -> String {
    match ty.ty() {
        Type::Object(object) => object.name.rsplit('/').next().unwrap_or_default().to_owned(),
        Type::List(list) => format!("[]{}", go_type(ty.at(list.item))),
        Type::Map(map) => format!("map[string]{}", go_type(ty.at(map.value))),
        Type::String(string) if !string.go_name.is_empty() => string.go_name.to_string(),
        Type::String(_) => "string".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Duration => "v1.Duration".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::RawExtension => "runtime.RawExtension".to_owned(),
        Type::FieldsV1 => "v1.FieldsV1".to_owned(),
        Type::SchemaOrBool(_) => "v1.JSONSchemaPropsOrBool".to_owned(),
        Type::SchemaOrArray(_) => "v1.JSONSchemaPropsOrArray".to_owned(),
        Type::SchemaOrStringArray(_) => "v1.JSONSchemaPropsOrStringArray".to_owned(),
        Type::Json | Type::Unknown => "interface {}".to_owned(),
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
