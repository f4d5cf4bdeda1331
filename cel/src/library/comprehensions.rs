//! What the comprehensions with two variables need beside their macros.

use super::{Functions, take};
use crate::cost::Cost;
use crate::error::Error;
use crate::types::Type;
use crate::value::{Map, Value};

/// Declares it.
pub fn declare(f: &mut Functions) {
    let (k, v) = (Type::Param("K"), Type::Param("V"));
    let map = Type::map(k.clone(), v.clone());
    let entry = [map.clone(), k, v];
    f.global("cel.@mapInsert", "@mapInsert_map_key_value", &entry, map.clone(), Cost::Default, |args| {
        let (Value::Map(map), key, value) = (take(&mut args[0]), take(&mut args[1]), take(&mut args[2])) else {
            return Err(Error::no_such_overload());
        };
        let mut entries = map.into_builder()?;
        entries.insert(key, value)?;
        Ok(Value::Map(Map::new(entries)))
    });
    f.global("cel.@mapInsert", "@mapInsert_map_map", &[map.clone(), map.clone()], map, Cost::Default, |args| {
        let (Value::Map(map), Value::Map(more)) = (take(&mut args[0]), take(&mut args[1])) else {
            return Err(Error::no_such_overload());
        };
        let mut entries = map.into_builder()?;
        for key in more.keys() {
            if let Some(value) = more.get(&key)? {
                entries.insert(key, value)?;
            }
        }
        Ok(Value::Map(Map::new(entries)))
    });
}
