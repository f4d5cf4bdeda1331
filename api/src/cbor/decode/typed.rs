//! What a type makes of an item.

use std::collections::HashSet;

use apimachinery::go_base64;
use apimachinery::json::go_type;
use apimachinery::schema::{Type, TypeRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::super::Error;
use super::super::head::Major;
use super::{NULL, Parser, Read, struct_why};

impl Parser<'_> {
    /// What the type says.
    pub(super) fn typed(&mut self, ty: TypeRef<'_>) -> Read {
        match ty.ty() {
            Type::RawExtension | Type::Json | Type::Unknown | Type::FieldsV1 | Type::Duration => {
                return Read::from(self.any());
            }
            Type::Time | Type::MicroTime | Type::Quantity => {
                return Read::from(self.string("string").map_or(Value::Null, Value::String));
            }
            Type::SchemaOrBool(schema) | Type::SchemaOrArray(schema) | Type::SchemaOrStringArray(schema) => {
                return Read::from(self.either(ty.at(*schema)));
            }
            _ => {}
        }
        if !self.strip_tags() {
            return Read::from(Value::Null);
        }
        if self.reader.next() == Major::Tag {
            return self.tagged(|parser| parser.typed(ty));
        }
        if self.reader.peek() == Some(NULL) {
            self.skip();
            return Read::from(Value::Null);
        }
        match (ty.ty(), self.reader.next()) {
            (Type::Object(object), Major::Map) if object.preserve_unknown && object.fields.is_empty() => {
                Read::from(self.any())
            }
            (Type::Object(_), Major::Map) => self.fields(ty),
            (Type::Map(map), Major::Map) => {
                let value = ty.at(map.value);
                let (map, unknown) = self.entries(|parser| parser.typed(value));
                Read { value: Value::Object(map), unknown }
            }
            (Type::List(list), Major::Array) => {
                let (item, mut items, mut unknown) = (ty.at(list.item), Vec::new(), None);
                self.each(|parser, _| {
                    let read = parser.typed(item);
                    unknown = unknown.or(read.unknown);
                    items.push(read.value);
                });
                Read { value: Value::Array(items), unknown }
            }
            (Type::String(_) | Type::IntOrString, Major::Text | Major::Bytes) => Read::from(Value::String(self.text())),
            (Type::Bytes, Major::Bytes) => Read::from(self.bytes()),
            (Type::Bytes, Major::Array) => Read::from(self.bytes_of_array()),
            (Type::Int32 | Type::IntOrString, Major::Positive | Major::Negative) => {
                Read::from(self.bounded(i64::from(i32::MIN)..=i64::from(i32::MAX), "int32"))
            }
            (Type::Int64, Major::Positive | Major::Negative) => Read::from(self.bounded(i64::MIN..=i64::MAX, "int64")),
            (Type::Double, Major::Positive) => Read::from(Value::from(self.argument() as f64)),
            (Type::Double, Major::Negative) => Read::from(Value::from(-1.0 - self.argument() as f64)),
            (Type::Double, Major::Primitive) if matches!(self.reader.peek(), Some(0xf9..=0xfb)) => {
                Read::from(self.primitive())
            }
            (Type::Bool, Major::Primitive) if matches!(self.reader.peek(), Some(0xf4 | 0xf5)) => {
                Read::from(self.primitive())
            }
            (Type::Object(_), Major::Array) => {
                self.mismatch(Major::Array, &go_type(ty), struct_why(Major::Array));
                self.skip();
                Read::from(Value::Null)
            }
            (Type::IntOrString, _) => {
                self.scalar_mismatch("int32");
                Read::from(Value::Null)
            }
            _ => {
                self.scalar_mismatch(&go_type(ty));
                Read::from(Value::Null)
            }
        }
    }

    /// A struct.
    fn fields(&mut self, ty: TypeRef<'_>) -> Read {
        let (mut map, mut inner, mut own) = (Map::new(), None, None);
        let mut others: HashSet<String> = HashSet::new();
        let mut repeated = false;
        let outermost = self.root.is_some() && self.field.is_none();
        self.each(|parser, index| {
            let Some(name) = parser.field_name() else { return };
            if repeated {
                return parser.skip();
            }
            let Some(field) = ty.field(&name) else {
                own = own.or(Some(index));
                if !others.insert(name.clone()) {
                    repeated = true;
                    parser.fail(Error::Duplicate { key: name, index });
                }
                return parser.skip();
            };
            if map.contains_key(&name) {
                repeated = true;
                parser.fail(Error::Duplicate { key: name, index });
                return parser.skip();
            }
            if outermost {
                parser.field = Some(name.clone());
            }
            let read = parser.typed(field.ty);
            if outermost {
                parser.field = None;
            }
            inner = inner.or(read.unknown);
            map.insert(name, read.value);
        });
        // With a name of its own that is unknown, upstream says no more of what is inside.
        Read { value: Value::Object(map), unknown: own.or(inner) }
    }

    /// `JSONSchemaPropsOrBool` and its like: a schema, or something simpler. They read themselves, and not strictly.
    fn either(&mut self, schema: TypeRef<'_>) -> Value {
        match self.reader.next() {
            Major::Map => self.typed(schema).value,
            Major::Array => {
                let mut items = Vec::new();
                self.each(|parser, _| {
                    items.push(match parser.reader.next() {
                        Major::Map => parser.typed(schema).value,
                        _ => parser.any(),
                    });
                });
                Value::Array(items)
            }
            _ => self.any(),
        }
    }

    /// `[]byte`: a byte string is base64 unless a tag says that it will be.
    fn bytes(&mut self) -> Value {
        let content = self.chunks();
        if !self.later.is_empty() {
            return Value::String(STANDARD.encode(content));
        }
        let text = String::from_utf8_lossy(&content).into_owned();
        match go_base64::decode(&text) {
            Ok(_) => Value::String(text),
            Err(at) => {
                self.fail(Error::Base64(at));
                Value::Null
            }
        }
    }

    /// `[]byte` as the numbers it is in Go.
    fn bytes_of_array(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.each(|parser, _| match parser.reader.next() {
            Major::Positive | Major::Negative => {
                let number = parser.bounded(0..=255, "uint8");
                bytes.push(number.as_u64().unwrap_or_default() as u8);
            }
            _ => parser.scalar_mismatch("uint8"),
        });
        Value::String(STANDARD.encode(bytes))
    }

    /// An integer within what its type can hold.
    fn bounded(&mut self, range: std::ops::RangeInclusive<i64>, wanted: &str) -> Value {
        let found = self.reader.next();
        let argument = self.argument();
        let number = match found {
            Major::Positive => i128::from(argument),
            _ => -1 - i128::from(argument),
        };
        match i64::try_from(number) {
            Ok(number) if range.contains(&number) => Value::from(number),
            Err(_) if found == Major::Negative => {
                self.mismatch(found, wanted, format!("{number} overflows Go's int64"));
                Value::Null
            }
            _ => {
                self.mismatch(found, wanted, format!("{number} overflows {wanted}"));
                Value::Null
            }
        }
    }
}
