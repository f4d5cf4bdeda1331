//! Kubernetes' functions on lists, and cel-go's `lists` extension, version 3.

use std::cmp::Ordering;

use super::{Functions, int, take};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::{List, Result, Value};

/// A list that a function makes may not be longer than this: `lists.range` is bounded by its cost alone otherwise.
const MAX_RANGE: i64 = 10_000_000;

/// The overloads of one function for every type whose values have an order.
macro_rules! of_comparable {
    ($f:expr, $function:literal, |$type:ident| ($id:literal, $suffix:literal), $args:expr, $result:expr, $cost:expr, $action:expr) => {
        of_comparable!(@ $f, $function, $id, $suffix, $args, $result, $cost, $action,
            [("int", Int), ("uint", Uint), ("double", Double), ("bool", Bool), ("duration", Duration),
             ("timestamp", Timestamp), ("string", String), ("bytes", Bytes)])
    };
    (@ $f:expr, $function:literal, $id:literal, $suffix:literal, $args:expr, $result:expr, $cost:expr, $action:expr,
     [$(($name:literal, $type:ident)),*]) => {
        $($f.member($function, concat!($id, $name, $suffix), &$args(Type::$type), $result(Type::$type), $cost(&Type::$type), $action);)*
    };
}

/// Declares them.
pub fn declare(f: &mut Functions) {
    let elements = |_: &Type| Cost::Elements;
    let of_list = |of: Type| [Type::list(of)];
    of_comparable!(f, "isSorted", |t| ("list_", "_is_sorted_bool"), of_list, |_| Type::Bool, elements, |args| {
        let mut previous: Option<Value<'_>> = None;
        for item in list(&args[0])?.iter() {
            let item = item?;
            if let Some(previous) = &previous
                && previous.compare(&item)?.is_gt()
            {
                return Ok(Value::Bool(false));
            }
            previous = Some(item);
        }
        Ok(Value::Bool(true))
    });
    for (id, of) in [
        ("list_int_sum_int", Type::Int),
        ("list_uint_sum_uint", Type::Uint),
        ("list_double_sum_double", Type::Double),
        ("list_duration_sum_duration", Type::Duration),
    ] {
        f.member("sum", id, &[Type::list(of.clone())], of, Cost::Elements, sum);
    }
    of_comparable!(f, "max", |t| ("list_", "_max"), of_list, |of| of, elements, |args| {
        best(&args[0], "max", Ordering::Less)
    });
    of_comparable!(f, "min", |t| ("list_", "_min"), of_list, |of| of, elements, |args| {
        best(&args[0], "min", Ordering::Greater)
    });
    let a = Type::Param("A");
    let pair = [Type::list(a.clone()), a];
    f.member("indexOf", "list_a_index_of_int", &pair, Type::Int, Cost::Elements, |args| {
        let found = position(&args[0], &args[1], false)?;
        Ok(Value::Int(found))
    });
    f.member("lastIndexOf", "list_a_last_index_of_int", &pair, Type::Int, Cost::Elements, |args| {
        let found = position(&args[0], &args[1], true)?;
        Ok(Value::Int(found))
    });
    extension(f);
}

fn extension(f: &mut Functions) {
    let t = Type::Param("T");
    let of_t = Type::list(t.clone());
    f.member("slice", "list_slice", &[of_t.clone(), Type::Int, Type::Int], of_t.clone(), Cost::ListSlice, |args| {
        let (start, end) = (int(&args[1])?, int(&args[2])?);
        let list = list(&args[0])?;
        let wrong = |why: String| Error::new(format!("cannot slice({start}, {end}), {why}"));
        let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
            return Err(wrong("negative indexes not supported".into()));
        };
        if from > to {
            return Err(wrong("start index must be less than or equal to end index".into()));
        }
        if to > list.len() {
            return Err(wrong(format!("list is length {}", list.len())));
        }
        Ok(Value::list((from..to).map(|at| list.get(at)).collect::<std::result::Result<_, _>>()?))
    });
    let dyns = Type::list(Type::Dyn);
    f.member("flatten", "list_flatten", &[Type::list(of_t.clone())], of_t.clone(), Cost::ListFlatten, |args| {
        let mut out = Vec::new();
        flatten(list(&args[0])?, 1, &mut out)?;
        Ok(Value::list(out))
    });
    f.member("flatten", "list_flatten_int", &[dyns.clone(), Type::Int], dyns, Cost::ListFlatten, |args| {
        let depth = int(&args[1])?;
        if depth < 0 {
            return Err(Error::new("level must be non-negative"));
        }
        let mut out = Vec::new();
        flatten(list(&args[0])?, depth, &mut out)?;
        Ok(Value::list(out))
    });
    let sort_cost = |of: &Type| Cost::ListSort { text: matches!(of, Type::String | Type::Bytes), by: false };
    of_comparable!(f, "sort", |t| ("list_", "_sort"), |of: Type| [Type::list(of)], Type::list, sort_cost, |args| {
        let items = into_list(&mut args[0])?.into_vec()?;
        let keys = items.clone();
        sorted(items, &keys).map(Value::list)
    });
    let by_cost = |of: &Type| Cost::ListSort { text: matches!(of, Type::String | Type::Bytes), by: true };
    let by_args = |of: Type| [Type::list(Type::Param("T")), Type::list(of)];
    let by_result = |_: Type| Type::list(Type::Param("T"));
    of_comparable!(
        f,
        "@sortByAssociatedKeys",
        |t| ("list_", "_sortByAssociatedKeys"),
        by_args,
        by_result,
        by_cost,
        |args| {
            let items = into_list(&mut args[0])?.into_vec()?;
            let keys = into_list(&mut args[1])?.into_vec()?;
            sorted(items, &keys).map(Value::list)
        }
    );
    f.global("lists.range", "lists_range", &[Type::Int], Type::list(Type::Int), Cost::ListRange, |args| {
        let n = int(&args[0])?;
        if n > MAX_RANGE {
            return Err(Error::CostExceeded);
        }
        Ok(Value::list((0..n).map(Value::Int).collect()))
    });
    f.member("reverse", "list_reverse", std::slice::from_ref(&of_t), of_t.clone(), Cost::ListReverse, |args| {
        let mut items = into_list(&mut args[0])?.into_vec()?;
        items.reverse();
        Ok(Value::list(items))
    });
    f.member("distinct", "list_distinct", std::slice::from_ref(&of_t), of_t.clone(), Cost::ListDistinct, |args| {
        let mut unique: Vec<Value<'_>> = Vec::new();
        for item in list(&args[0])?.iter() {
            let item = item?;
            if !unique.iter().any(|seen| seen.equals(&item)) {
                unique.push(item);
            }
        }
        Ok(Value::list(unique))
    });
}

