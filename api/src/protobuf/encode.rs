//! Tree → protobuf.

use apimachinery::schema::{ObjectType, ProtoEntry, Type, TypeRef};
use apimachinery::{duration, go_base64};
use serde_json::{Map, Value};

use super::wire::Writer;
use super::{Error, MAX_DEPTH};

/// The protobuf message of `value`, without the envelope. `apiVersion` and `kind` are not part of it.
///
/// Missing fields are written as Go's zero values. Unknown fields are left out.
pub fn encode(ty: TypeRef<'_>, value: &Value) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::with_capacity(1024);
    encode_into(&mut writer, ty, value)?;
    Ok(writer.finish())
}

pub(super) fn encode_into(writer: &mut Writer, ty: TypeRef<'_>, value: &Value) -> Result<(), Error> {
    let object = ty.object().ok_or(Error::WrongValue { field: String::new(), expected: "a struct" })?;
    // An empty message is a message too; a type whose every field is JSON only is not one.
    let json_only = |field: &apimachinery::schema::Field| field.name != "apiVersion" && field.name != "kind";
    if object.proto.is_empty() && object.fields.iter().any(json_only) {
        return Err(Error::NoProtobuf(short_name(object)));
    }
    let map = value.as_object().ok_or(Error::WrongValue { field: String::new(), expected: "an object" })?;
    Encoder { writer, depth: 0 }.message(ty, map)
}

/// `core/v1.Pod` → `v1.Pod`, Go's way of naming a type.
fn short_name(object: &ObjectType) -> String {
    object.name.rsplit('/').next().unwrap_or_default().to_owned()
}

struct Encoder<'w> {
    writer: &'w mut Writer,
    depth: usize,
}

