//! Protobuf → tree.

use apimachinery::duration;
use apimachinery::schema::{Field, ObjectType, ProtoEntry, Type, TypeRef};
use apimachinery::time;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::wire::{BYTES, FIXED64, Reader, VARINT};
use super::{Error, MAX_DEPTH};
use crate::canonical::{self, zero};

/// The tree of a message: what Go would write as JSON after decoding it. `apiVersion` and `kind` are
/// not part of a message; [`super::decode_object`] puts them in.
pub fn decode(ty: TypeRef<'_>, bytes: &[u8]) -> Result<Value, Error> {
    decode_below(ty, bytes, 0)
}

/// As [`decode`], `depth` messages down.
pub(super) fn decode_below(ty: TypeRef<'_>, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let mut map = Map::new();
    Decoder { depth }.message(ty, bytes, &mut map)?;
    fill(ty, &mut map);
    Ok(Value::Object(map))
}

/// Adds the zero values of fields that Go never omits.
fn fill(ty: TypeRef<'_>, map: &mut Map<String, Value>) {
    for field in ty.fields() {
        if !map.contains_key(field.name.as_ref())
            && let Some(value) = zero(ty.at(field.ty), field)
        {
            map.insert(field.name.to_string(), value);
        }
    }
}

struct Decoder {
    depth: usize,
}

