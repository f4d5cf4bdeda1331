//! Kubernetes' quantities.

use std::cmp::Ordering;
use std::sync::Arc;

use apimachinery::quantity::{Format, Quantity};

use super::{Functions, text};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::Value;

/// Declares them.
pub fn declare(f: &mut Functions) {
    let quantity = Type::named("kubernetes.Quantity");
    let one = std::slice::from_ref(&quantity);
    let pair = [quantity.clone(), quantity.clone()];
    let with_int = [quantity.clone(), Type::Int];
    f.global("quantity", "string_to_quantity", &[Type::String], quantity.clone(), Cost::Parse, |args| {
        let quantity = Quantity::parse(text(&args[0])?).map_err(|e| Error::new(e.to_string()))?;
        Ok(Value::Quantity(Arc::new(quantity)))
    });
    f.global("isQuantity", "is_quantity_string", &[Type::String], Type::Bool, Cost::Parse, |args| {
        Ok(Value::Bool(Quantity::parse(text(&args[0])?).is_ok()))
    });
    f.global("sign", "quantity_sign", one, Type::Int, Cost::Nominal, |args| {
        Ok(Value::Int(i64::from(of(&args[0])?.sign())))
    });
    f.member("isGreaterThan", "quantity_is_greater_than", &pair, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(of(&args[0])?.cmp(of(&args[1])?) == Ordering::Greater))
    });
    f.member("isLessThan", "quantity_is_less_than", &pair, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(of(&args[0])?.cmp(of(&args[1])?) == Ordering::Less))
    });
    f.member("compareTo", "quantity_compare_to", &pair, Type::Int, Cost::Nominal, |args| {
        Ok(Value::Int(of(&args[0])?.cmp(of(&args[1])?) as i64))
    });
    f.member("asApproximateFloat", "quantity_get_float", one, Type::Double, Cost::Nominal, |args| {
        Ok(Value::Double(of(&args[0])?.as_f64()))
    });
    f.member("asInteger", "quantity_get_int", one, Type::Int, Cost::Nominal, |args| {
        of(&args[0])?.as_i64().map(Value::Int).ok_or_else(|| Error::new("cannot convert value to integer"))
    });
    f.member("isInteger", "quantity_is_integer", one, Type::Bool, Cost::Nominal, |args| {
        Ok(Value::Bool(of(&args[0])?.as_i64().is_some()))
    });
    f.member("add", "quantity_add", &pair, quantity.clone(), Cost::Nominal, |args| {
        let mut sum = of(&args[0])?.clone();
        sum.add(of(&args[1])?);
        Ok(Value::Quantity(Arc::new(sum)))
    });
    f.member("add", "quantity_add_int", &with_int, quantity.clone(), Cost::Nominal, |args| {
        let mut sum = of(&args[0])?.clone();
        sum.add(&Quantity::new(super::int(&args[1])?, Format::DecimalExponent));
        Ok(Value::Quantity(Arc::new(sum)))
    });
    f.member("sub", "quantity_sub", &pair, quantity.clone(), Cost::Nominal, |args| {
        let mut difference = of(&args[0])?.clone();
        difference.sub(of(&args[1])?);
        Ok(Value::Quantity(Arc::new(difference)))
    });
    f.member("sub", "quantity_sub_int", &with_int, quantity.clone(), Cost::Nominal, |args| {
        let mut difference = of(&args[0])?.clone();
        difference.sub(&Quantity::new(super::int(&args[1])?, Format::DecimalExponent));
        Ok(Value::Quantity(Arc::new(difference)))
    });
}

fn of<'v>(value: &'v Value<'_>) -> Result<&'v Quantity, Error> {
    match value {
        Value::Quantity(quantity) => Ok(quantity),
        _ => Err(Error::no_such_overload()),
    }
}
