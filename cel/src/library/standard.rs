//! CEL's own functions: sizes, conversions, tests of text, parts of times.

use super::{Action, Functions, Overload, text};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::{Result, Value};

/// Declares them.
pub fn declare(f: &mut Functions) {
    sizes(f);
    conversions(f);
    let text_pair = [Type::String, Type::String];
    f.member("contains", "contains_string", &text_pair, Type::Bool, Cost::Contains, |args| {
        Ok(Value::Bool(text(&args[0])?.contains(text(&args[1])?)))
    });
    f.member("endsWith", "ends_with_string", &text_pair, Type::Bool, Cost::Prefix, |args| {
        Ok(Value::Bool(text(&args[0])?.ends_with(text(&args[1])?)))
    });
    f.member("startsWith", "starts_with_string", &text_pair, Type::Bool, Cost::Prefix, |args| {
        Ok(Value::Bool(text(&args[0])?.starts_with(text(&args[1])?)))
    });
    for (id, member, cost) in [("matches", false, Cost::Default), ("matches_string", true, Cost::Matches)] {
        f.add(Overload {
            id,
            function: "matches",
            member,
            args: text_pair.to_vec(),
            result: Type::Bool,
            cost,
            action: Action::Regex(|args, regex| Ok(Value::Bool(regex.is_match(text(&args[0])?)))),
        });
    }
    times(f);
}

fn sizes(f: &mut Functions) {
    let list = Type::list(Type::Param("A"));
    let map = Type::map(Type::Param("A"), Type::Param("B"));
    for (id, member, of) in [
        ("size_bytes", false, Type::Bytes),
        ("bytes_size", true, Type::Bytes),
        ("size_list", false, list.clone()),
        ("list_size", true, list),
        ("size_map", false, map.clone()),
        ("map_size", true, map),
        ("size_string", false, Type::String),
        ("string_size", true, Type::String),
    ] {
        let action = Action::Plain(|args| Ok(Value::Int(i64::try_from(args[0].size()).unwrap_or(i64::MAX))));
        f.add(Overload {
            id,
            function: "size",
            member,
            args: vec![of],
            result: Type::Int,
            cost: Cost::Default,
            action,
        });
    }
}

/// The conversions of one target type, in upstream's order.
macro_rules! conversions {
    ($f:expr, $function:literal, $target:ident, [$(($id:literal, $from:ident, $cost:ident)),* $(,)?]) => {
        $($f.global($function, $id, &[Type::$from], Type::$target, Cost::$cost, |args| args[0].convert(&Type::$target));)*
    };
}

fn conversions(f: &mut Functions) {
    let a = Type::Param("A");
    f.global("type", "type", std::slice::from_ref(&a), Type::type_of(a.clone()), Cost::Default, |args| {
        Ok(Value::Type(args[0].type_of()))
    });
    conversions!(f, "bool", Bool, [("bool_to_bool", Bool, Default), ("string_to_bool", String, Default)]);
    conversions!(f, "bytes", Bytes, [("bytes_to_bytes", Bytes, Default), ("string_to_bytes", String, StringToBytes)]);
    conversions!(
        f,
        "double",
        Double,
        [
            ("double_to_double", Double, Default),
            ("int64_to_double", Int, Default),
            ("string_to_double", String, Default),
            ("uint64_to_double", Uint, Default),
        ]
    );
    conversions!(
        f,
        "duration",
        Duration,
        [
            ("duration_to_duration", Duration, Default),
            ("int64_to_duration", Int, Default),
            ("string_to_duration", String, Default),
        ]
    );
    f.global("dyn", "to_dyn", &[a], Type::Dyn, Cost::Default, |args| Ok(super::take(&mut args[0])));
    conversions!(
        f,
        "int",
        Int,
        [
            ("int64_to_int64", Int, Default),
            ("double_to_int64", Double, Default),
            ("duration_to_int64", Duration, Default),
            ("string_to_int64", String, Default),
            ("timestamp_to_int64", Timestamp, Default),
            ("uint64_to_int64", Uint, Default),
        ]
    );
    conversions!(
        f,
        "string",
        String,
        [
            ("string_to_string", String, Default),
            ("bool_to_string", Bool, Default),
            ("bytes_to_string", Bytes, BytesToString),
            ("double_to_string", Double, Default),
            ("duration_to_string", Duration, Default),
            ("int64_to_string", Int, Default),
            ("timestamp_to_string", Timestamp, Default),
            ("uint64_to_string", Uint, Default),
        ]
    );
    conversions!(
        f,
        "timestamp",
        Timestamp,
        [
            ("timestamp_to_timestamp", Timestamp, Default),
            ("int64_to_timestamp", Int, Default),
            ("string_to_timestamp", String, Default),
        ]
    );
    conversions!(
        f,
        "uint",
        Uint,
        [
            ("uint64_to_uint64", Uint, Default),
            ("double_to_uint64", Double, Default),
            ("int64_to_uint64", Int, Default),
            ("string_to_uint64", String, Default),
        ]
    );
}

