//! Trees to CBOR.

use apimachinery::go_base64;
use apimachinery::schema::{Type, TypeRef};
use serde_json::{Map, Number, Value};

use super::SELF_DESCRIBED;

const POSITIVE: u8 = 0;
const NEGATIVE: u8 = 1 << 5;
const BYTES: u8 = 2 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;
/// Tag 22: as text, these bytes are base64.
const BASE64_LATER: u8 = 0xd6;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;

/// A tree as a message of its own. What is `[]byte` or a float is known by the type only; without one, strings are
/// strings.
pub fn encode(value: &Value, ty: Option<TypeRef<'_>>) -> Vec<u8> {
    let mut out = SELF_DESCRIBED.to_vec();
    append(&mut out, value, ty);
    out
}

/// A tree as an item within another.
pub fn append(out: &mut Vec<u8>, value: &Value, ty: Option<TypeRef<'_>>) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Number(number) => append_number(out, number, matches!(ty.map(TypeRef::ty), Some(Type::Double))),
        Value::String(text) => match ty.map(TypeRef::ty) {
            Some(Type::Bytes) => match go_base64::decode(text) {
                Ok(bytes) => {
                    out.push(BASE64_LATER);
                    append_bytes(out, &bytes);
                }
                Err(_) => append_text(out, text),
            },
            _ => append_text(out, text),
        },
        Value::Array(items) => {
            append_array_head(out, items.len());
            let item = ty.and_then(|ty| match ty.ty() {
                Type::SchemaOrArray(schema) => Some(ty.at(*schema)),
                _ => ty.item(),
            });
            items.iter().for_each(|value| append(out, value, item));
        }
        Value::Object(map) => append_map(out, map, ty),
    }
}

fn append_map(out: &mut Vec<u8>, map: &Map<String, Value>, ty: Option<TypeRef<'_>>) {
    append_map_head(out, map.len());
    // A key's head holds its length, so that shorter keys are less.
    let mut members: Vec<(&String, &Value)> = map.iter().collect();
    members.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
    for (key, value) in members {
        append_text(out, key);
        append(out, value, ty.and_then(|ty| member(ty, key)));
    }
}

fn member<'a>(ty: TypeRef<'a>, key: &str) -> Option<TypeRef<'a>> {
    match ty.ty() {
        Type::SchemaOrBool(schema) | Type::SchemaOrArray(schema) | Type::SchemaOrStringArray(schema) => {
            ty.at(*schema).child(key)
        }
        _ => ty.child(key),
    }
}

/// A string or a name.
pub fn append_text(out: &mut Vec<u8>, text: &str) {
    append_bytes(out, text.as_bytes());
}

fn append_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    append_head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The beginning of an array of so many items.
pub fn append_array_head(out: &mut Vec<u8>, length: usize) {
    append_head(out, ARRAY, length as u64);
}

/// The beginning of a map of so many members.
pub fn append_map_head(out: &mut Vec<u8>, length: usize) {
    append_head(out, MAP, length as u64);
}

fn append_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let (info, length) = match argument {
        0..=23 => {
            out.push(major | argument as u8);
            return;
        }
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major | info);
    out.extend_from_slice(&argument.to_be_bytes()[8 - length..]);
}

fn append_number(out: &mut Vec<u8>, number: &Number, float: bool) {
    match (number.as_u64(), number.as_i64()) {
        (Some(positive), _) if !float => append_head(out, POSITIVE, positive),
        (None, Some(negative)) if !float => append_head(out, NEGATIVE, !negative as u64),
        _ => append_float(out, number.as_f64().unwrap_or_default()),
    }
}

/// A float in the shortest form that holds it.
fn append_float(out: &mut Vec<u8>, float: f64) {
    let single = float as f32;
    if f64::from(single) != float {
        out.push(0xfb);
        out.extend_from_slice(&float.to_be_bytes());
    } else if let Some(half) = half(single) {
        out.push(0xf9);
        out.extend_from_slice(&half.to_be_bytes());
    } else {
        out.push(0xfa);
        out.extend_from_slice(&single.to_be_bytes());
    }
}

/// The bits of a finite number as IEEE 754 binary16, if it can be held exactly.
fn half(single: f32) -> Option<u16> {
    let bits = single.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let (exponent, fraction) = ((bits >> 23 & 0xff) as i32 - 127, bits & 0x7f_ffff);
    if bits << 1 == 0 {
        return Some(sign);
    }
    match exponent {
        -14..=15 if fraction & 0x1fff == 0 => Some(sign | ((exponent + 15) as u16) << 10 | (fraction >> 13) as u16),
        // Subnormal there: units of 2^-24.
        -24..=-15 => {
            let shift = (-exponent - 1) as u32;
            let whole = fraction | 0x80_0000;
            (whole & ((1 << shift) - 1) == 0).then(|| sign | (whole >> shift) as u16)
        }
        _ => None,
    }
}