pub(super) fn list<'v, 'a>(value: &'v Value<'a>) -> std::result::Result<&'v List<'a>, Error> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(Error::no_such_overload()),
    }
}

fn into_list<'a>(value: &mut Value<'a>) -> std::result::Result<List<'a>, Error> {
    match take(value) {
        Value::List(list) => Ok(list),
        _ => Err(Error::no_such_overload()),
    }
}

fn sum<'a>(args: &mut [Value<'a>]) -> Result<'a> {
    let overflow = || Error::new("integer overflow");
    let mut total: Option<Value<'a>> = None;
    for item in list(&args[0])?.iter() {
        let item = item?;
        total = Some(match (total, item) {
            (None, item) => item,
            (Some(Value::Int(a)), Value::Int(b)) => Value::Int(a.checked_add(b).ok_or_else(overflow)?),
            (Some(Value::Uint(a)), Value::Uint(b)) => {
                Value::Uint(a.checked_add(b).ok_or_else(|| Error::new("unsigned integer overflow"))?)
            }
            (Some(Value::Double(a)), Value::Double(b)) => Value::Double(a + b),
            (Some(Value::Duration(a)), Value::Duration(b)) => Value::Duration(a.checked_add(b).ok_or_else(overflow)?),
            _ => return Err(Error::no_such_overload()),
        });
    }
    Ok(total.unwrap_or(Value::Int(0)))
}

/// The greatest or least item: the first of those that compare equal.
fn best<'a>(value: &Value<'a>, name: &'static str, worse: Ordering) -> Result<'a> {
    let mut best: Option<Value<'a>> = None;
    for item in list(value)?.iter() {
        let item = item?;
        match &best {
            Some(so_far) if so_far.compare(&item)? != worse => {}
            _ => best = Some(item),
        }
    }
    best.ok_or_else(|| Error::new(format!("{name} called on empty list")))
}

fn position<'a>(value: &Value<'a>, item: &Value<'a>, last: bool) -> std::result::Result<i64, Error> {
    let mut found = -1;
    for (at, other) in list(value)?.iter().enumerate() {
        if other?.equals(item) {
            found = at as i64;
            if !last {
                break;
            }
        }
    }
    Ok(found)
}

fn flatten<'a>(list: &List<'a>, depth: i64, out: &mut Vec<Value<'a>>) -> std::result::Result<(), Error> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten(&inner, depth - 1, out)?,
            item => out.push(item),
        }
    }
    Ok(())
}

/// The items in the order of their keys, which must all be of one type.
fn sorted<'a>(items: Vec<Value<'a>>, keys: &[Value<'a>]) -> std::result::Result<Vec<Value<'a>>, Error> {
    if items.len() != keys.len() {
        return Err(Error::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            items.len(),
            keys.len()
        )));
    }
    let Some(first) = keys.first() else { return Ok(items) };
    if keys.iter().any(|key| key.type_name() != first.type_name()) {
        return Err(Error::new("list elements must have the same type"));
    }
    if first.compare(first).is_err() && !matches!(first, Value::Double(_)) {
        return Err(Error::new("list elements must be comparable"));
    }
    let mut pairs: Vec<(usize, Value<'a>)> = items.into_iter().enumerate().collect();
    pairs.sort_by(|a, b| keys[a.0].compare(&keys[b.0]).unwrap_or(Ordering::Equal));
    Ok(pairs.into_iter().map(|(_, item)| item).collect())
}
