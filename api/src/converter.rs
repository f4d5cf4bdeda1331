//! Trees read into structs without passing through JSON, as strategic merge patches are upstream
//! (`runtime.DefaultUnstructuredConverter`): numbers are converted as Go converts them, which wraps around, and errors
//! have words of their own.

use apimachinery::json::go_type;
use apimachinery::schema::{Type, TypeRef};
use apimachinery::{go_base64, gotext, json};
use serde_json::{Map, Number, Value};

use crate::check::check_fields;

/// Gives `value` the types that it should have; unknown fields go, and are answered as strict errors.
///
/// # Errors
/// What upstream says of the first value that cannot be converted.
pub fn convert(ty: TypeRef<'_>, value: &mut Value) -> Result<Vec<String>, String> {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    walk.value(ty, value)?;
    walk.unknown.sort();
    Ok(walk.unknown)
}

struct Walk {
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    fn value(&mut self, ty: TypeRef<'_>, value: &mut Value) -> Result<(), String> {
        let (kind, shown) = match value {
            Value::Null => return Ok(()),
            Value::Bool(_) => ("bool", "bool"),
            Value::Number(number) if number.is_f64() => ("float64", "float64"),
            Value::Number(_) => ("int64", "int64"),
            Value::String(_) => ("string", "string"),
            Value::Array(_) => ("slice", "[]interface {}"),
            Value::Object(_) => ("map", "map[string]interface {}"),
        };
        match (ty.ty(), value) {
            (Type::Object(_), Value::Object(map)) => self.object(ty, map),
            (Type::Object(_), _) => Err(format!("cannot restore struct from: {kind}")),
            (Type::Map(inner), Value::Object(map)) => {
                map.values_mut().try_for_each(|value| self.value(ty.at(inner.value), value))
            }
            (Type::Map(_), _) => Err(format!("cannot restore map from {kind}")),
            (Type::List(list), Value::Array(items)) => {
                let item = ty.at(list.item);
                let mark = self.path.len();
                for (index, value) in items.iter_mut().enumerate() {
                    self.path.push_str(&format!("[{index}]"));
                    self.value(item, value)?;
                    self.path.truncate(mark);
                }
                Ok(())
            }
            (Type::Bytes, Value::String(text)) => match go_base64::decode(text) {
                Ok(_) => Ok(()),
                Err(at) => Err(format!("error decoding from json: illegal base64 data at input byte {at}")),
            },
            (Type::List(_) | Type::Bytes, _) => Err(format!("cannot restore slice from {kind}")),
            (Type::String(_), Value::String(_)) | (Type::Bool, Value::Bool(_)) | (Type::Double, Value::Number(_)) => {
                Ok(())
            }
            // Go would make a character of it, and a whole number of a fraction.
            (Type::String(_), Value::Number(number)) if !number.is_f64() => {
                Err(format!("cannot convert {shown} to {}", go_type(ty)))
            }
            (Type::Int32 | Type::Int64, Value::Number(number)) => {
                let integer = integer(number).ok_or_else(|| format!("cannot convert {shown} to {}", go_type(ty)))?;
                let fits = if matches!(ty.ty(), Type::Int32) { i64::from(integer as i32) } else { integer };
                *number = fits.into();
                Ok(())
            }
            (Type::String(_), _) => Err("unrecognized type: string".to_owned()),
            (Type::Bool | Type::Int32 | Type::Int64 | Type::Double, _) => {
                Err(format!("unrecognized type: {}", go_type(ty)))
            }
            // The others read JSON.
            (_, value) => {
                whole(value);
                check_fields(ty, value).type_error.map_or(Ok(()), Err)
            }
        }
    }

    fn object(&mut self, ty: TypeRef<'_>, map: &mut Map<String, Value>) -> Result<(), String> {
        let mark = self.path.len();
        let mut unknown = Vec::new();
        for (name, value) in map.iter_mut() {
            if mark > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            match ty.field(name) {
                Some(field) => self.value(field.ty, value)?,
                None => {
                    self.unknown.push(format!("unknown field \"{}\"", self.path));
                    unknown.push(name.clone());
                }
            }
            self.path.truncate(mark);
        }
        for name in unknown {
            map.remove(&name);
        }
        Ok(())
    }
}

/// A number as an integer of 64 bits, as the processor makes it; `None` for fractions.
fn integer(number: &Number) -> Option<i64> {
    if let Some(integer) = number.as_i64() {
        return Some(integer);
    }
    let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
    const ABOVE: f64 = 9_223_372_036_854_775_808.0;
    // What does not fit becomes the lowest of all.
    Some(if (-ABOVE..ABOVE).contains(&float) { float as i64 } else { i64::MIN })
}

/// Numbers as they read once they were written.
fn whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let text = gotext::float(number.as_f64().unwrap_or_default());
            if let Ok(read) = json::parse(text.as_bytes()) {
                *value = read;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Object(map) => map.values_mut().for_each(whole),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::table;

    fn pod() -> TypeRef<'static> {
        table().find_kind("", "v1", "Pod").expect("built in")
    }

    #[test]
    fn wrong_types_in_the_words_of_the_converter() {
        for (mut value, error) in [
            (json!({"spec": "x"}), "cannot restore struct from: string"),
            (json!({"spec": {"nodeSelector": []}}), "cannot restore map from slice"),
            (json!({"spec": {"containers": 5}}), "cannot restore slice from int64"),
            (json!({"metadata": {"uid": ["x"]}}), "unrecognized type: string"),
            (json!({"metadata": {"name": 5}}), "cannot convert int64 to string"),
            (json!({"spec": {"restartPolicy": 5}}), "cannot convert int64 to v1.RestartPolicy"),
            (json!({"spec": {"priority": "x"}}), "unrecognized type: int32"),
            (json!({"spec": {"priority": 1.5}}), "cannot convert float64 to int32"),
            (json!({"spec": {"hostNetwork": 1}}), "unrecognized type: bool"),
        ] {
            assert_eq!(convert(pod(), &mut value).unwrap_err(), error, "{value}");
        }
    }

    #[test]
    fn numbers_are_made_to_fit() {
        for (given, made) in [
            (json!(1), json!(1)),
            (json!(1.0), json!(1)),
            (json!(4_294_967_297_i64), json!(1)),
            (json!(2_147_483_648_i64), json!(-2_147_483_648)),
            (json!(1e20), json!(0)),
        ] {
            let mut value = json!({"metadata": {"name": "a"}, "spec": {"priority": given}});
            assert_eq!(convert(pod(), &mut value), Ok(vec![]));
            assert_eq!(value["spec"]["priority"], made);
        }
        let mut value = json!({"metadata": {"generation": 1e20}, "spec": {"containers": [
            {"livenessProbe": {"httpGet": {"port": 80.0}}}]}});
        assert_eq!(convert(pod(), &mut value), Ok(vec![]));
        assert_eq!(value["metadata"]["generation"], i64::MIN);
        assert_eq!(value["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], 80);
    }

    #[test]
    fn unknown_fields_are_sorted() {
        let mut value = json!({"x": 1, "spec": {"z": 1, "containers": [{"name": "a", "q": {}}]}, "metadata": {}});
        let unknown = convert(pod(), &mut value).unwrap();
        assert_eq!(
            unknown,
            [r#"unknown field "spec.containers[0].q""#, r#"unknown field "spec.z""#, r#"unknown field "x""#]
        );
        assert_eq!(value, json!({"spec": {"containers": [{"name": "a"}]}, "metadata": {}}));
    }
}