impl Decoder {
    /// Reads a message's fields into `map`, which may hold fields of the same message already.
    fn message(&mut self, ty: TypeRef<'_>, bytes: &[u8], map: &mut Map<String, Value>) -> Result<(), Error> {
        let Some(object) = ty.object() else { return Ok(()) };
        if self.depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        self.depth += 1;
        let mut reader = Reader::new(bytes);
        // Fields come in order nearly always, so look beside the last one first.
        let mut hint = 0;
        while !reader.is_empty() {
            let (number, wire) = reader.tag()?;
            let Some(index) = find(object, number, hint) else {
                reader.skip(wire)?;
                continue;
            };
            hint = index;
            match object.proto[index] {
                ProtoEntry::Embed { message, .. } => {
                    let name = ty.at(message).object().map_or("", |object| object.name.as_ref());
                    expect(wire, BYTES, name)?;
                    self.message(ty.at(message), reader.bytes()?, map)?;
                }
                ProtoEntry::Field { field, .. } => {
                    self.field(ty, &object.fields[usize::from(field)], wire, &mut reader, map)?;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field(
        &mut self,
        parent: TypeRef<'_>,
        field: &Field,
        wire: u8,
        reader: &mut Reader<'_>,
        map: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        let ty = parent.at(field.ty);
        let name = field.name.as_ref();
        match ty.ty() {
            Type::List(list) if list.wrapped => {
                map.insert(name.to_owned(), self.wrapped(ty.at(list.item), wire, reader, name)?);
            }
            Type::List(list) => {
                let item = ty.at(list.item);
                let packable = matches!(item.ty(), Type::Int32 | Type::Int64 | Type::Bool | Type::Double);
                let mut items = Vec::new();
                if wire == BYTES && packable {
                    let mut packed = Reader::new(reader.bytes()?);
                    let wire = if matches!(item.ty(), Type::Double) { FIXED64 } else { VARINT };
                    while !packed.is_empty() {
                        items.push(self.single(item, wire, &mut packed, name)?);
                    }
                } else {
                    items.push(self.single(item, wire, reader, name)?);
                }
                match map.get_mut(name) {
                    Some(Value::Array(known)) => known.append(&mut items),
                    _ => drop(map.insert(name.to_owned(), Value::Array(items))),
                }
            }
            Type::Map(inner) => {
                expect(wire, BYTES, name)?;
                let (key, value) = self.entry(ty.at(inner.value), reader.bytes()?, name)?;
                match map.get_mut(name) {
                    Some(Value::Object(known)) => drop(known.insert(key, value)),
                    _ => {
                        let entries = Map::from_iter([(key, value)]);
                        map.insert(name.to_owned(), Value::Object(entries));
                    }
                }
            }
            Type::Object(_) => {
                expect(wire, BYTES, name)?;
                // A message sent in pieces is merged, as everywhere in protobuf.
                let mut inner = match map.remove(name) {
                    Some(Value::Object(known)) => known,
                    _ => Map::new(),
                };
                self.message(ty, reader.bytes()?, &mut inner)?;
                fill(ty, &mut inner);
                map.insert(name.to_owned(), Value::Object(inner));
            }
            _ => {
                let value = self.single(ty, wire, reader, name)?;
                // An empty `FieldsV1` behind a pointer is `null`, which is as good as absent.
                let left_out = if field.pointer { value.is_null() } else { omitted(&value, ty.ty(), field) };
                if field.omitempty && left_out {
                    map.remove(name);
                } else {
                    map.insert(name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, ty: TypeRef<'_>, bytes: &[u8], name: &str) -> Result<(String, Value), Error> {
        let mut reader = Reader::new(bytes);
        let mut key = String::new();
        let mut value = None;
        while !reader.is_empty() {
            let (number, wire) = reader.tag()?;
            match (number, ty.ty()) {
                (1, _) => {
                    expect(wire, BYTES, name)?;
                    key = text(reader.bytes()?);
                }
                // `map[string]ExtraValue`: a list wrapped in a message.
                (2, Type::List(list)) => {
                    value = Some(self.wrapped(ty.at(list.item), wire, &mut reader, name)?);
                }
                (2, _) => value = Some(self.single(ty, wire, &mut reader, name)?),
                _ => reader.skip(wire)?,
            }
        }
        // An entry without a value has an empty list, as one with an empty message.
        let value = value.unwrap_or_else(|| match ty.ty() {
            Type::List(_) => Value::Array(Vec::new()),
            _ => zero(ty, &Field::new("", ty.id())).unwrap_or(Value::Null),
        });
        Ok((key, value))
    }

    /// A list in a message of its own, whose only field it is.
    fn wrapped(&mut self, item: TypeRef<'_>, wire: u8, reader: &mut Reader<'_>, name: &str) -> Result<Value, Error> {
        expect(wire, BYTES, name)?;
        let mut inner = Reader::new(reader.bytes()?);
        let mut items = Vec::new();
        while !inner.is_empty() {
            let (number, wire) = inner.tag()?;
            if number == 1 {
                items.push(self.single(item, wire, &mut inner, name)?);
            } else {
                inner.skip(wire)?;
            }
        }
        Ok(Value::Array(items))
    }

    /// One value that is neither list nor map.
    fn single(&mut self, ty: TypeRef<'_>, wire: u8, reader: &mut Reader<'_>, name: &str) -> Result<Value, Error> {
        match ty.ty() {
            Type::Int32 => {
                expect(wire, VARINT, name)?;
                return Ok(Value::from(reader.varint()? as i32));
            }
            Type::Int64 => {
                expect(wire, VARINT, name)?;
                return Ok(Value::from(reader.varint()? as i64));
            }
            Type::Bool => {
                expect(wire, VARINT, name)?;
                return Ok(Value::Bool(reader.varint()? as i64 != 0));
            }
            Type::Double => {
                expect(wire, FIXED64, name)?;
                let double = f64::from_bits(reader.fixed64()?);
                return canonical::double(double).ok_or_else(|| bad_json(name, "unsupported value"));
            }
            _ => {}
        }
        expect(wire, BYTES, name)?;
        let bytes = reader.bytes()?;
        match ty.ty() {
            Type::String(_) => Ok(Value::String(text(bytes))),
            Type::Bytes => Ok(Value::String(STANDARD.encode(bytes))),
            Type::Object(_) => {
                let mut map = Map::new();
                self.message(ty, bytes, &mut map)?;
                fill(ty, &mut map);
                Ok(Value::Object(map))
            }
            Type::Time | Type::MicroTime => timestamp(bytes, matches!(ty.ty(), Type::MicroTime), name),
            Type::Duration => {
                let [duration, _, _] = varints(bytes, name)?;
                Ok(Value::String(duration::format(duration as i64)))
            }
            Type::Quantity => {
                let quantity = bytes_field(bytes, 1, name)?.map(text).unwrap_or_default();
                let quantity = if quantity.is_empty() { "0".to_owned() } else { quantity };
                let canonical = apimachinery::quantity::Quantity::canonical(&quantity);
                Ok(Value::String(canonical.map_err(|error| bad_json(name, &error.to_string()))?))
            }
            Type::IntOrString => {
                let [kind, integer, _] = varints(bytes, name)?;
                if kind == 0 {
                    return Ok(Value::from(integer as i32));
                }
                Ok(Value::String(bytes_field(bytes, 3, name)?.map(text).unwrap_or_default()))
            }
            Type::RawExtension | Type::Json | Type::FieldsV1 => match bytes_field(bytes, 1, name)? {
                None | Some([]) => Ok(Value::Null),
                Some(raw) if super::is_protobuf(raw) => super::envelope::decode_object_below(raw, self.depth + 1),
                Some(json) => serde_json::from_slice(json).map_err(|error| bad_json(name, &error.to_string())),
            },
            Type::SchemaOrBool(schema) => {
                let [allows, _, _] = varints(bytes, name)?;
                match bytes_field(bytes, 2, name)? {
                    Some(message) => self.schema(ty.at(*schema), message),
                    None => Ok(Value::Bool(allows != 0)),
                }
            }
            Type::SchemaOrArray(schema) => {
                let items = repeated(bytes, 2, name)?;
                if !items.is_empty() {
                    let items: Result<Vec<Value>, Error> =
                        items.into_iter().map(|item| self.schema(ty.at(*schema), item)).collect();
                    return Ok(Value::Array(items?));
                }
                bytes_field(bytes, 1, name)?.map_or(Ok(Value::Null), |message| self.schema(ty.at(*schema), message))
            }
            Type::SchemaOrStringArray(schema) => {
                let items = repeated(bytes, 2, name)?;
                if !items.is_empty() {
                    return Ok(Value::Array(items.into_iter().map(|item| Value::String(text(item))).collect()));
                }
                bytes_field(bytes, 1, name)?.map_or(Ok(Value::Null), |message| self.schema(ty.at(*schema), message))
            }
            _ => Err(bad_json(name, "no protobuf form")),
        }
    }

    fn schema(&mut self, ty: TypeRef<'_>, bytes: &[u8]) -> Result<Value, Error> {
        let mut map = Map::new();
        self.message(ty, bytes, &mut map)?;
        fill(ty, &mut map);
        Ok(Value::Object(map))
    }
}

/// Index into the message's entries of the one with this number.
fn find(object: &ObjectType, number: u32, hint: usize) -> Option<usize> {
    for index in [hint, hint + 1] {
        if object.proto.get(index).is_some_and(|entry| entry.number() == number) {
            return Some(index);
        }
    }
    object.proto.binary_search_by_key(&number, ProtoEntry::number).ok()
}

/// Go's `omitempty` for a scalar that is no pointer.
fn omitted(value: &Value, ty: &Type, field: &Field) -> bool {
    match ty {
        Type::String(_) | Type::Bytes => value.as_str() == Some(""),
        Type::Int32 | Type::Int64 => value.as_i64() == Some(0),
        Type::Double => value.as_f64() == Some(0.0),
        Type::Bool => value == &Value::Bool(false),
        // Structs are never empty to Go; `omitzero` is what leaves them out.
        Type::Time | Type::MicroTime => field.omitzero && value.is_null(),
        _ => false,
    }
}

fn timestamp(bytes: &[u8], micro: bool, name: &str) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let [seconds, nanoseconds, _] = varints(bytes, name)?;
    let fraction = if micro { nanoseconds as i32 / 1000 * 1000 } else { 0 };
    let at = jiff::Timestamp::new(seconds as i64, fraction).map_err(|_| bad_json(name, "time out of range"))?;
    Ok(Value::String(if micro { time::format_micro(at) } else { time::format(at) }))
}

/// The varint fields 1, 2 and 3 of a small message, zero where absent.
fn varints(bytes: &[u8], name: &str) -> Result<[u64; 3], Error> {
    let mut reader = Reader::new(bytes);
    let mut values = [0; 3];
    while !reader.is_empty() {
        let (number, wire) = reader.tag()?;
        match number {
            1..=3 if wire == VARINT => values[number as usize - 1] = reader.varint()?,
            1 => return Err(Error::WrongWireType { wire, field: name.to_owned() }),
            _ => reader.skip(wire)?,
        }
    }
    Ok(values)
}

/// The last bytes field with this number.
fn bytes_field<'a>(bytes: &'a [u8], wanted: u32, name: &str) -> Result<Option<&'a [u8]>, Error> {
    Ok(repeated(bytes, wanted, name)?.pop())
}

fn repeated<'a>(bytes: &'a [u8], wanted: u32, name: &str) -> Result<Vec<&'a [u8]>, Error> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while !reader.is_empty() {
        let (number, wire) = reader.tag()?;
        if number == wanted {
            expect(wire, BYTES, name)?;
            found.push(reader.bytes()?);
        } else {
            reader.skip(wire)?;
        }
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn expect(wire: u8, wanted: u8, field: &str) -> Result<(), Error> {
    if wire == wanted { Ok(()) } else { Err(Error::WrongWireType { wire, field: go_name(field) }) }
}

/// A field's name in Go's source, which is what upstream's decoder knows it by.
fn go_name(field: &str) -> String {
    const INITIALISMS: [&str; 22] = [
        "api", "aws", "ca", "cpu", "csi", "dns", "fc", "gce", "grpc", "http", "id", "ip", "iscsi", "nfs", "os", "pid",
        "qos", "rbd", "tcp", "tls", "uid", "url",
    ];
    if field == "metadata" {
        return "ObjectMeta".to_owned();
    }
    let is_word = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_lowercase());
    let initialism = INITIALISMS.into_iter().find(|word| field.strip_prefix(word).is_some_and(is_word));
    let upper = initialism.map_or(1, str::len).min(field.len());
    field[..upper].to_ascii_uppercase() + &field[upper..]
}

fn bad_json(field: &str, reason: &str) -> Error {
    Error::BadJson { field: field.to_owned(), reason: reason.to_owned() }
}