impl Encoder<'_> {
    fn message(&mut self, ty: TypeRef<'_>, map: &Map<String, Value>) -> Result<(), Error> {
        let Some(object) = ty.object() else { return Ok(()) };
        if self.depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.depth += 1;
        for entry in object.proto.iter().rev() {
            match *entry {
                ProtoEntry::Embed { number, message } => {
                    let mark = self.writer.mark();
                    self.message(ty.at(message), map)?;
                    self.writer.close(number, mark);
                }
                ProtoEntry::Field { number, field } => {
                    let field = &object.fields[usize::from(field)];
                    let value = map.get(field.name.as_ref()).unwrap_or(&Value::Null);
                    if !(value.is_null() && field.pointer) {
                        self.field(ty.at(field.ty), number, value, &field.name)?;
                    }
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// One field that is present, if only as a zero value.
    fn field(&mut self, ty: TypeRef<'_>, number: u32, value: &Value, name: &str) -> Result<(), Error> {
        match ty.ty() {
            Type::List(list) => {
                let items = match value {
                    Value::Null => return Ok(()),
                    Value::Array(items) => items,
                    _ => return Err(wrong(name, "a list")),
                };
                let item = ty.at(list.item);
                if list.wrapped {
                    let mark = self.writer.mark();
                    for value in items.iter().rev() {
                        self.single(item, 1, value, name)?;
                    }
                    self.writer.close(number, mark);
                    return Ok(());
                }
                for value in items.iter().rev() {
                    self.single(item, number, value, name)?;
                }
                Ok(())
            }
            Type::Map(map) => {
                let entries = match value {
                    Value::Null => return Ok(()),
                    Value::Object(entries) => entries,
                    _ => return Err(wrong(name, "a map")),
                };
                for (key, value) in entries.iter().rev() {
                    let mark = self.writer.mark();
                    let inner = ty.at(map.value);
                    if value.is_null() && matches!(inner.ty(), Type::List(list) if list.wrapped) {
                        self.writer.close(2, mark);
                    } else {
                        self.field(inner, 2, value, name)?;
                    }
                    self.writer.bytes_field(1, key.as_bytes());
                    self.writer.close(number, mark);
                }
                Ok(())
            }
            // A nil slice of bytes is absent, an empty one is not.
            Type::Bytes if value.is_null() => Ok(()),
            _ => self.single(ty, number, value, name),
        }
    }

    /// A value that is neither list nor map, always written.
    fn single(&mut self, ty: TypeRef<'_>, number: u32, value: &Value, name: &str) -> Result<(), Error> {
        match ty.ty() {
            Type::String(_) => match value {
                Value::String(text) => self.writer.bytes_field(number, text.as_bytes()),
                Value::Null => self.writer.bytes_field(number, b""),
                _ => return Err(wrong(name, "a string")),
            },
            Type::Bytes => self.writer.bytes_field(number, &bytes(value, name)?),
            Type::Int32 | Type::Int64 => {
                let integer = match value {
                    Value::Null => 0,
                    other => other.as_i64().ok_or_else(|| wrong(name, "an integer"))?,
                };
                self.writer.varint_field(number, integer as u64);
            }
            Type::Bool => match value {
                Value::Bool(on) => self.writer.varint_field(number, u64::from(*on)),
                Value::Null => self.writer.varint_field(number, 0),
                _ => return Err(wrong(name, "a boolean")),
            },
            Type::Double => {
                let double = match value {
                    Value::Null => 0.0,
                    other => other.as_f64().ok_or_else(|| wrong(name, "a number"))?,
                };
                self.writer.fixed64_field(number, double.to_bits());
            }
            _ => {
                let mark = self.writer.mark();
                self.nested(ty, value, name)?;
                self.writer.close(number, mark);
            }
        }
        Ok(())
    }

    /// The content of a nested message.
    fn nested(&mut self, ty: TypeRef<'_>, value: &Value, name: &str) -> Result<(), Error> {
        match ty.ty() {
            Type::Object(_) => match value {
                Value::Object(map) => self.message(ty, map),
                Value::Null => self.message(ty, &Map::new()),
                _ => Err(wrong(name, "an object")),
            },
            Type::Time | Type::MicroTime => self.time(value, name, matches!(ty.ty(), Type::MicroTime)),
            Type::Duration => {
                let nanoseconds = match value {
                    Value::Null => 0,
                    Value::String(text) => duration::parse(text).map_err(|_| wrong(name, "a duration"))?,
                    _ => return Err(wrong(name, "a duration")),
                };
                self.writer.varint_field(1, nanoseconds as u64);
                Ok(())
            }
            Type::Quantity => {
                match value {
                    Value::String(text) => self.writer.bytes_field(1, text.as_bytes()),
                    Value::Number(number) => self.writer.bytes_field(1, number.to_string().as_bytes()),
                    Value::Null => self.writer.bytes_field(1, b"0"),
                    _ => return Err(wrong(name, "a quantity")),
                }
                Ok(())
            }
            Type::IntOrString => {
                let (kind, integer, text) = match value {
                    Value::Null => (0, 0, ""),
                    Value::String(text) => (1, 0, text.as_str()),
                    other => (0, other.as_i64().ok_or_else(|| wrong(name, "a number or a string"))?, ""),
                };
                self.writer.bytes_field(3, text.as_bytes());
                self.writer.varint_field(2, integer as u64);
                self.writer.varint_field(1, kind);
                Ok(())
            }
            Type::RawExtension | Type::Json | Type::FieldsV1 => {
                if !value.is_null() {
                    let json = serde_json::to_vec(value).map_err(|_| wrong(name, "JSON"))?;
                    self.writer.bytes_field(1, &json);
                }
                Ok(())
            }
            Type::SchemaOrBool(schema) => {
                let (allows, schema_value) = match value {
                    Value::Bool(allows) => (*allows, None),
                    Value::Null => (false, None),
                    Value::Object(_) => (true, Some(value)),
                    _ => return Err(wrong(name, "a schema or a boolean")),
                };
                if let Some(value) = schema_value {
                    self.single(ty.at(*schema), 2, value, name)?;
                }
                self.writer.varint_field(1, u64::from(allows));
                Ok(())
            }
            Type::SchemaOrArray(schema) => match value {
                Value::Null => Ok(()),
                Value::Object(_) => self.single(ty.at(*schema), 1, value, name),
                Value::Array(items) => {
                    items.iter().rev().try_for_each(|item| self.single(ty.at(*schema), 2, item, name))
                }
                _ => Err(wrong(name, "a schema or a list of schemas")),
            },
            Type::SchemaOrStringArray(schema) => match value {
                Value::Null => Ok(()),
                Value::Object(_) => self.single(ty.at(*schema), 1, value, name),
                Value::Array(items) => {
                    for item in items.iter().rev() {
                        let text = item.as_str().ok_or_else(|| wrong(name, "a list of strings"))?;
                        self.writer.bytes_field(2, text.as_bytes());
                    }
                    Ok(())
                }
                _ => Err(wrong(name, "a schema or a list of strings")),
            },
            _ => Err(wrong(name, "a value with a protobuf form")),
        }
    }

    fn time(&mut self, value: &Value, name: &str, micro: bool) -> Result<(), Error> {
        let text = match value {
            Value::Null => return Ok(()),
            Value::String(text) => text,
            _ => return Err(wrong(name, "a time")),
        };
        let time: jiff::Timestamp = text.parse().map_err(|_| wrong(name, "a time"))?;
        // Nanoseconds of the second, counted forwards also before 1970.
        let nanoseconds = time.as_nanosecond();
        let seconds = nanoseconds.div_euclid(1_000_000_000) as i64;
        // Time travels in whole seconds, MicroTime in whole microseconds, as in JSON.
        let fraction = if micro { nanoseconds.rem_euclid(1_000_000_000) as u64 / 1000 * 1000 } else { 0 };
        self.writer.varint_field(2, fraction);
        self.writer.varint_field(1, seconds as u64);
        Ok(())
    }
}

fn bytes(value: &Value, name: &str) -> Result<Vec<u8>, Error> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => go_base64::decode(text).map_err(|_| wrong(name, "base64")),
        _ => Err(wrong(name, "base64")),
    }
}

fn wrong(name: &str, expected: &'static str) -> Error {
    Error::WrongValue { field: name.to_owned(), expected }
}
