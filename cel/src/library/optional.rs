//! Optional values.

use super::{Functions, lists::list, take};
use crate::ast::operator::{INDEX, OPT_INDEX, OPT_SELECT};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::Value;

/// Declares them.
pub fn declare(f: &mut Functions) {
    let (k, v) = (Type::Param("K"), Type::Param("V"));
    let of_v = Type::optional(v.clone());
    let list_v = Type::list(v.clone());
    let map_kv = Type::map(k.clone(), v.clone());
    f.global("optional.of", "optional_of", std::slice::from_ref(&v), of_v.clone(), Cost::Default, |args| {
        Ok(Value::some(take(&mut args[0])))
    });
    let id = "optional_ofNonZeroValue";
    f.global("optional.ofNonZeroValue", id, std::slice::from_ref(&v), of_v.clone(), Cost::Default, |args| {
        Ok(if args[0].is_zero() { Value::none() } else { Value::some(take(&mut args[0])) })
    });
    f.global("optional.none", "optional_none", &[], of_v.clone(), Cost::Default, |_| Ok(Value::none()));
    f.member("value", "optional_value", std::slice::from_ref(&of_v), v.clone(), Cost::Default, |args| match &args[0] {
        Value::Optional(Some(value)) => Ok(Value::clone(value)),
        Value::Optional(None) => Err(Error::new("optional.none() dereference")),
        _ => Err(Error::no_such_overload()),
    });
    f.member(
        "hasValue",
        "optional_hasValue",
        std::slice::from_ref(&of_v),
        Type::Bool,
        Cost::Default,
        |args| match &args[0] {
            Value::Optional(value) => Ok(Value::Bool(value.is_some())),
            _ => Err(Error::no_such_overload()),
        },
    );
    // The evaluator looks at the second only when the first is absent.
    f.member("or", "optional_or_optional", &[of_v.clone(), of_v.clone()], of_v.clone(), Cost::Default, or);
    f.member("orValue", "optional_orValue_value", &[of_v.clone(), v.clone()], v.clone(), Cost::Default, or_value);
    f.special(OPT_SELECT, "select_optional_field", &[Type::Dyn, Type::String], of_v.clone(), Cost::Default);
    let optional_list = Type::optional(list_v.clone());
    let optional_map = Type::optional(map_kv.clone());
    for (id, args) in [
        ("list_optindex_optional_int", [list_v.clone(), Type::Int]),
        ("optional_list_optindex_optional_int", [optional_list.clone(), Type::Int]),
        ("map_optindex_optional_value", [map_kv, k.clone()]),
        ("optional_map_optindex_optional_value", [optional_map.clone(), k.clone()]),
    ] {
        f.special(OPT_INDEX, id, &args, of_v.clone(), Cost::Default);
    }
    for (id, args) in
        [("optional_list_index_int", [optional_list, Type::Int]), ("optional_map_index_value", [optional_map, k])]
    {
        f.special(INDEX, id, &args, of_v.clone(), Cost::Default);
    }
    f.member("last", "list_last", std::slice::from_ref(&list_v), of_v.clone(), Cost::Default, |args| {
        let list = list(&args[0])?;
        Ok(if list.is_empty() { Value::none() } else { Value::some(list.get(list.len() - 1)?) })
    });
    f.member("first", "list_first", std::slice::from_ref(&list_v), of_v.clone(), Cost::Default, |args| {
        let list = list(&args[0])?;
        Ok(if list.is_empty() { Value::none() } else { Value::some(list.get(0)?) })
    });
    let optionals = [Type::list(of_v)];
    f.global("optional.unwrap", "optional_unwrap", &optionals, list_v.clone(), Cost::Default, unwrap);
    f.member("unwrapOpt", "optional_unwrapOpt", &optionals, list_v, Cost::Default, unwrap);
}

fn or<'a>(args: &mut [Value<'a>]) -> crate::value::Result<'a> {
    match &args[0] {
        Value::Optional(Some(_)) => Ok(take(&mut args[0])),
        Value::Optional(None) => Ok(take(&mut args[1])),
        _ => Err(Error::no_such_overload()),
    }
}

fn or_value<'a>(args: &mut [Value<'a>]) -> crate::value::Result<'a> {
    match &args[0] {
        Value::Optional(Some(value)) => Ok(Value::clone(value)),
        Value::Optional(None) => Ok(take(&mut args[1])),
        _ => Err(Error::no_such_overload()),
    }
}

fn unwrap<'a>(args: &mut [Value<'a>]) -> crate::value::Result<'a> {
    let mut present = Vec::new();
    for item in list(&args[0])?.iter() {
        match item? {
            Value::Optional(Some(value)) => present.push(Value::clone(&value)),
            Value::Optional(None) => {}
            other => return Err(Error::new(format!("value {other} is not optional"))),
        }
    }
    Ok(Value::list(present))
}
