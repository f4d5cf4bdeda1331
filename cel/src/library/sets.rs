//! cel-go's `sets` extension: lists as sets.

use super::{Functions, lists::list};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::{List, Value};

/// Declares it.
pub fn declare(f: &mut Functions) {
    let list_t = Type::list(Type::Param("T"));
    let pair = [list_t.clone(), list_t];
    f.global("sets.contains", "list_sets_contains_list", &pair, Type::Bool, Cost::Sets(1), |args| {
        Ok(Value::Bool(contains(list(&args[0])?, list(&args[1])?)?))
    });
    f.global("sets.equivalent", "list_sets_equivalent_list", &pair, Type::Bool, Cost::Sets(2), |args| {
        let (a, b) = (list(&args[0])?, list(&args[1])?);
        Ok(Value::Bool(contains(a, b)? && contains(b, a)?))
    });
    f.global("sets.intersects", "list_sets_intersects_list", &pair, Type::Bool, Cost::Sets(1), |args| {
        let (a, b) = (list(&args[0])?, list(&args[1])?);
        for item in a.iter() {
            if b.contains(&item?)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    });
}

fn contains<'a>(whole: &List<'a>, part: &List<'a>) -> Result<bool, Error> {
    for item in part.iter() {
        if !whole.contains(&item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}