/// A part of a time, with and without a time zone, and of a duration where that has it too.
macro_rules! part {
    ($f:expr, $function:literal, $id:literal, $zoned:literal, |$clock:ident| $part:expr $(, $duration:literal / $unit:literal)?) => {
        $f.member($function, $id, &[Type::Timestamp], Type::Int, Cost::Default, |args| {
            let $clock = clock(args)?;
            Ok(Value::Int(i64::from($part)))
        });
        $f.member($function, $zoned, &[Type::Timestamp, Type::String], Type::Int, Cost::Default, |args| {
            let $clock = clock(args)?;
            Ok(Value::Int(i64::from($part)))
        });
        $($f.member($function, $duration, &[Type::Duration], Type::Int, Cost::Default, |args| match &args[0] {
            Value::Duration(nanos) => Ok(Value::Int(nanos / $unit)),
            _ => Err(Error::no_such_overload()),
        });)?
    };
}

fn times(f: &mut Functions) {
    part!(f, "getFullYear", "timestamp_to_year", "timestamp_to_year_with_tz", |clock| clock.year());
    part!(f, "getMonth", "timestamp_to_month", "timestamp_to_month_with_tz", |clock| clock.month() - 1);
    part!(f, "getDayOfYear", "timestamp_to_day_of_year", "timestamp_to_day_of_year_with_tz", |clock| {
        clock.day_of_year() - 1
    });
    part!(f, "getDayOfMonth", "timestamp_to_day_of_month", "timestamp_to_day_of_month_with_tz", |clock| clock.day()
        - 1);
    part!(f, "getDate", "timestamp_to_day_of_month_1_based", "timestamp_to_day_of_month_1_based_with_tz", |clock| {
        clock.day()
    });
    part!(f, "getDayOfWeek", "timestamp_to_day_of_week", "timestamp_to_day_of_week_with_tz", |clock| {
        clock.weekday().to_sunday_zero_offset()
    });
    part!(
        f,
        "getHours",
        "timestamp_to_hours",
        "timestamp_to_hours_with_tz",
        |clock| clock.hour(),
        "duration_to_hours" / 3_600_000_000_000
    );
    part!(
        f,
        "getMinutes",
        "timestamp_to_minutes",
        "timestamp_to_minutes_with_tz",
        |clock| clock.minute(),
        "duration_to_minutes" / 60_000_000_000
    );
    part!(
        f,
        "getSeconds",
        "timestamp_to_seconds",
        "timestamp_to_seconds_tz",
        |clock| clock.second(),
        "duration_to_seconds" / 1_000_000_000
    );
    part!(
        f,
        "getMilliseconds",
        "timestamp_to_milliseconds",
        "timestamp_to_milliseconds_with_tz",
        |clock| clock.subsec_nanosecond() / 1_000_000,
        "duration_to_milliseconds" / 1_000_000
    );
}

/// The wall clock of a time, in the zone of the second argument if there is one.
fn clock(args: &[Value<'_>]) -> std::result::Result<jiff::civil::DateTime, Error> {
    match args {
        [Value::Timestamp(time)] => time.civil(None),
        [Value::Timestamp(time), zone] => time.civil(Some(text(zone)?)),
        _ => Err(Error::no_such_overload()),
    }
}

/// `string(x)` of Kubernetes' own types, declared after CEL's.
pub(super) fn to_text<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    args[0].convert(&Type::String)
}
