//! CEL's operators.

use super::{Functions, take};
use crate::ast::operator::*;
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::{Result, Value};

/// Declares the operators.
pub fn declare(f: &mut Functions) {
    let a = Type::Param("A");
    let b = Type::Param("B");
    let list = Type::list(a.clone());
    let map = Type::map(a.clone(), b.clone());
    f.special(CONDITIONAL, "conditional", &[Type::Bool, a.clone(), a.clone()], a.clone(), Cost::Conditional);
    f.special(AND, "logical_and", &[Type::Bool, Type::Bool], Type::Bool, Cost::Logical);
    f.special(OR, "logical_or", &[Type::Bool, Type::Bool], Type::Bool, Cost::Logical);
    f.global(NOT, "logical_not", &[Type::Bool], Type::Bool, Cost::Default, |args| match args[0] {
        Value::Bool(b) => Ok(Value::Bool(!b)),
        _ => Err(Error::no_such_overload()),
    });
    f.special(NOT_STRICTLY_FALSE, "not_strictly_false", &[Type::Bool], Type::Bool, Cost::Default);
    f.global(EQUALS, "equals", &[a.clone(), a.clone()], Type::Bool, Cost::Compare, |args| {
        Ok(Value::Bool(args[0].equals(&args[1])))
    });
    f.global(NOT_EQUALS, "not_equals", &[a.clone(), a.clone()], Type::Bool, Cost::Compare, |args| {
        Ok(Value::Bool(!args[0].equals(&args[1])))
    });
    arithmetic(f, &list);
    order(f);
    f.global(INDEX, "index_list", &[list.clone(), Type::Int], a.clone(), Cost::Default, index);
    f.global(INDEX, "index_map", &[map.clone(), a.clone()], b, Cost::Default, index);
    f.global(IN, "in_list", &[a.clone(), list], Type::Bool, Cost::InList, contains);
    f.global(IN, "in_map", &[a, map], Type::Bool, Cost::Default, contains);
}

fn arithmetic(f: &mut Functions, list: &Type) {
    use Type::{Bytes, Double, Duration, Int, String, Timestamp, Uint};
    for (id, args, result, cost) in [
        ("add_bytes", [Bytes, Bytes], Bytes, Cost::AddText),
        ("add_double", [Double, Double], Double, Cost::Default),
        ("add_duration_duration", [Duration, Duration], Duration, Cost::Default),
        ("add_duration_timestamp", [Duration, Timestamp], Timestamp, Cost::Default),
        ("add_timestamp_duration", [Timestamp, Duration], Timestamp, Cost::Default),
        ("add_int64", [Int, Int], Int, Cost::Default),
        ("add_list", [list.clone(), list.clone()], list.clone(), Cost::AddList),
        ("add_string", [String, String], String, Cost::AddText),
        ("add_uint64", [Uint, Uint], Uint, Cost::Default),
    ] {
        f.global(ADD, id, &args, result, cost, add);
    }
    for (id, of) in [("divide_double", Double), ("divide_int64", Int), ("divide_uint64", Uint)] {
        f.global(DIVIDE, id, &[of.clone(), of.clone()], of, Cost::Default, divide);
    }
    for (id, of) in [("modulo_int64", Int), ("modulo_uint64", Uint)] {
        f.global(MODULO, id, &[of.clone(), of.clone()], of, Cost::Default, modulo);
    }
    for (id, of) in [("multiply_double", Double), ("multiply_int64", Int), ("multiply_uint64", Uint)] {
        f.global(MULTIPLY, id, &[of.clone(), of.clone()], of, Cost::Default, multiply);
    }
    for (id, of) in [("negate_double", Double), ("negate_int64", Int)] {
        f.global(NEGATE, id, std::slice::from_ref(&of), of.clone(), Cost::Default, negate);
    }
    for (id, args, result) in [
        ("subtract_double", [Double, Double], Double),
        ("subtract_duration_duration", [Duration, Duration], Duration),
        ("subtract_int64", [Int, Int], Int),
        ("subtract_timestamp_duration", [Timestamp, Duration], Timestamp),
        ("subtract_timestamp_timestamp", [Timestamp, Timestamp], Duration),
        ("subtract_uint64", [Uint, Uint], Uint),
    ] {
        f.global(SUBTRACT, id, &args, result, Cost::Default, subtract);
    }
}

/// The overloads of one comparison, in upstream's order.
macro_rules! comparisons {
    ($f:expr, $operator:expr, $prefix:literal, $action:expr) => {{
        use Type::{Bool, Bytes, Double, Duration, Int, String, Timestamp, Uint};
        for (id, args, cost) in [
            (concat!($prefix, "_bool"), [Bool, Bool], Cost::Default),
            (concat!($prefix, "_int64"), [Int, Int], Cost::Default),
            (concat!($prefix, "_int64_double"), [Int, Double], Cost::Default),
            (concat!($prefix, "_int64_uint64"), [Int, Uint], Cost::Default),
            (concat!($prefix, "_uint64"), [Uint, Uint], Cost::Default),
            (concat!($prefix, "_uint64_double"), [Uint, Double], Cost::Default),
            (concat!($prefix, "_uint64_int64"), [Uint, Int], Cost::Default),
            (concat!($prefix, "_double"), [Double, Double], Cost::Default),
            (concat!($prefix, "_double_int64"), [Double, Int], Cost::Default),
            (concat!($prefix, "_double_uint64"), [Double, Uint], Cost::Default),
            (concat!($prefix, "_string"), [String, String], Cost::Compare),
            (concat!($prefix, "_bytes"), [Bytes, Bytes], Cost::Compare),
            (concat!($prefix, "_timestamp"), [Timestamp, Timestamp], Cost::Default),
            (concat!($prefix, "_duration"), [Duration, Duration], Cost::Default),
        ] {
            $f.global($operator, id, &args, Bool, cost, $action);
        }
    }};
}

fn order(f: &mut Functions) {
    comparisons!(f, LESS, "less", |args| Ok(Value::Bool(args[0].compare(&args[1])?.is_lt())));
    comparisons!(f, LESS_EQUALS, "less_equals", |args| Ok(Value::Bool(args[0].compare(&args[1])?.is_le())));
    comparisons!(f, GREATER, "greater", |args| Ok(Value::Bool(args[0].compare(&args[1])?.is_gt())));
    comparisons!(f, GREATER_EQUALS, "greater_equals", |args| Ok(Value::Bool(args[0].compare(&args[1])?.is_ge())));
}

fn int_overflow() -> Error {
    Error::new("integer overflow")
}

fn uint_overflow() -> Error {
    Error::new("unsigned integer overflow")
}

fn add<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    Ok(match (take(&mut args[0]), &args[1]) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(*b).ok_or_else(int_overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_add(*b).ok_or_else(uint_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::String(a), Value::String(b)) => {
            let mut text = String::with_capacity(a.len() + b.len());
            text.push_str(&a);
            text.push_str(b);
            Value::text(text)
        }
        (Value::Bytes(a), Value::Bytes(b)) => Value::Bytes([&*a, &**b].concat().into()),
        (Value::List(a), Value::List(b)) => Value::List(a.add(b)?),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_add(*b).ok_or_else(int_overflow)?),
        (Value::Duration(a), Value::Timestamp(b)) => Value::Timestamp(b.add(a)?),
        (Value::Timestamp(a), Value::Duration(b)) => Value::Timestamp(a.add(*b)?),
        _ => return Err(Error::no_such_overload()),
    })
}

fn subtract<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    Ok(match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_sub(*b).ok_or_else(int_overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_sub(*b).ok_or_else(uint_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a - b),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_sub(*b).ok_or_else(int_overflow)?),
        (Value::Timestamp(a), Value::Duration(b)) => {
            Value::Timestamp(a.add(b.checked_neg().ok_or_else(int_overflow)?)?)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => Value::Duration(a.since(b)?),
        _ => return Err(Error::no_such_overload()),
    })
}

fn multiply<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    Ok(match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_mul(*b).ok_or_else(int_overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_mul(*b).ok_or_else(uint_overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a * b),
        _ => return Err(Error::no_such_overload()),
    })
}

fn divide<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    let zero = || Error::new("division by zero");
    Ok(match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => return Err(zero()),
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_div(*b).ok_or_else(int_overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a / b),
        (Value::Double(a), Value::Double(b)) => Value::Double(a / b),
        _ => return Err(Error::no_such_overload()),
    })
}

fn modulo<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    let zero = || Error::new("modulus by zero");
    Ok(match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => return Err(zero()),
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_rem(*b).ok_or_else(int_overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a % b),
        _ => return Err(Error::no_such_overload()),
    })
}

fn negate<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    Ok(match &args[0] {
        Value::Int(n) => Value::Int(n.checked_neg().ok_or_else(int_overflow)?),
        Value::Double(n) => Value::Double(-n),
        Value::Duration(n) => Value::Duration(n.checked_neg().ok_or_else(int_overflow)?),
        _ => return Err(Error::no_such_overload()),
    })
}

fn index<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    let key = take(&mut args[1]);
    crate::eval::index(&args[0], &key)
}

fn contains<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    match &args[1] {
        Value::List(list) => list.contains(&args[0]).map(Value::Bool),
        Value::Map(map) => Ok(Value::Bool(map.get(&args[0])?.is_some())),
        _ => Err(Error::no_such_overload()),
    }
}
